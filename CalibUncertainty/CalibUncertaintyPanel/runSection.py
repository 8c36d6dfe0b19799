"""Run: start, progress, cancel, log, and what went wrong."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import install, runs
from .jobSection import JobSection, clock
from .parameterNode import isChosen
from .runQueue import CANCELLED, DONE, FAILED


class RunSection(JobSection):
    """One run at a time."""

    def __init__(self, panel, ui):
        JobSection.__init__(self, panel, ui.progressBar, ui.stageLabel, ui.timeLabel, ui.errorLabel)
        self.ui = ui
        self._ctNode = None
        self._installing = False
        self._item = None  # of the queue, while one of its CTs runs
        ui.runButton.connect("clicked(bool)", self.onRun)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)
        ui.openResultButton.connect("clicked(bool)", self.onOpenResult)
        ui.showLogButton.connect("toggled(bool)", self.onShowLog)
        ui.copyDetailsButton.connect("clicked(bool)", self.onCopyDetails)
        ui.logTextEdit.hide()

    def release(self):
        """Stop the run together with its whole process tree: the panel is going away."""
        JobSection.release(self)
        self._ctNode = None

    @property
    def busy(self):
        """Whether a run cannot start now, whatever is chosen."""
        return bool(self.panel.busyProblem())

    @property
    def installing(self):
        """Whether packages are being installed."""
        return self._installing

    def update(self):
        """Enable the buttons that make sense now and say why the others do not."""
        problem = self._problem()
        self.ui.runButton.enabled = not problem
        self.ui.runButton.toolTip = problem or _("Segment the CT in a separate process; Slicer stays usable.")
        self.ui.cancelButton.enabled = self.running
        self.ui.cancelButton.toolTip = _("Stop the run at once") if self.running else _("Nothing is running.")
        self.ui.sampleButton.enabled = not self.busy
        hasDetails = self.job is not None
        self.ui.copyDetailsButton.enabled = hasDetails
        self.ui.copyDetailsButton.toolTip = (
            _("Copy command, exit code and the end of the log to the clipboard")
            if hasDetails
            else _("There has been no run.")
        )

    def _problem(self):
        return self.panel.busyProblem() or self.panel.inputs.problem()

    def onRun(self, checked=None):
        """Check what is needed, then start."""
        if self.busy:
            return
        self.showError("")
        if self.panel.needsPackages:
            refusal = self.installPackages() or self.panel.inputs.problem()  # the scene may be another one by now
            if refusal:
                self.showError(refusal)
                return
        try:
            self._start(self.panel.parameterNode, self.panel.inputs.summary.folder)
        except (ValueError, OSError) as error:
            self.panel.showError(str(error))
            return
        if self.panel.needsPackages:  # a substitute for tests has a model folder that is soon gone
            self.panel.inputs.remember()

    def startQueued(self, item):
        """Run a CT of the queue; what is wrong with it is noted in it, and no question is left open on the screen.

        :param item: `QueueItem` that is RUNNING.
        :return: why none of the queue can run, or an empty string.
        """
        refusal = self.installPackages() if self.panel.needsPackages else ""
        if refusal:
            self.showError(refusal)
            return refusal
        try:
            self._start(item.choices, item.modelFolder)
        except (ValueError, OSError) as error:
            item.end(FAILED, str(error))
            return ""
        except Exception as error:  # whatever it is, the next one must not wait for it for ever
            logging.exception("CalibUncertainty: %s cannot be started", item.name)
            item.end(FAILED, _("It cannot be started: {error}").format(error=error))
            return ""
        self._item = item
        return ""

    def _start(self, choices, modelFolder):
        with slicer.util.WaitCursor():
            job = runs.startRun(choices, modelFolder, self.panel.logic.command)
        self._ctNode = choices.ctVolume
        self.ui.logTextEdit.clear()
        self.follow(job)

    def installPackages(self, names=install.COMPUTING):
        """Install what is about to be used, after asking.

        :param names: of `install.PACKAGES`.
        :return: an empty string when everything is there, otherwise why it is not, in one sentence.
        """
        # pip lets Slicer work on meanwhile: a second click must not start a second pip.
        self._installing = True
        self.panel.updateRunButton()
        self.ui.stageLabel.setText(_("Installing packages..."))
        self.ui.stageLabel.show()
        try:
            return install.ensure(
                lambda question: slicer.util.confirmOkCancelDisplay(question, "CalibUncertainty"), names
            )
        except Exception as error:  # what extensions and pip raise is not ours to know
            logging.exception("CalibUncertainty: installing packages failed")
            return install.failureInWords(error)
        finally:
            self._installing = False
            self.ui.stageLabel.hide()
            self.panel.updateRunButton()

    def onCancel(self, checked=None):
        """Stop the run."""
        if self._item is not None:
            self._item.end(CANCELLED)
        self.cancel(_("Cancelled. Nothing was kept."))

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
        self.afterEvent()

    def onCopyDetails(self, checked=None):
        """Put what a bug report needs on the clipboard."""
        slicer.app.clipboard().setText(f"{self.ui.errorLabel.text}\n{self.job.details()}")

    def onResult(self, path):
        """Show the Result folder, if its CT is still there."""
        ctNode, item = self._ctNode, self._item
        if item is not None:
            item.end(DONE, folder=path)
        self.finish(_("Finished in {time}.").format(time=clock(self.job.elapsedSeconds)))
        if ctNode is None or ctNode.GetScene() is None:
            # Its patient is not in the scene any more: showing the result over another one would be dangerous.
            text = _("The run finished, but its CT is not in the scene any more. The result is in {folder}; load the CT and "
                     "use 'Open a result...'.").format(folder=path)  # fmt: skip
            self.showError(text)
            return
        if item is None or self.panel.overlays is None:  # who reads one patient is not taken to the next one
            self.panel.showResult(path, ctNode)

    def onError(self, event):
        """Tell why the run failed; of a CT of the queue in its list, so that the next one need not wait for a click."""
        if self._item is None:
            JobSection.onError(self, event)
            return
        logging.error("CalibUncertainty: %s: %s\n%s", self._item.name, event.message, self.job.details())
        self._item.end(FAILED, event.message)
        self.finish(_("{name} failed.").format(name=self._item.name))

    def finish(self, text):
        """The run has ended; the queue goes on."""
        self._item = None
        JobSection.finish(self, text)

    def tidyUp(self):
        """Remove the copy of the CT, and what a stopped process has left."""
        runs.tidyUp(self.job)
        self._ctNode = None

    def onProgress(self, event):
        """Once the model is loaded the computation knows what it will take."""
        JobSection.onProgress(self, event)
        if event.stage == "load" and event.message:
            self.panel.estimate.tell(event.message)

    def afterEvent(self):
        """Fill the log, where it is shown."""
        if self.job is not None and self.ui.showLogButton.checked:
            self.ui.logTextEdit.setPlainText("\n".join(self.job.tail))
            bar = self.ui.logTextEdit.verticalScrollBar()
            bar.setValue(bar.maximum)
