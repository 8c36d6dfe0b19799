"""`CalibrationRecord`: the fitted temperatures of one model, and the proof that they fit it."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..plain_json import parsed, plain
from .record_check import MEMBER_MODES, MEMBERS_SCHEMA_VERSION, PLAIN_SCHEMA_VERSION, SCHEMA, SCHEMA_VERSION, problem_in
from .record_hash import HASH_KEY, is_as_written, with_content_hash
from .record_match import difference, folds_of, folds_together, goes_beyond_folds, in_words, key_of, same_folds

_ONLY_WHERE_THERE = ("parameters", "member_temperatures", "range", "compared", "context", "regions", "case_scores")
_MODEL_KEYS = ("name", "configuration", "trainer", "labels", "plans_sha256")


@dataclass(frozen=True)
class CalibrationEntry:
    """The calibration of one set of members (`MemberSet`) pooled in one way.

    - `members`: {"folds": [...], "checkpoint": file name, "checkpoints": [{"fold", "checkpoint", "sha256"}], "mirroring": bool},
      and where they are more than folds of one model: "flips": "members", "dropout" with "seed" and "insert_dropout", "models"
      (then each checkpoint says which "model"), "duplicates" (checkpoints left out because they hold another's weights); and
      "step_size" and "precision" where these are not nnU-Net's own
    - `mode`: "pool_logit" or "pool_prob" (pooled, then calibrated), "shared" or "member" (calibrated, then averaged); `method`:
      "temperature" or another calibrator's name
    - `temperature` > 0 of the pooled probability (mode "shared": of each member), its 95 % interval (bootstrap over cases; None
      with one case) and status; None for other methods and mode "member". `member_temperature` > 0, shared by the members for
      expected entropy and mutual information (None: not fitted). A model with regions has a list of each, one a region in the
      order of dataset.json
    - `member_temperatures`: of mode "member", one for each of `members["checkpoints"]`, in their order
    - `parameters`: what another method's calibrator is made of (its `to_json`)
    - `source`: "held_out" cases, "out_of_fold" (each fold on the cases it did not see) or "stored_probabilities"
    - `range`: what the cases looked like (`CalibratedRange`); `compared`: the candidates of `auto`, with their held-out figures
    - `roi`: {"distance_mm": 15.0, "reference": "union"}, or "body" for all of the patient; `cases`: ids
    - `figures`: {"before": {...}, "after": {...}} on the calibration cases
    - `thresholds`: {measure: {"value", "unit", "mean_error_dice"}}, and "errors": "off_borders" where only errors away from
      predicted surfaces were looked for, by a measure that is dark along them
    - `context`: what uncertainty is usual at which place (`ContextLaw`), for measures that look at surroundings; `regions`:
      {measure: how often regions of this kind and score held a real error (`RegionCalibration`)}
    - `case_scores`: how uncertain the calibration cases and their structures were as wholes (`CaseScores`); of 3 cases and more
    - `extra`: fields of later versions, kept when the record is written again
    """

    members: dict
    mode: str
    temperature: float | Sequence[float] | None
    roi: dict
    cases: Sequence[str]
    method: str = "temperature"
    temperature_interval: Sequence | None = None
    temperature_status: str = "ok"
    member_temperature: float | Sequence[float] | None = None
    figures: dict = field(default_factory=dict)
    thresholds: dict = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now())
    parameters: dict | None = None
    member_temperatures: Sequence | None = None
    source: str = "held_out"
    range: dict | None = None
    compared: Sequence[dict] = ()
    context: dict | None = None
    regions: dict | None = None
    case_scores: dict | None = None
    extra: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain JSON values; NaN and infinite figures become null; what an entry does not have is left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        values = {key: value for key, value in values.items() if key not in _ONLY_WHERE_THERE or value}
        if values["source"] == "held_out":
            del values["source"]
        values["temperature_interval"] = _known_interval(values["temperature_interval"])
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
    def read(cls, path: str | Path, as_written: bool = True) -> CalibrationRecord:
        """Read and check a record.

        :param as_written: refuse one whose content was changed after it was written.
        :raises CalibUncertaintyError: missing, unreadable, not JSON, of another version, or with a wrong field; the one line
            names the file, the field and what to do.
        """
        path = Path(path)
        remedy = "calibrate the model again or give another record"
        try:
            document = parsed(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CalibUncertaintyError(f"there is no calibration record {path}; calibrate the model first") from error
        except OSError as error:
            raise CalibUncertaintyError(f"the calibration record {path} cannot be read: {error.strerror}") from error
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
            raise CalibUncertaintyError(
                f"the calibration record {path} is damaged (no valid JSON); {remedy}"
            ) from error
        problem = problem_in(document)
        if problem:
            raise CalibUncertaintyError(f"the calibration record {path} cannot be used: {problem}; {remedy}")
        if as_written and is_as_written(document) is False:
            raise CalibUncertaintyError(
                f"the calibration record {path} was changed after it was written (its content does not give its hash); {remedy}"
            )
        known = {item.name for item in fields(cls)} | {"schema", "schema_version", HASH_KEY}
        return cls(
            model=document["model"],
            entries=[CalibrationEntry.from_json(entry) for entry in document["entries"]],
            created=document["created"],
            versions=document["versions"],
            extra={key: value for key, value in document.items() if key not in known},
        )

    def to_json(self) -> dict:
        """The document as it is stored."""
        return plain(
            self.extra
            | {
                "schema": SCHEMA,
                "schema_version": max(map(_version_of, self.entries), default=PLAIN_SCHEMA_VERSION),
                "model": self.model,
                "entries": [entry.to_json() for entry in self.entries],
                "created": self.created,
                "versions": self.versions,
            }
        )

    def write(self, path: str | Path) -> None:
        """Write the record aside and rename it into place: a reader sees the old record or the new one, never half of one.

        :raises CalibUncertaintyError: when a field is wrong (nothing is written) or the place cannot be written to.
        """
        path = Path(path)
        document = with_content_hash(self.to_json())
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
        """Add an entry in place of the one with the same folds, checkpoint names, flips, dropout, step size, precision and mode."""
        key = key_of(entry.members, entry.mode)
        kept = [other for other in self.entries if key_of(other.members, other.mode) != key]
        self.entries = [*kept, entry]

    def find(self, fingerprint: Mapping, mode: str, mirroring: bool) -> tuple[CalibrationEntry | None, str]:
        """The entry made for exactly these members, or None and why not.

        Nothing is guessed: another weight file, fold, label, configuration, flip, dropout sample, step size, precision or mode
        finds nothing. Several models may be asked in another order.

        :param fingerprint: `MemberSet.fingerprint` (for folds of one model: `ModelFolder.fingerprint`) of the members in use.
        :param mode: "pool_logit", "pool_prob", "shared" or "member".
        :param mirroring: whether the run uses flips, inside each member or as members (then the fingerprint says so).
        :returns: the entry and a sentence that says what it is, or None and a sentence that names what differs.
        """
        reason = self._other_model(fingerprint)
        if reason:
            return None, reason
        candidates = [entry for entry in self.entries if same_folds(entry.members, fingerprint)]
        if not candidates:
            there = "; ".join(dict.fromkeys(folds_together(entry.members["folds"]) for entry in self.entries))
            if not there:
                return None, "the calibration record is empty"
            return None, f"the model was calibrated for {there}, not for {folds_together(folds_of(fingerprint))}"
        closest, reason = -1, ""
        for entry in candidates:
            differences = [*difference(entry.members, fingerprint, mirroring), _other_mode(entry, mode)]
            if not any(differences):
                limit = "" if entry.temperature_status == "ok" else f", at its limit ({entry.temperature_status})"
                return entry, (
                    f"calibrated on {len(entry.cases)} case{'s' if len(entry.cases) != 1 else ''} "
                    f"for {in_words(entry.members)}, {_in_words(entry)}{limit}"
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
        asked = (
            {key: model.get(key) for key in ("configuration", "plans_sha256")}
            for model in fingerprint.get("models", ())
        )
        if any(model.items() <= self.model.items() for model in asked):
            return ""  # several models are asked together, in whatever order: this record lies beside one of them
        if self.model["configuration"] != fingerprint["configuration"]:
            return (
                f"the record was made for the configuration {self.model['configuration']} of {name}, "
                f"not for {fingerprint['configuration']}"
            )
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


def _other_mode(entry: CalibrationEntry, mode: str) -> str:
    return "" if entry.mode == mode else f"the record was made for folds pooled as {entry.mode}, not as {mode}"


def _in_words(entry: CalibrationEntry) -> str:
    if entry.method != "temperature":
        return f"method {entry.method}"
    if entry.member_temperatures:
        return "a temperature for each of them"
    if isinstance(entry.temperature, list | tuple):
        return f"temperatures {', '.join(f'{value:.3g}' for value in entry.temperature)}"
    return f"temperature {entry.temperature:.3g}"


def _version_of(entry: CalibrationEntry) -> int:
    """The oldest version of the schema whose programs take this entry for what it is."""
    if entry.method != "temperature" or entry.mode in MEMBER_MODES:
        return SCHEMA_VERSION
    new = isinstance(entry.temperature, list | tuple) or goes_beyond_folds(entry.members)
    return MEMBERS_SCHEMA_VERSION if new else PLAIN_SCHEMA_VERSION


def _known_interval(interval: Sequence | None) -> list | None:
    """The interval, or of each region its own; None in place of one that was not found (NaN)."""
    if interval is None:
        return None
    if all(isinstance(end, numbers.Real) for end in interval):
        return list(interval) if all(math.isfinite(end) for end in interval) else None
    return [_known_interval(of_region) for of_region in interval]


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
