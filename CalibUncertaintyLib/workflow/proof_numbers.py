"""The numbers of a proof: its figures by case, how they are written, and what they say together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import CalibUncertaintyError
from ..evaluation.statistics import (
    DRAWS,
    LEVEL,
    MeanInterval,
    mean_interval,
    paired_difference,
    subject_limit,
    subject_shares,
    wilcoxon_signed_rank,
)

SEED = 0
UNKNOWN = "–"
FEW_VOXELS = 1000  # bins with fewer are not read in a reliability diagram (Mehrtash et al. 2020)


@dataclass(frozen=True)
class Metric:
    """One figure of a case: how it is named, written and read.

    factor: from the stored value to the unit shown (fractions are shown in percent). better: "lower", "higher", "zero" or "".
    """

    key: str
    title: str
    unit: str
    factor: float
    digits: int
    better: str
    meaning: str

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def text(self, value: float, signed: bool = False) -> str:
        """The value in the unit shown, without it; a dash where it is unknown."""
        if math.isnan(value):
            return UNKNOWN
        text = f"{value * self.factor:{'+' if signed or self.key == 'signed_gap' else ''}.{self.digits}f}"
        if not float(text):
            text = text.lstrip("+-")
        return text.replace("-", "\N{MINUS SIGN}")


METRICS = (
    Metric("nll", "NLL", "nats", 1, 3, "lower", "negative log-likelihood: mean of −ln of the probability of the true structure"),
    Metric("brier_sum", "Brier, sum", "", 1, 4, "lower", "squared error of the probabilities, summed over the structures; 0 to 2"),
    Metric("brier_mean", "Brier, mean", "", 1, 4, "lower", "the same divided by the number of structures (Mehrtash 2020)"),
    Metric("ece_toplabel", "ECE", "%", 100, 2, "lower", "expected calibration error of the highest probability: mean distance"
           " between stated confidence and observed accuracy over bins, by their voxels (Guo 2017)"),
    Metric("smooth_ece", "Smooth ECE", "%", 100, 2, "lower", "the same with a kernel instead of bins"),
    Metric("mce_toplabel", "MCE", "%", 100, 2, "lower", "the largest such distance of any bin with enough voxels"),
    Metric("ece_class", "Class-wise ECE", "%", 100, 2, "lower", "ECE of every structure's own probability, then the mean"),
    Metric("ace_class", "Class-wise ACE", "%", 100, 2, "lower", "as class-wise ECE, every bin weighing the same"),
    Metric("signed_gap", "Signed gap", "%", 100, 2, "zero", "mean confidence less accuracy; above 0 the model is over-confident"),
    Metric("absolute_gap", "|Gap|", "%", 100, 2, "lower", "the gap of each case without its sign"),
    Metric("accuracy", "Accuracy", "%", 100, 2, "higher", "share of voxels that are right; calibration that keeps the labels"
           " keeps it"),
    Metric("mean_confidence", "Mean confidence", "%", 100, 2, "", "mean of the highest probability"),
    Metric("dice", "Dice, mean", "", 1, 3, "higher", "overlap with the reference, mean over the structures that are there"),
)  # fmt: skip
BY_KEY = {metric.key: metric for metric in METRICS}
DICE = BY_KEY["dice"]
IN_CASE_TABLE = ("nll", "brier_sum", "brier_mean", "ece_toplabel", "signed_gap", "accuracy")


def number(value: object) -> float:
    """A stored value as a number; NaN where it is missing, null, or none that could be shown."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return math.nan
    return float(value)


def check_proof(proof: Mapping) -> None:
    """Refuse a proof without figures before and after.

    :raises CalibUncertaintyError: naming what is missing; one line.
    """
    figures = proof.get("figures")
    for when in ("before", "after"):
        found = figures.get(when) if isinstance(figures, Mapping) else None
        if not isinstance(found, Mapping) or not isinstance(found.get("cases"), Mapping) or not found["cases"]:
            raise CalibUncertaintyError(
                f"the calibration '{proof.get('title', '')}' holds no figures of its cases {when} calibration;"
                " calibrate the model again to get a proof"
            )
        for case, values in found["cases"].items():
            if not isinstance(values, Mapping):
                raise CalibUncertaintyError(
                    f"the figures of case {case} {when} calibration are damaged; calibrate the model again"
                )


def case_ids(proof: Mapping) -> list[str]:
    """All cases, in the order before calibration, then those that are there only after it."""
    before, after = (proof["figures"][when]["cases"] for when in ("before", "after"))
    return list(dict.fromkeys([*before, *after]))


def of_case(proof: Mapping, when: str, case: str, key: str) -> float:
    """One figure of one case, as stored; NaN where it is not there. when: "before" or "after"."""
    values = proof["figures"][when]["cases"].get(case, {})
    if key == "absolute_gap":
        return abs(number(values.get("signed_gap")))
    return number(values.get(key))


def column(proof: Mapping, when: str, key: str) -> list[float]:
    """One figure of all cases, in the order of `case_ids`."""
    return [of_case(proof, when, case, key) for case in case_ids(proof)]


def metrics_in(proof: Mapping, keys: Sequence[str] | None = None) -> list[Metric]:
    """The figures that any case has before or after, of those named, in the order of `METRICS`."""
    return [
        metric
        for metric in METRICS
        if (keys is None or metric.key in keys)
        and any(not math.isnan(v) for when in ("before", "after") for v in column(proof, when, metric.key))
    ]


def voxels_of(proof: Mapping, case: str) -> float:
    """Voxels of a case, NaN where they were not counted by case."""
    found = [of_case(proof, when, case, key) for when in ("after", "before") for key in ("n", "voxels")]
    return next((value for value in found if not math.isnan(value)), math.nan)


