"""Regions are told apart by where they lie, merged across small gaps, and come with how often such regions were wrong."""

import json
import math

import numpy as np
import pytest
from scipy.ndimage import label as scipy_label
from scipy.spatial.distance import cdist
from test_regions import LABELS, SPACING, found_in, geometry, scene

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.components import components_of
from CalibUncertaintyLib.uncertainty.interface_distance import signed_distance
from CalibUncertaintyLib.uncertainty.region_calibration import (
    KindCalibration,
    RegionCalibration,
    RegionCalibrationFit,
    holds_error,
)
from CalibUncertaintyLib.uncertainty.regions import boundary_mm


def merged_by_hand(mask, spacing, gap):
    """Components, then single linkage by the least distance between their voxels' centres."""
    numbered, count = scipy_label(mask, np.ones((3, 3, 3)))
    points = [np.argwhere(numbered == number) * np.array(spacing) for number in range(1, count + 1)]
    parent = list(range(count))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(count):
        for j in range(i):
            if cdist(points[i], points[j]).min() <= gap:
                parent[root(i)] = root(j)
    return len({root(i) for i in range(count)})


@pytest.mark.parametrize("gap", [0.0, 2.0, 4.0])
def test_blocks_on_one_line_are_merged_where_the_gap_between_them_is_small_enough(gap):
    mask = np.zeros((4, 6, 40), bool)
    for start in (1, 5, 12, 15, 30):  # gaps between voxel centres: 3, 6, 2, 14 mm
        mask[1:3, 2:4, start : start + 2] = True
    found = components_of(mask, 0, (1.0, 1.0, 1.0), gap)
    assert found.count == merged_by_hand(mask, (1.0, 1.0, 1.0), gap)
    assert sorted(found.voxel.tolist()) == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [1.0, 2.6, 4.0])
def test_scattered_components_are_merged_as_by_hand(seed, gap):
    mask = np.random.default_rng(seed).random((8, 20, 20)) > 0.985
    spacing = (2.5, 0.9, 0.9)
    assert components_of(mask, 0, spacing, gap).count == merged_by_hand(mask, spacing, gap)


def test_small_pieces_near_each_other_count_together_against_the_least_volume():
    mask = np.zeros((3, 3, 20), bool)
    mask[1, 1, [2, 4, 6, 15]] = True
    assert components_of(mask, 3, (1, 1, 1), 0.0).count == 0
    together = components_of(mask, 3, (1, 1, 1), 2.0)
    assert (together.count, together.dropped, len(together.voxel)) == (1, 1, 3)


def test_an_uncertain_region_is_one_of_the_boundary_or_not_by_most_of_its_voxels():
    given = scene()
    given["label"][:] = 0
    given["label"][2:8, 8:32, 4:36] = 1
    given["measure_array"][5, 20, 20] = 1.0  # deep inside
    given["measure_array"][2, 10:14, 4:8] = 1.0  # at the surface
    given["expected_error"][:] = given["measure_array"]
    interfaces = signed_distance(given["label"], SPACING)
    assert boundary_mm(SPACING) == pytest.approx(math.sqrt(6))
    found = found_in(given, interfaces=interfaces)
    assert {region.kind: region.voxels for region in found} == {"non_boundary": 1, "boundary": 16}
    shares = {region.kind: region.surface_share for region in found}
    assert shares == {"non_boundary": 0.0, "boundary": 1.0}
    reasons = {region.kind: region.reason for region in found}
    assert "along the surface of Brainstem" in reasons["boundary"]
    assert "away from its surface" in reasons["non_boundary"]
    for region, places in zip(found, found.places, strict=True):
        assert (given["measure_array"].reshape(-1)[places] == 1).all()
        assert len(places) == region.voxels


