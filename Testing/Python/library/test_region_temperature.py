"""Temperatures of sigmoid heads: one a region, each the optimum of its own binary likelihood, none changing a decision."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.base import Calibrator
from CalibUncertaintyLib.calibration.decisions import changed_by_region_temperatures
from CalibUncertaintyLib.calibration.regions import RegionTemperatureFit, RegionTemperatureScaling
from CalibUncertaintyLib.calibration.softmax import (
    CHUNK_VOXELS,
    log_odds_of_probabilities,
    probabilities,
    saturated,
    sigmoid,
    softmax,
)
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.workflow.applied import AppliedCalibration, mean_probability, pooled_scores

NAMES = ("whole", "core", "enhancing")
HEADS = Heads(NAMES, (1, 2, 3), True)


def drawn(scales, voxels: int = 60_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (C, N) that are `scales` times the true log-odds, and the truth drawn from those."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(-1.0, 2.5, size=(len(scales), voxels))
    truth = random.random(log_odds.shape) < expit(log_odds)
    return (np.asarray(scales)[:, np.newaxis] * log_odds).astype(np.float32), truth


def fitted(logits: np.ndarray, truth: np.ndarray, **options):
    fit = RegionTemperatureFit(NAMES[: truth.shape[0]])
    fit.add("case", logits, truth)
    return fit.fit(**options)


def scipy_temperature(members: np.ndarray, truth: np.ndarray) -> float:
    """The T in [0.05, 20] with the least binary NLL of mean_m sigmoid(z_m / T), logits (M, N)."""
    members = members.astype(np.float64)

    def nll(log_beta: float) -> float:
        p = expit(math.exp(log_beta) * members).mean(axis=0)
        q = expit(-math.exp(log_beta) * members).mean(axis=0)
        return -np.log(np.where(truth, p, q)).mean()

    found = minimize_scalar(nll, bounds=(-math.log(20), math.log(20)), method="bounded", options={"xatol": 1e-10})
    return math.exp(-found.x)


def test_each_region_gets_the_temperature_that_made_its_logits():
    result = fitted(*drawn((0.5, 1.0, 3.0), voxels=300_000))
    assert result.status == "ok"
    assert result.temperature == pytest.approx((0.5, 1.0, 3.0), rel=0.01)
    assert result.warnings == ()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_fit_agrees_with_a_bounded_minimiser(dtype):
    logits, truth = drawn((0.4, 1.3, 2.2))
    logits = logits.astype(dtype)
    expected = [scipy_temperature(logits[np.newaxis, c], truth[c]) for c in range(3)]
    assert fitted(logits, truth).temperature == pytest.approx(expected, rel=1e-5)


def test_members_share_one_temperature_a_region():
    members = np.stack([drawn((0.5, 2.0, 3.0), seed=seed)[0] for seed in (1, 1, 2)])
    members += np.random.default_rng(3).normal(scale=0.7, size=members.shape).astype(np.float32)
    truth = drawn((0.5, 2.0, 3.0), seed=1)[1]
    expected = [scipy_temperature(members[:, c], truth[c]) for c in range(3)]
    assert fitted(members, truth).temperature == pytest.approx(expected, rel=1e-4)


def test_the_likelihood_is_the_mean_over_regions_and_falls():
    logits, truth = drawn((0.4, 1.0, 3.0))
    result = fitted(logits, truth)
    signed = np.where(truth, logits, -logits).astype(np.float64)
    at = np.reshape(result.temperature, (3, 1))
    assert result.nll_before == pytest.approx(np.logaddexp(0, -signed).mean(), rel=1e-6)
    assert result.nll_after == pytest.approx(np.logaddexp(0, -signed / at).mean(), rel=1e-6)
    assert result.nll_after < result.nll_before
    assert (result.voxels, result.cases) == (60_000, ("case",))


def test_the_interval_comes_from_drawing_cases_and_pieces_do_not_matter():
    whole, pieces = RegionTemperatureFit(NAMES), RegionTemperatureFit(NAMES)
    for number, scale in enumerate((0.8, 1.0, 1.2, 1.5)):
        logits, truth = drawn((scale, 2 * scale, 1.0), voxels=20_000, seed=number)
        whole.add(f"case {number}", logits, truth)
        pieces.add(f"case {number}", logits[:, :333], truth[:, :333])
        pieces.add(f"case {number}", logits[:, 333:], truth[:, 333:])
    first, second = whole.fit(200, seed=1), pieces.fit(200, seed=1)
    assert first.temperature == pytest.approx(second.temperature, rel=1e-7)  # other float32 numbers stand side by side
    for temperature, (low, high) in zip(first.temperature, first.interval, strict=True):
        assert low < temperature < high
    # cases that differ in their scale make the interval wider than cases that do not
    width = [high - low for low, high in first.interval]
    assert width[0] > 3 * width[2]
    assert np.isnan(whole.fit(0).interval).all()


def test_a_region_that_is_nowhere_and_one_that_is_always_right_are_named():
    logits, truth = drawn((1.0, 1.0, 1.0))
    truth[1] = False
    logits[2] = np.where(truth[2], 8.0, -8.0)
    result = fitted(logits, truth)
    assert (result.regions[0].status, result.regions[2].status) == ("ok", "separable")
    assert result.status != "ok"
    assert result.temperature[2] == 0.05
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("core is everywhere or nowhere")


def test_without_a_voxel_nothing_is_fitted():
    result = fitted(np.zeros((3, 0), np.float32), np.zeros((3, 0), bool))
    assert (result.status, result.voxels) == ("empty_roi", 0)
    assert np.isnan(result.temperature).all()


def test_what_makes_no_sense_is_refused():
    fit = RegionTemperatureFit(NAMES)
    with pytest.raises(ValueError, match="do not fit"):
        fit.add("case", np.zeros((2, 5)), np.zeros((2, 5), bool))
    with pytest.raises(ValueError, match="do not fit"):
        fit.add("case", np.zeros((3, 5)), np.zeros(5, bool))
    with pytest.raises(ValueError, match="True or False"):
        fit.add("case", np.zeros((3, 5)), np.zeros((3, 5)))
    with pytest.raises(CalibUncertaintyError, match=r"case 7: .*NaN"):
        fit.add("7", np.array([[0.0], [np.nan], [0.0]]), np.zeros((3, 1), bool))
    with pytest.raises(ValueError, match="at least one"):
        RegionTemperatureFit(())


@pytest.mark.parametrize("temperature", [1.0, 2.5, (0.05, 1.0, 20.0)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_sigmoid_is_scipys_at_each_regions_temperature(temperature, dtype):
    logits = np.random.default_rng(0).normal(scale=5.0, size=(3, 2, CHUNK_VOXELS // 2 + 9)).astype(dtype)
    expected = expit(logits.astype(np.float64) / np.reshape(temperature, (-1, 1, 1)))
    found = sigmoid(logits, temperature)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=2e-7)
    assert np.array_equal(found, probabilities(logits, temperature, True))
    assert np.array_equal(softmax(logits, 1.7), probabilities(logits, 1.7, False))


def test_the_sigmoid_is_the_softmax_of_two_classes_and_survives_large_logits():
    z = np.array([[-1e4, -100.0, -20.0, 0.0, 3.0, 1e4]], np.float32)
    assert sigmoid(z, 1.5)[0] == pytest.approx(softmax(np.concatenate([0 * z, z]), 1.5)[1], abs=1e-7)
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(z.astype(np.float16))[0, [0, -1]] == pytest.approx([0, 1])
    far = np.float32([[-85.0, -70.0, -40.0]])
    assert sigmoid(far)[0] == pytest.approx(expit(far[0].astype(float)), rel=1e-5, abs=0)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, (1.0, 2.0), (1.0, 0.0, 2.0), (1.0, 2.0, 3.0, 4.0)])
def test_temperatures_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="temperature"):
        sigmoid(np.zeros((3, 4)), wrong)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 2.03, 20.0])
def test_no_temperature_moves_a_half_precision_logit_across_one_half(temperature):
    """Of all float16 numbers, and the float32 next to 0."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = np.sort(every[np.isfinite(every)])
    tiny = np.array([1e-45, 1e-30, 1e-8, 6e-8, 1.2e-7, 2e-7], np.float32)
    for logits in (every, np.concatenate([-tiny[::-1], [np.float32(0)], tiny])):
        p = sigmoid(logits[np.newaxis], temperature)
        assert changed_by_region_temperatures(logits[np.newaxis], p) == 0
        assert (np.diff(p[0]) >= 0).all()


