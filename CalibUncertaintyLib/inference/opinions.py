"""What the members say about one case: their running sum, kept on the network's grid, read back at any window of the CT grid.

One member after the other walks through the volume; its logits are added to a sum, looked at for where anything but background
is likely, and put away in a file, for what is wanted of each member by itself. Members too many for the disk are summed up on the
way instead (`cells`) and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np

from ..errors import CalibUncertaintyError
from ..progress import Progress
from .boxes import Box, merged, places
from .cells import CELL, CellFeeder, Cells
from .kept_logits import KeptLogits, logit_bytes, room_for_logits
from .member_labels import MemberLabels
from .member_sums import MemberSums
from .members import Member, MemberPredictor, Prepared
from .scratch import Blocks, Scratch
from .seen import MemberSample, Seen, has_label, largest_foreground
from .slabs import Pool, Slab, SlabReader
from .sliding_window import is_finite


class Opinions:
    """Mean logits of all members as stock nnU-Net forms them, and running statistics of the single ones.

    nnU-Net adds the folds' logits in half precision, on the network's grid, before it resamples; so does this, and adds other
    kinds of members, of which there may be hundreds, in single. Models with
    grids of their own are pooled on the CT grid, each weighing as much as it has members.
    """

    def __init__(
        self, predictor: MemberPredictor, case: Prepared, scratch: Scratch, temperatures: Sequence, pool_temperature,
        pool_probabilities: bool, keep_members: bool, extras: Sequence[str] = (), keep_labels: bool = False,
        kept_bytes: int | None = None,
    ) -> None:  # fmt: skip
        self.case, self.members, self.n_classes = case, predictor.members, predictor.n_classes
        self._sources = list(dict.fromkeys(map(source_of, self.members)))
        self._sigmoid, self._scratch, self._as_stock = predictor.heads.sigmoid, scratch, predictor.adds_as_stock
        several = len(self.members) > 1
        sums = MemberSums(self.n_classes, self._sigmoid, temperatures, extras) if several and temperatures else None
        room = room_for_logits(scratch.folder) if kept_bytes is None else kept_bytes
        self._keep = several and (keep_members or (sums is not None and self._kept_bytes() <= room))
        self._cells = None
        if sums is not None and not self._keep:
            labels = MemberLabels(len(self.members), predictor.heads, scratch) if keep_labels else None
            self._cells = Cells(case.grid.ct_shape, sums, scratch, labels)
        used = [
            np.broadcast_to(np.atleast_2d(np.asarray(t, float)).max(axis=0), (self.n_classes,))
            for t in (1.0, pool_temperature, *temperatures)
        ]
        self._highest = np.max(used, axis=0)
        self._pool_probabilities, self._factor = pool_probabilities, 1.0
        if pool_probabilities and not self._sigmoid:
            # sum p_k^(1/T) <= K^(1 - 1/T) (sum p_k)^(1/T) over the K structures
            self._factor = float((self.n_classes - 1) ** (1 - 1 / self._highest[0]))
        self._pools = [self._pool(index, prepared) for index, prepared in enumerate(case.cases)]
        self._sample = MemberSample(len(self.members), self._sigmoid)
        self._reader = SlabReader(
            case, self._pools, len(self.members), sums, self._cells, keep_labels and several, self._sigmoid
        )

    def _kept_bytes(self) -> int:
        """What it takes to keep every member's logits."""
        sizes = [logit_bytes(self.n_classes, _looked_at(prepared)) for prepared in self.case.cases]
        return sum(sizes[member.model] for member in self.members)

    def _pool(self, index: int, prepared) -> Pool:
        shape = tuple(int(n) for n in prepared.data.shape[1:])
        # where stock nnU-Net would add these members it adds them in half precision; many more would lose digits, or overflow
        total = self._scratch.blocks(
            (self.n_classes, *shape[1:]), np.float16 if self._as_stock else np.float32, shape[0]
        )
        seen = Seen(_looked_at(prepared))
        return Pool(prepared.grid, total, seen, sum(member.model == index for member in self.members))

    @classmethod
    def ask(
        cls, predictor: MemberPredictor, case: Prepared, scratch: Scratch, progress: Progress,
        temperatures: Sequence[float | Sequence[float] | np.ndarray] = (), pool_temperature: float | Sequence[float] = 1.0,
        pool_probabilities: bool = False, keep_members: bool = False, extras: Sequence[str] = (), keep_labels: bool = False,
        kept_bytes: int | None = None,
    ) -> Opinions:  # fmt: skip
        """Run every member once.

        temperatures: at which the members' probabilities are averaged (the first one's entropies too): one number each, one a
        region of a sigmoid model, or (sources, 1 or C): one for each set of weights, in the order of `MemberSet.sources`.
        pool_temperature: of the pool; pool_probabilities: that the pool is the mean of probabilities: both only for where to
        look. keep_members: keep every member's logits for `Slab.members`. extras: what else is averaged over the members at the
        first of the temperatures, names of `member_sums.EXTRAS`. keep_labels: keep what each member by itself would draw; needs
        several members and temperatures. kept_bytes: what members' logits may take of the disk where only means and labels are
        wanted of them; a quarter of what is free unless given. Where they take more, `Cells` sums up, within the bounds it states.
        """
        opinions = cls(
            predictor, case, scratch, temperatures, pool_temperature, pool_probabilities, keep_members, extras, keep_labels,
            kept_bytes,
        )  # fmt: skip
        # closed here and now: an error's traceback would keep what they hold, and their number of threads, for long
        with closing(predictor.predict(case, progress)) as asked:
            for member, planes in asked:
                with closing(planes):
                    opinions._take(member, planes)
        return opinions

    @property
    def effective_members(self) -> dict:
        """How many independent members these are worth, and how far apart they lie; see `MemberSample.effective`."""
        return self._sample.effective()

    @property
    def member_labels(self) -> MemberLabels | None:
        """What each member by itself would draw, where members were summed up; else slabs say it (`Slab.codes`)."""
        return None if self._cells is None else self._cells.labels

    @property
    def likely(self) -> np.ndarray:
        """The largest foreground probability of any member, on the (first) model's grid, float16."""
        return self._pools[0].seen.likely

    def _take(self, member: Member, planes: Iterator) -> None:
        pool = self._pools[member.model]
        if not pool.grid.separable:
            planes = self._brought_back(pool, planes)
        shape = pool.seen.likely.shape
        source, feeder = self._sources.index(source_of(member)), None
        if self._cells is not None:
            feeder = CellFeeder(self._cells, pool.grid, self._silent, not pool.grid.separable, source)
        if self._keep:
            pool.kept.append((member.index, source, KeptLogits(self.n_classes, shape, self._scratch)))
        waiting: list = []
        for first, logits in planes:
            foreground = largest_foreground(logits, self._highest, self._sigmoid, self._factor)
            pool.seen.member(first, foreground)
            self._sample.add(member.index, first, logits, shape)
            if self._keep:
                pool.kept[-1][-1].write(first, logits)
                self._reader.device = logits.device  # where there is time to work on them again
            if feeder is not None:
                feeder.add(first, logits, foreground)
            if pool.grid.separable:
                # what the members before said is still needed where a cell may wake
                waiting.append((first, logits))
                while waiting and (feeder is None or waiting[0][0] + len(waiting[0][1]) <= feeder.needs_from):
                    self._add(pool, *waiting.pop(0))
            del logits, foreground  # the next forward needs the room in one piece
        pool.asked += 1
        if not pool.grid.separable and pool.asked == pool.count:
            self._resample_the_mean(pool)
        if self._cells is not None:
            self._cells.members += 1

    def _add(self, pool: Pool, first: int, logits) -> None:
        """Add one member's planes to the sum; the last member makes it the mean."""
        last = pool.asked == pool.count - 1
        if self._keep and pool.grid.separable and not last:
            return  # added up when all are there
        if pool.asked:
            logits = self._sum_before(pool, first, len(logits)).add_(logits.cpu())
            if last:
                logits = logits.div_(pool.count).half()
            if not is_finite(logits):
                raise CalibUncertaintyError(
                    "the sum of the members' logits exceeds nnU-Net's half precision; ask fewer members at a time"
                )
        if last and pool.grid.separable and not self._pool_probabilities:
            pool.seen.pool(first, has_label(logits, self._sigmoid))
        pool.total.write(first, logits.cpu().numpy())

    def _sum_before(self, pool: Pool, first: int, count: int):
        """The logits (n, C, Y, X) of the members before, added in the order they were asked in."""
        import torch

        if self._keep and pool.grid.separable:
            before = (kept.planes(first, count) for *_, kept in pool.kept[: pool.asked])
            total = next(before).to(torch.float16 if self._as_stock else torch.float32, copy=True)
            for planes in before:
                total.add_(planes)
            return total
        before = pool.total.read(first, first + count)
        return torch.from_numpy(before.copy() if pool.total.in_memory else before)

    def _brought_back(self, pool: Pool, planes: Iterator) -> Iterator:
        """One member's planes on the CT grid, by the plan's own rule, which wants them all at once."""
        import torch

        parts = []
        for first, logits in planes:
            self._add(pool, first, logits)
            parts.append(logits.cpu())
        whole = torch.from_numpy(pool.grid.whole(torch.cat(parts).permute(1, 0, 2, 3).numpy()))
        del parts
        for first in range(0, whole.shape[1], CELL[0]):
            yield first, whole[:, first : first + CELL[0]].permute(1, 0, 2, 3)

    def _resample_the_mean(self, pool: Pool) -> None:
        import torch

        whole = pool.grid.whole(pool.total.read(0, len(pool.total)).transpose(1, 0, 2, 3).astype(np.float16))
        pool.total = self._scratch.blocks((self.n_classes, *whole.shape[2:]), np.float16, whole.shape[1])
        pool.total.write(0, whole.transpose(1, 0, 2, 3))
        if not self._pool_probabilities:
            pool.seen.pool(0, has_label(torch.from_numpy(whole).permute(1, 0, 2, 3), self._sigmoid))

    def _silent(self, window: tuple[slice, slice, slice]) -> Iterator:
        """(how many, their mean logits (C, ...)) of the members asked before the present one, model by model."""
        for pool in self._pools:
            if pool.asked:
                # the sum is the mean already where all of a model's members have been asked
                divided = 1 if pool.asked == pool.count else pool.asked
                mean = _cut(pool.total, pool.grid.support(window)).float().div_(divided).half()
                yield pool.asked, pool.grid.sample(mean, window, exact=False)

    def discard(self) -> None:
        """Give up the members' logits; nothing can be read any more."""
        for pool in self._pools:
            for *_, kept in pool.kept:
                kept.discard()
            pool.kept = []

    def boxes(self, at_least: float, margin_mm: float, also: Sequence[Box] = ()) -> tuple[list[Box], float]:
        """The boxes that matter, and the largest foreground probability of any member left outside them.

        They hold every voxel that can be labelled, plus `margin_mm`, and every voxel where any member's foreground probability
        can exceed `at_least` at any temperature in use. Nothing is lost by looking at the network's grid only: between grid
        points the log-odds of foreground are convex in the linearly interpolated logits, so never above their largest
        neighbour. also: boxes of the CT grid that matter, whatever was found there.
        """
        margin = [int(np.ceil(margin_mm / spacing)) for spacing in self.case.spacing]
        found = []
        for pool in self._pools:
            _forget_unreached(pool)
            labelled = pool.seen.likely >= 0.5 if self._pool_probabilities else pool.seen.labelled
            found += [self._on_ct(pool, box).grown(margin, self.case.full_shape) for box in places(labelled)]
            found += [self._on_ct(pool, box) for box in places(pool.seen.likely > at_least)]
        if not found:  # nothing is likely: the least unlikely place stands for the rest
            pool = max(self._pools, key=lambda pool: pool.seen.likely.max())
            index = np.unravel_index(pool.seen.likely.argmax(), pool.seen.likely.shape)
            found = [self._on_ct(pool, Box(tuple(map(int, index)), tuple(int(i) + 1 for i in index)))]
        boxes = merged([*found, *also])
        return boxes, max(self._left_out(pool, boxes) for pool in self._pools)

    def _left_out(self, pool: Pool, boxes: list[Box]) -> float:
        outside = np.ones(pool.seen.likely.shape, bool)
        for box in boxes:
            outside[tuple(self._grid_inside(pool, box, axis) for axis in range(3))] = False
        return float(pool.seen.likely[outside].max()) if outside.any() else 0.0

    def whole(self) -> Box:
        """The box of the whole CT."""
        return Box((0, 0, 0), self.case.full_shape)

    def _on_ct(self, pool: Pool, box: Box) -> Box:
        """The CT voxels that the network voxels of a box have any part in."""
        start, stop = [], []
        for axis, (axis_map, offset) in enumerate(zip(pool.grid.maps, self.case.crop_start, strict=True)):
            first, last = axis_map.reaching(box.start[axis], box.stop[axis])
            start.append(first + offset)
            stop.append(max(last, first + 1) + offset)
        return Box(tuple(start), tuple(stop))

    def _grid_inside(self, pool: Pool, box: Box, axis: int) -> slice:
        """The network voxels whose whole reach along one axis lies inside the box."""
        axis_map, offset = pool.grid.maps[axis], self.case.crop_start[axis]
        n_out, n_in = pool.grid.ct_shape[axis], pool.seen.likely.shape[axis]
        inside = np.zeros(n_in, bool)
        first, last = (min(n_out, max(0, edge[axis] - offset)) for edge in (box.start, box.stop))
        for neighbour in (axis_map.low, axis_map.high):
            inside[neighbour[first:last]] = True
        for neighbour in (axis_map.low, axis_map.high):
            inside[neighbour[:first]] = inside[neighbour[last:]] = False
        kept = np.nonzero(inside)[0]
        return slice(int(kept[0]), int(kept[-1]) + 1) if len(kept) else slice(0, 0)

    def slabs(self, box: Box) -> Iterator[Slab]:
        """A box, slab by slab along the first two axes; empty background outside nnU-Net's crop is left out."""
        return (piece() for piece in self.pieces(box))

    def pieces(self, box: Box) -> Iterator[Callable[[], Slab]]:
        """The slabs of a box as calls that make them, for several threads; see `SlabReader.pieces`."""
        return self._reader.pieces(box)


def _looked_at(prepared) -> tuple[int, int, int]:
    """Shape of the grid that a model's logits are looked at on: its network's, or the CT's (see `Pool`)."""
    grid = prepared.grid
    return tuple(int(n) for n in (prepared.data.shape[1:] if grid.separable else grid.ct_shape))


def source_of(member: Member) -> tuple[int, str, str]:
    """Which set of weights a member has: flips and dropout samples share theirs."""
    return member.model, str(member.fold), member.checkpoint


def _forget_unreached(pool: Pool) -> None:
    """What lies between slices much thicker than the network's planes reaches no voxel of the CT, and is no part of the answer."""
    for axis, axis_map in enumerate(pool.grid.maps):
        reached = np.zeros(pool.seen.likely.shape[axis], bool)
        reached[axis_map.low] = reached[axis_map.high] = True
        if not reached.all():
            at = (*(slice(None),) * axis, ~reached)
            pool.seen.likely[at], pool.seen.labelled[at] = 0, False


def _cut(store: Blocks, support: tuple[slice, slice, slice]):
    import torch

    z, y, x = support
    return torch.from_numpy(np.ascontiguousarray(store.read(z.start, z.stop)[:, :, y, x].transpose(1, 0, 2, 3)))
