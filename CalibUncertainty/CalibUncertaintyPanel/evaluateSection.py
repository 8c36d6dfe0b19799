"""Evaluate: labelled test cases in, figures and a report out, in the background."""

import html
from pathlib import Path

import qt
from slicer.i18n import tr as _

from . import budgetDiagram, evaluationCurves, evaluationFigures, evaluationRuns, install, slicerCompat
from .calibrationSection import DOUBTFUL
from .evaluationCompared import EvaluationCompared
from .evaluationTables import fillTable, prepareTable
from .jobSection import JobSection, clock
from .parameterNode import isChosen
from .pathChoice import PathChoice


class EvaluateSection(JobSection):
    """One evaluation at a time, and none while a CT is segmented or a model calibrated."""

    def __init__(self, panel, ui):
        JobSection.__init__(
            self,
            panel,
            ui.evaluationProgressBar,
            ui.evaluationStageLabel,
            ui.evaluationTimeLabel,
            ui.evaluationErrorLabel,
        )
        self.ui = ui
        self.content = None
        self._shown = None
        prepareTable(ui.evaluationTable, evaluationFigures.PROBABILITY_HEADS)
        prepareTable(ui.evaluationMeasuresTable, evaluationFigures.MEASURE_HEADS)
        for table in (ui.evaluationTable, ui.evaluationMeasuresTable):
            table.toolTip = evaluationFigures.EXPLAINED
        self.cases = PathChoice(panel, ui.testCasesPathLineEdit, "evaluationCases")
        self.folder = PathChoice(panel, ui.evaluationFolderLineEdit, "evaluationFolder")
        self.compared = EvaluationCompared(panel, ui)
        ui.evaluateButton.connect("clicked(bool)", self.onEvaluate)
        ui.cancelEvaluationButton.connect("clicked(bool)", self.onCancel)
        ui.openEvaluationButton.connect("clicked(bool)", self.onOpen)
        ui.evaluationReportButton.connect("clicked(bool)", self.onReport)
        ui.budgetButton.connect("clicked(bool)", self.onBudget)
        ui.evaluationConfigurationComboBox.connect("currentIndexChanged(int)", self._fillMeasures)
        self._show()

    def problem(self):
        """Why an evaluation cannot start, or an empty string."""
        return self.problemBefore(evaluationRuns.problem)

    def update(self):
        """Show what the parameter node says, and enable the buttons that make sense now."""
        parameterNode = self.panel.parameterNode
        if parameterNode is not None:
            for part in (self.cases, self.folder, self.compared):
                part.update()
            if parameterNode.evaluationShown != self._shown:
                self._read(parameterNode.evaluationShown)
        problem = self.problem()
        self.ui.evaluateButton.enabled = not problem
        self.ui.evaluateButton.toolTip = problem or _(
            "Segment these cases with the folds, flips and device chosen above, in a separate process, and compare them with "
            "their labels; Slicer stays usable. Given the folder of an earlier evaluation, only what is new is computed."
        )
        self.ui.cancelEvaluationButton.enabled = self.running
        self.ui.cancelEvaluationButton.toolTip = (
            _("Stop the evaluation at once; finished cases are kept") if self.running else _("Nothing is running.")
        )
        self._updateReportButton()

    def onEvaluate(self, checked=None):
        """Check what is needed, then start."""
        names = install.COMPUTING + install.PICTURES
        self.startOnCases(names, evaluationRuns.startEvaluation, self.cases)

    def onCancel(self, checked=None):
        """Stop the evaluation."""
        if self.running:
            folder = self.job.request["arguments"]["out"]
            self.cancel(_("Cancelled. Finished cases are kept in {folder}: choose it as report folder to go on.").format(
                folder=folder))  # fmt: skip

    def onOpen(self, checked=None):
        """Show an evaluation that was made before, here or on a terminal."""
        parameterNode = self.panel.parameterNode
        start = str(parameterNode.evaluationFolder) if isChosen(parameterNode.evaluationFolder) else ""
        title = _("Open the folder of an evaluation (with evaluation.json)")
        folder = qt.QFileDialog.getExistingDirectory(self.panel.widget, title, start)
        if folder:
            self.showError("")
            self._shown = None
            parameterNode.evaluationShown = Path(folder)
            self.update()

    def onReport(self, checked=None):
        """Open the report in the browser."""
        self.openPage(self._page())

    def onBudget(self, checked=None):
        """Draw the budget curve of the chosen measure and show it in a plot view."""
        measure = self.ui.budgetMeasureComboBox.currentData
        if self.content is None or measure is None:
            return
        curves = evaluationCurves.budgetCurves(self.content, measure)
        title = f"{self.ui.budgetMeasureComboBox.currentText}, {self.content['model']}"
        try:
            chart = budgetDiagram.updateBudget(self.panel.scene, curves, title)
        except ValueError as error:
            self.showError(str(error))
            return
        self.showError("")
        slicerCompat.showChart(chart)

    def onResult(self, path):
        """The report is written: show its figures."""
        folder = Path(path).parent
        self.finish(_("Written to {folder} after {time}.").format(folder=folder, time=clock(self.job.elapsedSeconds)))
        self._shown = None  # it may be the folder of before, with other figures
        if self.panel.parameterNode is not None:
            self.panel.parameterNode.evaluationShown = folder
            self.update()

    def _read(self, folder):
        """Take up the figures of a folder, or none."""
        from CalibUncertaintyLib import CalibUncertaintyError

        self._shown, self.content = folder, None
        if isChosen(folder):
            try:
                self.content = evaluationFigures.readEvaluation(folder)
            except CalibUncertaintyError as error:
                self.showError(str(error))
        self._show()

    def _show(self):
        content, ui = self.content, self.ui
        for widget in (
            ui.evaluationSummaryLabel,
            ui.evaluationTable,
            ui.evaluationConfigurationLabel,
            ui.evaluationConfigurationComboBox,
            ui.evaluationMeasuresTable,
            ui.budgetMeasureComboBox,
            ui.budgetButton,
            ui.evaluationReportButton,
        ):
            widget.setVisible(content is not None)
        ui.budgetMeasureComboBox.clear()
        if content is None:
            return
        ui.evaluationSummaryLabel.setText(_richText(content["model"], evaluationFigures.summaryLines(content)))
        fillTable(ui.evaluationTable, evaluationFigures.probabilityRows(content))
        self._offerConfigurations(evaluationCurves.worked(content))
        self._fillMeasures()
        for measure, title in evaluationFigures.measures(content).items():
            ui.budgetMeasureComboBox.addItem(title, measure)

    def _offerConfigurations(self, names):
        """The last one first: calibrated comes after uncalibrated."""
        combo = self.ui.evaluationConfigurationComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for name in names:
            combo.addItem(name)
        combo.setCurrentIndex(combo.count - 1)
        combo.blockSignals(wasBlocked)

    def _fillMeasures(self, index=None):
        configuration = self.ui.evaluationConfigurationComboBox.currentText
        if self.content is not None and configuration in evaluationCurves.worked(self.content):
            rows = evaluationFigures.measureRows(self.content, configuration)
            fillTable(self.ui.evaluationMeasuresTable, rows)

    def _updateReportButton(self):
        page = self._page()
        self.ui.evaluationReportButton.enabled = page is not None
        self.ui.evaluationReportButton.toolTip = (
            _("Open {path} in the browser").format(path=page) if page is not None else _("There is no report yet.")
        )

    def _page(self):
        if self.content is None or self._shown is None:
            return None
        page = Path(self._shown) / evaluationRuns.REPORT_FILE
        return page if page.is_file() else None


def _richText(model, lines):
    """The first line plain, what follows it to be noticed."""
    noticed = [f"<span style='color:{DOUBTFUL}'>{html.escape(line)}</span>" for line in lines[1:]]
    return "<br>".join([f"<b>{html.escape(model)}</b>: {html.escape(lines[0])}", *noticed])
