"""Large arrays that are looked at plane by plane: in memory while they are small, in a file when they are not.

A file is read and written in plain calls, not mapped: what lies in it is the operating system's to keep or drop, and the
memory of the process does not grow with it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

MEMORY_LIMIT_BYTES = 1 << 24


class Scratch:
    """Hands out stores; beyond a limit in all they lie in files of `folder`. Closing it removes the files."""

    def __init__(self, folder: Path, limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self.folder, self._left = Path(folder), limit_bytes
        self._files: list[_File] = []

    def takes_from_disk(self, size: int) -> int:
        """How many bytes of the disk a store of this size would take now."""
        return 0 if size <= self._left else size

    def blocks(self, shape: tuple[int, ...], dtype: DTypeLike, count: int) -> Blocks:
        """A store of `count` blocks of one shape; what was never written reads as zeros. Raises OSError where the disk is full."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size * count <= self._left:
            self._left -= size * count
            return Blocks(shape, dtype, count, np.zeros((count, *shape), dtype))
        self._files.append(_File(self.folder, size * count))
        return Blocks(shape, dtype, count, self._files[-1])

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """A writable array of zeros for callers that need one as such; where it is large it is mapped to a file."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self.take(size):
            return np.zeros(shape, dtype)
        self._files.append(_File(self.folder, size))
        return self._files[-1].mapped(shape, dtype)

    def file(self) -> _File:
        """An empty file that grows as it is written."""
        self._files.append(_File(self.folder, 0))
        return self._files[-1]

    def take(self, size: int) -> bool:
        """Whether so many bytes of memory may be used; they count from now on."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def close(self) -> None:
        """Remove the files. Stores must not be used any more."""
        for file in self._files:
            file.close()
        self._files = []

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Blocks:
    """Blocks of one shape, numbered from 0."""

    def __init__(self, shape: tuple[int, ...], dtype, count: int, held: np.ndarray | _File) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._count, self._held = count, held
        self._size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self._count

    @property
    def in_memory(self) -> bool:
        """Whether no file is behind it."""
        return isinstance(self._held, np.ndarray)

    def discard(self) -> None:
        """Give up what it holds, before the scratch is closed: it must not be used any more."""
        if not self.in_memory:
            self._held.close()
        self._held = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Blocks [start, stop), (stop - start, *shape); a view where they are in memory: copy it before changing it."""
        if self.in_memory:
            return self._held[start:stop]
        values = np.empty((stop - start, *self.shape), self.dtype)
        self._held.read(start * self._size, values)
        return values

    def write(self, start: int, values: np.ndarray) -> None:
        """Put (n, *shape) values in the place of the blocks from `start` on."""
        if self.in_memory:
            self._held[start : start + len(values)] = values
        else:
            self._held.write(start * self._size, np.ascontiguousarray(values, self.dtype))


class _File:
    """A file of its own in a folder, addressed by byte."""

    def __init__(self, folder: Path, size: int) -> None:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".scratch")
        self._path, self._stream = Path(name), os.fdopen(handle, "r+b", buffering=0)
        self._lock = threading.Lock()  # a place is sought and used in two calls
        if size and hasattr(os, "posix_fallocate"):  # a full disk must show now, not after an hour
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError:
                self.close()
                raise
        elif size:
            self._stream.truncate(size)

    def read(self, at: int, into: np.ndarray) -> None:
        """Fill a contiguous array; what lies behind the end of the file is zero."""
        if not into.size:
            return
        view, done = memoryview(into).cast("B"), 0
        with self._lock:
            self._stream.seek(at)
            while done < len(view):
                count = self._stream.readinto(view[done:])
                if not count:
                    view[done:] = bytes(len(view) - done)
                    return
                done += count

    def write(self, at: int, values: np.ndarray) -> None:
        """Write a contiguous array."""
        if not values.size:
            return
        view, done = memoryview(values).cast("B"), 0
        with self._lock:
            self._stream.seek(at)
            while done < len(view):
                done += self._stream.write(view[done:])

    def mapped(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """The content as an array."""
        return np.memmap(self._path, dtype=dtype, mode="r+", shape=shape)

    def close(self) -> None:
        """Close and remove the file."""
        self._stream.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
