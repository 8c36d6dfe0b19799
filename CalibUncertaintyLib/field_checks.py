"""Checks of the fields of JSON that this program reads, a record or a result: each failure in one phrase that names the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# A check gets a value and says what it should have been; an empty answer means that it is right.
Check = Callable[[Any], str]


def first_problem(value: Any, prefix: str, checks: Mapping[str, tuple[bool, Check]]) -> str:
    """What is wrong with an object, as in "threshold.value must be a number"; empty when nothing is.

    checks: of each field whether it is required, and its check.
    """
    if not isinstance(value, Mapping):
        return f"{prefix.rstrip('.')} must be an object"
    for name, (required, check) in checks.items():
        if name not in value:
            if required:
                return f"{prefix}{name} is missing"
            continue
        expected = check(value[name])
        if expected:
            return f"{prefix}{name} must be {expected}"
    return ""


def text(value: Any) -> str:
    """Text."""
    return "" if isinstance(value, str) else "text"


def object_(value: Any) -> str:
    """An object."""
    return "" if isinstance(value, Mapping) else "an object"


def list_(value: Any) -> str:
    """A list."""
    return "" if isinstance(value, list) else "a list"


def truth(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else "true or false"
