"""The button that saves a report: asks for a place, lets a thread write, and says where the report is."""

import html
import logging
from pathlib import Path

import qt
from slicer.i18n import tr as _

from . import ctVolume
from .backgroundAnswer import BackgroundAnswer
from .reviewReport import ReportInput, saveReport

INTERVAL_MS = 100


class ReviewReportButton:
    """One report at a time."""

    def __init__(self, section, ui):
        self.section = section
        self.ui = ui
        self._answer = BackgroundAnswer("report")
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)
        ui.reportLabel.setOpenExternalLinks(True)
        ui.reportLabel.setVisible(False)
        ui.saveReportButton.connect("clicked(bool)", self.onSave)

    @property
    def running(self):
        """Whether a report is being written."""
        return self._timer.isActive()

    def release(self):
        """Stop timer and thread."""
        self._timer.stop()
        self._answer.stop()

    def update(self):
        """Enable the button where there is something to report, and say why not elsewhere."""
        away = self.section.result is None
        self.ui.saveReportButton.enabled = not away and not self.running
        self.ui.saveReportButton.toolTip = (
            _("A report needs the Result folder: open it, or press Run.")
            if away
            else _("Save this case and the review as a web page with pictures, and as tables (CSV)")
        )

    def onSave(self, checked=None):
        """Ask for a file and write the report in the background."""
        folder = self.section.result.folder
        suggested = str(Path(folder).parent / f"{Path(folder).name} review.html")
        title, kinds = _("Save a report"), _("Web page (*.html)")
        path = qt.QFileDialog.getSaveFileName(self.section.panel.widget, title, suggested, kinds)
        if path:
            self.save(path if path.lower().endswith((".html", ".htm")) else f"{path}.html")

    def save(self, path):
        """Write the report to this file, in the background."""
        self.section.verdicts.takeNote()
        self._answer.start(saveReport, path, self.given())
        self._timer.start()
        self._say(_("Writing the report..."))
        self.update()

    def given(self):
        """The `ReportInput` of this moment."""
        section = self.section
        ctNode = section.panel.shownCt()
        decisions = {identifier: section.decisions.of(identifier) for identifier in section.decisions.regions}
        description = str(section.result.provenance["ct"].get("description") or "CT")
        window = section.panel.parameterNode.ctWindow.value
        return ReportInput(
            Path(section.result.folder),
            ctNode.GetName() if ctNode is not None else description,
            decisions,
            section.decisions.counts(),
            ctVolume.libraryVolume(ctNode) if ctNode is not None else None,
            section.boxes,
            window or (400, 40),
        )

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        self._timer.stop()
        self.update()
        if answer.error is not None:
            self._say("")
            logging.error("CalibUncertainty: report", exc_info=answer.error)
            self.section.panel.showError(_("The report cannot be saved: {error}").format(error=answer.error))
            return
        page = answer.value[0]
        url = qt.QUrl.fromLocalFile(str(page)).toString()
        saved, beside = _("Report saved:"), _("with two tables (CSV) beside it")
        self._say(f'{saved} <a href="{html.escape(url)}">{html.escape(page.name)}</a>, {beside}.')

    def _say(self, text):
        self.ui.reportLabel.setText(text)
        self.ui.reportLabel.setVisible(bool(text))
