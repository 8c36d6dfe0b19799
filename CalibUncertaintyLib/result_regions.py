"""The voxels of a Result's regions, found again from its maps: a Result lists regions by their peak, not voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .result import Result
from .uncertainty.components import Components, components_of
from .uncertainty.region import POSSIBLE_MISS, Region
from .uncertainty.roi import roi_mask
from .volume import Volume


@dataclass(frozen=True)
class RegionVoxels:
    """Flat indices, ascending, of each region's voxels by its id, in the box of the Result's maps.

    geometry: of that box. A region that is not found again (a probability that lies on the limit was rounded) has no voxels.
    """

    geometry: Volume
    of: Mapping[int, np.ndarray]

    @classmethod
    def of_result(cls, result: Result, regions: Sequence[Region] | None = None) -> RegionVoxels:
        """Of every region that the Result lists, or of some of them. Raises CalibUncertaintyError where a map is missing."""
        regions = result.regions if regions is None else regions
        missed = [region for region in regions if region.kind == POSSIBLE_MISS]
        uncertain = [region for region in regions if region.kind != POSSIBLE_MISS]
        geometry, found = result.probability(next(iter(result.labels))), {}
        gap = float(result.provenance.get("merge_gap_mm", 0.0))
        for of_kind, mask_of in ((uncertain, _uncertain), (missed, _likely)):
            if of_kind:
                components = components_of(mask_of(result), 0.0, geometry.spacing_zyx, gap)
                found |= _of_peaks(components, of_kind, geometry)
        return cls(geometry, {region.id: found[region.id] for region in regions})

    def mask(self, region: Region) -> np.ndarray:
        """(z, y, x) bool over the box."""
        mask = np.zeros(self.geometry.array.shape, bool)
        mask.reshape(-1)[self.of[region.id]] = True
        return mask

    def bounds(self, region: Region) -> tuple[slice, slice, slice] | None:
        """The box (z, y, x) around a region in the box of the maps; None where it was not found again."""
        voxels = self.of[region.id]
        if not len(voxels):
            return None
        each = np.unravel_index(voxels, self.geometry.array.shape)
        return tuple(slice(int(index.min()), int(index.max()) + 1) for index in each)


def region_of_interest(result: Result) -> np.ndarray:
    """Where the Result lists uncertain regions, (z, y, x) bool in the box of its maps.

    Around the structures that is nowhere where none was found.
    """
    if result.of_body:
        return result.body.array > 0
    if result.provenance["maps"]["distance"]["file"] is None:
        return np.zeros(result.probability(next(iter(result.labels))).array.shape, bool)
    return roi_mask(result.distance.array, result.provenance["roi"]["distance_mm"])


def _of_peaks(components: Components, regions: list[Region], geometry: Volume) -> dict[int, np.ndarray]:
    """The component that each region's peak lies in."""
    order = np.argsort(components.component, kind="stable")
    voxels = components.voxel[order]
    edges = np.searchsorted(components.component[order], np.arange(components.count + 1))
    nothing, found = np.zeros(0, np.int64), {}
    for region in regions:
        index = np.rint(geometry.index_from_lps(np.asarray(region.peak_lps_mm))).astype(int)
        found[region.id] = nothing
        if (index >= 0).all() and (index < components.shape).all():
            flat = int(np.ravel_multi_index(tuple(index), components.shape))
            place = int(np.searchsorted(components.voxel, flat))
            if place < len(components.voxel) and components.voxel[place] == flat:
                number = int(components.component[place])
                found[region.id] = np.sort(voxels[edges[number] : edges[number + 1]])
    return found


def _uncertain(result: Result) -> np.ndarray:
    threshold = result.provenance["threshold"]
    above = result.uncertainty(threshold["measure"], None).array >= threshold["value"]
    return above & region_of_interest(result)


def _likely(result: Result) -> np.ndarray:
    foreground = None
    for value in result.labels:
        p = result.probability(value).array
        if foreground is None:
            foreground = p.astype(np.float32, copy=True)
        elif result.overlapping:
            np.maximum(foreground, p, out=foreground)
        else:
            foreground += p
    mask = foreground >= result.provenance["miss_probability"]
    if result.provenance["maps"]["distance"]["file"] is not None:
        mask &= ~roi_mask(result.distance.array, result.provenance["roi"]["distance_mm"])
    return mask
