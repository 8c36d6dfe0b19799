"""Regions to look at: what is listed, where it lies, what it is called, and in which order."""

import json
import math

import numpy as np
import pytest
from scipy.ndimage import label as scipy_label

from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.uncertainty.measures import MEASURES, entropy, expected_error
from CalibUncertaintyLib.uncertainty.regions import FoundRegions, Region, find_regions
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures
from CalibUncertaintyLib.volume import Volume

LABELS = {1: "Brainstem", 2: "Mandible"}
SPACING = (2.0, 1.0, 1.0)


def scene(shape=(10, 40, 40)) -> dict:
    """A quiet scene: the brainstem at the left, the mandible at the right, no uncertainty anywhere."""
    label = np.zeros(shape, dtype=np.uint8)
    label[4:6, 10:20, 4:8] = 1
    label[4:6, 10:20, 30:34] = 2
    empty = np.zeros(shape, dtype=np.float32)
    return {
        "measure_array": empty.copy(), "label": label, "p_foreground": empty.copy(), "expected_error": empty.copy(),
        "class_of_miss": np.ones(shape, dtype=np.uint8),
    }


def geometry(array: np.ndarray, spacing=SPACING, oblique: bool = False) -> Volume:
    turn = np.eye(3)
    if oblique:
        angle = math.radians(20)
        turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, -1.0]])
    return Volume(array, spacing, (-12.0, 30.0, 5.0), turn, {})


def found_in(given: dict, **changes) -> FoundRegions:
    settings = {"roi_mm": 8.0, "threshold": 0.5, "min_volume_mm3": 0.0, "miss_probability": 0.3, "labels": LABELS}
    settings |= changes
    volume = settings.pop("volume", None) or geometry(given["label"])
    distance = distance_to_structures(given["label"], volume.spacing_zyx)
    return find_regions(**given, distance=distance, volume=volume, **settings)


def test_a_quiet_scene_lists_nothing():
    found = found_in(scene())
    assert list(found) == []
    assert found.dropped == 0


def test_a_scene_without_any_structure_lists_no_uncertain_region():
    given = scene()
    given["label"][:] = 0
    given["measure_array"][:] = 1.0
    assert list(found_in(given)) == []


def test_a_region_is_described_in_full():
    given = scene()
    given["measure_array"][5, 12, 8:11] = (0.6, 0.9, 0.75)
    given["expected_error"][5, 12, 8:11] = (0.2, 0.4, 0.3)
    volume = geometry(given["label"], oblique=True)
    (region,) = found_in(given, volume=volume)
    assert (region.id, region.kind, region.label, region.structure) == (1, "uncertain", 1, "Brainstem")
    assert region.voxels == 3
    assert region.volume_ml == pytest.approx(0.006)
    assert region.mean == pytest.approx(0.75)
    assert region.peak == pytest.approx(0.9)
    assert region.score == pytest.approx(0.9 * 0.002)
    assert region.share == pytest.approx(0.9 / np.count_nonzero(given["label"] == 1))
    assert region.distance_mm == pytest.approx(1.0)
    assert region.centroid_lps_mm == pytest.approx(tuple(volume.lps_from_index((5, 12, 9))))
    assert region.peak_lps_mm == pytest.approx(tuple(volume.lps_from_index((5, 12, 9))))
    assert region.peak_ras_mm == pytest.approx((-region.peak_lps_mm[0], -region.peak_lps_mm[1], region.peak_lps_mm[2]))
    assert region.centroid_ras_mm == pytest.approx(tuple(volume.ras_from_index((5, 12, 9))))
    assert region.reason.count("Brainstem") == 1
    assert "1.0 mm outside" in region.reason


def test_the_position_of_the_peak_is_the_voxel_of_the_highest_value():
    given = scene()
    given["measure_array"][3:7, 8:22, 9:12] = 0.6
    given["measure_array"][6, 21, 10] = 0.8
    (region,) = found_in(given)
    assert region.peak_lps_mm == pytest.approx(tuple(geometry(given["label"]).lps_from_index((6, 21, 10))))


def test_the_threshold_itself_is_above_and_the_roi_limit_inside():
    given = scene()
    given["measure_array"][5, 12, 8] = 0.5
    given["measure_array"][5, 14, 8] = np.nextafter(np.float32(0.5), np.float32(0))
    given["measure_array"][5, 12, 15] = 1.0
    given["measure_array"][5, 12, 17] = 1.0
    found = found_in(given, roi_mm=8.0)
    assert sorted(region.distance_mm for region in found) == pytest.approx([1.0, 8.0])


