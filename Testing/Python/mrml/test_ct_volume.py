"""Which volumes are taken as a CT, and how they are handed over."""

import numpy as np
import pytest
import slicer
import vtk
from CalibUncertaintyPanel import ctVolume, testing

from CalibUncertaintyLib.volume import Volume


def test_a_ct_is_written_with_its_voxels_and_its_place(scene, ijk_to_ras, tmp_path):
    node = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    ctVolume.writeCt(node, tmp_path / "ct.nrrd")
    volume = Volume.read(tmp_path / "ct.nrrd")
    assert np.array_equal(volume.array, testing.arrayOf(node))
    assert np.allclose(volume.ijk_to_ras, ctVolume.worldIjkToRas(node), atol=1e-6)


def test_writing_leaves_no_node_in_the_scene_and_no_file_with_the_volume(scene, ct, tmp_path):
    count = scene.GetNumberOfNodes()
    ctVolume.writeCt(ct, tmp_path / "ct.nrrd")
    assert scene.GetNumberOfNodes() == count
    assert ct.GetStorageNode() is None


def test_a_linear_transform_is_hardened_into_the_copy_only(scene, ct, tmp_path):
    before = ctVolume.worldIjkToRas(ct)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    toWorld = testing.obliqueIjkToRas((1, 1, 1), (10, 20, 30))
    transform.SetMatrixTransformToParent(ctVolume.matrixFromArray(toWorld))
    ct.SetAndObserveTransformNodeID(transform.GetID())
    assert ctVolume.ctProblem(ct) == ""
    ctVolume.writeCt(ct, tmp_path / "ct.nrrd")
    assert np.allclose(Volume.read(tmp_path / "ct.nrrd").ijk_to_ras, toWorld @ before, atol=1e-6)
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    assert np.allclose(ctVolume.arrayFromMatrix(matrix), before)


def test_a_disk_that_cannot_be_written_is_one_clear_error(scene, ct, tmp_path, vtk_errors_fail_the_test):
    with pytest.raises(OSError, match="could not be written"):
        ctVolume.writeCt(ct, tmp_path / "missing" / "ct.nrrd")
    vtk_errors_fail_the_test.clear()  # the storage node reports it too


def no_volume(scene):
    return None


def labelmap(scene):
    return scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")


def colour_image(scene):
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Photograph")
    slicer.util.updateVolumeFromArray(node, np.zeros((4, 4, 4, 3), np.uint8))
    return node


def empty_volume(scene):
    return scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")


def one_slice(scene):
    return testing.addPhantom(scene, "Scout", shape=(1, 32, 32))


def bent_volume(scene):
    node = testing.addPhantom(scene, "Bent")
    transform = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for point in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50)):
        points.InsertNextPoint(point)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(points)
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


def tilted_volume(scene):
    sheared = np.diag([1.0, 1.0, 3.0, 1.0])
    sheared[1, 2] = 0.6
    return testing.addPhantom(scene, "Tilted", ijkToRas=sheared)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_volume, "Choose a CT volume"),
        (labelmap, "not a CT"),
        (colour_image, "3 values in each voxel"),
        (empty_volume, "no voxels"),
        (one_slice, "single slice"),
        (bent_volume, "non-linear"),
        (tilted_volume, "right angles"),
    ],
)
def test_what_is_not_a_usable_ct_is_refused_in_one_sentence_that_says_why(scene, make, words):
    problem = ctVolume.ctProblem(make(scene))
    assert words in problem
    assert "\n" not in problem


def test_a_result_finds_its_ct_among_others_and_takes_no_other(scene, make_result):
    other = testing.addPhantom(scene, "Other", shape=(24, 48, 40))
    moved = testing.addPhantom(scene, "Moved", ijkToRas=testing.obliqueIjkToRas())
    ct = testing.addPhantom(scene, "CT")
    result = make_result(ct)
    assert ctVolume.findCt(scene, result, preferred=other) is ct
    scene.RemoveNode(ct)
    assert ctVolume.findCt(scene, result, preferred=moved) is None


def test_of_cts_on_one_grid_that_with_the_voxels_of_the_result_is_found(scene, make_result):
    ct, other = (testing.addPhantom(scene, name) for name in ("CT", "Other"))
    slicer.util.updateVolumeFromArray(other, testing.arrayOf(other) + 5)
    result = make_result(ct)
    assert ctVolume.belongsTogether(other, result)
    assert [ctVolume.hasVoxels(node, result) for node in (ct, other)] == [True, False]
    assert ctVolume.findCt(scene, result, preferred=other) is ct
    del result.provenance["ct"]["voxels_digest"]
    assert ctVolume.hasVoxels(other, result) is None
    assert ctVolume.findCt(scene, result, preferred=other) is other
