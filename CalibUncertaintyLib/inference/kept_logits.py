"""Every member's logits, kept in scratch files until all members have spoken, and read back a window at a time.

Then what is wanted of the members is made once, exactly, and only where maps are made. The files take two bytes a channel, voxel
of the network's grid and member, the process the same memory for any number of members. Where the disk is too short for that,
`cells` keeps sums over the members instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .scratch import Scratch

if TYPE_CHECKING:
    import torch

SHARE_OF_DISK = 0.25  # of what is free; members' logits that need more are not kept


def room_for_logits(folder: Path) -> int:
    """Bytes that kept logits may take of the disk of a folder, which need not exist yet; none where it does not tell."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        return int(SHARE_OF_DISK * shutil.disk_usage(there).free)
    except (OSError, StopIteration):
        return 0


def logit_bytes(channels: int, shape: Sequence[int]) -> int:
    """Of one member: what it takes to keep its logits on a grid of this shape."""
    return 2 * channels * int(np.prod(shape, dtype=np.int64))


class KeptLogits:
    """One member's logits over one grid. All channels of a row lie together, so a window is one read a plane."""

    def __init__(self, channels: int, shape: Sequence[int], scratch: Scratch) -> None:
        """Room for a (Z, Y, X) grid. Raises OSError where the disk is full."""
        planes, self._height, columns = (int(n) for n in shape)
        self._rows = scratch.blocks((channels, columns), np.float16, planes * self._height)

    def write(self, first: int, planes: torch.Tensor) -> None:
        """Planes (n, C, Y, X) float16 from plane `first` on."""
        rows = planes.permute(0, 2, 1, 3).contiguous().cpu().numpy()
        self._rows.write(first * self._height, rows.reshape(-1, *rows.shape[2:]))

    def discard(self) -> None:
        """Give up the room. It must not be used any more."""
        self._rows.discard()

    def planes(self, first: int, count: int) -> torch.Tensor:
        """Whole planes as they were written, (n, C, Y, X) float16."""
        import torch

        rows = self._rows.read(first * self._height, (first + count) * self._height)
        return torch.from_numpy(rows).unflatten(0, (count, self._height)).permute(0, 2, 1, 3)

    def read(self, window: Sequence[slice]) -> torch.Tensor:
        """A window of the grid, (C, z, y, x) float16."""
        import torch

        z, y, x = window
        starts = (plane * self._height for plane in range(z.start, z.stop))
        rows = [self._rows.read(start + y.start, start + y.stop)[..., x] for start in starts]  # (y, C, x) each
        return torch.from_numpy(np.stack([plane.transpose(1, 0, 2) for plane in rows], axis=1))
