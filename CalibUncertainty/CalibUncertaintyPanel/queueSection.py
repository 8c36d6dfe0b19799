"""Several CTs one after the other: the list below the Run button."""

from slicer.i18n import tr as _

from . import runQueue, slicerCompat
from .runQueue import QueueItem, RunQueue


class QueueSection:
    """Fills the list and starts what is next whenever nothing runs."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.queue = RunQueue()
        self._starting = False
        ui.addToQueueButton.connect("clicked(bool)", self.onAdd)
        ui.queueCancelButton.connect("clicked(bool)", self.onCancelChosen)
        ui.queueCancelAllButton.connect("clicked(bool)", self.onCancelAll)
        ui.queueShowButton.connect("clicked(bool)", self.onShow)
        ui.queueListWidget.connect("itemDoubleClicked(QListWidgetItem*)", self.onShow)
        ui.queueListWidget.connect("currentRowChanged(int)", self._updateButtons)
        self._fill()

    def release(self):
        """The panel is going away: nothing is started any more."""
        self.queue.cancelWaiting()

    def onSceneClosed(self):
        """The CTs are gone: what has ended is of no use any more; what waits will fail by itself."""
        self.queue.forgetEnded()
        self._fill()

    def update(self):
        """Show the states, and start the next CT when nothing is running."""
        problem = self.panel.inputs.problem()
        self.ui.addToQueueButton.enabled = not problem
        self.ui.addToQueueButton.toolTip = problem or _(
            "Run this CT with these choices when those before it are done; choose another CT meanwhile."
        )
        self._fill()
        if self.queue.waiting and not self._starting and not self.panel.run.busy:
            self._starting = True
            slicerCompat.soon(self._startNext)

    def onAdd(self, checked=None):
        """Put the chosen CT into the list."""
        if self.panel.inputs.problem():
            return
        self.queue.add(QueueItem(self.panel.parameterNode, self.panel.inputs.summary))
        self.ui.queueListWidget.setCurrentRow(-1)
        self.panel.updateRunButton()

    def onCancelChosen(self, checked=None):
        """Cancel the chosen CT, whether it waits or runs; one that has ended is taken off the list."""
        item = self._chosen()
        if item is None:
            return
        if item.state == runQueue.RUNNING:
            self.panel.run.onCancel()
        elif item.state == runQueue.WAITING:
            item.end(runQueue.CANCELLED)
        else:
            self.queue.items.remove(item)
        self.panel.updateRunButton()

    def onCancelAll(self, checked=None):
        """Cancel what waits and what runs; when nothing does, empty the list."""
        busy = [item for item in self.queue.items if item.state in (runQueue.WAITING, runQueue.RUNNING)]
        self.queue.cancelWaiting()
        if any(item.state == runQueue.RUNNING for item in busy):
            self.panel.run.onCancel()
        if not busy:
            self.queue.forgetEnded()
        self.panel.updateRunButton()

    def onShow(self, *ignored):
        """Show the Result of the chosen CT."""
        item = self._chosen()
        if item is not None and item.state == runQueue.DONE:
            self.panel.run.showError("")
            self.panel.showResult(item.folder, item.ctNode)

    def _startNext(self):
        self._starting = False
        if self.panel.parameterNode is None or self.panel.run.busy:
            return
        item = self.queue.takeNext()
        if item is not None:
            refusal = self.panel.run.startQueued(item)
            if refusal:  # packages: it would be the same for all others, and one question is enough
                item.end(runQueue.FAILED, refusal)
                self.queue.cancelWaiting(runQueue.FAILED, refusal)
        self.panel.updateRunButton()

    def _chosen(self):
        row = self.ui.queueListWidget.currentRow  # a property, here and in PythonQt
        return self.queue.items[row] if 0 <= row < len(self.queue.items) else None

    def _fill(self):
        listWidget, items = self.ui.queueListWidget, self.queue.items
        wasBlocked = listWidget.blockSignals(True)
        row = listWidget.currentRow
        while listWidget.count > len(items):
            listWidget.takeItem(listWidget.count - 1)
        while listWidget.count < len(items):
            listWidget.addItem("")
        for index, item in enumerate(items):
            shown = listWidget.item(index)
            shown.setText(f"{item.name} – {_words(item)}")
            shown.setToolTip(item.message or str(item.folder or item.modelName))
        listWidget.setCurrentRow(row if row < len(items) else -1)
        listWidget.blockSignals(wasBlocked)
        self.ui.queueWidget.setVisible(bool(items))
        self._updateButtons()

    def _updateButtons(self, row=None):
        item = self._chosen()
        self.ui.queueShowButton.enabled = item is not None and item.state == runQueue.DONE
        self.ui.queueCancelButton.enabled = item is not None
        ended = item is not None and item.state not in (runQueue.WAITING, runQueue.RUNNING)
        self.ui.queueCancelButton.setText(_("Remove") if ended else _("Cancel this"))
        busy = any(each.state in (runQueue.WAITING, runQueue.RUNNING) for each in self.queue.items)
        self.ui.queueCancelAllButton.setText(_("Cancel all") if busy else _("Clear list"))


def _words(item):
    states = {
        runQueue.WAITING: _("waiting"),
        runQueue.RUNNING: _("running"),
        runQueue.DONE: _("done"),
        runQueue.FAILED: _("failed"),
        runQueue.CANCELLED: _("cancelled"),
    }
    return f"{states[item.state]}: {item.message}" if item.message else states[item.state]
