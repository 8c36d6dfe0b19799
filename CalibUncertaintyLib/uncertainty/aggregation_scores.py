"""One number from a map of uncertainty: sums, means and the worst window of an image, and of parts of it.

Maps are (z, y, x), in the unit of their measure, which means keep; masks are boolean and of the same shape. A mean over no voxel
is NaN. Sums are in float64.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from .budget import ValueCounts
from .components import components_of
from .interface_distance import distance_to_interfaces, touching
from .roi import box_around

PATCH_VOXELS = 10
BOUNDARY_VOXELS = 4
SATURATION_VOXELS = 4.0


def total_of(u: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Sum over the image, or over a mask; 0 over no voxel. Source: image level of Kahl et al. 2024 (ValUES)."""
    return float(np.sum(u, dtype=np.float64)) if mask is None else float(np.sum(u[mask], dtype=np.float64))


def mean_of(u: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean over the image, or over a mask; NaN over no voxel."""
    voxels = np.size(u) if mask is None else int(np.count_nonzero(mask))
    return total_of(u, mask) / voxels if voxels else math.nan


def mean_of_mask_or_all(
    u: np.ndarray, mask: np.ndarray, fall_back: bool = False, roi: np.ndarray | None = None
) -> float:
    """Mean over a mask; where it is empty NaN, or with `fall_back` the mean over everything (or over the region of interest).

    Source: the benchmark of Zenk et al. 2025 falls back; NaN is our default, since a case without a structure is not a sure one.
    """
    return mean_of(u, roi) if fall_back and not mask.any() else mean_of(u, mask)


def patch_score(u: np.ndarray, size: int = PATCH_VOXELS, mean: bool = False, mask: np.ndarray | None = None) -> float:
    """The largest sum over any window of size^3 voxels that lies inside the image; NaN for an empty image.

    :param mean: divide by the window's voxels. The sum is the default of the source.
    :param mask: voxels outside it count as 0 (our definition).
    An image that is thinner than the window has a window as thin as itself. Time does not depend on the window: the sum of its
    planes runs along, and sums of all rectangles come from one table of sums.
    Source: patch level of Kahl et al. 2024 (ValUES), which convolves.
    """
    if u.ndim != 3 or size < 1:
        raise ValueError(f"expected a (z, y, x) array and a window of 1 voxel or more, got {u.shape} and {size}")
    if not u.size:
        return math.nan
    window = [min(size, length) for length in u.shape]
    running, table = np.zeros(u.shape[1:]), np.zeros((u.shape[1] + 1, u.shape[2] + 1))
    planes: deque[np.ndarray] = deque()
    highest = -math.inf
    for z in range(u.shape[0]):
        planes.append(u[z] if mask is None else np.where(mask[z], u[z], 0))
        running += planes[-1]
        if len(planes) > window[0]:
            running -= planes.popleft()
        if len(planes) == window[0]:
            np.cumsum(np.cumsum(running, axis=0), axis=1, out=table[1:, 1:])
            highest = max(highest, float(_rectangles(table, *window[1:]).max()))
    return highest / math.prod(window) if mean else highest


def _rectangles(table: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sums of all rectangles of this size, from a table of sums that begins with a row and a column of 0."""
    rows = table[height:] - table[:-height]
    return rows[:, width:] - rows[:, :-width]


def mean_above(u: np.ndarray, threshold: float, mask: np.ndarray | None = None) -> float:
    """Mean over the voxels with u >= threshold; 0 when none is, NaN over no voxel at all.

    Source: threshold level of Kahl et al. 2024 (ValUES); the threshold as of `foreground_threshold`.
    """
    above = u >= threshold if mask is None else (u >= threshold) & mask
    found = mean_of(u, above)
    nothing = not np.size(u) if mask is None else not mask.any()
    return found if nothing or not math.isnan(found) else 0.0


def foreground_threshold(counts: ValueCounts, foreground_share: float) -> float:
    """The value that as large a share of validation voxels exceeds as the structures fill of the images, on the codes' grid.

    :param counts: of the measure in all validation cases, whole images.
    :param foreground_share: mean share of foreground in the validation predictions, [0, 1].
    Source: Kahl et al. 2024 (ValUES): quantile at 1 - share.
    """
    return counts.quantile(1.0 - foreground_share)


def boundary_band(label: np.ndarray, width: int = BOUNDARY_VOXELS) -> np.ndarray:
    """Voxels of a band along every interface between two labels, half of it on each side.

    The two layers of voxels that touch another label by a face, grown by (width - 2) / 2 voxels (Euclidean).

    :param label: (z, y, x) integers or bool.
    :param width: voxels, an even number from 2 on.
    Source: boundary aggregation of the benchmark of Zenk et al. 2025 (width 4 in it).
    """
    if width < 2 or width % 2:
        raise ValueError(f"the band is an even number of voxels wide, 2 or more; got {width}")
    band = np.zeros(label.shape, bool)
    box = box_around(label != 0, (width, width, width))
    if box is not None:
        band[box] = _grown(touching(label[box]), (width - 2) // 2)
    return band


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """A (z, y, x) mask and all voxels no farther than `radius` voxels from it (Euclidean)."""
    steps = range(-radius, radius + 1)
    found = mask.copy()
    for step in itertools.product(steps, steps, steps):
        if 0 < sum(n * n for n in step) <= radius * radius:
            here = tuple(slice(max(0, n), length + min(0, n)) for n, length in zip(step, mask.shape, strict=True))
            there = tuple(slice(max(0, -n), length - max(0, n)) for n, length in zip(step, mask.shape, strict=True))
            found[here] |= mask[there]
    return found


def per_volume(u: np.ndarray, label: np.ndarray, roi: np.ndarray | None = None) -> float:
    """Sum of u, divided by the number of foreground voxels: the doubt that comes with each voxel drawn; NaN without foreground.

    Source: Jungo et al. 2020 (volume weighting).
    """
    voxels = int(np.count_nonzero(label if roi is None else (label != 0) & roi))
    return total_of(u, roi) / voxels if voxels else math.nan


def distance_weighted(
    u: np.ndarray, label: np.ndarray, spacing_zyx: Sequence[float], saturation_mm: float | None = None,
    roi: np.ndarray | None = None, to_interfaces: np.ndarray | None = None,
) -> float:  # fmt: skip
    """Mean of u, weighted by how far a voxel lies from the nearest interface, up to a distance beyond which all count alike.

    Doubt right at a surface, which any contour has, counts 0. Without an interface it is the plain mean; NaN over no voxel. Where
    all voxels lie on interfaces, no weight is left and it is the plain mean, too.

    :param saturation_mm: None for four voxels: 4 times the cube root of a voxel's volume.
    :param roi: (z, y, x) bool; None for the whole image.
    :param to_interfaces: (z, y, x) `distance_to_interfaces` of the labels, where that is known already.
    Source: Jungo et al. 2020 (distance weighting), with the saturation of Zenk et al. 2025; voxels that are no cubes are our own.
    """
    limit = SATURATION_VOXELS * math.prod(spacing_zyx) ** (1 / 3) if saturation_mm is None else float(saturation_mm)
    if not limit > 0:
        raise ValueError(f"the saturation must be above 0 mm, got {limit}")
    voxels = np.size(u) if roi is None else int(np.count_nonzero(roi))
    if not voxels:
        return math.nan
    # only in this box is any voxel nearer than the limit
    box = box_around(
        label != 0, [int(min(n, limit // step + 2)) for n, step in zip(label.shape, spacing_zyx, strict=True)]
    )
    if box is None:
        return mean_of(u, roi)
    inside = np.ones(u[box].shape, bool) if roi is None else roi[box]
    known = None if to_interfaces is None else to_interfaces[box]
    weight = np.minimum(
        distance_to_interfaces(label[box], tuple(spacing_zyx)) if known is None else known, np.float32(limit)
    )
    weights = limit * (voxels - int(np.count_nonzero(inside))) + total_of(weight, inside)
    weighted = limit * (total_of(u, roi) - total_of(u[box], inside)) + total_of(weight * u[box], inside)
    return weighted / weights if weights > 0 else mean_of(u, roi)


def components_of_structure(
    u: np.ndarray, structure: np.ndarray, voxel_ml: float, most: int | None = None
) -> list[dict[str, float]]:
    """{"volume_ml", "mean", "max"} of each 26-connected piece of a structure, largest first; as many as asked for.

    :param structure: (z, y, x) bool. Source: lesion level of Kirscher et al.; our definition.
    """
    pieces = components_of(structure, 1)
    values = np.take(u, pieces.voxel).astype(np.float64)
    sizes = np.bincount(pieces.component, minlength=pieces.count)
    means = pieces.sum(values) / np.maximum(sizes, 1)
    highest = values[pieces.first_by(-values)] if pieces.count else np.zeros(0)
    order = np.lexsort((-means, -sizes))[:most]
    return [{"volume_ml": float(sizes[i] * voxel_ml), "mean": float(means[i]), "max": float(highest[i])} for i in order]
