"""Running statistics of the members on the CT grid, only where some member sees anything but background.

The CT grid is cut into cells. A cell sleeps as long as every member so far is sure of background everywhere in it; then nothing
is stored, and the members' mean logits, which are kept anyway, stand for all of them. It wakes with the first member whose
foreground probability exceeds `WAKES_AT` at any neighbour on the network's grid (between neighbours it cannot be higher). The
members before enter by their mean, whose foreground probability is below that too; every later one enters exactly. So memory
does not grow with the number of members; no probability is off by more than `WAKES_AT` times the share of sleepers, and no entropy
by more than the entropy of that (0.008 nats and `WAKES_AT` ln(C - 1)).

More is kept only of what is asked for by name (`EXTRAS`), and the same rule holds for it, with w = `WAKES_AT` and a share s of
sleepers:
- squares: off by 2 w s; a variance over members, as the mean over C classes (two of a region), by 1.01 w / C
- votes: not off at all: sleepers decide for background, and so does their mean
- log_probabilities: of background (of a region: outside) off by w s. Of a structure off by w s, and half precision, where all or
  none of the sleepers lie below `LOG_CLIP` and all share a temperature; else by at most ln(w / LOG_CLIP) = 9.2 nats times s. The
  mean divergence of pairs of members is 0 where no member woke, off by less than 0.011 nats; else it is off by M / (M - 1) times
  s (0.05 + w ln(C - 1)) in the first of these cases, and by 9.2 s P more in the second, P being the structures' mean probability.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .boxes import Box
from .member_labels import MemberLabels
from .member_sums import MemberMeans, MemberSums
from .resampling import GridReturn
from .scratch import Scratch

if TYPE_CHECKING:
    import torch

WAKES_AT = 1e-3
CELL = (8, 32, 32)  # CT voxels
_AT_ONCE_BYTES = 1 << 21


@dataclass(frozen=True)
class CellBlock:
    """Neighbouring cells of one layer, from `first` to `last` (both inclusive): all awake, or all waking now."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    awake: bool

    @property
    def cells(self) -> Iterator[tuple[int, int, int]]:
        """Every cell in it."""
        return itertools.product(*(range(a, b + 1) for a, b in zip(self.first, self.last, strict=True)))


