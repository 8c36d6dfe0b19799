"""Checks of a calibration record's fields, each failure in one line that names the field.

The same rules stand in calibration-record.schema.json for other programs; jsonschema is not needed to run this library.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

from ..field_checks import Check, first_problem, list_, object_, text, truth

SCHEMA = "calib-uncertainty/calibration-record"
# Version 2 has members beyond folds of one model, and temperatures of regions; version 3 has methods other than temperature and
# temperatures of the members before they are averaged. A record without these is still written as an older one.
SCHEMA_VERSION, MEMBERS_SCHEMA_VERSION, PLAIN_SCHEMA_VERSION = 3, 2, 1
STATUSES = ("ok", "separable", "uninformative", "single_class")
POOL_MODES, MEMBER_MODES = ("pool_logit", "pool_prob"), ("shared", "member")
MODES = (*POOL_MODES, *MEMBER_MODES)
# How members become one answer in each mode, for people
POOLING_IN_WORDS = {
    "pool_logit": "logits averaged",
    "pool_prob": "probabilities averaged",
    "shared": "all calibrated alike, then averaged",
    "member": "each calibrated, then averaged",
}
SOURCES = ("held_out", "out_of_fold", "stored_probabilities")
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = (
    0.05,
    20.0,
)  # the range the fit searches; outside it maps overflow or say nothing
_TEMPERATURE_RANGE = f"from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"
TEMPERATURE_SLACK = 1e-9  # the fit comes to the ends of its range through a logarithm
_SHA256 = re.compile("[0-9a-f]{64}")


def problem_in(document: Any) -> str:
    """What is wrong with a record, in one line that names the field, as in "entries[0].temperature must be ...".

    :param document: parsed JSON.
    :returns: empty when nothing is wrong.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        return f"it is not a calibration record (its 'schema' is not {SCHEMA})"
    version = document.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int):
        return "schema_version must be a whole number"
    if version > SCHEMA_VERSION:
        return f"it was made by a newer version of CalibUncertainty (schema version {version}, known up to {SCHEMA_VERSION})"
    if version < PLAIN_SCHEMA_VERSION:
        return f"it was made by an older version of CalibUncertainty (schema version {version}, needed {PLAIN_SCHEMA_VERSION})"
    problem = first_problem(document, "", _RECORD) or first_problem(document["model"], "model.", _MODEL)
    for index, entry in enumerate(document["entries"] if not problem else ()):
        problem = problem or _problem_in_entry(entry, f"entries[{index}]", len(document["model"]["labels"]))
    return problem


def _problem_in_entry(entry: Any, where: str, n_labels: int) -> str:
    if not isinstance(entry, Mapping):
        return f"{where} must be an object"
    problem = (
        first_problem(entry, f"{where}.", _ENTRY)
        or first_problem(entry["members"], f"{where}.members.", _MEMBERS)
        or first_problem(entry["roi"], f"{where}.roi.", _ROI)
    )
    if problem:
        return problem
    problem = (
        _problem_in_members(entry["members"], f"{where}.members")
        or _problem_in_method(entry, where)
        or _problem_in_lists(entry, where, n_labels)
    )
    if problem:
        return problem
    for measure, threshold in entry["thresholds"].items():
        problem = problem or first_problem(threshold, f"{where}.thresholds.{measure}.", _THRESHOLD)
    return problem


def _problem_in_method(entry: Mapping, where: str) -> str:
    """A temperature, or one for each checkpoint, or another method's parameters: what the method and mode ask for, and no other."""
    if entry["method"] != "temperature":
        if not isinstance(entry.get("parameters"), Mapping) or entry["parameters"].get("method") != entry["method"]:
            return f"{where}.parameters must be an object of the method {entry['method']}"
        if entry["mode"] not in POOL_MODES:
            return f"{where}.mode must be one of {', '.join(POOL_MODES)} for the method {entry['method']}"
        return (
            "" if entry["temperature"] is None else f"{where}.temperature must be null for the method {entry['method']}"
        )
    if entry["mode"] != "member":
        missing = (
            f"{where}.temperature must be {_temperature('')} for the method temperature and the mode {entry['mode']}"
        )
        return missing if entry["temperature"] is None else ""
    each = entry.get("member_temperatures")
    if not isinstance(each, list) or len(each) != len(entry["members"]["checkpoints"]) or any(map(_temperature, each)):
        return f"{where}.member_temperatures must be a temperature for each of the checkpoints"
    return "" if entry["temperature"] is None else f"{where}.temperature must be null where each member has its own"


