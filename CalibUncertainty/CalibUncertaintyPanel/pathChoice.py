"""A path line and the path of the parameter node that it shows: Slicer's connector knows nothing of a line that was emptied."""

from pathlib import Path

from .parameterNode import isChosen


class PathChoice:
    """Keeps a ctkPathLineEdit and a path of the parameter node together.

    :param panel: the `Panel`.
    :param lineEdit: ctkPathLineEdit.
    :param name: of the path in the parameter node.
    """

    def __init__(self, panel, lineEdit, name):
        self.panel = panel
        self.lineEdit = lineEdit
        self.name = name
        lineEdit.connect("currentPathChanged(QString)", self._onPath)
        lineEdit.connect("validInputChanged(bool)", self._onValidity)

    def update(self):
        """Show what the parameter node says."""
        if self.panel.parameterNode is None:
            return
        path = getattr(self.panel.parameterNode, self.name)
        text = str(path) if isChosen(path) else ""
        if Path(self.lineEdit.currentPath) != Path(text):
            self.lineEdit.currentPath = text

    def remember(self):
        """Keep the path in the list of those used before."""
        wasBlocked = self.lineEdit.blockSignals(True)  # while it sorts its list it reports the path of a neighbour
        self.lineEdit.addCurrentPathToHistory()
        self.lineEdit.blockSignals(wasBlocked)

    def _onPath(self, path):
        parameterNode = self.panel.parameterNode
        if parameterNode is not None and Path(path) != getattr(parameterNode, self.name):
            setattr(parameterNode, self.name, Path(path))

    def _onValidity(self, valid):
        if not valid:  # an emptied line is no acceptable input: the widget says so and reports no path
            self._onPath(self.lineEdit.currentPath)