class Cells:
    """The store of sums, one array a wakened cell: every temperature's sum of probabilities, the sum of entropies, the extras'."""

    def __init__(
        self, ct_shape: Sequence[int], sums: MemberSums, scratch: Scratch, labels: MemberLabels | None = None
    ) -> None:
        """sums: what is summed up of each member. labels: what takes every member's own labels as well."""
        self._shape, self._sums = tuple(ct_shape), sums
        self._scratch, self._file, self._end, self.labels = scratch, None, 0, labels
        self._in_memory: dict[tuple[int, int, int], np.ndarray] = {}
        self._in_file: dict[tuple[int, int, int], int] = {}
        self.members = 0

    @property
    def count(self) -> tuple[int, ...]:
        """How many cells there are along each axis."""
        return tuple(-(-n // size) for n, size in zip(self._shape, CELL, strict=True))

    @property
    def awake(self) -> int:
        """How many cells hold sums."""
        return len(self._in_memory) + len(self._in_file)

    def window(self, cell: Sequence[int]) -> tuple[slice, slice, slice]:
        """The voxels of the cropped CT grid in a cell."""
        return tuple(
            slice(i * size, min((i + 1) * size, n)) for i, size, n in zip(cell, CELL, self._shape, strict=True)
        )

    def is_awake(self, cell: tuple[int, int, int]) -> bool:
        """Whether this cell holds sums."""
        return cell in self._in_memory or cell in self._in_file

    @property
    def most_at_once(self) -> int:
        """How many cells may be worked on in one go: fewer, larger operations are quicker, up to what a processor's cache holds."""
        return max(1, _AT_ONCE_BYTES // (4 * self._sums.values * int(np.prod(CELL))))

    def add(
        self, block: CellBlock, logits: torch.Tensor, before: Callable[[], Iterator[tuple[int, torch.Tensor]]], source: int = 0
    ) -> None:  # fmt: skip
        """One member's logits (C, ...) float16 over a block of cells. source: which set of weights it has.

        before() -> (how many members, their mean logits) over the block for those that were asked earlier, group by group; it is
        called where the block has only now woken.
        """
        window = self.block_window(block)
        added = np.zeros((self._sums.values, *_shape(window)), np.float32)
        if not block.awake:
            for count, earlier in before():
                self._sums.add(added, earlier, count)
        self._sums.add(added, logits, 1, source)
        if self.labels is not None:
            self.labels.add(self.members, logits, ((cell, _inside(self.window(cell), window)) for cell in block.cells))
        for cell in block.cells:
            part = added[(slice(None), *_inside(self.window(cell), window))]
            if not block.awake:
                self._write(cell, np.ascontiguousarray(part))
                continue
            sums = self._read(cell)
            sums += part
            self._write(cell, sums)

    def block_window(self, block: CellBlock) -> tuple[slice, slice, slice]:
        """The voxels of the cropped CT grid in a block of cells."""
        first, last = self.window(block.first), self.window(block.last)
        return tuple(slice(a.start, b.stop) for a, b in zip(first, last, strict=True))

    def means(self, window: Box, pooled: np.ndarray) -> MemberMeans:
        """At a window of the cropped CT grid whose mean logits (C, ...) are given."""
        import torch

        sums = np.zeros((self._sums.values, *pooled.shape[1:]), np.float32)
        # asleep all members are their mean
        self._sums.add(sums, torch.from_numpy(np.ascontiguousarray(pooled)), self.members)
        for cell in self._cells_in(window):
            held = self._read(cell)
            if held is None:
                continue
            box = self.window(cell)
            shared = window.within(Box(tuple(s.start for s in box), tuple(s.stop for s in box)))
            inside, there = _inside(shared.slices, box), _inside(shared.slices, window.slices)
            sums[(slice(None), *there)] = held[(slice(None), *inside)]
        return self._sums.means(sums, self.members)

    def _cells_in(self, window: Box) -> Iterator[tuple[int, int, int]]:
        first = [a // size for a, size in zip(window.start, CELL, strict=True)]
        last = [-(-b // size) for b, size in zip(window.stop, CELL, strict=True)]
        return (
            (z, y, x)
            for z in range(first[0], last[0])
            for y in range(first[1], last[1])
            for x in range(first[2], last[2])
        )

    def _read(self, cell: tuple[int, int, int]) -> np.ndarray | None:
        if cell in self._in_memory:
            return self._in_memory[cell]
        if cell not in self._in_file:
            return None
        sums = np.empty((self._sums.values, *_shape(self.window(cell))), np.float32)
        self._file.read(self._in_file[cell], sums)
        return sums

    def _write(self, cell: tuple[int, int, int], sums: np.ndarray) -> None:
        if cell in self._in_memory:
            return  # it was changed in place
        if cell not in self._in_file:
            if self._scratch.take(sums.nbytes):
                self._in_memory[cell] = sums
                return
            self._file = self._file or self._scratch.file()
            self._in_file[cell] = self._end
            self._end += sums.nbytes
        self._file.write(self._in_file[cell], sums)


class CellFeeder:
    """Takes one member's planes as the sliding window finishes them, and gives the cells what they need of them."""

    def __init__(
        self, cells: Cells, grid: GridReturn, before: Callable[[tuple[slice, ...]], Iterator], always: bool, source: int = 0
    ) -> None:  # fmt: skip
        self._cells, self._grid, self._before, self._always, self._source = cells, grid, before, always, source
        self._held: list[tuple[int, torch.Tensor, np.ndarray]] = []
        self._layer = 0

    def add(self, first: int, planes: torch.Tensor, foreground: np.ndarray) -> None:
        """planes: (n, C, Y, X) float16 from plane `first` on; foreground: (n, Y, X), the most any temperature makes of it."""
        self._held.append((first, planes, foreground))
        there = first + len(planes)
        while self._layer < self._cells.count[0]:
            needed = self._support((self._layer, 0, 0))[0]
            if needed.stop > there:
                break
            self._feed(needed)
            self._layer += 1
            self._held = [item for item in self._held if item[0] + len(item[1]) > self.needs_from]

    @property
    def needs_from(self) -> int:
        """The first plane that a coming call may look at again (what the members before said there, too)."""
        return self._support((self._layer, 0, 0))[0].start if self._layer < self._cells.count[0] else 1 << 62

    def _support(self, cell: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        return self._grid.support(self._cells.window(cell))

    def _feed(self, needed: slice) -> None:
        import torch

        parts = [
            (
                planes[max(0, needed.start - first) : needed.stop - first],
                of_planes[max(0, needed.start - first) : needed.stop - first],
            )
            for first, planes, of_planes in self._held
            if first < needed.stop and first + len(planes) > needed.start
        ]
        highest = np.max([part.max(axis=0) for _, part in parts], axis=0)
        for block in self._blocks(highest):
            window = self._cells.block_window(block)
            support = self._grid.support(window)
            planes = torch.cat([planes[:, :, support[1], support[2]] for planes, _ in parts])
            logits = self._grid.sample(planes.permute(1, 0, 2, 3), window, exact=False)
            self._cells.add(block, logits, lambda w=window: self._before(w), self._source)

    def _blocks(self, highest: np.ndarray) -> Iterator[CellBlock]:
        """The cells of this layer that want the member's logits, in blocks of cells that are all awake, or all wake now.

        highest: (Y, X), the most foreground at any plane that the layer takes anything from.
        """
        _, rows, columns = self._cells.count
        state = np.zeros((rows, columns), np.int8)  # 0 asleep, 1 wakes now, 2 awake
        for row, column in np.ndindex(rows, columns):
            cell = (self._layer, row, column)
            if self._cells.is_awake(cell):
                state[row, column] = 2
            elif self._always or highest[self._support(cell)[1:]].max() > WAKES_AT:
                state[row, column] = 1
        for rows_in, columns_in in rectangles(state, self._cells.most_at_once):
            yield CellBlock(
                (self._layer, rows_in.start, columns_in.start), (self._layer, rows_in.stop - 1, columns_in.stop - 1),
                bool(state[rows_in.start, columns_in.start] == 2),
            )  # fmt: skip


def rectangles(state: np.ndarray, most: int) -> Iterator[tuple[slice, slice]]:
    """Rectangles of equal values above 0 that cover all such places of a (rows, columns) array once, of at most `most` places."""
    left = state.copy()
    for row, column in np.ndindex(*state.shape):
        value = left[row, column]
        if value == 0:
            continue
        width = 1
        while width < most and column + width < state.shape[1] and left[row, column + width] == value:
            width += 1
        columns, height = slice(column, column + width), 1
        while (
            (height + 1) * width <= most and row + height < len(state) and (left[row + height, columns] == value).all()
        ):
            height += 1
        rows = slice(row, row + height)
        left[rows, columns] = 0
        yield rows, columns


def _inside(window: Sequence[slice], around: Sequence[slice]) -> tuple[slice, ...]:
    """A window as seen from the beginning of one that holds it."""
    return tuple(slice(w.start - a.start, w.stop - a.start) for w, a in zip(window, around, strict=True))


def _shape(window: Sequence[slice]) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in window)
