"""Handing a region to Segment Editor, and seeing afterwards whether it was edited. Scene in, nodes out; no Qt.

The model's own labels are never edited: the first region that is sent makes a copy of them, "... edited", and all edits go
into that copy. Undo is Segment Editor's own.
"""

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
import vtk.util.numpy_support

from . import overlayNodes, palettes, terminology
from .mrmlTools import matrixFromArray, nodesOfClass

MODEL_LABELS_ROLE = "CalibUncertainty.ModelLabels"
BOX_SEGMENT = "CalibUncertainty_region_box"
EDITOR_TAG = "SegmentEditor"  # of the node that the Segment Editor module looks for
OUTLINE_PIXELS = 2
BOX_COLOR = (1.0, 1.0, 1.0)


@dataclass
class EditedRegion:
    """One region while it is in Segment Editor: where, and what the labels there were."""

    regionId: int
    modelLabels: object
    node: object
    segmentId: str
    box: object
    numbers: dict
    before: np.ndarray

    def editedVoxels(self):
        """How many voxels of the box have another label than the model gave them.

        :return: None where nothing was edited since the region was sent, or a segmentation has been deleted.
        """
        if self.node.GetScene() is None or self.modelLabels.GetScene() is None:
            return None
        now = labelsInBox(self.node, self.box, self.numbers)
        if np.array_equal(now, self.before):
            return None
        return int((now != labelsInBox(self.modelLabels, self.box, self.numbers)).sum())


def sendToEditor(scene, modelLabels, ctNode, region, box, insideBoxOnly=False):
    """Set Segment Editor up for a region: the copy of the labels, the region's segment, the CT, and the mask.

    :param modelLabels: segmentation node of the Result.
    :param ctNode: the CT below it.
    :param region: `Region`.
    :param box: `RegionBox` to compare in later, and to edit in where `insideBoxOnly`.
    :return: `EditedRegion`.
    """
    node = editableLabels(scene, modelLabels, ctNode)
    segmentId = segmentOf(node, region)
    removeBox(scene, node)
    numbers = {}
    before = labelsInBox(node, box, numbers)
    edited = EditedRegion(region.id, modelLabels, node, segmentId, box, numbers, before)
    editor = editorNode(scene)
    wasModifying = editor.StartModify()
    try:
        editor.SetAndObserveSegmentationNode(node)
        editor.SetAndObserveSourceVolumeNode(ctNode)
        editor.SetSelectedSegmentID(segmentId)
        if insideBoxOnly:
            editor.SetMaskSegmentID(_addBox(node, box))
            editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        else:
            editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    finally:
        editor.EndModify(wasModifying)
    return edited


def editableLabels(scene, modelLabels, ctNode):
    """The copy of a Result's labels that is edited; made when it is asked for the first time.

    :return: segmentation node, whose labels the model's own no longer follow.
    """
    node = findEditableLabels(scene, modelLabels)
    if node is not None:
        return node
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{modelLabels.GetName()} edited")
    node.SetNodeReferenceID(MODEL_LABELS_ROLE, modelLabels.GetID())
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().DeepCopy(modelLabels.GetSegmentation())
    node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
    displayNode = node.GetDisplayNode()
    displayNode.SetVisibility2DFill(False)
    displayNode.SetVisibility2DOutline(True)
    displayNode.SetSliceIntersectionThickness(OUTLINE_PIXELS)
    overlayNodes.putBeside(scene, node, modelLabels)
    return node


def findEditableLabels(scene, modelLabels):
    """The copy of a Result's labels that has been edited, or None as long as there is none."""
    for node in nodesOfClass(scene, "vtkMRMLSegmentationNode"):
        if node.GetNodeReference(MODEL_LABELS_ROLE) is modelLabels:
            return node
    return None


def segmentOf(node, region):
    """Identifier of the segment of a region's structure; an empty one is added where the model found nothing of it."""
    wanted = f"label_{region.label}"
    segmentation = node.GetSegmentation()
    if segmentation.GetSegment(wanted) is not None:
        return wanted
    byName = segmentation.GetSegmentIdBySegmentName(region.structure)
    if byName:
        return byName
    segment = slicer.vtkSegment()
    segment.SetName(region.structure or f"Label {region.label}")
    segment.SetColor(*palettes.outlineColor(max(region.label - 1, 0)))
    terminology.setTerminology(segment, region.structure)
    segmentation.AddSegment(segment, wanted)
    return wanted


def labelsInBox(node, box, numbers):
    """Which segment each voxel of a box belongs to, whatever grid the segments are stored on.

    :param box: `RegionBox`.
    :param numbers: {segment identifier: its number from 1}; segments that are not in it yet are added.
    :return: (z, y, x) uint16 of these numbers, 0 for none.
    """
    shape = tuple(int(b - a) for a, b in zip(box.start, box.stop, strict=True))
    labels = np.zeros(shape, np.uint16)
    segmentation = node.GetSegmentation()
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    reference = _imageOf(box)
    for order in range(segmentation.GetNumberOfSegments()):
        identifier = segmentation.GetNthSegmentID(order)
        segment = segmentation.GetSegment(identifier)
        image = segment.GetRepresentation(name)
        if identifier == BOX_SEGMENT or image is None or image.GetPointData().GetScalars() is None:
            continue
        inBox = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, reference, inBox)
        number = numbers.setdefault(identifier, len(numbers) + 1)
        labels[_arrayOf(inBox, shape) == segment.GetLabelValue()] = number
    return labels


def removeBox(scene, node):
    """Take the segment away that bounded the editing to a region's box, and edit everywhere again."""
    editor = scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if editor is not None and editor.GetMaskSegmentID() == BOX_SEGMENT:
        editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
        editor.SetMaskSegmentID("")
    if node.GetSegmentation().GetSegment(BOX_SEGMENT) is not None:
        node.GetSegmentation().RemoveSegment(BOX_SEGMENT)


def editorNode(scene):
    """The node that the Segment Editor module is driven by: the scene's own one, or a new one."""
    node = scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(EDITOR_TAG)
        node = scene.AddNode(node)
    return node


def _addBox(node, box):
    image = _imageOf(box)
    image.GetPointData().GetScalars().Fill(1)
    segment = slicer.vtkSegment()
    segment.SetName("Box of the region (goes when you come back)")
    segment.SetColor(*BOX_COLOR)
    segment.SetLabelValue(1)
    segment.AddRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), image)
    node.GetSegmentation().AddSegment(segment, BOX_SEGMENT)
    node.GetDisplayNode().SetSegmentVisibility3D(BOX_SEGMENT, False)
    return BOX_SEGMENT


def _imageOf(box):
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    image = slicer.vtkOrientedImageData()
    image.SetExtent(x0, x1 - 1, y0, y1 - 1, z0, z1 - 1)
    image.SetImageToWorldMatrix(matrixFromArray(box.ijkToRas))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(0)
    return image


def _arrayOf(image, shape):
    return vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
