"""The tables that a temperature is fitted with: exact at the nodes, and between them, for few and many classes."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.doubling import BETAS, refined, relative_to_highest, sums_of_many, sums_of_one
from CalibUncertaintyLib.calibration.temperature import TemperatureFit


def exact(logits: np.ndarray, labels: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """NLL, and its first three derivatives in beta, summed over voxels in float64: (4, betas)."""
    wide, result = logits.astype(np.float64), []
    of_label = wide[labels, np.arange(labels.size)]
    for beta in betas:
        p = np.exp(beta * wide - logsumexp(beta * wide, axis=0))
        mean = (p * wide).sum(axis=0)
        moments = [(p * (wide - mean) ** power).sum() for power in (2, 3)]
        nll = (logsumexp(beta * wide, axis=0) - beta * of_label).sum()
        result.append([nll, (mean - of_label).sum(), *moments])
    return np.array(result).T


def example(classes: int, voxels: int = 3000, scale: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    logits = random.normal(scale=scale, size=(classes, voxels)).astype(np.float16)
    return logits, (logits + 2 * random.gumbel(size=logits.shape)).argmax(axis=0)


@pytest.mark.parametrize("classes", [2, 3, 6, 25])
def test_the_nodes_hold_the_sums_of_three_derivatives(classes):
    logits, labels = example(classes)
    sums, at_one, wrong, spread = sums_of_one(logits, labels, "case")
    expected = exact(logits, labels, BETAS)
    assert at_one == pytest.approx(exact(logits, labels, np.ones(1))[0, 0], rel=1e-6)
    scale = np.abs(expected * BETAS ** np.arange(4)[:, np.newaxis]).max(axis=1)
    for order in range(3):
        error = (sums[order] - expected[order + 1]) * BETAS ** (order + 1)
        assert np.abs(error).max() < 3e-6 * scale[order + 1]
    assert wrong
    assert spread


@pytest.mark.parametrize("classes", [2, 6, 25])
def test_between_the_nodes_stands_the_function_itself(classes):
    logits, labels = example(classes)
    sums, at_one, *_ = sums_of_one(logits, labels, "case")
    log_beta, fine = refined(sums[np.newaxis], np.array([at_one]), math.log(8.0))
    expected = exact(logits, labels, np.exp(log_beta))
    assert fine[0, 0] == pytest.approx(expected[0], rel=2e-6)
    g, exact_g = fine[0, 1] * np.exp(log_beta), expected[1] * np.exp(log_beta)
    assert np.abs(g - exact_g).max() < 2e-6 * np.abs(exact_g).max()


def test_the_hardest_case_one_margin_to_many_equal_classes_is_still_right():
    """All voxels alike, 24 classes level behind the first: the derivative is as sharp as it can be in ln beta.

    Margins from 0.5 to 70 put the optimum between T = 0.06 and T = 19.5.
    """
    for margin in (0.5, 2.0, 9.0, 30.0, 70.0):
        logits = np.zeros((25, 4000), np.float32)
        logits[0] = margin
        check_the_optimum(logits, margin)


def check_the_optimum(logits: np.ndarray, margin: float) -> None:
    for right in (0.6, 0.9, 0.995):
        labels = (np.arange(4000) >= right * 4000).astype(int)
        fit = TemperatureFit()
        fit.add("case", logits, labels)
        # of p_0 = 1 / (1 + 24 exp(-margin / T)) and the label's share: the binary optimum in closed form
        expected = margin / (math.log(24) + math.log(right / (1 - right)))
        assert fit.fit().temperature == pytest.approx(expected, rel=1e-5)


def test_members_have_the_sums_of_their_mean_likelihood():
    random = np.random.default_rng(1)
    members = random.normal(scale=3.0, size=(3, 4, 2000)).astype(np.float32)
    labels = random.integers(4, size=2000)
    sums, at_one, *_ = sums_of_many(members, labels, "case")

    def nll(beta: float) -> float:
        wide = beta * members.astype(np.float64)
        log_q = wide[:, labels, np.arange(2000)] - logsumexp(wide, axis=1)
        return float(-(logsumexp(log_q, axis=0) - math.log(3)).sum())

    assert at_one == pytest.approx(nll(1.0), rel=1e-6)
    for node, beta in enumerate(BETAS):
        h = 1e-4 * beta
        first = (nll(beta + h) - nll(beta - h)) / (2 * h)
        assert sums[0, node] == pytest.approx(first, rel=1e-5, abs=1e-2)
    middle = np.flatnonzero(np.abs(np.log(BETAS)) < 2)
    for node in middle:
        h = 1e-3 * BETAS[node]
        values = [nll(BETAS[node] + k * h) for k in (-2, -1, 0, 1, 2)]
        second = (values[3] - 2 * values[2] + values[1]) / h**2
        third = (values[4] - 2 * values[3] + 2 * values[1] - values[0]) / (2 * h**3)
        assert sums[1, node] == pytest.approx(second, rel=1e-4)
        assert sums[2, node] == pytest.approx(third, rel=1e-2, abs=1e-3 * abs(second) / BETAS[node])


def test_half_precision_is_read_bit_by_bit_as_numpy_does():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    pairs = np.stack([np.zeros_like(finite), finite, np.zeros_like(finite)])
    labels = np.zeros(finite.size, int)
    found, of_label = relative_to_highest(pairs, labels, "case")
    expected = relative_to_highest(pairs.astype(np.float32), labels, "case")
    assert np.array_equal(found, expected[0])
    assert np.array_equal(of_label, expected[1])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [0.0, np.inf], [-np.inf, -np.inf]])
def test_what_is_no_logit_is_refused_and_minus_infinity_is_not(classes, dtype, bad):
    logits = np.full((classes, 5), -np.inf if bad == [-np.inf, -np.inf] else 0.0, dtype)
    logits[:, [0, 1, 3, 4]] = 0.0
    logits[:2, 2] = bad
    with np.errstate(invalid="ignore"), pytest.raises(CalibUncertaintyError, match="case 7"):
        relative_to_highest(logits, np.zeros(5, int), "7")
    logits[:, 2] = 0.0
    logits[1, 2] = -np.inf
    assert np.isfinite(relative_to_highest(logits, np.ones(5, int), "7")[1]).all()


def test_logits_of_any_size_do_no_harm():
    """Half precision's largest numbers: differences whose squares and cubes are large, weights that vanish."""
    logits = np.array([[60000, 0, 100, -60000], [-60000, 0, 0, 60000], [0, 1, 0, 0]], np.float16)
    sums, at_one, *_ = sums_of_one(logits, np.array([0, 1, 0, 1]), "case")
    assert np.isfinite(sums).all()
    assert at_one == pytest.approx(exact(logits, np.array([0, 1, 0, 1]), np.ones(1))[0, 0], rel=1e-6)
