"""The verb `check`: what calibration is stored with a model, whether it holds, and whether a CT lies within it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.member_set import MemberSet
from ..model.record import CalibrationRecord
from ..model.record_check import PLAIN_SCHEMA_VERSION, SCHEMA_VERSION, problem_in
from ..model.record_hash import is_as_written
from ..model.record_match import PRECISION, STEP_SIZE, computing
from ..plain_json import parsed
from ..volume import Volume
from .check_entry import EntryReport, report_on
from .traits import CaseTraits, traits_of_ct

CHANGED = (
    "the record was changed after it was written (its content_sha256 does not fit): by hand, by a version of CalibUncertainty that"
    " does not know it, or by damage; its values prove nothing, calibrate again"
)
UNPROTECTED = (
    "The record holds no content_sha256, so that an edit by hand would not be noticed; calibrating again adds it"
)


@dataclass(frozen=True)
class CheckReport:
    """What `check_model` found.

    ok: the record is as it was written and holds for the members asked for. verdict: one sentence that says so, or why not.
    record: the file looked at; head: what it is; problems: what else is wrong with the file; warnings: what does not stop it from
    holding. entries: everything stored in it; chosen: index of the entry that holds, None where none does. ct: None where no CT
    was given; outside: its traits that lie outside what was calibrated; ct_note: why it could not be compared, or how little that
    says.
    """

    ok: bool
    verdict: str
    record: Path
    head: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: tuple[EntryReport, ...] = ()
    chosen: int | None = None
    ct: CaseTraits | None = None
    outside: tuple[str, ...] = ()
    ct_note: str = ""

    @property
    def exit_status(self) -> int:
        """Of the terminal: 0 holds, 1 does not hold. A CT outside the range warns and does not change it."""
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """Sentences for a terminal, the answer first."""
        lines = [f"{'HOLDS' if self.ok else 'DOES NOT HOLD'}: {self.verdict}"]
        lines += [f"Problem: {problem}" for problem in self.problems]
        lines += [f"Warning: {warning}" for warning in self.warnings]
        lines += self.head
        for index, entry in enumerate(self.entries):
            asked = ", the one that holds for these members" if index == self.chosen else ""
            lines += ["", f"Entry {index + 1} of {len(self.entries)}{asked}: {entry.title}"]
            lines += [f"  {line}" for line in entry.lines]
            lines += [f"  Problem: {problem}" for problem in entry.problems]
            lines += [f"  Warning: {warning}" for warning in entry.warnings]
        return lines + self._ct_lines()

    def to_json(self) -> dict:
        """For a panel: the answer, and the sentences."""
        return {
            "ok": self.ok, "verdict": self.verdict, "record": str(self.record), "problems": list(self.problems),
            "warnings": list(self.warnings), "chosen": self.chosen, "outside": list(self.outside), "ct_note": self.ct_note,
            "entries": [entry.to_json() for entry in self.entries],
        }  # fmt: skip

    def _ct_lines(self) -> list[str]:
        if self.ct is None:
            return []
        lines = ["", f"CT: {_ct_in_words(self.ct)}"]
        lines += [f"Warning: {sentence}" for sentence in self.outside]
        if not self.outside and not (self.chosen is None or self.entries[self.chosen].range is None):
            lines.append("Spacing, field of view and HU lie within what was calibrated; the rest shows only in a run")
        return lines + ([self.ct_note] if self.ct_note else [])


def check_model(
    members: MemberSet, mode: str, calibration: str | Path = "auto", ct: Volume | None = None, *, step_size: float = STEP_SIZE,
    precision: str = PRECISION,
) -> CheckReport:  # fmt: skip
    """Look at the stored calibration of a model: is it whole, does it hold for these members, and for a CT like this one.

    members, mode, step_size, precision: of the run that is asked about. calibration: auto for the record beside the model, or a
    record file. ct: the image whose traits are compared, the first of several channels.
    Every checkpoint that any entry names is hashed, which takes about a second for each.
    Raises CalibUncertaintyError where `calibration` is none, a named file does not exist, or the CT cannot be looked at.
    """
    if str(calibration) == "none":
        raise CalibUncertaintyError("without a calibration there is nothing to check; leave --calibration none out")
    traits = (
        None if ct is None else traits_of_ct(ct)
    )  # a CT that cannot be looked at is refused before files are hashed
    return _with_ct(_check_stored(members, mode, calibration, step_size, precision), traits)


def with_ct(report: CheckReport, ct: Volume) -> CheckReport:
    """The same report, and whether the entry that holds is for a CT like this one. No file is looked at again.

    Raises CalibUncertaintyError where no voxel of the CT is a number.
    """
    return _with_ct(report, traits_of_ct(ct))


def _check_stored(
    members: MemberSet, mode: str, calibration: str | Path, step_size: float, precision: str
) -> CheckReport:
    if str(calibration) != "auto":
        if not Path(calibration).is_file():
            raise CalibUncertaintyError(f"there is no calibration record {calibration}; name one that is there")
        return _check_file(Path(calibration), members, mode, step_size, precision)
    paths = [model.record_path for model in members.models]
    reports = [_check_file(path, members, mode, step_size, precision) for path in paths if path.exists()]
    if not reports:
        return CheckReport(
            False, f"there is no {paths[0].name} in {paths[0].parent}; calibrate the model first", paths[0]
        )
    # as a run does: the first of several models' records that fits
    return next((report for report in reports if report.chosen is not None), reports[0])


def _check_file(path: Path, members: MemberSet, mode: str, step_size: float, precision: str) -> CheckReport:
    try:
        document = parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        return CheckReport(False, f"{path} cannot be read ({error.strerror})", path)
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        return CheckReport(False, f"{path} is damaged: it is no valid JSON{where}; calibrate the model again", path)
    as_written = is_as_written(document) if isinstance(document, Mapping) else None
    changed = (CHANGED,) if as_written is False else ()
    problem = problem_in(document)
    if problem:
        return CheckReport(False, f"{path} cannot be used: {problem}; calibrate the model again", path, (), changed)
    record = CalibrationRecord.read(path, as_written=False)
    entry, reason = record.find(members.fingerprint() | computing(step_size, precision), mode, members.mirroring)
    entries = tuple(report_on(stored, record, path, members) for stored in record.entries)
    chosen = None if entry is None else next(i for i, stored in enumerate(record.entries) if stored is entry)
    if entry is not None and changed:
        reason = f"it would be used as {reason}, but the record was changed after it was written"
    head, unsure = _head(record, document, as_written), (UNPROTECTED,) if as_written is None else ()
    warnings = (*members.warnings, *unsure)
    return CheckReport(entry is not None and not changed, reason, path, head, changed, warnings, entries, chosen)


def _head(record: CalibrationRecord, document: Mapping, as_written: bool | None) -> tuple[str, ...]:
    version = document["schema_version"]
    structures = ", ".join(map(str, record.model["labels"].values()))
    known = {name: text for name, text in record.versions.items() if isinstance(text, str)}
    return (
        f"Record: of {record.model['name']}, {record.model['configuration']} ({structures}); begun {record.created}; schema"
        f" version {version} ({PLAIN_SCHEMA_VERSION} to {SCHEMA_VERSION} can be read)",
        "Content: " + {True: "as it was written", False: "CHANGED", None: "not protected by a hash"}[as_written],
        f"Last written with: {', '.join(f'{name} {text}' for name, text in known.items()) or 'versions not stored'}",
    )


def _with_ct(report: CheckReport, traits: CaseTraits | None) -> CheckReport:
    if traits is None:
        return report
    if report.chosen is None:
        note = "The CT was not compared: nothing that is stored holds for these members"
        return replace(report, ct=traits, ct_note=note)
    known = report.entries[report.chosen].range
    if known is None:
        note = "The CT was not compared: what the entry's cases looked like is not known; calibrating again adds it"
        return replace(report, ct=traits, ct_note=note)
    return replace(report, ct=traits, outside=tuple(known.warnings_for(traits)), ct_note=known.caution())


def _ct_in_words(traits: CaseTraits) -> str:
    spacing = " x ".join(f"{step:.3g}" for step in traits.spacing_mm)
    view = " x ".join(f"{size:.0f}" for size in traits.field_of_view_mm)
    low, median, high = (f"{value:.0f}" for value in traits.hu)
    return (
        f"voxels of {spacing} mm and {view} mm in all (z, y, x); the body is {100 * traits.body_share:.0f} % of it, with {low},"
        f" {median} and {high} HU (percentiles 0.5, 50 and 99.5)"
    )
