"""What each member by itself would draw, kept in the wakened cells of the CT grid until all members have spoken.

A byte a voxel and member (two above 255 labels), in a file: memory grows by no more than eight bytes a cell and member. What is one
value all over a cell, as in most cells, takes no room in the file. Asleep, a cell holds background for every member.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..model.heads import Heads
from .scratch import Scratch

if TYPE_CHECKING:
    import torch

MOST_REGIONS = 32
Cell = tuple[int, int, int]


class MemberLabels:
    """Every member's decision at every voxel, as a code.

    Softmax: the label, the first channel with the largest logit. Sigmoid: bit c is set where region c holds (its logit exceeds 0);
    regions may overlap, and each is a structure of its own. Logits are interpolated in single precision, as those of all statistics
    of members: where two classes are equally likely, a voxel may fall to the other one than in the member's own segmentation.
    """

    def __init__(self, members: int, heads: Heads, scratch: Scratch) -> None:
        """members: how many there will be. Raises ValueError for more regions than a code has bits."""
        if heads.sigmoid and heads.channels > MOST_REGIONS:
            raise ValueError(f"{heads.channels} regions are more than a code has bits ({MOST_REGIONS})")
        self.members, self._sigmoid = members, heads.sigmoid
        self._type = np.dtype(np.min_scalar_type(2**heads.channels - 1 if heads.sigmoid else heads.channels - 1))
        self._scratch, self._file, self._end = scratch, None, 0
        # voxels of a cell, and of each member where its codes begin in the file, or -1 - c where the code is c all over the cell
        self._cells: dict[Cell, tuple[int, np.ndarray]] = {}

    def add(self, member: int, logits: torch.Tensor, cells: Iterable[tuple[Cell, Sequence[slice]]]) -> None:
        """One member's logits (C, z, y, x) over several cells, each with the part of them that is its own."""
        codes = codes_of(logits, self._sigmoid).astype(self._type)
        for cell, inside in cells:
            self._keep(member, cell, codes[tuple(inside)])

    def pieces(self) -> Iterator[tuple[np.ndarray, int]]:
        """Cell by cell codes (members, n), and how many voxels each of the n stands for: where every member has one code all over a
        cell, a single one stands for all. Cells that are background for every member are left out.
        """
        for voxels, where in self._cells.values():
            if (where < 0).all():
                yield (-1 - where)[:, np.newaxis].astype(self._type), voxels
                continue
            codes = np.empty((self.members, voxels), self._type)
            for of_member, at in zip(codes, where, strict=True):
                if at < 0:
                    of_member[:] = -1 - at
                else:
                    self._file.read(int(at), of_member)
            yield codes, 1

    def _keep(self, member: int, cell: Cell, codes: np.ndarray) -> None:
        first = int(codes.flat[0])
        uniform = bool((codes == first).all())
        if cell not in self._cells:
            if uniform and first == 0:
                return  # background for every member so far, as if it slept
            self._cells[cell] = codes.size, np.full(self.members, -1, np.int64)
        self._cells[cell][1][member] = -1 - first if uniform else self._write(codes)

    def _write(self, codes: np.ndarray) -> int:
        self._file = self._file or self._scratch.file()
        at, self._end = self._end, self._end + codes.nbytes
        self._file.write(at, np.ascontiguousarray(codes))
        return at


def codes_of(logits: torch.Tensor, sigmoid: bool) -> np.ndarray:
    """What one member with these logits (C, ...) draws, (...) integers; see `MemberLabels`."""
    return (_regions_that_hold if sigmoid else _first_largest)(logits).cpu().numpy()


def _first_largest(logits: torch.Tensor) -> torch.Tensor:
    """(C, ...) to the first channel with the largest value, (...) int16. torch's argmax takes many times as long."""
    import torch

    largest, label = logits[0].float(), torch.zeros(logits.shape[1:], dtype=torch.int16, device=logits.device)
    for channel in range(1, len(logits)):
        value = logits[channel].float()
        label.masked_fill_(value > largest, channel)
        largest = torch.maximum(largest, value)
    return label


def _regions_that_hold(logits: torch.Tensor) -> torch.Tensor:
    """(C, ...) to the bits of the channels above 0, (...) int64."""
    import torch

    code = torch.zeros(logits.shape[1:], dtype=torch.int64, device=logits.device)
    for channel, of_region in enumerate(logits):
        code += (of_region > 0).long() << channel
    return code
