"""Follows which CT lies below the layers: hides them when it is removed, and tells when another volume takes its place."""

import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from . import layersCt, slicerCompat
from .sliceLayers import compositeNodes


class CtBelow(VTKObservationMixin):
    """Asks the scene each time: nodes come and go in any order."""

    def __init__(self, panel):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self._looking = False
        self._askedFor = None  # the labels whose CT was removed, once the choice of a CT has been taken back
        self._asking = False

    def watch(self):
        """Follow what every slice view shows: Slicer puts a volume that is loaded below whatever layers there are."""
        for node in compositeNodes(self.panel.scene):
            if not self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewModified):
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewModified)

    def release(self):
        """Stop following."""
        self.removeObservers()
        self.panel = None

    @property
    def lost(self):
        """Whether the CT of the layers has been removed: over whatever CT comes next they would mislead."""
        overlays = self.panel.overlays
        return overlays is not None and bool(layersCt.removedCt(overlays.segmentationNode))

    def node(self):
        """The CT below the layers, or None."""
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if overlays is None or parameterNode is None:
            return None
        labels = overlays.segmentationNode
        if self.lost and self._askedFor is not labels:
            self._ask()
            return None
        return layersCt.below(labels, overlays.result, parameterNode.ctVolume)

    def _onViewModified(self, caller, event):
        if not self._looking:
            self._looking = True
            slicerCompat.soon(self._look)

    def _look(self):
        self._looking = False
        if self.panel is not None:
            self.panel.updateStatus()

    def _ask(self):
        """Take back what the selector has put in place of a CT that went; what is chosen after that was meant."""
        if not self._asking:
            self._asking = True
            slicerCompat.soon(self._onAsked)

    def _onAsked(self):
        self._asking = False
        if self.panel is None:
            return
        overlays, parameterNode = self.panel.overlays, self.panel.parameterNode
        if not self.lost or parameterNode is None:
            return
        self._askedFor = overlays.segmentationNode
        parameterNode.ctVolume = None
        text = _("The CT of this result, {name}, was removed: its layers are hidden. Load that CT and choose it above.")
        self.panel.run.showError(text.format(name=layersCt.removedCt(overlays.segmentationNode)))
        self.panel.update()

    def warnings(self):
        """What is to be known about what lies below the layers: lines of plain text."""
        overlays = self.panel.overlays
        if overlays is None:
            return []
        labels = overlays.segmentationNode
        if self.lost:
            text = _("Layers hidden: their CT, {name}, is not in the scene. Load that CT and choose it as CT.")
            return [text.format(name=layersCt.removedCt(labels))]
        lines = []
        ctNode = layersCt.ctOf(labels)
        if layersCt.isGuessed(labels):
            text = _("CT below the layers: {name}. Only its voxel grid says that it is the one they were made from.")
            lines.append(text.format(name=ctNode.GetName()))
        if layersCt.isOther(labels):
            text = _("{name}, below the layers, is another CT than the one they were made from: its voxel grid is the same, its "
                     "voxels are not. Load that CT and choose it as CT.")  # fmt: skip
            lines.append(text.format(name=ctNode.GetName()))
        for name in layersCt.strangersBelow(self.panel.scene, ctNode, overlays.nodes):
            lines.append(_("{name} lies below these layers in a view, which is not their CT.").format(name=name))
        return lines
