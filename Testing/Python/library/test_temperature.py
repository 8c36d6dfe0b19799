"""Temperature scaling: the fit is the optimum, says when there is none, and never changes a label."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from scipy.special import softmax as scipy_softmax

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.base import Calibrator
from CalibUncertaintyLib.calibration.decisions import changed_by_temperature, changed_labels
from CalibUncertaintyLib.calibration.softmax import log_of_probabilities, softmax
from CalibUncertaintyLib.calibration.temperature import TemperatureFit, TemperatureScaling


def drawn_from(log_odds: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels with probability softmax(log_odds) (the Gumbel trick)."""
    return (log_odds + random.gumbel(size=log_odds.shape)).argmax(axis=0)


def network_like(voxels: int, random: np.random.Generator, classes: int = 6) -> np.ndarray:
    """True log-odds as a segmentation network's: most voxels are plain background, the rest is open."""
    log_odds = random.normal(scale=2.0, size=(classes, voxels))
    log_odds[0] += 14.0 * (random.random(voxels) < 0.85)
    return log_odds


def fitted(logits: np.ndarray, labels: np.ndarray, **options):
    fit = TemperatureFit()
    fit.add("case", logits, labels)
    return fit.fit(**options)


def scipy_temperature(mean_nll) -> float:
    """The temperature a bounded minimiser finds for a mean NLL given as a function of ln(1/T)."""
    found = minimize_scalar(mean_nll, bounds=(math.log(1 / 20), math.log(20)), method="bounded", options={"xatol": 1e-11})
    return math.exp(-found.x)


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5, 9.0])
def test_the_temperature_that_made_the_logits_is_recovered_within_one_per_cent(true_temperature):
    random = np.random.default_rng(1)
    log_odds = random.normal(scale=2.0, size=(5, 200_000))
    labels = drawn_from(log_odds, random)
    result = fitted(true_temperature * log_odds, labels)
    assert result.status == "ok"
    assert result.temperature == pytest.approx(true_temperature, rel=0.01)


@pytest.mark.parametrize("scale", [0.2, 1.0, 2.0, 12.0])
def test_the_fit_agrees_with_a_bounded_minimiser(scale):
    random = np.random.default_rng(2)
    log_odds = network_like(60_000, random)
    labels = drawn_from(log_odds, random)
    logits = (scale * log_odds).astype(np.float32)

    def mean_nll(log_beta):
        scaled = math.exp(log_beta) * logits.astype(np.float64)
        return float((logsumexp(scaled, axis=0) - scaled[labels, np.arange(labels.size)]).mean())

    result = fitted(logits, labels)
    assert result.temperature == pytest.approx(scipy_temperature(mean_nll), rel=2e-5)
    assert result.nll_before == pytest.approx(mean_nll(0.0), rel=1e-6)
    assert result.nll_after == pytest.approx(mean_nll(-math.log(result.temperature)), rel=1e-6)


def test_the_shared_temperature_of_members_agrees_with_a_bounded_minimiser():
    random = np.random.default_rng(3)
    log_odds = network_like(30_000, random)
    labels = drawn_from(log_odds, random)
    members = (2.0 * log_odds + random.normal(scale=2.0, size=(4, *log_odds.shape))).astype(np.float32)

    def mean_nll(log_beta):
        of_label = log_softmax(math.exp(log_beta) * members.astype(np.float64), axis=1)[:, labels, np.arange(labels.size)]
        return float(-(logsumexp(of_label, axis=0) - math.log(len(members))).mean())

    result = fitted(members, labels)
    assert result.temperature == pytest.approx(scipy_temperature(mean_nll), rel=2e-5)
    assert result.nll_before == pytest.approx(mean_nll(0.0), rel=1e-6)
    assert result.nll_after == pytest.approx(mean_nll(-math.log(result.temperature)), rel=1e-6)


def test_one_member_gives_the_same_temperature_as_plain_logits():
    random = np.random.default_rng(4)
    log_odds = network_like(20_000, random)
    labels = drawn_from(log_odds, random)
    assert fitted(log_odds[np.newaxis], labels).temperature == fitted(log_odds, labels).temperature


def test_two_equal_members_give_the_same_temperature_as_one():
    random = np.random.default_rng(5)
    log_odds = 2.0 * network_like(20_000, random)
    labels = drawn_from(log_odds / 2.0, random)
    twice = fitted(np.stack([log_odds, log_odds]), labels)
    assert twice.temperature == pytest.approx(fitted(log_odds, labels).temperature, rel=1e-6)


