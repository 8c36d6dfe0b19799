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
    :return: {region id: `RegionBox`}; regions that cannot be found again are left out, all of them where what finds connected
        parts is not installed: a Result made elsewhere can be reviewed without it.
    :raises CalibUncertaintyError: if a map is missing.
    """
    from CalibUncertaintyLib.result import Result
    from CalibUncertaintyLib.result_regions import RegionVoxels
    from CalibUncertaintyLib.uncertainty.region import POSSIBLE_MISS

    result = Result.open(folder)
    wanted = [region for region in result.regions if region.kind != POSSIBLE_MISS]
    if not wanted or result.provenance["maps"]["distance"]["file"] is None:
        return {}
    try:
        voxels = RegionVoxels.of_result(result, wanted)
    except ImportError:
        return {}
    offset = result.provenance["box"]["start_xyz"][::-1]
    ijkToRas = ctGeometry(result.provenance)
    bounds = {region.id: voxels.bounds(region) for region in wanted}
    return {
        identifier: RegionBox(
            tuple(int(part.start) + o for part, o in zip(box, offset, strict=True)),
            tuple(int(part.stop) + o for part, o in zip(box, offset, strict=True)),
            ijkToRas,
        )
        for identifier, box in bounds.items()
        if box is not None
    }


def ctGeometry(provenance):
    """4x4 matrix from (i, j, k, 1) to RAS mm of the CT that a Result was made from."""
    from CalibUncertaintyLib.volume import Volume

    geometry = provenance["geometry"]
    direction = np.array(geometry["direction_lps"], dtype=float).reshape(3, 3)
    spacing, origin = tuple(geometry["spacing_xyz_mm"][::-1]), tuple(geometry["origin_lps_mm"])
    return Volume(np.zeros((1, 1, 1), np.uint8), spacing, origin, direction).ijk_to_ras


def _index(ijkToRas, pointRas):
    """Fractional (z, y, x) index of a point."""
    return (np.linalg.inv(ijkToRas) @ [*pointRas, 1.0])[2::-1]