def _problem_in_members(members: Mapping, where: str) -> str:
    problem = _problem_in_first_stage(members.get("previous"), f"{where}.previous")
    for name, checks in (("checkpoints", _CHECKPOINT), ("duplicates", _CHECKPOINT), ("models", _MODEL_OF_SEVERAL)):
        for index, item in enumerate(members.get(name, ())):
            problem = problem or first_problem(item, f"{where}.{name}[{index}].", checks)
    if problem:
        return problem
    if {str(item["fold"]) for item in members["checkpoints"]} != set(map(str, members["folds"])):
        return f"{where}.checkpoints must name each of the folds and no other"
    files = [(item.get("model", 0), str(item["fold"]), item["checkpoint"]) for item in members["checkpoints"]]
    if len(set(files)) < len(files):
        return f"{where}.checkpoints must name no checkpoint twice"
    for name in ("checkpoints", "duplicates"):
        highest = max((item.get("model", 0) for item in members.get(name, ())), default=0)
        if highest >= max(1, len(members.get("models", ()))):
            return f"{where}.{name} must name models that are listed"
    return ""


def _problem_in_first_stage(stage: Any, where: str) -> str:
    if stage is None:
        return ""
    problem = first_problem(stage, f"{where}.", _FIRST_STAGE)
    for index, item in enumerate(stage["checkpoints"] if not problem else ()):
        problem = problem or first_problem(item, f"{where}.checkpoints[{index}].", _CHECKPOINT)
    return problem or _problem_in_first_stage(stage.get("previous"), f"{where}.previous")


def _problem_in_lists(entry: Mapping, where: str, n_labels: int) -> str:
    """Temperatures of regions: one for each of the model's labels."""
    for name in ("temperature", "member_temperature"):
        if isinstance(entry[name], list) and len(entry[name]) != n_labels:
            return f"{where}.{name} must be one number or as many as the model has labels ({n_labels}), got {len(entry[name])}"
    interval, of_regions = entry["temperature_interval"], isinstance(entry["temperature"], list)
    if interval is None:
        return ""
    if of_regions != (not _is_temperature(interval[0])):
        return f"{where}.temperature_interval must be one where the temperature is one, and a list of them where it is a list"
    if of_regions and len(interval) != n_labels:
        return f"{where}.temperature_interval must have as many intervals as the model has labels ({n_labels})"
    return ""


def _is_number(value: Any) -> bool:
    # compared, not asked with isfinite(), which a whole number of 400 digits overflows
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _above_zero(value: Any) -> str:
    return "" if _is_number(value) and value > 0 else "a number above 0"


def _is_temperature(value: Any) -> bool:
    lowest, highest = LOWEST_TEMPERATURE - TEMPERATURE_SLACK, HIGHEST_TEMPERATURE + TEMPERATURE_SLACK
    return _is_number(value) and lowest <= value <= highest


def _temperature(value: Any) -> str:
    right = _is_temperature(value) or (isinstance(value, list) and value and all(map(_is_temperature, value)))
    return "" if right else f"a number {_TEMPERATURE_RANGE}, or a list of such numbers for regions"


def _whole_number(lowest: int) -> Check:
    return lambda value: (
        ""
        if isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        else f"a whole number from {lowest} up"
    )


def _share(value: Any) -> str:
    return "" if _is_number(value) and 0 < value < 1 else "a number between 0 and 1"


def _several(value: Any) -> str:
    return "" if isinstance(value, list) and len(value) > 1 else "a list of at least two"


def _zero_or_above(value: Any) -> str:
    return "" if _is_number(value) and value >= 0 else "a number, 0 or above"


