"""Isotonic calibration: scikit-learn's map on a histogram, to labels or to the share of raters."""

import itertools

import numpy as np
import pytest
from calibrator_data import drawn_classes, drawn_regions, fitted
from scipy.special import expit

from CalibUncertaintyLib.calibration.base import Calibrator, CalibratorFit
from CalibUncertaintyLib.calibration.isotonic import IsotonicCalibration, IsotonicFit, corners, pooled
from CalibUncertaintyLib.calibration.softmax import softmax


def test_pooling_is_scikit_learns_with_any_weights():
    isotonic = pytest.importorskip("sklearn.isotonic")
    random = np.random.default_rng(0)
    for size in (1, 2, 50, 3000):
        response, weight = random.random(size) + np.linspace(0, 0.5, size), random.integers(1, 50, size).astype(float)
        expected = isotonic.isotonic_regression(response, sample_weight=weight)
        assert pooled(response, weight) == pytest.approx(expected, rel=1e-10)


def test_pooling_is_the_least_squares_among_maps_that_never_fall():
    """By brute force over all ways to cut five points into blocks."""
    random = np.random.default_rng(1)
    for _ in range(30):
        response, weight = random.random(5), random.integers(1, 9, 5).astype(float)
        best = np.inf
        for cuts in range(16):
            edges = [0, *[k + 1 for k in range(4) if cuts >> k & 1], 5]
            blocks = [slice(a, b) for a, b in itertools.pairwise(edges)]
            means = [np.average(response[block], weights=weight[block]) for block in blocks]
            if (np.diff(means) >= 0).all():
                sizes = [block.stop - block.start for block in blocks]
                best = min(best, float(weight @ (response - np.repeat(means, sizes)) ** 2))
        assert float(weight @ (response - pooled(response, weight)) ** 2) == pytest.approx(best, rel=1e-12)


def test_regions_get_scikit_learns_map():
    isotonic = pytest.importorskip("sklearn.isotonic")
    log_odds, truth = drawn_regions(30_000)
    logits = (2 * log_odds).astype(np.float32)
    result = fitted(IsotonicFit(3, True), logits, truth)
    p = expit(logits.astype(np.float64))
    for number in range(3):
        oracle = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p[number], truth[number])
        found = result.fitted.transform(logits)[number]
        # voxels of one bin of 1 / 65536 are one point of ours: the map may differ there by what such a bin holds
        assert np.abs(found - oracle.predict(p[number])).mean() < 1e-3
    assert result.nll_after < result.nll_before


def test_where_no_bin_holds_two_voxels_the_map_is_the_same():
    isotonic = pytest.importorskip("sklearn.isotonic")
    random = np.random.default_rng(2)
    p = ((np.arange(2000) * 32 + random.integers(32, size=2000)) / 65536 + 4e-6).astype(np.float32)
    truth = random.random(2000) < p**2
    logits = np.log(p / (1 - p)).astype(np.float64)[np.newaxis]
    found = fitted(IsotonicFit(1, True), logits, truth[np.newaxis]).fitted
    p = expit(logits.astype(np.float32).astype(np.float64))[0]
    oracle = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p, truth)
    between = np.linspace(0.0, 1.0, 5001)[1:-1]
    at = np.log(between / (1 - between))[np.newaxis]
    assert found.transform(at)[0] == pytest.approx(oracle.predict(between), abs=1e-4)


def test_the_share_of_raters_is_the_response_and_one_rater_is_ordinary():
    isotonic = pytest.importorskip("sklearn.isotonic")
    random = np.random.default_rng(3)
    log_odds, truth = drawn_regions(20_000, 1)
    raters = np.stack([truth ^ (random.random(truth.shape) < 0.15) for _ in range(3)])
    logits = (2 * log_odds).astype(np.float32)
    result = fitted(IsotonicFit(1, True), logits, raters)
    p = expit(logits[0].astype(np.float64))
    oracle = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p, raters[:, 0].mean(axis=0))
    assert np.abs(result.fitted.transform(logits)[0] - oracle.predict(p)).mean() < 1e-3
    assert result.fitted.transform(logits).max() < 0.95  # raters never agree that much
    one, plain = (fitted(IsotonicFit(1, True), logits, t) for t in (truth[np.newaxis], truth))
    assert one.fitted == plain.fitted


