"""What each slice view shows, from bottom to top: CT, calibrated probability, uncertainty; labels are drawn as outlines.

Slicer saves the opacity of the classic layers only and has no widget for the one on top. The parameter node keeps both
and this module puts them back.
"""

from dataclasses import dataclass

from . import slicerCompat
from .mrmlTools import nodesOfClass
from .overlayNodes import refreshLegend

_NEVER = object()  # None is a value: no volume


@dataclass
class LayerView:
    """Whether and how strongly each layer is drawn; opacities in 0..1."""

    ctVisible: bool = True
    probabilityVisible: bool = True
    probabilityOpacity: float = 0.5
    uncertaintyVisible: bool = True
    uncertaintyOpacity: float = 0.7


def compositeNodes(scene):
    """The nodes that say which volumes a slice view shows, one a view."""
    return nodesOfClass(scene, "vtkMRMLSliceCompositeNode")


def showLayers(scene, view, ctNode, probabilityNode, uncertaintyNode, written=None):
    """Put the volumes into every slice view. A hidden layer is taken out of the view, so that its legend goes as well.

    :param view: a `LayerView`.
    :param ctNode: CT, or None to leave the background as it is.
    :param probabilityNode: volume node or None.
    :param uncertaintyNode: volume node or None.
    :param written: what earlier calls have written, to be kept by the caller. What has not changed since is not written
        again, so that a fade or a volume that somebody has put into one view meanwhile stays. None: everything is written.
    """
    written = {} if written is None else written
    wanted = {
        "SetForegroundVolumeID": _shownId(probabilityNode, view.probabilityVisible),
        "SetForegroundOpacity": view.probabilityOpacity,
    }
    if ctNode is not None:
        wanted["SetBackgroundVolumeID"] = ctNode.GetID() if view.ctVisible else None
    top = _shownId(uncertaintyNode, view.uncertaintyVisible), view.uncertaintyOpacity
    for node in compositeNodes(scene):
        before = written.setdefault(node.GetID(), {})
        wasModifying = node.StartModify()
        try:
            for setter, value in wanted.items():
                if before.get(setter, _NEVER) != value:
                    getattr(node, setter)(value)
            if before.get("top") != top:
                slicerCompat.setTopLayer(node, *top)
        finally:
            node.EndModify(wasModifying)
        before.update(wanted, top=top)
    for volumeNode in (probabilityNode, uncertaintyNode):
        if volumeNode is not None:
            refreshLegend(volumeNode)


def jumpTo(scene, positionRas):
    """Move every slice view through a point, without changing its zoom.

    :param positionRas: (R, A, S) in mm.
    """
    r, a, s = (float(value) for value in positionRas)
    for node in nodesOfClass(scene, "vtkMRMLSliceNode"):
        # By offsetting alone the point may lie outside a zoomed-in view, so that one is centred.
        node.JumpSliceByOffsetting(r, a, s)
        if not _isInView(node, (r, a, s)):
            node.JumpSliceByCentering(r, a, s)


def _isInView(sliceNode, positionRas):
    xyToRas = sliceNode.GetXYToRAS()
    inverse = type(xyToRas)()
    inverse.DeepCopy(xyToRas)
    inverse.Invert()
    x, y = inverse.MultiplyPoint((*positionRas, 1.0))[:2]
    width, height = sliceNode.GetDimensions()[:2]
    return 0 <= x < width and 0 <= y < height


def _shownId(volumeNode, visible):
    return volumeNode.GetID() if volumeNode is not None and visible else None
