"""Inputs: CT, model folder with a plain statement of what is in it, folds, device, calibration."""

import html
import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import ctVolume, modelSummary, sample
from .backgroundAnswer import BackgroundAnswer
from .parameterNode import ALL_FOLDS, foldList, isChosen
from .pathChoice import PathChoice

CHECK_INTERVAL_MS = 150
SHOWN_STRUCTURES = 12


class InputsSection:
    """Keeps the input widgets and the parameter node together, those that Slicer cannot connect by itself."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.summary = None
        self._readFrom = None
        self._checked = None
        self._foldBoxes = []
        self._check = BackgroundAnswer("check")
        self._timer = qt.QTimer()
        self._timer.setInterval(CHECK_INTERVAL_MS)
        self._timer.connect("timeout()", self._onCheckTimer)
        ui.sampleButton.connect("clicked(bool)", self.onSample)
        self.model = PathChoice(panel, ui.modelPathLineEdit, "modelFolder")
        self.output = PathChoice(panel, ui.outputPathLineEdit, "outputFolder")

    def enter(self):
        """The module is opened: a model that could not be read before may be there now, on a network drive that came back."""
        if self.panel.parameterNode is not None and self.summary is not None and self.summary.problem:
            self._readFrom = None
            self.update()

    def release(self):
        """Stop timers and threads."""
        self._timer.stop()
        self._check.stop()

    def problem(self):
        """Why a run cannot start, or an empty string."""
        parameterNode = self.panel.parameterNode
        if parameterNode is None:
            return _("The scene is being closed.")
        problem = ctVolume.ctProblem(parameterNode.ctVolume)
        if problem:
            return problem
        if self.summary is None:
            return _("Choose the folder of a trained nnU-Net v2 model.")
        return self.summary.problem

    def update(self):
        """Show what the parameter node says."""
        parameterNode = self.panel.parameterNode
        self.model.update()
        self.output.update()
        self._readModel(parameterNode.modelFolder)
        self._checkFolds()
        self._startCheck(parameterNode)
        # A first look: where somebody has chosen already, the button would only be in the way.
        self.ui.sampleButton.setVisible(parameterNode.ctVolume is None or not isChosen(parameterNode.modelFolder))

    def onSample(self, checked=None):
        """Load the CT phantom, choose the demo model, and run: a first look that needs nothing else."""
        parameterNode = self.panel.parameterNode
        if self.panel.run.busy:
            return
        try:
            ctNode = sample.loadCt(self.panel.scene)
        except Exception as error:
            logging.exception("CalibUncertainty: the sample cannot be loaded")
            self.panel.showError(_("The sample cannot be loaded: {error}").format(error=error))
            return
        with slicer.util.NodeModify(parameterNode):
            parameterNode.ctVolume = ctNode
            parameterNode.modelFolder = sample.modelFolder()
            parameterNode.folds = ALL_FOLDS
        self.panel.update()
        slicer.util.setSliceViewerLayers(background=ctNode, fit=True)
        self.panel.run.onRun()

    def remember(self):
        """Keep the model folder in the list of folders used before."""
        self.model.remember()

    def checkAgain(self):
        """Look at the calibration anew: another one may have been stored."""
        self._checked = None
        if self.panel.parameterNode is not None:
            self._startCheck(self.panel.parameterNode)

    def _readModel(self, folder):
        if not isChosen(folder):
            self._showSummary(None)
            return
        if self.summary is not None and self._readFrom == folder:
            return
        self._readFrom = folder
        self._checked = None
        self._showSummary(modelSummary.readModel(folder))
        self._makeFoldBoxes(self.summary.folds)

    def _showSummary(self, summary):
        self.summary = summary
        self.ui.modelSummaryLabel.setText(_summaryText(summary))
        self.panel.updateRunButton()

    def _makeFoldBoxes(self, folds):
        for box in self._foldBoxes:
            self.ui.foldsWidget.layout().removeWidget(box)
            box.hide()
            box.deleteLater()
        self._foldBoxes = []
        for fold in folds:
            box = qt.QCheckBox(str(fold))
            box.toolTip = _("Use the network of fold {fold}").format(fold=fold)
            box.connect("clicked(bool)", self._onFoldClicked)
            self.ui.foldsWidget.layout().addWidget(box)
            self._foldBoxes.append(box)

    def _checkFolds(self):
        chosen = foldList(self.panel.parameterNode.folds)
        for box in self._foldBoxes:
            box.checked = chosen == ALL_FOLDS or box.text in [str(fold) for fold in chosen]

    def _onFoldClicked(self, checked=None):
        chosen = [box.text for box in self._foldBoxes if box.checked]
        if not chosen:
            self._checkFolds()  # at least one is needed: the click is taken back
            return
        self.panel.parameterNode.folds = ALL_FOLDS if len(chosen) == len(self._foldBoxes) else ",".join(chosen)

    def _startCheck(self, parameterNode):
        if self.summary is None or self.summary.problem:
            return
        folds = foldList(parameterNode.folds)
        known = [str(fold) for fold in self.summary.folds]
        if folds != ALL_FOLDS and not all(str(fold) in known for fold in folds):
            parameterNode.folds = folds = ALL_FOLDS  # those of another model
            self._checkFolds()
        choice = (folds, parameterNode.pooling.value, parameterNode.mirroring, parameterNode.calibration.value)
        if choice == self._checked:
            return
        self._checked = choice
        self._check.start(modelSummary.checkCalibration, self.summary, *choice)
        self._timer.start()

    def _onCheckTimer(self):
        answer = self._check.poll()
        if answer is not None:
            self._timer.stop()
            self._showSummary(answer.value)


def _summaryText(summary):
    if summary is None:
        return _("Choose the folder of a trained nnU-Net v2 model.")
    if summary.problem:
        return f"<b style='color:#c0392b'>{html.escape(summary.problem)}</b>"
    names = list(summary.structures[:SHOWN_STRUCTURES])
    if len(summary.structures) > SHOWN_STRUCTURES:
        names.append(_("and {count} more").format(count=len(summary.structures) - SHOWN_STRUCTURES))
    lines = [
        f"<b>{html.escape(summary.name)}</b>, {html.escape(summary.configuration)}",
        _("Structures ({count}): {names}").format(count=len(summary.structures), names=html.escape(", ".join(names))),
    ]
    if summary.calibrated is None:
        lines.append(_("Checking the calibration..."))
    elif summary.calibrated:
        lines.append(f"<span style='color:#2e8b57'><b>{html.escape(summary.calibrationText)}</b></span>")
    else:
        lines.append(f"<span style='color:#c77700'><b>{html.escape(summary.calibrationText)}</b></span>")
    return "<br>".join(lines)
