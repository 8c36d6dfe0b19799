"""Uncertain regions in 3D: only the listed ones, at their place, each with its own value on a scale that no case changes."""

import dataclasses

import numpy as np
import pytest
from CalibUncertaintyPanel import overlayNodes, regionsNode, regionSurfaces, testing
from CalibUncertaintyPanel.overlays import Overlays
from vtk.util.numpy_support import vtk_to_numpy


@pytest.fixture
def result(scene, make_result, ijk_to_ras):
    return make_result(testing.addPhantom(scene, ijkToRas=ijk_to_ras))


def arrays_of(surface):
    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(float)
    data = surface.GetPointData()
    return points, vtk_to_numpy(data.GetArray("Value")), vtk_to_numpy(data.GetArray("Region"))


def test_every_point_lies_on_the_threshold_near_its_own_region_with_that_regions_mean(result):
    from scipy.ndimage import label, map_coordinates

    surfaces = regionSurfaces.surfacesOf(result)
    points, values, numbers = arrays_of(surfaces.regions)
    volume, threshold = result.uncertainty("entropy"), result.provenance["threshold"]["value"]
    mask = (volume.array >= threshold) & (result.distance.array <= 15)
    assert set(numbers.tolist()) == {region.id for region in result.regions}
    components, _ = label(mask, np.ones((3, 3, 3)))
    at = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(volume.ijk_to_ras).T)[:, 2::-1]
    for region in result.regions:
        mine = at[numbers == region.id]
        assert np.allclose(values[numbers == region.id], region.mean)
        peak = tuple(np.rint(volume.index_from_lps(region.peak_lps_mm)).astype(int))
        own = np.argwhere(components == components[peak])
        distance = np.abs(mine[:, None] - own[None]).max(axis=-1).min(axis=1)
        assert distance.max() < 1.001  # of a voxel
    peaks = [tuple(np.rint(volume.index_from_lps(region.peak_lps_mm)).astype(int)) for region in result.regions]
    listed = np.isin(components, [components[peak] for peak in peaks])
    level = map_coordinates(np.where(listed, volume.array, 0), at.T, order=1, mode="constant")
    assert np.abs(level - threshold).max() < 0.01


def test_regions_that_are_not_listed_are_not_drawn(result):
    fewer = dataclasses.replace(result, provenance={**result.provenance, "regions": result.provenance["regions"][1:3]})
    _, _, numbers = arrays_of(regionSurfaces.surfacesOf(fewer).regions)
    assert set(numbers.tolist()) == {2, 3}


def test_regions_of_every_kind_but_possible_misses_are_drawn(result):
    kinds = ["boundary", "non_boundary", "uncertain", "possible_miss"]
    regions = [{**region, "kind": kinds[number % 4]} for number, region in enumerate(result.provenance["regions"])]
    named = dataclasses.replace(result, provenance={**result.provenance, "regions": regions})
    _, _, numbers = arrays_of(regionSurfaces.surfacesOf(named).regions)
    assert len(regions) >= 4
    assert set(numbers.tolist()) == {region["id"] for region in regions if region["kind"] != "possible_miss"}


def test_regions_merged_across_a_gap_are_drawn_in_all_their_parts(result):
    provenance = {**result.provenance, "regions": result.provenance["regions"][:1], "merge_gap_mm": 50.0}
    merged = dataclasses.replace(result, provenance=provenance)
    alone = dataclasses.replace(result, provenance={**provenance, "merge_gap_mm": 0.0})
    drawn = [arrays_of(regionSurfaces.surfacesOf(of).regions)[2] for of in (merged, alone)]
    assert set(drawn[0].tolist()) == set(drawn[1].tolist()) == {result.regions[0].id}
    assert len(drawn[0]) > len(drawn[1])


def test_a_calibrated_chance_takes_the_place_of_the_mean_where_all_regions_have_one(result, monkeypatch):
    from types import SimpleNamespace

    def with_chances(chances):
        regions = [SimpleNamespace(**{**vars(r), "chance": c}) for r, c in zip(result.regions, chances, strict=True)]
        monkeypatch.setitem(vars(result), "regions", regions)
        return regionSurfaces.surfacesOf(result)

    chances = np.linspace(0.1, 0.9, len(result.regions))
    surfaces = with_chances(chances)
    _, values, numbers = arrays_of(surfaces.regions)
    assert (surfaces.title, surfaces.upper) == ("Chance of a real error", 1.0)
    assert np.allclose(values, chances[numbers - 1])
    assert with_chances([None, *chances[1:]]).title == "Mean entropy"


def test_nothing_to_show_gives_no_surface(result):
    content = {**result.provenance, "regions": []}
    surfaces = regionSurfaces.surfacesOf(dataclasses.replace(result, provenance=content))
    assert surfaces.regions is None
    assert surfaces.structures is not None


def test_the_ghost_of_a_very_large_ct_is_thinned_out_but_stays_at_its_place(result, monkeypatch):
    whole = regionSurfaces.surfacesOf(result).structures
    monkeypatch.setattr(regionSurfaces, "MOST_VOXELS", result.segmentation.array.size // 8)
    thinned = regionSurfaces.surfacesOf(result).structures
    assert thinned.GetNumberOfCells() < whole.GetNumberOfCells() / 2
    assert np.allclose(thinned.GetBounds(), whole.GetBounds(), atol=2 * 3.0)


def test_the_models_are_coloured_on_the_scale_of_the_measure_and_seen_in_3d_only(scene, ct, make_result):
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    regions, ghost = regionsNode.addRegionModels(scene, overlays, regionSurfaces.surfacesOf(result))
    display = regions.GetDisplayNode()
    assert display.GetScalarRange() == pytest.approx((0.0, overlays.measure("entropy").scaleEnd))
    assert display.GetScalarRangeFlag() == display.UseManualScalarRange
    assert display.GetColorNode() is overlayNodes.colorScaleNode(scene, "uncertainty")
    assert display.GetScalarVisibility()
    for node in (regions, ghost):
        assert node.GetDisplayNode().GetVisibility3D()
        assert not node.GetDisplayNode().GetVisibility2D()
    assert not ghost.GetDisplayNode().GetScalarVisibility()
    assert ghost.GetDisplayNode().GetOpacity() < 0.3
