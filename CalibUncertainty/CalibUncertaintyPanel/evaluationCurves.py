"""The budget curves of an evaluation: evaluation.json's content in, points out. Neither Qt nor the scene."""

from dataclasses import dataclass

IDEAL, RANDOM = "Ideal: errors first", "Random order"


@dataclass(frozen=True)
class BudgetCurve:
    """`points` - (share of the region of interest in per cent, mean overlap 0..1), rising from (0, 0)."""

    name: str
    points: tuple


def worked(content):
    """The configurations under which some case worked, by name."""
    return {name: of for name, of in content["configurations"].items() if of.get("by_case")}


def domainOf(content, of, measure):
    """What a configuration found of a measure near what was predicted (or what the evaluation looked at first); {} if nothing."""
    about = of["measures"].get(measure) or {}
    return (about.get("domains") or {}).get(content["options"]["roi_reference"]) or {}


def budgetCurves(content, measure):
    """Mean overlap with the errors against the flagged share, of every configuration, and what is best and worst possible.

    :return: list of `BudgetCurve`: the configurations, then the ideal and a random order; empty where nothing is known.
    """
    curves, last = [], {}
    for name, of in worked(content).items():
        budget = domainOf(content, of, measure).get("budget") or {}
        points = _points(budget, "overlap")
        if len(points) > 1:
            curves.append(BudgetCurve(name, points))
            last = budget
    if not curves:
        return []
    ideal, chance = _points(last, "ideal"), _points(last, "random")
    return [*curves, BudgetCurve(IDEAL, ideal), BudgetCurve(RANDOM, chance)]


def _points(budget, kind):
    shares, values = budget.get("share") or (), (budget.get(kind) or {}).get("mean") or ()
    known = [(100.0 * share, value) for share, value in zip(shares, values, strict=False) if value is not None]
    return ((0.0, 0.0), *known)
