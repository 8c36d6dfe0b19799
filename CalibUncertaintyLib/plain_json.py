"""Values as JSON has them, for every file this library writes."""

from __future__ import annotations

import math
from collections.abc import Mapping


def plain(value):
    """JSON values only: tuples and numpy numbers become lists and numbers, NaN and infinity null, keys text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
