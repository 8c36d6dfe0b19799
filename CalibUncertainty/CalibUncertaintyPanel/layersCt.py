"""Which CT the layers of a Result lie over. The segmentation node keeps it, so that another patient's never takes its place."""

from pathlib import Path

from . import ctVolume, slicerCompat
from .mrmlTools import nodesOfClass

CT_ROLE = "CalibUncertainty.Ct"
NAME_ATTRIBUTE = "CalibUncertainty.CtName"
# "true": it was segmented itself, has the voxels, or was read from the same file; "other": it has other voxels
SURE_ATTRIBUTE = "CalibUncertainty.CtKnown"


def tie(segmentationNode, ctNode, known=False, isOther=False):
    """Note that a Result was made from this CT.

    :param segmentationNode: the labels of the Result.
    :param ctNode: scalar volume node.
    :param known: whether that is known; False where only the voxel grid is the same.
    :param isOther: whether it is known that it was not: the voxels are others.
    """
    segmentationNode.SetNodeReferenceID(CT_ROLE, ctNode.GetID())
    segmentationNode.SetAttribute(NAME_ATTRIBUTE, ctNode.GetName())
    segmentationNode.SetAttribute(SURE_ATTRIBUTE, "other" if isOther else "true" if known else "false")


def tieAsFound(segmentationNode, ctNode, result):
    """Note that a Result was made from this CT, and how sure that is: by its voxels, else by the file it was read from.

    :param ctNode: scalar volume node on the Result's voxel grid.
    :param result: `Result`, or None where its folder is gone.
    """
    same = None if result is None else ctVolume.hasVoxels(ctNode, result)
    if same is None:
        same = result is not None and isReadFrom(ctNode, result.provenance["ct"]["path"])
        tie(segmentationNode, ctNode, known=same)
    else:
        tie(segmentationNode, ctNode, known=same, isOther=not same)


def ctOf(segmentationNode):
    """The CT that `tie` noted, or None where there is none, or not any more."""
    node = segmentationNode.GetNodeReference(CT_ROLE)
    return node if node is not None and node.GetScene() is not None else None


def removedCt(segmentationNode):
    """Name of the CT that `tie` noted, if it is not in the scene any more; otherwise an empty string."""
    return (segmentationNode.GetAttribute(NAME_ATTRIBUTE) or "") if ctOf(segmentationNode) is None else ""


def isGuessed(segmentationNode):
    """Whether nothing but its voxel grid says that the CT is the one the Result was made from."""
    return ctOf(segmentationNode) is not None and segmentationNode.GetAttribute(SURE_ATTRIBUTE) == "false"


def isOther(segmentationNode):
    """Whether the CT has other voxels than the one that the Result was made from, on the same voxel grid."""
    return ctOf(segmentationNode) is not None and segmentationNode.GetAttribute(SURE_ATTRIBUTE) == "other"


def isReadFrom(ctNode, path):
    """Whether a CT of the scene was read from this file, or from this folder.

    :param path: of the CT, as a Result has it.
    """
    storage = ctNode.GetStorageNode()
    if storage is None or not storage.GetFileName():
        return False
    return Path(path) in (Path(storage.GetFileName()), Path(storage.GetFileName()).parent)


def below(segmentationNode, result, chosen):
    """The CT below the layers: the one that was noted, else the chosen one if it fits, which is noted then.

    :param result: `Result`, or None where its folder is gone.
    :param chosen: scalar volume node or None. It also takes the place of one that was noted because of its grid alone, or
        that has other voxels.
    :return: scalar volume node, or None where there is none or it does not lie where the layers do.
    """
    ctNode = ctOf(segmentationNode)
    isSure = not isGuessed(segmentationNode) and not isOther(segmentationNode)
    if ctNode is not None and (chosen in (None, ctNode) or isSure):
        return ctNode if _fits(ctNode, result) else None
    if chosen is None or chosen.GetImageData() is None or not _fits(chosen, result):
        return ctNode if ctNode is not None and _fits(ctNode, result) else None
    tieAsFound(segmentationNode, chosen, result)
    return chosen


def strangersBelow(scene, ctNode, layers):
    """Names of volumes that lie below layers in a slice view although they are not their CT.

    :param ctNode: the CT of the layers, or None.
    :param layers: their volume nodes.
    """
    shown = {node.GetID() for node in layers}
    names = []
    for view in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        background = scene.GetNodeByID(view.GetBackgroundVolumeID() or "")
        isCovered = view.GetForegroundVolumeID() in shown or slicerCompat.topLayerVolumeId(view) in shown
        if background is not None and background is not ctNode and isCovered and background.GetName() not in names:
            names.append(background.GetName())
    return names


def takeOffViews(scene, layers):
    """Take volumes out of every slice view that shows them as a layer.

    :param layers: volume nodes, perhaps already removed from the scene.
    """
    gone = {node.GetID() for node in layers}
    for view in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        if view.GetForegroundVolumeID() in gone:
            view.SetForegroundVolumeID(None)
        if slicerCompat.topLayerVolumeId(view) in gone:
            slicerCompat.setTopLayer(view, None, 0.0)


def _fits(ctNode, result):
    return result is None or ctVolume.belongsTogether(ctNode, result)
