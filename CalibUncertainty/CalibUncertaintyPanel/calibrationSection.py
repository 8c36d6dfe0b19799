"""Calibration: what is stored with the chosen model, whether it holds, also for the chosen CT, and its reliability diagram."""

import html

import qt
from slicer.i18n import tr as _

from . import calibrationState, reliabilityDiagram, slicerCompat
from .backgroundAnswer import BackgroundAnswer
from .calibrationCt import DOUBTFUL, GOOD, CtComparison, ctText
from .parameterNode import Pooling, foldList

CHECK_INTERVAL_MS = 150
DETAILS_SIZE = (760, 520)


class CalibrationSection:
    """Asks in a thread what is stored and shows the answer. The choices are those of the inputs."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.state = None
        self._asked = None
        self._refreshDiagram = False
        self._details = self.detailsEdit = None
        self._answer = BackgroundAnswer("calibration")
        self.ct = CtComparison()
        self._timer = qt.QTimer()
        self._timer.setInterval(CHECK_INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)
        ui.calibrationDetailsButton.connect("clicked(bool)", self.onDetails)
        ui.reliabilityButton.connect("clicked(bool)", self.onDiagram)
        ui.otherWayButton.connect("clicked(bool)", self.onOtherWay)
        ui.ctComparisonLabel.hide()

    def release(self):
        """Stop timer and threads, close the window with the details."""
        self._timer.stop()
        self._answer.stop()
        self.ct.stop()
        if self._details is not None:
            self._details.close()
            self._details.deleteLater()
            self._details = None

    def update(self):
        """Look again if model, folds, flips, the way of putting folds together or the CT are other ones."""
        parameterNode, summary = self.panel.parameterNode, self.panel.inputs.summary
        if parameterNode is None or summary is None or not summary.folds:
            self._asked = None
            self._answer.stop()
            self._timer.stop()
            self._show(None)
            return
        folds = foldList(parameterNode.folds)
        choice = (summary.folder, str(folds), parameterNode.pooling.value, parameterNode.mirroring)
        if choice == self._asked:
            self._compareCt()
            return
        self._asked = choice
        self._show(None)
        self._answer.start(
            calibrationState.readState, summary.folder, folds, parameterNode.pooling.value, parameterNode.mirroring
        )
        self._timer.start()

    def checkAgain(self, refreshDiagram=False):
        """Another calibration may have been stored.

        :param refreshDiagram: draw it as soon as it is known; it is not brought before the user's eyes.
        """
        self._asked = None
        self._refreshDiagram = refreshDiagram
        self.update()

    def onDetails(self, checked=None):
        """Show all that is known about the stored calibration, in a window beside Slicer's."""
        if self._details is None:
            self._details = qt.QDialog(self.panel.widget)
            self._details.setWindowTitle(_("Stored calibration"))
            layout = qt.QVBoxLayout(self._details)
            self.detailsEdit = qt.QPlainTextEdit()
            self.detailsEdit.setReadOnly(True)
            layout.addWidget(self.detailsEdit)
            self._details.resize(*DETAILS_SIZE)
        report = self.ct.report
        self.detailsEdit.setPlainText(self.state.text if report is None else "\n".join(report.lines()))
        self._details.show()
        self._details.activateWindow()

    def onDiagram(self, checked=None):
        """Draw the reliability diagram and show it in a plot view."""
        chart = self._draw()
        if chart is not None:
            slicerCompat.showChart(chart)

    def onOtherWay(self, checked=None):
        """Put the folds together in the way that the stored calibration is for."""
        if self.state is not None and self.state.otherWays and self.panel.parameterNode is not None:
            self.panel.parameterNode.pooling = Pooling(self.state.otherWays[0])

    def _draw(self):
        if self.state is None or reliabilityDiagram.diagramProblem(self.state.figures):
            return None
        return reliabilityDiagram.updateDiagram(self.panel.scene, self.state.figures, self.state.title)

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is not None:
            self._timer.stop()
            self._show(answer.value)
            if self._refreshDiagram:
                self._refreshDiagram = False
                self._draw()
        elif self.ct.poll():
            self._timer.stop()
            self._showCt()

    def _compareCt(self):
        parameterNode = self.panel.parameterNode
        if self.ct.ask(self.state, None if parameterNode is None else parameterNode.ctVolume):
            self._timer.start()
        self._showCt()

    def _showCt(self):
        text = ctText(self.ct.report)
        self.ui.ctComparisonLabel.setText(text)
        self.ui.ctComparisonLabel.setVisible(bool(text))

    def _show(self, state):
        self.state = state
        self._compareCt()
        waiting = self._asked is not None
        self.ui.calibrationStateLabel.setText(stateText(state, waiting))
        self.ui.calibrationStateLabel.toolTip = _toolTip(state)
        self.ui.calibrationDetailsButton.enabled = state is not None
        self.ui.calibrationDetailsButton.toolTip = (
            _("Everything that is stored with the model, and what is wrong with it")
            if state is not None
            else _("There is nothing to tell yet.")
        )
        ways = state.otherWays if state is not None else ()
        self.ui.otherWayButton.setVisible(bool(ways))
        if ways:
            self.ui.otherWayButton.setText(_("Use: {way}").format(way=Pooling(ways[0]).label()))
            self.ui.otherWayButton.toolTip = _(
                "Set 'Put folds together' (Inputs, Advanced) so that the calibration holds"
            )
        problem = _("There is no calibration that holds for these choices.")
        if state is not None and state.holds:
            problem = reliabilityDiagram.diagramProblem(state.figures)
        self.ui.reliabilityButton.enabled = not problem
        self.ui.reliabilityButton.toolTip = problem or _(
            "Plot how often voxels were right against how sure the model was, before and after calibration"
        )


