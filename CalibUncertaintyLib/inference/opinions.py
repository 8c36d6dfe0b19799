"""What the members say about one case, kept on the network's grid and read back at any window of the CT grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..progress import Progress
from .members import Member, MemberPredictor, PreparedCase
from .scratch import Scratch

SLAB_VALUES = 24_000_000  # logits looked at in one go, over all members and classes: about 100 MB in float32


@dataclass(frozen=True)
class Box:
    """Voxels [start, stop) of the CT grid, in the network's axis order."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Slab:
    """Logits at one window: `inside` says where in the box it lies; pooled (C, ...), members one (C, ...) each, float16."""

    inside: tuple[slice, slice, slice]
    pooled: np.ndarray
    members: list[np.ndarray]


class Opinions:
    """Logits of every member of one case, and their mean as stock nnU-Net forms it.

    nnU-Net adds the folds' logits in half precision, on the network's grid, before it resamples; so does `pooled`.
    """

    def __init__(self, case: PreparedCase, members: list[Member], pooled: np.ndarray, logits: list[np.ndarray]) -> None:
        self.case, self.members = case, members
        self._pooled, self._logits = pooled, logits

    @classmethod
    def ask(cls, predictor: MemberPredictor, case: PreparedCase, scratch: Scratch, progress: Progress) -> Opinions:
        """Run every member once."""
        import torch

        kept: list[np.ndarray] = []
        mean = None
        for _, logits in predictor.predict(case, progress):
            mean = torch.from_numpy(logits.copy()) if mean is None else mean.add_(torch.from_numpy(logits))
            if len(predictor.members) > 1:
                prepared = case.grid.prepare(logits)
                kept.append(scratch.array(prepared.shape, np.float16))
                kept[-1][...] = prepared
                del prepared
            del logits  # else it would stay in memory while the next member is asked
        if len(predictor.members) > 1:
            mean /= len(predictor.members)
        pooled = case.grid.prepare(mean.numpy())
        return cls(case, predictor.members, pooled, kept or [pooled])

    def foreground_box(
        self,
        look: Callable[[np.ndarray, list[np.ndarray]], tuple[np.ndarray, np.ndarray]],
        at_least: float,
        margin_mm: float,
    ) -> tuple[Box, float]:
        """The box that matters, and the largest foreground probability left outside it.

        look(pooled (C, n), members) -> the largest foreground probability that any part of the result would show (n,), and
        where a structure can be labelled (n,). The box holds every voxel that can be labelled, plus `margin_mm`, and every
        voxel where that probability can exceed `at_least`. Nothing is lost by looking at the network's grid only: between
        grid points the log-probability of the background is concave in the linearly interpolated logits, so it is never
        below its smallest neighbour.
        """
        shape = self._pooled.shape[1:]
        likely = np.empty(shape, np.float32)
        labelled = np.empty(shape, bool)
        step = max(1, SLAB_VALUES // max(1, self._pooled[:, :1].size * (len(self._logits) + 1)))
        for begin in range(0, shape[0], step):
            part = slice(begin, min(begin + step, shape[0]))
            likely[part], labelled[part] = look(self._pooled[:, part], [logits[:, part] for logits in self._logits])
        structures = self._reach(labelled)
        places = self._reach(likely > at_least)
        if structures is None and places is None:
            places = self._reach(
                likely == likely.max()
            )  # nothing is likely: the least unlikely place stands for the rest
        boxes = [self._grown(structures, margin_mm)] if structures else []
        boxes += [places] if places else []
        box = Box(
            tuple(min(b.start[axis] for b in boxes) for axis in range(3)),
            tuple(max(b.stop[axis] for b in boxes) for axis in range(3)),
        )
        outside = np.ones(shape, bool)
        outside[tuple(self._grid_inside(box, axis) for axis in range(3))] = False
        return box, float(likely[outside].max()) if outside.any() else 0.0

    @property
    def n_classes(self) -> int:
        """Heads of the network, background included."""
        return int(self._pooled.shape[0])

    def whole(self) -> Box:
        """The box of the whole CT."""
        return Box((0, 0, 0), self.case.full_shape)

    def _reach(self, mask: np.ndarray) -> Box | None:
        """The CT voxels that the network voxels of a mask have any part in."""
        if not mask.any():
            return None
        start, stop = [], []
        for axis, (axis_map, offset) in enumerate(zip(self.case.grid.maps, self.case.crop_start, strict=True)):
            touched = np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0]
            first, last = axis_map.reaching(int(touched[0]), int(touched[-1]) + 1)
            start.append(first + offset)
            stop.append(max(last, first + 1) + offset)
        return Box(tuple(start), tuple(stop))

    def _grown(self, box: Box, margin_mm: float) -> Box:
        margin = [int(np.ceil(margin_mm / spacing)) for spacing in self.case.spacing]
        return Box(
            tuple(max(0, a - m) for a, m in zip(box.start, margin, strict=True)),
            tuple(min(n, b + m) for b, m, n in zip(box.stop, margin, self.case.full_shape, strict=True)),
        )

    def _grid_inside(self, box: Box, axis: int) -> slice:
        """The network voxels whose whole reach along one axis lies inside the box."""
        axis_map, offset = self.case.grid.maps[axis], self.case.crop_start[axis]
        n_out = self.case.grid.ct_shape[axis]
        n_in = self._pooled.shape[axis + 1]
        inside = np.ones(n_in, bool)
        outside = np.r_[0 : max(0, box.start[axis] - offset), min(n_out, max(0, box.stop[axis] - offset)) : n_out]
        inside[axis_map.low[outside]] = False
        inside[axis_map.high[outside]] = False
        kept = np.nonzero(inside)[0]
        return slice(int(kept[0]), int(kept[-1]) + 1) if len(kept) else slice(0, 0)

    def slabs(self, box: Box) -> Iterator[Slab]:
        """The logits of a box, slab by slab along the first axis; empty background outside nnU-Net's crop is left out."""
        offset, size = self.case.crop_start, self.case.grid.ct_shape
        start = [max(a, o) for a, o in zip(box.start, offset, strict=True)]
        stop = [min(b, o + n) for b, o, n in zip(box.stop, offset, size, strict=True)]
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return
        layer = (stop[1] - start[1]) * (stop[2] - start[2]) * self._pooled.shape[0] * (len(self._logits) + 1)
        step = max(1, SLAB_VALUES // layer)
        alone = len(self._logits) == 1
        for begin in range(start[0], stop[0], step):
            low, high = [begin, *start[1:]], [min(begin + step, stop[0]), *stop[1:]]
            window = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, offset, strict=True))
            pooled = self.case.grid.sample(self._pooled, window)
            members = [pooled] if alone else [self.case.grid.sample(logits, window) for logits in self._logits]
            yield Slab(
                tuple(slice(a - o, b - o) for a, b, o in zip(low, high, box.start, strict=True)), pooled, members
            )
