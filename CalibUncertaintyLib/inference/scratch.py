"""Large arrays: in memory while they are small, in a file beside the result when they are not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

MEMORY_LIMIT_BYTES = 1 << 30


class Scratch:
    """Hands out arrays; beyond a limit in all they lie in files of `folder`, which the operating system pages as it likes."""

    def __init__(self, folder: Path, limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._folder, self._left = folder, limit_bytes

    def array(self, shape: tuple[int, ...], dtype, fill: float = 0) -> np.ndarray:
        """A writable array of this shape filled with one value. Raises OSError where the disk cannot hold it."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            return np.full(shape, fill, dtype=dtype)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".scratch", delete=False) as stream:
            if hasattr(os, "posix_fallocate"):  # a sparse file on a full disk would end the process at the first write
                os.posix_fallocate(stream.fileno(), 0, size)
            mapped = np.memmap(stream, dtype=dtype, mode="w+", shape=shape)
        if fill:
            mapped[...] = fill
        return mapped
