"""Slices for a picture: any CT grid turned so that axial and coronal slices appear as radiologists hang them.

Only whole axes are swapped and turned: an oblique scan is shown in its own voxel planes, nothing is resampled, and the letters at
the edges say where they point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import CalibUncertaintyError
from ..volume import Volume

LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards minus and plus of LPS x, y, z
SECOND_LETTER_FROM = 0.25  # sine of about 15 degrees: less tilt than that is not worth a second letter


@dataclass(frozen=True)
class Frame:
    """How a grid's axes are swapped and turned so that they run (to the head, to the back, to the patient's left)."""

    reference: Volume

    @cached_property
    def order(self) -> tuple[int, int, int]:
        """For head, back, left: which array axis runs closest along it."""
        direction = np.abs(np.asarray(self.reference.direction_lps, float))  # rows LPS, columns index x, y, z
        order: dict[int, int] = {}
        for _ in range(3):  # strongest alignment first, so that no axis is taken twice
            row, column = np.unravel_index(np.argmax(direction), (3, 3))
            order[int(row)] = 2 - int(column)  # array axes are z, y, x
            direction[row, :], direction[:, column] = -1, -1
        return order[2], order[1], order[0]

    @cached_property
    def flipped(self) -> tuple[bool, bool, bool]:
        """For head, back, left: whether that array axis runs the other way."""
        direction = np.asarray(self.reference.direction_lps, float)
        return tuple(bool(direction[row, 2 - axis] < 0) for row, axis in zip((2, 1, 0), self.order, strict=True))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along head, back, left."""
        return tuple(self.reference.array.shape[axis] for axis in self.order)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres along head, back, left."""
        return tuple(self.reference.spacing_zyx[axis] for axis in self.order)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """A view of an array on this grid (or a crop of it) with axes (head, back, left)."""
        turned = np.transpose(array, self.order)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)]

    def start_of(self, crop: Volume) -> tuple[int, int, int]:
        """Where a cropped map begins on the turned grid.

        Raises CalibUncertaintyError where the map is not a piece of this grid.
        """
        start = np.rint(self.reference.index_from_lps(crop.origin_lps)).astype(int)
        stop = start + crop.array.shape
        if (start < 0).any() or (stop > self.reference.array.shape).any():
            raise CalibUncertaintyError("the maps of this Result lie outside this CT; give the CT that was segmented")
        whole = self.reference.array.shape
        return tuple(
            int(whole[axis] - stop[axis] if flip else start[axis])
            for axis, flip in zip(self.order, self.flipped, strict=True)
        )

    def index_of(self, point_lps: Sequence[float]) -> tuple[int, int, int]:
        """The turned index (head, back, left) of the voxel at an LPS point in mm."""
        index = np.rint(self.reference.index_from_lps(point_lps)).astype(int)
        return tuple(
            int(n - 1 - index[axis] if flip else index[axis])
            for axis, flip, n in zip(self.order, self.flipped, self.shape, strict=True)
        )

    def centre_ras(self, index: Sequence[float]) -> np.ndarray:
        """RAS mm of a turned index (head, back, left)."""
        original = np.zeros(3)
        for place, axis, flip, n in zip(index, self.order, self.flipped, self.shape, strict=True):
            original[axis] = n - 1 - place if flip else place
        return self.reference.ras_from_index(original)

    def letters(self, axis: int) -> tuple[str, str]:
        """What lies at the low and the high end of a turned axis (0 head, 1 back, 2 left), such as ("R", "L") or ("RA", "LP")."""
        vector = np.asarray(self.reference.direction_lps, float)[:, 2 - self.order[axis]]
        vector = -vector if self.flipped[axis] else vector
        strongest = [i for i in np.argsort(-np.abs(vector))[:2] if abs(vector[i]) > SECOND_LETTER_FROM]
        low = "".join(LETTERS[i][0 if vector[i] > 0 else 1] for i in strongest)
        high = "".join(LETTERS[i][1 if vector[i] > 0 else 0] for i in strongest)
        return low, high


@dataclass(frozen=True)
class Layer:
    """A map on the turned grid, possibly cropped: outside its box there is nothing to show (NaN)."""

    frame: Frame
    array: np.ndarray  # (head, back, left)
    start: tuple[int, int, int]

    @classmethod
    def of(cls, frame: Frame, volume: Volume) -> Layer:
        """Place a Result's map on the turned grid of its CT."""
        return cls(frame, frame.turn(volume.array), frame.start_of(volume))

    def plane(self, axis: int, index: int) -> np.ndarray:
        """The slice `index` across a turned axis (0: axial, rows to the back; 1: coronal, rows to the head) as float32.

        NaN outside the box.
        """
        across = [a for a in range(3) if a != axis]
        canvas = np.full([self.frame.shape[a] for a in across], np.nan, np.float32)
        inside = index - self.start[axis]
        if 0 <= inside < self.array.shape[axis]:
            window = tuple(slice(self.start[a], self.start[a] + self.array.shape[a]) for a in across)
            canvas[window] = np.take(self.array, inside, axis=axis)
        return canvas


