"""The 3D view of the uncertain regions, on request: computed in a thread when it is first asked for."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import regionsNode, regionSurfaces
from .backgroundAnswer import BackgroundAnswer


class RegionsSection:
    """Keeps the two models at what the parameter node asks for."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self._asked = False
        self._answer = BackgroundAnswer("regions")
        self._timer = qt.QTimer()
        self._timer.setInterval(50)
        self._timer.connect("timeout()", self._onTimer)

    def release(self):
        """Stop timer and thread."""
        self._timer.stop()
        self._answer.stop()
        self._asked = False

    @property
    def busy(self):
        """Whether the models are about to be shown."""
        return self._asked

    @property
    def models(self):
        """The models of the regions and of the structures; None for one that is not there."""
        parameterNode = self.panel.parameterNode
        return (
            (parameterNode.regionsModel, parameterNode.structuresModel) if parameterNode is not None else (None, None)
        )

    def onNewOverlays(self):
        """Other layers are shown: models of another Result are hidden and left to their folder."""
        self.release()
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if parameterNode is None or self.models[0] is None:
            return
        key = regionsNode.PREFIX + "ResultFolder"
        if overlays is not None and self.models[0].GetAttribute(key) == overlays.segmentationNode.GetAttribute(key):
            return
        regionsNode.setModelsVisible(self.models, False)
        if overlays is not None:
            with slicer.util.NodeModify(parameterNode):  # half of it would show the other half again
                parameterNode.regionsModel = parameterNode.structuresModel = None

    def onNodeRemoved(self, node):
        """Somebody has deleted the models: they are switched off, not made again."""
        parameterNode = self.panel.parameterNode
        if parameterNode is None or node.GetAttribute(regionsNode.PREFIX + "Kind") != regionsNode.KINDS[0]:
            return
        if parameterNode.regionsModel in (None, node):
            parameterNode.regionsIn3d = False

    def update(self):
        """Show, hide, or compute."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None:
            return
        available = overlays.result is not None or self.models[0] is not None
        self.ui.regionsIn3dCheckBox.enabled = available
        regionsNode.setModelsVisible(self.models, parameterNode.regionsIn3d)
        if not parameterNode.regionsIn3d or self.models[0] is not None or overlays.result is None:
            self.release()
            return
        if not self._asked:
            self._asked = True
            self._answer.start(regionSurfaces.surfacesOf, overlays.result)
            self._timer.start()

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        self.release()
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode is None:
            return
        if answer.error is not None:
            logging.error("CalibUncertainty: regions cannot be shown in 3D: %s", answer.error)
            parameterNode.regionsIn3d = False
            text = _("The regions cannot be shown in 3D: {error}").format(error=answer.error)
            self.panel.showFailure(answer.error, text)
            return
        regions, structures = regionsNode.addRegionModels(self.panel.scene, overlays, answer.value)
        with slicer.util.NodeModify(parameterNode):
            parameterNode.regionsModel, parameterNode.structuresModel = regions, structures
        slicer.util.resetThreeDViews()
