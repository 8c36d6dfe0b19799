"""From the stored figures of single cases to what is said of a configuration: means with intervals, and pooled figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.calibration_errors import expected_error
from ..evaluation.localisation import LocalisationCounts
from ..evaluation.localisation_cases import localisation_of_cases, scalar_figures
from ..evaluation.localisation_result import localisation_result
from ..evaluation.statistics import mean_interval
from ..uncertainty.region_calibration import region_reliability
from .evaluate_case import read_counts
from .evaluate_figures import DOMAINS
from .evaluate_localisation import BUDGETS, STORED
from .proof_numbers import number

CALIBRATION = (
    "nll", "brier_sum", "brier_mean", "ece_toplabel", "smooth_ece", "mce_toplabel", "ece_class", "ace_class", "accuracy",
    "mean_confidence", "signed_gap",
)  # fmt: skip
PLACES = ("pred", "union")  # where errors are looked for
MEAN_DICE = "mean"  # of the structures that are drawn or predicted


def summary_of(of_cases: Mapping[str, Mapping], files: Mapping[str, Path]) -> dict:
    """What the cases of one configuration say together.

    of_cases: what `evaluate_case` stored, by case. files: where, by case.
    Returns `dice` ({structure or "mean": `MeanInterval`}), `calibration` ({domain: {"domain", "figures", "pooled", "bins"}}),
    `errors` ({domain: {...}}), `measures` ({measure: {..., "domains": {domain: `localisation_of_cases` and "pooled"}}}), `regions`,
    `by_case`. Every case weighs the same in means; a figure unknown in a case is left out of its mean only. Pooled figures are of
    all voxels together.
    """
    figures = {case: content["figures"] for case, content in of_cases.items()}
    first = next(iter(figures.values()), {})
    return {
        "dice": _dice(figures),
        "calibration": {domain: _calibration(figures, domain) for domain in first.get("calibration", DOMAINS)},
        "errors": {domain: _errors(figures, domain) for domain in first.get("errors", PLACES)},
        "measures": _measures(figures, files),
        "regions": regions_together([region for of in figures.values() for region in of["regions"]]),
        "by_case": {case: case_numbers(of) for case, of in figures.items()},
    }


def case_numbers(figures: Mapping) -> dict:
    """The numbers of one case without its curves and bins."""
    return {
        "dice": {name: number(of["dice"]) for name, of in figures["dice"].items()} | {MEAN_DICE: mean_dice(figures)},
        "calibration": {
            domain: {key: value for key, value in of.items() if key != "bins"}
            for domain, of in figures["calibration"].items()
        },
        "errors": figures["errors"],
        "measures": {
            name: {
                domain: {"status": of["status"]} | scalar_figures(known_numbers(of))
                for domain, of in measure["domains"].items()
            }
            for name, measure in figures["measures"].items()
        },
    }


def mean_dice(figures: Mapping) -> float:
    """Mean Dice of the structures that are drawn or predicted in a case; NaN without any."""
    known = [value for of in figures["dice"].values() if not math.isnan(value := number(of["dice"]))]
    return math.fsum(known) / len(known) if known else math.nan


def _dice(figures: Mapping[str, Mapping]) -> dict:
    names = dict.fromkeys(name for of in figures.values() for name in of["dice"])
    found = {MEAN_DICE: mean_interval([mean_dice(of) for of in figures.values()]).to_json()}
    return found | {
        name: mean_interval([number(of["dice"].get(name, {}).get("dice")) for of in figures.values()]).to_json()
        for name in names
    }


def _calibration(figures: Mapping[str, Mapping], domain: str) -> dict:
    each = [of["calibration"][domain] for of in figures.values()]
    bins = pooled_bins([of["bins"] for of in each])
    sizes = np.array([number(of["n"]) for of in each])
    pooled = {"n": int(sizes.sum())}
    for key in ("nll", "brier_sum", "brier_mean", "accuracy", "mean_confidence", "signed_gap"):
        values = np.array([number(of.get(key)) for of in each])
        known = (sizes > 0) & ~np.isnan(values)
        pooled[key] = float((values[known] * sizes[known]).sum() / sizes[known].sum()) if known.any() else math.nan
    n, confidence, accuracy = (np.array([item[key] for item in bins]) for key in ("n", "confidence", "accuracy"))
    if (
        n.sum() == pooled["n"] > 0
    ):  # of regions that may overlap the bins hold every region's decisions, and ECE is their mean
        seen = n > 0
        pooled["ece_toplabel"] = expected_error(n[seen], n[seen] * confidence[seen], n[seen] * accuracy[seen])
    return {
        "domain": next((of["domain"] for of in each), domain),
        "figures": {key: mean_interval([number(of.get(key)) for of in each]).to_json() for key in CALIBRATION},
        "pooled": pooled,
        "bins": bins,
        "empty": sum(of["status"] != "ok" for of in each),
        "missed_structure": sum(bool(of["missed_structure"]) for of in each),
    }


def pooled_bins(of_cases: Sequence[Sequence[Mapping]]) -> list[dict]:
    """Bins of a reliability diagram of all cases' voxels together; confidence and accuracy are 0 in an empty bin."""
    if not of_cases:
        return []
    found = []
    for same in zip(*of_cases, strict=True):
        n = sum(int(item["n"]) for item in same)
        sums = {key: sum(item["n"] * item[key] for item in same if item["n"]) for key in ("confidence", "accuracy")}
        edges = {key: same[0][key] for key in ("lower", "upper")}
        found.append(edges | {"n": n} | {key: value / n if n else 0.0 for key, value in sums.items()})
    return found