def test_a_constant_added_to_a_voxels_logits_changes_nothing():
    random = np.random.default_rng(6)
    log_odds = network_like(20_000, random)
    labels = drawn_from(log_odds, random)
    shifted = 1.7 * log_odds + random.normal(scale=50.0, size=labels.size)
    assert fitted(shifted, labels).temperature == pytest.approx(fitted(1.7 * log_odds, labels).temperature, rel=1e-6)


def test_log_probabilities_give_the_same_temperature_as_logits():
    random = np.random.default_rng(7)
    log_odds = network_like(50_000, random)
    labels = drawn_from(log_odds, random)
    logits = (2.0 * log_odds).astype(np.float32)
    from_probabilities = fitted(log_of_probabilities(softmax(logits)), labels)
    assert from_probabilities.temperature == pytest.approx(fitted(logits, labels).temperature, rel=1e-5)


def test_half_precision_logits_are_fitted_in_higher_precision():
    random = np.random.default_rng(8)
    log_odds = network_like(50_000, random)
    labels = drawn_from(log_odds, random)
    logits = (2.0 * log_odds).astype(np.float16)
    assert fitted(logits, labels).temperature == fitted(logits.astype(np.float32), labels).temperature


def test_when_every_voxel_is_right_the_lower_limit_is_given_and_said():
    random = np.random.default_rng(9)
    logits = random.normal(scale=8.0, size=(4, 5_000))
    result = fitted(logits, logits.argmax(axis=0))
    assert (result.status, result.temperature) == ("separable", 0.05)
    assert result.nll_after < result.nll_before


@pytest.mark.parametrize("logits", [
    pytest.param(np.zeros((3, 900)), id="all equal"),
    pytest.param(-5.0 * np.eye(3)[:, np.arange(900) % 3], id="always wrong"),
])
def test_when_logits_say_nothing_about_the_labels_the_upper_limit_is_given_and_said(logits):
    result = fitted(logits, np.arange(900) % 3)
    assert (result.status, result.temperature) == ("uninformative", 20.0)


def test_without_a_voxel_the_figures_are_nan_and_the_status_says_why():
    fit = TemperatureFit()
    assert fit.fit().status == "empty_roi"
    fit.add("empty", np.zeros((3, 0)), np.zeros(0, dtype=int))
    result = fit.fit()
    assert result.status == "empty_roi"
    assert result.cases == ()
    assert math.isnan(result.temperature)
    assert math.isnan(result.nll_after)


def test_one_case_has_no_interval():
    random = np.random.default_rng(10)
    log_odds = random.normal(size=(3, 1000))
    assert all(math.isnan(end) for end in fitted(log_odds, drawn_from(log_odds, random)).interval)


def test_the_interval_is_that_of_refits_on_drawn_cases():
    random = np.random.default_rng(11)
    cases = []
    for true_temperature in (1.2, 1.8, 2.1, 3.0):
        log_odds = random.normal(scale=2.0, size=(3, 4_000))
        cases.append((true_temperature * log_odds, drawn_from(log_odds, random)))
    fit = TemperatureFit()
    for number, case in enumerate(cases):
        fit.add(f"case {number}", *case)
    result = fit.fit(bootstrap=4000)
    temperatures = []
    for draw in np.random.default_rng(12).integers(len(cases), size=(400, len(cases))):
        refit = TemperatureFit()
        for place, number in enumerate(draw):
            refit.add(str(place), cases[number][0][:, ::4], cases[number][1][::4])
        temperatures.append(refit.fit(bootstrap=0).temperature)
    low, high = np.percentile(temperatures, [2.5, 97.5])
    assert result.interval == pytest.approx((low, high), rel=0.08)
    assert result.interval[0] < result.temperature < result.interval[1]


def test_equal_cases_leave_no_spread_and_the_seed_fixes_the_interval():
    random = np.random.default_rng(13)
    log_odds = random.normal(scale=2.0, size=(3, 3_000))
    labels = drawn_from(log_odds, random)
    fit = TemperatureFit()
    for case in "abc":
        fit.add(case, log_odds, labels)
    assert fit.fit().interval == pytest.approx((fit.fit().temperature,) * 2, rel=1e-9)
    fit.add("d", 3 * log_odds, labels)
    assert fit.fit(seed=5).interval == fit.fit(seed=5).interval


