"""Lists of cases that people write: a CSV file as a spreadsheet saves it, or JSON; with splits, of which one is taken."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.fold_honesty import same_name
from ..plain_json import parsed
from .source_case import LabelledCase, ListedFile, is_one_line, named, refuse_missing, refuse_shared_files

COLUMNS = ("id", "ct", "labels")
SPLIT = "split"
CALIBRATION = "calibration"
_SHAPES = '{"cases": [{"id": ..., "ct": ..., "labels": ..., "split": ...}]}'


@dataclass(frozen=True)
class _Row:
    """One case as it is listed; where: as "line 3". images and labels may be missing where another split is asked for.

    problem: what is wrong with it, if it is taken.
    """

    where: str
    id: str
    images: tuple[Path, ...]
    labels: Path | None
    split: str = ""
    problem: str = ""

    @property
    def complete(self) -> bool:
        return bool(self.id and self.images and self.labels)

    @property
    def files(self) -> list[ListedFile]:
        owner = f"case {self.id}, {self.split}" if self.split else f"case {self.id}"
        references = [self.labels] if self.labels else []
        return [
            *(ListedFile(path, self.id, owner, self.where) for path in self.images),
            *(ListedFile(path, self.id, owner, self.where, is_reference=True) for path in references),
        ]


def read_cases(path: str | Path, split: str | None = None, default_split: str = CALIBRATION) -> list[LabelledCase]:
    """Cases of a CSV or JSON file with id, ct, labels and perhaps split; paths are relative to the file.

    CSV: one case a line, its first line names the columns; separated by commas, semicolons or tabs; several channels have ;
    between (in quotes where that separates the columns, too). JSON: {"cases": [{"id", "ct", "labels", "split"}, ...]}; "files":
    {"ct", "labels" or "seg"} may hold the paths, and "ct" may be a list, one for each channel.
    split: take the cases of this one, whatever its case; by default `default_split` where splits are named, and else all.
    Raises CalibUncertaintyError naming the file and line of what is missing (every file at once), doubled, in two splits or
    not readable. The cases of all splits are compared, but only those that are taken must be there.
    """
    path = Path(path)
    if path.is_dir():
        raise CalibUncertaintyError(f"{path} is a folder, not a list of cases; give a CSV or JSON file")
    rows = _rows_of_json(path) if path.suffix.lower() == ".json" else _rows_of_csv(path)
    if not rows:
        raise CalibUncertaintyError(f"{path} lists no case; give at least one held-out case")
    _refuse_unnamed(rows, path)
    _refuse_doubled(rows, path)
    taken = _of_split(rows, split, path, default_split)
    for row in taken:
        if row.problem:
            raise CalibUncertaintyError(f"{path}, {row.where}: {row.problem}")
    incomplete = [row.where for row in taken if not row.complete]
    if incomplete:
        raise CalibUncertaintyError(f"{path}, {_places(incomplete)}: id, ct and labels must all be given")
    refuse_missing([file for row in taken for file in row.files], path)
    refuse_shared_files([file for row in rows for file in row.files], path)
    return [LabelledCase(row.id, row.images[0], row.labels, row.images[1:]) for row in taken]


def _refuse_unnamed(rows: Sequence[_Row], path: Path) -> None:
    unnamed = [row.where for row in rows if not row.id]
    if unnamed:
        raise CalibUncertaintyError(f"{path}, {_places(unnamed)}: id, ct and labels must all be given")
    for row in rows:
        if not is_one_line(row.id):
            raise CalibUncertaintyError(f"{path}, {row.where}: the id {row.id!r} is no text on one line; give another")
    without = [row.where for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise CalibUncertaintyError(f"{path}, {_places(without)}: no split is given, as for the other cases; name one")


def _refuse_doubled(rows: Sequence[_Row], path: Path) -> None:
    """An identifier in two splits, or twice in one; all of them are named."""
    by_name: dict[str, list[_Row]] = {}
    for row in rows:
        by_name.setdefault(same_name(row.id), []).append(row)
    doubled = {key: of_case for key, of_case in by_name.items() if len(of_case) > 1}
    in_two = [
        f"{of_case[0].id} ({' and '.join(dict.fromkeys(row.split for row in of_case))}, {_places([r.where for r in of_case])})"
        for of_case in doubled.values()
        if len({row.split.casefold() for row in of_case}) > 1
    ]
    if in_two:
        raise CalibUncertaintyError(
            f"{path} has cases in more than one split: {named(in_two, '; ')}; leave each case in one of them"
        )
    if len(doubled) == 1:
        (of_case,) = doubled.values()
        raise CalibUncertaintyError(f"{path}, {of_case[1].where}: the case {of_case[0].id} is listed twice")
    if doubled:
        said = named((f"{of[0].id} ({_places([row.where for row in of])})" for of in doubled.values()), "; ")
        raise CalibUncertaintyError(f"{path} has cases that are listed twice: {said}; list each case once")


def _of_split(rows: Sequence[_Row], split: str | None, path: Path, default_split: str) -> list[_Row]:
    there = list(dict.fromkeys(row.split for row in rows if row.split))
    if not there:
        if split is not None:
            raise CalibUncertaintyError(f"{path} names no splits, so there is no '{split}'; add a column '{SPLIT}'")
        return list(rows)
    wanted = default_split if split is None else split
    taken = [row for row in rows if row.split.casefold() == wanted.strip().casefold()]
    if not taken:
        raise CalibUncertaintyError(f"{path} has no case in the split '{wanted}'; it has: {named(there)}")
    return taken


def _places(where: Sequence[str]) -> str:
    """ "line 3", "lines 3, 5 and 6": of places that are called alike."""
    kind = where[0].rpartition(" ")[0]
    numbers = [place.rpartition(" ")[2] for place in where]
    return where[0] if len(where) == 1 else f"{kind}s {named(numbers)}"


# CSV


def _rows_of_csv(path: Path) -> list[_Row]:
    text = _text_of(path, "a CSV file")
    if "\0" in text:
        raise CalibUncertaintyError(f"{path} cannot be read as a CSV file (it holds zero bytes); save it as CSV UTF-8")
    try:
        lines = list(_csv_lines(text))
    except csv.Error as error:
        raise CalibUncertaintyError(f"{path} cannot be read as a CSV file ({error})") from error
    columns = [name.strip().casefold() for name in (lines[0][1] if lines else [])]
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise CalibUncertaintyError(
            f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(COLUMNS)}"
        )
    doubled = [column for column in (*COLUMNS, SPLIT) if columns.count(column) > 1]
    if doubled:
        raise CalibUncertaintyError(f"{path} has several columns {doubled[0]}; name each once")
    rows = []
    for number, line in lines[1:]:
        beyond = [value for value in line[len(columns) :] if value.strip()]
        if beyond:
            raise CalibUncertaintyError(
                f"{path}, line {number}: {len(line)} values for {len(columns)} columns; put a value that holds the separator in"
                " quotes"
            )
        values = dict.fromkeys((*COLUMNS, SPLIT), "") | dict(
            zip(columns, (value.strip() for value in line), strict=False)
        )
        images = _channel_files(path.parent, values["ct"]) if values["ct"] else []
        labels = path.parent / values["labels"] if values["labels"] else None
        rows.append(_Row(f"line {number}", values["id"], tuple(images), labels, values[SPLIT]))
    return rows


def _csv_lines(text: str):
    """(line number, values) of every line that holds something, whatever separates its values."""
    separator, skipped = None, 0
    head, _, rest = text.partition("\n")
    head = head.rstrip("\r")
    if head.casefold().startswith("sep=") and len(head) == 5:  # what Excel writes for itself
        separator, text, skipped = head[4], rest, 1
    if separator is None:
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(",;\t", key=first.count)  # of equally many the comma
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for line in reader:
        if any(value.strip() for value in line):
            yield reader.line_num + skipped, line


def _channel_files(folder: Path, listed: str) -> list[Path]:
    if (folder / listed).exists():  # a name may have a ; in it
        return [folder / listed]
    return [folder / name.strip() for name in listed.split(";") if name.strip()] or [folder / listed]


# JSON


def _rows_of_json(path: Path) -> list[_Row]:
    text = _text_of(path, "JSON")
    try:
        content = parsed(text)
    except ValueError as error:
        raise CalibUncertaintyError(f"{path} cannot be read as JSON ({error})") from error
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, list):
        raise CalibUncertaintyError(f"{path} is no list of cases; it must look like {_SHAPES}")
    return [_row_of_json(item, f"case {number}", path) for number, item in enumerate(cases, start=1)]


def _row_of_json(item, where: str, path: Path) -> _Row:
    if not isinstance(item, dict):
        raise CalibUncertaintyError(f"{path}, {where}: {item!r:.60} is no case; it must look like {_SHAPES}")
    files = item.get("files", item)
    if not isinstance(files, dict):
        raise CalibUncertaintyError(f"{path}, {where}: 'files' is {files!r:.60}, not names with paths")
    given = files.get("ct") or []
    if isinstance(given, str):
        images = _channel_files(path.parent, given)
    elif isinstance(given, list) and all(isinstance(name, str) and name for name in given):
        images = [path.parent / name for name in given]
    else:
        raise CalibUncertaintyError(f"{path}, {where}: 'ct' is {given!r:.60}, neither a path nor a list of paths")
    labels, problem = _labels_of_json(files)
    number = isinstance(item.get("id"), int) and not isinstance(item.get("id"), bool)
    values = {"id": str(item["id"]) if number else item.get("id") or "", SPLIT: item.get(SPLIT) or ""}
    for key, value in values.items():
        if not isinstance(value, str):
            raise CalibUncertaintyError(f"{path}, {where}: '{key}' is {value!r:.60}, not a text")
    reference = path.parent / labels if labels else None
    return _Row(where, values["id"].strip(), tuple(images), reference, values[SPLIT].strip(), problem)


def _labels_of_json(files: dict) -> tuple[str | None, str]:
    """The label map: "labels", "seg", or the only one that is called seg_ and who drew it; and what is wrong with it."""
    found = [name for name in ("labels", "seg") if files.get(name)][:1]
    found = found or [name for name in files if name.startswith("seg_") and files[name]]
    if len(found) > 1:
        return None, f"there are several label maps ({', '.join(found)}); name the one to take as 'labels'"
    if found and not isinstance(files[found[0]], str):
        return None, f"'{found[0]}' is {files[found[0]]!r:.60}, not a path"
    return (files[found[0]] if found else None), ""


def _text_of(path: Path, kind: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CalibUncertaintyError(
            f"{path} does not exist; give a list of cases: a CSV file whose first line is {','.join(COLUMNS)}"
        ) from error
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read as {kind} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CalibUncertaintyError(f"{path} cannot be read as {kind} (it is not UTF-8); save it as UTF-8") from error
