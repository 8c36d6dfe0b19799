"""Writing a Result: aside first, renamed when complete, so that nothing half-written can be taken for a result."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..plain_json import parsed, plain
from ..result import RESULT_FILE, RESULT_SCHEMA
from ..volume import refuse_unusable_name
from .room import check_room

PARTIAL_SUFFIX = ".partial"
# What a Result folder may hold; one that holds more is somebody's own and is never replaced
RESULT_ENTRIES = {RESULT_FILE, "segmentation.nii.gz", "maps", "nifti", "montage.png", "review.json", "review-log.csv"}


def output_folder(out: str | Path) -> Path:
    """The folder meant by `--out`: absolute, and where a link leads rather than the link.

    Raises CalibUncertaintyError for a name that no folder can have.
    """
    refuse_unusable_name(out)
    path = Path(os.path.abspath(out))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def written_aside(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the place of `out` when the block ends well, and is removed otherwise.

    Raises CalibUncertaintyError where `out` exists (without overwrite), cannot be made, or the disk is full.
    """
    check_output(out, overwrite)
    aside = out.with_name(f".{out.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        _sweep_leftovers(out)
        aside.mkdir()
    except OSError as error:
        raise CalibUncertaintyError(_in_words(out, error)) from error
    try:
        yield aside
        check_output(out, overwrite)  # again: it may have appeared while the run was computing
        _take_place(aside, out)
    except CalibUncertaintyError as error:
        # who reads it knows where the result was to be, and the folder aside is gone
        raise type(error)(str(error).replace(str(aside), str(out))) from error
    except OSError as error:
        if error.errno == errno.EIO and not str(error.filename or "").startswith(str(out.parent)):
            raise CalibUncertaintyError(
                f"{error.filename or 'a file of the model or the CT'} could not be read or written"
                f" ({error.strerror}); its disk may be failing, run again from another one"
            ) from error
        raise CalibUncertaintyError(_in_words(out, error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse an output folder that exists, or with overwrite one that is not a Result and nothing but a Result."""
    try:
        if not out.exists():
            return
        if not overwrite:
            raise CalibUncertaintyError(
                f"{out} exists already; choose another --out, or --overwrite to replace that Result"
            )
        if not out.is_dir() or not _is_only_a_result(out):
            raise CalibUncertaintyError(
                f"{out} is not a Result folder, or holds other files as well, and will not be replaced; choose another --out"
            )
    except OSError as error:
        raise CalibUncertaintyError(_in_words(out, error)) from error


def _is_only_a_result(out: Path) -> bool:
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return True
    try:
        schema = parsed((out / RESULT_FILE).read_text(encoding="utf-8")).get("schema")
    except (OSError, ValueError, AttributeError):
        return False
    return schema == RESULT_SCHEMA and entries <= RESULT_ENTRIES


def _take_place(aside: Path, out: Path) -> None:
    """Rename the finished folder into place; an earlier Result goes only when the new one stands there."""
    if not out.exists():
        aside.rename(out)
        return
    old = aside.with_suffix(".old")
    out.rename(old)
    try:
        aside.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep_leftovers(out: Path) -> None:
    """Remove what killed runs for the same folder left on this computer."""
    if os.name != "posix":
        return
    own = re.compile(rf"\.{re.escape(out.name)}\.{re.escape(_host())}-(\d+)-[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)}")
    for entry in out.parent.iterdir():
        match = own.fullmatch(entry.name)
        if match and not _is_alive(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    name = "host"
    with suppress(OSError):
        name = socket.gethostname()
    return re.sub(r"[^A-Za-z0-9]+", "_", name)[:32] or "host"


def check_space(out: Path, folder: Path, needed_bytes: int) -> None:
    """Refuse where the disk surely cannot hold what comes next. folder: one that exists, on the disk of `out`."""
    check_room(folder, needed_bytes, str(out), "free space or choose another --out", shown=out.parent)


def write_json(path: Path, content: dict) -> None:
    """JSON that other programs can read: numbers that are not finite become null."""
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _in_words(out: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk of {out} is full; free space and run again (nothing was kept)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{out} cannot be written: no permission for {out.parent}; choose another --out"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{out} cannot be written: a part of its path is a file, not a folder; choose another --out"
    return f"{out} cannot be written ({error.strerror}); choose another --out"