def test_voxels_that_touch_by_a_corner_are_one_region():
    given = scene()
    given["measure_array"][5, 12, 8] = given["measure_array"][6, 13, 9] = 1.0
    given["measure_array"][8, 13, 9] = 1.0
    assert sorted(region.voxels for region in found_in(given)) == [1, 2]


def test_the_structure_of_an_overlapping_region_is_the_one_it_overlaps_most():
    given = scene()
    given["label"][5, 15, 10:14] = (1, 2, 2, 0)
    given["measure_array"][5, 15, 10:16] = 1.0
    (region,) = found_in(given)
    assert (region.label, region.structure, region.distance_mm) == (2, "Mandible", 0.0)
    assert "at Mandible" in region.reason


def test_regions_of_a_region_model_are_called_by_their_numbers_in_the_segmentation():
    """Numbers of regions_class_order: any, in any order, up to 65535; an expected error that one region alone has."""
    heads = Heads.of({"background": 0, "whole": [1, 2], "core": 2}, [65535, 7], "dataset.json")
    p = np.zeros((2, 8, 30, 30), np.float32)
    p[0, 3:5, 5:15, 5:15] = 0.99
    p[1, 3:5, 8:11, 8:11] = 0.99
    p[0, 4, 5, 5:9] = (0.55, 0.6, 0.65, 0.6)  # the border of the whole
    p[1, 4, 9, 9] = 0.6  # and the core's inside
    p[1, 4, 20, 20] = 0.3  # a core that may have been missed
    given = {
        "measure_array": entropy(p, True), "label": heads.label_of(p), "p_foreground": heads.foreground(p),
        "expected_error": expected_error(p, True), "class_of_miss": np.asarray(heads.values)[p.argmax(axis=0)],
    }
    assert given["label"].dtype == np.uint16
    names = dict(zip(heads.values, heads.names, strict=True))
    threshold = MEASURES["entropy"].default_threshold(2, sigmoid=True)
    found = found_in(given, labels=names, threshold=threshold, miss_probability=0.25, roi_mm=3.0)
    kinds = {(region.kind, region.label, region.structure, region.voxels) for region in found}
    assert kinds == {
        ("uncertain", 65535, "whole", 4), ("uncertain", 7, "core", 1), ("possible_miss", 7, "core", 1),
    }
    border = next(region for region in found if region.structure == "whole")
    assert border.score == pytest.approx((0.45 + 0.4 + 0.35 + 0.4) * 0.002)
    assert border.share == pytest.approx((0.45 + 0.4 + 0.35 + 0.4) / np.count_nonzero(given["label"] == 65535))
    core = next(region for region in found if region.kind == "uncertain" and region.structure == "core")
    assert core.share == pytest.approx(0.4 / np.count_nonzero(given["label"] == 7))


def test_the_structure_of_a_region_apart_is_the_nearest_in_mm_by_brute_force():
    random = np.random.default_rng(0)
    label = np.where(random.random((12, 20, 20)) < 0.01, random.integers(1, 6, (12, 20, 20)), 0).astype(np.uint8)
    given = scene(label.shape) | {"label": label, "class_of_miss": np.ones_like(label)}
    given["measure_array"][(random.random(label.shape) < 0.02) & (label == 0)] = 1.0
    spacing = (3.0, 0.8, 1.1)
    volume = geometry(label, spacing)
    names = {index: f"structure {index}" for index in range(1, 6)}
    components, count = scipy_label(given["measure_array"] > 0.5, structure=np.ones((3, 3, 3)))
    structures = np.argwhere(label > 0)
    expected = {}
    for number in range(1, count + 1):
        voxels = np.argwhere(components == number)
        gaps = np.linalg.norm((voxels[:, None] - structures[None]) * spacing, axis=2)
        at_least = np.isclose(gaps.min(axis=1), gaps.min())
        nearest = {int(label[tuple(structures[i])]) for i in np.argwhere(np.isclose(gaps, gaps.min()))[:, 1]}
        assert at_least.any()
        expected[tuple(np.round(volume.lps_from_index(voxels.mean(axis=0)), 6))] = (len(voxels), gaps.min(), nearest)
    found = found_in(given, volume=volume, labels=names, roi_mm=100.0)
    assert len(found) == count == len(expected)
    for region in found:
        voxels, gap, nearest = expected[tuple(np.round(region.centroid_lps_mm, 6))]
        assert region.voxels == voxels
        assert region.distance_mm == pytest.approx(gap, abs=1e-4)
        assert region.label in nearest
        assert region.structure == names[region.label]


