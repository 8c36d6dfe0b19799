"""A region in Segment Editor: real segmentation nodes, the real editor node, and edits through Slicer's own editor logic."""

import numpy as np
import pytest
import slicer
import vtk
from CalibUncertaintyPanel import reviewEditor, reviewExtent
from CalibUncertaintyPanel.overlays import Overlays


@pytest.fixture
def case(scene, ct, make_result):
    """CT, Result, layers, the first region and its box."""
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    region = result.regions[0]
    box = reviewExtent.boxesOf(result.folder)[region.id].grown(3, result.segmentation.array.shape)
    return ct, result, overlays.segmentationNode, region, box


def send(scene, case, **options):
    ct, _, labels, region, box = case
    return reviewEditor.sendToEditor(scene, labels, ct, region, box, **options)


def paint(scene, node, segment_id, extent, mode="Add"):
    """Set or clear the voxels of an (i, j, k) extent, as an effect of Segment Editor does, masks and all."""
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(scene)
    logic.SetSegmentEditorNode(reviewEditor.editorNode(scene))
    logic.SetSegmentationNode(node)
    logic.SetCurrentSegmentID(segment_id)
    logic.UpdateReferenceGeometryImage()
    logic.ResetModifierLabelmapToDefault()
    modifier = logic.GetModifierLabelmap()
    brush = slicer.vtkOrientedImageData()
    matrix = vtk.vtkMatrix4x4()
    modifier.GetImageToWorldMatrix(matrix)
    brush.SetImageToWorldMatrix(matrix)
    brush.SetExtent(*extent)
    brush.AllocateScalars(modifier.GetScalarType(), 1)
    brush.GetPointData().GetScalars().Fill(1)
    slicer.vtkOrientedImageDataResample.ModifyImage(
        modifier, brush, slicer.vtkOrientedImageDataResample.OPERATION_MAXIMUM
    )
    logic.UpdateMaskLabelmap()
    logic.ModifySegmentByLabelmap(
        node, segment_id, modifier, getattr(slicer.vtkSlicerSegmentEditorLogic, f"ModificationMode{mode}"), False, False
    )


def voxels(node, segment_id, ct):
    """(z, y, x) of a segment on the CT's grid, through Slicer's export."""
    ids = vtk.vtkStringArray()
    ids.InsertNextValue(segment_id)
    image = slicer.vtkOrientedImageData()
    reference = slicer.vtkSlicerSegmentationsModuleLogic.CreateOrientedImageDataFromVolumeNode(ct)
    node.GenerateMergedLabelmapForAllSegments(image, 0, reference, ids)
    shape = ct.GetImageData().GetDimensions()[::-1]
    scalars = image.GetPointData().GetScalars()
    return np.array(vtk.util.numpy_support.vtk_to_numpy(scalars)).reshape(shape) > 0


def inside(box):
    """An (i, j, k) extent of 2 x 2 x 2 voxels at the box's low corner."""
    z, y, x = box.start
    return (x, x + 1, y, y + 1, z, z + 1)


def test_segment_editor_gets_the_copy_the_regions_segment_and_the_ct(scene, case):
    ct, _, labels, region, _ = case
    edited = send(scene, case)
    editor = reviewEditor.editorNode(scene)
    assert editor.GetSegmentationNode() is edited.node
    assert edited.node is not labels
    assert edited.node.GetName() == f"{labels.GetName()} edited"
    assert editor.GetSourceVolumeNode() is ct
    assert editor.GetSelectedSegmentID() == f"label_{region.label}"
    segment = edited.node.GetSegmentation().GetSegment(editor.GetSelectedSegmentID())
    assert segment.GetName() == region.structure
    assert editor.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere
    assert scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode") is editor


def test_the_copy_is_made_once_and_lies_beside_the_models_labels(scene, case):
    first, second = send(scene, case), send(scene, case)
    assert first.node is second.node
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in (first.node, case[2])}
    assert len(parents) == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode") == 1