def test_raters_of_classes_count_by_their_share():
    log_odds, labels = drawn_classes(20_000)
    second = np.where(np.random.default_rng(5).random(labels.size) < 0.2, 1, labels)
    raters = fitted(IsotonicFit(4), log_odds, np.stack([labels, second]))
    twice = fitted(IsotonicFit(4), np.tile(log_odds, 2), np.concatenate([labels, second]))
    assert raters.fitted.transform(log_odds) == pytest.approx(twice.fitted.transform(log_odds), abs=1e-6)
    assert raters.nll_after == pytest.approx(twice.nll_after, rel=1e-6)


def test_classes_are_mapped_one_by_one_and_renormalised():
    log_odds, labels = drawn_classes()
    logits = (2 * log_odds).astype(np.float16)
    calibrator = fitted(IsotonicFit(4), logits, labels).calibrator()
    p, after = softmax(logits), calibrator.transform(logits)
    assert after.dtype == np.float32
    assert after.sum(axis=0) == pytest.approx(np.ones(labels.size), abs=1e-6)
    assert after.min() >= 0
    mapped = np.stack([np.interp(q, *knots) for q, knots in zip(p, calibrator.knots, strict=True)])
    assert after == pytest.approx(mapped / mapped.sum(axis=0), abs=1e-6)
    shifted = calibrator.transform(logits.astype(np.float32) + 5.0)
    assert shifted == pytest.approx(after, abs=2e-3)


def test_a_maps_corners_are_all_of_the_map():
    random = np.random.default_rng(6)
    x = np.sort(random.random(500))
    y = pooled(random.random(500) + x, np.ones(500))
    ends = corners(x, y)
    assert len(ends[0]) < 200
    at = np.linspace(-0.1, 1.1, 3000)
    assert np.interp(at, *ends) == pytest.approx(np.interp(at, x, y), abs=1e-12)


def test_outside_the_knots_the_map_is_flat_and_where_all_is_zero_nothing_changes():
    calibrator = IsotonicCalibration((((0.4, 0.6), (0.0, 1.0)), ((0.5, 0.6), (0.0, 0.3))))
    logits = np.array([[-5.0, 5.0, np.log(0.4)], [5.0, -5.0, np.log(0.6)]])
    assert calibrator.transform(logits) == pytest.approx(np.array([[0, 1, 0], [1, 0, 1]]), abs=1e-6)
    nothing = IsotonicCalibration((((0.99,), (0.0,)), ((0.99,), (0.0,))))
    assert nothing.transform(logits) == pytest.approx(softmax(logits), abs=1e-7)


def test_degenerate_truth_has_a_status_and_changes_nothing():
    empty = IsotonicFit(3).fit()
    assert empty.status == "empty_roi"
    logits = np.random.default_rng(7).normal(size=(3, 500))
    single = fitted(IsotonicFit(3), logits, np.ones(500, int))
    assert single.status == "single_class"
    for result in (empty, single):
        assert result.fitted.transform(logits) == pytest.approx(softmax(logits), abs=1e-6)
    nothing = fitted(IsotonicFit(2), np.zeros((2, 500)), np.arange(500) % 2)
    assert nothing.status == "uninformative"
    right = fitted(IsotonicFit(3), logits * 9, logits.argmax(axis=0))
    assert right.status in ("ok", "separable")
    sure = 30.0 * (np.arange(3)[:, np.newaxis] == logits.argmax(axis=0))
    assert fitted(IsotonicFit(3), sure, logits.argmax(axis=0)).status == "separable"


def test_isotonic_calibration_keeps_to_the_interfaces_and_survives_json():
    fit = IsotonicFit(4)
    assert isinstance(fit, CalibratorFit)
    calibrator = fitted(fit, *drawn_classes(2000)).calibrator()
    assert isinstance(calibrator, Calibrator)
    document = calibrator.to_json()
    assert IsotonicCalibration.from_json(document) == calibrator
    for wrong in (
        {"before": [[0.5, 0.4]] * 4},
        {"after": [[0.5]] * 4},
        {"after": None},
        {"heads": ""},
        {"method": "platt"},
    ):
        with pytest.raises(ValueError):
            IsotonicCalibration.from_json({**document, **wrong})
