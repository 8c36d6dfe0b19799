"""The nodes that show one Result in a scene. Takes the scene as an argument; knows neither Qt nor `slicer.app`.

Two scalar volumes lie over the CT, cropped to the box that the Result holds: the calibrated probability of one structure
and one measure of uncertainty. Choosing another structure or measure swaps the voxels of these nodes. The threshold is the
display node's: moving it recomputes nothing.
"""

from dataclasses import replace

from slicer.i18n import tr as _

from . import layerFiles, overlayNodes
from .maskedMap import MaskedMap
from .measureInfo import PER_STRUCTURE, MeasureInfo, measuresOf
from .mrmlTools import matrixFromArray
from .resultMaps import ResultMaps
from .roiChoice import RoiChoice
from .visibleFill import VisibleFill

PREFIX = "CalibUncertainty."
SMALLEST_SHOWN = 1e-6  # a voxel of exactly 0 is one with nothing to show: outside the ROI, or without any uncertainty
DEFAULT_PROBABILITY_FLOOR = 0.05


class Overlays:
    """The layers of one Result in one scene.

    Make them with `create`, or with `restore` from the nodes of a saved scene. Without a Result (its folder is gone) the
    nodes still show what was saved, but other measures, structures and ROI distances cannot be chosen: `result` is None.
    """

    def __init__(self, scene, probabilityNode, uncertaintyNode, segmentationNode, result=None):
        self.scene = scene
        self.probabilityNode = probabilityNode
        self.uncertaintyNode = uncertaintyNode
        self.segmentationNode = segmentationNode
        self.result = result
        self.maps = ResultMaps(result)
        self._fills = {node: VisibleFill(scene, node) for node in (probabilityNode, uncertaintyNode)}
        self._rawIsReady = False
        self._roi = None
        self._scaleObservation = overlayNodes.legendFollowsWindow(uncertaintyNode)

    @classmethod
    def create(cls, scene, result, ctNode=None, structure=None, measure="entropy"):
        """Add the nodes of a Result to the scene, in a subject-hierarchy folder of their own.

        :param result: `CalibUncertaintyLib` Result.
        :param ctNode: the CT it was made from, for the names and the segmentation's geometry; may be None.
        :param structure: name of the structure to begin with; the first one otherwise.
        :param measure: identifier of the measure to begin with; the first one there is, if this one is not.
        """
        probabilityNode = overlayNodes.addVolume(scene, "Probability", overlayNodes.PROBABILITY_SCALE)
        uncertaintyNode = overlayNodes.addVolume(scene, "Uncertainty", overlayNodes.UNCERTAINTY_SCALE)
        segmentationNode = overlayNodes.addSegmentation(scene, result, ctNode)
        overlays = cls(scene, probabilityNode, uncertaintyNode, segmentationNode, result)
        for node in overlays.nodes:
            overlays._describe(node)
        overlays._roi = RoiChoice(overlays.roiLimitMm, ofBody=result.of_body)
        overlays.showProbability(structure or overlays.structures[0])
        overlays.showUncertainty(measure, structure or overlays.structures[0])
        overlays.setProbabilityFloor(DEFAULT_PROBABILITY_FLOOR)
        overlays.setThreshold(overlays.measure(overlays.shownMeasure).threshold)
        overlayNodes.groupInFolder(scene, overlays.nodes, overlays._folderName(ctNode), ctNode)
        return overlays

    @classmethod
    def restore(cls, scene, probabilityNode, uncertaintyNode, segmentationNode, result=None):
        """Take up the nodes of a saved scene again; colour scales that were not saved are made anew."""
        overlayNodes.restoreColorScale(scene, probabilityNode, overlayNodes.PROBABILITY_SCALE)
        overlayNodes.restoreColorScale(scene, uncertaintyNode, overlayNodes.UNCERTAINTY_SCALE)
        return cls(scene, probabilityNode, uncertaintyNode, segmentationNode, result)

    def release(self):
        """Forget the cached maps and stop observing; the nodes stay in the scene, complete."""
        self.completeFill()
        overlayNodes.stopObserving(self._scaleObservation)
        self._scaleObservation = None
        self.maps.clear()
        self.result = None

    def hide(self):
        """Take outlines and legends off the views, which no slice view does by itself: another Result is shown now."""
        self.setLegendsVisible(False, False)
        displayNode = self.segmentationNode.GetDisplayNode()
        if displayNode is not None:
            displayNode.SetVisibility(False)

    @property
    def nodes(self):
        """Probability, uncertainty and segmentation node."""
        return [self.probabilityNode, self.uncertaintyNode, self.segmentationNode]

    @property
    def isWhole(self):
        """Whether its nodes are in the scene and can be shown: a whole patient may be deleted in the data tree, node by node."""
        displays = [node.GetScalarVolumeDisplayNode() for node in self.nodes[:2]]  # what comes first may be a legend
        displays.append(self.segmentationNode.GetDisplayNode())
        return all(node.GetScene() is not None for node in self.nodes) and None not in displays

    @property
    def calibrated(self):
        """Whether the shown probabilities are calibrated; read from the node, so that it is true of saved scenes too."""
        return self.probabilityNode.GetAttribute(PREFIX + "Calibrated") == "true"

    @property
    def shownRaw(self):
        """Whether the probability layer shows what the model said before it was calibrated."""
        return self.probabilityNode.GetAttribute(PREFIX + "Raw") == "true"

    @property
    def rawAvailability(self):
        """(Whether the raw probability can be shown, why not)."""
        if self.result is None:
            return False, _("The Result folder of these layers is not there any more; open it again.")
        return self.result.raw_availability

    @property
    def rawIsReady(self):
        """Whether showing the raw probability takes no longer than showing another structure."""
        return self._rawIsReady

    @property
    def shownMeasure(self):
        """Identifier of the measure that is shown."""
        return self.uncertaintyNode.GetAttribute(PREFIX + "Measure") or ""

    @property
    def shownStructure(self):
        """Name of the structure whose probability is shown."""
        return self.probabilityNode.GetAttribute(PREFIX + "Structure") or ""

    @property
    def structures(self):
        """Names of the structures whose probability the Result holds, in the model's order."""
        if self.result is None:
            return [self.shownStructure]
        return [entry["name"] for entry in self.result.provenance["maps"]["probability"]]

    @property
    def measures(self):
        """Every `MeasureInfo` of the Result, those that cannot be shown included."""
        if self.result is None:
            return [overlayNodes.savedMeasure(self.uncertaintyNode, MeasureInfo)]
        return measuresOf(self.result)

    def measure(self, identifier):
        """The `MeasureInfo` with this identifier.

        :raises KeyError: if the Result has none.
        """
        for info in self.measures:
            if info.id == identifier:
                return info
        raise KeyError(f"the result has no measure {identifier}")

    @property
    def roiLimitMm(self):
        """Largest distance from the structures, in mm, that the Result holds maps for."""
        return float(self.result.provenance["roi"]["distance_mm"]) if self.result is not None else 0.0

    @property
    def roi(self):
        """`RoiChoice` inside which uncertainty is shown now; None in a saved scene, where that is not known."""
        return self._roi

    @property
    def shownChoice(self):
        """(Key of the measure, `RoiChoice`) that is shown: two equal ones show the same voxels."""
        return (self.shownMeasure, self.uncertaintyNode.GetAttribute(PREFIX + "Structure") or None), self._roi

    def writeInSteps(self):
        """Write large maps in steps, what the views show first. Call `fillMore` until it returns False."""
        for fill in self._fills.values():
            fill.inSteps = True

    def fillMore(self):
        """Write for a few milliseconds; whether there is more to do."""
        return any([fill.step() for fill in self._fills.values() if fill.pending])

    def completeFill(self):
        """Write all voxels now: for whoever reads them all from the nodes."""
        for fill in self._fills.values():
            fill.finish()

    def rawReader(self, structure):
        """A function that reads the raw probability of a structure, for a thread: it takes seconds the first time.

        It touches neither the scene nor these layers; hand what it returns to `takeRaw`.
        """
        return self.maps.reader(self.maps.probabilityKey(structure, raw=True))

    @property
    def uncertaintyVolume(self):
        """The `Volume` of the measure that is shown, up to every distance; None without a Result."""
        if self.result is None:
            return None
        return self.maps.get(self.shownChoice[0])

    def probabilityReader(self, structures):
        """A function from a structure's name to its probability `Volume`, for a thread; what is in memory is not read again.

        :param structures: names of the structures that will be asked for.
        """
        result, maps = self.result, self.maps
        keys = {name: maps.probabilityKey(name) for name in structures}
        known = {name: maps.get(key) for name, key in keys.items() if maps.isReady(key)}
        return lambda structure: known[structure] if structure in known else result.probability(structure)

    def takeRaw(self, structure, volume):
        """Keep what `rawReader`'s function has returned."""
        self.maps.take(self.maps.probabilityKey(structure, raw=True), volume)
        self._rawIsReady = True

    def showProbability(self, structure, raw=False):
        """Show the probability of a structure, by name.

        :param raw: as it was before calibration; the colour scale stays the same. See `rawAvailability`.
        """
        volume = self.maps.get(self.maps.probabilityKey(structure, raw))
        self._fill(self.probabilityNode, volume, MaskedMap(volume.array))
        self.probabilityNode.SetAttribute(PREFIX + "Structure", structure)
        self.probabilityNode.SetAttribute(PREFIX + "Raw", "true" if raw else "false")
        self.probabilityNode.SetName(f"Probability of {structure}{' (RAW, NOT CALIBRATED)' if raw else self._suffix}")
        layerFiles.describe(self.probabilityNode, "probability (0 to 1)")
        self._keepShown()
        overlayNodes.setScale(self.probabilityNode, 1.0)
        overlayNodes.setLegend(self.probabilityNode, f"Probability\n{structure}\n{'RAW' if raw else self._state}")

    def showUncertainty(self, measure, structure):
        """Show a measure; `entropy_k` is that of the named structure. Falls back to the first measure there is."""
        known = {info.id: info for info in self.measures if info.available}
        info = known.get(measure) or next(iter(known.values()))
        ofStructure = f" of {structure}" if info.id == PER_STRUCTURE else ""
        self.maps.get(self.maps.measureKey(info.id, structure))  # if its file has gone, nothing has been changed yet
        self.uncertaintyNode.SetAttribute(PREFIX + "Measure", info.id)
        self.uncertaintyNode.SetAttribute(PREFIX + "Structure", structure if ofStructure else "")
        overlayNodes.saveMeasure(self.uncertaintyNode, info)
        self._fillUncertainty()
        title = "Entropy" if ofStructure else info.title
        self.uncertaintyNode.SetName(f"{title}{ofStructure}{self._suffix}")
        layerFiles.describe(self.uncertaintyNode, info.unit)
        overlayNodes.setScale(self.uncertaintyNode, info.scaleEnd, info.upper)
        overlayNodes.setLegend(self.uncertaintyNode, f"{title}{ofStructure}\n({info.unit})\n{self._state}")

    def setRoiDistance(self, distanceMm):
        """Show uncertainty only up to this distance (mm) from the predicted structures; outside it the map becomes 0."""
        self.setRoi(replace(self._roi, distanceMm=distanceMm) if self._roi is not None else RoiChoice(distanceMm))

    def setRoi(self, roi):
        """Show uncertainty only inside this region of interest; outside it the map becomes 0.

        :param roi: `RoiChoice`.
        """
        if self.result is None or roi == self._roi:
            return
        before, self._roi = self._roi, roi
        try:
            self._fillUncertainty()
        except Exception:
            self._roi = before
            raise

    def setThreshold(self, value):
        """Hide uncertainty below this value, in the measure's unit. Only the display changes."""
        overlayNodes.setLowerThreshold(self.uncertaintyNode, max(value, SMALLEST_SHOWN))

    def setProbabilityFloor(self, value):
        """Hide probability below this value (0..1), so that the CT stays visible. Only the display changes."""
        overlayNodes.setLowerThreshold(self.probabilityNode, max(value, SMALLEST_SHOWN))

    def setLegendsVisible(self, probability, uncertainty):
        """Show or hide the two colour legends."""
        overlayNodes.setLegendVisible(self.probabilityNode, probability)
        overlayNodes.setLegendVisible(self.uncertaintyNode, uncertainty)

    def remakeLegends(self):
        """Have the legends drawn in views that were made after them."""
        for node in (self.probabilityNode, self.uncertaintyNode):
            overlayNodes.remakeLegend(self.scene, node)

    def setLabelsView(self, visible, opacity):
        """Show or hide the outlines of the labels; opacity in 0..1."""
        displayNode = self.segmentationNode.GetDisplayNode()
        displayNode.SetVisibility(visible)
        displayNode.SetOpacity(opacity)

    def _fillUncertainty(self):
        key, roi = self.shownChoice
        self._fill(self.uncertaintyNode, self.maps.get(key), self.maps.masked(key, roi))
        self._keepShown()

    def _keepShown(self):
        key, roi = self.shownChoice
        shown = self.maps.probabilityKey(self.shownStructure, self.shownRaw)
        self.maps.keep(key, shown, None if roi is None else self.maps.roiKey(roi))

    def _fill(self, node, volume, masked):
        wasModifying = node.StartModify()
        try:
            node.SetIJKToRASMatrix(matrixFromArray(volume.ijk_to_ras))
            isNew = overlayNodes.giveVoxels(node, masked.array.shape)
            self._fills[node].start(masked)
            if isNew:
                self._fills[node].finish()
        finally:
            node.EndModify(wasModifying)

    @property
    def _state(self):
        return "calibrated" if self.calibrated else "NOT CALIBRATED"

    @property
    def _suffix(self):
        return " (calibrated)" if self.calibrated else " (NOT CALIBRATED)"

    def _folderName(self, ctNode):
        provenance = self.result.provenance
        name = ctNode.GetName() if ctNode is not None else str(provenance["ct"].get("description") or "CT")
        return f"{name}, {provenance['model']['name']}" + ("" if self.calibrated else " (NOT CALIBRATED)")

    def _describe(self, node):
        provenance = self.result.provenance
        node.SetAttribute(PREFIX + "Model", provenance["model"]["name"])
        node.SetAttribute(PREFIX + "Calibration", provenance["calibration"]["summary"])
        node.SetAttribute(PREFIX + "Calibrated", "true" if provenance["calibration"]["calibrated"] else "false")
        node.SetAttribute(PREFIX + "ResultFolder", str(self.result.folder))
