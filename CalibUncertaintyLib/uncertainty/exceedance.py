"""Exceedance-based contextual uncertainty: where, over a whole neighbourhood, a model is less sure than is usual at such a place.

Usual is what right voxels of the same predicted class and the same distance from an interface show (`ContextLaw`). Source: our
definition. Only the region of interest (ROI) is looked at; outside of it every map is 0.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .context_law import ContextLaw, ContextLawFit
from .distance_bands import refuse_nan
from .pooled_law import PooledLaw
from .roi import box_around, checked_grid

TAU = 0.05  # of right voxels exceed their place's quantile: a usual level of chance
SIGMA_MM = 3.0  # 7 mm wide at half height, as small nodes are: single noisy voxels are averaged away, no node is
DECADES = 4.0  # the tables know tails down to 1e-4 (`quantile_tables`)
_TRUNCATE = 4.0  # in sigmas, where the Gaussian ends


def hard_exceedance(tail: np.ndarray, tau: float = TAU) -> np.ndarray:
    """Whether a voxel lies above the 1 - tau quantile of its place: tail < tau, bool of the same shape."""
    return np.asarray(tail) < tau


def soft_exceedance(tail: np.ndarray) -> np.ndarray:
    """How far a voxel lies in the upper tail of its place: min(-log10(max(tail, 1e-4)), 4) / 4.

    :param tail: in [0, 1], any shape (`ContextLaw.tail`).
    :returns: float32 in [0, 1] of the same shape; 0.25 at a tail of 10 %, 1 at 1e-4. With tails spread evenly, as by chance, its
        mean is 0.109.
    :raises ValueError: when a tail is not in [0, 1].
    """
    tail = np.asarray(tail, np.float32)
    if tail.size and not (tail.min() >= 0 and tail.max() <= 1):
        raise ValueError("a tail lies outside of 0 .. 1, or is NaN")
    result = np.asarray(np.maximum(tail, np.float32(10.0**-DECADES)))
    np.log10(result, out=result)
    result *= np.float32(-1.0 / DECADES)
    return np.clip(result, 0.0, 1.0, out=result)


def pooled_within(
    e: np.ndarray, roi: np.ndarray, spacing_zyx: tuple[float, float, float], sigma_mm: float = SIGMA_MM
) -> np.ndarray:
    """Mean of e over each voxel's neighbours inside the ROI, with Gaussian weights: sum_j G_ij e_j / sum_j G_ij.

    :param e: (z, y, x) in [0, 1]; what stands outside the ROI does not matter. :param roi: (z, y, x) bool.
    :param spacing_zyx: mm. :param sigma_mm: of the Gaussian, which ends at 4 sigma; above 0.
    :returns: (z, y, x) float32 in [0, 1], 0 outside the ROI.
    :raises CalibUncertaintyError: when e holds NaN inside the ROI.
    """
    roi = checked_grid(roi, spacing_zyx).astype(bool, copy=False)
    e = np.asarray(e)
    if e.shape != roi.shape:
        raise ValueError(f"expected arrays of one shape, got {e.shape} and {roi.shape}")
    if not (np.isfinite(sigma_mm) and sigma_mm > 0):
        raise ValueError(f"sigma must be above 0 mm, got {sigma_mm}")
    result = np.zeros(roi.shape, np.float32)
    window = box_around(roi)
    if window is None:
        return result
    inside = roi[window]
    total = np.where(inside, e[window], 0).astype(np.float32, copy=False)
    refuse_nan(total)
    weight = inside.astype(np.float32)
    sigmas = [sigma_mm / step for step in spacing_zyx]
    _smooth(total, sigmas)
    _smooth(weight, sigmas)
    pooled = np.divide(total, weight, out=total, where=inside)
    np.copyto(result[window], np.clip(pooled, 0.0, 1.0, out=pooled), where=inside)
    return result


def ebcu(
    u: np.ndarray, label: np.ndarray, signed_distance: np.ndarray, roi: np.ndarray, spacing_zyx: tuple[float, float, float],
    law: ContextLaw, sigma_mm: float = SIGMA_MM,
) -> np.ndarray:  # fmt: skip
    """Soft exceedance, pooled over the neighbourhood: 0.109 on average by chance, 1 where all around nothing so high was ever seen.

    :param u: (z, y, x) the law's measure. :param label: (z, y, x) predicted classes. :param signed_distance: (z, y, x) mm
        (`interface_distance`). :param roi: (z, y, x) bool; what stands outside does not matter. :param law: what is usual.
    :returns: (z, y, x) float32 in [0, 1], 0 outside the ROI; 0 everywhere with a law of status "no_voxels".
    :raises CalibUncertaintyError: when u holds NaN inside the ROI.
    """
    roi, u, label, signed_distance = (
        np.asarray(roi, bool),
        np.asarray(u),
        np.asarray(label),
        np.asarray(signed_distance),
    )
    if len({array.shape for array in (roi, u, label, signed_distance)}) > 1:
        raise ValueError("u, label, signed_distance and roi must have one shape")
    e = np.zeros(roi.shape, np.float32)
    e[roi] = soft_exceedance(law.tail(u[roi], label[roi], signed_distance[roi]))
    return pooled_within(e, roi, spacing_zyx, sigma_mm)


def ebcu_p(pooled: np.ndarray, distance: np.ndarray, roi: np.ndarray, law: PooledLaw) -> np.ndarray:
    """Rank of `ebcu` among the ROI voxels of the calibration cases in the same band of distance.

    :param pooled: (z, y, x) `ebcu`, pooled as far as the law's. :param distance: (z, y, x) mm to the interfaces, signed or not.
    :returns: (z, y, x) float32 in [0, 1], 0 outside the ROI: 0.95 where one calibration voxel in twenty lies higher, and 1 for all
        that lies above what calibration saw, so that `pooled` itself tells which of two such places is the more unusual one.
    """
    roi = np.asarray(roi, bool)
    result = np.zeros(roi.shape, np.float32)
    result[roi] = law.rank(np.asarray(pooled)[roi], np.asarray(distance)[roi])
    return result


def ebcu_self(
    u: np.ndarray, label: np.ndarray, signed_distance: np.ndarray, roi: np.ndarray, spacing_zyx: tuple[float, float, float],
    sigma_mm: float = SIGMA_MM,
) -> np.ndarray:  # fmt: skip
    """`ebcu` against what is usual within the case itself, for a model without calibration cases: all voxels of its own ROI.

    What is wrong in the whole case is usual in it, and not seen. Parameters and result as of `ebcu`.
    """
    roi = np.asarray(roi, bool)
    of_roi = [np.asarray(array)[roi] for array in (u, label, signed_distance)]
    fit = ContextLawFit(np.unique(of_roi[1]).tolist())
    fit.add("the case itself", *of_roi, np.ones(of_roi[0].shape, bool))
    return ebcu(u, label, signed_distance, roi, spacing_zyx, fit.fit(), sigma_mm)


def _smooth(array: np.ndarray, sigmas: list[float]) -> None:
    """Gaussian smoothing of a float32 array in place, 0 beyond its ends; slabs of it on all processors."""
    from scipy.ndimage import gaussian_filter1d

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for axis, sigma in enumerate(sigmas):
            across = 1 if axis == 0 else 0  # lines along one axis do not touch those beside them
            slabs = np.array_split(np.moveaxis(array, across, 0), min(workers, array.shape[across]))
            along = 1 if axis == 0 else axis

            def filter_slab(slab: np.ndarray, sigma: float = sigma, along: int = along) -> None:
                gaussian_filter1d(slab, sigma, along, output=slab, mode="constant", truncate=_TRUNCATE)

            list(pool.map(filter_slab, slabs))