@dataclass(frozen=True)
class Plane:
    """One slice of the picture: across axis 0 (axial) or 1 (coronal) of the turned grid."""

    axis: int
    index: int

    @property
    def name(self) -> str:
        """What radiologists call it."""
        return ("Axial", "Coronal")[self.axis]


def choose_planes(
    weight: Layer, label: np.ndarray, frame: Frame, through: Sequence[int] = (), axial: int = 3, apart_mm: float = 20.0
) -> list[Plane]:
    """Slices worth looking at: axial ones by uncertainty, one by the structures in it, and the most uncertain coronal one.

    weight: the uncertainty that is shown, 0 elsewhere. label: (head, back, left) on the whole grid. through: axial slices that
    are wanted anyway. Our definition.
    """
    uncertain = np.zeros(frame.shape[0])
    top = weight.start[0]
    uncertain[top : top + weight.array.shape[0]] = weight.array.sum(axis=(1, 2), dtype=float)
    present = label > 0
    area = present.sum(axis=(1, 2)).astype(float)
    shows = np.array([(label == index).any(axis=(1, 2)) for index in range(1, int(label.max(initial=0)) + 1)])
    chosen = list(through)

    def take(scores: np.ndarray, wanted: int, floor: float = -np.inf) -> None:
        for index in np.argsort(-scores, kind="stable"):
            if len(chosen) >= wanted or scores[index] <= floor:
                return
            if all(abs(index - other) * frame.spacing[0] >= apart_mm for other in chosen):
                chosen.append(int(index))

    take(uncertain, axial - 1, floor=0)
    if len(shows):  # then the slice with most structures not seen yet; a tie goes to the larger section
        unseen = ~shows[:, chosen].any(axis=1)
        take(shows[unseen].sum(axis=0) + area / (1 + area.max()), axial)
    take(-np.abs(np.arange(len(area)) - len(area) / 2), axial)
    planes = [Plane(0, index) for index in sorted(chosen, reverse=True)]
    depth = np.zeros(frame.shape[1])
    front = weight.start[1]
    depth[front : front + weight.array.shape[1]] = weight.array.sum(axis=(0, 2), dtype=float)
    if not depth.any():
        depth = present.sum(axis=(0, 2)).astype(float)
    coronal = int(np.argmax(depth)) if depth.any() else frame.shape[1] // 2
    return [*planes, Plane(1, coronal)]


def same_place(a: Volume, b: Volume) -> bool:
    """Whether two grids of one shape cover the same voxels, to a tenth of the smallest spacing (NIfTI rounds to float32)."""
    corners = np.array([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]) * (np.array(a.array.shape) - 1)
    return bool(np.abs(a.lps_from_index(corners) - b.lps_from_index(corners)).max() < 0.1 * min(a.spacing_zyx))


def view_of(frame: Frame, box: Layer, margin_mm: float = 20.0, least_mm: float = 160.0) -> tuple[slice, slice, slice]:
    """The part of every slice that is shown: the box of the maps with a margin, not less than 160 mm, inside the CT."""
    view = []
    for start, count, whole, spacing in zip(box.start, box.array.shape, frame.shape, frame.spacing, strict=True):
        half = max(count * spacing / 2 + margin_mm, least_mm / 2) / spacing
        centre = start + count / 2
        view.append(slice(max(0, math.floor(centre - half)), min(whole, math.ceil(centre + half))))
    return tuple(view)