def test_the_interval_runs_from_the_percentile_2_5_of_the_draws_to_97_5():
    """Of three cases one draw in 27 is three times the same: more than 2.5 %, less than 5 % of all."""
    random = np.random.default_rng(20)
    fit, alone = TemperatureFit(), []
    for case, true_temperature in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        log_odds = random.normal(scale=2.0, size=(3, 3_000))
        logits, labels = true_temperature * log_odds, drawn_from(log_odds, random)
        fit.add(case, logits, labels)
        alone.append(fitted(logits, labels).temperature)
    assert fit.fit(bootstrap=5000).interval == pytest.approx((alone[0], alone[2]), rel=1e-6)
    assert fit.fit(bootstrap=7, seed=1).interval != fit.fit(bootstrap=7, seed=2).interval


def test_a_case_in_pieces_is_the_same_case():
    random = np.random.default_rng(14)
    log_odds = network_like(70_000, random)
    labels = drawn_from(log_odds, random)
    pieces = TemperatureFit()
    for part in (slice(0, 100), slice(100, 66_000), slice(66_000, None)):
        pieces.add("case", log_odds[:, part], labels[part])
    whole, in_pieces = fitted(log_odds, labels), pieces.fit()
    assert in_pieces.temperature == pytest.approx(whole.temperature, rel=1e-7)
    assert (in_pieces.cases, in_pieces.voxels) == (whole.cases, whole.voxels) == (("case",), 70_000)


