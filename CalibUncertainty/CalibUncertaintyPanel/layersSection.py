"""Layers: what is drawn over the CT, how strongly, above which threshold, within which distance."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import comboBoxes
from .backgroundAnswer import BackgroundAnswer
from .fillSteps import FillSteps
from .mapLoading import MapLoading
from .measureInfo import PER_STRUCTURE
from .parameterNode import CtWindow, ThresholdBy
from .roiSection import RoiSection
from .sliceLayers import LayerView, showLayers

RAW_INTERVAL_MS = 50


class LayersSection:
    """Brings parameter node, widgets and overlays to the same state. The overlays are the panel's."""

    def __init__(self, panel, ui, resourcePath):
        self.panel = panel
        self.ui = ui
        self.hidden = False  # for as long as somebody looks at the CT alone
        self._measures = []
        self._structures = []
        self._appliedWindow = None
        self._written = {}
        self.loading = MapLoading(panel, ui, self._onLoadingFailed)
        self.roi = RoiSection(panel, ui, self.loading, self._onRoiShown)
        self._fillSteps = FillSteps(panel)
        self._raw = BackgroundAnswer("raw")
        self._rawAsked = None
        self._rawTimer = qt.QTimer()
        self._rawTimer.setInterval(RAW_INTERVAL_MS)
        self._rawTimer.connect("timeout()", self._onRawTimer)
        self._setEyeIcons(resourcePath)
        ui.measureComboBox.connect("currentIndexChanged(int)", self._onMeasure)
        ui.structureComboBox.connect("currentIndexChanged(int)", self._onStructure)
        ui.storedThresholdButton.connect("clicked(bool)", self._onStoredThreshold)

    def release(self):
        """Stop timers and thread."""
        self._fillSteps.release()
        self.roi.release()
        self.loading.release()
        self._forgetRaw()

    def onNewOverlays(self):
        """Offer what these overlays can show. The choices of the parameter node stay where they still make sense."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        self._appliedWindow = None
        self._written.clear()
        self._forgetRaw()
        self.loading.onNewOverlays()
        self.ui.layersEmptyLabel.setVisible(overlays is None)
        self.ui.layersWidget.setVisible(overlays is not None)
        if overlays is None:
            return
        overlays.writeInSteps()
        self._measures = [info for info in overlays.measures if info.available]
        self._structures = list(overlays.structures)
        comboBoxes.offer(self.ui.measureComboBox, [f"{info.title} ({info.unit})" for info in self._measures])
        comboBoxes.offer(self.ui.structureComboBox, self._structures)
        complete = overlays.result is not None
        away = _("The Result folder of this scene is not there any more. Open it again with 'Open a result...'.")
        for widget in (self.ui.measureComboBox, self.ui.structureComboBox):
            widget.enabled = complete
        if not complete:
            self.ui.measureComboBox.toolTip = self.ui.structureComboBox.toolTip = away
        with slicer.util.NodeModify(parameterNode):
            parameterNode.rawShown = overlays.shownRaw  # a new result begins with what it is: calibrated or not
            if parameterNode.measure not in [info.id for info in self._measures]:
                parameterNode.measure = overlays.shownMeasure
            if parameterNode.structure not in self._structures:
                parameterNode.structure = overlays.shownStructure

    def update(self):
        """Show the parameter node's choices in the widgets and in the slice views."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None:
            return
        self._updateWidgets(overlays, parameterNode)
        try:
            self._applyMaps(overlays, parameterNode)
        except Exception as error:  # a file of the Result folder may be gone or damaged: tell, do not trace
            logging.exception("CalibUncertainty: a map cannot be shown")
            self._goBack(overlays, parameterNode)  # or it would be tried and told again with every move of a slider
            self.panel.showFailure(error)
        if overlays.shownMeasure == parameterNode.measure:  # not while the map of another one is being read
            overlays.setThreshold(parameterNode.threshold)
        overlays.setProbabilityFloor(parameterNode.probabilityFloor / 100)
        self.showVisibility()
        self.roi.update()
        self._fillSteps.begin()

    def showVisibility(self):
        """Show or hide layers, outlines and legends; nothing else."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode is None:
            return
        overlays.setLabelsView(parameterNode.labelsVisible and not self._away, parameterNode.labelsOpacity / 100)
        legends = parameterNode.legendsVisible and not self._away
        overlays.setLegendsVisible(
            legends and parameterNode.probabilityVisible, legends and parameterNode.uncertaintyVisible
        )
        self.showInViews()

    @property
    def _away(self):
        """Whether nothing is to be drawn over the CT: it is looked at alone, or it has been removed."""
        return self.hidden or self.panel.ctBelow.lost

    def keepWindow(self):
        """Leave the CT's window as a saved scene has it; a preset is applied when one is chosen."""
        ctNode = self.panel.shownCt()
        if ctNode is not None:
            self._appliedWindow = (ctNode.GetID(), self.panel.parameterNode.ctWindow)

    def onNewView(self):
        """A slice view has been made: it gets the layers and their legends, too."""
        self.panel.ctBelow.watch()
        if self.panel.overlays is not None:
            self.panel.overlays.remakeLegends()
            self.showInViews()

    def showInViews(self):
        """Put the layers into every slice view, new ones included."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode is None:
            return
        view = LayerView(
            ctVisible=parameterNode.ctVisible,
            probabilityVisible=parameterNode.probabilityVisible and not self._away,
            probabilityOpacity=parameterNode.probabilityOpacity / 100,
            uncertaintyVisible=parameterNode.uncertaintyVisible and not self._away,
            uncertaintyOpacity=parameterNode.uncertaintyOpacity / 100,
        )
        showLayers(
            self.panel.scene,
            view,
            self.panel.shownCt(),
            overlays.probabilityNode,
            overlays.uncertaintyNode,
            self._written,
        )
        self._applyWindow(parameterNode.ctWindow)

    def _updateWidgets(self, overlays, parameterNode):
        info = overlays.measure(parameterNode.measure)
        comboBoxes.choose(self.ui.measureComboBox, [item.id for item in self._measures].index(info.id))
        if parameterNode.structure in self._structures:
            comboBoxes.choose(self.ui.structureComboBox, self._structures.index(parameterNode.structure))
        self.ui.measureSentenceLabel.setText(f"<i>{info.sentence}</i>")
        self._updateRaw(overlays)
        end = info.sliderEnd(parameterNode.threshold)
        decimals = info.decimals(parameterNode.threshold, parameterNode.thresholdBy is not ThresholdBy.VALUE)
        _setRange(self.ui.thresholdSlider, end, parameterNode.threshold, decimals)
        self.ui.thresholdSlider.suffix = f" {info.unit}" if info.unit != "probability" else ""
        if overlays.result is not None:
            _setRange(self.ui.roiShownSlider, overlays.roiLimitMm, parameterNode.roiShownMm)
        source = (
            _("stored with the model's calibration")
            if info.thresholdSource == "stored"
            else _("the default of this measure")
        )
        self.ui.storedThresholdButton.toolTip = _("Go back to {value:.3g} {unit}, {source}").format(
            value=info.threshold, unit=info.unit, source=source
        )
        self.ui.storedThresholdButton.enabled = abs(info.threshold - parameterNode.threshold) > 0.5 * 10**-decimals

    def _updateRaw(self, overlays):
        word = _("Calibrated probability") if overlays.calibrated else _("Probability (NOT CALIBRATED)")
        self.ui.probabilityLayerLabel.setText(_("Raw probability") if overlays.shownRaw else word)
        available, reason = overlays.rawAvailability
        self.ui.rawCheckBox.enabled = available
        self.ui.rawCheckBox.toolTip = reason or _(
            "Show the probability as the model said it, before calibration; colours and scale stay the same"
        )

    def _applyMaps(self, overlays, parameterNode):
        if overlays.result is None:
            return
        measure, structure = parameterNode.measure, parameterNode.structure
        ofStructure = overlays.uncertaintyNode.GetAttribute("CalibUncertainty.Structure")
        otherMeasure = overlays.shownMeasure != measure or (measure == PER_STRUCTURE and ofStructure != structure)
        raw = self._rawWanted(overlays, parameterNode)
        otherProbability = overlays.shownStructure != structure or overlays.shownRaw != raw
        maps = overlays.maps
        keys = [maps.probabilityKey(structure, raw)] if otherProbability else []
        otherProbability = self.loading.ready("probability", keys) and otherProbability
        keys = [maps.measureKey(measure, structure)] if otherMeasure else []
        otherMeasure = self.loading.ready("measure", keys) and otherMeasure
        if not otherProbability and not otherMeasure:
            return
        with slicer.util.WaitCursor():
            if otherProbability:
                overlays.showProbability(structure, raw)
                self.panel.updateStatus()
                self._updateRaw(overlays)
            if otherMeasure:
                overlays.showUncertainty(measure, structure)

    def _goBack(self, overlays, parameterNode):
        """Choose again what is still shown."""
        with slicer.util.NodeModify(parameterNode):
            parameterNode.structure = overlays.shownStructure
            parameterNode.rawShown = overlays.shownRaw
            if parameterNode.measure != overlays.shownMeasure:
                info = overlays.measure(overlays.shownMeasure)
                parameterNode.measure = info.id
                parameterNode.threshold = min(info.threshold, info.upper)
        self._updateWidgets(overlays, parameterNode)

    def _rawWanted(self, overlays, parameterNode):
        """Whether the raw probability is to be shown now; while it is being computed for the first time, not yet."""
        if not parameterNode.rawShown or not overlays.rawAvailability[0]:
            self._forgetRaw()
            return False
        if overlays.shownRaw and overlays.shownStructure == parameterNode.structure:
            return True  # as it came with a saved scene
        if not overlays.rawIsReady and self._rawAsked is None:
            self._rawAsked = parameterNode.structure
            self._raw.start(overlays.rawReader(parameterNode.structure))
            self._rawTimer.start()
        return overlays.rawIsReady

    def _onRawTimer(self):
        answer = self._raw.poll()
        if answer is None:
            return
        structure, overlays = self._rawAsked, self.panel.overlays
        self._forgetRaw()
        if overlays is None or overlays.result is None or self.panel.parameterNode is None:
            return
        if answer.error is not None:
            self.panel.parameterNode.rawShown = False
            self.panel.showError(str(answer.error))
            return
        overlays.takeRaw(structure, answer.value)
        self.panel.update()

    def _forgetRaw(self):
        self._raw.stop()
        self._rawTimer.stop()
        self._rawAsked = None

    def _onRoiShown(self):
        self._fillSteps.begin()
        self.panel.threshold.update()

    def _onLoadingFailed(self, error):
        self._goBack(self.panel.overlays, self.panel.parameterNode)
        self.roi.goBack()
        self.panel.showFailure(error)

    def _applyWindow(self, window):
        ctNode = self.panel.shownCt()
        if ctNode is None or (ctNode.GetID(), window) == self._appliedWindow:
            return
        # Only when it is chosen: a window that the user drags with the mouse afterwards stays.
        self._appliedWindow = (ctNode.GetID(), window)
        displayNode = ctNode.GetScalarVolumeDisplayNode()
        if window is not CtWindow.AS_IS and displayNode is not None:
            displayNode.SetAutoWindowLevel(False)
            displayNode.SetWindowLevel(*window.value)

    def _onMeasure(self, index):
        if self.panel.parameterNode is None or not 0 <= index < len(self._measures):
            return
        info = self._measures[index]
        with slicer.util.NodeModify(self.panel.parameterNode):
            self.panel.parameterNode.measure = info.id
            self.panel.parameterNode.threshold = min(info.threshold, info.upper)

    def _onStructure(self, index):
        if self.panel.parameterNode is not None and 0 <= index < len(self._structures):
            self.panel.parameterNode.structure = self._structures[index]

    def _onStoredThreshold(self, checked=None):
        info = self.panel.overlays.measure(self.panel.parameterNode.measure)
        with slicer.util.NodeModify(self.panel.parameterNode):
            self.panel.parameterNode.thresholdBy = ThresholdBy.VALUE
            self.panel.parameterNode.threshold = min(info.threshold, info.upper)

    def _setEyeIcons(self, resourcePath):
        icon = qt.QIcon()
        icon.addFile(resourcePath("Icons/EyeClosed.svg"), qt.QSize(), qt.QIcon.Normal, qt.QIcon.Off)
        icon.addFile(resourcePath("Icons/EyeOpen.svg"), qt.QSize(), qt.QIcon.Normal, qt.QIcon.On)
        for name in ("ct", "probability", "uncertainty", "labels", "contours"):
            getattr(self.ui, f"{name}EyeButton").setIcon(icon)


def _setRange(slider, maximum, value, decimals=None):
    """Bound a slider from 0 to maximum without letting it write a clipped value into the parameter node."""
    wasBlocked = slider.blockSignals(True)
    if decimals is not None:
        slider.decimals = decimals
        slider.singleStep = 10.0 ** (1 - decimals)
    slider.minimum = 0.0
    slider.maximum = maximum
    slider.value = value
    slider.blockSignals(wasBlocked)
