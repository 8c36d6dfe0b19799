"""NRRD files written piece by piece, without a second copy of the voxels.

ITK's writer compresses with zlib, which takes longer than making the maps; igzip does the same five times as fast (package isal,
where it is there). And ITK does not always say that the disk is full, so what it writes has to be read back; Python does. The
format is https://teem.sourceforge.net/nrrd/format.html, as ITK writes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .volume import Volume

_PIECE = 1 << 23
_GZIP = 31  # zlib's number for its largest window in gzip's own wrapping
TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short", "int32": "int",
    "uint32": "unsigned int", "float32": "float", "float64": "double",
}  # fmt: skip


def can_write(volume: Volume) -> bool:
    """Whether its voxels are of a type, and its metadata of a form, that this writer knows."""
    return volume.array.dtype.name in TYPES and all(
        not set("\n\r\\") & set(f"{key}{value}") and ":=" not in key for key, value in volume.metadata.items()
    )


def write_nrrd(volume: Volume, path: Path, level: int = 1) -> bool:
    """Write a volume, gzip-compressed; False where the file is shorter than what was written.

    level: 1 (quick) to 9, as zlib counts. Raises OSError where it cannot be written.
    """
    codec = _codec()
    array = np.ascontiguousarray(volume.array, volume.array.dtype.newbyteorder("<"))
    voxels = memoryview(array.reshape(-1).view(np.uint8))
    # igzip counts from 0 to 3; its 2 is as small as zlib's 1
    compressor = codec.compressobj(level if codec is zlib else 2 + (level > 5), codec.DEFLATED, _GZIP)
    with path.open("wb") as file:
        written = file.write(header(volume).encode())
        for begin in range(0, len(voxels), _PIECE):
            written += file.write(compressor.compress(voxels[begin : begin + _PIECE]))
        written += file.write(compressor.flush())
    return path.stat().st_size == written


def header(volume: Volume) -> str:
    """The text before the voxels, with the empty line that ends it."""
    sizes = " ".join(str(n) for n in volume.array.shape[::-1])
    axes = [column * step for column, step in zip(volume.direction_lps.T, volume.spacing_zyx[::-1], strict=True)]
    return "\n".join(
        (
            "NRRD0004",
            "# Complete NRRD file format specification at:",
            "# http://teem.sourceforge.net/nrrd/format.html",
            f"type: {TYPES[volume.array.dtype.name]}",
            "dimension: 3",
            "space: left-posterior-superior",
            f"sizes: {sizes}",
            f"space directions: {' '.join(map(_vector, axes))}",
            "kinds: domain domain domain",
            "endian: little",
            "encoding: gzip",
            f"space origin: {_vector(volume.origin_lps)}",
            *_key_values(volume.metadata),
            "\n",
        )
    )


def _vector(values: Sequence[float]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _key_values(metadata: Mapping[str, str]) -> Iterator[str]:
    return (f"{key}:={value}" for key, value in sorted(metadata.items()))


def _codec():
    """The module that compresses."""
    try:
        from isal import isal_zlib
    except ImportError:  # slower, and nothing else
        return zlib
    return isal_zlib
