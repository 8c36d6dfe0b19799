"""Run: start, progress, cancel, log, and what went wrong."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import install, runs
from .parameterNode import isChosen

POLL_INTERVAL_MS = 100


class RunSection:
    """One run at a time, polled with a timer."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.job = None
        self._ctNode = None
        self._stalled = False
        self._installing = False
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self.poll)
        ui.runButton.connect("clicked(bool)", self.onRun)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)
        ui.openResultButton.connect("clicked(bool)", self.onOpenResult)
        ui.showLogButton.connect("toggled(bool)", self.onShowLog)
        ui.copyDetailsButton.connect("clicked(bool)", self.onCopyDetails)
        ui.logTextEdit.hide()
        ui.progressBar.hide()
        ui.errorLabel.hide()
        ui.stageLabel.hide()
        ui.timeLabel.hide()

    @property
    def running(self):
        """Whether a run is under way."""
        return self.job is not None and self.job.running

    def release(self):
        """Stop the run together with its whole process tree: the panel is going away."""
        self._timer.stop()
        if self.running:
            self.job.cancel()
            runs.tidyUp(self.job)
        self._ctNode = None

    def update(self):
        """Enable the buttons that make sense now and say why the others do not."""
        problem = _("A run is under way.") if self.running else self.panel.inputs.problem()
        if self._installing:
            problem = _("Packages are being installed.")
        self.ui.runButton.enabled = not problem
        self.ui.runButton.toolTip = problem or _("Segment the CT in a separate process; Slicer stays usable.")
        self.ui.cancelButton.enabled = self.running
        self.ui.cancelButton.toolTip = _("Stop the run at once") if self.running else _("Nothing is running.")
        hasDetails = self.job is not None
        self.ui.copyDetailsButton.enabled = hasDetails
        self.ui.copyDetailsButton.toolTip = (
            _("Copy command, exit code and the end of the log to the clipboard")
            if hasDetails
            else _("There has been no run.")
        )

    def onRun(self, checked=None):
        """Check what is needed, then start."""
        if self._installing:
            return
        self.showError("")
        if self.panel.needsPackages:
            refusal = self._installPackages() or self.panel.inputs.problem()  # the scene may be another one by now
            if refusal:
                self.showError(refusal)
                return
        parameterNode = self.panel.parameterNode
        try:
            with slicer.util.WaitCursor():
                self.job = runs.startRun(parameterNode, self.panel.inputs.summary.folder, self.panel.logic.command)
        except (ValueError, OSError) as error:
            self.panel.showError(str(error))
            return
        self._ctNode = parameterNode.ctVolume
        if self.panel.needsPackages:  # a substitute for tests has a model folder that is soon gone
            self.panel.inputs.remember()
        self.ui.logTextEdit.clear()
        for widget in (self.ui.progressBar, self.ui.stageLabel, self.ui.timeLabel):
            widget.show()
        self.ui.progressBar.setRange(0, 0)  # busy, until the first report
        self.ui.stageLabel.setText(_("Starting..."))
        self._timer.start()
        self.panel.updateRunButton()

    def _installPackages(self):
        # pip lets Slicer work on meanwhile: a second click must not start a second pip.
        self._installing = True
        self.panel.updateRunButton()
        self.ui.stageLabel.setText(_("Installing packages..."))
        self.ui.stageLabel.show()
        try:
            return install.ensure(lambda question: slicer.util.confirmOkCancelDisplay(question, "CalibUncertainty"))
        except Exception as error:  # what extensions and pip raise is not ours to know
            logging.exception("CalibUncertainty: installing packages failed")
            return _("Installing packages failed: {error}").format(error=error)
        finally:
            self._installing = False
            self.ui.stageLabel.hide()
            self.panel.updateRunButton()

    def onCancel(self, checked=None):
        """Stop the run."""
        if self.running:
            self.job.cancel()
            self._finish(_("Cancelled. Nothing was kept."))

    def poll(self):
        """Take what the process has said since the last call."""
        if self.job is None:
            self._timer.stop()
            return
        for event in self.job.poll():
            self._handle(event)
        if self.running:
            self._showTimes()

    def onOpenResult(self, checked=None):
        """Show a Result folder that was made elsewhere."""
        parameterNode = self.panel.parameterNode
        start = str(parameterNode.outputFolder) if isChosen(parameterNode.outputFolder) else ""
        folder = qt.QFileDialog.getExistingDirectory(
            self.panel.widget, _("Open a Result folder (with result.json)"), start
        )
        if folder:
            self.showError("")
            self.panel.showResult(folder)

    def onShowLog(self, shown):
        """Show or hide the log."""
        self.ui.logTextEdit.setVisible(shown)
        self._fillLog()

    def onCopyDetails(self, checked=None):
        """Put what a bug report needs on the clipboard."""
        slicer.app.clipboard().setText(f"{self.ui.errorLabel.text}\n{self.job.details()}")

    def _handle(self, event):
        if event.kind == "progress":
            if self._stalled:
                self._stalled = False
                self.showError("")
            self.ui.progressBar.setRange(0, 1000)
            self.ui.progressBar.setValue(round(1000 * self.job.fraction))
            self.ui.stageLabel.setText(f"{event.stage}: {event.message}" if event.message else event.stage)
        elif event.kind == "warning":
            logging.warning("CalibUncertainty: %s", event.message)
        elif event.kind == "stalled":
            self._stalled = True
            self.showError(event.message)
        elif event.kind == "result":
            self._onResult(event.folder)
        elif event.kind == "error":
            self._finish(_("Failed."))
            self.panel.showError(event.message, self.job.details())
        self._fillLog()

    def _onResult(self, folder):
        ctNode = self._ctNode
        self._finish(_("Finished in {time}.").format(time=_clock(self.job.elapsedSeconds)))
        if ctNode is None or ctNode.GetScene() is None:
            # Its patient is not in the scene any more: showing the result over another one would be dangerous.
            text = _("The run finished, but its CT is not in the scene any more. The result is in {folder}; load the CT and "
                     "use 'Open a result...'.").format(folder=folder)  # fmt: skip
            self.showError(text)
            return
        self.panel.showResult(folder, ctNode)

    def _finish(self, text):
        self._timer.stop()
        runs.tidyUp(self.job)
        self._ctNode = None
        self.ui.progressBar.hide()
        self.ui.timeLabel.hide()
        self.ui.stageLabel.setText(text)
        self._fillLog()
        self.panel.updateRunButton()

    def showError(self, text):
        """Show one line of error in the panel, or take it away."""
        self.ui.errorLabel.setText(text)
        self.ui.errorLabel.setStyleSheet("color: #c0392b; font-weight: bold")
        self.ui.errorLabel.setVisible(bool(text))

    def _showTimes(self):
        remaining = self.job.remainingSeconds
        text = _clock(self.job.elapsedSeconds)
        if remaining is not None:
            text += _(", about {time} left").format(time=_clock(remaining))
        self.ui.timeLabel.setText(text)

    def _fillLog(self):
        if self.job is not None and self.ui.showLogButton.checked:
            self.ui.logTextEdit.setPlainText("\n".join(self.job.tail))
            bar = self.ui.logTextEdit.verticalScrollBar()
            bar.setValue(bar.maximum)


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
