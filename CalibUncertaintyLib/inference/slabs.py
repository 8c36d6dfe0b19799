"""Reading back what the members said, window by window of the CT grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from .boxes import Box
from .cells import CELL, Cells
from .kept_logits import KeptLogits
from .member import Prepared
from .member_labels import codes_of
from .member_sums import MemberMeans, MemberSums
from .resampling import GridReturn
from .scratch import Blocks
from .seen import Seen

_FEWEST_ROWS, _MOST_ROWS, _VALUES_AT_ONCE = 8, 64, 1 << 20


@dataclass
class Pool:
    """The members of one model folder, which share a grid: the sum of their logits, later their mean; and where to look.

    A plan whose interpolation is not separable is looked at on the CT grid, after its own rule has brought it there. kept: of each
    member that was asked its number, which set of weights it has, and its logits, where these are kept.
    """

    grid: GridReturn
    total: Blocks
    seen: Seen
    count: int
    asked: int = 0
    kept: list[tuple[int, int, KeptLogits]] = field(default_factory=list)


@dataclass
class Slab:
    """At one window: where in the box it lies, the pooled logits (C, ...) float16, and what is known of the members there.

    means: of the members' probabilities, where there are several and temperatures were given. codes: what each member draws, as
    `codes_of` has it, (M, ...), where that was asked for and logits are kept. around(halo) -> the pooled logits of the window grown
    by so many voxels (as far as nnU-Net's crop reaches), where that lies on the CT grid, and where the window lies in it.
    """

    inside: tuple[slice, slice, slice]
    pooled: np.ndarray
    means: MemberMeans | None = None
    codes: np.ndarray | None = None
    around: Callable[[Sequence[int]], tuple[np.ndarray, Box, tuple[slice, ...]]] | None = None
    read_members: Callable[[], list[np.ndarray]] = list

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Every member's logits (C, ...) float16, where they were kept; a single member is the pool. Read when asked for."""
        return self.read_members()


@dataclass
class SlabReader:
    """Makes slabs of what was kept of the members.

    members: how many there are. sums: what is averaged over them, if anything. cells: where sums of them are kept; None where
    their logits are. codes: whether slabs say what each member draws (sigmoid: which kind of heads). device: where members'
    logits are worked on.
    """

    case: Prepared
    pools: list[Pool]
    members: int
    sums: MemberSums | None
    cells: Cells | None
    codes: bool
    sigmoid: bool
    device: object = "cpu"

    def pieces(self, box: Box) -> Iterator[Callable[[], Slab]]:
        """A box as calls that each make one slab, which may be made at the same time by several threads.

        Slab by slab along the first two axes; empty background outside nnU-Net's crop is left out.
        """
        offset, size = self.case.crop_start, self.case.grid.ct_shape
        cropped = box.moved([-o for o in offset]).within(Box((0, 0, 0), tuple(size)))
        if cropped is None:
            return
        for planes in _steps(cropped, 0, CELL[0]):
            layer = (planes, *cropped.slices[1:])
            held = [self._planes(pool, layer) for pool in self.pools]
            for rows in _steps(cropped, 1, CELL[1] if self.cells is not None else self._rows_at_once(cropped)):
                yield partial(self._slab, held, (planes, rows, cropped.slices[2]), box)

    def _rows_at_once(self, box: Box) -> int:
        """Rows of a slab: few, large operations are quicker, up to what a processor's cache holds."""
        a_row = CELL[0] * box.shape[2] * self.pools[0].total.shape[0]
        return max(_FEWEST_ROWS, min(_MOST_ROWS, _VALUES_AT_ONCE // a_row))

    def _slab(self, held: list, window: tuple[slice, slice, slice], box: Box) -> Slab:
        offset = self.case.crop_start
        pooled = self._pooled([part(window) for part in held])
        here = Box(tuple(s.start for s in window), tuple(s.stop for s in window))
        means = codes = None
        if self.cells is not None:
            means = self.cells.means(here, pooled)
        elif self.sums is not None:
            means, codes = self._of_members(window, pooled.shape[1:])
        alone = [pooled] if self.members == 1 else []
        return Slab(
            here.moved(offset).moved([-a for a in box.start]).slices, pooled, means, codes,
            lambda halo: self._around(here, halo), lambda: self._members_at(window) or alone,
        )  # fmt: skip

    def _kept(self) -> list[tuple[int, int, Pool, KeptLogits]]:
        """Every member's number, set of weights, pool and logits, in the order of their numbers."""
        found = [(number, source, pool, logits) for pool in self.pools for number, source, logits in pool.kept]
        return sorted(found, key=lambda of_member: of_member[0])

    def _of_members(self, window, shape: tuple[int, ...]) -> tuple[MemberMeans, np.ndarray | None]:
        """What is averaged over the members, and what each of them draws."""
        sums, codes = np.zeros((self.sums.values, *shape), np.float32), []
        for _, source, pool, kept in self._kept():
            logits = pool.grid.sample(kept.read(pool.grid.support(window)).to(self.device), window, exact=False).float()
            self.sums.add(sums, logits, 1, source)
            if self.codes:
                codes.append(codes_of(logits, self.sigmoid))
        return self.sums.means(sums, self.members), np.stack(codes) if codes else None

    def _members_at(self, window) -> list[np.ndarray]:
        return [
            pool.grid.sample(kept.read(pool.grid.support(window)), window).numpy() for *_, pool, kept in self._kept()
        ]

    def _around(self, here: Box, halo: Sequence[int]) -> tuple[np.ndarray, Box, tuple[slice, ...]]:
        """`Slab.around` of a window of nnU-Net's crop."""
        grown = here.grown(halo, self.case.grid.ct_shape)
        pooled = self._pooled([self._planes(pool, grown.slices)(grown.slices) for pool in self.pools])
        return pooled, grown.moved(self.case.crop_start), here.moved([-a for a in grown.start]).slices

    def _planes(self, pool: Pool, layer):
        """Read a layer of a pool once; what comes back samples any window of it."""
        z, y, x = pool.grid.support(layer)
        values = np.ascontiguousarray(pool.total.read(z.start, z.stop)[:, :, y, x], np.float16)

        def at(window):
            import torch

            cut = zip(pool.grid.support(window), (z, y, x), strict=True)
            inside = [slice(part.start - whole.start, part.stop - whole.start) for part, whole in cut]
            return pool.grid.sample(torch.from_numpy(values.transpose(1, 0, 2, 3)[(slice(None), *inside)]), window)

        return at

    def _pooled(self, of_models: list) -> np.ndarray:
        if len(of_models) == 1:
            return of_models[0].contiguous().numpy()
        total = sum(logits.float() * pool.count for logits, pool in zip(of_models, self.pools, strict=True))
        return (total / self.members).half().numpy()


def _steps(box: Box, axis: int, size: int) -> Iterator[slice]:
    """The box along one axis in pieces that end at multiples of `size`."""
    begin = box.start[axis]
    while begin < box.stop[axis]:
        end = min((begin // size + 1) * size, box.stop[axis])
        yield slice(begin, end)
        begin = end
