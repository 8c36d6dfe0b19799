"""The region of interest: distance in mm from the predicted structures."""

import os

import numpy as np

# Distances are float32 roots of sums of squares; a voxel that lies exactly on the limit may come out this much beyond it.
ROUNDING_MM = 1e-4


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
