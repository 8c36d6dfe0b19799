"""Platt scaling: the optimum of a logistic regression, of regions and of classes against the rest."""

import json

import numpy as np
import pytest
from calibrator_data import drawn_classes, drawn_regions, fitted
from scipy.special import expit, log_softmax

from CalibUncertaintyLib.calibration.base import Calibrator, CalibratorFit, FittedCalibration
from CalibUncertaintyLib.calibration.decisions import changed_by_region_temperatures
from CalibUncertaintyLib.calibration.methods import METHODS, calibrator_from_json
from CalibUncertaintyLib.calibration.platt import (
    HIGHEST_SLOPE,
    LOWEST_SLOPE,
    PlattFit,
    PlattScaling,
    log_odds_of_classes,
)
from CalibUncertaintyLib.errors import CalibUncertaintyError


def test_the_slope_and_intercept_that_made_the_logits_are_recovered():
    log_odds, truth = drawn_regions(200_000)
    logits = (log_odds - np.array([[0.5], [-1.0], [0.0]])) / np.array([[2.0], [0.5], [1.0]])
    result = fitted(PlattFit(3, True), logits.astype(np.float32), truth)
    assert result.status == "ok"
    assert result.fitted.slopes == pytest.approx((2.0, 0.5, 1.0), rel=0.02)
    assert result.fitted.intercepts == pytest.approx((0.5, -1.0, 0.0), abs=0.03)
    assert result.nll_after < result.nll_before


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_fit_is_scikit_learns_logistic_regression(dtype, intercept):
    linear_model = pytest.importorskip("sklearn.linear_model")
    log_odds, truth = drawn_regions()
    logits = (1.7 * log_odds - 0.6).astype(dtype)
    found = fitted(PlattFit(3, True, intercept=intercept), logits, truth).fitted
    for number in range(3):
        oracle = linear_model.LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10, max_iter=1000)
        oracle.fit(logits[number].astype(np.float64)[:, np.newaxis], truth[number])
        assert found.slopes[number] == pytest.approx(oracle.coef_[0, 0], rel=1e-5)
        assert found.intercepts[number] == pytest.approx(float(np.ravel(oracle.intercept_)[0]), abs=1e-5)


def test_classes_are_fitted_one_against_the_rest_and_renormalised():
    linear_model = pytest.importorskip("sklearn.linear_model")
    log_odds, labels = drawn_classes()
    logits = (2.0 * log_odds).astype(np.float32)
    found = fitted(PlattFit(4), logits, labels).fitted
    log_p = log_softmax(logits.astype(np.float64), axis=0)
    scores = log_p - np.log(-np.expm1(log_p))
    expected = []
    for number in range(4):
        oracle = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        oracle.fit(scores[number][:, np.newaxis], labels == number)
        assert (found.slopes[number], found.intercepts[number]) == pytest.approx(
            (oracle.coef_[0, 0], oracle.intercept_[0]), rel=1e-4, abs=1e-5
        )
        expected.append(expit(found.slopes[number] * scores[number] + found.intercepts[number]))
    p = found.transform(logits)
    assert p == pytest.approx(np.array(expected) / np.sum(expected, axis=0), abs=2e-6)
    assert p.sum(axis=0) == pytest.approx(np.ones(labels.size), abs=1e-6)


def test_a_constant_and_the_order_of_the_classes_do_not_matter():
    log_odds, labels = drawn_classes(20_000)
    shift = np.random.default_rng(1).normal(scale=30.0, size=labels.size)
    plain = fitted(PlattFit(4), 2 * log_odds, labels).fitted
    moved = fitted(PlattFit(4), 2 * log_odds + shift, labels).fitted
    assert moved.slopes == pytest.approx(plain.slopes, rel=1e-4)
    order = np.array([2, 0, 3, 1])
    turned = fitted(PlattFit(4), 2 * log_odds[order], np.argsort(order)[labels]).fitted
    assert turned.slopes == pytest.approx(np.array(plain.slopes)[order], rel=1e-6)
    assert turned.intercepts == pytest.approx(np.array(plain.intercepts)[order], abs=1e-6)


def test_log_odds_of_classes_are_exact_where_one_minus_p_is_lost():
    logits = np.array([[30.0, 0.0, -60.0, 200.0], [0.0, 0.0, 0.0, 0.0], [-5.0, 0.0, 9.0, -3.0]], np.float32)
    found = log_odds_of_classes(logits)
    assert found[0, 0] == pytest.approx(30.0 - np.log1p(np.exp(-5.0)), rel=1e-6)
    assert found[:, 1] == pytest.approx(np.full(3, -np.log(2.0)), rel=1e-6)
    assert found[2, 2] == pytest.approx(9.0, rel=1e-5)
    assert np.isfinite(found).all()


