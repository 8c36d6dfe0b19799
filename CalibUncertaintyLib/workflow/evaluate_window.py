"""A Result beside its reference: everything that figures need, on one box of the CT that holds all structures of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..evaluation.domains import Domain, near_structures, whole_volume
from ..evaluation.domains import in_body as body_domain
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..result import Result
from ..uncertainty.roi import distance_to_structures
from .candidates import Reference

CHUNK_VALUES = 8_000_000  # probabilities looked at together, over structures


@dataclass(frozen=True)
class CaseWindow:
    """One finished case beside its reference.

    start: (z, y, x) of the window in the CT. label: (z, y, x) predicted numbers; truth: reference numbers, -1 where they are to be
    ignored. The window holds the Result's box and every structure, predicted or drawn, with the ROI distance around. Beyond the
    Result's box its maps are what `segment` means by leaving a place out: background, without uncertainty.
    """

    result: Result
    reference: Reference
    start: tuple[int, int, int]
    label: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, float, float]
    roi_mm: float

    @classmethod
    def of(cls, result: Result, truth: np.ndarray, model: ModelFolder, roi_mm: float) -> CaseWindow:
        """Of a Result, and of its case's reference labels (z, y, x) on the CT's grid, -1 where they are to be ignored."""
        segmentation = result.segmentation
        spacing = segmentation.spacing_zyx
        around = [math.ceil(roi_mm / step) + 1 for step in spacing]
        low, high = _box_of(result)
        for mask in (segmentation.array > 0, truth > 0):
            found = _bounds(mask)
            if found is not None:
                low = np.minimum(low, found[0] - around)
                high = np.maximum(high, found[1] + around)
        low, high = np.maximum(low, 0), np.minimum(high, segmentation.array.shape)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return cls(
            result, Reference.of(model), tuple(int(a) for a in low), segmentation.array[window].copy(), truth[window].copy(),
            spacing, roi_mm,
        )  # fmt: skip

    @property
    def valid(self) -> np.ndarray:
        """(z, y, x) bool: what the reference says something about."""
        return self.truth >= 0

    @cached_property
    def decoded(self) -> np.ndarray:
        """(z, y, x) the segmentation that would be right; 0 where the reference is to be ignored."""
        known = np.maximum(self.truth, 0)
        return self.reference.decoded(known.reshape(-1)).reshape(known.shape)

    @cached_property
    def error(self) -> np.ndarray:
        """(z, y, x) bool: the label is another than the reference's."""
        return (self.label != self.decoded) & self.valid

    @cached_property
    def box(self) -> np.ndarray:
        """(z, y, x) bool: the Result's own box, of which it has maps."""
        inside = np.zeros(self.label.shape, bool)
        inside[self._box] = True
        return inside

    @cached_property
    def distance(self) -> np.ndarray:
        """(z, y, x) float32 mm to the nearest predicted structure, 0 inside; +inf where there is none."""
        return distance_to_structures(self.label, self.spacing)

    def domain(self, reference: str) -> Domain:
        """ "pred": what a new patient has; "union": predicted or drawn; "box": the Result's box; "body": the patient's body."""
        if reference == "body":
            return body_domain(self._embedded(self.result.body.array) > 0, self.valid)
        if reference == "box":
            return whole_volume(self.box & self.valid)
        drawn = distance_to_structures(np.maximum(self.truth, 0), self.spacing)
        return near_structures(self.distance, drawn, reference, self.roi_mm, self.valid)

    def measure(self, name: str) -> np.ndarray:
        """(z, y, x) float32 of one measure, 0 beyond the Result's box."""
        return self._embedded(self.result.uncertainty(name).array)

    def probabilities(self, scratch: Scratch) -> np.ndarray:
        """(C, z, y, x) float32 of the network's channels, for softmax the background first; kept by `scratch`."""
        heads = self.reference.heads
        first = 0 if heads.sigmoid else 1
        found = scratch.array((heads.channels, *self.label.shape), np.float32)
        for place, value in enumerate(heads.values):
            found[(first + place, *self._box)] = self.result.probability(value).array
        if first:
            for plane in range(self.label.shape[0]):
                found[0, plane] = np.clip(1.0 - found[1:, plane].sum(axis=0), 0.0, 1.0)
        return found

    def parts(self) -> Iterator[slice]:
        """Slabs of planes that fit into memory with all structures' probabilities."""
        depth, rows, columns = self.label.shape
        step = max(1, CHUNK_VALUES // max(1, rows * columns * self.reference.heads.channels))
        return (slice(at, min(at + step, depth)) for at in range(0, depth, step))

    @property
    def _box(self) -> tuple[slice, ...]:
        low, high = _box_of(self.result)
        return tuple(slice(int(a - o), int(b - o)) for a, b, o in zip(low, high, self.start, strict=True))

    def _embedded(self, array: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.label.shape, np.float32)
        whole[self._box] = array
        return whole


def _box_of(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and the one after the last (z, y, x) of the maps, in the CT."""
    box = result.provenance["box"]
    low = np.asarray(box["start_xyz"][::-1], dtype=int)
    return low, low + np.asarray(box["size_xyz"][::-1], dtype=int)


def _bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    ranges = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not ranges[0].size:
        return None
    return np.array([r[0] for r in ranges]), np.array([r[-1] + 1 for r in ranges])
