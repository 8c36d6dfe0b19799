"""Calibration of an uncertainty: made a confidence by Platt's sigmoid, then compared with being right (`ace_unc`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import calibration_errors as errors
from .compat import CompatErrors

CHUNK_VOXELS = 65536
MOST_STEPS = 50


@dataclass(frozen=True)
class PlattSigmoid:
    """confidence = 1 / (1 + exp(slope * (-u) + intercept)) of an uncertainty u. Source: Platt 1999."""

    slope: float
    intercept: float

    def confidence(self, uncertainty: np.ndarray) -> np.ndarray:
        """(N,) uncertainties to (N,) float64 in [0, 1]."""
        exponent = self.intercept - self.slope * np.asarray(uncertainty, dtype=np.float64)
        return np.exp(-np.logaddexp(0.0, exponent))


def fit_platt(uncertainty: np.ndarray, right: np.ndarray) -> PlattSigmoid:
    """The sigmoid under which being right is most likely, with Platt's prior (targets (n+ + 1)/(n+ + 2) and 1/(n- + 2)).

    :param uncertainty: (N,) of voxels that are not those the error is measured on.
    :param right: (N,) booleans.
    :raises ValueError: when there is no voxel, or the shapes differ.
    Source: Platt 1999; the ValUES study fits one a case and averages slope and intercept.
    """
    scores, right = -np.asarray(uncertainty, dtype=np.float64), np.asarray(right, dtype=bool)
    if scores.size == 0 or scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(
            f"expected (N,) uncertainties and (N,) booleans, one at least, got {scores.shape}, {right.shape}"
        )
    scale = float(np.abs(scores).max()) or 1.0
    scores = scores / scale
    n_right = int(np.count_nonzero(right))
    target = np.where(right, (n_right + 1.0) / (n_right + 2.0), 1.0 / (right.size - n_right + 2.0))
    weights = np.array([0.0, math.log((right.size - n_right + 1.0) / (n_right + 1.0))])

    def loss(at: np.ndarray) -> float:
        exponent = at[0] * scores + at[1]
        return float((np.logaddexp(0.0, exponent) - (1.0 - target) * exponent).sum())

    for _ in range(MOST_STEPS):
        p = np.exp(-np.logaddexp(0.0, weights[0] * scores + weights[1]))
        gradient = np.array([((target - p) * scores).sum(), (target - p).sum()])
        spread = p * (1.0 - p)
        mixed = (spread * scores).sum()
        hessian = np.array([[(spread * scores * scores).sum(), mixed], [mixed, spread.sum()]])
        hessian += np.eye(2) * 1e-12 * max(1.0, hessian.trace())
        step, before, size = np.linalg.solve(hessian, gradient), loss(weights), 1.0
        while size > 1e-10 and loss(weights - size * step) > before:
            size *= 0.5
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-10 * max(1.0, np.abs(weights).max()):
            break
    return PlattSigmoid(float(weights[0] / scale), float(weights[1]))


def uncertainty_error(
    uncertainty: np.ndarray, right: np.ndarray, sigmoid: PlattSigmoid, bins: int = 20, compat: str | None = None
) -> dict:
    """`ace_unc`: mean over bins with voxels of |share of right voxels - confidence|, [0, 1], of the sigmoid's confidence.

    :param uncertainty: (N,) any measure that rises with doubt.
    :param right: (N,) booleans, the label is the reference's.
    :param sigmoid: fitted on other cases.
    :param compat: "values" reproduces the ValUES study's binning and its fault: a case with every voxel right gets an
        accuracy of 0, so its error is near 1 instead of near 0.
    :returns: `ace_unc`, `ece_unc`, `n`, `status` ("ok" or "empty_roi" with NaN).
    Source: Kahl et al. 2024 (ValUES), the calibration task.
    """
    if compat not in (None, "values"):
        raise ValueError(f"compat {compat!r} is not known here; None or 'values'")
    uncertainty, right = np.asarray(uncertainty), np.asarray(right, dtype=bool)
    if uncertainty.shape != right.shape or uncertainty.ndim != 1:
        raise ValueError(f"expected (N,) uncertainties and (N,) booleans, got {uncertainty.shape} and {right.shape}")
    theirs = CompatErrors("values", bins)
    n, p, hits = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins)
    inner_edges = np.arange(1, bins) / bins
    for start in range(0, right.size, CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        confidence = sigmoid.confidence(uncertainty[part])
        if compat:
            theirs.add(confidence, right[part])
            continue
        index = np.searchsorted(inner_edges, confidence, side="left")
        n += np.bincount(index, minlength=bins)
        p += np.bincount(index, weights=confidence, minlength=bins)
        hits += np.bincount(index, weights=right[part], minlength=bins)
    if compat:
        found = theirs.result()
        return {"ace_unc": found["ace"], "ece_unc": found["ece"], "n": found["n"], "status": found["status"]}
    return {
        "ace_unc": errors.average_error(n, p, hits),
        "ece_unc": errors.expected_error(n, p, hits),
        "n": int(n.sum()),
        "status": "ok" if n.sum() else "empty_roi",
    }
