"""The threshold: as a value, or as what somebody has time to look at; and how much it flags."""

import logging
import math
import threading

import qt
from slicer.i18n import tr as _

from . import flaggedText
from .backgroundAnswer import BackgroundAnswer
from .overlays import SMALLEST_SHOWN
from .parameterNode import ThresholdBy
from .resultMaps import BODY_KEY
from .roiChoice import BODY_SHARE

DELAY_MS = 150  # a region of interest that is still being changed is not counted
INTERVAL_MS = 30
KEPT_COUNTS = 16  # 0.5 MB each


class ThresholdSection:
    """Counts the values of what is shown, in a thread; every threshold and budget is a look-up after that."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self._counts = {}  # (key of the measure, RoiChoice): ValueCounts
        self._asked = None
        self._applied = None  # what a budget was asked for, and the threshold that it gave
        self._problem = ""
        self._isStopped = threading.Event()
        self._answer = BackgroundAnswer("counts")
        self._delay = qt.QTimer()
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.connect("timeout()", self._start)
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)

    def release(self):
        """Stop timers and thread."""
        self._delay.stop()
        self._timer.stop()
        self._answer.stop()
        self._isStopped.set()
        self._asked = None

    def onNewOverlays(self):
        """Other layers are shown: what was counted is of another Result."""
        self.release()
        self._counts.clear()
        self._applied = None
        self._problem = ""

    def applyBudget(self):
        """Set the threshold to what the budget allows; after a move of the slider the threshold is a value again.

        Does nothing until the values are counted.
        """
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode.thresholdBy is ThresholdBy.VALUE:
            self._applied = None
            return
        choice = self._wantedChoice()
        counts = self._counts.get(choice)
        if counts is None:
            return
        budget = (choice, parameterNode.thresholdBy, self._amount())
        step = 10.0 ** -self._decimals()
        if self._applied is not None and self._applied[0] == budget:
            if abs(parameterNode.threshold - self._applied[1]) > step:
                parameterNode.thresholdBy = ThresholdBy.VALUE
            return
        threshold = _roundedUp(_thresholdOf(counts, parameterNode.thresholdBy, self._amount()), step)
        if not math.isnan(threshold):
            self._applied = budget, threshold
            parameterNode.threshold = min(threshold, 10.0)

    def update(self):
        """Show how much is flagged, and begin to count where that is not known."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode is None:
            return
        complete = overlays.result is not None
        self.ui.thresholdByComboBox.enabled = complete
        for spinBox, by in (
            (self.ui.budgetMlSpinBox, ThresholdBy.VOLUME),
            (self.ui.budgetPercentSpinBox, ThresholdBy.SHARE),
        ):
            spinBox.enabled = complete
            spinBox.setVisible(parameterNode.thresholdBy is by)
        choice = overlays.shownChoice
        if complete and choice[1] is not None and choice not in self._counts and choice != self._asked:
            self.release()
            self._problem = ""
            self._asked = choice
            self._delay.start()
        self.ui.flaggedLabel.setText(self._text(choice))

    def _text(self, choice):
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays.result is None:
            return ""
        if self._problem:
            return self._problem
        counts = self._counts.get(choice)
        if counts is None:
            return _("Above the threshold: counting...")
        if not counts.voxels:
            return flaggedText.whyEmpty(choice[1])
        budget = None
        if parameterNode.thresholdBy is not ThresholdBy.VALUE:
            budget = _budgeted(counts, parameterNode.thresholdBy, self._amount())
        line = flaggedText.flagged(
            counts, max(parameterNode.threshold, SMALLEST_SHOWN), overlays.maps.hasRoi, budget.status if budget else "",
            choice[1].ofBody,
        )  # fmt: skip
        return " ".join(filter(None, (line, *self._remarks(choice[1]))))

    def _remarks(self, roi):
        """What must be known beside: of the stored threshold, and of the part of the body that there are no maps of."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        info, provenance = overlays.measure(overlays.shownMeasure), overlays.result.provenance
        isStored = info.thresholdSource == "stored" and abs(info.threshold - parameterNode.threshold) < 10.0 ** -self._decimals()
        inBody = "body" in (provenance["calibration"].get("roi") or "")
        yield flaggedText.fittedElsewhere(isStored, inBody, roi.ofBody)
        if roi.ofBody:
            part = float(overlays.maps.get(BODY_KEY).metadata[BODY_SHARE])
            leftOut = (provenance.get("left_out") or {}).get("largest_foreground_probability")
            yield flaggedText.bodyBeyond(part, leftOut)

    def _wantedChoice(self):
        parameterNode, maps = self.panel.parameterNode, self.panel.overlays.maps
        return maps.measureKey(parameterNode.measure, parameterNode.structure), self.panel.layers.roi.choice

    def _amount(self):
        parameterNode = self.panel.parameterNode
        share = parameterNode.thresholdBy is ThresholdBy.SHARE
        return parameterNode.budgetPercent if share else parameterNode.budgetMl

    def _decimals(self):
        parameterNode = self.panel.parameterNode
        return self.panel.overlays.measure(parameterNode.measure).decimals(parameterNode.threshold, fine=True)

    def _start(self):
        overlays = self.panel.overlays
        if self._asked is None or overlays is None or overlays.result is None:
            return
        self._isStopped = threading.Event()
        key, roi = self._asked
        try:
            voxelMl, masked = overlays.maps.get(key).voxel_volume_ml, overlays.maps.masked(key, roi)
        except Exception as error:  # a file of the Result folder may be gone or damaged
            self._fail(error)
            return
        self._answer.start(masked.counts, voxelMl, self._isStopped.is_set)
        self._timer.start()

    def _fail(self, error):
        """Say why nothing is counted, in place of what would be flagged; it is not tried again."""
        logging.error("CalibUncertainty: the values cannot be counted: %s", error)
        self._problem = str(error)
        self.panel.update()

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        choice = self._asked
        self.release()
        if answer.error is not None:
            self._asked = choice
            self._fail(answer.error)
            return
        while len(self._counts) >= KEPT_COUNTS:
            self._counts.pop(next(iter(self._counts)))
        self._counts[choice] = answer.value
        self.panel.update()


def _budgeted(counts, by, amount):
    if by is ThresholdBy.SHARE:
        return counts.threshold_for_share(amount / 100)
    return counts.threshold_for_volume(amount)


def _thresholdOf(counts, by, amount):
    """The threshold that a budget gives; just above the highest value where not even that fits."""
    value = _budgeted(counts, by, amount).value
    return counts.quantile(1.0) * (1 + 2.0**-9) if math.isinf(value) else value


def _roundedUp(value, step):
    return value if math.isnan(value) else math.ceil(value / step - 1e-6) * step
