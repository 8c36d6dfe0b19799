"""Calibration in space: whether uncertainty sits where the errors are, by distance from the boundary and after smoothing.

The formulas are second-hand, from public implementations of Zeevi et al. 2025 (arXiv 2506.16589); the constants (3 mm, the bands,
the widths) are not confirmed from the paper. Those implementations measure in voxels, here everything is in mm; a distance map
made with a spacing of (1, 1, 1) gives their numbers. All arrays are (z, y, x) on one grid.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

NEAR_MM = 3.0
BANDS_MM = (0.0, 3.0, 7.0, 15.0, math.inf)
SMOOTHING_MM = 3.0
TRUNCATE = 4.0


def boundary_distance(label: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Distance in mm from each voxel's centre to that of the nearest boundary voxel.

    A boundary voxel has a neighbour by face with another label: both sides of an interface count, and have distance 0.

    :param label: (z, y, x) integers, of the prediction or the reference.
    :param spacing_zyx: mm, in the order of the array's axes.
    :returns: (z, y, x) float32, +inf everywhere when there is one label only.
    :raises ValueError: when the array is not three-dimensional or a spacing is not above 0.
    """
    label = np.asarray(label)
    _check_spacing(label, spacing_zyx)
    boundary = np.zeros(label.shape, bool)
    for axis in range(3):
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        differs = label[tuple(before)] != label[tuple(after)]
        boundary[tuple(before)] |= differs
        boundary[tuple(after)] |= differs
    if not boundary.any():
        return np.full(label.shape, np.inf, dtype=np.float32)
    import edt

    np.logical_not(boundary, out=boundary)
    anisotropy = tuple(float(step) for step in spacing_zyx)
    return edt.edt(boundary, anisotropy=anisotropy, black_border=False, parallel=os.cpu_count() or 1)


def boundary_concentration(
    uncertainty: np.ndarray, distance: np.ndarray, near_mm: float = NEAR_MM, roi: np.ndarray | None = None
) -> dict:
    """Boundary uncertainty concentration, u_near / (u_near + u_far) of the mean uncertainties near and far, [0, 1].

    0.5: as high near the boundary as elsewhere; 1: near the boundary only.

    :param uncertainty: (z, y, x), 0 or more, any unit.
    :param distance: (z, y, x) mm from the boundary (`boundary_distance`).
    :param near_mm: up to here, inclusive, is near.
    :param roi: (z, y, x) bool; None for all voxels.
    :returns: `buc`, `near` and `far` means, `n_near`, `n_far`, `status`: "ok", "empty_roi", "empty_side" (all near or all far)
        or "no_uncertainty" (0 everywhere); `buc` is NaN unless "ok".
    Source: BUC of Zeevi et al. 2025, second-hand.
    """
    uncertainty, distance, roi = _same_grid(uncertainty, distance, roi)
    n, sums = np.zeros(2, np.int64), np.zeros(2)
    for values, far, inside in zip(uncertainty, distance, roi, strict=True):
        side = (far[inside] > near_mm).astype(np.intp)
        n += np.bincount(side, minlength=2)
        sums += np.bincount(side, weights=values[inside], minlength=2)
    means = [float(total / count) if count else math.nan for total, count in zip(sums, n, strict=True)]
    status = "ok"
    if n.sum() == 0:
        status = "empty_roi"
    elif n.min() == 0:
        status = "empty_side"
    elif sum(means) == 0.0:
        status = "no_uncertainty"
    return {
        "buc": means[0] / sum(means) if status == "ok" else math.nan,
        "near": means[0],
        "far": means[1],
        "n_near": int(n[0]),
        "n_far": int(n[1]),
        "status": status,
    }


def boundary_aware_error(
    uncertainty: np.ndarray, error: np.ndarray, distance: np.ndarray,
    bands_mm: Sequence[float] = BANDS_MM, roi: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """Boundary-aware calibration error, [0, 1]: |mean uncertainty - error rate| of each band of distance, near bands weigh more.

    A band weighs 1 / (1 + mean distance of its voxels in mm); the weights of the bands with voxels add up to 1.

    :param uncertainty: (z, y, x), 1 - confidence, in [0, 1]: it is compared with a rate.
    :param error: (z, y, x) bool, label is not the reference's.
    :param distance: (z, y, x) mm from the boundary of reference or prediction, as you choose (`boundary_distance`).
    :param bands_mm: rising edges; a band is [lower, upper).
    :param roi: (z, y, x) bool; None for all voxels.
    :returns: `ba_ece`, `bands` (lower, upper, n, uncertainty, error, gap, distance, weight; None where empty), `status`: "ok",
        "empty_roi" (NaN), or "no_boundary" (NaN: distances are infinite, so no weight is known).
    :raises ValueError: when the edges do not rise, or the uncertainty leaves [0, 1].
    Source: BA-ECE of Zeevi et al. 2025, second-hand.
    """
    uncertainty, distance, roi = _same_grid(uncertainty, distance, roi)
    error, _, _ = _same_grid(error, distance, roi)
    edges = np.asarray(bands_mm, dtype=np.float64)
    if edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"the edges of the bands have to rise, got {tuple(bands_mm)}")
    bands = edges.size - 1
    n, sums = np.zeros(bands, np.int64), np.zeros((3, bands))
    endless = False
    for values, wrong, far, inside in zip(uncertainty, error, distance, roi, strict=True):
        inside = inside & (far >= edges[0]) & ((far < edges[-1]) | np.isinf(edges[-1]))
        far, values = far[inside], values[inside]
        if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise ValueError("uncertainty has to be 1 - confidence, in [0, 1]")
        endless |= bool(np.isinf(far).any())
        band = np.searchsorted(edges[1:-1], far, side="right")
        n += np.bincount(band, minlength=bands)
        for total, part in zip(sums, (values, wrong[inside], far), strict=True):
            total += np.bincount(band, weights=part, minlength=bands)
    status = "empty_roi" if n.sum() == 0 else "no_boundary" if endless else "ok"
    found = _bands_of(edges, n, sums)
    if status == "ok":
        whole = sum(band["weight"] for band in found if band["n"])
        figure = sum(band["weight"] / whole * abs(band["gap"]) for band in found if band["n"])
    else:
        figure = math.nan
    return {"ba_ece": figure, "bands": found, "status": status}


