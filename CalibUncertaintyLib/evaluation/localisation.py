"""Does the uncertainty find the errors? One pass over a region's voxels, then every figure from counts by value.

E are the wrong voxels of the region, U_t those with u >= t, U_b the top part b of them (`budget`). Values are counted by code
(`value_codes`: relative resolution 2^-10): a threshold is rounded down to the codes' grid, and splits the voxels exactly there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import COUNT, codes_of, values_of
from . import ranking
from .budget import LARGEST_BUDGET, POINTS, BudgetCurve, budget_curve, expected_in_top, voxels_of_share

CHUNK_VOXELS = 1 << 20
# Large voxels touch the surface from as far away as their diagonal; 2 mm is about what readers differ by. Our definition.
LEAST_BOUNDARY_MM = 2.0
# Distances are float32 roots of sums of squares; a voxel exactly on the limit may come out this much beyond it.
_ROUNDING_MM = 1e-4


def boundary_mm(spacing_zyx: Sequence[float]) -> float:
    """Up to which distance from a predicted surface an error is one of the boundary: a voxel's diagonal, at least 2 mm.

    :param spacing_zyx: mm. Our definition.
    """
    if len(spacing_zyx) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_zyx):
        raise ValueError(f"expected three spacings above 0 mm, got {tuple(spacing_zyx)}")
    return max(LEAST_BOUNDARY_MM, math.hypot(*(float(step) for step in spacing_zyx)))


def near_boundary(distance_mm: np.ndarray, limit_mm: float) -> np.ndarray:
    """Which voxels lie near a predicted surface.

    :param distance_mm: any shape, distance to the nearest voxel with another label beside it, +inf without an interface.
    :param limit_mm: inclusive, as of `boundary_mm`.
    """
    return np.abs(distance_mm) <= limit_mm + _ROUNDING_MM


class LocalisationCounts:
    """Accumulator over the voxels of one region of interest; memory does not grow with them, and cases pool with `merge`.

    `table` (COUNT, 2, 2, 2) int64: voxels by code of u, wrong or not, predicted positive or not, near a predicted surface or not.
    """

    def __init__(self) -> None:
        self.table = np.zeros((COUNT, 2, 2, 2), np.int64)

    def add(self, u: np.ndarray, error: np.ndarray, predicted_positive: np.ndarray, near: np.ndarray) -> None:
        """Add voxels of the region; nothing is added when something is wrong with them.

        :param u: (N,) uncertainty, 0 or more, any unit; values from 256 on count as equal, and so do those below 2^-24.
        :param error: (N,) bool, the label is not the reference's.
        :param predicted_positive: (N,) bool, the label is some structure, not background.
        :param near: (N,) bool, near a predicted surface (`near_boundary`).
        :raises CalibUncertaintyError: when u holds NaN.
        :raises ValueError: when the shapes differ.
        """
        u = np.asarray(u)
        flags = [np.asarray(flag, dtype=bool) for flag in (error, predicted_positive, near)]
        if u.ndim != 1 or any(flag.shape != u.shape for flag in flags):
            raise ValueError(f"expected four (N,) arrays, got {[u.shape, *(flag.shape for flag in flags)]}")
        if np.isnan(u).any():
            raise CalibUncertaintyError(
                "an uncertainty map holds NaN inside the region of interest; predict the case again"
            )
        for start in range(0, u.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            cell = codes_of(u[part])
            for flag in flags:
                cell *= 2
                cell += flag[part]
            self.table += np.bincount(cell, minlength=self.table.size).reshape(self.table.shape)

    def merge(self, other: LocalisationCounts) -> None:
        """Add all voxels that another accumulator has seen (pooling cases)."""
        self.table += other.table

    @property
    def n(self) -> int:
        """Voxels of the region."""
        return int(self.table.sum())

    @property
    def errors(self) -> int:
        """Wrong ones among them."""
        return int(self.table[:, 1].sum())

    @property
    def status(self) -> str:
        """One of "ok", "empty_roi", "no_errors" and "all_wrong" (nothing to rank errors against)."""
        n, errors = self.n, self.errors
        return "empty_roi" if n == 0 else "no_errors" if errors == 0 else "all_wrong" if errors == n else "ok"

    def ranking(self) -> dict:
        """How well u ranks wrong above right voxels; NaN unless the status is "ok".

        `auroc`, `auprc` (average precision), `fpr95`, `aurc`: see `ranking`. `fp_tp_auroc`: false from true positives, among
        voxels predicted positive; `fn_tn_auroc`: false from true negatives, among the region's other voxels; 0.5 is chance (our
        definition of the two figures of Brioso et al.). A voxel given to a wrong structure counts as false positive.
        """
        _, cells = self._seen()
        right, wrong = cells.sum(axis=(2, 3)).T
        known = self.status == "ok"
        return {
            "auroc": ranking.auroc(wrong, right),
            "auprc": ranking.average_precision(wrong, right),
            "fpr95": ranking.false_positive_rate(wrong, right),
            "aurc": ranking.risk_coverage_area(wrong, right) if known else math.nan,
        } | _by_decision(cells)

    def budget_curve(self, largest: float = LARGEST_BUDGET, points: int = POINTS) -> BudgetCurve:
        """Error-Dice of the top part b of the region, b up to 5 %, with the ideal and the random curve."""
        _, cells = self._seen()
        return budget_curve(cells.sum(axis=(1, 2, 3)), cells[:, 1].sum(axis=(1, 2)), largest, points)

    def at_threshold(self, threshold: float) -> dict:
        """What is found by flagging u >= t.

        - `threshold`: t rounded down to the grid of codes (+inf flags nothing)
        - `flagged`: |U| voxels; `flagged_share` of the region
        - `error_dice`: 2 |U and E| / (|U| + |E|), [0, 1], both empty 1 (UEO; Jungo et al. 2020); `recall`: |U and E| / |E|,
          `precision`: |U and E| / |U|, both 1 when U and E are empty, else NaN where they divide by 0; all NaN in an empty region
        - `boundary_recall`, `non_boundary_recall`: of the errors near a predicted surface and of the others; NaN without any
        - `fp_recall`, `fn_recall`: of the errors among voxels predicted positive and negative
        - `removing_helps`: whether taking the flagged voxels off the structures would raise their Dice: TPU / FPU < TP / (TP + FP
          + FN) (Jungo et al. 2020, all structures as one, inside the region only); None without any positive, drawn or predicted
        """
        codes, cells = self._seen()
        code = _code_of(threshold)
        flagged = cells[codes >= code].sum(axis=0)
        return {"threshold": _value_of(code)} | _found(flagged, cells.sum(axis=0), int(flagged.sum()))

    def at_budget(self, share: float) -> dict:
        """The same figures for the top `share` of the region, expected ones where the budget cuts equal values.

        In place of a threshold `share`, and `threshold`: the least one that flags no more than the budget (+inf: none does).
        Also `fp_tp_auroc` and `fn_tn_auroc` among the voxels of U_b only, where the group of equal values that is cut counts with
        the part of it that fits (our definition): does the order still tell errors apart in what a reader looks at?
        """
        codes, cells = self._seen()
        budget = voxels_of_share(int(cells.sum()), share)
        taken = _cut_at(cells, budget)
        whole = np.cumsum(cells.sum(axis=(1, 2, 3))) <= budget
        threshold = _value_of(int(codes[whole][-1])) if whole.any() else math.inf
        found = _found(taken.sum(axis=0), cells.sum(axis=0), budget)
        return {"share": float(share), "threshold": threshold} | found | _by_decision(taken)

    def error_dice_curve(self) -> dict:
        """(K,) arrays at every value that occurs, rising: `threshold`, `flagged_share`, `error_dice`, `recall`, `precision`."""
        codes, cells = self._seen()
        flagged, hits = np.cumsum(cells.sum(axis=(1, 2, 3))), np.cumsum(cells[:, 1].sum(axis=(1, 2)))
        errors = self.errors
        curve = {
            "threshold": values_of(codes).astype(np.float64),
            "flagged_share": flagged / max(1, self.n),
            "error_dice": 2.0 * hits / np.maximum(flagged + errors, 1),
            "recall": hits / errors if errors else np.full(codes.size, math.nan),
            "precision": hits / np.maximum(flagged, 1),
        }
        return {name: values[::-1] for name, values in curve.items()}

    def best_threshold(self) -> dict:
        """`threshold` of the highest error-Dice of these voxels, of equal ones the lowest, and its `error_dice`.

        NaN without errors. It looks at the reference: a limit of what any threshold could reach, not a threshold to use.
        """
        if self.errors == 0:
            return {"threshold": math.nan, "error_dice": math.nan}
        curve = self.error_dice_curve()
        best = int(np.argmax(curve["error_dice"]))
        return {name: float(curve[name][best]) for name in ("threshold", "error_dice")}

    def found_in_top(self, shares: np.ndarray) -> dict:
        """Curves over the flagged share (S,), for plots that several measures and cases have in common; expected ones at ties.

        `recall`, `precision`, `error_dice`, `false_positive_rate` of the flagged voxels, `remaining_risk` (share of wrong ones
        among those not flagged: the risk-coverage curve from its other end); NaN where they divide by 0.
        """
        _, cells = self._seen()
        n, errors = self.n, self.errors
        voxels = np.array([voxels_of_share(n, float(share)) for share in shares], dtype=np.float64)
        hits = expected_in_top(cells.sum(axis=(1, 2, 3)), cells[:, 1].sum(axis=(1, 2)), voxels)
        parts = {
            "recall": (hits, errors),
            "precision": (hits, voxels),
            "error_dice": (2.0 * hits, voxels + errors),
            "false_positive_rate": (voxels - hits, n - errors),
            "remaining_risk": (errors - hits, n - voxels),
        }
        return {name: _ratios(part, np.broadcast_to(of, part.shape)) for name, (part, of) in parts.items()}

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes that occur (K,), highest first, and their cells (K, 2, 2, 2)."""
        codes = np.flatnonzero(self.table.any(axis=(1, 2, 3)))[::-1]
        return codes, self.table[codes]


