"""The tables that a temperature is fitted with: exact at the nodes, and between them, for few and many classes."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.doubling import (
    BETAS,
    Workspace,
    refined,
    relative_to_highest,
    sums_of_many,
    sums_of_one,
)
from CalibUncertaintyLib.calibration.temperature import TemperatureFit


def exact(logits: np.ndarray, labels: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """NLL, and its first two derivatives in beta, summed over voxels in float64: (3, betas)."""
    wide, result = logits.astype(np.float64), []
    of_label = wide[labels, np.arange(labels.size)]
    for beta in betas:
        p = np.exp(beta * wide - logsumexp(beta * wide, axis=0))
        mean = (p * wide).sum(axis=0)
        nll = (logsumexp(beta * wide, axis=0) - beta * of_label).sum()
        result.append([nll, (mean - of_label).sum(), (p * (wide - mean) ** 2).sum()])
    return np.array(result).T


def example(classes: int, voxels: int = 3000, scale: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    logits = random.normal(scale=scale, size=(classes, voxels)).astype(np.float16)
    return logits, (logits + 2 * random.gumbel(size=logits.shape)).argmax(axis=0)


@pytest.mark.parametrize("classes", [2, 3, 6, 25])
def test_the_nodes_hold_the_value_and_the_slope(classes):
    logits, labels = example(classes)
    sums = sums_of_one(logits, labels, "case")
    expected = exact(logits, labels, BETAS)
    value, slope = sums.curve[0] - BETAS * sums.label, sums.curve[1] - sums.label
    assert value == pytest.approx(expected[0], rel=1e-6)
    assert np.abs((slope - expected[1]) * BETAS).max() < 3e-6 * np.abs(expected[1] * BETAS).max()
    assert sums.wrong
    assert sums.spread


@pytest.mark.parametrize("classes", [2, 6, 25])
def test_between_the_nodes_stands_the_function_itself(classes):
    logits, labels = example(classes)
    sums = sums_of_one(logits, labels, "case")
    log_beta, fine = refined(sums.curve[np.newaxis], np.array([sums.label]), math.log(8.0))
    beta = np.exp(log_beta)
    expected = exact(logits, labels, beta)
    assert fine[0, 0] == pytest.approx(expected[0], rel=1e-6)
    for order, tolerance in ((1, 2e-6), (2, 1e-4)):
        error = (fine[0, order] - expected[order]) * beta**order
        assert np.abs(error).max() < tolerance * np.abs(expected[order] * beta**order).max()


def test_a_workspace_used_before_changes_nothing():
    """Also where it was used for more voxels or classes, and voxels are left out on the way."""
    space = Workspace()
    sums_of_one(*example(8, voxels=5000), "case", space)
    for classes, voxels in ((6, 3000), (3, 1700), (8, 5000)):
        logits, labels = example(classes, voxels, scale=20.0)
        assert np.array_equal(
            sums_of_one(logits, labels, "case", space).curve, sums_of_one(logits, labels, "case").curve
        )


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
    sums = sums_of_many(members, labels, "case")

    def nll(beta: float) -> float:
        wide = beta * members.astype(np.float64)
        log_q = wide[:, labels, np.arange(2000)] - logsumexp(wide, axis=1)
        return float(-(logsumexp(log_q, axis=0) - math.log(3)).sum())

    for node, beta in enumerate(BETAS):
        h = 1e-4 * beta
        slope = (nll(beta + h) - nll(beta - h)) / (2 * h)
        assert sums.curve[0, node] - beta * sums.label == pytest.approx(nll(beta), rel=1e-6)
        assert sums.curve[1, node] - sums.label == pytest.approx(slope, rel=1e-5, abs=1e-2)


def test_what_members_agree_on_is_left_out_and_what_they_do_not_is_kept():
    """Sure voxels that all members have right, or wrong alike; and one that only the second has right."""
    members = np.zeros((2, 3, 400), np.float32)
    members[:, 0] = 60.0
    members[1, :, 7] = 0.0, 60.0, 0.0
    labels = np.zeros(400, int)
    labels[[7, 8]] = 1
    sums = sums_of_many(members, labels, "case")
    members, beta = members.astype(np.float64), BETAS[:, np.newaxis, np.newaxis]
    log_q = beta * members[:, labels, np.arange(400)] - logsumexp(beta[..., np.newaxis] * members, axis=2)
    expected = -(logsumexp(log_q, axis=1) - math.log(2)).sum(axis=1)
    assert sums.curve[0] - BETAS * sums.label == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("margin", [0.01, 0.07, 0.4, 5.0, 13.0, 18.0, 40.0])
def test_the_nodes_hold_what_voxels_of_one_margin_have(margin):
    """The same rounding in every voxel: it adds up where squares are taken of squares too often, or voxels left out too early."""
    logits = np.zeros((2, 2000), np.float32)
    logits[0] = margin
    sums = sums_of_one(logits, np.zeros(2000, int), "case")
    rest = np.exp(-BETAS * np.float64(np.float32(margin)))
    assert sums.curve[0] == pytest.approx(2000 * np.log1p(rest), rel=3e-6, abs=2000 * 2e-10)
    assert sums.curve[1] == pytest.approx(-2000 * margin * rest / (1 + rest), rel=3e-6, abs=2000 * margin * 2e-10)


def test_a_voxel_that_only_one_member_is_sure_of_is_not_left_out():
    members = np.zeros((2, 3, 400), np.float32)
    members[:, 0] = 60.0
    members[1, 0, 7] = 3.0
    curve = sums_of_many(members, np.zeros(400, int), "case").curve[0]
    log_q = -np.log1p(2 * np.exp(-BETAS[:, np.newaxis] * [60.0, 3.0]))
    unsure, sure = -(logsumexp(log_q, axis=1) - math.log(2)), -log_q[:, 0]
    assert curve == pytest.approx(399 * sure + unsure, rel=1e-5, abs=400 * 2e-10)


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
    others, of_label = relative_to_highest(logits, np.ones(5, int), "7")
    lowest = np.float32(math.log(2.0**-149))  # of the smallest number of single precision
    assert of_label.tolist() == [0, 0, lowest, 0, 0]
    assert sorted(others[:, 2].tolist()) == [lowest] + [0] * (classes - 2)


def test_logits_of_any_size_do_no_harm():
    """Half precision's largest numbers: differences whose squares and cubes are large, weights that vanish."""
    logits = np.array([[60000, 0, 100, -60000], [-60000, 0, 0, 60000], [0, 1, 0, 0]], np.float16)
    labels = np.array([0, 1, 0, 1])
    sums = sums_of_one(logits, labels, "case")
    assert sums.curve[0] - BETAS * sums.label == pytest.approx(exact(logits, labels, BETAS)[0], rel=1e-6)
    assert sums.curve[1] - sums.label == pytest.approx(exact(logits, labels, BETAS)[1], rel=1e-6)
