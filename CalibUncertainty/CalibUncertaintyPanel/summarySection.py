"""Case: structures with their volumes, what is known of the whole case, and the way out of Slicer as DICOM."""

import html
import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import dicomExport, layerFiles, slicerCompat, standingWords, summaryWords
from .backgroundAnswer import BackgroundAnswer
from .calibrationSection import DOUBTFUL, GOOD
from .evaluationTables import fillTable, prepareTable
from .reviewSummary import summarize

INTERVAL_MS = 150
NO_WRITER = _(
    "To write DICOM segmentations Slicer needs the extension QuantitativeReporting: install it with the Extensions Manager."
)


class SummarySection:
    """Sums the maps up in a thread, and only when somebody looks: with many structures that takes seconds."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.summary = None
        self._result = None
        self._isAsked = False
        self._problem = ""
        self._answer, self._saving = BackgroundAnswer("summary"), BackgroundAnswer("maps")
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)
        self._savingTimer = qt.QTimer()
        self._savingTimer.setInterval(INTERVAL_MS)
        self._savingTimer.connect("timeout()", self._onSavingTimer)
        prepareTable(ui.summaryTable, summaryWords.STRUCTURE_HEADS)
        ui.summaryTable.toolTip = f"{summaryWords.STRUCTURES_CAPTION} {_('These are our definitions.')}"
        ui.summaryLabel.toolTip = standingWords.HELP
        ui.summaryCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)
        ui.copySummaryButton.connect("clicked(bool)", self.onCopy)
        ui.exportDicomButton.connect("clicked(bool)", self.onExport)
        ui.saveMapsButton.connect("clicked(bool)", self.onSaveMaps)
        self._show()

    def release(self):
        """Stop timers and threads."""
        for timer in (self._timer, self._savingTimer):
            timer.stop()
        for answer in (self._answer, self._saving):
            answer.stop()

    def fill(self, result):
        """Another Result is shown, or None.

        :param result: `Result`; None where there is none, or where its folder is gone.
        """
        self._timer.stop()
        self._answer.stop()
        self._result, self.summary, self._isAsked, self._problem = result, None, False, ""
        self._tell("")
        self._askIfSeen()
        self._show()

    def onCopy(self, checked=None):
        """Put the summary on the clipboard."""
        if self.summary is not None:
            slicer.app.clipboard().setText(summaryWords.asText(self._result, self.summary, self._caseName()))

    def onExport(self, checked=None):
        """Have the labels, edited ones where there are any, written as a DICOM segmentation object."""
        overlays, ctNode = self.panel.overlays, self.panel.shownCt()
        problem = _("There are no labels.") if overlays is None else dicomExport.exportProblem(self.panel.scene, ctNode)
        if not problem and not slicerCompat.writesDicomSegmentations():
            problem = NO_WRITER
        if not problem:
            _node, item = dicomExport.prepareExport(self.panel.scene, overlays.segmentationNode, ctNode)
            problem = "" if slicerCompat.openDicomExport(self.panel.scene, item) else NO_WRITER
        self._tell(problem)

    def onSaveMaps(self, checked=None):
        """Ask for a file, and write the two maps that are shown beside it, in a thread."""
        overlays = self.panel.overlays
        if overlays is None:
            return
        name = self._result.folder.name if self._result is not None else overlays.segmentationNode.GetName()
        kinds = ";;".join((_("NRRD, with what is known of the map (*.nrrd)"), _("NIfTI and a JSON file (*.nii.gz)")))
        title = _("Save the shown probability and uncertainty")
        path = qt.QFileDialog.getSaveFileName(self.panel.widget, title, f"{name}.nrrd", kinds)
        if path:
            self._saving.start(layerFiles.saveMaps, path, layerFiles.mapsOf(overlays))
            self._savingTimer.start()
            self._tell(_("Writing the maps..."))

    def _onSavingTimer(self):
        answer = self._saving.poll()
        if answer is None:
            return
        self._savingTimer.stop()
        if answer.error is not None:
            logging.error("CalibUncertainty: maps", exc_info=answer.error)
            self._tell(_("The maps cannot be saved: {error}").format(error=answer.error))
            return
        names = ", ".join(path.name for path in answer.value)
        self._tell(_("Saved in {folder}: {names}").format(folder=answer.value[0].parent, names=names))

    def _tell(self, text):
        self.ui.exportProblemLabel.setText(text)
        self.ui.exportProblemLabel.setVisible(bool(text))

    def _onCollapsed(self, collapsed):
        self._askIfSeen()
        self._show()

    def _askIfSeen(self):
        if self._result is None or self._isAsked or self.ui.summaryCollapsibleButton.collapsed:
            return
        self._isAsked = True
        self._answer.start(summarize, self._result)
        self._timer.start()

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        self._timer.stop()
        self.summary = answer.value
        if answer.error is not None:
            logging.error("CalibUncertainty: summary", exc_info=answer.error)
            self._problem = _("The case cannot be summed up: {error}").format(error=answer.error)
        self._show()

    def _show(self):
        self.ui.summaryLabel.setText(self._text())
        for button in (self.ui.exportDicomButton, self.ui.saveMapsButton):
            button.enabled = self.panel.overlays is not None
        self.ui.summaryTable.setVisible(self.summary is not None)
        if self.summary is not None:
            fillTable(self.ui.summaryTable, summaryWords.structureRows(self.summary))
        self.ui.copySummaryButton.enabled = self.summary is not None
        self.ui.copySummaryButton.toolTip = (
            _("Put this summary on the clipboard, as text with tabs that a spreadsheet takes")
            if self.summary is not None
            else _("There is no summary yet.")
        )

    def _text(self):
        if self._result is None:
            away = self.panel.overlays is not None
            return (
                _("The Result folder of these layers is not there any more; open it again.")
                if away
                else _("A summary of the case is shown here after a run.")
            )
        result = self._result
        color = GOOD if result.calibrated else DOUBTFUL
        lines = [f"<span style='color:{color}'><b>{html.escape(summaryWords.calibration(result))}</b></span>"]
        lines += [
            f"{html.escape(name)}: {html.escape(text)}" for name, text in summaryWords.facts(result, self.summary)
        ]
        warnings = summaryWords.warnings(result)
        for text in warnings[: summaryWords.MOST_WARNINGS_IN_PANEL]:
            lines.append(f"<span style='color:{DOUBTFUL}'>{html.escape(_('Warning: {text}').format(text=text))}</span>")
        more = len(warnings) - summaryWords.MOST_WARNINGS_IN_PANEL
        if more > 0:
            lines.append(html.escape(_("... and {count} more warnings, see the report").format(count=more)))
        if self._problem:
            lines.append(f"<span style='color:{DOUBTFUL}'>{html.escape(self._problem)}</span>")
        elif self.summary is None:
            lines.append(html.escape(_("Adding up the volumes...")))
        return "<br>".join(lines)

    def _caseName(self):
        ctNode = self.panel.shownCt()
        return ctNode.GetName() if ctNode is not None else str(self._result.provenance["ct"].get("description") or "CT")