def test_without_intercepts_no_regions_decision_changes():
    log_odds, truth = drawn_regions()
    logits = (3 * log_odds).astype(np.float16)
    result = fitted(PlattFit(3, True, intercept=False), logits, truth)
    assert result.calibrator().preserves == "decisions"
    assert result.fitted.intercepts == (0.0, 0.0, 0.0)
    assert changed_by_region_temperatures(logits, result.fitted.transform(logits)) == 0
    with_intercepts = fitted(PlattFit(3, True), (3 * log_odds + 2).astype(np.float16), truth)
    assert with_intercepts.calibrator().preserves == "none"
    assert PlattScaling((1.0, 2.0), (0.0, 0.0), heads_sigmoid=False).preserves == "none"


def test_a_slope_never_falls_below_its_limit_or_rises_above():
    log_odds, truth = drawn_regions(20_000, 1)
    against = fitted(PlattFit(1, True), -log_odds, truth)
    assert (against.status, against.fitted.slopes) == ("uninformative", (LOWEST_SLOPE,))
    assert against.nll_after < against.nll_before
    apart = np.where(truth, 3.0, -3.0) + np.random.default_rng(0).normal(scale=0.5, size=truth.shape)
    right = fitted(PlattFit(1, True), apart, truth)
    assert (right.status, right.fitted.slopes) == ("separable", (HIGHEST_SLOPE,))


def test_what_there_is_nothing_to_fit_to_stays_as_it_is():
    empty = PlattFit(3, True).fit()
    assert (empty.status, empty.voxels, empty.fitted.slopes) == ("empty_roi", 0, (1.0, 1.0, 1.0))
    assert np.isnan(empty.nll_before)
    log_odds, truth = drawn_regions()
    alone = fitted(PlattFit(1, True), log_odds[:1], np.zeros_like(truth[:1]))
    assert (alone.status, alone.fitted) == ("single_class", PlattScaling((1.0,), (0.0,)))
    truth[1] = False
    partly = fitted(PlattFit(3, True), 2 * log_odds, truth)
    assert (partly.fitted.slopes[1], partly.fitted.intercepts[1]) == (1.0, 0.0)
    assert partly.fitted.slopes[0] == pytest.approx(0.5, rel=0.1)
    assert [warning[:19] for warning in partly.warnings] == ["region 1 is nowhere"]


def test_raters_count_by_their_share():
    """Two raters are two voxels of half the weight."""
    log_odds, truth = drawn_regions(20_000, 1)
    second = drawn_regions(20_000, 1, seed=0)[1] ^ (np.random.default_rng(4).random(truth.shape) < 0.1)
    raters = fitted(PlattFit(1, True), 2 * log_odds, np.stack([truth, second]))
    twice = fitted(PlattFit(1, True), np.tile(2 * log_odds, 2), np.concatenate([truth, second], axis=1))
    assert raters.fitted.slopes == pytest.approx(twice.fitted.slopes, rel=1e-7)
    assert raters.fitted.intercepts == pytest.approx(twice.fitted.intercepts, rel=1e-6)
    assert raters.nll_after == pytest.approx(twice.nll_after, rel=1e-6)


def test_platt_scaling_keeps_to_the_interfaces_and_survives_json():
    fit = PlattFit(3, True)
    assert isinstance(fit, CalibratorFit)
    result = fitted(fit, *drawn_regions(2000))
    assert isinstance(result, FittedCalibration)
    assert isinstance(result.calibrator(), Calibrator)
    assert PlattScaling.from_json(result.fitted.to_json()) == result.fitted
    for wrong in (
        {"slopes": [0.0]},
        {"slopes": ["a"]},
        {"intercepts": [1.0, 2.0]},
        {"heads": "other"},
        {"method": "vector"},
    ):
        with pytest.raises(ValueError):
            PlattScaling.from_json(
                {"method": "platt", "heads": "sigmoid", "slopes": [1.0], "intercepts": [0.0], **wrong}
            )
    with pytest.raises(ValueError, match="3 channels"):
        result.fitted.transform(np.zeros((2, 5)))


@pytest.mark.parametrize(("name", "intercept"), [("platt", True), ("platt_slope", False)])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_what_is_stored_has_the_name_of_the_method_that_was_asked_for(name, intercept, sigmoid):
    log_odds, truth = drawn_regions()
    calibrator = fitted(METHODS[name].new_fit(3, sigmoid), log_odds, truth if sigmoid else truth.argmax(axis=0)).fitted
    document = json.loads(json.dumps(calibrator.to_json()))
    assert document["method"] == name == calibrator.method
    assert calibrator_from_json(document) == calibrator
    assert any(calibrator.intercepts) == intercept


def test_slopes_alone_have_no_intercepts():
    document = {**PlattScaling((1.0, 2.0), (0.0, 0.5)).to_json(), "method": "platt_slope"}
    with pytest.raises(CalibUncertaintyError, match="no intercepts"):
        calibrator_from_json(document)
