"""The region of interest of the layers: how far, from which structures, on which side; or the body."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import ctVolume
from .parameterNode import RoiOf, RoiSide
from .resultMaps import BODY_KEY
from .roiChoice import ALL_STRUCTURES, BOTH, INSIDE, RoiChoice


class RoiSection:
    """Brings the overlays to the region that the parameter node asks for.

    :param loading: `MapLoading`.
    :param onShown: function that is called when another region is shown.
    """

    def __init__(self, panel, ui, loading, onShown):
        self.panel = panel
        self.ui = ui
        self._loading = loading
        self._onShown = onShown
        self._timer = qt.QTimer()  # once for all moves of the slider that come together
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self.apply)

    def release(self):
        """Stop the timer."""
        self._timer.stop()

    @property
    def choice(self):
        """`RoiChoice` of the parameter node."""
        parameterNode = self.panel.parameterNode
        if parameterNode.roiOf is RoiOf.BODY:  # whatever the slider says, it is the same region
            side = parameterNode.roiSide.value if self.panel.overlays.maps.hasRoi else BOTH
            return RoiChoice(self.panel.overlays.roiLimitMm, side=side, ofBody=True)
        structure = parameterNode.structure if parameterNode.roiOf is RoiOf.CHOSEN else ALL_STRUCTURES
        return RoiChoice(parameterNode.roiShownMm, structure, parameterNode.roiSide.value)

    def update(self):
        """Show what can be chosen, and apply the choice soon."""
        maps, side = self.panel.overlays.maps, self.panel.parameterNode.roiSide
        ofBody = self.panel.parameterNode.roiOf is RoiOf.BODY
        self.ui.roiShownSlider.enabled = maps.hasRoi and side.value != INSIDE and not ofBody
        self.ui.roiOfComboBox.enabled = maps.result is not None
        self.ui.roiSideComboBox.enabled = maps.hasRoi
        if maps.result is None:
            reason = _("The Result folder of this scene is not there any more. Open it again with 'Open a result...'.")
        elif ofBody:
            reason = _("Anywhere in the body no distance counts")
        elif not maps.hasRoi:
            reason = _("The model found no structure in this CT: the whole map is shown.")
        elif side.value == INSIDE:
            reason = _("Inside the structures no distance counts")
        else:
            reason = _("Uncertainty is shown up to this distance from the predicted structures")
        self.ui.roiShownSlider.toolTip = reason
        self._timer.start()

    def apply(self):
        """Show the chosen region as soon as its distances are there."""
        overlays = self.panel.overlays
        if overlays is None or overlays.result is None or self.panel.parameterNode is None:
            return
        choice = self.choice
        if choice == overlays.roi:
            self._loading.ready("roi", [])
            return
        if choice.ofBody and not overlays.maps.isReady(BODY_KEY):
            ctNode = self.panel.shownCt()
            overlays.maps.ct = ctVolume.libraryVolume(ctNode) if ctNode is not None else None
        if not self._loading.ready("roi", [overlays.shownChoice[0], overlays.maps.roiKey(choice)]):
            return
        try:
            overlays.setRoi(choice)
            overlays.maps.ct = None
        except Exception as error:  # a file of the Result folder may be gone or damaged: tell, do not trace
            logging.exception("CalibUncertainty: another region of interest cannot be shown")
            self.goBack()
            self.panel.showFailure(error)
        self._onShown()

    def goBack(self):
        """Choose again what is still shown."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        shown = overlays.roi or RoiChoice(overlays.roiLimitMm)
        with slicer.util.NodeModify(parameterNode):
            if not shown.ofBody:
                parameterNode.roiShownMm = shown.distanceMm
            parameterNode.roiSide = RoiSide(shown.side)
            if shown.ofBody:
                parameterNode.roiOf = RoiOf.BODY
            elif parameterNode.roiOf is RoiOf.BODY or shown.structure != parameterNode.structure:
                parameterNode.roiOf = RoiOf.CHOSEN if shown.structure == parameterNode.structure else RoiOf.ALL
