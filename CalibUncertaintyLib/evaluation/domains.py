"""Where figures are measured: the whole volume, the neighbourhood of the structures, a box around them, the body.

A figure depends on its domain more than on most else: voxels of air far away are always right and always sure. So a figure is
stored with the domain's `id`. All arrays are (z, y, x) on one grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..body import body_mask
from .spatial import bounding_box

REFERENCES = ("pred", "gt", "union")
ROI_MM = 15.0
# Distances are float32 roots of sums of squares; a voxel that lies exactly on the limit may come out this much beyond it.
_ROUNDING_MM = 1e-4


@dataclass(frozen=True)
class Domain:
    """A mask with its name. `status`: "ok" or "empty_roi". `missed_structure`: nothing is predicted though something is drawn."""

    id: str
    mask: np.ndarray = field(repr=False)
    status: str
    missed_structure: bool = False


def whole_volume(valid: np.ndarray) -> Domain:
    """Every voxel of `valid`, (z, y, x) bool: inside the scan and not to be ignored."""
    return _domain("whole", np.asarray(valid))


def near_structures(
    distance_pred: np.ndarray | None, distance_gt: np.ndarray | None, reference: str = "union",
    distance_mm: float = ROI_MM, valid: np.ndarray | None = None,
) -> Domain:  # fmt: skip
    """Voxels at most `distance_mm` from the structures of the prediction ("pred"), the reference ("gt"), or either ("union").

    "pred" is what a new patient has; "union" does not forget a structure that was missed. When nothing is predicted and something
    is drawn, "pred" is empty and `missed_structure` says why.

    :param distance_pred, distance_gt: (z, y, x) mm from the nearest structure voxel, 0 inside, +inf everywhere without a structure;
        the one that `reference` does not name may be None.
    :param valid: (z, y, x) bool that the domain is cut with; None for all.
    :raises ValueError: when a distance map that is needed is not there, shapes differ or the limit is no number of mm.
    Source: thesis of Reitani (15 mm); the definition by three references is our own.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference {reference!r} is none of {', '.join(REFERENCES)}")
    if not (math.isfinite(distance_mm) and distance_mm >= 0):
        raise ValueError(f"the distance must be a finite number of mm, 0 or more, got {distance_mm}")
    needed = {"pred": [distance_pred], "gt": [distance_gt], "union": [distance_pred, distance_gt]}[reference]
    if any(distance is None for distance in needed):
        raise ValueError(f"the domain by {reference!r} needs its distance map")
    mask = np.asarray(needed[0]) <= distance_mm + _ROUNDING_MM
    for distance in needed[1:]:
        if np.shape(distance) != mask.shape:
            raise ValueError(f"distance maps of one shape are wanted, got {mask.shape} and {np.shape(distance)}")
        mask |= np.asarray(distance) <= distance_mm + _ROUNDING_MM
    known = distance_pred is not None and distance_gt is not None
    missed = known and not np.isfinite(distance_pred).any() and bool(np.isfinite(distance_gt).any())
    return _domain(f"dist:{distance_mm:g}:{reference}", _cut(mask, valid), missed)


def dilated_box(
    foreground: np.ndarray, spacing_zyx: Sequence[float], in_plane_mm: float = 8.0, slices: int = 2,
    through_plane_axis: int = 0, valid: np.ndarray | None = None,
) -> Domain:  # fmt: skip
    """The bounding box of the foreground, grown by `in_plane_mm` in plane and by `slices` through plane, inside the volume.

    Millimetres that are no whole number of voxels are rounded up, so that the margin is never less than asked for.

    :param foreground: (z, y, x) bool or labels above 0.
    :param spacing_zyx: mm.
    :param through_plane_axis: 0 for axial slices.
    Source: Mehrtash et al. 2020 (8 mm in plane, 2 slices).
    """
    foreground = np.asarray(foreground) != 0
    if foreground.ndim != 3 or len(spacing_zyx) != 3 or not all(step > 0 for step in spacing_zyx):
        raise ValueError(
            f"expected a (z, y, x) array and spacings above 0 mm, got {foreground.shape}, {tuple(spacing_zyx)}"
        )
    mask = np.zeros(foreground.shape, bool)
    if foreground.any():
        margins = [math.ceil(in_plane_mm / float(step) - 1e-6) for step in spacing_zyx]
        margins[through_plane_axis] = slices
        box = bounding_box(foreground)
        mask[tuple(
            slice(max(0, part.start - margin), part.stop + margin) for part, margin in zip(box, margins, strict=True)
        )] = True  # fmt: skip
    return _domain(f"box:{in_plane_mm:g}mm:{slices}", _cut(mask, valid))


def body(ct_hu: np.ndarray, spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0), valid: np.ndarray | None = None) -> Domain:
    """The patient, without the air around and without the table; see `body_mask`.

    :param ct_hu: (z, y, x) Hounsfield units, of axial slices. :param spacing_zyx: mm.
    Source: our definition, in place of the brain mask of Rousseau et al. 2021.
    """
    return in_body(body_mask(ct_hu, spacing_zyx), valid)


def in_body(mask: np.ndarray, valid: np.ndarray | None = None) -> Domain:
    """The patient, where it is known already. :param mask: (z, y, x) bool, as from `body_mask`."""
    return _domain("body", _cut(np.asarray(mask), valid))


def curvas_2024_box(ct_hu: np.ndarray) -> Domain:
    """All slices of the in-plane bounding box of CT > 0 HU. Source: evaluation code of the CURVAS 2024 challenge."""
    positive = (np.asarray(ct_hu) > 0).any(axis=0, keepdims=True)
    mask = np.zeros(np.shape(ct_hu), bool)
    if positive.any():
        _, rows, columns = bounding_box(positive)
        mask[:, rows, columns] = True
    return _domain("curvas24", mask)


def curvas_2025_box(raters: Sequence[np.ndarray], margin: int = 20, compat: bool = False) -> Domain:
    """The bounding box of what any rater drew, grown by `margin` voxels on each side, inside the volume.

    :param raters: (z, y, x) labels of each, 0 is background.
    :param compat: as the CURVAS 2025 code has it: a box that begins less than `margin` voxels from the volume's border gets a
        negative start, which Python counts from the other end, so that most often nothing is left.
    """
    drawn = np.zeros(np.shape(raters[0]), bool)
    for labels in raters:
        drawn |= np.asarray(labels) != 0
    mask = np.zeros(drawn.shape, bool)
    if drawn.any():
        starts = [part.start - margin for part in bounding_box(drawn)]
        stops = [part.stop + margin for part in bounding_box(drawn)]
        if not compat:
            starts = [max(0, start) for start in starts]
        mask[tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))] = True
    return _domain("curvas25", mask)


def _cut(mask: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if valid is None:
        return mask
    valid = np.asarray(valid)
    if valid.shape != mask.shape or valid.dtype != bool:
        raise ValueError(f"valid has to be boolean of shape {mask.shape}, got {valid.dtype} {valid.shape}")
    return mask & valid


def _domain(name: str, mask: np.ndarray, missed: bool = False) -> Domain:
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(f"expected a (z, y, x) boolean mask, got {mask.dtype} {mask.shape}")
    return Domain(name, mask, "ok" if mask.any() else "empty_roi", missed)
