"""The threshold of uncertainty is the one with the best mean error-Dice."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.threshold import ThresholdFit
from CalibUncertaintyLib.value_codes import codes_of, values_of

UPPER = math.log(6)


def make_case(seed: int, voxels: int = 4000, error_rate: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty that is higher, on the whole, where the label is wrong."""
    random = np.random.default_rng(seed)
    error = random.random(voxels) < error_rate
    u = random.beta(1.0, 8.0, voxels) + error * random.beta(3.0, 4.0, voxels)
    return (np.clip(u, 0, 1) * UPPER).astype(np.float32), error


def error_dice(u: np.ndarray, error: np.ndarray, threshold: float) -> float:
    flagged = u.astype(np.float64) >= threshold
    if not flagged.any() and not error.any():
        return 1.0
    return 2.0 * (flagged & error).sum() / (flagged.sum() + error.sum())


def test_the_threshold_is_the_best_of_all_by_brute_force():
    cases = [make_case(seed, error_rate=rate) for seed, rate in ((0, 0.1), (1, 0.02), (2, 0.3))]
    fit = ThresholdFit("entropy", UPPER)
    for number, case in enumerate(cases):
        fit.add(f"case {number}", *case)
    result = fit.fit()
    # every threshold that any voxel tells from its neighbours: between two such the curve is flat
    told_apart = np.unique(codes_of(np.concatenate([u for u, _ in cases])))
    thresholds = values_of(told_apart).astype(np.float64)
    curve = np.array([np.mean([error_dice(*case, threshold) for case in cases]) for threshold in thresholds])
    assert result.mean_curve[told_apart] == pytest.approx(curve, abs=1e-12)
    assert result.mean_error_dice == pytest.approx(curve.max())
    assert np.mean([error_dice(*case, result.value) for case in cases]) == pytest.approx(curve.max())
    assert result.status == "ok"
    assert list(result.error_dice.values()) == pytest.approx([error_dice(*case, result.value) for case in cases])


@pytest.mark.parametrize("upper", [UPPER, 0.7, 5 / 6, 1.0, math.log(25), 16.118])
@pytest.mark.parametrize("side", [-math.inf, 0.0, math.inf])
def test_the_last_bit_of_a_value_decides_at_every_edge(upper, side):
    fit = ThresholdFit("entropy", upper)
    chosen = np.arange(1, fit.thresholds.size, 97)
    edges = fit.thresholds[chosen].astype(np.float32)
    u = edges if side == 0 else np.nextafter(edges, np.float32(side))
    error = np.arange(u.size) % 3 == 0
    fit.add("case", u, error)
    expected = [error_dice(u, error, threshold) for threshold in fit.thresholds[chosen]]
    assert fit.fit().mean_curve[chosen] == pytest.approx(expected, abs=1e-12)


def test_a_measure_that_lives_near_zero_is_resolved_though_it_may_reach_far():
    fit = ThresholdFit("epkl", 16.118)
    u = np.concatenate([np.full(900, 0.001), np.full(100, 0.0012)]).astype(np.float32)
    fit.add("case", u, u > 0.0011)
    assert fit.fit().mean_error_dice == 1.0
    assert 0.001 < fit.fit().value <= 0.0012


def test_a_fitted_threshold_becomes_what_a_record_stores():
    fit = ThresholdFit("mi", 1.2)
    fit.add("case", np.array([0.1, 0.9]), np.array([False, True]))
    found = fit.fit()
    assert found.to_json() == {"value": found.value, "unit": "nats", "mean_error_dice": 1.0}
    assert ThresholdFit("conf", 0.5).fit().to_json() == {"value": None, "unit": "probability", "mean_error_dice": None}


def test_the_default_grid_loses_little_against_the_best_value_of_all():
    u, error = make_case(3)
    fit = ThresholdFit("entropy", UPPER)
    fit.add("case", u, error)
    best = max(error_dice(u, error, threshold) for threshold in np.unique(u))
    assert fit.fit().mean_error_dice == pytest.approx(best, abs=2e-3)


def test_a_case_in_pieces_is_the_same_case():
    u, error = make_case(4)
    whole, pieces = ThresholdFit("entropy", UPPER), ThresholdFit("entropy", UPPER)
    whole.add("case", u, error)
    for part in (slice(0, 10), slice(10, 3000), slice(3000, None)):
        pieces.add("case", u[part], error[part])
    assert np.array_equal(whole.fit().mean_curve, pieces.fit().mean_curve)


def test_cases_and_not_voxels_weigh_the_same():
    small, large = make_case(5, voxels=500, error_rate=0.4), make_case(6, voxels=50_000, error_rate=0.01)
    fit = ThresholdFit("entropy", UPPER)
    fit.add("small", *small)
    fit.add("large", *large)
    result = fit.fit()
    assert result.mean_error_dice == pytest.approx(np.mean(list(result.error_dice.values())))


def test_a_case_without_errors_counts_and_rewards_silence():
    fit = ThresholdFit("entropy", UPPER)
    u, error = make_case(7)
    fit.add("with errors", u, error)
    fit.add("without errors", np.full(100, 0.5 * UPPER), np.zeros(100, dtype=bool))
    result = fit.fit()
    assert result.error_dice["without errors"] == (1.0 if result.value > 0.5 * UPPER else 0.0)
    silent = result.thresholds > 0.5 * UPPER + 1e-9
    assert result.mean_curve[silent].min() >= 0.5


def test_when_no_case_has_an_error_the_upper_end_is_given_and_said():
    fit = ThresholdFit("mi", 1.2)
    fit.add("case", np.linspace(0, 1, 50), np.zeros(50, dtype=bool))
    result = fit.fit()
    assert (result.status, result.value) == ("no_errors", 1.2)
    assert math.isnan(result.mean_error_dice)


def test_without_a_voxel_there_is_no_threshold():
    fit = ThresholdFit("mi", 1.2)
    fit.add("case", np.zeros(0), np.zeros(0, dtype=bool))
    result = fit.fit()
    assert result.status == "empty_roi"
    assert math.isnan(result.value)


def test_values_beyond_the_range_count_as_its_ends():
    fit = ThresholdFit("conf", 0.5)
    fit.add("case", np.array([-0.1, 0.9, 0.9]), np.array([False, True, True]))
    assert fit.fit().mean_error_dice == 1.0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        ThresholdFit("mi", 0.0)
    with pytest.raises(ValueError, match="flags"):
        ThresholdFit("mi", 1.0).add("case", np.zeros(3), np.zeros(4, dtype=bool))
    with pytest.raises(CalibUncertaintyError, match=r"P03.*NaN"):
        ThresholdFit("mi", 1.0).add("P03", np.array([0.1, np.nan]), np.zeros(2, dtype=bool))


def test_values_beyond_the_range_count_as_its_end():
    u, error = make_case(3)
    u[:50] = 3.0 * UPPER
    beyond, clipped = ThresholdFit("entropy", UPPER), ThresholdFit("entropy", UPPER)
    beyond.add("case", u, error)
    clipped.add("case", np.minimum(u, np.float32(UPPER)), error)
    assert np.array_equal(beyond.fit().mean_curve, clipped.fit().mean_curve)
    assert beyond.fit().value == clipped.fit().value
