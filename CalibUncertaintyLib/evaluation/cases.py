"""From the figures of single cases to what is said of a cohort: means that skip what is unknown, spread, over-confident share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# Keys that describe how a figure was made, or that no mean makes sense of.
_NOT_AVERAGED = {"n", "labelled", "predicted", "bin_count", "mce_min_voxels", "dice_classes_used", "dice_classes_total"}


def summarise_cases(results: Iterable[Mapping]) -> dict:
    """Mean and spread over cases of every figure of `full_result` (or `result`), every case weighing the same.

    A figure that is NaN in a case (empty region, no bin with enough voxels, a structure neither drawn nor predicted) is left out
    of that figure's mean only. A class's Dice with status "both_empty" is left out too.

    :param results: of cases; nested dicts are followed, lists (bins) and text are not.
    :returns: the same nesting, with each number replaced by {"mean", "sd" (n - 1; NaN below two), "min", "max", "used", "total"},
        `used` of `total` cases.
    """
    cases = [_without_empty_dice(result) for result in results]
    return _summarised(cases, len(cases))


def _summarised(cases: Sequence[Mapping], total: int) -> dict:
    names = dict.fromkeys(key for case in cases for key in case if key not in _NOT_AVERAGED)
    found = {}
    for name in names:
        values = [case[name] for case in cases if name in case]
        if all(isinstance(value, Mapping) for value in values):
            found[name] = _summarised(values, total)
        elif all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values):
            found[name] = _summary(np.array(values, dtype=np.float64), total)
    return found


def _summary(values: np.ndarray, total: int) -> dict:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return dict.fromkeys(("mean", "sd", "min", "max"), math.nan) | {"used": 0, "total": total}
    return {
        "mean": float(known.mean()),
        "sd": float(known.std(ddof=1)) if known.size > 1 else math.nan,
        "min": float(known.min()),
        "max": float(known.max()),
        "used": int(known.size),
        "total": total,
    }


def _without_empty_dice(result: Mapping) -> dict:
    found = {key: _without_empty_dice(value) if isinstance(value, Mapping) else value for key, value in result.items()}
    if found.get("dice_status") == "both_empty":
        found["dice"] = math.nan
    return found


def confidence_of_cases(gaps: Mapping[str, float], percentile: float = 90.0) -> dict:
    """Which cases are over-confident, under-confident or calibrated, by the signed gap of each.

    The limit is a percentile of |gap| over the cases: above it a case counts as over-confident (gap > 0) or under-confident.

    :param gaps: by case, mean confidence - accuracy; NaN cases are left out.
    :param percentile: of |gap|, in (0, 100).
    :returns: `limit`, `over`, `under`, `calibrated` (ids, in the order given), `unknown`, and `share_over`, `share_under`:
        the share of all known cases whose gap is above or below 0.
    Source: rule of Jungo et al. 2020 for subjects of miscalibration.
    """
    if not 0.0 < percentile < 100.0:
        raise ValueError(f"a percentile in (0, 100) is wanted, got {percentile}")
    known = {case: float(gap) for case, gap in gaps.items() if not math.isnan(gap)}
    if not known:
        return {"limit": math.nan, "over": [], "under": [], "calibrated": [], "unknown": list(gaps),
                "share_over": math.nan, "share_under": math.nan}  # fmt: skip
    limit = float(np.percentile(np.abs(list(known.values())), percentile))
    return {
        "limit": limit,
        "over": [case for case, gap in known.items() if gap > limit],
        "under": [case for case, gap in known.items() if gap < -limit],
        "calibrated": [case for case, gap in known.items() if abs(gap) <= limit],
        "unknown": [case for case in gaps if case not in known],
        "share_over": sum(gap > 0 for gap in known.values()) / len(known),
        "share_under": sum(gap < 0 for gap in known.values()) / len(known),
    }
