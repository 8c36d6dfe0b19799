"""The region of interest: distance in mm from the predicted structures, from some of them, on one side of their surface."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# Distances are float32 roots of sums of squares; a voxel that lies exactly on the limit may come out this much beyond it.
ROUNDING_MM = 1e-4
SIDES = ("both", "inside", "outside")


def checked_grid(array: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """The array, which is three-dimensional, of voxels of a finite size above 0 mm; ValueError otherwise."""
    array = np.asarray(array)
    if array.ndim != 3 or len(spacing_zyx) != 3:
        raise ValueError(f"expected a (z, y, x) array and three spacings, got {array.shape} and {spacing_zyx}")
    if not all(np.isfinite(step) and step > 0 for step in spacing_zyx):
        raise ValueError(f"spacing must be above 0 mm, got {spacing_zyx}")
    return array


def distance_to_structures(label: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Euclidean distance from each voxel's centre to the centre of the nearest voxel of any structure.

    :param label: (z, y, x) integer or boolean, 0 is background.
    :param spacing_zyx: mm, in the order of the array's axes.
    :returns: (z, y, x) float32 in mm, 0 inside structures, +inf everywhere when there is no structure.
    :raises ValueError: when the array is not three-dimensional or a spacing is not above 0.
    Source: exact Euclidean distance transform (Felzenszwalb & Huttenlocher 2012) as implemented by the edt library.
    """
    label = checked_grid(label, spacing_zyx)
    outside = np.ascontiguousarray(label == 0)
    if outside.all():
        return np.full(label.shape, np.inf, dtype=np.float32)
    import edt

    anisotropy = tuple(float(step) for step in spacing_zyx)
    # the same numbers with any number of threads
    return edt.edt(outside, anisotropy=anisotropy, black_border=False, parallel=os.cpu_count() or 1)


def roi_mask(distance: np.ndarray, distance_mm: float) -> np.ndarray:
    """Voxels at most `distance_mm` from a structure.

    :param distance: float mm as from `distance_to_structures`, any shape.
    :param distance_mm: limit in mm, >= 0; 0 leaves the structures themselves.
    :returns: boolean array of the same shape; all False when there is no structure (distance +inf).
    :raises ValueError: when the limit is negative or not finite.
    """
    if not (np.isfinite(distance_mm) and distance_mm >= 0):
        raise ValueError(f"the distance must be a finite number of mm, 0 or more, got {distance_mm}")
    return np.asarray(distance) <= distance_mm + ROUNDING_MM


@dataclass(frozen=True)
class Roi:
    """A region of interest, `mask` (z, y, x) bool, and what became of it.

    `status`: "ok", or why it is empty: "no_structure" (nothing that was asked for is predicted), "empty_mask" (the mask that was
    given holds no voxel) or "nothing_left" (there are structures, but no voxel fulfils everything that was asked for).
    `missing` are the structures that were asked for and are not predicted.
    """

    mask: np.ndarray = field(repr=False)
    status: str
    missing: tuple[int, ...] = ()

    def sentence(self, names: Mapping[int, str] | None = None) -> str:
        """What there is to look at, or why there is nothing, for people; names of the labels, where known."""
        listed = ", ".join((names or {}).get(label) or f"label {label}" for label in self.missing)
        listed += " were not predicted" if len(self.missing) > 1 else " was not predicted" if listed else ""
        if self.status == "no_structure":
            who = listed or "no structure was predicted"
            return f"The region of interest is empty: {who}."
        if self.status == "empty_mask":
            return "The region of interest is empty: the mask that limits it holds no voxel."
        if self.status == "nothing_left":
            return "The region of interest is empty: no voxel fulfils the distance, the side and the mask at once."
        amount = f"The region of interest has {np.count_nonzero(self.mask):,} voxels"
        return amount + (f"; {listed}." if listed else ".")


