"""What an evaluation compares: the rows for other models, and for a file of configurations. Only the chosen one is shown."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from . import modelSummary
from .parameterNode import EvaluationKind
from .pathChoice import PathChoice


class EvaluationCompared:
    """Keeps the list of models and the path of the file at what the parameter node says."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self._shown = []
        self.file = PathChoice(panel, ui.evaluationConfigurationsLineEdit, "evaluationConfigurations")
        ui.addEvaluationModelButton.connect("clicked(bool)", self.onAdd)
        ui.removeEvaluationModelButton.connect("clicked(bool)", self.onRemove)
        ui.evaluationModelsListWidget.connect("currentRowChanged(int)", self._updateButtons)

    def update(self):
        """Show the rows that the choice needs, filled."""
        parameterNode, ui = self.panel.parameterNode, self.ui
        for widget in (ui.evaluationModelsLabel, ui.evaluationModelsWidget):
            widget.setVisible(parameterNode.evaluationKind is EvaluationKind.MODELS)
        for widget in (ui.evaluationConfigurationsLabel, ui.evaluationConfigurationsLineEdit):
            widget.setVisible(parameterNode.evaluationKind is EvaluationKind.FILE)
        self.file.update()
        folders = [str(folder) for folder in parameterNode.evaluationModels]
        if folders != self._shown:
            self._shown = folders
            self._fill()
        self._updateButtons()

    def onAdd(self, checked=None):
        """Ask for the folder of a model and add it; tell in one line what is none."""
        title = _("Choose the folder of another trained nnU-Net v2 model")
        known = self.panel.parameterNode.evaluationModels
        start = str(Path(known[-1]).parent) if len(known) else str(self.panel.parameterNode.modelFolder)
        folder = qt.QFileDialog.getExistingDirectory(self.panel.widget, title, start)
        if folder:
            self.panel.evaluate.showError(self._add(folder))

    def onRemove(self, checked=None):
        """Take the chosen model off the list."""
        row = self.ui.evaluationModelsListWidget.currentRow
        folders = list(self.panel.parameterNode.evaluationModels)
        if 0 <= row < len(folders):
            del folders[row]
            self.panel.parameterNode.evaluationModels = folders

    def _add(self, folder):
        """Why a folder cannot be added, or an empty string."""
        summary, chosen = modelSummary.readModel(folder), self.panel.inputs.summary
        if summary.problem:
            return summary.problem
        known = [Path(path) for path in self.panel.parameterNode.evaluationModels]
        if chosen is not None and Path(chosen.folder) == Path(summary.folder):
            return _("{folder} is the model chosen above; it is compared anyway.").format(folder=folder)
        if Path(summary.folder) in known:
            return _("{folder} is in the list already.").format(folder=folder)
        self.panel.parameterNode.evaluationModels = [*known, Path(summary.folder)]
        return ""

    def _fill(self):
        listWidget = self.ui.evaluationModelsListWidget
        wasBlocked = listWidget.blockSignals(True)
        listWidget.clear()
        for folder in self._shown:
            listWidget.addItem(folder)
            listWidget.item(listWidget.count - 1).setToolTip(folder)
        listWidget.setCurrentRow(len(self._shown) - 1)
        listWidget.blockSignals(wasBlocked)

    def _updateButtons(self, row=None):
        chosen = 0 <= self.ui.evaluationModelsListWidget.currentRow < len(self._shown)
        self.ui.removeEvaluationModelButton.enabled = chosen
