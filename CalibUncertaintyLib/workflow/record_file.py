"""The file a calibration goes into: whose it is, whether it can be written, and one writer at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.folder import RECORD_NAME
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_check import SCHEMA
from ..plain_json import parsed
from ..progress import Progress
from .report import versions

LOCK_SECONDS = 20.0  # reading, adding and writing takes milliseconds
_WAIT = "wait until that run has ended and calibrate again, or give another --out"
_UNLOCKED = "let no other calibration of this model end at this moment"


def check_record_file(path: Path, members: MemberSet) -> None:
    """Refuse, before the computing, a record file that belongs to another model or could not be written after it."""
    if not path.parent.is_dir():
        raise CalibUncertaintyError(f"{path.parent} does not exist; choose a folder that does with --out")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CalibUncertaintyError(
            f"{path} cannot be written ({error.strerror}); choose another place with --out"
        ) from error
    _readable_record(path, members)


def add_to_record(path: Path, members: MemberSet, entries: list[CalibrationEntry], progress: Progress) -> None:
    """Put entries into the record file, keeping the others that are there, also those another run adds at the same time.

    A file that is there and cannot be used is set aside, not lost. Raises CalibUncertaintyError as `check_record_file` does, and
    where another run does not let go of the file.
    """
    with locked(path, progress):
        # read now, not before the computing: another run may have added its members meanwhile
        record = _record_to_extend(path, members, progress)
        for entry in entries:
            record.put(entry)
        record.versions = versions()
        record.write(path)


@contextmanager
def locked(
    path: Path, progress: Progress, seconds: float = LOCK_SECONDS, remedy: str = _WAIT, unlocked: str = _UNLOCKED
) -> Iterator[None]:
    """The only writer of a file or folder, by a lock file beside it that the operating system lets go when its process ends.

    remedy: what to do where another process holds it for longer than `seconds`, for which CalibUncertaintyError is raised, naming
    both files. unlocked: what to heed on a file system without locks, where it is said that there is none.
    """
    beside = path.with_name(f".{path.name}.lock")
    stream = _taken(beside, path, progress, seconds, remedy, unlocked)
    try:
        yield
    finally:
        if stream is not None and os.name == "posix":
            _remove(beside)  # while it is held: whoever waits sees that it is gone, and makes a new one
            stream.close()
        elif stream is not None:
            stream.close()
            _remove(beside)  # Windows removes no file that is open: one that another process has taken meanwhile stays


def _taken(beside: Path, path: Path, progress: Progress, seconds: float, remedy: str, unlocked: str):
    end = time.monotonic() + seconds
    while True:
        stream = None
        try:
            stream = beside.open("a+b")
            if _lock(stream.fileno()):
                if _is_the_same(stream, beside):
                    return stream
                stream.close()
                continue
        except OSError as error:
            if stream is not None:
                stream.close()
            progress.warn(f"{path} cannot be locked ({error.strerror}): {unlocked}")
            return None
        stream.close()
        if time.monotonic() > end:
            raise CalibUncertaintyError(f"{path} is being written by another run (it holds {beside.name}); {remedy}")
        time.sleep(0.05)


def _lock(handle: int) -> bool:
    """Whether the open file is ours now; False where another process has it. Raises OSError where there are no locks."""
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_the_same(stream, beside: Path) -> bool:
    """Whether the file that was opened and locked still lies there: its holder before us has removed it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), beside.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _readable_record(path: Path, members: MemberSet) -> CalibrationRecord | None:
    """The record that is there; None where there is none or it cannot be used. Raises where the file is anything else."""
    if not path.exists():
        return None
    if path.is_dir():
        raise CalibUncertaintyError(
            f"{path} is a folder; name the record's file with --out, as in {path / RECORD_NAME}"
        )
    try:
        record = CalibrationRecord.read(path)
    except CalibUncertaintyError as error:
        if not _was_a_record(path):
            raise CalibUncertaintyError(f"{path} is not a calibration record; choose another --out") from error
        return None
    if record.is_of_another_model(members.fingerprint()):
        raise CalibUncertaintyError(
            f"{path} is the record of another model ({record.model['name']}); choose another --out"
        )
    return record


def _was_a_record(path: Path) -> bool:
    """A record that is damaged or of another version, as against somebody's other file that was named by mistake."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); choose another --out") from error
    try:
        document = parsed(content)
    except ValueError:  # cut short, or nothing left of it
        return path.suffix == ".json" or SCHEMA.encode() in content
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def _record_to_extend(path: Path, members: MemberSet, progress: Progress) -> CalibrationRecord:
    """The record to add to. A file that is there and cannot be used is set aside, not lost."""
    record = _readable_record(path, members)
    if record is None and path.exists():
        number = 1
        while (aside := path.with_name(f"{path.name}.bak-{number}")).exists():
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            raise CalibUncertaintyError(
                f"{path} cannot be set aside ({error.strerror}); choose another --out"
            ) from error
        progress.warn(
            f"The calibration record that was there is damaged or of another version; it was set aside as {aside}"
        )
    return record or CalibrationRecord.for_model(members.fingerprint())