def _code_of(threshold: float) -> int:
    if math.isnan(threshold):
        raise ValueError("a threshold must be a number")
    return COUNT if threshold == math.inf else int(codes_of(np.float32([threshold]))[0])


def _value_of(code: int) -> float:
    return math.inf if code >= COUNT else float(values_of(np.array([code]))[0])


def _cut_at(cells: np.ndarray, voxels: int) -> np.ndarray:
    """The expected cells (K, 2, 2, 2) of the top `voxels`: whole groups, a part of one, nothing of the rest."""
    of_group = cells.sum(axis=(1, 2, 3))
    taken = np.clip(voxels - (np.cumsum(of_group) - of_group), 0, of_group)
    return cells * (taken / np.maximum(of_group, 1))[:, np.newaxis, np.newaxis, np.newaxis]


def _by_decision(cells: np.ndarray) -> dict:
    """AUROC of wrong against right voxels among those predicted positive and among those predicted negative."""
    by_kind = cells.sum(axis=3)
    return {
        name: ranking.auroc(by_kind[:, 1, positive], by_kind[:, 0, positive])
        for name, positive in (("fp_tp_auroc", 1), ("fn_tn_auroc", 0))
    }


def _found(flagged: np.ndarray, total: np.ndarray, size: int) -> dict:
    """The figures of `at_threshold` from the `size` flagged voxels and all, both (wrong, positive, near) tables of 2 x 2 x 2."""
    hits, errors = float(flagged[1].sum()), float(total[1].sum())
    both_empty = size + errors == 0 and total.any()
    (_, true_flagged), (_, false_flagged) = flagged.sum(axis=2)
    (_, true_positive), (false_negative, false_positive) = total.sum(axis=2)
    union = true_positive + false_positive + false_negative
    return {
        "flagged": size,
        "flagged_share": _ratio(size, total.sum()),
        "error_dice": 1.0 if both_empty else _ratio(2.0 * hits, size + errors),
        "recall": 1.0 if both_empty else _ratio(hits, errors),
        "precision": 1.0 if both_empty else _ratio(hits, size),
        "boundary_recall": _ratio(flagged[1, :, 1].sum(), total[1, :, 1].sum()),
        "non_boundary_recall": _ratio(flagged[1, :, 0].sum(), total[1, :, 0].sum()),
        "fp_recall": _ratio(false_flagged, false_positive),
        "fn_recall": _ratio(flagged[1, 0].sum(), false_negative),
        # multiplied out, so that flagging no false positive needs no division by 0
        "removing_helps": bool(true_flagged * union < true_positive * false_flagged) if union else None,
    }


def _ratio(part: float, of: float) -> float:
    return float(part) / float(of) if of else math.nan


def _ratios(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.where(of > 0, part / np.where(of > 0, of, 1.0), math.nan)