def test_the_copy_holds_the_same_labels_and_an_edit_leaves_the_models_own_alone(scene, case):
    ct, result, labels, region, box = case
    edited = send(scene, case)
    for value in (1, 2):
        assert np.array_equal(voxels(edited.node, f"label_{value}", ct), result.segmentation.array == value)
    paint(scene, edited.node, edited.segmentId, inside(box))
    assert voxels(edited.node, edited.segmentId, ct)[box.start]
    assert np.array_equal(voxels(labels, f"label_{region.label}", ct), result.segmentation.array == region.label)


def test_an_edit_in_the_box_is_counted_against_the_models_labels(scene, case):
    _, result, _, region, box = case
    edited = send(scene, case)
    assert edited.editedVoxels() is None
    z, y, x = box.start
    added = (result.segmentation.array[z : z + 2, y : y + 2, x : x + 2] != region.label).sum()
    assert added > 0
    paint(scene, edited.node, edited.segmentId, inside(box))
    assert edited.editedVoxels() == added
    again = send(scene, case)
    assert again.editedVoxels() is None  # nothing since it was sent again
    paint(scene, again.node, again.segmentId, inside(box), "Remove")
    assert again.editedVoxels() == 0  # as the model had it: the voxels painted above were of no structure
    assert added == 8


def test_an_edit_outside_the_box_is_no_edit_of_the_region(scene, case):
    _, result, _, _, box = case
    edited = send(scene, case)
    corner = tuple(0 if box.start[axis] > 3 else n - 2 for axis, n in enumerate(result.segmentation.array.shape))
    z, y, x = corner
    assert any(c + 1 < a or c >= b for c, a, b in zip(corner, box.start, box.stop, strict=True))
    paint(scene, edited.node, edited.segmentId, (x, x + 1, y, y + 1, z, z + 1))
    assert edited.editedVoxels() is None


def test_inside_the_box_only_means_what_it_says_and_the_box_goes_afterwards(scene, case):
    ct, result, labels, region, box = case
    edited = send(scene, case, insideBoxOnly=True)
    editor = reviewEditor.editorNode(scene)
    assert editor.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    shape = result.segmentation.array.shape
    paint(scene, edited.node, edited.segmentId, (0, shape[2] - 1, 0, shape[1] - 1, 0, shape[0] - 1))
    window = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
    expected = result.segmentation.array == region.label
    expected[window] = True
    reviewEditor.removeBox(scene, edited.node)
    assert np.array_equal(voxels(edited.node, edited.segmentId, ct), expected)
    ids = [
        edited.node.GetSegmentation().GetNthSegmentID(i)
        for i in range(edited.node.GetSegmentation().GetNumberOfSegments())
    ]
    assert ids == [labels.GetSegmentation().GetNthSegmentID(i) for i in range(2)]
    assert editor.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere


def test_a_structure_that_the_model_did_not_find_gets_an_empty_segment(scene, case):
    from dataclasses import replace

    ct, _, labels, region, box = case
    missed = replace(region, label=7, structure="Drüse / links", kind="possible_miss")
    edited = reviewEditor.sendToEditor(scene, labels, ct, missed, box)
    segment = edited.node.GetSegmentation().GetSegment("label_7")
    assert segment.GetName() == "Drüse / links"
    assert labels.GetSegmentation().GetSegment("label_7") is None
    paint(scene, edited.node, "label_7", inside(box))
    assert edited.editedVoxels() == 8


def test_a_segmentation_that_was_deleted_meanwhile_was_not_edited(scene, case):
    edited = send(scene, case)
    scene.RemoveNode(edited.node)
    assert edited.editedVoxels() is None


def test_the_copy_is_found_again_in_a_saved_scene(scene, case, tmp_path):
    node = send(scene, case).node
    name = node.GetName()
    scene.SetURL(str(tmp_path / "scene.mrml"))
    scene.Commit()
    scene.Clear(0)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    scene.Import()
    labels = next(
        other
        for other in (scene.GetNthNodeByClass(i, "vtkMRMLSegmentationNode") for i in range(2))
        if other.GetName() != name
    )
    ct = scene.GetFirstNodeByName("Phantom CT")
    assert reviewEditor.editableLabels(scene, labels, ct).GetName() == name
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
