"""Calibration errors from binned counts: weighted, unweighted, equal-mass, largest; Brier's decomposition; Dice from counts.

All functions take the voxels n, the summed probabilities p and the positives (the true ones) of each bin, last axis bins, and
give NaN where there is nothing to measure, never 0. A bin's confidence is p/n, its accuracy positives/n. All are fractions.
"""

from __future__ import annotations

import math

import numpy as np

# A bin with fewer voxels says little about its accuracy, and the largest gap would be its noise. Our own decision.
MCE_MIN_VOXELS = 100


def bin_table(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> list[dict]:
    """The bins (B,) of a reliability diagram: lower, upper, n, confidence, accuracy, gap (None in an empty bin)."""
    bins = len(n)
    table = []
    for index in range(bins):
        voxels = int(n[index])
        confidence = float(p[index] / voxels) if voxels else None
        accuracy = float(positives[index] / voxels) if voxels else None
        table.append({
            "lower": index / bins,
            "upper": (index + 1) / bins,
            "n": voxels,
            "confidence": confidence,
            "accuracy": accuracy,
            "gap": confidence - accuracy if voxels else None,
        })  # fmt: skip
    return table


def expected_error(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> np.ndarray | float:
    """Sum over bins of n_b/n |accuracy_b - confidence_b|, [0, 1]. Source: Naeini et al. 2015; Guo et al. 2017, Eq. 3.

    :returns: a float for (B,), an array (C,) for (C, B).
    """
    return _divide(np.abs(positives - p).sum(axis=-1), n.sum(axis=-1))


def average_error(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> np.ndarray | float:
    """Mean over the bins with voxels of |accuracy_b - confidence_b|, every bin weighing the same, [0, 1].

    Source: Neumann et al. 2018; as a class-wise figure of segmentation Barfoot et al. 2024.
    """
    return _divide(np.abs(_gaps(n, p, positives)).sum(axis=-1), (n > 0).sum(axis=-1))


def maximum_error(
    n: np.ndarray, p: np.ndarray, positives: np.ndarray, min_voxels: int = MCE_MIN_VOXELS
) -> np.ndarray | float:
    """Largest |accuracy_b - confidence_b| over the bins with at least `min_voxels` voxels, [0, 1]; NaN without such a bin.

    Source: Naeini et al. 2015; the least number of voxels is our own definition.
    """
    seen = n >= max(1, min_voxels)
    largest = np.where(seen, np.abs(_gaps(n, p, positives)), -1.0).max(axis=-1)
    return _plain(np.where(largest < 0, math.nan, largest))


def signed_gap(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> np.ndarray | float:
    """Mean confidence less accuracy, [-1, 1]: above 0 over-confident."""
    return _divide(p.sum(axis=-1) - positives.sum(axis=-1), n.sum(axis=-1))


def equal_mass_bins(n: np.ndarray, p: np.ndarray, positives: np.ndarray, bins: int) -> tuple[np.ndarray, ...]:
    """The cells (F,) of a fine histogram dealt out to `bins` bins of equal mass, (bins,) each: n, p, positives.

    A cell over which the border of two bins runs gives each its share of voxels, of probability and of positives, as if they
    were spread evenly in it: what the order of equal values would give on average.
    """
    total = float(n.sum())
    ends = np.concatenate([[0.0], np.cumsum(n)])
    borders = np.linspace(0.0, total, bins + 1)
    known = np.concatenate([[True], n > 0])  # an interpolation needs rising positions
    shares = []
    for values in (n, p, positives):
        running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        shares.append(np.diff(np.interp(borders, ends[known], running[known])))
    return tuple(shares)


def adaptive_error(n: np.ndarray, p: np.ndarray, positives: np.ndarray, bins: int) -> float:
    """Mean of |accuracy - confidence| over bins of equal mass, [0, 1], of the cells (F,) of a fine histogram.

    How exact: bins lose the order of voxels inside a cell, nothing else. Against sorting all voxels the figure is at most
    2 m/n too low or too high for each of the cells with m voxels that a border cuts, and at most twice the smaller of the
    cell's confidence and accuracy too low, weighed by m/n, where a whole bin lies inside one cell (saturated voxels: that
    is 2/F for the cell at 0). With voxels spread over [0, 1] and 2000 cells: a few 1e-4.
    Source: Nixon et al. 2019 (adaptive calibration error).
    """
    if n.sum() == 0:
        return math.nan
    of_bins = equal_mass_bins(n, p, positives, bins)
    return float(np.abs(of_bins[2] - of_bins[1]).sum() / n.sum())


def brier_decomposition(n: np.ndarray, p: np.ndarray, positives: np.ndarray, brier: float) -> dict:
    """Reliability, resolution and uncertainty of the Brier score of one class, from its bins (B,).

    brier = reliability - resolution + uncertainty + residual; the residual is what the spread of probabilities inside a bin
    leaves, 0 where all probabilities of a bin are the same. All but the residual lie in [0, 1].

    :param brier: mean over voxels of (p - y)^2.
    Source: Murphy 1973; the residual after Stephenson et al. 2008.
    """
    total = n.sum()
    if total == 0:
        return dict.fromkeys(("reliability", "resolution", "uncertainty", "residual"), math.nan)
    used = n > 0
    weight = n[used] / total
    accuracy, confidence = positives[used] / n[used], p[used] / n[used]
    rate = positives.sum() / total
    reliability = float((weight * (confidence - accuracy) ** 2).sum())
    resolution = float((weight * (accuracy - rate) ** 2).sum())
    uncertainty = float(rate * (1.0 - rate))
    return {
        "reliability": reliability,
        "resolution": resolution,
        "uncertainty": uncertainty,
        "residual": float(brier - (reliability - resolution + uncertainty)),
    }


def dice(intersection: int, predicted: int, reference: int) -> tuple[float, str]:
    """2 |A and B| / (|A| + |B|), [0, 1], and "ok"; both empty: 1 and "both_empty" (leave it out of means over classes)."""
    if predicted + reference == 0:
        return 1.0, "both_empty"
    return 2.0 * intersection / (predicted + reference), "ok"


def _gaps(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> np.ndarray:
    return (p - positives) / np.maximum(n, 1)


def _divide(value: np.ndarray, by: np.ndarray) -> np.ndarray | float:
    by = np.asarray(by, dtype=np.float64)
    return _plain(np.where(by > 0, value / np.where(by > 0, by, 1.0), math.nan))


def _plain(value: np.ndarray) -> np.ndarray | float:
    return float(value) if np.ndim(value) == 0 else value
