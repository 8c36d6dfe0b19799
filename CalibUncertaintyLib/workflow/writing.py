"""Writing a Result: aside first, renamed when complete, so that nothing half-written can be taken for a result."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CalibUncertaintyError

PARTIAL_SUFFIX = ".partial"


@contextmanager
def written_aside(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the place of `out` when the block ends well, and is removed otherwise.

    Raises CalibUncertaintyError where `out` exists (without overwrite), cannot be made, or the disk is full.
    """
    check_output(out, overwrite)
    aside = out.with_name(f".{out.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    except OSError as error:
        raise CalibUncertaintyError(_in_words(out, error)) from error
    try:
        yield aside
        if out.exists():  # it was asked to be replaced; the old one goes only now that the new one is whole
            old = out.with_name(f".{out.name}.{os.getpid()}.old")
            out.rename(old)
            aside.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(out)
    except OSError as error:
        raise CalibUncertaintyError(_in_words(out, error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse an output folder that exists: before the computing, not after it."""
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise CalibUncertaintyError(
            f"{out} exists already; choose another --out, or --overwrite to replace that Result"
        )
    # a mistyped path must not cost somebody a folder of something else
    replaceable = out.is_dir() and ((out / "result.json").is_file() or not any(out.iterdir()))
    if not replaceable:
        raise CalibUncertaintyError(f"{out} is not a Result folder and will not be replaced; choose another --out")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse before the computing where the disk surely cannot hold the maps."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise CalibUncertaintyError(
            f"{folder} needs up to {needed_bytes / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; free space or choose"
            " another --out"
        )


def write_json(path: Path, content: dict) -> None:
    """JSON that other programs can read: numbers that are not finite become null."""
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def plain(value):
    """Nested values as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _in_words(out: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk of {out} is full; free space and run again (nothing was kept)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{out} cannot be written: no permission for {out.parent}; choose another --out"
    return f"{out} cannot be written ({error.strerror}); choose another --out"
