"""The line that says what lies under the mouse, for as long as the module is open."""

import logging

from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .cursorText import cursorText
from .mrmlTools import nodesOfClass


class CursorSection(VTKObservationMixin):
    """Follows the position that Slicer keeps of the mouse in any of its views."""

    def __init__(self, panel, ui):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.ui = ui
        self._told = False
        self._say("")

    def enter(self):
        """Begin to follow the mouse."""
        for node in nodesOfClass(self.panel.scene, "vtkMRMLCrosshairNode"):
            if not self.hasObserver(node, node.CursorPositionModifiedEvent, self._onMoved):
                self.addObserver(node, node.CursorPositionModifiedEvent, self._onMoved)

    def leave(self):
        """Stop following it."""
        self.removeObservers()
        self._say("")

    def _onMoved(self, crosshairNode, event=None):
        overlays = self.panel.overlays
        position = [0.0, 0.0, 0.0]
        if overlays is None or not crosshairNode.GetCursorPositionRAS(position):
            self._say("")
            return
        try:
            self._say(cursorText(overlays, self.panel.shownCt(), position))
        except Exception:  # it is called with every move of the mouse: tell once
            if not self._told:
                logging.exception("CalibUncertainty: the values under the mouse cannot be told")
            self._told = True
            self._say("")

    def _say(self, text):
        self.ui.cursorLabel.setText(text or _("Move the mouse over a slice view to read the values there."))
        self.ui.cursorLabel.enabled = bool(text)
