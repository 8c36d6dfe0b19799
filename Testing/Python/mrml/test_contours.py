"""Confidence contours: the surfaces lie where the probability has its level, are closed, and are named for what they mean."""

import numpy as np
import pytest
import vtk
from CalibUncertaintyPanel import contourNode, contourSurfaces, testing
from CalibUncertaintyPanel.overlays import Overlays
from vtk.util.numpy_support import vtk_to_numpy

from CalibUncertaintyLib.volume import Volume


def cone(shape=(24, 30, 34), centre=(11.3, 14.2, 16.9), slope=0.05):
    """A map (z, y, x) that falls linearly with the distance from a voxel position; 1 at the centre."""
    indices = np.stack(np.indices(shape), axis=-1)
    return (1 - slope * np.linalg.norm(indices - np.array(centre), axis=-1)).clip(0).astype(np.float32)


def enclosed_ml(surface):
    mass = vtk.vtkMassProperties()
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(surface)
    mass.SetInputConnection(triangles.GetOutputPort())
    return mass.GetVolume() / 1000


def open_edges(surface):
    edges = vtk.vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.BoundaryEdgesOn()
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.NonManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


@pytest.mark.parametrize("level", [0.55, 0.8])
def test_every_point_of_a_surface_has_the_level_and_it_is_closed(level):
    matrix = testing.obliqueIjkToRas()
    surface = contourSurfaces.levelSurface(cone(), matrix, level)
    points = vtk_to_numpy(surface.GetPoints().GetData())
    ijk = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(matrix).T)[:, :3]
    radius = np.linalg.norm(ijk[:, ::-1] - np.array([11.3, 14.2, 16.9]), axis=1)
    assert np.abs(radius - (1 - level) / 0.05).max() < 0.1  # of a voxel
    assert open_edges(surface) == 0
    voxel_ml = abs(np.linalg.det(matrix[:3, :3])) / 1000
    assert enclosed_ml(surface) == pytest.approx(
        4 / 3 * np.pi * ((1 - level) / 0.05) ** 3 * voxel_ml, rel=0.05
    )  # flat facets


def test_a_structure_that_the_map_cuts_off_is_closed_at_the_border_of_the_map():
    surface = contourSurfaces.levelSurface(np.ones((3, 4, 5), np.float32), np.diag([1, 1, 2.0, 1]), 0.5)
    assert open_edges(surface) == 0
    low, high = np.array(surface.GetBounds()).reshape(3, 2).T
    assert np.allclose(low, [-0.5, -0.5, -1])
    assert np.allclose(high, [4.5, 3.5, 5])


def test_a_level_that_is_never_reached_and_one_that_is_everywhere_have_no_surface():
    assert contourSurfaces.levelSurface(cone() * 0.5, np.eye(4), 0.95) is None
    assert contourSurfaces.levelSurface(cone(), np.eye(4), 0.0) is None


def test_the_map_is_left_as_it_is():
    array = cone()
    before = array.copy()
    contourSurfaces.levelSurface(array, np.eye(4), 0.7)
    assert np.array_equal(array, before)


def test_the_node_holds_named_thin_outlines_beside_the_other_layers_and_drops_those_that_are_not_there(
    scene, ct, make_result
):
    import slicer

    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    node = contourNode.addContourNode(scene, overlays)
    maps = {"Organ": cone(), "Node": cone() * 0.5}
    contours = contourSurfaces.contoursOf(
        lambda name: Volume(maps[name], (1, 1, 1), (0, 0, 0), np.eye(3)), ("Organ", "Node"), 0.05, 0.95
    )
    contourNode.fillContours(node, contours, overlays.structures)
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
    assert sorted(names) == ["Node, at least 5 %", "Organ, at least 5 %", "Organ, at least 95 %"]
    display = node.GetDisplayNode()
    assert not display.GetVisibility2DFill()
    assert not display.GetVisibility3D()
    assert (
        display.GetSliceIntersectionThickness()
        < overlays.segmentationNode.GetDisplayNode().GetSliceIntersectionThickness()
    )
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(each)) for each in (node, overlays.segmentationNode)}
    assert len(parents) == 1


def test_contours_of_an_uncalibrated_result_say_so(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct, calibrated=False), ct)
    assert contourNode.addContourNode(scene, overlays).GetName() == "Confidence contours (NOT CALIBRATED)"