def test_a_change_of_decision_is_counted_once_a_voxel():
    before = np.array([[1.0, 1.0, -1.0, 0.0], [-1.0, 1.0, -1.0, 1e-9]])
    after = np.array([[0.6, 0.4, 0.6, 0.5], [0.4, 0.4, 0.4, 0.5]])
    assert changed_by_region_temperatures(before, after) == 2
    with pytest.raises(ValueError, match="shapes"):
        changed_by_region_temperatures(before, after[:1])


def test_log_odds_undo_the_sigmoid_and_what_was_clipped_is_counted():
    z = np.linspace(-60, 12, 500, dtype=np.float32)[np.newaxis]
    back = log_odds_of_probabilities(sigmoid(z))
    assert back == pytest.approx(z, abs=0.02)  # near 12 float32 keeps 1 - p to a hundredth
    assert back[z < 5] == pytest.approx(z[z < 5], abs=1e-4)
    p = np.array([0.0, 1.0, 0.5, 1e-30, 1.0, 0.25], np.float32)
    assert saturated(p) == 3
    assert saturated(np.array([1e-60, 1.0 - 1e-12, 0.5])) == 2  # in single precision
    odds = log_odds_of_probabilities(p)
    assert np.isfinite(odds).all()
    assert (odds[0], odds[1], odds[2]) == pytest.approx((math.log(2.0**-149), math.log(2.0**24), 0.0), rel=1e-6)
    assert odds[5] == pytest.approx(math.log(1 / 3))


