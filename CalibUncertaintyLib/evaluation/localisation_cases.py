"""Error localisation over cases: means with intervals, mean curves, and one measure or configuration against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .statistics import DRAWS, mean_interval, paired_difference, wilcoxon_signed_rank

# Numbers that say how large or where, not how good
_NO_FIGURES = {
    "n", "errors", "threshold", "flagged", "share", "components", "found", "corrected", "errors_corrected",
}  # fmt: skip
_BUDGET_CURVES = ("overlap", "ideal", "random")


def scalar_figures(result: Mapping) -> dict[str, float]:
    """All figures of a `localisation_result` under dotted names ("ranking.auroc", "at_budgets.0.05.recall").

    A yes or no becomes 1 or 0, so that its mean is a share of cases; what is unknown (None) becomes NaN. Curves, statuses,
    sizes, thresholds and structures that are neither drawn nor predicted are left out.
    """
    found: dict[str, float] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            if value.get("status") != "both_empty":
                found |= {f"{name}.{key}": figure for key, figure in scalar_figures(value).items()}
        elif name not in _NO_FIGURES and (value is None or isinstance(value, bool | int | float | np.number)):
            found[name] = math.nan if value is None else float(value)
    return found


def localisation_of_cases(results: Mapping[str, Mapping], *, draws: int = DRAWS, seed: int = 0) -> dict:
    """Means over cases, every case weighing the same; cases where a figure is NaN are left out of that figure only.

    :param results: by case, `localisation_result` with the same thresholds and budgets.
    :returns: `cases`; `figures`: by dotted name `MeanInterval.to_json` (bootstrap over cases, bias-corrected and accelerated);
        `budget`: the mean curves `share`, `overlap`, `ideal`, `random`; `by_share`: the mean curves of `curves.by_share`. A
        curve comes with the number of cases `used` at each point, and is empty without cases.
    """
    each = [scalar_figures(result) for result in results.values()]
    names = dict.fromkeys(name for figures in each for name in figures)
    return {
        "cases": len(each),
        "figures": {
            name: mean_interval([figures.get(name) for figures in each], draws=draws, seed=seed).to_json()
            for name in names
        },
        "budget": _mean_curves([result["budget"]["curve"] for result in results.values()], _BUDGET_CURVES),
        "by_share": _mean_curves([result["curves"]["by_share"] for result in results.values()]),
    }


def compare_localisation(
    before: Mapping[str, Mapping], after: Mapping[str, Mapping], figures: Sequence[str] | None = None, *,
    draws: int = DRAWS, seed: int = 0,
) -> dict:  # fmt: skip
    """One measure or configuration against another on the same cases: after - before, paired by case.

    :param before: by case, `localisation_result`. :param after: of the same cases.
    :param figures: dotted names; None for all that both have. Many tests at once find differences by chance: p is not corrected.
    :returns: `cases` that both have, `left_out` that one has not, and `figures`: by name `difference`
        (`paired_difference`, bootstrap over cases) and `wilcoxon` (`wilcoxon_signed_rank`).
    :raises ValueError: when a figure that is asked for is in no case.
    """
    cases = [case for case in before if case in after]
    first, second = ([scalar_figures(results[case]) for case in cases] for results in (before, after))
    shared = dict.fromkeys(name for mine, theirs in zip(first, second, strict=True) for name in mine if name in theirs)
    unknown = [name for name in figures or () if name not in shared]
    if unknown and cases:
        raise ValueError(f"no case has the figures {', '.join(unknown)} on both sides")
    compared = {}
    for name in shared if figures is None else figures:
        pair = [[found.get(name) for found in side] for side in (first, second)]
        compared[name] = {
            "difference": paired_difference(*pair, draws=draws, seed=seed).to_json(),
            "wilcoxon": wilcoxon_signed_rank(*pair).to_json(),
        }
    left_out = sorted(set(before) ^ set(after))
    return {"cases": len(cases), "left_out": left_out, "figures": compared}


def _mean_curves(curves: Sequence[Mapping], names: Sequence[str] | None = None) -> dict:
    """Mean of each curve over cases, point by point, NaN left out, with how many cases have a value at each."""
    if not curves:
        return {}
    found = {"share": list(curves[0]["share"])}
    for name in names or [name for name in curves[0] if name != "share"]:
        values = np.array([curve[name] for curve in curves], dtype=np.float64)
        known = ~np.isnan(values)
        used = known.sum(axis=0)
        sums = np.where(known, values, 0.0).sum(axis=0)
        mean = np.where(used > 0, sums / np.maximum(used, 1), math.nan)
        found[name] = {"mean": mean.tolist(), "used": used.tolist()}
    return found
