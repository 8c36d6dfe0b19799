"""CTs that wait for their turn, with the choices as they were when they were put in. No Qt."""

from types import SimpleNamespace

from slicer.i18n import tr as _

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
CHOICES = (
    "outputFolder",
    "folds",
    "device",
    "calibration",
    "pooling",
    "mirroring",
    "roiComputedMm",
    "listedBy",
    "allMeasures",
    "listedInBody",
)


class QueueItem:
    """One CT. state: WAITING, RUNNING, DONE, FAILED or CANCELLED; message: why it failed; folder: its Result.

    choices: what a run reads of a parameter node, as it was; the CT's node itself is kept, since a name or an identifier may
    be another patient's by the time it runs.
    """

    def __init__(self, parameterNode, summary):
        """
        :param parameterNode: the choices to keep.
        :param summary: `ModelSummary` of the model.
        """
        self.choices = SimpleNamespace(
            ctVolume=parameterNode.ctVolume, **{name: getattr(parameterNode, name) for name in CHOICES}
        )
        self.modelFolder = summary.folder
        self.modelName = summary.name
        self.name = parameterNode.ctVolume.GetName()
        self.state = WAITING
        self.message = ""
        self.folder = None

    @property
    def ctNode(self):
        """The CT, or None where it is not in a scene any more."""
        node = self.choices.ctVolume
        return node if node is not None and node.GetScene() is not None else None

    def end(self, state, message="", folder=None):
        """Note how it ended; the first answer counts. The CT is let go unless its Result can be shown over it."""
        if self.state not in (WAITING, RUNNING):
            return
        self.state, self.message, self.folder = state, message, folder
        if state != DONE:
            self.choices.ctVolume = None


class RunQueue:
    """The items in their order."""

    def __init__(self):
        self.items = []

    def add(self, item):
        """Put an item at the end."""
        self.items.append(item)

    @property
    def waiting(self):
        """Those whose turn has not come."""
        return [item for item in self.items if item.state == WAITING]

    def takeNext(self):
        """The next item that can run, now RUNNING; None when there is none. Those whose CT has gone fail on the way."""
        for item in self.waiting:
            if item.ctNode is None:
                item.end(FAILED, _("Its CT is not in the scene any more."))
                continue
            item.state = RUNNING
            return item
        return None

    def cancelWaiting(self, state=CANCELLED, message=""):
        """End all that wait."""
        for item in self.waiting:
            item.end(state, message)

    def forgetEnded(self):
        """Take those off the list that have ended."""
        self.items = [item for item in self.items if item.state in (WAITING, RUNNING)]
