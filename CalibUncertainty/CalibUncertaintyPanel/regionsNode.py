"""The models of the 3D view: uncertain regions in the colours of their scale, and all structures as a grey ghost around them."""

import vtk

from . import overlayNodes
from .regionSurfaces import VALUE

PREFIX = "CalibUncertainty."
KINDS = ("regions3d", "structures3d")
GHOST_OPACITY = 0.15
GHOST_COLOR = (0.85, 0.85, 0.85)


def addRegionModels(scene, overlays, surfaces):
    """Add the two models, in the folder of the other layers; visible in 3D, not in slices.

    :param overlays: `Overlays` of the Result.
    :param surfaces: `RegionSurfaces` of it.
    :return: (model of the regions, model of the structures).
    """
    suffix = "calibrated" if overlays.calibrated else "NOT CALIBRATED"
    regions = _addModel(scene, overlays, KINDS[0], f"Uncertain regions in 3D ({suffix})", surfaces.regions)
    ghost = _addModel(scene, overlays, KINDS[1], "All structures in 3D", surfaces.structures)
    display = regions.GetDisplayNode()
    display.SetAndObserveColorNodeID(overlayNodes.colorScaleNode(scene, overlayNodes.UNCERTAINTY_SCALE).GetID())
    display.SetScalarRangeFlag(display.UseManualScalarRange)
    display.SetScalarRange(0.0, surfaces.upper)  # the same of every case, so that pictures can be compared
    display.SetActiveScalar(VALUE, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarVisibility(True)
    regions.SetAttribute(PREFIX + "Value", surfaces.title)
    ghost.GetDisplayNode().SetColor(*GHOST_COLOR)
    ghost.GetDisplayNode().SetOpacity(GHOST_OPACITY)
    return regions, ghost


def setModelsVisible(models, visible):
    """Show or hide models; those that are missing are passed over."""
    for model in models:
        display = model.GetDisplayNode() if model is not None else None
        if display is not None and bool(display.GetVisibility()) != visible:
            display.SetVisibility(visible)


def _addModel(scene, overlays, kind, name, surface):
    node = scene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAttribute(PREFIX + "Kind", kind)
    node.SetAttribute(PREFIX + "ResultFolder", overlays.segmentationNode.GetAttribute(PREFIX + "ResultFolder") or "")
    if surface is not None:
        node.SetAndObservePolyData(surface)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2D(False)
    node.GetDisplayNode().SetVisibility3D(True)
    overlayNodes.putBeside(scene, node, overlays.segmentationNode)
    return node
