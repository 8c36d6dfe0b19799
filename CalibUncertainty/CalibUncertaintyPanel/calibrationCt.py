"""Does the stored calibration hold for THIS CT? Compared in a thread: its voxels are looked at on a lattice."""

import html
import logging

import slicer
from slicer.i18n import tr as _

from . import ctVolume, runEstimate
from .backgroundAnswer import BackgroundAnswer

GOOD, DOUBTFUL = "#2e8b57", "#c77700"


class CtComparison:
    """Asks whenever calibration or CT are other ones. `report`: what `check` says with the CT, None as long as it is not known."""

    def __init__(self):
        self.report = None
        self._asked = None
        self._answer = BackgroundAnswer("calibration-ct")

    def ask(self, state, volumeNode):
        """Begin if there is something to compare that has not been compared yet.

        :param state: `CalibrationState`, or None.
        :param volumeNode: the chosen CT, or None.
        :return: whether an answer is being waited for that was not before.
        """
        comparable = state is not None and state.holds and not ctVolume.ctProblem(volumeNode)
        question = (id(state.report), volumeNode.GetID(), volumeNode.GetImageData().GetMTime()) if comparable else None
        if question == self._asked:
            return False
        self.stop()
        self._asked = question
        if question is None:
            return False
        grid = runEstimate.ctGrid(volumeNode, slicer.util.arrayFromVolume(volumeNode))
        self._answer.start(compare, state.report, grid)
        return True

    def stop(self):
        """Forget what was asked and answered."""
        self._answer.stop()
        self._asked = self.report = None

    def poll(self):
        """Take the answer if it is there.

        :return: whether it has come just now.
        """
        answer = self._answer.poll()
        if answer is None:
            return False
        if answer.error is not None:  # the run itself will say what is wrong with this CT
            logging.info("CalibUncertainty: the CT was not compared: %s", answer.error)
        self.report = answer.value
        return True


def compare(report, grid):
    """The report of `check` with this CT.

    :param report: a `CheckReport` whose entry holds.
    :param grid: `Volume` with the voxels of the CT.
    """
    from CalibUncertaintyLib.workflow.check import with_ct

    return with_ct(report, grid)


def ctText(report):
    """The answer in rich text, empty where nothing was compared.

    :param report: of `CtComparison`.
    """
    if report is None:
        return ""
    known = report.entries[report.chosen].range is not None
    lines = []
    if report.outside:
        lines.append(f"<span style='color:{DOUBTFUL}'><b>{_('This CT lies outside what was calibrated')}</b></span>")
        lines += [html.escape(sentence) for sentence in report.outside]
    elif known:
        lines.append(f"<span style='color:{GOOD}'><b>{_('This CT is like the calibration cases')}</b></span>: " + html.escape(
            _("spacing, field of view and HU; whether the model is as sure of it as of them shows only in a run")
        ))  # fmt: skip
    if report.ct_note:
        lines.append(html.escape(report.ct_note))
    # the tag tells the label that this is rich text; without one it would show what was escaped as it stands
    return f"<span>{'<br>'.join(lines)}</span>" if lines else ""
