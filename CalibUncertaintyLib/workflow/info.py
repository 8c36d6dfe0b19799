"""The verb `info`: what is in a model folder, which members a run would ask, and what it was calibrated for. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from ..calibration.methods import METHODS
from ..errors import CalibUncertaintyError
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_match import in_words
from .applied import calibration_of, temperature_text


def describe(members: MemberSet, mode: str, calibration: str = "auto") -> list[str]:
    """Sentences for a terminal: the model folders, the members, the calibration a run would use, and all that is stored.

    Raises CalibUncertaintyError where a record that was asked for by name does not fit.
    """
    lines = []
    for model, folds in zip(members.models, members.folds, strict=True):
        lines += model.describe(list(folds))
    lines += [f"Members: {members.describe()}; {_count(members)}", f"Flips: {_FLIPS[members.flips]}"]
    lines += [f"Warning: {warning}" for warning in members.warnings]
    applied = calibration_of(members, mode, calibration)
    lines.append(applied.summary(members))
    path = members.models[0].record_path if calibration in ("auto", "none") else Path(calibration)
    return lines + stored_entries(path)


def stored_entries(path: Path) -> list[str]:
    """A line for every entry of a record; what is wrong with it where it cannot be used; nothing where there is none."""
    if not path.exists():
        return []
    try:
        record = CalibrationRecord.read(path)
    except CalibUncertaintyError as error:
        return [f"Record: {error}"]
    return [
        f"Stored in {path.name}: {in_words(entry.members)}, {'with' if entry.members['mirroring'] else 'without'} flips,"
        f" {entry.mode}: {_briefly(entry)},"
        f" {len(entry.cases)} case{'' if len(entry.cases) == 1 else 's'}"
        for entry in record.entries
    ]


_FLIPS = {
    "off": "none",
    "mean": "averaged inside each member, where the model allows them (stock nnU-Net's mirroring)",
    "members": "each flip that the model allows is a member, and so is the unflipped image",
}


def _count(members: MemberSet) -> str:
    networks = len(members.sources())
    count = f"{networks} set{'' if networks == 1 else 's'} of weights"
    if members.flips == "members":
        return f"{count}, {members.least_members} members or more (as many flips as the model allows)"
    return f"{count}, {members.least_members} member{'' if members.least_members == 1 else 's'}"


def _briefly(entry: CalibrationEntry) -> str:
    if entry.method != "temperature":
        return METHODS[entry.method].title if entry.method in METHODS else f"method {entry.method}"
    if entry.member_temperatures:
        return f"temperatures of the members {'; '.join(map(temperature_text, entry.member_temperatures))}"
    return f"temperature {temperature_text(entry.temperature)}"


def temperature_in_words(entry: CalibrationEntry) -> str:
    """ "Temperature 1.020 (95 % interval 0.97 to 1.08)", or one for each region in the order of dataset.json; or the method."""
    if entry.method != "temperature" or entry.member_temperatures:
        briefly = _briefly(entry)
        return briefly[0].upper() + briefly[1:]
    if isinstance(entry.temperature, list | tuple):
        intervals = entry.temperature_interval or [None] * len(entry.temperature)
        shown = [f"{t:.3f}{_interval(i)}" for t, i in zip(entry.temperature, intervals, strict=True)]
        return f"Temperatures of the regions, in the model's order: {', '.join(shown)}"
    return f"Temperature {entry.temperature:.3f}{_interval(entry.temperature_interval)}"


def _interval(interval) -> str:
    return f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