def roi_of(
    label: np.ndarray,
    spacing_zyx: tuple[float, float, float],
    distance_mm: float | None,
    structures: Sequence[int] | None = None,
    side: str = "both",
    mask: np.ndarray | None = None,
) -> Roi:
    """Voxels at most so far from all predicted structures, or from some of them, inside or outside, and in a mask.

    A structure that is not predicted has no neighbourhood; without any the region is empty. Our definition.

    :param label: (z, y, x) integers, 0 is background.
    :param spacing_zyx: mm.
    :param distance_mm: between voxel centres, 0 or more; 0 leaves the structures themselves. None for no limit: then the mask
        alone decides where `side` is "both", whatever is predicted.
    :param structures: labels above 0; None for all.
    :param side: "inside" these structures only, "outside" only (other structures count as outside), or "both".
    :param mask: (z, y, x) bool that the region is cut with, such as the patient's body; None for everywhere.
    :raises ValueError: when an argument is not one of these, or shapes differ.
    """
    label = checked_grid(label, spacing_zyx)
    if side not in SIDES:
        raise ValueError(f"side {side!r} is none of {', '.join(SIDES)}")
    if distance_mm is not None and not (math.isfinite(distance_mm) and distance_mm >= 0):
        raise ValueError(f"the distance must be a finite number of mm, 0 or more, got {distance_mm}")
    if mask is not None and (np.shape(mask) != label.shape or np.asarray(mask).dtype != bool):
        raise ValueError(
            f"expected a boolean mask of shape {label.shape}, got {np.asarray(mask).dtype} {np.shape(mask)}"
        )
    chosen, missing = _chosen(label, structures)
    if distance_mm is None and side == "both":
        found = np.ones(label.shape, bool)
    elif not chosen.any():
        return Roi(np.zeros(label.shape, bool), "no_structure", missing)
    else:
        found = chosen.copy() if side == "inside" else _within(chosen, spacing_zyx, distance_mm)
        if side == "outside":
            found &= ~chosen
    if mask is not None:
        found &= mask
    status = "ok" if found.any() else "empty_mask" if mask is not None and not np.any(mask) else "nothing_left"
    return Roi(found, status, missing)


def box_around(mask: np.ndarray, margins: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds all True voxels, grown by so many voxels along each axis inside the array; None without any."""
    rows = mask.any(axis=0)
    box = []
    for occupied, margin in zip((mask.any(axis=(1, 2)), rows.any(axis=1), rows.any(axis=0)), margins, strict=True):
        where = np.flatnonzero(occupied)
        if not where.size:
            return None
        box.append(slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin))
    return tuple(box)


def _chosen(label: np.ndarray, structures: Sequence[int] | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """The voxels of these structures (of all), and which of them have none."""
    if structures is None:
        return label > 0, ()
    wanted = sorted({int(structure) for structure in structures})
    if not wanted or wanted[0] < 1:
        raise ValueError(f"name at least one structure by a label above 0, or None for all; got {list(structures)}")
    chosen, missing = np.zeros(label.shape, bool), []
    for structure in wanted:
        of_it = label == structure
        if not of_it.any():
            missing.append(structure)
        chosen |= of_it
    return chosen, tuple(missing)


def _within(chosen: np.ndarray, spacing_zyx: Sequence[float], distance_mm: float | None) -> np.ndarray:
    """Voxels at most so far from the chosen ones; distances are computed in the box that can hold them only."""
    found = np.zeros(chosen.shape, bool)
    if distance_mm is None:
        found[...] = True
    elif distance_mm < min(spacing_zyx) - ROUNDING_MM:
        found |= chosen
    else:
        # one voxel more than the whole ones, for a distance that is a whole number of them but for rounding
        steps = zip(chosen.shape, spacing_zyx, strict=True)
        box = box_around(chosen, [int(min(size, distance_mm // float(step) + 1)) for size, step in steps])
        found[box] = roi_mask(distance_to_structures(chosen[box], tuple(spacing_zyx)), distance_mm)
    return found
