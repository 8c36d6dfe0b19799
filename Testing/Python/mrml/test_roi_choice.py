"""Regions of interest of the layers: one structure or all, one side or both, against a brute-force distance; maps in memory."""

import sys
import types

import numpy as np
import pytest
from CalibUncertaintyPanel import resultMaps, testing
from CalibUncertaintyPanel.mapCache import MapCache
from CalibUncertaintyPanel.overlays import Overlays
from CalibUncertaintyPanel.resultMaps import ResultMaps
from CalibUncertaintyPanel.roiChoice import BOTH, INSIDE, OUTSIDE, RoiChoice

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.roi import roi_of

STRUCTURES = {"Organ": 1, "Node": 2}


@pytest.fixture
def result(scene, make_result):
    return make_result(testing.addPhantom(scene))


@pytest.fixture
def label(result):
    """The labels in the box of the maps."""
    return labels_in_box(result)


def labels_in_box(result):
    (x, y, z), (nx, ny, nz) = (result.provenance["box"][key] for key in ("start_xyz", "size_xyz"))
    return result.segmentation.array[z : z + nz, y : y + ny, x : x + nx]


def distance_by_brute_force(inside, spacing_zyx):
    """Distance in mm from each voxel to the nearest one inside."""
    points = np.argwhere(inside) * np.array(spacing_zyx)
    voxels = np.indices(inside.shape).reshape(3, -1).T * np.array(spacing_zyx)
    nearest = np.full(len(voxels), np.inf)
    for start in range(0, len(voxels), 2000):
        part = voxels[start : start + 2000]
        nearest[start : start + 2000] = np.sqrt(((part[:, None] - points[None]) ** 2).sum(axis=-1)).min(axis=1)
    return nearest.reshape(inside.shape)


@pytest.mark.parametrize("side", [BOTH, INSIDE, OUTSIDE])
@pytest.mark.parametrize("structure", ["", "Organ", "Node"])
def test_the_region_is_the_library_s(result, label, structure, side):
    maps, entropy = ResultMaps(result), result.uncertainty("entropy")
    chosen = [STRUCTURES[structure]] if structure else None
    for distance in (0.0, 1.5, 4.0, 15.0):
        expected = roi_of(label, entropy.spacing_zyx, distance, chosen, side).mask
        masked = maps.masked(("entropy", None), RoiChoice(distance, structure, side))
        assert np.array_equal(masked.inside(np.s_[:]), expected)
        assert np.array_equal(masked.whole(), np.where(expected, entropy.array, 0))


def test_the_distance_of_one_structure_is_that_of_its_nearest_voxel(result, label):
    maps = ResultMaps(result)
    found = maps.get(("distance", "Node"))
    expected = distance_by_brute_force(label == 2, found.spacing_zyx)
    assert np.abs(found.array - expected).max() < 1e-3
    assert np.array_equal(found.ijk_to_ras, result.uncertainty("entropy").ijk_to_ras)


def test_of_regions_that_overlap_the_distance_is_from_all_of_the_structure(result, monkeypatch):
    monkeypatch.setattr(type(result), "overlapping", True)
    found = ResultMaps(result).get(("distance", "Organ")).array
    assert np.array_equal(found == 0, result.probability("Organ").array >= 0.5)


def test_a_missing_package_is_named_with_what_to_do_instead(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "edt", None)
    with pytest.raises(CalibUncertaintyError, match=r"Node alone needs the package edt.*around all structures"):
        ResultMaps(result).get(("distance", "Node"))


def test_a_structure_that_was_not_predicted_has_an_empty_region(scene, result):
    labels = result.segmentation.array
    labels[labels == 2] = 0
    overlays = Overlays.create(scene, result)
    overlays.setRoi(RoiChoice(15.0, "Node"))
    assert not testing.arrayOf(overlays.uncertaintyNode).any()
    counts = overlays.maps.masked(*overlays.shownChoice).counts(0.01)
    assert counts.voxels == 0
    assert counts.threshold_for_volume(5.0).status == "empty_roi"


def test_without_any_structure_the_whole_box_is_shown_and_counted(scene, result):
    result.provenance["maps"]["distance"]["file"] = None
    overlays = Overlays.create(scene, result)
    overlays.setRoi(RoiChoice(1.0, "Node", INSIDE))
    entropy = result.uncertainty("entropy").array
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), entropy)
    assert overlays.maps.masked(*overlays.shownChoice).counts(0.01).voxels == entropy.size
    assert not overlays.maps.hasRoi


@pytest.mark.parametrize("roi", [RoiChoice(6.0), RoiChoice(3.0, "Node", OUTSIDE), RoiChoice(3.0, "Organ", INSIDE)])
def test_the_counted_volume_is_that_of_the_voxels_that_are_shown(scene, result, roi):
    overlays = Overlays.create(scene, result)
    overlays.setRoi(roi)
    counts = overlays.maps.masked(*overlays.shownChoice).counts(0.00675)
    values = testing.arrayOf(overlays.uncertaintyNode)
    for threshold in (0.001, 0.125, 0.5, 1.0):
        assert counts.volume_above(threshold) == pytest.approx((values >= threshold).sum() * 0.00675)
    assert overlays.maps.masked(*overlays.shownChoice).counts(0.01, lambda: True) is None


def test_a_failed_choice_leaves_the_one_before(scene, result, tmp_path):
    overlays = Overlays.create(scene, result)
    before, values = overlays.roi, testing.arrayOf(overlays.uncertaintyNode)
    overlays.maps.clear()
    (result.folder / "maps" / "entropy.nrrd").unlink()
    with pytest.raises(Exception, match=r"entropy\.nrrd"):
        overlays.setRoi(RoiChoice(2.0))
    assert overlays.roi == before
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), values)


def volume(megabytes):
    return types.SimpleNamespace(array=np.zeros(megabytes * 1000, np.uint8))


def test_the_cache_drops_what_was_not_asked_for_the_longest_but_nothing_that_is_shown():
    cache = MapCache(limitBytes=10_000)
    for name in "abc":
        cache.put(name, volume(3))
    cache.get("a")
    assert cache.hasRoomFor(1000)
    assert not cache.hasRoomFor(1001)
    cache.put("d", volume(3))
    assert [name in cache for name in "abcd"] == [True, False, True, True]
    cache.inUse = frozenset("ac")
    cache.put("e", volume(6))
    assert [name in cache for name in "acde"] == [True, True, False, True]
    with pytest.raises(KeyError):
        cache.get("d")
    cache.put("e", volume(1))
    assert cache.bytes == 7000


def test_maps_are_worth_reading_ahead_as_long_as_one_more_fits(result, monkeypatch):
    maps = ResultMaps(result)
    overlays_measures = [types.SimpleNamespace(id=name, available=name != "mi") for name in ("entropy", "mi", "conf")]
    maps.get(("entropy", None))
    assert maps.worthPrefetching(overlays_measures) == [("conf", None)]
    maps._cache.limitBytes = maps._cache.bytes + 10
    assert maps.worthPrefetching(overlays_measures) == []
    assert not maps.isLarge
    monkeypatch.setattr(resultMaps, "AT_ONCE_VOXELS", 10)
    assert maps.isLarge
    assert not ResultMaps(None).isLarge
