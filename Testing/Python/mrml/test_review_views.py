"""Where the slice views look during a review, and which boxes the regions get: real slice nodes, straight and oblique CTs."""

import numpy as np
import pytest
from CalibUncertaintyPanel import reviewExtent, testing
from CalibUncertaintyPanel.mrmlTools import arrayFromMatrix
from CalibUncertaintyPanel.reviewViews import (
    FEWEST_VOXELS,
    LARGEST_REACH_MM,
    MARGIN_MM,
    ReviewViews,
    mostUncertainSlice,
    reachOf,
    widthFor,
)

POINT = (12.5, -7.25, 33.0)


@pytest.fixture
def nodes(view, other_views):
    """Three slice nodes with three orientations."""
    nodes = [view.node, *(other.node for other in other_views)]
    nodes[1].SetOrientationToCoronal()
    nodes[2].SetOrientationToSagittal()
    nodes[2].SetDimensions(200, 100, 1)
    nodes[2].SetFieldOfView(400, 200, 1)
    return nodes


def pixel_of(node, point):
    matrix = arrayFromMatrix(node.GetXYToRAS())
    return (np.linalg.inv(matrix) @ [*point, 1])[:3]


def test_every_view_is_centred_on_the_place_and_its_slice_goes_through_it(scene, nodes):
    ReviewViews(scene).show(POINT)
    for node in nodes:
        x, y, offset = pixel_of(node, POINT)
        width, height = node.GetDimensions()[:2]
        assert (x, y) == pytest.approx((width / 2, height / 2), abs=1)
        assert offset == pytest.approx(0, abs=1e-6)


def test_without_a_width_the_zoom_stays_and_with_one_the_smaller_side_shows_it(scene, nodes):
    views = ReviewViews(scene)
    before = [node.GetFieldOfView() for node in nodes]
    views.show(POINT)
    assert [node.GetFieldOfView() for node in nodes] == before
    assert not views.isZoomed
    views.show(POINT, 40.0)
    assert nodes[2].GetFieldOfView()[:2] == pytest.approx((80, 40))
    assert nodes[0].GetFieldOfView()[:2] == pytest.approx((40, 40))
    assert views.isZoomed


def test_fit_gives_zoom_and_place_in_the_plane_back_and_keeps_the_slice(scene, nodes):
    views = ReviewViews(scene)
    nodes[0].SetXYZOrigin(5, -3, 0)
    before = [(node.GetFieldOfView(), arrayFromMatrix(node.GetSliceToRAS()), node.GetXYZOrigin()) for node in nodes]
    views.show((1, 2, 3), 40.0)
    views.show(POINT, 60.0)
    assert views.fit()
    for node, (field, matrix, origin) in zip(nodes, before, strict=True):
        assert node.GetFieldOfView() == pytest.approx(field)
        assert node.GetXYZOrigin() == pytest.approx(origin)
        assert pixel_of(node, POINT)[2] == pytest.approx(0, abs=1e-6)
        normal = matrix[:3, 2]
        moved = arrayFromMatrix(node.GetSliceToRAS())[:3, 3] - matrix[:3, 3]
        assert moved - normal * (moved @ normal) == pytest.approx(0, abs=1e-6)
    assert not views.fit()


def test_fit_follows_a_view_that_was_turned_and_forgets_one_that_is_gone(scene, nodes):
    views = ReviewViews(scene)
    views.show(POINT, 40.0)
    nodes[0].SetOrientationToCoronal()
    views.fit()
    assert nodes[0].GetFieldOfView()[0] == pytest.approx(96)
    assert nodes[0].GetOrientation() == "Coronal"
    views.show(POINT, 40.0)
    views.forget()
    assert not views.fit()


@pytest.mark.parametrize(
    ("reach", "spacing", "shape", "expected"),
    [
        (10, 1, (300, 300, 300), 2 * (10 + MARGIN_MM)),
        (500, 1, (300, 300, 300), 2 * (LARGEST_REACH_MM + MARGIN_MM)),
        (1, 2, (300, 300, 300), FEWEST_VOXELS * 2),  # not beyond the CT's own resolution
        (50, 1, (40, 60, 50), 60),  # a small CT is never shown smaller than the view
    ],
)
def test_the_width_holds_the_region_with_a_margin_and_respects_the_ct(reach, spacing, shape, expected):
    assert widthFor(reach, np.diag([spacing, -spacing, spacing, 1.0]), shape) == pytest.approx(expected)