def _bands_of(edges: np.ndarray, n: np.ndarray, sums: np.ndarray) -> list[dict]:
    found = []
    for index, voxels in enumerate(n):
        band = {"lower": float(edges[index]), "upper": float(edges[index + 1]), "n": int(voxels)}
        if voxels:
            doubt, wrong, far = (float(value / voxels) for value in sums[:, index])
            band |= {
                "uncertainty": doubt,
                "error": wrong,
                "gap": doubt - wrong,
                "distance": far,
                "weight": 1.0 / (1.0 + far),
            }
        else:
            band |= dict.fromkeys(("uncertainty", "error", "gap", "distance", "weight"))
        found.append(band)
    return found


def smoothed_error(
    uncertainty: np.ndarray, error: np.ndarray, spacing_zyx: Sequence[float],
    sigma_mm: float = SMOOTHING_MM, roi: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """SPACE: mean over the region of |G * uncertainty - G * error|, [0, 1] for uncertainties in [0, 1].

    G is a Gaussian of physical width; both maps are smoothed inside the region only (normalised convolution), so what lies
    outside has no say. The kernel is cut at four widths.

    :param uncertainty: (z, y, x), 1 - confidence.
    :param error: (z, y, x) bool.
    :param spacing_zyx: mm, in the order of the array's axes.
    :param sigma_mm: above 0.
    :param roi: (z, y, x) bool; None for all voxels.
    :returns: `space`, `n`, `status`: "ok" or "empty_roi" (NaN).
    :raises ValueError: when grids differ, or spacing or width are not above 0.
    Source: SPACE of Zeevi et al. 2025, second-hand.
    """
    uncertainty, error, roi = _same_grid(uncertainty, error, roi)
    _check_spacing(uncertainty, spacing_zyx)
    if not (math.isfinite(sigma_mm) and sigma_mm > 0):
        raise ValueError(f"the width has to be above 0 mm, got {sigma_mm}")
    n = int(np.count_nonzero(roi))
    if n == 0:
        return {"space": math.nan, "n": 0, "status": "empty_roi"}
    from scipy.ndimage import gaussian_filter

    box = bounding_box(roi)
    inside = roi[box]
    # smoothing is linear: the difference of the maps is smoothed once, not the two
    difference = np.where(inside, uncertainty[box].astype(np.float32) - error[box].astype(np.float32), np.float32(0))
    widths = [sigma_mm / float(step) for step in spacing_zyx]
    smooth = gaussian_filter(difference, widths, mode="constant", truncate=TRUNCATE)
    weight = gaussian_filter(inside.astype(np.float32), widths, mode="constant", truncate=TRUNCATE)
    figure = np.abs(smooth[inside].astype(np.float64) / weight[inside]).sum() / n
    return {"space": float(figure), "n": n, "status": "ok"}


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box (slices of z, y, x) around the voxels that are True; there has to be one."""
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(found)


def _same_grid(
    first: np.ndarray, second: np.ndarray, roi: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    roi = np.broadcast_to(np.True_, first.shape) if roi is None else np.asarray(roi)
    if first.ndim != 3 or second.shape != first.shape or roi.shape != first.shape or roi.dtype != bool:
        raise ValueError(
            f"expected (z, y, x) arrays of one shape and a boolean region, got {first.shape}, {second.shape}, "
            f"{roi.shape} {roi.dtype}"
        )
    return first, second, roi


def _check_spacing(array: np.ndarray, spacing_zyx: Sequence[float]) -> None:
    if array.ndim != 3 or len(spacing_zyx) != 3:
        raise ValueError(f"expected a (z, y, x) array and three spacings, got {array.shape} and {tuple(spacing_zyx)}")
    if not all(math.isfinite(step) and step > 0 for step in spacing_zyx):
        raise ValueError(f"spacing has to be above 0 mm, got {tuple(spacing_zyx)}")
