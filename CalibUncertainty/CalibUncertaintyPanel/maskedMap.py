"""A map of uncertainty inside a region of interest, of which any part can be had by itself."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaskedMap:
    """`array` where low < `distance` <= high, and 0 elsewhere; `array` everywhere where there is no distance.

    `array`, `distance` - (z, y, x) float32, the distance in mm; or the uint8 places of `bodyPlaces` in its stead. `limits` - (low,
    high) of them, see `RoiChoice.limits`.
    """

    array: np.ndarray
    distance: np.ndarray = None
    limits: tuple = (np.float32(-1), np.float32(np.inf))

    def inside(self, index):
        """Which voxels of a part lie in the region, or None for all.

        :param index: of a part, as numpy takes it.
        """
        if self.distance is None:
            return None
        low, high = self.limits
        part = self.distance[index]
        inside = part <= high
        if low >= 0:
            inside &= part > low
        return inside

    def writeInto(self, target, index):
        """Write a part into the same part of another array of this shape."""
        inside = self.inside(index)
        if inside is None:
            target[index] = self.array[index]
        else:  # eight times as fast as a choice between two values where the border of the region is ragged
            np.multiply(self.array[index], inside, out=target[index])

    def whole(self):
        """The whole of it, as a new array."""
        target = np.empty(self.array.shape, np.float32)
        for index in range(len(target)):
            self.writeInto(target, index)
        return target

    def counts(self, voxelMl, isStopped=lambda: False):
        """How often each value occurs in the region; for a thread.

        :param voxelMl: volume of a voxel, mL.
        :param isStopped: function that says whether nobody waits for the answer any more.
        :return: `ValueCounts`, or None when it was stopped.
        """
        from CalibUncertaintyLib.uncertainty.budget import ValueCounts

        counts = ValueCounts(voxelMl)
        for index, plane in enumerate(self.array):
            if isStopped():
                return None
            counts.add(plane, self.inside(index))
        return counts
