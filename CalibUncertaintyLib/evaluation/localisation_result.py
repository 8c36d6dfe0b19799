"""Every figure of error localisation of one measure in one case (or in cases pooled), as plain values for a file or a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .edit_saving import EditCounts, edit_saving
from .error_components import ErrorComponents, found_share
from .localisation import LocalisationCounts

BUDGETS = (0.01, 0.05)
PLOT_POINTS = 64
PLOT_SHARES = np.geomspace(1e-3, 1.0, PLOT_POINTS)
"""Flagged shares of the region that curves are given at: the same for every case and measure, so that they can be averaged."""


def localisation_result(
    counts: LocalisationCounts, thresholds: Mapping[str, float], budgets: Sequence[float] = BUDGETS, *,
    components: ErrorComponents | None = None, edits: EditCounts | None = None,
) -> dict:  # fmt: skip
    """Everything the counts say; NaN is left to the writer (`plain_json`).

    - `n`, `errors`, `error_rate`, `status` ("ok", "empty_roi", "no_errors", "all_wrong")
    - `ranking`: `LocalisationCounts.ranking`; `best`: the highest error-Dice any threshold reaches here, and that threshold
    - `at_thresholds`: by name `LocalisationCounts.at_threshold`; `at_budgets`: by share ("0.01") `LocalisationCounts.at_budget`;
      each with `error_components` (`found_share`; at a budget by its `threshold`), and budgets with `edit` (`edit_saving`)
    - `budget`: `BudgetCurve.to_json`, 50 points up to 5 %
    - `curves`: `by_share` (`found_in_top` at `PLOT_SHARES`) and `by_threshold` (`error_dice_curve`), 64 points at most

    :param thresholds: by name, in the measure's unit; frozen ones, fitted on other cases.
    :param budgets: shares of the region, [0, 1].
    :param components: of the case (left out when cases are pooled).
    :param edits: of the same voxels, and of those outside the region.
    """
    at_thresholds = {name: counts.at_threshold(threshold) for name, threshold in thresholds.items()}
    at_budgets = {f"{share:g}": counts.at_budget(share) for share in budgets}
    for found in (*at_thresholds.values(), *at_budgets.values()):
        if components is not None:
            found["error_components"] = found_share(components, found["threshold"])
    for found in at_budgets.values():
        if edits is not None:
            found["edit"] = edit_saving(edits, found["share"])
    n, errors = counts.n, counts.errors
    return {
        "n": n,
        "errors": errors,
        "error_rate": errors / n if n else float("nan"),
        "status": counts.status,
        "ranking": counts.ranking(),
        "best": counts.best_threshold(),
        "at_thresholds": at_thresholds,
        "at_budgets": at_budgets,
        "budget": counts.budget_curve().to_json(),
        "curves": {
            "by_share": {"share": PLOT_SHARES.tolist()} | _lists(counts.found_in_top(PLOT_SHARES)),
            "by_threshold": _lists(_thinned(counts.error_dice_curve())),
        },
    }


def _thinned(curve: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At most 64 points of a curve, first and last included, evenly spread over the values that occur."""
    size = curve["threshold"].size
    kept = np.unique(np.linspace(0, size - 1, min(size, PLOT_POINTS)).round().astype(np.intp))
    return {name: values[kept] for name, values in curve.items()}


def _lists(curves: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in curves.items()}
