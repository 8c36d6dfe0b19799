"""One entry of a calibration record for people: what is stored, whether its weights are still there, how much it proves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.calibrated_range import FEW_CASES, CalibratedRange
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_check import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from ..model.record_match import in_words
from .info import temperature_in_words

GAP_LEFT = 0.05  # a gap or an ECE above this, on the very cases it was fitted on, is said
CASES_NAMED = 50
FIGURES = (("nll", "NLL"), ("ece_toplabel", "ECE (top label)"), ("brier_mean", "Brier score"))
_LIMITS = {
    "separable": "every voxel of the cases was right, so any surer probability fits better",
    "uninformative": "the logits of the cases say nothing about what is right",
}


@dataclass(frozen=True)
class EntryReport:
    """An entry in words. problems: why it does not hold for what lies in the model folder now; warnings: how little it proves.

    range: what its cases looked like, None where it does not say or that part is damaged.
    """

    title: str
    lines: tuple[str, ...]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    range: CalibratedRange | None = field(default=None, repr=False)

    def to_json(self) -> dict:
        """Plain JSON values."""
        return {
            "title": self.title,
            "lines": list(self.lines),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }


def report_on(entry: CalibrationEntry, record: CalibrationRecord, path: Path, members: MemberSet) -> EntryReport:
    """Say what an entry holds and hash every checkpoint it names.

    path: the record's file. members: their model folders are where the checkpoints are looked for.
    """
    stored, range_problem = _range_of(entry)
    looked_at, problems, unseen = _weights(entry.members, record, path, members)
    flips = "with flips" if entry.members["mirroring"] else "without flips"
    return EntryReport(
        f"{in_words(entry.members)}, {flips}, {entry.mode}, {entry.method}",
        (
            temperature_in_words(entry),
            f"{_count(len(entry.cases), 'case')}: {_named(entry)}",
            f"Fitted {_roi_in_words(entry.roi)}",
            *_figures(entry),
            f"Made {entry.created}",
            looked_at,
        ),
        tuple(problems),
        (*unseen, *_doubts(entry), *_doubts_of_range(stored, range_problem)),
        stored,
    )


def _roi_in_words(roi: Mapping) -> str:
    if roi["reference"] == "body":
        return "in the patient's body"
    return f"within {roi['distance_mm']:g} mm of {_REFERENCES[roi['reference']]}"


_REFERENCES = {"union": "prediction or reference", "pred": "the prediction", "gt": "the reference"}


def _range_of(entry: CalibrationEntry) -> tuple[CalibratedRange | None, str]:
    stored = getattr(entry, "range", None) or entry.extra.get("range")
    try:
        return (None if stored is None else CalibratedRange.from_json(stored)), ""
    except CalibUncertaintyError as error:
        return None, str(error)


def _named(entry: CalibrationEntry) -> str:
    more = len(entry.cases) - CASES_NAMED
    return ", ".join(entry.cases[:CASES_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _figure(entry: CalibrationEntry, when: str, key: str) -> float | None:
    """Mean over the calibration cases; None where it is not stored."""
    of_time = entry.figures.get(when)
    figures = of_time.get("per_case") if isinstance(of_time, Mapping) else None
    value = figures.get(key) if isinstance(figures, Mapping) else None
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _figures(entry: CalibrationEntry) -> Iterator[str]:
    shown = []
    for key, title in FIGURES:
        before, after = _figure(entry, "before", key), _figure(entry, "after", key)
        if before is not None and after is not None:
            shown.append(f"{title} {before:.4f} before, {after:.4f} after")
    yield f"On these cases (mean over them): {'; '.join(shown)}" if shown else "No figures before and after are stored"
    gap = _figure(entry, "after", "signed_gap")
    if gap is not None:
        worst = _worst_case(entry)
        case = f"; farthest off is {worst[0]}, {_gap_in_words(worst[1])}" if worst and len(entry.cases) > 1 else ""
        yield f"After calibration these cases are on average {_gap_in_words(gap)}{case}"


def _gap_in_words(gap: float) -> str:
    return f"{100 * abs(gap):.1f} percentage points too {'sure' if gap > 0 else 'unsure'}"


def _worst_case(entry: CalibrationEntry) -> tuple[str, float] | None:
    cases = entry.figures["after"].get("cases")
    gaps = {
        str(name): figures["signed_gap"]
        for name, figures in (cases.items() if isinstance(cases, Mapping) else ())
        if isinstance(figures, Mapping) and _is_number(figures.get("signed_gap"))
    }
    return max(gaps.items(), key=lambda item: abs(item[1]), default=None)


def _doubts(entry: CalibrationEntry) -> Iterator[str]:
    """How little the entry proves, each in a sentence."""
    n = len(entry.cases)
    if n == 0:
        yield "No case is named; what it was fitted on cannot be known"
    elif n == 1:
        yield "Fitted on a single case: there is no interval, and nothing is known about other patients; add cases"
    elif n < FEW_CASES:
        yield f"Fitted on {n} cases only; it takes {FEW_CASES} to say anything about nine patients in ten"
    if entry.temperature_status != "ok":
        why = _LIMITS.get(entry.temperature_status, entry.temperature_status)
        yield f"The temperature ran to its limit: {why}; look at the cases, do not trust the probabilities"
    elif entry.temperature is not None and any(map(_at_limit, np.ravel(entry.temperature))):
        yield (
            f"A temperature lies at the end of the range that is searched ({LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g});"
            " look at the cases"
        )
    yield from _gaps(entry)


def _doubts_of_range(stored: CalibratedRange | None, problem: str) -> Iterator[str]:
    if problem:
        yield f"No CT can be compared with its cases: {problem}"
    elif stored is None:
        yield "It does not hold what its cases looked like, so that no CT can be compared with them; calibrating again adds it"


def _gaps(entry: CalibrationEntry) -> Iterator[str]:
    before, after = _figure(entry, "before", "nll"), _figure(entry, "after", "nll")
    if before is not None and after is not None and after > before:
        yield f"The mean NLL over the cases rose from {before:.4f} to {after:.4f}: the largest case outweighs the others"
    gap, ece = _figure(entry, "after", "signed_gap"), _figure(entry, "after", "ece_toplabel")
    if gap is not None and abs(gap) > GAP_LEFT:
        yield f"A gap is left after calibration: on average {_gap_in_words(gap)} on the very cases it was fitted on"
    elif ece is not None and ece > GAP_LEFT:
        yield f"A gap is left after calibration: ECE {ece:.3f} on the very cases it was fitted on"


def _at_limit(temperature: float) -> bool:
    return any(math.isclose(temperature, end, rel_tol=1e-4) for end in (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))


def _weights(
    stored: Mapping, record: CalibrationRecord, path: Path, members: MemberSet
) -> tuple[str, list[str], list[str]]:
    """How many checkpoint files are as they were; what is missing or another; what could not be looked at."""
    problems, unseen, same = [], [], 0
    for item, model in _files(stored, record, path, members):
        name = f"fold_{item['fold']}/{item['checkpoint']}"
        if model is None:
            unseen.append(f"{name} was not looked at: {_whose(item, stored)} was not given")
        elif problem := _other_file(model, item):
            problems.append(problem)
        else:
            same += 1
    if stored.get("previous") and members.before is None:
        unseen.append(
            "The checkpoints of the cascade's first stage were not looked at: these members have no first stage"
        )
    counted = f"Checkpoint files: {same} as when it was made, {len(problems)} not"
    return counted, [*problems, *_other_plans(stored, record, path, members)], unseen


def _files(
    stored: Mapping, record: CalibrationRecord, path: Path, members: MemberSet
) -> Iterator[tuple[Mapping, ModelFolder | None]]:
    """Every checkpoint an entry names, with its model folder; None where that was not given."""
    owners = _owners(stored, record, path, members)
    for item in stored["checkpoints"]:
        yield item, owners[item.get("model", 0)]
    first, before = stored.get("previous"), members.before
    while first and before:
        for item in first["checkpoints"]:
            yield item, before.models[0]
        first, before = first.get("previous"), before.before


def _owners(stored: Mapping, record: CalibrationRecord, path: Path, members: MemberSet) -> list[ModelFolder | None]:
    """The model folder of each model of an entry, known by plans and configuration; each is one model's only.

    Several models are often trained with the same plans: those whose weights are as they were are taken first.
    """
    left, models = list(members.models), list(stored.get("models") or ())
    if models:
        found: list[ModelFolder | None] = [None] * len(models)
        for weights_too in (True, False):
            for index in (index for index, model in enumerate(found) if model is None):
                items = [item for item in stored["checkpoints"] if item.get("model", 0) == index]
                alike = (model for model in left if _is_model(model, models[index]))
                found[index] = next((m for m in alike if not (weights_too and _count_others(m, items))), None)
                left = [model for model in left if model is not found[index]]
        return found
    beside = next((model for model in left if model.record_path == path), None)
    same_plans = next((model for model in left if _is_model(model, record.model)), None)
    return [beside or same_plans or left[0]]


def _is_model(model: ModelFolder, wanted: Mapping) -> bool:
    return (model.configuration, model.plans_digest()) == (wanted.get("configuration", ""), wanted["plans_sha256"])


def _whose(item: Mapping, stored: Mapping) -> str:
    models = stored.get("models") or ()
    return f"its model {models[item.get('model', 0)]['name']}" if models else "its model"


def _count_others(model: ModelFolder, items: Sequence[Mapping]) -> int:
    return sum(bool(_other_file(model, item)) for item in items)


def _other_file(model: ModelFolder, item: Mapping) -> str:
    name, path = f"fold_{item['fold']}/{item['checkpoint']}", model.checkpoint_path(item["fold"], item["checkpoint"])
    if not path.is_file():
        return f"{name} is missing in {model.path}"
    try:
        now = model.fingerprint([item["fold"]], item["checkpoint"])["checkpoints"][0]["sha256"]
    except CalibUncertaintyError as error:
        return str(error)
    return (
        "" if now == item["sha256"] else f"{name} holds other weights than when the calibration was made ({model.path})"
    )


def _other_plans(stored: Mapping, record: CalibrationRecord, path: Path, members: MemberSet) -> Iterator[str]:
    if stored.get("models"):
        return
    model = _owners(stored, record, path, members)[0]
    if model is not None and model.plans_digest() != record.model["plans_sha256"]:
        yield f"plans.json is another than when the calibration was made ({model.path})"