def _sha256(value: Any) -> str:
    return "" if isinstance(value, str) and _SHA256.fullmatch(value) else "a SHA-256 (64 hexadecimal digits)"


def _interval(value: Any) -> str:
    if isinstance(value, list) and value and all(item is None or isinstance(item, list) for item in value):
        return next(filter(None, map(_interval_of_one, value)), "")
    return _interval_of_one(value)


def _interval_of_one(value: Any) -> str:
    if value is None:
        return ""
    if not (isinstance(value, list) and len(value) == 2 and all(_is_temperature(end) for end in value)):
        return f"null or two numbers {_TEMPERATURE_RANGE}, or a list of such for regions"
    return "" if value[0] <= value[1] else "two numbers, lower end first"


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()  # str.isdigit() is true for a superscript two, which int() refuses


def _labels(value: Any) -> str:
    right = (
        isinstance(value, Mapping)
        and value
        and all(_is_digits(str(key)) and int(key) > 0 and isinstance(name, str) for key, name in value.items())
    )
    return "" if right else "an object of label numbers (1 and above) and names"


def _folds(value: Any) -> str:
    right = isinstance(value, list) and value and all(not _fold(item) for item in value)
    return "" if right and len(set(map(str, value))) == len(value) else "a list of different folds"


def _fold(value: Any) -> str:
    right = value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    return "" if right else 'a fold\'s number or "all"'


def _texts(value: Any) -> str:
    return "" if isinstance(value, list) and all(isinstance(item, str) for item in value) else "a list of texts"


def _one_of(*choices: str) -> Check:
    return lambda value: "" if value in choices else f"one of {', '.join(choices)}"


def _or_null(check: Check) -> Check:
    return lambda value: "" if value is None or not check(value) else f"null or {check(value)}"


_RECORD = {
    "model": (True, object_),
    "entries": (True, list_),
    "created": (True, text),
    "versions": (True, object_),
}
_MODEL = {
    "name": (True, text),
    "configuration": (True, text),
    "trainer": (True, text),
    "labels": (True, _labels),
    "plans_sha256": (True, _sha256),
}
_ENTRY = {
    "members": (True, object_),
    "mode": (True, _one_of(*MODES)),
    "method": (True, text),
    "temperature": (True, lambda value: "" if value is None else _temperature(value)),
    "temperature_interval": (True, _interval),
    "temperature_status": (True, _one_of(*STATUSES)),
    "member_temperature": (True, _or_null(_temperature)),
    "roi": (True, object_),
    "cases": (True, _texts),
    "figures": (True, object_),
    "thresholds": (True, object_),
    "created": (True, text),
    "source": (False, _one_of(*SOURCES)),
    "compared": (False, list_),
    "parameters": (False, object_),
    "context": (False, object_),
    "regions": (False, object_),
    "case_scores": (False, object_),
}
_MEMBERS = {
    "folds": (True, _folds),
    "checkpoint": (True, text),
    "checkpoints": (True, list_),
    "mirroring": (True, truth),
    "flips": (False, _one_of("members")),
    "dropout": (False, _whole_number(1)),
    "seed": (False, _whole_number(0)),
    "insert_dropout": (False, _share),
    "models": (False, _several),
    "duplicates": (False, list_),
    "previous": (False, object_),
    "step_size": (False, _above_zero),
    "precision": (False, text),
}
_FIRST_STAGE = {"plans_sha256": (True, _sha256), "checkpoints": (True, list_)}
_CHECKPOINT = {
    "fold": (True, _fold),
    "checkpoint": (True, text),
    "sha256": (True, _sha256),
    "model": (False, _whole_number(0)),
}
_MODEL_OF_SEVERAL = {
    "name": (True, text),
    "configuration": (False, text),
    "trainer": (False, text),
    "plans_sha256": (True, _sha256),
}
_ROI = {"distance_mm": (True, _above_zero), "reference": (True, _one_of("union", "pred", "gt", "body"))}
_THRESHOLD = {
    "value": (True, _zero_or_above),
    "unit": (True, text),
    "mean_error_dice": (False, _or_null(_zero_or_above)),
}
