"""`CalibrationRecord`: the fitted temperatures of one model, and the proof that they fit it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..plain_json import plain
from .record_check import SCHEMA, SCHEMA_VERSION, problem_in

_MODEL_KEYS = ("name", "configuration", "trainer", "labels", "plans_sha256")


@dataclass(frozen=True)
class CalibrationEntry:
    """The calibration of one set of members (folds, checkpoint, mirroring) pooled in one way.

    - `members`: {"folds": [...], "checkpoint": file name, "checkpoints": [{"fold", "checkpoint", "sha256"}], "mirroring": bool}
    - `mode`: "pool_logit" or "pool_prob"; `method`: "temperature"
    - `temperature` > 0 of the pooled probability, its 95 % interval (bootstrap over cases; None with one case) and status;
      `member_temperature` > 0, shared by the members for expected entropy and mutual information (None: not fitted)
    - `roi`: {"distance_mm": 15.0, "reference": "union"}; `cases`: ids
    - `figures`: {"before": {...}, "after": {...}} on the calibration cases
    - `thresholds`: {measure: {"value", "unit", "mean_error_dice"}}
    - `extra`: fields of later versions, kept when the record is written again
    """

    members: dict
    mode: str
    temperature: float
    roi: dict
    cases: Sequence[str]
    method: str = "temperature"
    temperature_interval: Sequence[float] | None = None
    temperature_status: str = "ok"
    member_temperature: float | None = None
    figures: dict = field(default_factory=dict)
    thresholds: dict = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now())
    extra: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain JSON values; NaN and infinite figures become null."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        interval = values["temperature_interval"]
        if interval is not None and not all(math.isfinite(end) for end in interval):
            values["temperature_interval"] = None
        return plain(self.extra | values)

    @classmethod
    def from_json(cls, document: Mapping) -> CalibrationEntry:
        """The entry that `to_json` described."""
        known = {item.name for item in fields(cls)} - {"extra"}
        values = {key: value for key, value in document.items() if key in known}
        return cls(**values, extra={key: value for key, value in document.items() if key not in known})


@dataclass
class CalibrationRecord:
    """The file beside a model that holds its calibration, one entry for each set of members and way of pooling.

    `model`: {"name", "configuration", "trainer", "labels": {"1": name}, "plans_sha256"}; more of a fingerprint may be there.
    """

    model: dict
    entries: list[CalibrationEntry] = field(default_factory=list)
    created: str = field(default_factory=lambda: _now())
    versions: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)

    @classmethod
    def for_model(cls, fingerprint: Mapping, versions: Mapping | None = None) -> CalibrationRecord:
        """A new record without entries for the model with this fingerprint (`ModelFolder.fingerprint`)."""
        model = {key: fingerprint.get(key, "") for key in _MODEL_KEYS}
        return cls(model={**model, "labels": _labels(model)}, versions=dict(versions or {}))

    @classmethod
    def read(cls, path: str | Path) -> CalibrationRecord:
        """Read and check a record.

        :raises CalibUncertaintyError: missing, unreadable, not JSON, of another version, or with a wrong field; the one line
            names the file, the field and what to do.
        """
        path = Path(path)
        remedy = "calibrate the model again or give another record"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CalibUncertaintyError(f"there is no calibration record {path}; calibrate the model first") from error
        except OSError as error:
            raise CalibUncertaintyError(f"the calibration record {path} cannot be read: {error.strerror}") from error
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
            raise CalibUncertaintyError(f"the calibration record {path} is damaged (no valid JSON); {remedy}") from error
        problem = problem_in(document)
        if problem:
            raise CalibUncertaintyError(f"the calibration record {path} cannot be used: {problem}; {remedy}")
        known = {item.name for item in fields(cls)} | {"schema", "schema_version"}
        return cls(
            model=document["model"],
            entries=[CalibrationEntry.from_json(entry) for entry in document["entries"]],
            created=document["created"],
            versions=document["versions"],
            extra={key: value for key, value in document.items() if key not in known},
        )

    def to_json(self) -> dict:
        """The document as it is stored."""
        return plain(self.extra | {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "entries": [entry.to_json() for entry in self.entries],
            "created": self.created,
            "versions": self.versions,
        })

    def write(self, path: str | Path) -> None:
        """Write the record aside and rename it into place: a reader sees the old record or the new one, never half of one.

        :raises CalibUncertaintyError: when a field is wrong (nothing is written) or the place cannot be written to.
        """
        path = Path(path)
        document = self.to_json()
        problem = problem_in(document)
        if problem:
            raise CalibUncertaintyError(f"the calibration record for {path} was not written: {problem}")
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=2, ensure_ascii=False, allow_nan=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, path)
        except OSError as error:
            _remove(aside)
            raise CalibUncertaintyError(
                f"the calibration record {path} cannot be written: {error.strerror}; "
                "the model folder may be read-only, give another place with --out"
            ) from error

    def put(self, entry: CalibrationEntry) -> None:
        """Add an entry, in place of the one with the same folds, checkpoint name, mirroring and mode; keep all others."""
        kept = [other for other in self.entries if _key(other) != _key(entry)]
        self.entries = [*kept, entry]

    def find(self, fingerprint: Mapping, mode: str, mirroring: bool) -> tuple[CalibrationEntry | None, str]:
        """The entry made for exactly these members, or None and why not.

        Nothing is guessed: another weight file, fold, label, configuration, mirroring or mode finds nothing.

        :param fingerprint: `ModelFolder.fingerprint` of the folds in use.
        :param mode: "pool_logit" or "pool_prob".
        :param mirroring: whether the run uses nnU-Net's mirroring.
        :returns: the entry and a sentence that says what it is, or None and a sentence that names what differs.
        """
        reason = self._other_model(fingerprint)
        if reason:
            return None, reason
        wanted = fingerprint["checkpoints"]
        folds = [item["fold"] for item in wanted]
        candidates = [entry for entry in self.entries if _same_folds(entry.members["folds"], folds)]
        if not candidates:
            there = "; ".join(dict.fromkeys(_folds_in_words(entry.members["folds"]) for entry in self.entries))
            if not there:
                return None, "the calibration record is empty"
            return None, f"the model was calibrated for {there}, not for {_folds_in_words(folds)}"
        closest, reason = -1, ""
        for entry in candidates:
            differences = [_other_weights(entry, wanted), _other_mirroring(entry, mirroring), _other_mode(entry, mode)]
            if not any(differences):
                limit = "" if entry.temperature_status == "ok" else f", at its limit ({entry.temperature_status})"
                return entry, (
                    f"calibrated on {len(entry.cases)} case{'s' if len(entry.cases) != 1 else ''} "
                    f"for {_folds_in_words(folds)}, temperature {entry.temperature:.3g}{limit}"
                )
            agreements = differences.count("")
            if agreements > closest:
                closest, reason = agreements, next(filter(None, differences))
        return None, reason

    def is_of_another_model(self, fingerprint: Mapping) -> bool:
        """Whether this record was made for other structures, another configuration or other plans (names may differ)."""
        return bool(self._other_model(fingerprint))

    def _other_model(self, fingerprint: Mapping) -> str:
        """Why this is another model's record; empty when it is this one's."""
        name = self.model["name"]
        made_for = f"the record was made for another model ({name})"
        mine, theirs = _labels(self.model), _labels(fingerprint)
        if mine != theirs:
            only_mine = [label for label in mine.values() if label not in theirs.values()]
            only_theirs = [label for label in theirs.values() if label not in mine.values()]
            if only_mine:
                return f"{made_for}: it has {only_mine[0]}, which this model has not"
            if only_theirs:
                return f"{made_for}: it does not have {only_theirs[0]}, which this model has"
            return f"{made_for}: it has the same structures under other numbers"
        if self.model["configuration"] != fingerprint["configuration"]:
            return (f"the record was made for the configuration {self.model['configuration']} of {name}, "
                    f"not for {fingerprint['configuration']}")
        if self.model["plans_sha256"] != fingerprint["plans_sha256"]:
            return f"{made_for}: its plans.json is not this model's"
        return ""


def find_calibration(
    path: str | Path, fingerprint: Mapping, mode: str, mirroring: bool
) -> tuple[CalibrationEntry | None, str]:
    """`CalibrationRecord.find` on a file that may be missing or damaged: None and the reason, nothing is raised."""
    if not Path(path).exists():
        return None, f"the model has no calibration record ({Path(path).name})"
    try:
        record = CalibrationRecord.read(path)
    except CalibUncertaintyError as error:
        return None, str(error)
    return record.find(fingerprint, mode, mirroring)


def _other_weights(entry: CalibrationEntry, wanted: Sequence[Mapping]) -> str:
    stored = {str(item["fold"]): item for item in entry.members["checkpoints"]}
    for item in wanted:
        mine = stored[str(item["fold"])]
        if mine["checkpoint"] != item["checkpoint"]:
            return (f"the record was made with fold {item['fold']}'s {mine['checkpoint']}, "
                    f"not with its {item['checkpoint']}")
        if mine["sha256"] != item["sha256"]:
            return (f"fold {item['fold']}'s weights (fold_{item['fold']}/{item['checkpoint']}) "
                    "are not the ones this record was made with")
    return ""


def _other_mirroring(entry: CalibrationEntry, mirroring: bool) -> str:
    if bool(entry.members["mirroring"]) == bool(mirroring):
        return ""
    made, asked = ("with", "without") if entry.members["mirroring"] else ("without", "with")
    return f"the record was made {made} mirroring, and this run is {asked} it"


def _other_mode(entry: CalibrationEntry, mode: str) -> str:
    return "" if entry.mode == mode else f"the record was made for folds pooled as {entry.mode}, not as {mode}"


def _same_folds(first: Sequence, second: Sequence) -> bool:
    return sorted(map(str, first)) == sorted(map(str, second))


def _folds_in_words(folds: Sequence) -> str:
    names = [str(fold) for fold in folds]
    if len(names) == 1:
        return f"fold {names[0]} alone"
    return f"folds {', '.join(names[:-1])} and {names[-1]} together"


def _key(entry: CalibrationEntry) -> tuple:
    members = entry.members
    return sorted(map(str, members["folds"])), members["checkpoint"], bool(members["mirroring"]), entry.mode


def _labels(model: Mapping) -> dict[str, str]:
    """Labels with their numbers as text, as JSON has them."""
    return {str(index): str(name) for index, name in model["labels"].items()}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the failure to write is what will be reported


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
