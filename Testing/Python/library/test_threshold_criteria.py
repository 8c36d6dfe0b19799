"""The two ways to choose a threshold, the curve that is drawn of them, and where there is nothing to choose from."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.threshold import ThresholdFit
from CalibUncertaintyLib.value_codes import codes_of, values_of


def case(seed, voxels, error_rate, scale=1.0):
    random = np.random.default_rng(seed)
    error = random.random(voxels) < error_rate
    u = scale * (random.beta(1.0, 8.0, voxels) + error * random.beta(3.0, 4.0, voxels))
    return values_of(codes_of(np.clip(u, 0, 1))), error


def error_dice(u, error, threshold):
    flagged = u >= threshold
    both = flagged.sum() + error.sum()
    return 2.0 * (flagged & error).sum() / both if both else 1.0


def fitted(cases, criterion="mean"):
    fit = ThresholdFit("conf", 1.0)
    for number, (u, error) in enumerate(cases):
        fit.add(f"case {number}", u, error)
    return fit.fit(criterion)


CASES = [case(0, 400, 0.4, 0.4), case(1, 9000, 0.05), case(2, 3000, 0.0), case(3, 700, 0.2, 0.7)]


def test_pooled_all_voxels_are_one_case_by_brute_force():
    found = fitted(CASES, "pooled")
    u, error = (np.concatenate(columns) for columns in zip(*CASES, strict=True))
    best = max(error_dice(u, error, threshold) for threshold in np.unique(u))
    assert found.pooled_error_dice == pytest.approx(best, abs=1e-12)
    assert error_dice(u, error, found.value) == pytest.approx(best, abs=1e-12)
    assert (found.criterion, found.status) == ("pooled", "ok")
    by_case = [error_dice(*one, found.value) for one in CASES]
    assert list(found.error_dice.values()) == pytest.approx(by_case)
    assert found.mean_error_dice == pytest.approx(np.mean(by_case))


def test_each_criterion_is_best_by_its_own_figure_and_they_differ():
    mean, pooled = fitted(CASES), fitted(CASES, "pooled")
    assert mean.value != pooled.value
    assert mean.mean_error_dice > pooled.mean_error_dice
    assert pooled.pooled_error_dice > mean.pooled_error_dice


def test_one_case_is_the_same_by_both():
    mean, pooled = fitted(CASES[1:2]), fitted(CASES[1:2], "pooled")
    assert mean.value == pooled.value
    assert np.array_equal(mean.mean_curve, mean.pooled_curve)


@pytest.mark.parametrize("points", [8, 21, 256])
def test_the_curve_to_draw_is_short_true_and_holds_the_best(points):
    for criterion in ("mean", "pooled"):
        found = fitted(CASES, criterion)
        curve = found.curve(points)
        assert all(points // 2 <= len(column) <= points for column in curve.values())
        assert curve["thresholds"] == sorted(set(curve["thresholds"]))
        assert found.value in curve["thresholds"]
        assert max(curve["mean"]) == fitted(CASES).mean_error_dice
        u, error = (np.concatenate(columns) for columns in zip(*CASES, strict=True))
        assert curve["pooled"] == pytest.approx([error_dice(u, error, t) for t in curve["thresholds"]])
    # both by value and by order of magnitude
    drawn = np.array(fitted(CASES).curve()["thresholds"])
    assert (drawn > 0.5).sum() > 60
    assert ((drawn > 0) & (drawn < 1e-3)).sum() > 40


def test_equal_values_are_flagged_together_or_not_at_all():
    u, error = np.full(10, 0.25, np.float32), np.arange(10) < 3
    found = fitted([(u, error)])
    assert found.mean_error_dice == pytest.approx(2 * 3 / 13)
    assert found.value <= 0.25


@pytest.mark.parametrize("criterion", ["mean", "pooled"])
def test_without_errors_or_voxels_nothing_is_learnt_by_either(criterion):
    none = fitted([CASES[2]], criterion)
    assert (none.status, none.value) == ("no_errors", 1.0)
    assert math.isnan(none.pooled_error_dice)
    assert set(none.curve()["pooled"]) == {0.0, 1.0}
    empty = fitted([(np.zeros(0), np.zeros(0, bool))], criterion)
    assert (empty.status, empty.error_dice) == ("empty_roi", {})
    assert math.isnan(empty.value)
    assert np.isnan(empty.curve()["mean"]).all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="criterion"):
        fitted(CASES, "median")
    with pytest.raises(ValueError, match="points"):
        fitted(CASES).curve(3)
