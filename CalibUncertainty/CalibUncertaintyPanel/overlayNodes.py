"""The single nodes behind the layers: volumes, colour scales, legends, outlines, folder. Scene in, nodes out."""

import contextlib

import numpy as np
import slicer
import vtk
import vtk.util.numpy_support

from . import palettes, terminology
from .mrmlTools import matrixFromArray, nodesOfClass

PREFIX = "CalibUncertainty."
PROBABILITY_SCALE = "probability"
UNCERTAINTY_SCALE = "uncertainty"
CONTROL_POINTS = {PROBABILITY_SCALE: palettes.VIRIDIS, UNCERTAINTY_SCALE: palettes.INFERNO_FROM_A_QUARTER}
LEGEND_POSITION = {PROBABILITY_SCALE: (0.02, 0.75), UNCERTAINTY_SCALE: (0.98, 0.75)}
LEGEND_SIZE = (0.08, 0.40)  # parts of the view's width and height; Slicer fits the text into the width
SCALE_ROLE = PREFIX + "Scale"
OUTLINE_PIXELS = 2
STUDY = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()


def addVolume(scene, name, scale):
    """Add a scalar volume with one of the two colour scales, thresholded, ready to be filled.

    :param scale: PROBABILITY_SCALE or UNCERTAINTY_SCALE.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAttribute(PREFIX + "Kind", scale)
    node.CreateDefaultDisplayNodes()
    displayNode = node.GetScalarVolumeDisplayNode()
    displayNode.SetAndObserveColorNodeID(colorScaleNode(scene, scale).GetID())
    displayNode.SetAutoWindowLevel(False)
    displayNode.SetAutoThreshold(False)
    displayNode.SetApplyThreshold(True)
    displayNode.SetInterpolate(True)
    if scale == UNCERTAINTY_SCALE:
        _addScaleHolder(scene, node)
    return node


def giveVoxels(volumeNode, shape):
    """Make sure that a volume has float voxels of this shape (z, y, x); new ones hold anything.

    :return: whether they are new.
    """
    image = volumeNode.GetImageData()
    if image is not None and image.GetDimensions()[::-1] == tuple(shape) and image.GetScalarType() == vtk.VTK_FLOAT:
        return False
    image = vtk.vtkImageData()
    image.SetDimensions(shape[::-1])
    image.AllocateScalars(vtk.VTK_FLOAT, 1)
    volumeNode.SetAndObserveImageData(image)
    return True


def colorScaleNode(scene, scale):
    """The colour table of a scale: the scene's own one, or a new one."""
    for node in nodesOfClass(scene, "vtkMRMLColorTableNode"):
        if node.GetAttribute(PREFIX + "ColorScale") == scale:
            _fillColorScale(node, scale)
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(f"CalibUncertainty {scale}")
    node.SetAttribute(PREFIX + "ColorScale", scale)
    node.SetAttribute("Category", "CalibUncertainty")
    _fillColorScale(node, scale)
    return scene.AddNode(node)


def restoreColorScale(scene, volumeNode, scale):
    """Give a volume of a saved scene its colours back where the colour table was not saved with it."""
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    if displayNode is not None:
        displayNode.SetAndObserveColorNodeID(colorScaleNode(scene, scale).GetID())


def setScale(volumeNode, end, largest=None):
    """Fix the colour scale of a volume to 0..end, whatever its values are, so that pictures can be compared.

    :param largest: values up to this one are shown, in the last colour where they lie beyond the scale; `end` unless given.
    """
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    displayNode.SetWindowLevelMinMax(0.0, end)
    displayNode.SetUpperThreshold(max((largest or end) * 1.001, displayNode.GetLowerThreshold()))


def setLowerThreshold(volumeNode, value):
    """Hide voxels below a value; nothing but the display node changes."""
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    highest = max(displayNode.GetUpperThreshold(), displayNode.GetWindowLevelMax() * 1.001, value)
    displayNode.SetThreshold(value, highest)


def setLegend(volumeNode, title):
    """Give a volume a colour legend with this title, or change its title."""
    legend = _legendOf(volumeNode)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(volumeNode)
        scale = volumeNode.GetAttribute(PREFIX + "Kind")
        legend.SetOrientation(legend.Vertical)
        legend.SetPosition(*LEGEND_POSITION[scale])
        legend.SetSize(*LEGEND_SIZE)
        legend.SetLabelFormat("%.2f")
        legend.SetNumberOfLabels(5)
        for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            text.SetFontFamilyToArial()
        holder = volumeNode.GetNodeReference(SCALE_ROLE)
        if holder is not None:
            legend.SetAndObservePrimaryDisplayNode(holder)
    legend.SetName(f"{volumeNode.GetName()} colour legend")
    legend.SetTitleText(title)


