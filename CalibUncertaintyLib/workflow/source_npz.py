"""Probabilities that nnU-Net stored as .npz, read plane by plane: all classes of one plane at a time, never the whole array.

An .npz is a zip of .npy files, and the classes are the outermost axis: one plane of all classes lies in as many places of one
compressed stream. The stream is run through once; where a class begins the decompressor is copied, and from then on every class
is read by a decompressor of its own. Nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import CalibUncertaintyError

KEY = "probabilities"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, then the lengths of its name and of more
_READ_BYTES = 1 << 16
_WHOLE_READ_BYTES = 1 << 20
_DAMAGED = "it is damaged or was not written whole: run nnUNetv2_predict again"


class StoredProbabilities:
    """The array (C, z, y, x) of one .npz, in the axis order of nnU-Net's reader; close it when done."""

    def __init__(self, path: str | Path) -> None:
        """Open and run through the file once.

        Raises CalibUncertaintyError, one line naming the file, where it is not such an .npz or not whole.
        """
        self.path = Path(path)
        try:
            self._stream: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise CalibUncertaintyError(f"{self.path} cannot be read ({error.strerror}); check the path") from error
        try:
            self._open()
        except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OSError) as error:
            self.close()
            said = " ".join(str(error).split()) or type(error).__name__
            raise CalibUncertaintyError(f"{self.path} cannot be read ({said}); {_DAMAGED}") from error
        except CalibUncertaintyError:
            self.close()
            raise

    def _open(self) -> None:
        member, self._packed = self._member()
        start = _Part(self._stream, member.start, member.stop, self._packed)
        start.counts = True
        self.shape, self.fortran, self.dtype = _read_header(start, self.path)
        if self.dtype.kind != "f" or len(self.shape) != 4 or not all(self.shape):
            raise CalibUncertaintyError(
                f"{self.path}: '{KEY}' is {self.dtype} of shape {self.shape}, not numbers (classes, z, y, x); give what"
                " nnUNetv2_predict --save_probabilities wrote"
            )
        # of an array written in Fortran's order the voxels of one x lie together, all classes of each
        parts = 1 if self.fortran else self.shape[0]
        size = math.prod(self.shape) * self.dtype.itemsize
        self._parts: list[_Part] = []
        for _ in range(parts):
            self._parts.append(start.copy())
            start.skip(size // parts)
        if start.more() or start.crc != member.crc:
            raise ValueError("its checksum is wrong")

    def _member(self) -> tuple[_Member, bool]:
        with zipfile.ZipFile(self._stream) as archive:
            names = {Path(info.filename).stem: info for info in archive.infolist() if info.filename.endswith(".npy")}
        info = names.get(KEY)
        if info is None:
            holds = f"it has {', '.join(names)}" if names else "it has none"
            raise CalibUncertaintyError(
                f"{self.path} has no array '{KEY}' ({holds}); give what nnUNetv2_predict --save_probabilities wrote"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise CalibUncertaintyError(
                f"{self.path} is packed as numpy never does; save it with numpy.savez_compressed"
            )
        self._stream.seek(info.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(self._stream.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError("it is no zip where it says so")
        start = info.header_offset + _LOCAL_HEADER.size + name + extra
        return _Member(start, start + info.compress_size, info.CRC), info.compress_type == zipfile.ZIP_DEFLATED

    def planes(self, stop: int | None = None) -> Iterator[tuple[tuple, np.ndarray]]:
        """(where in (z, y, x), values (C, ...) of that plane), from the first on; `stop`: before this one.

        Planes lie along the axis that changes slowest in the file, `axis`. The values are as they were stored.
        """
        parts = [part.copy() for part in self._parts]
        count = self.shape[1 + self.axis] if stop is None else min(stop, self.shape[1 + self.axis])
        channels, _, rows, _ = self.shape
        for index in range(count):
            if self.fortran:
                block = self._take(parts[0], rows * self.shape[1] * channels).reshape(rows, self.shape[1], channels)
                yield (slice(None), slice(None), index), block.transpose(2, 1, 0)
            else:
                values = np.empty((channels, rows, self.shape[3]), self.dtype)
                for of_class, part in zip(values, parts, strict=True):
                    of_class[...] = self._take(part, of_class.size).reshape(of_class.shape)
                yield (index,), values

    @property
    def axis(self) -> int:
        """Of z, y, x the one that the planes lie along: 0, or 2."""
        return 2 if self.fortran else 0

    def _take(self, part: _Part, count: int) -> np.ndarray:
        try:
            return np.frombuffer(part.read(count * self.dtype.itemsize), self.dtype)
        except (zlib.error, OSError, EOFError) as error:
            raise CalibUncertaintyError(f"{self.path} cannot be read to its end ({error}); {_DAMAGED}") from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> StoredProbabilities:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Member:
    """Where the bytes of a zip's member lie, and their checksum once unpacked."""

    def __init__(self, start: int, stop: int, crc: int) -> None:
        self.start, self.stop, self.crc = start, stop, crc


class _Part:
    """A place in a stream of bytes, packed (deflate) or not, that is read from there on; a copy goes its own way."""

    def __init__(self, stream: BinaryIO, start: int, stop: int, packed: bool) -> None:
        self._stream, self._at, self._stop = stream, start, stop
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if packed else None
        self._waiting = b""
        self.counts, self.crc = False, 0

    def copy(self) -> _Part:
        """The same place."""
        other = _Part(self._stream, self._at, self._stop, False)
        other._inflater = self._inflater.copy() if self._inflater else None
        other._waiting = self._waiting
        return other

    def read(self, size: int) -> bytes:
        """So many bytes. Raises EOFError where there are fewer."""
        pieces = []
        while size:
            piece = self._next(size)
            if not piece:
                raise EOFError("it ends too early")
            if self.counts:
                self.crc = zlib.crc32(piece, self.crc)
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, size: int) -> None:
        """Go on by so many bytes."""
        while size:
            size -= len(self.read(min(size, _WHOLE_READ_BYTES)))

    def more(self) -> bool:
        """Whether anything follows; the place is lost by asking."""
        return bool(self._next(1))

    def _next(self, most: int) -> bytes:
        """Some bytes, at most so many; none at the end."""
        if self._inflater is None:
            return self._from_file(most)
        while not self._inflater.eof:
            piece = self._inflater.decompress(self._waiting, most)
            self._waiting = self._inflater.unconsumed_tail
            if piece:
                return piece
            if not self._waiting:
                self._waiting = self._from_file(_READ_BYTES)
                if not self._waiting:
                    break
        return b""

    def _from_file(self, most: int) -> bytes:
        self._stream.seek(self._at)
        piece = self._stream.read(min(most, self._stop - self._at))
        self._at += len(piece)
        return piece


def _read_header(part: _Part, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of a .npy; the place is behind it then."""
    version = np.lib.format.read_magic(part)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise CalibUncertaintyError(
            f"{path}: '{KEY}' is an .npy of version {version[0]}.{version[1]}; save it with numpy"
        )
    return readers[version](part)


def check_probabilities(p: np.ndarray, sigmoid: bool, path: Path) -> None:
    """Refuse what no softmax (or sigmoid) gives: values that are no numbers, outside [0, 1], or that do not sum to 1.

    :param p: (C, ...) as stored; half precision may be off by 1e-2 in its sums, everything else by 1e-3.
    """
    low, high = float(p.min()), float(p.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CalibUncertaintyError(
            f"{path} holds values that are not numbers (NaN or infinite); the model's training diverged, or the file is damaged"
        )
    tolerance = 1e-2 if p.dtype.itemsize < 4 else 1e-3
    if low < 0 or high > 1 + tolerance:
        raise CalibUncertaintyError(
            f"{path} holds values from {low:.4g} to {high:.4g}, which are no probabilities (logits?); give what"
            " nnUNetv2_predict --save_probabilities wrote"
        )
    if sigmoid:
        return
    sums = p.sum(axis=0, dtype=np.float32)
    worst = float(sums.flat[np.abs(sums - 1).argmax()])
    if abs(worst - 1) > tolerance:
        raise CalibUncertaintyError(
            f"{path}: the probabilities of a voxel sum to {worst:.4g}, not to 1; is it of a model with regions, or not from"
            " nnU-Net?"
        )


def refuse_other_shape(files: Sequence[StoredProbabilities], channels: int, shape: Sequence[int], image: Path) -> None:
    """Each must have these channels, and the shape (z, y, x) of the image as nnU-Net's reader turns it."""
    for file in files:
        if file.shape[0] != channels:
            raise CalibUncertaintyError(
                f"{file.path} has {file.shape[0]} classes, the model {channels}; give what this model predicted"
            )
        if file.shape[1:] != tuple(shape):
            there, here = (" x ".join(str(n) for n in sizes) for sizes in (file.shape[1:], shape))
            raise CalibUncertaintyError(
                f"{file.path} has {there} voxels, its image {image} {here}; give what was predicted on this image"
            )
        if file.fortran != files[0].fortran:
            raise CalibUncertaintyError(
                f"{file.path} is stored in another order than {files[0].path}; save both in one with numpy.savez_compressed"
            )