def _errors(figures: Mapping[str, Mapping], domain: str) -> dict:
    each = [of["errors"][domain] for of in figures.values()]
    means = {key: mean_interval([number(of[key]) for of in each]).to_json() for key in ("volume_ml", "error_ml")}
    return means | {
        "domain": next((of["domain"] for of in each), domain),
        "voxels": sum(of["voxels"] for of in each),
        "errors": sum(of["errors"] for of in each),
        "boundary_errors": sum(of["boundary_errors"] for of in each),
        "outside": sum(of["outside"] for of in each),
        "cases_without_errors": sum(of["status"] == "no_errors" for of in each),
        "empty_cases": sum(of["status"] == "empty_roi" for of in each),
    }


def _measures(figures: Mapping[str, Mapping], files: Mapping[str, Path]) -> dict:
    names = dict.fromkeys(name for of in figures.values() for name in of["measures"])
    pooled = _pooled_counts(files)
    found = {}
    for name in names:
        there = {case: of["measures"][name] for case, of in figures.items() if name in of["measures"]}
        first = next(iter(there.values()))
        about = {key: first[key] for key in ("title", "unit", "status")}
        thresholds = {number(of["threshold"]) for of in there.values()}
        sources = dict.fromkeys(of["threshold_source"] for of in there.values())
        threshold = thresholds.pop() if len(thresholds) == 1 else math.nan
        domains = {}
        for domain in next(iter(figures.values()))["errors"]:
            results = {
                case: known_numbers(of["domains"][domain]) for case, of in there.items() if domain in of["domains"]
            }
            if results:
                domains[domain] = localisation_of_cases(results)
                domains[domain]["pooled"] = _pooled(pooled.get((name, domain)), threshold)
        found[name] = about | {
            "threshold": threshold,
            "threshold_source": ", ".join(map(str, sources)),
            "domains": domains,
        }
    return found


def known_numbers(result: object) -> object:
    """A stored result with NaN where JSON has null, without what it says of single structures, which Dice says already."""
    if isinstance(result, Mapping):
        return {key: known_numbers(value) for key, value in result.items() if key != "classes"}
    if isinstance(result, list):
        return [known_numbers(value) for value in result]
    return math.nan if result is None else result


def _pooled_counts(files: Mapping[str, Path]) -> dict[tuple[str, str], LocalisationCounts]:
    together: dict[tuple[str, str], LocalisationCounts] = {}
    for path in files.values():
        for key, counts in read_counts(path.with_suffix(".npz")).items():
            together.setdefault(key, LocalisationCounts()).merge(counts)
    return together


def _pooled(counts: LocalisationCounts | None, threshold: float) -> dict:
    if counts is None:
        return {}
    thresholds = {} if math.isnan(threshold) else {STORED: threshold}
    found = localisation_result(counts, thresholds, BUDGETS)
    return {"n": found["n"], "errors": found["errors"], "status": found["status"]} | scalar_figures(found)


def regions_together(regions: Sequence[Mapping]) -> dict:
    """How often a listed region holds an error, by kind, and of the stated chances whether they come true.

    `kinds`: {kind: {"regions", "holding_error", "share"}}. `reliability`: bins of equally many regions by their stated chance,
    each {"n", "chance", "share"}, with `brier` and `ece` (`region_reliability`); `with_chance`; NaN or empty without.
    """
    known = [region for region in regions if region["holds_error"] is not None]
    kinds = {}
    for kind in dict.fromkeys(region["kind"] for region in known):
        held = [region["holds_error"] for region in known if region["kind"] == kind]
        kinds[kind] = {"regions": len(held), "holding_error": sum(held), "share": sum(held) / len(held)}
    stated = [region for region in known if region.get("chance") is not None]
    reliable = region_reliability([r["chance"] for r in stated], [r["holds_error"] for r in stated])
    return {
        "regions": len(regions), "known": len(known), "with_chance": len(stated), "kinds": kinds,
        "reliability": reliable["bins"], "brier": reliable["brier"], "ece": reliable["ece"],
    }  # fmt: skip
