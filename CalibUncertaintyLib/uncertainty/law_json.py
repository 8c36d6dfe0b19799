"""Writing laws of uncertainty as JSON, and reading them back: what is damaged is refused in one line."""

import base64
import binascii
import math
from collections.abc import Mapping

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import COUNT
from .quantile_tables import LEVELS


def packed(tables: np.ndarray) -> dict:
    """Tables (T, 512) for JSON: base64 of little-endian uint16 with their shape."""
    return {"shape": list(tables.shape), "uint16": base64.b64encode(tables.astype("<u2").tobytes()).decode("ascii")}


def unpacked(document: object, count: int) -> np.ndarray:
    """The (count, 512) uint16 tables that `packed` described; ValueError, in words, where they are damaged."""
    try:
        shape = [int(n) for n in document["shape"]]
        codes = np.frombuffer(base64.b64decode(document["uint16"], validate=True), "<u2").astype(np.uint16)
    except (TypeError, KeyError, ValueError, binascii.Error):
        raise ValueError("'tables' must be base64 with a shape") from None
    if shape != [count, LEVELS] or codes.size != count * LEVELS:
        raise ValueError(f"'tables' must hold {count} tables of {LEVELS} quantiles")
    codes = codes.reshape(count, LEVELS)
    if (codes >= COUNT).any() or (codes[:, 1:] < codes[:, :-1]).any():
        raise ValueError("'tables' hold quantiles that fall, or that are no values")
    return codes


def whole_numbers(
    document: Mapping, name: str, low: int, high: int | None = None, length: int | None = None
) -> list[int]:
    """A field that lists whole numbers within limits; ValueError, in words, where it does not."""
    values = document.get(name)
    fits = isinstance(values, list) and (length is None or len(values) == length)
    if not fits or not all(type(v) is int and low <= v and (high is None or v <= high) for v in values):
        raise ValueError(f"'{name}' must list whole numbers{'' if length is None else f', {length} of them'}")
    return values


def numbers(document: Mapping, name: str, length: int) -> np.ndarray:
    """A field that lists `length` finite numbers from 0 up; ValueError, in words, where it does not."""
    values = document.get(name)
    fits = isinstance(values, list) and len(values) == length
    if not fits or not all(type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in values):
        raise ValueError(f"'{name}' must hold {length} finite numbers from 0 up")
    return np.array(values, np.float64)


def texts(document: Mapping, name: str) -> tuple[str, ...]:
    """A field that lists texts; ValueError, in words, where it does not."""
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"'{name}' must list texts")
    return tuple(values)


def damaged(reason: str) -> CalibUncertaintyError:
    """What to raise where a stored law cannot be read."""
    return CalibUncertaintyError(f"the context law of the calibration is damaged ({reason}); calibrate the model again")


def check_schema(document: object, schema: str, version: int) -> None:
    """ValueError, in words, where a document is no object, of another kind, or of a version this program cannot read."""
    if not isinstance(document, Mapping) or document.get("schema") != schema:
        raise ValueError(f"its schema is not {schema}")
    if document.get("schema_version") != version:
        raise ValueError(f"it has version {document.get('schema_version')} of the format, this program reads {version}")
