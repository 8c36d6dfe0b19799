"""Checks of the fields of result.json that this program reads: each failure in one phrase that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from .field_checks import Check, first_problem, list_, object_, text, truth


def problem_in(content: Mapping) -> str:
    """What is wrong with result.json, as in "threshold.value must be a number"; empty when nothing is.

    Fields that only some versions wrote may be missing, and ones that are not read are not looked at.
    """
    problem = first_problem(content, "", _RESULT)
    for name, checks in _PARTS.items():
        if name in content:
            problem = problem or first_problem(content[name], f"{name}.", checks)
    for where, checks in _LISTS.items():
        if problem:
            return problem
        of_part = content
        for key in where.split("."):
            of_part = of_part[key]
        for index, item in enumerate(of_part):
            problem = problem or first_problem(item, f"{where}[{index}].", checks)
    return problem


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _number(value: Any) -> str:
    return "" if _is_number(value) else "a number"


def _zero_or_above(value: Any) -> str:
    return "" if _is_number(value) and value >= 0 else "a number, 0 or above"


def _whole(value: Any) -> str:
    return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number, 0 or above"


def _filled(value: Any) -> str:
    return "" if isinstance(value, list) and value else "a list that is not empty"


def _file(value: Any) -> str:
    """A name inside the folder, as it is written there on every system."""
    inside = isinstance(value, str) and value and "\0" not in value
    parts = PurePosixPath(value).parts + PureWindowsPath(value).parts if inside else ()
    outside = ".." in parts or PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive if inside else True
    return "the name of a file in the folder" if outside else ""


def _map(value: Any) -> str:
    return (
        ""
        if isinstance(value, Mapping) and not _file(value.get("file"))
        else "an object that names a file in the folder"
    )


def _map_or_null(value: Any) -> str:
    without = isinstance(value, Mapping) and "file" in value and value["file"] is None
    return "" if without else _map(value)


def _numbers(count: int, check: Check = _number) -> Check:
    def of_list(value: Any) -> str:
        right = isinstance(value, list) and len(value) == count and not any(map(check, value))
        return "" if right else f"a list of {count} numbers"

    return of_list


def _or_null(check: Check) -> Check:
    return lambda value: "" if value is None or not check(value) else f"null or {check(value)}"


_LARGEST = math.ldexp(1.0, 127)  # what single precision holds, and no NaN
_OBJECTS = ("box", "calibration", "geometry", "maps", "model", "roi", "segmentation", "threshold")
_RESULT = {
    **{name: (True, object_) for name in _OBJECTS},
    "ct": (False, object_),
    "regions": (True, list_),
    "members": (True, _filled),
    "miss_probability": (False, _zero_or_above),
    "warnings": (False, list_),
}
_PARTS = {
    "box": {"start_xyz": (True, _numbers(3, _whole)), "size_xyz": (True, _numbers(3, _whole))},
    "geometry": {
        "size_xyz": (True, _numbers(3, _whole)),
        "spacing_xyz_mm": (True, _numbers(3)),
        "origin_lps_mm": (True, _numbers(3)),
        "direction_lps": (True, _numbers(9)),
    },
    "ct": {"path": (True, text), "voxels_digest": (False, text)},
    "calibration": {"calibrated": (True, truth), "summary": (True, text)},
    "maps": {
        "probability": (True, _filled),
        "uncertainty": (True, _filled),
        "distance": (True, _map_or_null),
        "body": (False, _map),
    },
    "model": {"name": (True, text), "configuration": (True, text), "labels": (True, _filled)},
    "roi": {"distance_mm": (True, _zero_or_above)},
    "segmentation": {"file": (True, _file)},
    "threshold": {"measure": (True, text), "value": (True, _zero_or_above), "unit": (True, text)},
}
_POSITION = (True, _numbers(3))
_LISTS = {
    "model.labels": {"index": (True, _whole), "name": (True, text)},
    "members": {"fold": (True, lambda value: "" if isinstance(value, int | str) else "a fold")},
    "maps.probability": {"label": (True, _whole), "name": (True, text), "file": (True, _file)},
    "maps.uncertainty": {
        "measure": (True, text), "title": (True, text), "unit": (True, text), "file": (True, _or_null(_file)),
        "range": (True, _numbers(2)), "scale": (False, _numbers(2)), "threshold": (False, _or_null(_number)),
    },
    "regions": {
        "id": (True, _whole), "kind": (True, text), "label": (True, _whole), "structure": (True, text), "voxels": (True, _whole),
        "volume_ml": (True, _number), "mean": (True, _number), "peak": (True, _number), "score": (True, _number),
        "distance_mm": (True, _or_null(_number)), "reason": (True, text), "share": (False, _or_null(_number)),
        "centroid_ras_mm": _POSITION, "centroid_lps_mm": _POSITION, "peak_ras_mm": _POSITION, "peak_lps_mm": _POSITION,
    },
}  # fmt: skip