def test_sums_over_random_regions_equal_brute_force():
    random = np.random.default_rng(1)
    given = scene()
    given["measure_array"][:] = random.random(given["label"].shape)
    given["expected_error"][:] = random.random(given["label"].shape)
    distance = distance_to_structures(given["label"], SPACING)
    mask = (given["measure_array"] >= 0.9) & (distance <= 8.0)
    components, count = scipy_label(mask, structure=np.ones((3, 3, 3)))
    expected = sorted(
        (
            float(given["expected_error"][components == number].astype(np.float64).sum() * 0.002),
            int((components == number).sum()),
            float(given["measure_array"][components == number].mean()),
            float(given["measure_array"][components == number].max()),
        )
        for number in range(1, count + 1)
    )[::-1]
    found = found_in(given, threshold=0.9)
    assert len(found) == count
    for region, (score, voxels, mean, peak) in zip(found, expected, strict=True):
        assert (region.score, region.mean) == pytest.approx((score, mean), rel=1e-6)
        assert (region.voxels, region.peak) == (voxels, pytest.approx(peak))


def test_array_order_in_memory_does_not_matter():
    random = np.random.default_rng(2)
    given = scene((10, 80, 40))
    given["measure_array"][:] = random.random(given["label"].shape)
    given["expected_error"][:] = random.random(given["label"].shape)
    given["p_foreground"][:] = random.random(given["label"].shape)
    turned = {name: np.asfortranarray(array) for name, array in given.items()}
    settings = {"threshold": 0.9, "miss_probability": 0.95, "volume": geometry(given["label"])}
    expected = found_in(given, **settings)
    assert {region.kind for region in expected} == {"uncertain", "possible_miss"}
    assert found_in(turned, **settings) == expected


def test_small_regions_are_left_out_and_counted():
    given = scene()
    given["measure_array"][5, 12, 8:13] = 1.0
    given["measure_array"][5, 16, 8:12] = 1.0
    given["measure_array"][5, 18, 29] = 1.0
    found = found_in(given, min_volume_mm3=10.0)
    assert [region.voxels for region in found] == [5]
    assert found.dropped == 2


def test_a_structure_that_may_have_been_missed_far_away_is_listed_as_such():
    given = scene((10, 80, 40))
    given["p_foreground"][4:6, 60, 20:24] = 0.4
    given["p_foreground"][5, 60, 21] = 0.45
    given["class_of_miss"][4:6, 60, 20:23] = 2
    given["measure_array"][4:6, 60, 20:24] = 1.0
    (region,) = found_in(given)
    assert (region.kind, region.label, region.structure) == ("possible_miss", 2, "Mandible")
    assert region.score == pytest.approx((7 * 0.4 + 0.45) * 0.002)
    assert region.mean == pytest.approx((7 * 0.4 + 0.45) / 8)
    assert region.peak == pytest.approx(0.45)
    assert region.distance_mm == pytest.approx(distance_to_structures(given["label"], SPACING)[4:6, 60, 20:24].min())
    assert "45 %" in region.reason
    assert "Mandible may have been missed" in region.reason


def test_a_likely_structure_inside_the_region_of_interest_is_no_miss():
    given = scene()
    given["p_foreground"][5, 12, 8:12] = 0.45
    assert list(found_in(given)) == []


def test_a_miss_without_any_predicted_structure_has_no_distance():
    given = scene()
    given["label"][:] = 0
    given["p_foreground"][5, 12, 8:12] = 0.45
    (region,) = found_in(given)
    assert (region.kind, region.distance_mm) == ("possible_miss", None)
    assert "no structure was drawn at all" in region.reason
    assert Region.from_json(json.loads(json.dumps(region.to_json(), allow_nan=False))) == region


def test_what_costs_most_comes_first_and_uncertain_regions_before_misses():
    given = scene((10, 80, 40))
    for row, error in ((11, 0.1), (14, 0.5), (17, 0.3)):
        given["measure_array"][5, row, 8:10] = 1.0
        given["expected_error"][5, row, 8:10] = error
    for row, p in ((60, 0.5), (70, 0.9)):
        given["p_foreground"][5, row, 20:30] = p
    found = found_in(given)
    assert [region.id for region in found] == [1, 2, 3, 4, 5]
    assert [region.kind for region in found] == ["uncertain"] * 3 + ["possible_miss"] * 2
    assert [round(region.score / 0.002, 3) for region in found] == [1.0, 0.6, 0.2, 9.0, 5.0]


