"""What GDCM and ITK do not say of a DICOM folder: unreadable slices are left out, and tilted stacks are straightened."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import CalibUncertaintyError
from .volume import ORTHOGONALITY_TOLERANCE

SAME_POSITION_MM = 0.01
OFFSET_MM = 0.05  # in-plane positions are rounded in many files
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage; the enhanced and legacy-converted classes begin with it
_SOP_CLASS = "0008|0016"
_MEDIA_SOP_CLASS = (0x0002, 0x0002)
_MAGIC_AT, _MAGIC = 128, b"DICM"
_HEADER_BYTES = 8192
_LONG_LENGTHS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT")
_SUFFIXES = (".dcm", ".dicom", ".ima")


def tags_of(file_name: str, *tags: str) -> tuple[str, ...]:
    """DICOM tags ("0008|0060") as text, empty where one is missing or the file is broken (reading it whole will say so)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file_name)
    try:
        reader.ReadImageInformation()
        return tuple(reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else "" for tag in tags)
    except RuntimeError:
        return ("",) * len(tags)


def check_left_out(folder: Path, listed: Iterable[str], example: str | None = None) -> None:
    """Refuse a folder with a broken slice: GDCM leaves what it cannot read out of its lists, and a CT loses its first slice.

    listed: the files of all series GDCM found. example: a file of the series to be read; only unlisted files of its kind of
    object (SOP class), CT images, and those that are cut before they say what they are can be slices of it. Structure sets,
    reports, DICOMDIR and files that are not DICOM are no slices and are ignored.
    """
    known = {Path(name).name for name in listed}
    slice_classes = {tags_of(example, _SOP_CLASS)[0]} - {""} if example else set()
    for path in sorted(folder.iterdir()):
        if path.name in known or path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
        if header[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC:
            sop_class = _media_sop_class(header)
            broken = not sop_class or sop_class in slice_classes or f"{sop_class}.".startswith(f"{CT_CLASS}.")
        else:
            broken = len(header) < _MAGIC_AT + 4 and path.suffix.lower() in _SUFFIXES
        if broken:
            raise CalibUncertaintyError(
                f"{path} is truncated or unreadable, and a slice of the CT may be missing with it; export the series again"
                " (or take the file out of the folder if it belongs to something else)"
            )


def _media_sop_class(header: bytes) -> str:
    """MediaStorageSOPClassUID of the file meta information, which is always explicit, little-endian (DICOM PS3.10, 7.1).

    Empty where the header ends or goes wrong before it.
    """
    at = _MAGIC_AT + 4
    while at + 8 <= len(header):
        group, element, kind, length = struct.unpack_from("<HH2sH", header, at)
        begin = at + 8
        if kind in _LONG_LENGTHS:
            if at + 12 > len(header):
                return ""
            length, begin = struct.unpack_from("<I", header, at + 8)[0], at + 12
        if group != _MEDIA_SOP_CLASS[0] or begin + length > len(header):
            return ""
        if element == _MEDIA_SOP_CLASS[1]:
            return header[begin : begin + length].decode("ascii", "replace").strip(" \0")
        at = begin + length
    return ""


def check_slices(folder: Path, names: Sequence[str]) -> None:
    """Refuse a series whose slices are not one straight, regular stack; ITK makes one of it without a word.

    names: at least two files in GDCM's order, which is along the slices' normal. Raises CalibUncertaintyError in one line.
    """
    texts = [tags_of(name, "0020|0032", "0020|0037") for name in names]
    positions = np.array([_numbers(folder, name, "ImagePositionPatient", text, 3)
                          for name, (text, _) in zip(names, texts, strict=True)])  # fmt: skip
    orientations = np.array([_numbers(folder, name, "ImageOrientationPatient", text, 6)
                             for name, (_, text) in zip(names, texts, strict=True)])  # fmt: skip
    turned = np.abs(orientations - orientations[0]).max(axis=1)
    if turned.max() > ORTHOGONALITY_TOLERANCE:
        raise CalibUncertaintyError(
            f"{folder}: {Path(names[int(np.argmax(turned))]).name} lies in another plane than {Path(names[0]).name} (a scout"
            " image?); export a series of parallel slices"
        )
    rows, columns = orientations[0][:3], orientations[0][3:]
    gram = np.array([rows, columns]) @ np.array([rows, columns]).T
    if np.abs(gram - np.eye(2)).max() > ORTHOGONALITY_TOLERANCE:
        raise CalibUncertaintyError(
            f"{folder}: the ImageOrientationPatient of {Path(names[0]).name} is malformed (its two directions are not at right"
            " angles); export the series again"
        )
    normal = np.cross(rows, columns)
    _check_gaps(folder, names, positions)
    _check_tilt(folder, positions, normal / np.linalg.norm(normal))


def _check_gaps(folder: Path, names: Sequence[str], positions: np.ndarray) -> None:
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    doubled = int(np.argmin(gaps))
    if gaps[doubled] < SAME_POSITION_MM:
        raise CalibUncertaintyError(
            f"{folder}: {Path(names[doubled]).name} and {Path(names[doubled + 1]).name} have the same position; slices are"
            " doubled or their ImagePositionPatient is malformed: export the series again"
        )
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > 0.1 * usual:
        raise CalibUncertaintyError(
            f"{folder}: the gap between slices {worst + 1} and {worst + 2} is {gaps[worst]:.2f} mm where {usual:.2f} mm is"
            " usual; slices are missing or doubled: export the series again"
        )


def _check_tilt(folder: Path, positions: np.ndarray, normal: np.ndarray) -> None:
    """Every slice must lie straight above the one before and above the first: small steps aside must not add up."""
    for moved in (np.diff(positions, axis=0), positions[1:] - positions[0]):
        aside = np.linalg.norm(moved - np.outer(moved @ normal, normal), axis=1)
        allowed = np.maximum(OFFSET_MM, ORTHOGONALITY_TOLERANCE * np.linalg.norm(moved, axis=1))
        if (aside > allowed).any():
            worst = int(np.argmax(aside - allowed))
            angle = np.degrees(np.arctan2(aside[worst], np.abs(moved[worst] @ normal)))
            raise CalibUncertaintyError(
                f"{folder} holds slices that are not stacked at right angles to their plane (tilted gantry of {angle:.1f}"
                " degrees, or shifted slices); resample it to a rectangular grid first"
            )


def _numbers(folder: Path, name: str, tag: str, text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split("\\")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise CalibUncertaintyError(
            f"{folder}: {Path(name).name} has no usable {tag} ({text or 'missing'}), so its place is unknown;"
            " export the series again"
        )
    return values
