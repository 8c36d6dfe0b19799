"""What one may choose about a run of `evaluate`, and the configurations of members that are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.member_set import MemberSet
from ..plain_json import parsed
from .applied import MODES
from .map_writer import file_name
from .options import BODY, STRUCTURES, MemberOptions, SegmentOptions, is_number, paths, refuse_first, roi_rule, truths
from .source_case import is_one_line

REFERENCES = ("pred", "union")
_OF_CONFIGURATION = (
    "name", "model", "folds", "checkpoints", "flips", "mirroring", "dropout", "seed", "insert_dropout", "previous", "mode",
    "calibration",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluateOptions(MemberOptions):
    """Everything one may choose about a run of `evaluate`; see `MemberOptions` for the members.

    configurations: what is compared, a list of dicts or a JSON file with one, each {"name": ..., and of "model", "folds",
    "checkpoints", "flips", "dropout", "seed", "insert_dropout", "previous", "mode", "calibration" what differs from the other
    options}; by default the given members, calibrated and not. mode, calibration: as of `segment`. split: of a list of cases
    with a column "split" (default: test). roi_mm: domain of the figures, within this distance of the structures, mm.
    roi_reference: of which structures errors are looked for near: "pred" (what a new patient has) or "union" (prediction or
    reference); the other is given as well. roi: "structures" for that, or "body": errors are looked for first in the patient's
    body, as runs of `segment` list regions then. measures: "standard", "all" or a list of names. keep_results: keep every
    case's Result folder. resample_labels: bring label maps of another grid to the CT's. workers: cases computed at the same
    time on this machine; scheduler: address of a Dask cluster in place of it. overwrite: compute every case anew.
    """

    configurations: str | os.PathLike | Sequence[Mapping] | None = None
    mode: str = "pool_logit"
    calibration: str = "auto"
    split: str | None = None
    roi_mm: float = 15.0
    roi_reference: str = "pred"
    roi: str = STRUCTURES
    measures: str | Sequence[str] = "standard"
    keep_results: bool = False
    resample_labels: bool = False
    workers: int = 1
    scheduler: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        several = isinstance(self.measures, list | tuple) and all(isinstance(name, str) for name in self.measures)
        named = isinstance(self.measures, str) or several
        rules = [
            *paths(self, "calibration"),
            *truths(self, "keep_results", "resample_labels", "overwrite"),
            (self.mode in MODES, f"mode '{self.mode}' is unknown; choose {' or '.join(MODES)}"),
            (
                is_number(self.roi_mm, 0, 1000) and self.roi_mm > 0,
                f"the ROI distance must lie above 0 and up to 1000 mm, got {self.roi_mm}",
            ),
            (
                self.roi_reference in REFERENCES,
                f"the ROI's reference '{self.roi_reference}' is unknown; choose {' or '.join(REFERENCES)}",
            ),
            roi_rule(self),
            (whole and 1 <= self.workers <= 1024, f"the number of workers must be 1 to 1024, got {self.workers}"),
            (named and bool(self.measures), "measures must be standard, all, or a list of names"),
            (
                self.scheduler is None or (isinstance(self.scheduler, str) and "://" in self.scheduler),
                f"the scheduler must be an address such as tcp://host:8786, got {self.scheduler!r}",
            ),
        ]
        refuse_first(rules)

    @property
    def place(self) -> str:
        """The domain in which errors are looked for first: "pred", "union" or "body"."""
        return BODY if self.roi == BODY else self.roi_reference

    def of_segment(self) -> dict:
        """The options that every run of `segment` takes, whatever the configuration; plain values."""
        given = {
            "device": str(self.device), "precision": self.precision, "step_size": float(self.step_size),
            "roi_mm": float(self.roi_mm), "trainers": _absolute(self.trainers), "trust_checkpoint": self.trust_checkpoint,
        }  # fmt: skip
        if self.roi != STRUCTURES:
            given["roi"] = self.roi
        if "measures" in SegmentOptions.names():
            given["measures"] = self.measures if isinstance(self.measures, str) else list(self.measures)
        return given


@dataclass(frozen=True)
class Configuration:
    """One way to ask and to calibrate that is evaluated: a name and what `segment` is to do.

    model: absolute paths. options: of `segment`, plain values, the members and their calibration among them.
    """

    name: str
    model: tuple[str, ...]
    options: Mapping

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return file_name(self.name)

    @property
    def calibration(self) -> str:
        """ "auto", "none" or a record file."""
        return str(self.options["calibration"])

    def members(self) -> MemberSet:
        """The members that are asked; raises CalibUncertaintyError for what a model does not have."""
        names = set(MemberOptions.names()) & set(self.options)
        return MemberOptions(**{name: self.options[name] for name in names}).members_of(list(self.model))


def configurations_of(model: str | Path | Sequence[str | Path] | None, options: EvaluateOptions) -> list[Configuration]:
    """The configurations to evaluate, in their order.

    model: path or paths of the model folders that those without a "model" of their own use; may be None where all have one.
    Raises CalibUncertaintyError, one line, for a file or an entry that says nothing sensible.
    """
    given, base = _listed(options.configurations)
    if given is None:
        given = [{"name": "uncalibrated", "calibration": "none"}]
        if options.calibration != "none":
            given.append({"name": "calibrated", "calibration": options.calibration})
    found = [_configuration(item, number, model, options, base) for number, item in enumerate(given, start=1)]
    names = [item.folder.casefold() for item in found]
    doubled = [item.name for item in found if names.count(item.folder.casefold()) > 1]
    if doubled:
        raise CalibUncertaintyError(
            f"two configurations are called {doubled[0]} (or almost); give each a name of its own"
        )
    return found


def _listed(given) -> tuple[list | None, Path | None]:
    """The entries, and the folder that paths in them are relative to."""
    if given is None:
        return None, None
    base = None
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        base = Path(os.path.abspath(path)).parent
        try:
            given = parsed(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibUncertaintyError(f"{path} is no readable JSON file with configurations ({error})") from error
        given = given.get("configurations") if isinstance(given, dict) else given
    if not isinstance(given, list | tuple) or not given:
        raise CalibUncertaintyError(
            'configurations must be a list such as [{"name": "five folds", "calibration": "auto"}]'
        )
    return list(given), base


def _configuration(item, number: int, model, options: EvaluateOptions, base: Path | None) -> Configuration:
    name = item.get("name") if isinstance(item, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise CalibUncertaintyError(f'configuration {number} has no name; give each one, as "name"')
    if not is_one_line(name.strip()):
        raise CalibUncertaintyError(f"configuration {number}: its name {name.strip()!r} is no text on one line; give another")
    unknown = [key for key in item if key not in _OF_CONFIGURATION]
    if unknown:
        raise CalibUncertaintyError(
            f"configuration {name}: '{unknown[0]}' is not known; it may have {', '.join(_OF_CONFIGURATION)}"
        )
    folders = item.get("model", model)
    folders = [folders] if isinstance(folders, str | os.PathLike) or hasattr(folders, "path") else list(folders or ())
    if not folders:
        raise CalibUncertaintyError(f"configuration {name} names no model, and none was given")
    base = base if "model" in item else None
    of_members = {field.name: item[field.name] for field in fields(MemberOptions) if field.name in item}
    if "flips" in of_members:
        of_members.setdefault("mirroring", True)  # it is the older name for the same thing
    try:
        members = replace(_member_options(options), **of_members)
    except TypeError as error:
        raise CalibUncertaintyError(f"configuration {name}: {error}") from error
    calibration = str(item.get("calibration", options.calibration))
    if calibration not in ("auto", "none"):
        calibration = _absolute(calibration, base if "calibration" in item else None)
    chosen = {
        key: list(value) if isinstance(value, tuple) else value
        for key in MemberOptions.names()
        if (value := getattr(members, key)) is not None
    }
    chosen |= options.of_segment() | {"mode": item.get("mode", options.mode), "calibration": calibration}
    if members.previous is not None:
        chosen["previous"] = _absolute(members.previous)
    SegmentOptions(**{key: value for key, value in chosen.items() if value is not None})
    named = tuple(_absolute(getattr(folder, "path", folder), base) for folder in folders)
    return Configuration(name.strip(), named, {key: value for key, value in chosen.items() if value is not None})


def _member_options(options: EvaluateOptions) -> MemberOptions:
    return MemberOptions(**{name: getattr(options, name) for name in MemberOptions.names()})


def _absolute(path, base: Path | None = None) -> str | None:
    if path is None:
        return None
    return os.path.abspath(Path(base or "") / Path(path))