def test_the_crosshair_marks_the_place_and_goes_only_if_it_came_with_the_review(scene, nodes):
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    views = ReviewViews(scene)
    views.show(POINT)
    assert node.GetCrosshairMode() == slicer.vtkMRMLCrosshairNode.ShowIntersection
    assert node.GetCrosshairRAS() == pytest.approx(POINT)
    node.SetCrosshairMode(node.NoCrosshair)  # the user does not want it
    views.show((0, 0, 0))
    assert node.GetCrosshairMode() == node.NoCrosshair
    views.unmark()
    node.SetCrosshairMode(node.ShowBasic)
    views.show(POINT)
    views.unmark()
    assert node.GetCrosshairMode() == node.ShowBasic


@pytest.mark.parametrize("seed", range(4))
def test_the_most_uncertain_slice_is_the_axial_one_with_the_largest_sum(seed):
    random = np.random.default_rng(seed)
    array = random.random((7, 9, 11)).astype(np.float32)
    # three ways in which a volume may be stored: its axis 2, 1 or 0 runs along S
    order = random.permutation(3)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3)[order] * random.choice([-1, 1], 3) * 2.5
    matrix[:3, 3] = random.normal(size=3)
    threshold = 0.6
    totals = {}
    for index, value in np.ndenumerate(array):
        position = matrix[:3, :3] @ index[::-1] + matrix[:3, 3]
        if value >= threshold:
            totals[round(position[2], 3)] = totals.get(round(position[2], 3), 0) + float(value)
    position, voxels = mostUncertainSlice(array, matrix, threshold)
    height = max(totals, key=totals.get)
    assert position[2] == pytest.approx(height, abs=1e-3)
    index = np.rint(np.linalg.inv(matrix) @ [*position, 1]).astype(int)[2::-1]
    in_slice = [v for i, v in np.ndenumerate(array) if abs((matrix @ [*i[::-1], 1])[2] - position[2]) < 1e-6]
    assert array[tuple(index)] == max(in_slice)
    assert voxels == sum(value >= threshold for value in in_slice)


def test_no_slice_is_most_uncertain_where_nothing_reaches_the_threshold():
    assert mostUncertainSlice(np.full((2, 3, 4), 0.2, np.float32), np.eye(4), 0.3) is None
    assert mostUncertainSlice(np.zeros((2, 3, 4), np.float32), np.eye(4), 0.0) is None


def test_the_box_of_a_region_is_that_of_the_connected_voxels_around_its_peak(scene, make_result, ijk_to_ras):
    result = make_result(testing.addPhantom(scene, ijkToRas=ijk_to_ras))
    found = reviewExtent.boxesOf(result.folder)
    assert set(found) == {region.id for region in result.regions}
    measure = result.uncertainty("entropy")
    above = (measure.array >= result.provenance["threshold"]["value"]) & (result.distance.array <= 15)
    whole = result.segmentation
    for region in result.regions[:3]:
        stack, seen = [tuple(np.rint(measure.index_from_lps(region.peak_lps_mm)).astype(int))], set()
        while stack:  # by hand, voxel by voxel
            voxel = stack.pop()
            if (
                voxel in seen
                or any(not 0 <= v < n for v, n in zip(voxel, above.shape, strict=True))
                or not above[voxel]
            ):
                continue
            seen.add(voxel)
            stack += [tuple(np.add(voxel, np.subtract(step, 1))) for step in np.ndindex(3, 3, 3)]
        assert len(seen) == region.voxels
        points = measure.lps_from_index(np.array(sorted(seen)))
        indices = np.rint(whole.index_from_lps(points)).astype(int)
        box = found[region.id]
        assert box.start == tuple(indices.min(axis=0))
        assert box.stop == tuple(indices.max(axis=0) + 1)
        ras = points * [-1, -1, 1]
        assert reachOf(region.peak_ras_mm, box.cornersRas()) >= np.abs(ras - region.peak_ras_mm).max()


def test_an_estimated_box_holds_the_peak_lies_in_the_ct_and_is_as_large_as_the_region(scene, ct, make_result):
    from dataclasses import replace

    result = make_result(ct)
    shape, matrix = result.segmentation.array.shape, result.segmentation.ijk_to_ras
    for region in (
        result.regions[0],
        replace(result.regions[0], volume_ml=1e-4),
        replace(result.regions[0], volume_ml=1e6),
    ):
        box = reviewExtent.estimatedBox(region, matrix, shape)
        peak = np.rint(result.segmentation.index_from_lps(region.peak_lps_mm)).astype(int)
        assert all(0 <= a <= p < b <= n for a, p, b, n in zip(box.start, peak, box.stop, shape, strict=True))
        size = np.prod(np.subtract(box.stop, box.start)) * result.segmentation.voxel_volume_ml
        assert size >= min(region.volume_ml, np.prod(shape) * result.segmentation.voxel_volume_ml)
