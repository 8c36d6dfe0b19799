"""What each slice view shows, from bottom to top: CT, calibrated probability, uncertainty; labels are drawn as outlines.

Slicer saves the opacity of the classic layers only and has no widget for the one on top. The parameter node keeps both
and this module puts them back.
"""

from dataclasses import dataclass

from . import layouts, slicerCompat
from .mrmlTools import nodesOfClass
from .overlayNodes import refreshLegend, setLegendViews

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
    for node in compositeNodes(scene):
        probabilityHere, uncertaintyHere = layouts.layersOf(node.GetLayoutName())
        wanted = {
            "SetForegroundVolumeID": _shownId(probabilityNode, view.probabilityVisible and probabilityHere),
            "SetForegroundOpacity": view.probabilityOpacity,
        }
        if ctNode is not None:
            wanted["SetBackgroundVolumeID"] = ctNode.GetID() if view.ctVisible else None
        top = _shownId(uncertaintyNode, view.uncertaintyVisible and uncertaintyHere), view.uncertaintyOpacity
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
    if uncertaintyNode is not None:
        setLegendViews(uncertaintyNode, _viewsOfUncertainty(scene))
    for volumeNode in (probabilityNode, uncertaintyNode):
        if volumeNode is not None:
            refreshLegend(volumeNode)


def _viewsOfUncertainty(scene):
    """Identifiers of the slice views that show the uncertainty; an empty list where all do."""
    views = nodesOfClass(scene, "vtkMRMLSliceNode")
    showing = [view.GetID() for view in views if layouts.layersOf(view.GetLayoutName())[1]]
    return showing if len(showing) < len(views) else []


def _shownId(volumeNode, visible):
    return volumeNode.GetID() if volumeNode is not None and visible else None
