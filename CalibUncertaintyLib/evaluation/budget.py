"""What a reader finds who looks at the most uncertain part of a region only: curves over a budget of voxels.

U_b holds the ceil(b n) voxels of highest uncertainty among the n of the region. Where the budget cuts a group of equal values,
which of them are taken is chance, and every figure is the expected one. Counts come as (K,) arrays, one entry a distinct
value, highest first. Source of the budget from 0 to 5 %: Brioso et al. (arXiv 2604.11798), abstract; the rest is our definition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LARGEST_BUDGET = 0.05
POINTS = 50  # steps of a thousandth of the region
FEWEST_VOXELS = 20  # of fewer, 5 % is less than one


@dataclass(frozen=True)
class BudgetCurve:
    """UEO(b) = 2 |U_b and E| / (|U_b| + |E|) of the wrong voxels E, over budgets of up to 5 % of the region.

    `share` (50,): budgets b, (0, 0.05]. `overlap` (50,): as measured, `ideal`: with all wrong voxels ranked first, `random`: with
    no order at all; each [0, 1], and overlap <= 2 min(b, e) / (b + e) with e the share of wrong voxels. `area`, `ideal_area`,
    `random_area`: mean over (0, 5 %] by trapezoids from (0, 0), [0, 1] (UEO-AUC 0-5, divided by its width). `ratio_to_ideal`:
    area / ideal_area, [0, 1]. `status`: "ok", "small_roi" (fewer than 20 voxels), "empty_roi" or "no_errors"; then all NaN.
    """

    share: np.ndarray
    overlap: np.ndarray
    ideal: np.ndarray
    random: np.ndarray
    area: float
    ideal_area: float
    random_area: float
    ratio_to_ideal: float
    status: str

    def to_json(self) -> dict:
        """Numbers and lists, plain; NaN is left to the writer."""
        curves = {name: getattr(self, name).tolist() for name in ("share", "overlap", "ideal", "random")}
        figures = {name: getattr(self, name) for name in ("area", "ideal_area", "random_area", "ratio_to_ideal")}
        return figures | {"status": self.status, "curve": curves}


def voxels_of_share(n: int, share: float) -> int:
    """How many of n voxels a share is: rounded up, but not for a rounding error of the product (0.1 * 30 is 3)."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"a share must lie between 0 and 1, got {share}")
    return min(n, math.ceil(share * n * (1.0 - 1e-12)))


def expected_in_top(total: np.ndarray, part: np.ndarray, voxels: float | np.ndarray) -> np.ndarray:
    """Expected number of `part`'s voxels among the top `voxels` of `total`'s, equal values in random order.

    :param total: (K,) counts above 0, highest value first. :param part: (K,) how many of them are of some kind.
    :param voxels: one number or an array of them, [0, sum of total].
    :returns: float64, of the shape of `voxels`.
    """
    ends = np.concatenate([[0], np.cumsum(total)])
    return np.interp(voxels, ends, np.concatenate([[0], np.cumsum(part)]))


def budget_curve(
    total: np.ndarray, wrong: np.ndarray, largest: float = LARGEST_BUDGET, points: int = POINTS
) -> BudgetCurve:
    """The curve and its area; see `BudgetCurve`.

    :param total: (K,) voxels at each value, above 0, highest value first. :param wrong: (K,) wrong ones among them.
    :param largest: budget, (0, 1]. :param points: evenly spaced, the last at `largest`.
    """
    share = largest * np.arange(1, points + 1) / points
    n, errors = int(np.sum(total)), int(np.sum(wrong))
    if n < FEWEST_VOXELS or errors == 0:
        nothing = np.full(points, math.nan)
        status = "empty_roi" if n == 0 else "small_roi" if n < FEWEST_VOXELS else "no_errors"
        return BudgetCurve(share, nothing, nothing, nothing, *[math.nan] * 4, status)
    voxels = np.array([voxels_of_share(n, float(budget)) for budget in share])
    curves = [
        2.0 * hits / (voxels + errors)
        for hits in (expected_in_top(total, wrong, voxels), np.minimum(voxels, errors), voxels * (errors / n))
    ]
    measured, ideal, random = (_mean_from_origin(curve) for curve in curves)
    return BudgetCurve(share, *curves, measured, ideal, random, measured / ideal, "ok")


def _mean_from_origin(values: np.ndarray) -> float:
    """Mean height over evenly spaced points, by trapezoids, with 0 before the first."""
    return float((values.sum() - values[-1] / 2.0) / values.size)
