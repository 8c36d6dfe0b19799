"""The button that hands the chosen region to Segment Editor, and what happens when the reader comes back."""

from slicer.i18n import tr as _

from . import slicerCompat
from .reviewEditor import removeBox, sendToEditor


class ReviewEditing:
    """At most one region is in Segment Editor at a time."""

    def __init__(self, section, ui):
        self.section = section
        self.ui = ui
        self.sent = None
        ui.editRegionButton.connect("clicked(bool)", self.onEdit)

    def onNewRegions(self):
        """Other regions are listed: one that is being edited belongs to others."""
        self._end()

    def update(self):
        """Enable the button where a region can be edited, and say why not elsewhere."""
        why = self._problem()
        self.ui.editRegionButton.enabled = not why
        self.ui.editInBoxCheckBox.enabled = not why
        self.ui.editRegionButton.toolTip = why or _(
            "Open Segment Editor on this structure, in a copy of the labels; the model's own labels stay as they are"
        )

    def onEdit(self, checked=None):
        """Set Segment Editor up for the chosen region and open it."""
        self.update()
        if self._problem():
            return
        self._end()
        panel, region = self.section.panel, self.section.table.selected
        box = self.section.boxOf(region)
        margin = max(2, max(b - a for a, b in zip(box.start, box.stop, strict=True)) // 2)
        box = box.grown(margin, self.section.grid()[1])  # a correction may reach beyond what was doubtful
        self.sent = sendToEditor(
            panel.scene,
            panel.overlays.segmentationNode,
            panel.shownCt(),
            region,
            box,
            self.ui.editInBoxCheckBox.checked,
        )
        panel.parameterNode.labelsVisible = False  # the copy is drawn in their place; the eye brings them back
        self.section.views.show(region.peak_ras_mm)
        slicerCompat.openSegmentEditor()

    def onReturn(self):
        """The reader is back: note whether the region was edited."""
        sent = self.sent
        if sent is None:
            return
        voxels = sent.editedVoxels()
        self._end()
        if voxels is not None and sent.regionId in self.section.decisions.regions:
            self.section.verdicts.noteEdited(sent.regionId, voxels)

    def _problem(self):
        if self.section.table.selected is None:
            return _("Choose a place first.")
        if self.section.panel.shownCt() is None:
            return _("The CT of this result is not in the scene: load it and choose it above.")
        return ""

    def _end(self):
        sent, self.sent = self.sent, None
        if sent is not None and sent.node.GetScene() is not None:
            removeBox(self.section.panel.scene, sent.node)