def test_log_odds_are_positive_exactly_above_one_half():
    half = int(np.float32(0.5).view(np.int32))
    p = np.arange(half - 5000, half + 5001, dtype=np.int32).view(np.float32)
    assert np.array_equal(log_odds_of_probabilities(p) > 0, p > 0.5)


def test_region_temperatures_are_a_calibrator_that_survives_json():
    scaling = RegionTemperatureScaling((2.0, 0.5, 1.0))
    assert isinstance(scaling, Calibrator)
    assert scaling.preserves == "decisions"
    assert RegionTemperatureScaling.from_json(scaling.to_json()) == scaling
    logits = drawn((1, 1, 1), voxels=50)[0]
    assert np.array_equal(scaling.transform(logits), sigmoid(logits, (2.0, 0.5, 1.0)))
    with pytest.raises(ValueError, match="platt"):
        RegionTemperatureScaling.from_json({"method": "platt", "temperature": [1.0]})
    with pytest.raises(ValueError, match="above 0"):
        RegionTemperatureScaling((1.0, 0.0))


def test_a_pool_of_logits_keeps_stock_nnunets_labels_at_every_temperature():
    pooled = drawn((1, 2, 3), voxels=5000)[0].astype(np.float16)
    expected = np.zeros(5000, int)
    for value, z in enumerate(pooled, start=1):
        expected[z > 0] = value
    p, label, changed = AppliedCalibration("pool_logit", (3.0, 0.5, 1.0), heads=HEADS).probabilities(pooled)
    assert np.array_equal(label, expected)
    assert np.array_equal(label, HEADS.label_of(p))
    assert p == pytest.approx(expit(pooled.astype(float) / np.reshape((3.0, 0.5, 1.0), (3, 1))), abs=1e-6)
    assert changed == 0


def test_a_pool_of_probabilities_is_calibrated_by_its_log_odds():
    members = np.stack([drawn((1, 2, 3), voxels=4000, seed=seed)[0] for seed in range(3)])
    mean = mean_probability(members, HEADS)
    assert mean == pytest.approx(expit(members.astype(float)).mean(axis=0), abs=1e-6)
    p, label, changed = AppliedCalibration("pool_prob", (2.0, 1.0, 0.5), heads=HEADS).probabilities(
        members.mean(axis=0), mean
    )
    odds = np.log(mean.astype(float)) - np.log1p(-mean.astype(float))
    assert p == pytest.approx(expit(odds / np.reshape((2.0, 1.0, 0.5), (3, 1))), abs=1e-5)
    assert np.array_equal(label, HEADS.label_of(mean))
    assert changed == 0
    # members disagree, so pooling another way gives other labels: the test would see the wrong pool
    assert not np.array_equal(label, HEADS.label_of_logits(members.mean(axis=0)))


def test_a_single_member_is_its_own_pool_of_either_kind():
    logits = drawn((1, 2, 3), voxels=1000)[0]
    answers = [AppliedCalibration(mode, 1.6, heads=HEADS).probabilities(logits) for mode in ("pool_logit", "pool_prob")]
    for first, second in zip(*answers, strict=True):
        assert np.array_equal(first, second)
    plain = AppliedCalibration("pool_prob", 1.6).probabilities(logits)
    assert plain[0] == pytest.approx(softmax(logits, 1.6), abs=1e-6)
    assert np.array_equal(plain[1], logits.argmax(axis=0))
    assert plain[2] == 0


def test_softmax_heads_pool_as_they_did():
    members = np.random.default_rng(5).normal(scale=3, size=(3, 4, 900)).astype(np.float16)
    mean = mean_probability(members)
    assert mean == pytest.approx(np.mean([softmax(m) for m in members], axis=0), abs=1e-7)
    scores, before = pooled_scores("pool_prob", None, members.mean(axis=0), mean)
    assert scores == pytest.approx(np.log(mean), abs=1e-6)
    assert before is mean


def test_a_summary_names_the_temperature_of_every_region():
    applied = AppliedCalibration(
        "pool_logit", (2.0, 0.514), (1.0, 1.0), True, interval=((1.0, 3.0), (0.5, 0.6)), heads=HEADS
    )
    assert "temperatures 2.00, 0.51 (" in applied.summary([0])
    document = applied.to_json([0])
    assert document["temperature"] == [2.0, 0.514]
    assert document["temperature_interval"] == [[1.0, 3.0], [0.5, 0.6]]