def pooled(proof: Mapping, when: str, key: str) -> float:
    """A figure of all voxels together."""
    values = proof["figures"][when].get("pooled")
    return number(values.get(key)) if isinstance(values, Mapping) else math.nan


def by_class(figures: Mapping) -> Mapping:
    """What figures say of each structure, by name; empty where they say nothing. Region models have "regions"."""
    found = figures.get("classes") or figures.get("regions") or {}
    return found if isinstance(found, Mapping) else {}


def class_names(proof: Mapping) -> list[str]:
    """The structures with reliability bins, in the model's order."""
    there = {
        name
        for when in ("before", "after")
        for name, values in by_class(proof["figures"][when]).items()
        if isinstance(values, Mapping) and bins_of(values)
    }
    listed = [str(name) for name in proof.get("classes") or ()]
    return [name for name in listed if name in there] + sorted(there - set(listed))


def bins_of(figures: Mapping) -> list[dict]:
    """The bins with voxels, each {lower, upper, n, confidence, accuracy} as numbers."""
    found = []
    for item in figures.get("bins") or ():
        values = {key: number(item.get(key)) for key in ("lower", "upper", "n", "confidence", "accuracy")}
        if values["n"] > 0 and not any(map(math.isnan, values.values())):
            found.append(values)
    return found


def curve_of(bins: Sequence[Mapping]) -> tuple[list[float], list[float]]:
    """Confidence and accuracy in percent of the bins with enough voxels, NaN between two that are no neighbours.

    So a line through them does not pass over bins that are too small to be read, as if they lay on it.
    """
    trusted = [item for item in bins if item["n"] >= FEW_VOXELS]
    x, y = [], []
    for before, item in zip([None, *trusted], trusted, strict=False):
        if before is not None and not math.isclose(before["upper"], item["lower"], abs_tol=1e-9):
            x.append(math.nan)
            y.append(math.nan)
        x.append(100 * item["confidence"])
        y.append(100 * item["accuracy"])
    return x, y


def dice_of(proof: Mapping, when: str, case: str) -> dict[str, float]:
    """Dice of each structure in one case; empty where it was not measured."""
    values = proof["figures"][when]["cases"].get(case, {})
    found = values.get("dice_per_class")
    if not isinstance(found, Mapping):
        found = {
            name: of.get("dice") for name, of in by_class(values).items() if isinstance(of, Mapping) and "dice" in of
        }
    return {str(name): number(value) for name, value in found.items()}


def dice_names(proof: Mapping) -> list[str]:
    """The structures with a Dice in any case, in the model's order."""
    found = [name for when in ("before", "after") for case in case_ids(proof) for name in dice_of(proof, when, case)]
    listed = [str(name) for name in proof.get("classes") or ()]
    return [name for name in listed if name in found] + [n for n in dict.fromkeys(found) if n not in listed]


def changed_labels(proof: Mapping) -> float:
    """How many voxels have another label because of the calibration; NaN where it was not counted."""
    after = proof["figures"]["after"]
    return number(after.get("changed_labels", after.get("changed_by_temperature")))


def changes_decisions(proof: Mapping) -> bool:
    """Whether the calibration may change, or did change, what is segmented."""
    return changed_labels(proof) > 0 or proof.get("preserves") == "none"


def statistics_of(proof: Mapping) -> dict:
    """What the figures of the cases say together, as it stands in proof.json under "statistics".

    - `metrics`: by key "before", "after" and "difference" (after - before; `MeanInterval` over the cases that have both),
      "wilcoxon" (`SignedRank`) and "relative" (change of the mean as a part of that before; NaN where that is 0)
    - `dice`: the same by structure
    - `subjects`: "before" and "after" (`SubjectShares`) with the "limit" of |gap| they share
    - `bootstrap`: draws of cases, level, method, seed
    """
    metrics = {
        m.key: _compared(column(proof, "before", m.key), column(proof, "after", m.key)) for m in metrics_in(proof)
    }
    ids = case_ids(proof)
    dice = {
        name: _compared(
            *([dice_of(proof, when, case).get(name, math.nan) for case in ids] for when in ("before", "after"))
        )
        for name in dice_names(proof)
    }
    gaps = {when: column(proof, when, "signed_gap") for when in ("before", "after")}
    limit = subject_limit(_whole_gap(proof, when, gaps[when]) for when in gaps)
    return {
        "metrics": metrics,
        "dice": dice,
        "subjects": {when: subject_shares(values, limit).to_json() for when, values in gaps.items()} | {"limit": limit},
        "changed_labels": changed_labels(proof),
        "bootstrap": {"draws": DRAWS, "level": LEVEL, "method": "bca", "seed": SEED},
    }


def _whole_gap(proof: Mapping, when: str, gaps: Sequence[float]) -> float:
    """The gap of the whole data set: pooled, or where that was not stored the mean over cases."""
    whole = pooled(proof, when, "signed_gap")
    return mean_interval(gaps, draws=1).mean if math.isnan(whole) else whole


def _compared(before: Sequence[float], after: Sequence[float]) -> dict:
    complete = [not (math.isnan(b) or math.isnan(a)) for b, a in zip(before, after, strict=True)]
    first, second = ([v if ok else math.nan for v, ok in zip(of, complete, strict=True)] for of in (before, after))
    means: dict[str, MeanInterval] = {
        "before": mean_interval(first, seed=SEED),
        "after": mean_interval(second, seed=SEED),
    }
    start = means["before"].mean
    return {
        **{when: found.to_json() for when, found in means.items()},
        "difference": paired_difference(first, second, seed=SEED).to_json(),
        "relative": means["after"].mean / start - 1.0 if start else math.nan,
        "wilcoxon": wilcoxon_signed_rank(first, second).to_json(),
    }
