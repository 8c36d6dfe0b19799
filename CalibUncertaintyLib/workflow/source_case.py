"""`LabelledCase`, and what of a list of cases is refused by looking at its files alone: missing ones, and ones listed twice."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..volume import Volume

MOST_NAMED = 20
_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class LabelledCase:
    """One case with a reference: identifier, CT and label map; further: the images of a model's other input channels, in order."""

    id: str
    ct: Path
    labels: Path
    further: tuple[Path, ...] = ()

    @property
    def channels(self) -> tuple[Path, ...]:
        """The image of every input channel, in the model's order."""
        return (self.ct, *self.further)


@dataclass(frozen=True)
class ListedFile:
    """A file as a list of cases has it. case: identifier; owner: the case in words, with its split; where: as "line 3"."""

    path: Path
    case: str
    owner: str
    where: str = ""
    is_reference: bool = False


def named(items: Iterable[str], separator: str = ", ") -> str:
    """The first twenty of these, and how many more there are."""
    items = list(items)
    more = f"{separator}and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return separator.join(items[:MOST_NAMED]) + more


def is_one_line(text: str) -> bool:
    """Whether a name can stand in a table and on a page: no line breaks, zeros, or halves of characters, which no font can draw."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def refuse_missing(files: Sequence[ListedFile], listed_in: Path) -> None:
    """Name every file that does not exist at once: whoever mends a list wants to mend it once.

    :raises CalibUncertaintyError: one line: the list, and of each missing file where it is listed.
    """
    missing = list(dict.fromkeys((file.where, file.path) for file in files if not file.path.exists()))
    if not missing:
        return
    if len(missing) == 1:
        where, path = missing[0]
        raise CalibUncertaintyError(f"{listed_in}{f', {where}' if where else ''}: {path} does not exist")
    shown = named((f"{where}: {path}" if where else str(path) for where, path in missing), "; ")
    raise CalibUncertaintyError(f"{listed_in}: {len(missing)} files do not exist: {shown}")


def refuse_shared_files(files: Sequence[ListedFile], listed_in: Path) -> None:
    """Refuse one file under two identifiers: the same path once links are followed, or the same bytes.

    Two label maps without any structure say nothing of whose they are, and may be alike. Copies that were compressed anew
    are not found.
    :raises CalibUncertaintyError: one line that names every pair.
    """
    pairs = _same_place(files) or _same_bytes(files)
    if pairs:
        said = named((f"{a.path} ({a.owner}) and {b.path} ({b.owner})" for a, b in pairs), "; ")
        raise CalibUncertaintyError(
            f"{listed_in} lists the same file under several cases: {said}; give each case its own, in one split only"
        )


def _same_place(files: Sequence[ListedFile]) -> list[tuple[ListedFile, ListedFile]]:
    first: dict[str, ListedFile] = {}
    pairs = []
    for file in files:
        earlier = first.setdefault(os.path.realpath(file.path), file)
        if earlier.case != file.case:
            pairs.append((earlier, file))
    return pairs


def _same_bytes(files: Sequence[ListedFile]) -> list[tuple[ListedFile, ListedFile]]:
    """Pairs of different cases' files with equal content. What differs in size or in its middle is not read whole."""
    by_size: dict[tuple, list[ListedFile]] = {}
    for file in files:
        size = _sizes_of(file.path)
        if sum(size):  # what is not there or empty is said elsewhere
            by_size.setdefault(size, []).append(file)
    by_middle: dict[tuple, list[ListedFile]] = {}
    for size, alike in by_size.items():
        for file in alike if _of_several_cases(alike) else ():
            by_middle.setdefault((size, _middle_of(file.path)), []).append(file)
    pairs = []
    for alike in filter(_of_several_cases, by_middle.values()):
        first: dict[str, ListedFile] = {}
        for file in alike:
            earlier = first.setdefault(_digest_of(file.path), file)
            if earlier.case != file.case and not _both_empty_references(earlier, file):
                pairs.append((earlier, file))
    return pairs


def _of_several_cases(files: Sequence[ListedFile]) -> bool:
    return len({file.case for file in files}) > 1


def _both_empty_references(first: ListedFile, second: ListedFile) -> bool:
    return first.is_reference and second.is_reference and not Volume.read(first.path).array.any()


def _parts_of(path: Path) -> list[Path]:
    """The file itself, or of a DICOM folder its files."""
    return sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]


def _sizes_of(path: Path) -> tuple[int, ...]:
    try:
        return tuple(sorted(part.stat().st_size for part in _parts_of(path)))
    except OSError:
        return ()


def _middle_of(path: Path) -> bytes:
    """Some of the bytes; of a folder none. Uncompressed volumes of one scanner have one size, and reading all takes minutes."""
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as stream:
            stream.seek(path.stat().st_size // 2)
            return stream.read(4096)
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _digest_of(path: Path) -> str:
    """SHA-256 of a file; of a folder of those of its files, whatever their names."""
    try:
        each = sorted(_sha256(part) for part in _parts_of(path))
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    return each[0] if len(each) == 1 else " ".join(each)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_HASHED_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()