def stateText(state, waiting):
    """The state in rich text.

    :param state: `CalibrationState`, or None as long as it is not known.
    :param waiting: whether it is being looked at.
    """
    if state is None:
        return _("Looking at the stored calibration...") if waiting else _("Choose a model folder above.")
    if not state.holds:
        text = f"<span style='color:{DOUBTFUL}'><b>{_('Not calibrated')}</b></span>: {html.escape(state.verdict)}"
        if state.otherWays:
            ways = "; ".join(Pooling(way).label() for way in state.otherWays)
            text += "<br>" + html.escape(_("A calibration is stored for: {ways}.").format(ways=ways))
        return text
    counted = _("{count} case") if state.cases == 1 else _("{count} cases")
    lines = [
        f"<span style='color:{GOOD}'><b>{_('Holds for these folds and flips')}</b></span>",
        f"{html.escape(state.parameters)}, {counted.format(count=state.cases)}, {html.escape(state.made)}",
    ]
    figures = []
    if state.nll is not None:
        figures.append(_("NLL {before:.4f} → {after:.4f} nats").format(before=state.nll[0], after=state.nll[1]))
    if state.ece is not None:
        before, after = (100 * value for value in state.ece)
        figures.append(_("ECE {before:.2f} → {after:.2f} %").format(before=before, after=after))
    if figures:
        lines.append(_("On its own cases: {figures}").format(figures=", ".join(figures)))
    if state.warnings:
        lines.append(
            f"<span style='color:{DOUBTFUL}'>{html.escape(_('Warning: {text}').format(text=state.warnings[0]))}</span>"
        )
    if len(state.warnings) > 1:
        lines.append(_("... and {count} more, see Details").format(count=len(state.warnings) - 1))
    return "<br>".join(lines)


def _toolTip(state):
    if state is None or not state.holds:
        return _("Whether the model's probabilities can be calibrated, and why not")
    explained = _("NLL and ECE are errors of the probabilities, lower is better: NLL how far off they are, ECE how much surer or "
                  "less sure than right. Means over the calibration cases.")  # fmt: skip
    return "\n".join([state.verdict, explained, *state.warnings])