def test_the_centroid_of_a_shell_lies_outside_it_and_the_peak_inside():
    given = scene()
    ring = np.zeros((40, 40), dtype=bool)
    ring[9:21, 3:9] = True
    ring[10:20, 4:8] = False
    given["measure_array"][5][ring] = 1.0
    (region,) = found_in(given)
    to_index = np.linalg.inv(np.diag([1.0, 1.0, 2.0]))
    def index(point):
        x, y, z = to_index @ (np.array(point) - (-12.0, 30.0, 5.0))
        return tuple(np.rint((z, y, x)).astype(int))
    assert given["measure_array"][index(region.peak_lps_mm)] == 1.0
    assert given["measure_array"][index(region.centroid_lps_mm)] == 0.0


def test_a_region_survives_json():
    given = scene()
    given["measure_array"][5, 12, 8:11] = 1.0
    (region,) = found_in(given)
    document = json.loads(json.dumps(region.to_json(), allow_nan=False))
    assert Region.from_json(document) == region
    assert Region.from_json(document | {"of_a_later_version": 1}) == region
    assert set(document) == {
        "id", "kind", "label", "structure", "voxels", "volume_ml", "mean", "peak", "score", "distance_mm", "centroid_ras_mm",
        "centroid_lps_mm", "peak_ras_mm", "peak_lps_mm", "reason", "share", "surface_share", "chance", "chance_interval",
        "chance_n",
    }


def test_arrays_of_different_shapes_and_a_threshold_of_nan_are_refused():
    given = scene()
    with pytest.raises(ValueError, match="number"):
        found_in(given, threshold=math.nan)
    given["p_foreground"] = given["p_foreground"][1:]
    with pytest.raises(ValueError, match="shape"):
        found_in(given)


def test_the_same_doubt_weighs_more_at_a_small_structure():
    given = scene()
    given["label"][4, 10:20, 4:8] = 0  # half of the brainstem is gone, the mandible is whole
    for column in (9, 35):
        given["measure_array"][5, 12:15, column] = 1.0
        given["expected_error"][5, 12:15, column] = 0.4
    given["expected_error"][5, 12, 35] = 0.5  # the mandible has a little more to lose, but also twice the volume
    found = found_in(given)
    assert [region.structure for region in found] == ["Brainstem", "Mandible"]
    assert found[0].score < found[1].score
    assert found[0].share == pytest.approx(1.2 / 40)


def test_the_probability_of_a_miss_itself_is_listed():
    given = scene()
    given["p_foreground"][1, 35, 20:24] = np.nextafter(np.float32(0.25), np.float32(0))
    assert list(found_in(given, miss_probability=0.25)) == []
    given["p_foreground"][1, 35, 21] = 0.25
    assert [region.voxels for region in found_in(given, miss_probability=0.25)] == [1]


def test_a_region_of_just_the_smallest_volume_is_listed_whatever_the_rounding():
    given, spacing = scene(), (2.0, 0.6, 0.6)
    given["measure_array"][5, 12, 8:11] = 1.0
    assert 2.16 / math.prod(spacing) > 3  # three voxels are 2.16 mm3, which rounding hides
    volume = geometry(given["label"], spacing)
    assert [region.voxels for region in found_in(given, volume=volume, min_volume_mm3=2.16)] == [3]
    assert list(found_in(given, volume=volume, min_volume_mm3=2.17)) == []


def test_of_equal_scores_the_larger_region_comes_first_and_of_equal_ones_the_one_farther_right():
    given = scene()
    for place, error in (((4, 11, 9), 0.5), ((4, 15, 9), 0.5), ((5, 18, 8), 0.5)):
        given["measure_array"][place], given["expected_error"][place] = 1.0, error
    given["measure_array"][5, 14:16, 3] = 1.0
    given["expected_error"][5, 14:16, 3] = 0.25
    found = list(found_in(given))
    assert [region.voxels for region in found] == [2, 1, 1, 1]
    assert len({region.score for region in found}) == 1
    peaks = [region.peak_lps_mm for region in found[1:]]
    assert peaks == sorted(peaks)
    assert peaks[0][0] < peaks[1][0] == peaks[2][0]  # in the order of the array it would be the last