def surely_right(voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels so sure and right that single precision sees no slope of their likelihood any more."""
    labels = np.arange(voxels) % 3
    return 200.0 * np.eye(3)[:, labels], labels


def test_what_a_case_was_remains_true_whatever_piece_comes_last():
    """Wrong voxels, then sure and right ones; voxels of one spread, then level ones."""
    random = np.random.default_rng(21)
    log_odds = random.normal(scale=2.0, size=(3, 5_000))
    labels = drawn_from(log_odds, random)
    some_wrong, all_right = TemperatureFit(), TemperatureFit()
    some_wrong.add("case", log_odds, labels)
    some_wrong.add("case", *surely_right(900))
    assert some_wrong.fit().status == "ok"
    assert some_wrong.fit().temperature == pytest.approx(fitted(log_odds, labels).temperature, rel=1e-6)
    all_right.add("case", *surely_right(900))
    all_right.add("case", np.zeros((3, 900)), np.zeros(900, dtype=int))
    assert all_right.fit().status == "separable"


def test_voxels_too_sure_for_single_precision_still_are_separable():
    result = fitted(*surely_right(900))
    assert (result.status, result.temperature) == ("separable", 0.05)
    assert 0.0 <= result.nll_after <= result.nll_before < 1e-9


def test_a_member_that_says_nothing_beside_one_that_is_sure_and_right_is_separable():
    sure, labels = surely_right(900)
    assert fitted(np.stack([np.zeros_like(sure), sure]), labels).status == "separable"


def test_members_that_contradict_each_other_everywhere_have_a_temperature_of_their_own():
    """Each voxel is right with one member and wrong with the other: no voxel is lost with both, and none is right with both."""
    margins = np.array([2.0, -1.0])
    members = np.zeros((2, 2, 500))
    members[:, 0] = margins[:, np.newaxis]

    def mean_nll(log_beta):
        return -math.log((1 / (1 + np.exp(-math.exp(log_beta) * margins))).mean())

    result = fitted(members, np.zeros(500, dtype=int))
    assert result.status == "ok"
    assert result.temperature == pytest.approx(scipy_temperature(mean_nll), rel=1e-5)


def test_a_reference_with_one_class_only_is_fitted_with_a_warning():
    random = np.random.default_rng(15)
    logits, fit = random.normal(size=(3, 500)), TemperatureFit()
    fit.add("case", logits, np.ones(500, dtype=int))
    assert any("one class" in warning for warning in fit.fit().warnings)
    for labels in (np.zeros(500, dtype=int), np.ones(500, dtype=int)):
        fit.add("case", logits, labels)
    assert fit.fit().warnings == ()


def test_a_probability_of_zero_does_not_spoil_the_fit():
    random = np.random.default_rng(16)
    log_odds = random.normal(scale=2.0, size=(3, 5_000))
    labels = drawn_from(log_odds, random)
    with np.errstate(divide="ignore"):
        log_p = np.log(np.where(np.arange(5_000) < 100, np.eye(3)[:, [0]], softmax(log_odds)))
    result = fitted(log_p, labels)
    assert math.isfinite(result.temperature)
    assert math.isfinite(result.nll_before)


@pytest.mark.parametrize(("label", "named"), [(6, "label 6"), (-1, "label -1")])
def test_a_label_that_is_no_class_is_refused_by_name(label, named):
    with pytest.raises(CalibUncertaintyError, match=f"case P01: {named} "):
        TemperatureFit().add("P01", np.zeros((6, 3)), np.array([0, label, 1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    logits = np.zeros((3, 10))
    logits[1, 4] = bad
    with np.errstate(invalid="ignore"), pytest.raises(CalibUncertaintyError, match="P02"):
        TemperatureFit().add("P02", logits, np.zeros(10, dtype=int))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        TemperatureFit().add("a", np.zeros((3, 10)), np.zeros(9, dtype=int))
    with pytest.raises(ValueError, match="do not fit"):
        TemperatureFit().add("a", np.zeros((1, 10)), np.zeros(10, dtype=int))  # one class is no choice


def test_fitting_needs_memory_for_one_chunk_only():
    random = np.random.default_rng(17)
    logits = random.normal(size=(6, 1_000_000)).astype(np.float32)
    labels = logits.argmax(axis=0).astype(np.uint8)
    tracemalloc.start()
    fitted(logits, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * logits.nbytes


def test_softmax_agrees_with_scipy_along_any_axis_and_over_chunks():
    logits = np.random.default_rng(18).normal(scale=10.0, size=(4, 70, 1001))
    for axis in range(3):
        expected = scipy_softmax(logits / 2.5, axis=axis)
        np.testing.assert_allclose(softmax(logits, 2.5, axis=axis), expected, rtol=0, atol=1e-6)


def test_softmax_of_half_precision_is_computed_in_single():
    logits = np.random.default_rng(22).normal(scale=3.0, size=(5, 2000)).astype(np.float16)
    np.testing.assert_allclose(softmax(logits, 1.7), scipy_softmax(logits.astype(float) / 1.7, axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_softmax_stands_large_logits(dtype):
    p = softmax(np.array([[30000.0], [-30000.0]], dtype=dtype), temperature=0.05)
    assert p.dtype == np.float32
    assert p.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_no_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="above 0"):
        TemperatureScaling(temperature)
    with pytest.raises(ValueError, match="above 0"):
        softmax(np.zeros((2, 1)), temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 2.03, 20.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_temperature_changes_no_label(temperature, dtype):
    random = np.random.default_rng(19)
    logits = random.normal(scale=6.0, size=(5, 100_000)).astype(dtype)
    # Neighbouring representable numbers are the hardest case for the order.
    logits[1, :1000] = np.nextafter(logits[0, :1000], dtype(np.inf))
    after = TemperatureScaling(temperature).transform(logits)
    assert changed_by_temperature(logits, after) == 0


def test_averaging_members_after_temperature_can_change_a_label_and_is_counted():
    members = np.array([[[6.0], [0.0]], [[0.0], [1.5]], [[0.0], [1.5]]])
    at_one = np.mean([softmax(member) for member in members], axis=0)
    at_three = np.mean([softmax(member, 3.0) for member in members], axis=0)
    assert changed_by_temperature(at_one, at_three) == 1


def test_a_tie_after_the_temperature_is_no_change():
    before = np.array([[0.2, 0.2], [0.5, 0.5], [0.3, 0.3]])
    after = np.array([[0.2, 0.2], [0.4, 0.39], [0.4, 0.41]])
    assert changed_by_temperature(before, after) == 1
    assert changed_labels(before.argmax(axis=0), after.argmax(axis=0)) == 1


def test_label_maps_of_other_shapes_are_not_compared():
    with pytest.raises(ValueError, match="shapes"):
        changed_labels(np.zeros(3), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="shapes"):
        changed_by_temperature(np.zeros((2, 3)), np.zeros((2, 4)))


def test_temperature_scaling_is_a_calibrator_that_survives_json():
    scaling = TemperatureScaling(2.03)
    assert isinstance(scaling, Calibrator)
    assert scaling.preserves == "order"
    assert TemperatureScaling.from_json(scaling.to_json()) == scaling
    assert TemperatureScaling.from_json({"temperature": 2.03}) == scaling
    with pytest.raises(ValueError, match="platt"):
        TemperatureScaling.from_json({"method": "platt", "temperature": 1.0})


def test_probabilities_of_zero_have_a_finite_logarithm():
    logarithm = log_of_probabilities(np.array([[0.0, 0.5], [1.0, 0.5]], dtype=np.float32))
    assert np.isfinite(logarithm).all()
    assert softmax(logarithm) == pytest.approx(np.array([[0.0, 0.5], [1.0, 0.5]]), abs=1e-7)
