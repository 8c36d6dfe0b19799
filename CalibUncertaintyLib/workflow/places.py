"""Where the voxels of a labelled case lie, for what looks at their surroundings: distances, pooling over neighbours, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..inference.boxes import Box
from ..inference.scratch import Scratch


@dataclass(frozen=True)
class Places:
    """The places of N voxels in a box of the CT grid, in the network's axis order.

    shape: of the box, (z, y, x) voxels of `spacing` mm. positions: (N,) indices into the flattened box. distance: (N,) float32 mm
    to the nearest predicted structure, 0 inside. signed: (N,) float32 mm to the nearest predicted interface, below 0 inside
    structures. Both are of the pool's labels, which are stock nnU-Net's.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    positions: np.ndarray
    distance: np.ndarray
    signed: np.ndarray

    def scattered(self, values: np.ndarray, fill: float = 0) -> np.ndarray:
        """(z, y, x) array of the box with these (N,) values at their places and `fill` elsewhere."""
        box = np.full(int(np.prod(self.shape, dtype=np.int64)), fill, np.asarray(values).dtype)
        box[self.positions] = values
        return box.reshape(self.shape)

    def gathered(self, box: np.ndarray) -> np.ndarray:
        """(N,) values of a (z, y, x) array of the box at these places."""
        return np.ascontiguousarray(box).reshape(-1)[self.positions]

    def kept(self, keep: np.ndarray) -> Places:
        """The places of some of the voxels; keep: (N,) bool."""
        return Places(
            self.shape, self.spacing, self.positions[keep], self.distance[keep], self.signed[keep]
        )  # fmt: skip


class PlacesBuilder:
    """Takes the windows of a box in the order in which their voxels are gathered."""

    def __init__(
        self, box: Box, count: int, spacing: Sequence[float], distance: np.ndarray, signed: np.ndarray, scratch: Scratch
    ) -> None:  # fmt: skip
        """box: that the positions are counted in. count: N. distance, signed: (z, y, x) of the whole grid."""
        self._box, self._spacing = box, tuple(float(step) for step in spacing)
        self._maps = (distance, signed)
        small = int(np.prod(box.shape, dtype=np.int64)) < 2**31
        self._positions = scratch.array((count,), np.int32 if small else np.int64)
        self._values = [scratch.array((count,), np.float32) for _ in self._maps]
        self._done = 0

    def add(self, window: Sequence[slice], mask: np.ndarray) -> None:
        """The True voxels of a window (slices of the whole grid) come next."""
        inside = np.nonzero(mask)
        at = [places + (part.start - a) for places, part, a in zip(inside, window, self._box.start, strict=True)]
        part = slice(self._done, self._done + len(inside[0]))
        self._positions[part] = np.ravel_multi_index(at, self._box.shape)
        for values, of_grid in zip(self._values, self._maps, strict=True):
            values[part] = of_grid[tuple(window)][mask]
        self._done = part.stop

    def places(self) -> Places:
        """Of all windows."""
        return Places(tuple(self._box.shape), self._spacing, self._positions, *self._values)