def test_the_chance_of_a_region_stands_in_its_reason():
    given = scene()
    given["measure_array"][5, 12, 8:11] = 1.0
    given["expected_error"][:] = 0.5 * given["measure_array"]
    fit = RegionCalibrationFit()
    for case in range(10):
        fit.add(f"P{case}", "uncertain", 0.003, case < 6)
    (region,) = found_in(given, calibration=fit.fit())
    assert region.chance == pytest.approx(6.5 / 11)
    assert region.chance_n == 10
    assert region.chance_interval[0] < 0.6 < region.chance_interval[1]
    assert region.reason.endswith("Of 10 regions like this one in the calibration cases 6 in 10 held a real error.")


def test_chances_never_fall_with_the_score_and_meet_the_truth():
    random = np.random.default_rng(0)
    fit = RegionCalibrationFit()
    scores = 10.0 ** random.uniform(-3, 1, 3000)
    truth = 1 / (1 + np.exp(-1.5 * np.log(scores / 0.3)))
    for number, (score, p) in enumerate(zip(scores, truth, strict=True)):
        fit.add(f"P{number % 20}", "boundary", score, random.random() < p)
    calibration = fit.fit()
    asked = 10.0 ** np.linspace(-2.5, 0.5, 40)
    found = [calibration.chance_of("boundary", score) for score in asked]
    chances = np.array([item["chance"] for item in found])
    assert (np.diff(chances) >= 0).all()
    assert np.abs(chances - 1 / (1 + np.exp(-1.5 * np.log(asked / 0.3)))).mean() < 0.05
    assert all(item["chance_interval"][0] <= item["chance"] <= item["chance_interval"][1] for item in found)
    assert chances.min() > 0
    assert chances.max() < 1


def test_a_kind_without_regions_has_no_chance_and_one_region_claims_no_certainty():
    fit = RegionCalibrationFit()
    assert fit.fit() is None
    fit.add_case("P0")
    assert fit.fit() is None
    fit.add("P1", "possible_miss", 0.0, False)
    calibration = fit.fit()
    assert calibration.cases == 2
    assert calibration.chance_of("boundary", 1.0) == {"chance": None, "chance_interval": None, "chance_n": None}
    alone = calibration.chance_of("possible_miss", 5.0)
    assert alone["chance"] == 0.25
    assert alone["chance_n"] == 1
    assert alone["chance_interval"][1] > 0.5


def test_equal_scores_are_one_step_and_all_right_or_all_wrong_stay_below_certainty():
    fit = RegionCalibrationFit()
    for number in range(8):
        fit.add(f"P{number}", "boundary", 0.5, True)
    found = fit.fit().chance_of("boundary", 0.01)
    assert found["chance"] == 8.5 / 9
    assert found["chance_n"] == 8


def test_the_calibration_survives_json_and_damage_is_said_in_one_line():
    random, fit = np.random.default_rng(1), RegionCalibrationFit()
    for number in range(60):
        score = random.random()
        fit.add(f"P{number % 4}", "non_boundary", score, random.random() < score)
    calibration = fit.fit()
    document = json.loads(json.dumps(calibration.to_json(), allow_nan=False))
    assert RegionCalibration.from_json(document) == calibration
    for damage in (
        {"cases": 0}, {"kinds": {"odd": document["kinds"]["non_boundary"]}}, {"kinds": {"boundary": {"chance": [2]}}}, {"kinds": 3},
        {"kinds": {"boundary": document["kinds"]["non_boundary"] | {"n": [0]}}},
    ):  # fmt: skip
        with pytest.raises(CalibUncertaintyError) as error:
            RegionCalibration.from_json(document | damage)
        assert "\n" not in str(error.value)


def test_a_region_holds_an_error_by_its_share_or_its_volume():
    assert not holds_error(0, 5, 1.0)
    assert not holds_error(0, 0, 1.0)  # a region that was not found again
    assert holds_error(1, 10, 1.0)
    assert not holds_error(1, 11, 1.0)
    assert holds_error(3, 1000, 4.0)
    assert not holds_error(2, 1000, 4.0)


def test_wrong_use_is_refused():
    fit = RegionCalibrationFit()
    for kind, score in (("odd", 1.0), ("boundary", math.nan), ("boundary", -1.0)):
        with pytest.raises(ValueError):
            fit.add("P", kind, score, True)


