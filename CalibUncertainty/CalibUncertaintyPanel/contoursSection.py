"""Confidence contours: thin lines at two calibrated probabilities, inside and outside the outline of a structure.

Experts read contours better than maps of colour (Ye et al., 2023). They are computed in a thread when they are first shown.
"""

import logging

import qt
from slicer.i18n import tr as _

from . import contourNode
from .backgroundAnswer import BackgroundAnswer
from .contourSurfaces import contoursOf

DELAY_MS = 150  # a level that is being typed or turned is computed once


class ContoursSection:
    """Keeps the node of the contours at what the parameter node asks for."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.hidden = False  # for as long as somebody looks at the CT alone
        self._asked = None
        self._answer = BackgroundAnswer("contours")
        self._delay = qt.QTimer()
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.connect("timeout()", self._start)
        self._timer = qt.QTimer()
        self._timer.setInterval(50)
        self._timer.connect("timeout()", self._onTimer)

    def release(self):
        """Stop timers and thread."""
        self._delay.stop()
        self._timer.stop()
        self._answer.stop()
        self._asked = None

    @property
    def node(self):
        """The segmentation node of the contours, or None."""
        parameterNode = self.panel.parameterNode
        return parameterNode.contours if parameterNode is not None else None

    @property
    def busy(self):
        """Whether contours are about to be shown."""
        return self._asked is not None

    def onNewOverlays(self):
        """Other layers are shown: contours of another Result are hidden and left to their folder."""
        self.release()
        overlays, node = self.panel.overlays, self.node
        if node is None or (overlays is not None and _isOf(node, overlays)):
            return
        _setVisible(node, False)
        if overlays is not None:
            self.panel.parameterNode.contours = None

    def onNodeRemoved(self, node):
        """Somebody has deleted the contours: they are switched off, not made again."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if (
            overlays is None
            or parameterNode is None
            or node.GetAttribute(contourNode.PREFIX + "Kind") != contourNode.KIND
        ):
            return
        if _isOf(node, overlays) and parameterNode.contours in (None, node):
            parameterNode.contoursVisible = False

    def update(self):
        """Show, hide, or compute."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None:
            return
        complete = overlays.result is not None
        for widget in (self.ui.contourOuterSpinBox, self.ui.contourInnerSpinBox, self.ui.contoursOfAllCheckBox):
            widget.enabled = complete and parameterNode.contoursVisible
        if self.node is not None:
            _setVisible(self.node, parameterNode.contoursVisible and not self.hidden and not self.panel.ctBelow.lost)
        if not parameterNode.contoursVisible or not complete:
            self.release()
            return
        choice = self._choice()
        if choice == self._asked:
            return
        if self._asked is None and self.node is not None and contourNode.savedChoice(self.node) == choice:
            return
        self.release()
        self._asked = choice
        self._delay.start()

    def _choice(self):
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        structures = tuple(overlays.structures) if parameterNode.contoursOfAll else (parameterNode.structure,)
        levels = sorted((parameterNode.contourOuter / 100, parameterNode.contourInner / 100))
        return (structures, *levels)

    def _start(self):
        overlays = self.panel.overlays
        if self._asked is None or overlays is None or overlays.result is None:
            return
        self._answer.start(contoursOf, overlays.probabilityReader(self._asked[0]), *self._asked)
        self._timer.start()

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        choice, overlays = self._asked, self.panel.overlays
        self.release()
        if overlays is None or overlays.result is None or self.panel.parameterNode is None:
            return
        if answer.error is not None:
            logging.error("CalibUncertainty: contours cannot be computed: %s", answer.error)
            self.panel.parameterNode.contoursVisible = False
            self.panel.showError(_("The contours cannot be shown: {error}").format(error=answer.error))
            return
        if self.node is None:
            self.panel.parameterNode.contours = contourNode.addContourNode(self.panel.scene, overlays)
        contourNode.fillContours(self.node, answer.value, overlays.structures)
        contourNode.saveChoice(self.node, choice)
        self.update()


def _isOf(node, overlays):
    key = contourNode.PREFIX + "ResultFolder"
    return node.GetAttribute(key) == overlays.segmentationNode.GetAttribute(key)


def _setVisible(node, visible):
    displayNode = node.GetDisplayNode()
    if displayNode is not None and bool(displayNode.GetVisibility()) != visible:
        displayNode.SetVisibility(visible)