def setLegendVisible(volumeNode, visible):
    """Show or hide the colour legend of a volume."""
    legend = _legendOf(volumeNode)
    if legend is not None:
        legend.SetVisibility(visible)


def remakeLegend(scene, volumeNode):
    """Replace the colour legend by an equal one: a view draws only those that enter the scene after it."""
    legend = _legendOf(volumeNode)
    if legend is None:
        return
    title, visible, position = legend.GetTitleText(), legend.GetVisibility(), legend.GetPosition()
    scene.RemoveNode(legend)
    setLegend(volumeNode, title)
    setLegendVisible(volumeNode, visible)
    _legendOf(volumeNode).SetPosition(*position[:2])


def setLegendViews(volumeNode, viewIds):
    """Draw the colour legend in these views only; an empty list means all."""
    legend = _legendOf(volumeNode)
    if legend is None or list(legend.GetViewNodeIDs()) == viewIds:
        return
    legend.RemoveAllViewNodeIDs()
    for viewId in viewIds:
        legend.AddViewNodeID(viewId)


def removeLegend(scene, volumeNode):
    """Remove what draws the legend of a volume that has been deleted; on a scale holder it would be drawn for ever."""
    identifiers = [volumeNode.GetNthDisplayNodeID(index) for index in range(volumeNode.GetNumberOfDisplayNodes())]
    identifiers.append(volumeNode.GetNodeReferenceID(SCALE_ROLE))
    nodes = [scene.GetNodeByID(identifier) for identifier in identifiers if identifier]
    for node in nodes:
        if node is not None and (node.IsA("vtkMRMLColorLegendDisplayNode") or node.IsA("vtkMRMLModelDisplayNode")):
            scene.RemoveNode(node)


def refreshLegend(volumeNode):
    """Have the legend drawn anew: Slicer does not look again when a volume enters or leaves a view from Python."""
    legend = _legendOf(volumeNode)
    if legend is not None:
        legend.Modified()


def legendFollowsWindow(volumeNode):
    """Keep a legend that Slicer draws from a scale holder true when the window of the volume is changed with the mouse.

    :return: what `stopObserving` needs, or None.
    """
    holder = volumeNode.GetNodeReference(SCALE_ROLE)
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    if holder is None or displayNode is None:
        return None

    def copyWindow(caller, event):
        holder.SetScalarRange(caller.GetWindowLevelMin(), caller.GetWindowLevelMax())

    copyWindow(displayNode, None)
    return displayNode, displayNode.AddObserver(vtk.vtkCommand.ModifiedEvent, copyWindow)


def stopObserving(observation):
    """End what `legendFollowsWindow` began."""
    if observation is not None:
        displayNode, tag = observation
        displayNode.RemoveObserver(tag)


def addSegmentation(scene, result, ctNode):
    """Add the labels of a Result as a segmentation: the model's names, distinct colours, outlines without fill.

    Structures that the model did not find get no segment.
    """
    name = result.provenance["model"]["name"]
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Labels of {name}")
    node.SetAttribute(PREFIX + "Kind", "labels")
    node.CreateDefaultDisplayNodes()
    labelmap = _orientedLabelmap(result.segmentation)
    if labelmap is not None:
        voxels = vtk.util.numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
        present = set(np.unique(voxels).tolist())  # of the labelled part: the whole CT would take as long as reading it
        for order, (value, structure) in enumerate(result.labels.items()):
            if value in present:
                node.GetSegmentation().AddSegment(_segment(labelmap, value, structure, order), f"label_{value}")
    if ctNode is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
    displayNode = node.GetDisplayNode()
    displayNode.SetVisibility2DFill(False)
    displayNode.SetVisibility2DOutline(True)
    displayNode.SetSliceIntersectionThickness(OUTLINE_PIXELS)
    return node


def groupInFolder(scene, nodes, folderName, ctNode=None):
    """Put nodes into a new subject-hierarchy folder of this name.

    :param ctNode: a CT whose patient and study the folder belongs to, where it has them; otherwise it lies on top.
    :return: item identifier of the folder.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    ctItem = hierarchy.GetItemByDataNode(ctNode) if ctNode is not None else 0
    study = hierarchy.GetItemAncestorAtLevel(ctItem, STUDY) if ctItem else 0
    folder = hierarchy.CreateFolderItem(study or hierarchy.GetSceneItemID(), folderName)
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
        hierarchy.SetItemParent(item, folder)
    return folder


def putBeside(scene, node, other):
    """Put a node into the subject-hierarchy folder that another node lies in."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(other))
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
    hierarchy.SetItemParent(item, folder)


