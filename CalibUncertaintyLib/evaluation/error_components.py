"""Which connected errors an uncertainty map points at: a reader looks at places, not at voxels.

An error component is a 26-connected piece of the wrong voxels of the region; it is found when a tenth of it is flagged. Small
pieces are left out: single wrong voxels are everywhere along a surface, and no reader would correct them. All of this is our
definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from .budget import voxels_of_share
from .spatial import bounding_box

LEAST_MM3 = 10.0  # 2.2 mm across: less is no contour to correct
FOUND_SHARE = 0.1  # enough that a reader's eye falls on the place


@dataclass(frozen=True)
class ErrorComponents:
    """The error components of one case, K of them, largest first; `dropped` were too small.

    `found_below` (K,): found by flagging u >= t exactly where t <= this, the k-th highest u of the component, k = ceil(0.1 n).
    `volume_ml` (K,). `boundary` (K,) bool: at least half of its voxels lie near a predicted surface. `peak` (K,): highest u.
    """

    found_below: np.ndarray
    volume_ml: np.ndarray
    boundary: np.ndarray
    peak: np.ndarray
    dropped: int

    def __len__(self) -> int:
        return self.volume_ml.size


def error_components(
    error: np.ndarray, u: np.ndarray, near: np.ndarray, spacing_zyx: Sequence[float], *,
    least_mm3: float = LEAST_MM3, found_share: float = FOUND_SHARE,
) -> ErrorComponents:  # fmt: skip
    """The error components of a case.

    :param error: (z, y, x) bool, wrong voxels inside the region of interest.
    :param u: (z, y, x) uncertainty; used at wrong voxels only.
    :param near: (z, y, x) bool, near a predicted surface (`localisation.near_boundary`).
    :param spacing_zyx: mm.
    :param least_mm3: smaller ones are dropped.
    :param found_share: part of a component that must be flagged, (0, 1].
    :raises CalibUncertaintyError: when u holds NaN at a wrong voxel.
    :raises ValueError: when the shapes differ, the share is outside (0, 1] or a spacing is not above 0.
    """
    error, u, near = np.asarray(error, dtype=bool), np.asarray(u), np.asarray(near, dtype=bool)
    if error.ndim != 3 or u.shape != error.shape or near.shape != error.shape:
        raise ValueError(f"expected three (z, y, x) arrays of one shape, got {error.shape}, {u.shape} and {near.shape}")
    if not 0.0 < found_share <= 1.0 or len(spacing_zyx) != 3 or not all(step > 0 for step in spacing_zyx):
        raise ValueError(f"expected a share in (0, 1] and spacings above 0 mm, got {found_share}, {tuple(spacing_zyx)}")
    if not error.any():
        return ErrorComponents(np.zeros(0, np.float32), np.zeros(0), np.zeros(0, bool), np.zeros(0, np.float32), 0)
    box = bounding_box(error)
    error = error[box]
    component, values, at_surface = _numbered(error), u[box][error].astype(np.float32), near[box][error]
    if np.isnan(values).any():
        raise CalibUncertaintyError("an uncertainty map holds NaN at wrong voxels; predict the case again")
    sizes = np.bincount(component)
    order = np.lexsort((-values, component))
    starts = np.cumsum(sizes) - sizes
    enough = np.array([voxels_of_share(int(size), found_share) for size in sizes])
    volume_ml = sizes * math.prod(spacing_zyx) / 1000.0
    kept = np.flatnonzero(volume_ml * 1000.0 >= least_mm3 * (1.0 - 1e-9))
    kept = kept[np.argsort(-volume_ml[kept], kind="stable")]
    return ErrorComponents(
        found_below=values[order[starts + enough - 1]][kept],
        volume_ml=volume_ml[kept],
        boundary=(2 * np.bincount(component, weights=at_surface, minlength=sizes.size) >= sizes)[kept],
        peak=values[order[starts]][kept],
        dropped=sizes.size - kept.size,
    )


def found_share(components: ErrorComponents, threshold: float) -> dict:
    """How many components are found by flagging u >= t.

    `components`, `found`: numbers. `found_share`, and `boundary_found_share`, `non_boundary_found_share` of those on the boundary
    and off it: parts of the number, [0, 1], NaN without any. `found_volume_share`: part of the components' volume.
    """
    found = components.found_below >= threshold
    boundary, volume = components.boundary, components.volume_ml
    return {
        "components": len(components),
        "found": int(found.sum()),
        "found_share": _mean(found),
        "boundary_found_share": _mean(found[boundary]),
        "non_boundary_found_share": _mean(found[~boundary]),
        "found_volume_share": float(volume[found].sum() / volume.sum()) if len(components) else math.nan,
    }


def _numbered(error: np.ndarray) -> np.ndarray:
    """(E,) number 0, 1, ... of the component of each wrong voxel, in the array's order."""
    import cc3d

    pieces = cc3d.connected_components(np.ascontiguousarray(error), connectivity=26)
    return pieces[error].astype(np.int64) - 1


def _mean(found: np.ndarray) -> float:
    return float(found.mean()) if found.size else math.nan
