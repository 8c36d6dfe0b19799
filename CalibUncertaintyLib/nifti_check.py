"""What ITK's NIfTI reader does not say: it fills the missing end of a truncated file with zeros, turns NaN into 0, and takes
1 mm where the header has no voxel size."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .errors import CalibUncertaintyError

_CHUNK_BYTES = 16 << 20
_HEADER_BYTES = 544
_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI-1 datatype codes of the types that can hold NaN
_KNOWN_TYPES = {2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304}


def check_nifti_header(path: Path) -> None:
    """Refuse a header that cannot be of an image, before ITK's reader writes of it to the terminal in its own words.

    A file without any NIfTI header is left to ITK. Raises CalibUncertaintyError naming the file.
    """
    try:
        with _opened(path) as stream:
            _layout(stream.read(_HEADER_BYTES), path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CalibUncertaintyError(f"{path} is truncated or damaged ({error}); copy or export it again") from error


def check_nifti(path: Path) -> None:
    """Refuse a truncated or damaged NIfTI file and one with voxels that are not numbers.

    Reads the file once, in chunks. A file without any NIfTI header is left to ITK. Raises CalibUncertaintyError naming the file.
    """
    try:
        with _opened(path) as stream:
            layout = _layout(stream.read(_HEADER_BYTES), path)
            if layout is None:
                return
            voxel_bytes, offset, dtype = layout
            stream.seek(offset)
            missing, broken = _scan(stream, voxel_bytes, dtype)
            while stream.read(_CHUNK_BYTES):  # to the end: gzip checks its sum there
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CalibUncertaintyError(f"{path} is truncated or damaged ({error}); copy or export it again") from error
    if missing:
        raise CalibUncertaintyError(
            f"{path} is truncated: {missing:,} bytes of voxels are missing; copy or export it again"
        )
    if broken:
        raise CalibUncertaintyError(
            f"{path} holds {broken:,} voxels that are not numbers (NaN or infinite); export it again or fill them"
        )


def _opened(path: Path):
    """The file's content, unpacked where it is packed, whatever its name says."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _layout(header: bytes, path: Path) -> tuple[int, int, np.dtype | None] | None:
    """Bytes of voxels, where they begin, and their type if it is a floating one (NIfTI-1 and -2, either byte order).

    None where there is no NIfTI header.
    """
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0] if len(header) >= 4 else 0
        if size == 348 and len(header) >= 348:
            dims = struct.unpack_from(order + "8h", header, 40)
            code, bits = struct.unpack_from(order + "2h", header, 70)
            offset = struct.unpack_from(order + "f", header, 108)[0]
            sizes = struct.unpack_from(order + "3f", header, 80)
        elif size == 540 and len(header) >= 540:
            dims = struct.unpack_from(order + "8q", header, 16)
            code, bits = struct.unpack_from(order + "2h", header, 12)
            offset = struct.unpack_from(order + "q", header, 168)[0]
            sizes = struct.unpack_from(order + "3d", header, 112)
        else:
            continue
        counts = dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else ()
        if not counts or counts[0] < 1 or code not in _KNOWN_TYPES:
            shown = " x ".join(map(str, counts)) + " voxels" if counts else f"{dims[0]} axes"
            raise CalibUncertaintyError(
                f"{path} has a damaged NIfTI header ({shown}, type {code}); copy or export it again"
            )
        if bits <= 0 or not math.isfinite(offset) or offset < 0:
            raise CalibUncertaintyError(f"{path} has a damaged NIfTI header; copy or export it again")
        if not all(math.isfinite(size) and size != 0 for size in sizes):
            shown = " x ".join(f"{size:g}" for size in sizes)
            raise CalibUncertaintyError(f"{path} has the voxel size {shown} mm in its header; export it with the real one")
        voxels = math.prod(max(1, n) for n in counts)  # ITK's reader takes 1 for them, too
        dtype = np.dtype(order + _FLOAT_TYPES[code]) if code in _FLOAT_TYPES else None
        return voxels * bits // 8, int(offset), dtype
    return None


def _scan(stream, voxel_bytes: int, dtype: np.dtype | None) -> tuple[int, int]:
    """Read the voxels in chunks: how many bytes are missing, and how many voxels are not finite."""
    left, broken = voxel_bytes, 0
    while left:
        chunk = stream.read(min(_CHUNK_BYTES, left))
        if not chunk:
            break
        left -= len(chunk)
        if dtype is not None:
            values = np.frombuffer(chunk, dtype=dtype, count=len(chunk) // dtype.itemsize)
            broken += values.size - int(np.count_nonzero(np.isfinite(values)))
    return left, broken
