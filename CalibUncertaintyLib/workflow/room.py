"""Room on the disk, asked for before the computing: a full disk after an hour helps nobody."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.scratch import Scratch


def check_room(folder: Path, needed_bytes: int, what: str, remedy: str, shown: Path | None = None) -> None:
    """Raise CalibUncertaintyError with both numbers where the disk of `folder`, which exists, has less room than needed.

    shown: the folder to name instead, where `folder` is one that nobody knows.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise CalibUncertaintyError(
            f"{what} needs up to {size_in_words(needed_bytes)} in {shown or folder}, whose disk has {size_in_words(free)} free;"
            f" {remedy}"
        )


def bytes_on_disk(scratch: Scratch, sizes: Sequence[int]) -> int:
    """How much of the disk arrays of these sizes in bytes, made one after the other, would take: the first ones fit into memory."""
    held = needed = 0
    for size in sizes:
        if scratch.takes_from_disk(held + size):
            needed += size
        else:
            held += size
    return needed


def size_in_words(count: int) -> str:
    """ "0.5 MB", "1,200.0 MB", "12.3 GB"."""
    return f"{count / 1e6:,.1f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"