def test_no_structure_leaves_nothing_but_possible_misses_and_no_kind_of_surface():
    given = scene()
    given["label"][:] = 0
    given["p_foreground"][5, 5, 5:9] = 0.8
    interfaces = signed_distance(given["label"], SPACING)
    found = found_in(given, interfaces=interfaces, labels=LABELS, volume=geometry(given["label"]))
    assert [region.kind for region in found] == ["possible_miss"]
    assert found[0].surface_share is None


def test_what_was_hardly_ever_wrong_is_listed_after_everything_else():
    given = scene()
    given["measure_array"][5, 12, 8:11] = 1.0
    given["expected_error"][:] = 0.5 * given["measure_array"]
    given["p_foreground"][1, 35, 20:24] = 0.9
    assert [region.kind for region in found_in(given)] == ["uncertain", "possible_miss"]
    fit = RegionCalibrationFit()
    for case in range(100):
        fit.add(f"P{case}", "uncertain", 0.003, False)
        fit.add(f"P{case}", "possible_miss", 0.003, case % 2 == 0)
    found = found_in(given, calibration=fit.fit())
    assert [(region.id, region.kind) for region in found] == [(1, "possible_miss"), (2, "uncertain")]
    assert [len(places) for places in found.places] == [4, 3]


def test_half_of_the_voxels_at_a_surface_and_a_distance_on_the_limit_are_enough():
    given = scene()
    given["measure_array"][5, 12, 8:10] = 1.0
    given["expected_error"][:] = given["measure_array"]
    limit = np.float32(boundary_mm(SPACING))
    assert float(limit) > boundary_mm(SPACING)  # float32 rounds this one up
    interfaces = np.full(given["label"].shape, limit)
    (region,) = found_in(given, interfaces=interfaces)
    assert (region.kind, region.surface_share) == ("boundary", 1.0)
    interfaces[5, 12, 8] = -50.0
    (region,) = found_in(given, interfaces=interfaces)
    assert (region.kind, region.surface_share) == ("boundary", 0.5)
    interfaces[5, 12, 9] = limit + np.float32(0.01)
    assert found_in(given, interfaces=interfaces)[0].kind == "non_boundary"


def test_a_region_is_listed_last_only_where_its_interval_leaves_no_doubt():
    given = scene()
    given["measure_array"][5, 12, 8:11] = 1.0
    given["expected_error"][:] = 0.5 * given["measure_array"]
    given["p_foreground"][1, 35, 20:24] = 0.9
    fit = RegionCalibrationFit()
    for case in range(60):
        fit.add(f"P{case}", "uncertain", 0.003, case < 4)
    found = found_in(given, calibration=fit.fit())
    assert found[0].chance < 0.1 < found[0].chance_interval[1]
    assert [region.kind for region in found] == ["uncertain", "possible_miss"]


def test_a_score_on_the_border_of_two_steps_belongs_to_the_higher():
    steps = KindCalibration((-math.inf, 0.0), (0.2, 0.8), (0.1, 0.7), (0.3, 0.9), (10, 20))
    calibration = RegionCalibration({"boundary": steps}, 3)
    assert calibration.chance_of("boundary", 1.0)["chance"] == 0.8  # ln 1 = 0
    assert calibration.chance_of("boundary", 0.999)["chance"] == 0.2


def test_many_regions_of_one_score_weigh_more_than_a_few():
    fit = RegionCalibrationFit()
    for score, right, regions in ((0.1, 3, 5), (0.2, 0, 100), (0.3, 1, 5)):
        for number in range(regions):
            fit.add("P", "boundary", score, number < right)
    calibration = fit.fit()
    # the first two are out of order and become one step; their 3 of 105 stay below the third's 1 of 5
    assert calibration.chance_of("boundary", 0.2)["chance"] == pytest.approx(3.5 / 106)
    assert calibration.chance_of("boundary", 0.3)["chance"] == pytest.approx(1.5 / 6)
