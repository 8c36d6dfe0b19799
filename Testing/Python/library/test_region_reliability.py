"""Chances of regions are held against what came true on other cases; a damaged record is told from a whole one."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.region import reason_of
from CalibUncertaintyLib.uncertainty.region_calibration import (
    RegionCalibration,
    RegionCalibrationFit,
    region_reliability,
)


@pytest.mark.parametrize("n", [1, 3, 5, 12, 200])
def test_bins_hold_equally_many_regions_and_errors_are_those_by_hand(n):
    random = np.random.default_rng(n)
    chances = random.random(n)
    held = random.random(n) < chances
    found = region_reliability(chances, held)
    pairs = sorted(zip(chances.tolist(), held.tolist(), strict=True))
    sizes = [item["n"] for item in found["bins"]]
    assert (sum(sizes), len(sizes)) == (n, min(5, n))
    assert max(sizes) - min(sizes) <= 1
    expected, start = 0.0, 0
    for item in found["bins"]:
        inside = pairs[start : start + item["n"]]
        assert item["chance"] == pytest.approx(sum(p for p, _ in inside) / len(inside))
        assert item["share"] == pytest.approx(sum(h for _, h in inside) / len(inside))
        expected += abs(sum(p for p, _ in inside) - sum(h for _, h in inside)) / n
        start += item["n"]
    assert found["ece"] == pytest.approx(expected)
    assert found["brier"] == pytest.approx(sum((p - h) ** 2 for p, h in pairs) / n)


def test_true_chances_have_a_small_error_and_wrong_ones_a_large_one():
    random = np.random.default_rng(0)
    chances = random.random(4000)
    held = random.random(4000) < chances
    assert region_reliability(chances, held)["ece"] < 0.03
    assert region_reliability(1 - chances, held)["ece"] > 0.3


def test_the_order_of_regions_does_not_matter_even_where_chances_are_equal():
    chances, held = np.repeat([0.2, 0.6], 7), np.arange(14) % 3 == 0
    shuffled = np.random.default_rng(1).permutation(14)
    assert region_reliability(chances, held) == region_reliability(chances[shuffled], held[shuffled])


def test_without_regions_there_is_no_figure():
    found = region_reliability([], [])
    assert (found["n"], found["bins"]) == (0, [])
    assert math.isnan(found["brier"])
    assert math.isnan(found["ece"])


@pytest.mark.parametrize(("chances", "held"), [([0.5], []), ([1.2], [True]), ([math.nan], [True]), ([-0.1], [False])])
def test_what_is_no_chance_is_refused(chances, held):
    with pytest.raises(ValueError, match="chances"):
        region_reliability(chances, held)


def test_chances_learnt_on_some_cases_come_true_on_others():
    random = np.random.default_rng(5)

    def regions(count):
        scores = 10.0 ** random.uniform(-3, 1, count)
        return scores, random.random(count) < scores / (scores + 0.2)

    fit = RegionCalibrationFit()
    for number, (score, held) in enumerate(zip(*regions(600), strict=True)):
        fit.add(f"P{number % 12}", "boundary", score, bool(held))
    calibration = fit.fit()
    scores, held = regions(3000)
    stated = [calibration.chance_of("boundary", score)["chance"] for score in scores]
    assert region_reliability(stated, held)["ece"] < 0.06


def test_without_an_error_in_any_calibration_case_chances_are_low_and_not_zero():
    fit = RegionCalibrationFit()
    for number in range(30):
        fit.add(f"P{number}", "non_boundary", 0.01 * number, False)
    found = fit.fit().chance_of("non_boundary", 0.3)
    assert 0 < found["chance"] < 0.03
    assert found["chance_interval"][0] == 0.0
    assert found["chance_n"] == 30


STEP = {"from_log_score": [None, 1.5], "chance": [0.1, 0.6], "low": [0.0, 0.3], "high": [0.3, 0.9], "n": [9, 4]}


@pytest.mark.parametrize(
    "damage",
    [
        {"from_log_score": [], "chance": [], "low": [], "high": [], "n": []},
        {"from_log_score": [None, math.nan]},
        {"from_log_score": [None, math.inf]},
        {"from_log_score": [0.0, 1.5]},
        {"from_log_score": [None, None]},
        {"n": [9, 4.5]},
        {"n": [9, True]},
        {"n": [9, math.inf]},
        {"n": 9},
        {"chance": [0.1, math.nan]},
        {"high": [0.3, 0.5]},
        {"low": [0.0]},
    ],
)
def test_every_damage_of_the_record_is_said_in_one_line(damage):
    whole = {"cases": 3, "kinds": {"boundary": STEP}}
    assert RegionCalibration.from_json(whole).chance_of("boundary", 10.0)["chance"] == 0.6
    with pytest.raises(CalibUncertaintyError, match="calibrate the model again") as error:
        RegionCalibration.from_json({"cases": 3, "kinds": {"boundary": STEP | damage}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("chance", "n", "words"),
    [
        (0.6, 12, "Of 12 regions like this one in the calibration cases 6 in 10 held a real error."),
        (0.02, 40, "Of 40 regions like this one in the calibration cases fewer than 1 in 10 held a real error."),
        (0.98, 40, "Of 40 regions like this one in the calibration cases more than 9 in 10 held a real error."),
        (0.75, 1, "Judged by the only region like this one in the calibration cases, 8 in 10 hold a real error."),
        (None, None, "5 % of the structure."),
    ],
)
def test_the_reason_says_the_chance_without_more_certainty_than_there_is(chance, n, words):
    region = {"kind": "boundary", "volume_ml": 0.4, "structure": "Parotid", "label": 1, "distance_mm": 0.0}
    region |= {"share": 0.05, "score": 0.1, "chance": chance, "chance_n": n}
    assert reason_of(region).endswith(words)