@contextlib.contextmanager
def undoneOnFailure(scene):
    """Whatever is added to the scene inside is removed again, folders of the subject hierarchy included, if it fails."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    nodesBefore = {node.GetID() for node in nodesOfClass(scene, "vtkMRMLNode")}
    itemsBefore = _items(hierarchy)
    try:
        yield
    except BaseException:
        for node in nodesOfClass(scene, "vtkMRMLNode"):
            if node is not None and node.GetID() not in nodesBefore:
                scene.RemoveNode(node)
        added = _items(hierarchy) - itemsBefore
        for item in [item for item in added if hierarchy.GetItemParent(item) not in added]:
            hierarchy.RemoveItem(item)  # with what lies in it
        raise


def saveMeasure(volumeNode, info):
    """Keep the description of the shown measure on its node, for scenes that are opened without the Result folder."""
    for key, value in vars(info).items():
        volumeNode.SetAttribute(f"{PREFIX}Measure.{key}", str(value))


def savedMeasure(volumeNode, measureInfo):
    """The description that `saveMeasure` kept.

    :param measureInfo: the class to make.
    """
    kinds = measureInfo.__annotations__
    saved = {key: volumeNode.GetAttribute(f"{PREFIX}Measure.{key}") or "" for key in kinds}
    numbers = {key: float(saved[key] or 0) for key, kind in kinds.items() if kind is float}
    return measureInfo(**{**saved, **numbers, "available": True})


def _items(hierarchy):
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return {items.GetId(index) for index in range(items.GetNumberOfIds())}


def _addScaleHolder(scene, volumeNode):
    # Slicer draws the legend of a volume only where the volume is background, foreground or label. The uncertainty lies
    # above these, so its legend hangs on a display node that is no volume's: colour table, range, and visible in slices.
    holder = scene.AddNewNodeByClass("vtkMRMLModelDisplayNode", "Uncertainty colour scale")
    holder.SetAndObserveColorNodeID(volumeNode.GetScalarVolumeDisplayNode().GetColorNodeID())
    holder.SetScalarRangeFlag(holder.UseManualScalarRange)
    holder.SetVisibility2D(True)
    holder.SetVisibility3D(False)
    volumeNode.SetNodeReferenceID(SCALE_ROLE, holder.GetID())


def _fillColorScale(node, scale):
    colors = palettes.colorScale(CONTROL_POINTS[scale])
    if node.GetNumberOfColors() == len(colors):
        last = [0.0] * 4
        node.GetColor(len(colors) - 1, last)
        if np.allclose(last[:3], colors[-1], atol=0.01):
            return
    node.SetTypeToUser()
    node.SetNumberOfColors(len(colors))
    for index, (red, green, blue) in enumerate(colors):
        node.SetColor(index, f"{index / (len(colors) - 1):.3f}", red, green, blue, 1.0)


def _legendOf(volumeNode):
    # The colour logic's own search goes through the primary display node, which a scale holder replaces.
    for index in range(volumeNode.GetNumberOfDisplayNodes()):
        displayNode = volumeNode.GetNthDisplayNode(index)
        if displayNode is not None and displayNode.IsA("vtkMRMLColorLegendDisplayNode"):
            return displayNode
    return None


def _orientedLabelmap(volume):
    """The labelled part of a segmentation as one image that all segments share; None where nothing is labelled."""
    labelled = np.argwhere(volume.array.any(axis=(1, 2))).ravel(), np.argwhere(volume.array.any(axis=(0, 2))).ravel()
    if not len(labelled[0]):
        return None
    columns = np.argwhere(volume.array.any(axis=(0, 1))).ravel()
    (z0, z1), (y0, y1), (x0, x1) = ((int(found[0]), int(found[-1])) for found in (*labelled, columns))
    voxels = np.ascontiguousarray(volume.array[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1], dtype=np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(x0, x1, y0, y1, z0, z1)
    image.SetImageToWorldMatrix(matrixFromArray(volume.ijk_to_ras))
    scalars = vtk.util.numpy_support.numpy_to_vtk(voxels.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    image.GetPointData().SetScalars(scalars)
    return image


def _segment(labelmap, value, name, order):
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*palettes.outlineColor(order))
    segment.SetLabelValue(value)
    terminology.setTerminology(segment, name)
    segment.AddRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), labelmap
    )
    return segment
