"""What every section with a computation in a process of its own has: polling, progress, cancel, and one line of error."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import slicerCompat

POLL_INTERVAL_MS = 100


class JobSection:
    """One job at a time, polled with a timer. What a job gives is for `onResult`, what it leaves for `tidyUp`."""

    def __init__(self, panel, progressBar, stageLabel, timeLabel, errorLabel):
        """
        :param panel: the `Panel`.
        :param progressBar, stageLabel, timeLabel, errorLabel: widgets; hidden as long as they have nothing to say.
        """
        self.panel = panel
        self.job = None
        self._stalled = False
        self._progressBar, self._stageLabel = progressBar, stageLabel
        self._timeLabel, self._errorLabel = timeLabel, errorLabel
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self.poll)
        for widget in (progressBar, stageLabel, timeLabel, errorLabel):
            widget.hide()

    @property
    def running(self):
        """Whether a job is under way."""
        return self.job is not None and self.job.running

    def release(self):
        """Stop the job together with its whole process tree: the panel is going away."""
        self._timer.stop()
        if self.running:
            self.job.cancel()
            self.tidyUp()

    def problemBefore(self, problemOf):
        """Why no job can start, whatever it is; then why this one cannot; or an empty string.

        :param problemOf: function of parameter node and usable `ModelSummary` that gives a sentence or an empty string.
        """
        parameterNode, summary = self.panel.parameterNode, self.panel.inputs.summary
        if parameterNode is None:
            return _("The scene is being closed.")
        if summary is None:
            return self.panel.busyProblem() or _("Choose the folder of a trained nnU-Net v2 model.")
        return self.panel.busyProblem() or summary.problem or problemOf(parameterNode, summary)

    def startOnCases(self, packages, start, cases):
        """Ask for the packages that are missing, start a job on labelled cases and follow it; what is in its way is said.

        :param packages: names to install, as `RunSection.installPackages` takes them.
        :param start: function of parameter node, `ModelSummary` and command that gives a running `Job`.
        :param cases: `PathChoice` of the cases, whose path is remembered.
        """
        if self.panel.run.installing or self.running:
            return
        self.showError("")
        if self.panel.needsPackages:
            refusal = self.panel.run.installPackages(packages) or self.problem()  # the scene may be another one by now
            if refusal:
                self.showError(refusal)
                return
        try:
            with slicer.util.WaitCursor():
                job = start(self.panel.parameterNode, self.panel.inputs.summary, self.panel.logic.command)
        except (ValueError, OSError) as error:
            self.panel.showError(str(error), "", self)
            return
        if self.panel.needsPackages:  # a substitute for tests has cases that are soon gone
            cases.remember()
        self.follow(job)

    def openPage(self, page):
        """Open a page in the browser; None: it has gone, so look again what there is."""
        if page is None:
            self.update()
        elif not slicerCompat.openInBrowser(page):
            self.showError(_("No program of this computer opens {path}.").format(path=page))

    def follow(self, job):
        """Show the progress of a job that has just been started."""
        self.job = job
        self._stalled = False
        for widget in (self._progressBar, self._stageLabel, self._timeLabel):
            widget.show()
        self._progressBar.setRange(0, 0)  # busy, until the first report
        self._timeLabel.setText("")
        self._stageLabel.setText(_("Starting..."))
        self._timer.start()
        self.panel.updateRunButton()

    def cancel(self, text):
        """Stop the job.

        :param text: what is said then.
        """
        if self.running:
            self.job.cancel()
            self.finish(text)

    def poll(self):
        """Take what the process has said since the last call."""
        if self.job is None:
            self._timer.stop()
            return
        for event in self.job.poll():
            self._handle(event)
        if self.running:
            self._showTimes()

    def finish(self, text):
        """The job has ended.

        :param text: how, in one line.
        """
        self._timer.stop()
        self.tidyUp()
        self._progressBar.hide()
        self._timeLabel.hide()
        self._stageLabel.setText(text)
        self.afterEvent()
        self.panel.updateRunButton()

    def showError(self, text):
        """Show one line of error in the panel, or take it away."""
        self._errorLabel.setText(text)
        self._errorLabel.setStyleSheet("color: #c0392b; font-weight: bold")
        self._errorLabel.setVisible(bool(text))

    def onResult(self, path):
        """The job has ended well and left something at this path."""
        raise NotImplementedError

    def onProgress(self, event):
        """The job has come further."""
        if self._stalled:
            self._stalled = False
            self.showError("")
        self._progressBar.setRange(0, 1000)
        self._progressBar.setValue(round(1000 * self.job.fraction))
        self._stageLabel.setText(f"{event.stage}: {event.message}" if event.message else event.stage)

    def onError(self, event):
        """The job has failed."""
        self.finish(_("Failed."))
        self.panel.showError(event.message, self.job.details(), self)

    def tidyUp(self):
        """Remove what only the process needed."""

    def afterEvent(self):
        """The job has said something."""

    def _handle(self, event):
        if event.kind == "progress":
            self.onProgress(event)
        elif event.kind == "warning":
            logging.warning("CalibUncertainty: %s", event.message)
        elif event.kind == "stalled":
            self._stalled = True
            self.showError(event.message)
        elif event.kind == "result":
            self.onResult(event.folder)
        elif event.kind == "error":
            self.onError(event)
        self.afterEvent()

    def _showTimes(self):
        remaining = self.job.remainingSeconds
        text = clock(self.job.elapsedSeconds)
        if remaining is not None:
            text += _(", about {time} left").format(time=clock(remaining))
        self._timeLabel.setText(text)


def clock(seconds):
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
