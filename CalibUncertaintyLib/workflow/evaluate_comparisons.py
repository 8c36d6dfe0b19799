"""One configuration or measure against another on the same cases: paired differences, tests, and a correction for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..evaluation.statistics import paired_difference, wilcoxon_signed_rank

BASE_MEASURE = "entropy"
OF_CALIBRATION = ("nll", "brier_sum", "ece_toplabel")
OF_MEASURES = (
    "at_thresholds.stored.error_dice", "ranking.auroc", "budget.area", "at_budgets.0.05.boundary_recall",
    "at_budgets.0.05.non_boundary_recall",
)  # fmt: skip


def comparisons_of(summaries: Mapping[str, Mapping], domain: str) -> dict:
    """Every configuration against the first one, and in each configuration every measure against the entropy.

    summaries: {configuration: {"by_case": ...}} as of `evaluate_summary`. domain: of the error localisation; calibration is
    compared within the distance of prediction or reference. Returns {"configurations": rows, "measures": rows, "count",
    "correction"}, each row {"before", "after", "figure", "measure", "difference", "wilcoxon", "p_holm"}. p_holm is
    corrected for the number of tests within its family (Holm 1979).
    """
    names = list(summaries)
    first = [row for name in names[1:] for row in _configurations(summaries, names[0], name, domain)]
    second = [row for name in names for row in _measures(name, summaries[name], domain)]
    for rows in (first, second):
        for row, p in zip(rows, holm([row["wilcoxon"]["p"] for row in rows]), strict=True):
            row["p_holm"] = p
    return {
        "configurations": first,
        "measures": second,
        "count": {"configurations": _tests(first), "measures": _tests(second)},
        "correction": "Holm 1979, within configurations and within measures; intervals are not corrected",
    }


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down rule, in the given order; NaN stays and is not counted.

    Source: Holm 1979: the k-th smallest of m is multiplied by m - k + 1, and none may lie below one before it.
    """
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    found, highest = [math.nan] * len(p), 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        found[place] = highest
    return found


def _tests(rows: Sequence[Mapping]) -> int:
    return sum(not math.isnan(row["wilcoxon"]["p"]) for row in rows)


def _configurations(summaries: Mapping, before: str, after: str, domain: str) -> list[dict]:
    mine, theirs = (summaries[name]["by_case"] for name in (before, after))
    rows = [_row(mine, theirs, ("dice", "mean"), before, after, "dice", None)]
    rows += [_row(mine, theirs, ("calibration", "union", key), before, after, key, None) for key in OF_CALIBRATION]
    shared = [
        name for name, of in summaries[before]["measures"].items()
        if of["domains"] and summaries[after]["measures"].get(name, {}).get("domains")
    ]  # fmt: skip
    for measure in shared:
        rows += [
            _row(mine, theirs, ("measures", measure, domain, key), before, after, key, measure) for key in OF_MEASURES
        ]
    return rows


def _measures(configuration: str, summary: Mapping, domain: str) -> list[dict]:
    there = [name for name, of in summary["measures"].items() if of["domains"]]
    if BASE_MEASURE not in there:
        return []
    of_cases, rows = summary["by_case"], []
    for measure in (name for name in there if name != BASE_MEASURE):
        for key in OF_MEASURES:
            pair = [_column(of_cases, of_cases, ("measures", name, domain, key)) for name in (BASE_MEASURE, measure)]
            rows.append(_tested(*pair, BASE_MEASURE, measure, key, measure) | {"configuration": configuration})
    return rows


def _row(mine: Mapping, theirs: Mapping, path: Sequence[str], before: str, after: str, figure: str, measure) -> dict:
    shared = [case for case in mine if case in theirs]
    return _tested(_column(shared, mine, path), _column(shared, theirs, path), before, after, figure, measure)


def _tested(first: Sequence, second: Sequence, before: str, after: str, figure: str, measure: str | None) -> dict:
    return {
        "before": before, "after": after, "figure": figure, "measure": measure,
        "difference": paired_difference(first, second).to_json(), "wilcoxon": wilcoxon_signed_rank(first, second).to_json(),
    }  # fmt: skip


def _column(cases, by_case: Mapping, path: Sequence[str]) -> list[float]:
    found = []
    for case in cases:
        value = by_case[case]
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        found.append(math.nan if value is None else float(value))
    return found
