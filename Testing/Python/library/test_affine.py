"""Vector, matrix and Dirichlet scaling in the form that no constant added to the logits can change."""

import math

import numpy as np
import pytest
from calibrator_data import drawn_classes, fitted
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.affine import AffineFit, AffineScaling, centred
from CalibUncertaintyLib.calibration.base import Calibrator, CalibratorFit
from CalibUncertaintyLib.calibration.softmax import log_of_probabilities
from CalibUncertaintyLib.calibration.softmax import softmax as our_softmax

AFFINE = ("vector", "matrix", "dirichlet")


def example(voxels: int = 20_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    log_odds, labels = drawn_classes(voxels, classes, seed)
    factors = np.linspace(1.2, 2.4, classes)[:, np.newaxis]
    return (factors * log_odds + np.linspace(-0.5, 0.5, classes)[:, np.newaxis]).astype(np.float32), labels


def nll(weight: np.ndarray, bias: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> float:
    x = centred(logits)
    score = (weight[:, np.newaxis] * x if weight.ndim == 1 else weight @ x) + bias[:, np.newaxis]
    return float(-log_softmax(score, axis=0)[labels, np.arange(labels.size)].mean())


@pytest.mark.parametrize("method", AFFINE)
def test_the_weights_that_made_the_labels_are_recovered(method):
    random = np.random.default_rng(0)
    logits = random.normal(scale=3.0, size=(3, 200_000))
    weight = np.array([0.4, 0.7, 0.5])
    if method != "vector":
        weight = np.array([[0.5, 0.1, 0.0], [0.0, 0.6, -0.1], [0.1, -0.1, 0.4]])
    bias = np.array([0.3, -0.4, 0.1])
    x = centred(logits)
    score = (weight[:, np.newaxis] * x if weight.ndim == 1 else weight @ x) + bias[:, np.newaxis]
    labels = (score + random.gumbel(size=score.shape)).argmax(axis=0)
    result = fitted(AffineFit(3, method=method), logits, labels)
    assert result.status == "ok"
    assert result.voxels == result.kept == 200_000
    # probabilities, as a matrix is known only up to what the softmax does not see
    assert result.fitted.transform(logits[:, :5000]) == pytest.approx(softmax(score[:, :5000], axis=0), abs=0.02)
    if method == "vector":
        assert result.fitted.weight == pytest.approx(weight, rel=0.03)
        assert result.fitted.bias == pytest.approx(bias, abs=0.02)


@pytest.mark.parametrize("method", ["vector", "matrix"])
def test_the_fit_is_the_optimum_another_minimiser_finds(method):
    logits, labels = example(6000)
    result = fitted(AffineFit(4, method=method), logits, labels)
    shape = (4,) if method == "vector" else (4, 4)
    size = math.prod(shape)

    def mean_nll(place: np.ndarray) -> float:
        return nll(place[:size].reshape(shape), place[size:], logits, labels)

    weight, bias = np.array(result.fitted.weight), np.array(result.fitted.bias)
    start = np.concatenate([np.ones(4) if method == "vector" else np.eye(4).reshape(-1), np.zeros(4)])
    oracle = minimize(mean_nll, start, method="BFGS", options={"gtol": 1e-7})
    assert mean_nll(np.concatenate([weight.reshape(-1), bias])) == pytest.approx(oracle.fun, rel=1e-8)
    if method == "vector":
        assert weight == pytest.approx(oracle.x[:size], rel=1e-4)
        assert bias == pytest.approx(oracle.x[size:] - oracle.x[size:].mean(), abs=1e-4)


def test_matrix_scaling_is_scikit_learns_multinomial_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits, labels = example(8000)
    result = fitted(AffineFit(4, method="matrix"), logits, labels)
    x = centred(logits)
    # a hint of a penalty: x has no length along (1, 1, 1, 1), where the weights are free
    oracle = linear_model.LogisticRegression(C=1e6, tol=1e-9, max_iter=5000).fit(x.T, labels)
    assert result.fitted.transform(logits) == pytest.approx(oracle.predict_proba(x.T).T, abs=2e-5)


def test_dirichlet_is_the_optimum_with_its_penalties():
    logits, labels = example(4000)
    result = fitted(AffineFit(4, method="dirichlet", off_diagonal=0.01, bias=0.02), logits, labels)

    def objective(place: np.ndarray) -> float:
        weight, bias = place[:16].reshape(4, 4), place[16:]
        off = weight[~np.eye(4, dtype=bool)]
        return nll(weight, bias, logits, labels) + 0.01 * (off**2).mean() + 0.02 * (bias**2).mean()

    oracle = minimize(
        objective, np.concatenate([np.eye(4).reshape(-1), np.zeros(4)]), method="BFGS", options={"gtol": 1e-7}
    )
    found = np.concatenate([np.array(result.fitted.weight).reshape(-1), result.fitted.bias])
    assert objective(found) == pytest.approx(oracle.fun, rel=1e-8)
    assert found == pytest.approx(oracle.x, abs=2e-4)


def test_a_strong_penalty_leaves_one_factor_a_class():
    logits, labels = example(4000)
    weight = np.array(
        fitted(AffineFit(4, method="dirichlet", off_diagonal=1e4, bias=1e4), logits, labels).fitted.weight
    )
    assert np.abs(weight[~np.eye(4, dtype=bool)]).max() < 1e-3
    assert np.diag(weight).min() > 0.1


@pytest.mark.parametrize("method", AFFINE)
def test_logits_log_probabilities_and_shifted_logits_give_the_same_model(method):
    logits, labels = example()
    plain = fitted(AffineFit(4, method=method), logits, labels).fitted
    shift = np.random.default_rng(1).normal(scale=20.0, size=labels.size)
    for same in (logits.astype(np.float64) + shift, log_of_probabilities(our_softmax(logits))):
        other = fitted(AffineFit(4, method=method), same, labels).fitted
        assert np.array(other.weight) == pytest.approx(np.array(plain.weight), abs=1e-3)
        assert other.bias == pytest.approx(plain.bias, abs=1e-3)
        assert plain.transform(same) == pytest.approx(plain.transform(logits), abs=2e-5)


@pytest.mark.parametrize("method", AFFINE)
def test_classes_in_another_order_give_the_same_model_in_that_order(method):
    logits, labels = example()
    order = np.array([2, 0, 3, 1])
    plain = fitted(AffineFit(4, method=method), logits, labels).fitted
    turned = fitted(AffineFit(4, method=method), logits[order], np.argsort(order)[labels]).fitted
    assert turned.transform(logits[order]) == pytest.approx(plain.transform(logits)[order], abs=1e-4)


@pytest.mark.parametrize("method", AFFINE)
def test_the_likelihood_falls_and_is_that_of_the_probabilities(method):
    logits, labels = example()
    result = fitted(AffineFit(4, method=method), logits.astype(np.float16), labels)
    p = result.calibrator().transform(logits.astype(np.float16))
    assert p.dtype == np.float32
    assert p.sum(axis=0) == pytest.approx(np.ones(labels.size), abs=1e-6)
    assert result.nll_after == pytest.approx(-np.log(p[labels, np.arange(labels.size)].astype(float)).mean(), rel=1e-5)
    assert result.nll_after < result.nll_before


@pytest.mark.parametrize("method", AFFINE)
def test_degenerate_truth_has_a_status_and_finite_parameters(method):
    random = np.random.default_rng(2)
    logits = random.normal(scale=4.0, size=(3, 3000))
    identity = AffineScaling(
        method, (1.0,) * 3 if method == "vector" else tuple(map(tuple, np.eye(3).tolist())), (0.0,) * 3
    )
    empty = AffineFit(3, method=method).fit()
    assert (empty.status, empty.fitted) == ("empty_roi", identity)
    single = fitted(AffineFit(3, method=method), logits, np.zeros(3000, int))
    assert (single.status, single.fitted) == ("single_class", identity)
    nothing = fitted(AffineFit(3, method=method), np.zeros((3, 3000)), random.integers(3, size=3000))
    assert nothing.status == "uninformative"
    apart = logits + 30 * (np.arange(3)[:, np.newaxis] == logits.argmax(axis=0))
    right = fitted(AffineFit(3, method=method), apart, logits.argmax(axis=0))
    assert right.status == "separable"
    for result in (nothing, right):
        assert np.isfinite(np.array(result.fitted.weight)).all()
        assert np.isfinite(result.fitted.bias).all()


def test_a_class_without_a_voxel_is_named_and_left_as_it_is():
    log_odds, labels = drawn_classes(classes=3)
    logits = np.concatenate([2 * log_odds, np.random.default_rng(3).normal(size=(1, labels.size))])
    result = fitted(AffineFit(4), logits, labels)
    assert (result.fitted.weight[3], result.fitted.bias[3]) == (1.0, 0.0)
    assert [warning[:18] for warning in result.warnings] == ["class 3 is nowhere"]
    assert np.isfinite(result.nll_after)


def test_bad_input_is_refused():
    with pytest.raises(CalibUncertaintyError, match="case P1: label 4"):
        AffineFit(4).add("P1", np.zeros((4, 2)), np.array([0, 4]))
    with pytest.raises(CalibUncertaintyError, match=r"case P1: .*NaN"):
        AffineFit(2).add("P1", np.array([[0.0], [np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="do not fit"):
        AffineFit(4).add("P1", np.zeros((4, 2)), np.zeros(3, int))
    with pytest.raises(ValueError, match="softmax heads"):
        AffineFit(4, sigmoid=True)


def test_a_probability_of_zero_is_read_as_the_smallest_one():
    logits, labels = example(2000)
    logits[1, :50] = -np.inf
    result = fitted(AffineFit(4), logits, labels)
    assert np.isfinite(result.nll_after)
    assert np.isfinite(result.fitted.transform(logits)).all()


@pytest.mark.parametrize("method", AFFINE)
def test_affine_scaling_keeps_to_the_interfaces_and_survives_json(method):
    fit = AffineFit(4, method=method)
    assert isinstance(fit, CalibratorFit)
    calibrator = fitted(fit, *example(1000)).calibrator()
    assert isinstance(calibrator, Calibrator)
    assert calibrator.preserves == "none"
    document = calibrator.to_json()
    assert AffineScaling.from_json(document) == calibrator
    for wrong in ({"weight": [1.0]}, {"bias": [math.nan] * 4}, {"bias": None}, {"method": "platt"}):
        with pytest.raises(ValueError):
            AffineScaling.from_json({**document, **wrong})
