"""The boxes of the CT grid that matter: around what was found, and around what one member thought it saw far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Two boxes become one where the box around both is hardly larger than they are: one window is quicker than two.
MERGE_WHEN_BELOW = 1.5
MOST_BOXES = 24  # each is a window that is read and resampled by itself
_CELL = 8  # voxels of the network's grid; places nearer than about this are one place


@dataclass(frozen=True)
class Box:
    """Voxels [start, stop) of the CT grid, in the network's axis order."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """How many there are in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To cut it out of an array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grown(self, margin: Sequence[int], limit: Sequence[int]) -> Box:
        """Larger by `margin` voxels on every side, inside [0, limit)."""
        return Box(
            tuple(max(0, a - m) for a, m in zip(self.start, margin, strict=True)),
            tuple(min(n, b + m) for b, m, n in zip(self.stop, margin, limit, strict=True)),
        )

    def moved(self, by: Sequence[int]) -> Box:
        """The same box elsewhere."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def overlaps(self, other: Box) -> bool:
        """Whether they share a voxel."""
        return all(a < d and c < b for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True))

    def within(self, other: Box) -> Box | None:
        """What both cover, or None."""
        start = tuple(max(a, c) for a, c in zip(self.start, other.start, strict=True))
        stop = tuple(min(b, d) for b, d in zip(self.stop, other.stop, strict=True))
        return Box(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds them all."""
    return Box(
        tuple(min(box.start[axis] for box in boxes) for axis in range(3)),
        tuple(max(box.stop[axis] for box in boxes) for axis in range(3)),
    )


def merged(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that share no voxel: those that overlap, or lie so close that one box costs little more, become one."""
    found = list(dict.fromkeys(boxes))
    while len(found) > 1:
        cost = [
            (hull((a, b)).voxels / (a.voxels + b.voxels), a.overlaps(b), i, j)
            for i, a in enumerate(found)
            for j, b in enumerate(found[:i])
        ]
        wanted = [item for item in cost if item[1] or item[0] <= MERGE_WHEN_BELOW]
        if not wanted and len(found) <= MOST_BOXES:
            break
        _, _, i, j = min(wanted or cost)
        found = [box for k, box in enumerate(found) if k not in (i, j)] + [hull((found[i], found[j]))]
    return sorted(found, key=lambda box: box.start)


def places(mask: np.ndarray) -> list[Box]:
    """Boxes around the separate places of a mask, each tight; places a few voxels apart count as one."""
    import cc3d

    if not mask.any():
        return []
    size = [-(-n // _CELL) for n in mask.shape]
    coarse = np.zeros(size, bool)
    for plane in range(size[0]):  # slice by slice: the mask of a whole body is large
        touched = mask[plane * _CELL : (plane + 1) * _CELL].any(axis=0)
        rows = np.logical_or.reduceat(touched, np.arange(0, mask.shape[1], _CELL), axis=0)
        coarse[plane] = np.logical_or.reduceat(rows, np.arange(0, mask.shape[2], _CELL), axis=1)
    labels, count = cc3d.connected_components(coarse, connectivity=26, return_N=True)
    boxes = cc3d.statistics(labels)["bounding_boxes"][1 : count + 1]
    # before they are made tight: thousands of specks in noise are a few places
    rough = merged([Box(tuple(s.start for s in box), tuple(s.stop for s in box)) for box in _strongest(boxes)])
    return [_tight(mask, box) for box in rough]


def _strongest(boxes: Sequence, limit: int = 60) -> Sequence:
    """All of them, or few enough for comparing each with each: the smallest ones are taken in with their neighbours' hull."""
    if len(boxes) <= limit:
        return boxes
    order = sorted(boxes, key=lambda box: -np.prod([s.stop - s.start for s in box]))
    rest = order[limit - 1 :]
    around = tuple(slice(min(b[axis].start for b in rest), max(b[axis].stop for b in rest)) for axis in range(3))
    return [*order[: limit - 1], around]


def _tight(mask: np.ndarray, box: Box) -> Box:
    start = [a * _CELL for a in box.start]
    inside = mask[tuple(slice(a, b * _CELL) for a, b in zip(start, box.stop, strict=True))]
    ends = [np.nonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3)]
    return Box(
        tuple(int(s + e[0]) for s, e in zip(start, ends, strict=True)),
        tuple(int(s + e[-1]) + 1 for s, e in zip(start, ends, strict=True)),
    )
