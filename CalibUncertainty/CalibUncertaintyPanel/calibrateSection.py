"""Calibrate this model: cases in, a stored calibration and its proof out, in the background."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from . import calibrationRuns
from .jobSection import JobSection, clock
from .parameterNode import isChosen
from .pathChoice import PathChoice


class CalibrateSection(JobSection):
    """One calibration at a time, and none while a CT is segmented."""

    def __init__(self, panel, ui):
        JobSection.__init__(
            self,
            panel,
            ui.calibrationProgressBar,
            ui.calibrationStageLabel,
            ui.calibrationTimeLabel,
            ui.calibrationErrorLabel,
        )
        self.ui = ui
        self.cases = PathChoice(panel, ui.casesPathLineEdit, "calibrationCases")
        ui.casesFolderButton.connect("clicked(bool)", self._onCasesFolder)
        ui.calibrateButton.connect("clicked(bool)", self.onCalibrate)
        ui.cancelCalibrationButton.connect("clicked(bool)", self.onCancel)
        ui.proofButton.connect("clicked(bool)", self.onProof)

    def problem(self):
        """Why a calibration cannot start, or an empty string."""
        return self.problemBefore(calibrationRuns.problem)

    def update(self):
        """Show what the parameter node says, and enable the buttons that make sense now."""
        parameterNode = self.panel.parameterNode
        if parameterNode is not None:
            self.cases.update()
            self._updateMethod(parameterNode.calibrationMethod)
        problem = self.problem()
        self.ui.calibrateButton.enabled = not problem
        self.ui.calibrateButton.toolTip = problem or _(
            "Fit the calibration to these cases in a separate process and store it in the model folder; Slicer stays usable."
        )
        self.ui.cancelCalibrationButton.enabled = self.running
        self.ui.cancelCalibrationButton.toolTip = (
            _("Stop the calibration at once; what was stored before stays")
            if self.running
            else _("Nothing is running.")
        )
        page = self._page()
        self.ui.proofButton.enabled = page is not None
        self.ui.proofButton.toolTip = (
            _("Open {path} in the browser").format(path=page)
            if page is not None
            else _("There is no proof page of this model yet: calibrate it.")
        )

    def onCalibrate(self, checked=None):
        """Check what is needed, then start."""
        names = calibrationRuns.packagesOf(self.panel.parameterNode.calibrationMethod)
        self.startOnCases(names, calibrationRuns.startCalibration, self.cases)

    def onCancel(self, checked=None):
        """Stop the calibration."""
        self.cancel(_("Cancelled. What was stored before is as it was."))

    def onProof(self, checked=None):
        """Open the proof page in the browser."""
        self.openPage(self._page())

    def onResult(self, path):
        """The record is stored: look at it again, and draw its diagram."""
        arguments, parameterNode = self.job.request["arguments"], self.panel.parameterNode
        self.finish(_("Stored in {path} after {time}.").format(path=path, time=clock(self.job.elapsedSeconds)))
        if parameterNode is not None:
            with slicer.util.NodeModify(parameterNode):
                parameterNode.proofFolder = Path(arguments["proof"])
                parameterNode.proofOf = Path(arguments["model"])
        self.panel.calibration.checkAgain(refreshDiagram=self._isOfChosenModel(arguments["model"]))
        self.panel.updateRunButton()

    def finish(self, text):
        """The calibration has ended. However it ended, what is stored may be another one: writing the proof comes after it."""
        JobSection.finish(self, text)
        self.panel.inputs.checkAgain()
        self.panel.calibration.checkAgain()

    def tidyUp(self):
        """Remove the logits of the cases."""
        calibrationRuns.tidyUp(self.job)

    def _updateMethod(self, method):
        self.ui.calibrationMethodComboBox.toolTip = calibrationRuns.methodInWords(method)
        self.ui.calibrationWaysComboBox.enabled = calibrationRuns.hasWays(method)
        changes = calibrationRuns.mayChangeLabels(method)
        self.ui.mayChangeLabelsCheckBox.enabled = changes
        self.ui.mayChangeLabelsCheckBox.toolTip = (
            _("Without this such a calibration is computed and refused, with the number of changed labels and the Dice before"
              " and after (--allow-changed-labels)")
            if changes
            else _("The chosen method changes no label.")
        )  # fmt: skip

    def _isOfChosenModel(self, folder):
        summary = self.panel.inputs.summary
        return summary is not None and Path(folder) == Path(summary.folder)

    def _page(self):
        parameterNode = self.panel.parameterNode
        if parameterNode is None or not self._isOfChosenModel(parameterNode.proofOf):
            return None
        return calibrationRuns.proofPage(parameterNode.proofFolder)

    def _onCasesFolder(self, checked=None):
        cases = self.panel.parameterNode.calibrationCases
        start = str(cases) if isChosen(cases) else ""
        folder = qt.QFileDialog.getExistingDirectory(
            self.panel.widget, _("Choose a raw nnU-Net dataset (with imagesTr and labelsTr)"), start
        )
        if folder:
            self.ui.casesPathLineEdit.currentPath = folder
