"""A hash of a calibration record's content, stored in it: an edit by hand or a damaged file is named as such.

It is no signature. Whoever wants to can compute it anew; it tells a slip from the record that `calibrate` wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH_KEY = "content_sha256"
_LARGEST_EXACT = 2**53  # whole numbers up to here are the same number as a float and as an integer


def content_hash(document: Mapping) -> str:
    """SHA-256 of a record's whole content except this hash, 64 hexadecimal digits.

    The same for every way of writing the same values: order of keys, spaces, and 2.0 or 2 make no difference. Source: our
    definition, close to the JSON Canonicalization Scheme (RFC 8785).

    :param document: parsed JSON, or what `CalibrationRecord.to_json` gives; JSON values only.
    """
    content = {key: value for key, value in document.items() if key != HASH_KEY}
    text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def with_content_hash(document: Mapping) -> dict:
    """The document with its hash, in place of one that it may hold; what is to be written."""
    return {**document, HASH_KEY: content_hash(document)}


def is_as_written(document: Mapping) -> bool | None:
    """Whether the content is that of the hash stored with it; None where none is stored."""
    stored = document.get(HASH_KEY)
    return None if stored is None else stored == content_hash(document)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)  # other programs write 2.0 as 2
    return value
