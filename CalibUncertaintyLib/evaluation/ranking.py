"""How well an order of voxels tells two kinds apart, from counts of each kind at every value: no voxel is sorted.

All functions take two (K,) arrays of counts (or weights, 0 or more), one entry a distinct value, the highest value first:
`positive` what should be high (wrong voxels), `negative` the rest. Equal values count as ties. NaN where a kind has no voxel.
"""

from __future__ import annotations

import math

import numpy as np

TRUE_POSITIVE_RATE = 0.95
_EULER = 0.57721566490153286061  # Euler's constant
_TABLE = 1000  # harmonic numbers beyond it come from an expansion whose error is below 1e-14 there
_SMALL_HARMONICS = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, _TABLE + 1))])


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive lies above a negative, ties half, [0, 1]; 0.5 says nothing.

    Source: Hanley & McNeil 1982; equals the area under the ROC curve, trapezoids over ties.
    """
    positive, negative = _weights(positive, negative)
    all_positive, all_negative = positive.sum(), negative.sum()
    if all_positive == 0 or all_negative == 0:
        return math.nan
    below = all_negative - np.cumsum(negative)
    return float((positive * (below + negative / 2.0)).sum() / all_positive / all_negative)


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the precision-recall curve as the sum of precision times gain in recall, [0, 1]; chance: the positives' share.

    Equal values enter together, nothing is interpolated, as scikit-learn's `average_precision_score` has it.
    """
    positive, negative = _weights(positive, negative)
    all_positive = positive.sum()
    if all_positive == 0 or negative.sum() == 0:
        return math.nan
    hits = np.cumsum(positive)
    flagged = hits + np.cumsum(negative)
    gains = positive > 0
    return float((hits[gains] / flagged[gains] * positive[gains]).sum() / all_positive)


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, rate: float = TRUE_POSITIVE_RATE) -> float:
    """Share of negatives flagged where the threshold is just low enough to flag this share of the positives, [0, 1] (FPR95).

    Source: Liang et al. 2018; no interpolation between thresholds.
    """
    positive, negative = _weights(positive, negative)
    all_positive, all_negative = positive.sum(), negative.sum()
    if all_positive == 0 or all_negative == 0:
        return math.nan
    hits = np.cumsum(positive)
    enough = int(np.argmax(hits / hits[-1] >= rate))
    return float(np.cumsum(negative)[enough] / all_negative)


def risk_coverage_area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the risk-coverage curve (AURC), [0, 1], low is good: the mean over k = 1 .. n of the wrong share of the k lowest.

    Without ties the mean of n selective risks (Geifman et al. 2019); of equal values the expected risk under random order (our
    definition): within a group of m values, e of them wrong, the errors grow by e/m a voxel, so the sum of risks is a sum of
    1/k, and harmonic numbers give it without looking at single voxels. With no error it is 0, with errors only 1.

    :param positive: whole numbers of wrong voxels. :param negative: of right ones.
    """
    positive, negative = _weights(positive, negative)
    total = (positive + negative)[::-1]
    wrong = positive[::-1][total > 0]
    total = total[total > 0]
    if total.size == 0:
        return math.nan
    ends = np.cumsum(total)
    starts = ends - total
    share = wrong / total
    wrong_before = np.cumsum(wrong) - wrong
    sums = wrong + (wrong_before - starts * share) * (_harmonic(ends) - _harmonic(starts))
    return float(min(1.0, max(0.0, sums.sum() / ends[-1])))


def _harmonic(k: np.ndarray) -> np.ndarray:
    """1 + 1/2 + ... + 1/k; beyond the table Euler's expansion, to 1e-14."""
    small = _SMALL_HARMONICS[np.minimum(k, _TABLE).astype(np.intp)]
    large = np.maximum(k, _TABLE)
    return np.where(k <= _TABLE, small, np.log(large) + _EULER + 1.0 / (2.0 * large) - 1.0 / (12.0 * large**2))


def _weights(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive, negative = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if positive.shape != negative.shape or positive.ndim != 1:
        raise ValueError(f"expected two (K,) arrays, got {positive.shape} and {negative.shape}")
    return positive, negative
