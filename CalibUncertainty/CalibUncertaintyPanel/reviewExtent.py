"""The box around each region of a Result, on the voxel grid of its CT. Numbers only: for threads.

A Result does not store its regions voxel by voxel. The uncertain ones are found again from the map, the distance and the
threshold they were made with; a possible miss gets a box as large as a ball of its volume would need.
"""

import math
from dataclasses import dataclass

import numpy as np

ROUNDER_THAN_IT_IS = 1.5  # regions are no balls: an estimated box is this much wider than the ball of its volume


@dataclass(frozen=True)
class RegionBox:
    """Voxels start <= index < stop, (z, y, x), of the grid that `ijkToRas` (4x4) places in the patient."""

    start: tuple
    stop: tuple
    ijkToRas: np.ndarray

    def cornersRas(self):
        """The outer corners of the box, (8, 3) RAS in mm: voxels have a size."""
        low, high = np.array(self.start) - 0.5, np.array(self.stop) - 0.5
        choices = np.array(list(np.ndindex(2, 2, 2)))
        indices = np.where(choices, high, low)[:, ::-1]  # (i, j, k)
        return indices @ self.ijkToRas[:3, :3].T + self.ijkToRas[:3, 3]

    def grown(self, voxels, shape):
        """The box with a margin of some voxels, inside a grid of this (z, y, x) shape."""
        start = tuple(int(max(0, value - voxels)) for value in self.start)
        stop = tuple(int(min(limit, value + voxels)) for value, limit in zip(self.stop, shape, strict=True))
        return RegionBox(start, stop, self.ijkToRas)


def estimatedBox(region, ijkToRas, shape):
    """A box about the centroid of a region, from its volume alone, widened to hold its peak.

    :param ijkToRas: 4x4 geometry of the CT.
    :param shape: (z, y, x) voxels of the CT.
    """
    radius = ROUNDER_THAN_IT_IS * (3 * region.volume_ml * 1000 / (4 * math.pi)) ** (1 / 3)
    spacing = np.linalg.norm(ijkToRas[:3, :3], axis=0)[::-1]
    centre, peak = (_index(ijkToRas, point) for point in (region.centroid_ras_mm, region.peak_ras_mm))
    low = np.minimum(centre - radius / spacing, peak)
    high = np.maximum(centre + radius / spacing, peak)
    limit = np.array(shape)
    start = np.clip(np.floor(low), 0, limit - 1).astype(int)
    stop = np.clip(np.ceil(high) + 1, start + 1, limit).astype(int)
    return RegionBox(tuple(start.tolist()), tuple(stop.tolist()), ijkToRas)


def boxesOf(folder):
    """The boxes of the uncertain regions of a Result, found from its maps; seconds for a large CT.

    :param folder: a Result folder.
    :return: {region id: `RegionBox`}; regions that cannot be found again are left out.
    :raises CalibUncertaintyError: if a map is missing.
    """
    from CalibUncertaintyLib.result import Result
    from CalibUncertaintyLib.uncertainty.regions import POSSIBLE_MISS

    result = Result.open(folder)
    wanted = [region for region in result.regions if region.kind != POSSIBLE_MISS]
    if not wanted or result.provenance["maps"]["distance"]["file"] is None:
        return {}
    geometry, voxels = _doubtfulVoxels(result)
    shape = geometry.array.shape
    numbers = _components(voxels, shape)
    low, high = _limits(voxels, shape, numbers)
    ijkToRas = ctGeometry(result.provenance)
    found = {}
    for region in wanted:
        index = np.rint(geometry.index_from_lps(region.peak_lps_mm)).astype(int)
        if (index < 0).any() or (index >= shape).any():
            continue
        flat = np.ravel_multi_index(tuple(index), shape)
        place = np.searchsorted(voxels, flat)
        if place < len(voxels) and voxels[place] == flat:
            number = numbers[place]
            found[region.id] = _onCtGrid(low[number], high[number], ijkToRas, result)
    return found


def _doubtfulVoxels(result):
    """Flat indices, ascending, of the voxels that regions are made of, and a volume without voxels that says where they lie.

    One map at a time is in memory: a whole body has a hundred million voxels.
    """
    threshold, roi = result.provenance["threshold"], result.provenance["roi"]
    volume = result.uncertainty(threshold["measure"])
    voxels = np.flatnonzero(volume.array >= threshold["value"])
    geometry = volume.with_array(np.broadcast_to(np.uint8(0), volume.array.shape))
    del volume
    return geometry, voxels[result.distance.array.reshape(-1)[voxels] <= roi["distance_mm"]]


def ctGeometry(provenance):
    """4x4 matrix from (i, j, k, 1) to RAS mm of the CT that a Result was made from."""
    from CalibUncertaintyLib.volume import Volume

    geometry = provenance["geometry"]
    direction = np.array(geometry["direction_lps"], dtype=float).reshape(3, 3)
    spacing, origin = tuple(geometry["spacing_xyz_mm"][::-1]), tuple(geometry["origin_lps_mm"])
    return Volume(np.zeros((1, 1, 1), np.uint8), spacing, origin, direction).ijk_to_ras


def _components(voxels, shape):
    """Number from 0 of the connected part (26 neighbours) that each voxel belongs to.

    :param voxels: (n,) flat indices, ascending, into an array of this (z, y, x) shape.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(voxels)
    wider = tuple(n + 2 for n in shape)  # a margin, so that no neighbour lies beyond the end of a row
    padded = np.ravel_multi_index([index + 1 for index in np.unravel_index(voxels, shape)], wider)
    starts, ends = [], []
    for step in list(np.ndindex(3, 3, 3))[14:]:  # half of the neighbours: the others see the voxel as theirs
        wanted = padded + np.dot(np.subtract(step, 1), (wider[1] * wider[2], wider[2], 1))
        place = np.searchsorted(padded, wanted)
        isThere = np.flatnonzero(padded[np.minimum(place, count - 1)] == wanted) if count else place
        starts.append(isThere)
        ends.append(place[isThere])
    start, end = np.concatenate(starts), np.concatenate(ends)
    pairs = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(pairs, directed=False)[1]


def _limits(voxels, shape, numbers):
    """Lowest and highest (z, y, x) index of each number, (count, 3) each."""
    indices = np.stack(np.unravel_index(voxels, shape), axis=1)
    count = int(numbers.max(initial=-1)) + 1
    low = np.full((count, 3), np.iinfo(np.int64).max)
    high = np.full((count, 3), -1)
    np.minimum.at(low, numbers, indices)
    np.maximum.at(high, numbers, indices)
    return low, high


def _onCtGrid(low, high, ijkToRas, result):
    offset = np.array(result.provenance["box"]["start_xyz"][::-1])
    return RegionBox(tuple((low + offset).tolist()), tuple((high + offset + 1).tolist()), ijkToRas)


def _index(ijkToRas, pointRas):
    """Fractional (z, y, x) index of a point."""
    return (np.linalg.inv(ijkToRas) @ [*pointRas, 1.0])[2::-1]
