"""Lets folders be dropped onto a widget. What is dropped is for a function to judge."""

import qt


class DropTarget(qt.QWidget):  # pythonqt: ok, an event filter in Python has to be a Qt class; it is in no .ui
    """An event filter that hands the paths of dropped files and folders to a function. It is never shown itself."""

    def watch(self, widget, onPaths):
        """Accept drops on this widget.

        :param onPaths: function of a list of paths.
        """
        self.onPaths = onPaths
        self.watched = widget
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def release(self):
        """Stop; the panel is going away."""
        self.watched.removeEventFilter(self)
        self.onPaths = self.watched = None
        self.deleteLater()

    def eventFilter(self, watched, event):
        """Qt asks for each event of the widget: whether it has been dealt with."""
        kind = event.type()
        if kind not in (qt.QEvent.DragEnter, qt.QEvent.DragMove, qt.QEvent.Drop):
            return False
        paths = _localPaths(event.mimeData())
        if not paths:
            return False
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            self.onPaths(paths)
        return True


def _localPaths(mimeData):
    return [url.toLocalFile() for url in mimeData.urls() if url.isLocalFile()] if mimeData.hasUrls() else []
