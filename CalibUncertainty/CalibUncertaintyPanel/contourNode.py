"""The node of the confidence contours: a segmentation of surfaces, drawn as thin lines and saved with the scene."""

import json

import slicer

from . import overlayNodes, palettes

PREFIX = "CalibUncertainty."
KIND = "contours"
LINE_PIXELS = 1
# Thin lines about a thick one: the inner one brighter, the outer one in the structure's own colour.
INNER_TOWARDS_WHITE = 0.55


def addContourNode(scene, overlays):
    """Add an empty node for the contours of a Result, in the folder of its other layers.

    :param overlays: the `Overlays` of the Result.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Confidence contours{_suffix(overlays)}")
    node.SetAttribute(PREFIX + "Kind", KIND)
    for name in ("ResultFolder", "Model", "Calibration", "Calibrated"):
        node.SetAttribute(PREFIX + name, overlays.segmentationNode.GetAttribute(PREFIX + name) or "")
    node.CreateDefaultDisplayNodes()
    _setSource(node.GetSegmentation())
    displayNode = node.GetDisplayNode()
    displayNode.SetVisibility2DFill(False)
    displayNode.SetVisibility2DOutline(True)
    displayNode.SetVisibility3D(False)
    displayNode.SetSliceIntersectionThickness(LINE_PIXELS)
    overlayNodes.putBeside(scene, node, overlays.segmentationNode)
    return node


def fillContours(node, contours, order):
    """Replace what the node holds.

    :param contours: list of `Contour`.
    :param order: names of all structures in the model's order, which gives the colours.
    """
    wasModifying = node.StartModify()
    try:
        segmentation = node.GetSegmentation()
        segmentation.RemoveAllSegments()
        _setSource(segmentation)
        for contour in contours:
            if contour.surface is not None:
                place = order.index(contour.structure)
                name = f"structure_{place}_{'inner' if contour.inner else 'outer'}"
                segmentation.AddSegment(_segment(contour, place), name)
    finally:
        node.EndModify(wasModifying)


def contourName(contour):
    """As it is listed: "Parotid, at least 95 %"."""
    return f"{contour.structure}, at least {100 * contour.level:g} %"


def saveChoice(node, choice):
    """Keep on the node what its contours are of, so that a loaded scene need not compute them again.

    :param choice: (names of structures, outer level, inner level).
    """
    structures, outer, inner = choice
    node.SetAttribute(PREFIX + "Contours", json.dumps([list(structures), outer, inner]))


def savedChoice(node):
    """What `saveChoice` kept, or None."""
    try:
        structures, outer, inner = json.loads(node.GetAttribute(PREFIX + "Contours") or "null")
    except (TypeError, ValueError):
        return None
    return tuple(structures), outer, inner


def _setSource(segmentation):
    segmentation.SetSourceRepresentationName(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )


def _segment(contour, place):
    color = palettes.outlineColor(place)
    if contour.inner:
        color = tuple(value + INNER_TOWARDS_WHITE * (1 - value) for value in color)
    segment = slicer.vtkSegment()
    segment.SetName(contourName(contour))
    segment.SetColor(*color)
    segment.AddRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName(), contour.surface
    )
    return segment


def _suffix(overlays):
    return " (calibrated)" if overlays.calibrated else " (NOT CALIBRATED)"
