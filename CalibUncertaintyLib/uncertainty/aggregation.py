"""How uncertain is a case, each of its structures, each piece of a structure: every summary of a map of uncertainty at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import CalibUncertaintyError
from ..plain_json import plain
from .aggregation_scores import (
    BOUNDARY_VOXELS,
    boundary_band,
    components_of_structure,
    distance_weighted,
    mean_above,
    mean_of,
    mean_of_mask_or_all,
    patch_score,
    per_volume,
    total_of,
)
from .member_agreement import OF_CASE, OF_STRUCTURE, MemberAgreement, agreement_figures
from .roi import box_around, checked_grid

MOST_PIECES = 50


def aggregate(
    u: np.ndarray,
    label: np.ndarray,
    spacing_zyx: tuple[float, float, float],
    structures: Mapping[int, str],
    roi: np.ndarray | None = None,
    threshold: float | None = None,
    entropy_of: Callable[[int], np.ndarray] | None = None,
    members: Sequence[np.ndarray] | MemberAgreement | None = None,
    fall_back: bool = False,
    to_interfaces: np.ndarray | None = None,
) -> dict:
    """Every summary of a map, of the case and of each structure, ready for JSON: NaN is None, keys are text.

    {"status", "case": {...}, "structures": {label: {...}}}. Status: "ok", "no_structure" (nothing is predicted) or "empty_roi".

    - case: `voxels`, `sum`, `mean`, `patch` and `patch_mean` (worst window of 10^3 voxels), `thresh` (mean above the threshold),
      `fg`, `boundary`, `bg` (means inside structures, along their surface, outside; without the band of 4 voxels along it),
      `per_volume`, `dist_weighted`, `pairwise_dice`, `pairwise_dice_min`, `pairwise_dice_generalised`
    - structure: `name`, `status` ("ok" or "not_predicted"), `voxels`, `volume_ml`, `sum`, `mean`, `max`, `fg`, `boundary`,
      `seg_entropy_k`, `pairwise_dice`, `pairwise_dice_min`, `vol_cv`, `components` (the 50 largest: `volume_ml`, `mean`, `max`),
      `component_count`

    What needs an argument that is not given is None. See `aggregation_scores` and `member_agreement` for definitions and sources.

    :param u: (z, y, x) the measure.
    :param label: (z, y, x) predicted labels; interfaces are those of the whole of it.
    :param structures: names of the labels to tell apart.
    :param roi: (z, y, x) bool that all but the members' agreement is restricted to; None for the whole image.
    :param threshold: for `thresh`, in the measure's unit (`foreground_threshold`).
    :param entropy_of: gives the (z, y, x) entropy of one structure, [0, ln 2]; asked for one structure at a time.
    :param members: M label maps (z, y, x), or what was counted of them; of a single one agreement is None.
    :param fall_back: `fg`, `boundary` and `bg` of the case are the plain mean where there is no such voxel.
    :param to_interfaces: (z, y, x) `distance_to_interfaces` of the labels, where that is known already.
    :raises CalibUncertaintyError: when u holds NaN. :raises ValueError: when the shapes differ.
    """
    label, u = checked_grid(label, spacing_zyx), np.asarray(u)
    if u.shape != label.shape or (roi is not None and np.shape(roi) != label.shape):
        raise ValueError(f"expected arrays of one shape, got {[u.shape, label.shape, np.shape(roi)]}")
    if np.isnan(total_of(u, roi)):
        raise CalibUncertaintyError("the map of uncertainty holds NaN; predict the case again")
    case = case_figures(u, label, spacing_zyx, roi, threshold, fall_back, to_interfaces)
    by_structure = {
        number: structure_figures(u, label, spacing_zyx, number, roi, entropy_of) | {"name": name}
        for number, name in structures.items()
    }
    if members is not None:
        of_case, of_structures = agreement_figures(members, structures)
        case |= of_case
        for number, figures in of_structures.items():
            by_structure[number] |= figures
    status = "empty_roi" if not case["voxels"] else "ok" if np.any(label) else "no_structure"
    return plain({"status": status, "case": case, "structures": by_structure})


def case_figures(
    u: np.ndarray, label: np.ndarray, spacing_zyx: tuple[float, float, float], roi: np.ndarray | None = None,
    threshold: float | None = None, fall_back: bool = False, to_interfaces: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """The figures of a case that `aggregate` names, but for the members' agreement (None); NaN where there is nothing."""
    voxels = u.size if roi is None else int(np.count_nonzero(roi))
    band = boundary_band(label, BOUNDARY_VOXELS)
    inside = label != 0
    masks = {"fg": inside & ~band, "boundary": band, "bg": ~inside & ~band}
    if roi is not None:
        masks = {name: mask & roi for name, mask in masks.items()}
    patch = patch_score(u, mask=roi) if voxels else math.nan
    window = math.prod(min(10, length) for length in u.shape)
    return {
        "voxels": voxels,
        "sum": total_of(u, roi) if voxels else math.nan,
        "mean": mean_of(u, roi),
        "patch": patch,
        "patch_mean": patch / max(window, 1),
        "thresh": None if threshold is None else mean_above(u, threshold, roi),
        **{name: mean_of_mask_or_all(u, mask, fall_back, roi) for name, mask in masks.items()},
        "per_volume": per_volume(u, label, roi),
        "dist_weighted": distance_weighted(u, label, spacing_zyx, roi=roi, to_interfaces=to_interfaces),
        **dict.fromkeys(OF_CASE),
    }


def structure_figures(
    u: np.ndarray, label: np.ndarray, spacing_zyx: tuple[float, float, float], structure: int,
    roi: np.ndarray | None = None, entropy_of: Callable[[int], np.ndarray] | None = None,
) -> dict:  # fmt: skip
    """The figures of one structure that `aggregate` names, but for its name and the members' agreement (None)."""
    voxel_ml = math.prod(spacing_zyx) / 1000.0
    whole = label == structure
    box = box_around(whole, (BOUNDARY_VOXELS,) * 3)
    if box is None:
        nothing = dict.fromkeys(("sum", "mean", "max", "fg", "boundary", "seg_entropy_k"), math.nan)
        return {"status": "not_predicted", "voxels": 0, "volume_ml": 0.0, **nothing, **_unknown()}
    whole, values = whole[box], u[box]
    limit = True if roi is None else roi[box]
    own, band = whole & limit, boundary_band(whole, BOUNDARY_VOXELS)
    voxels = int(np.count_nonzero(own))
    pieces = components_of_structure(values, own, voxel_ml)
    return {
        "status": "ok",
        "voxels": voxels,
        "volume_ml": voxels * voxel_ml,
        "sum": total_of(values, own) if voxels else math.nan,
        "mean": mean_of(values, own),
        "max": float(values[own].max()) if voxels else math.nan,
        "fg": mean_of(values, own & ~band),
        "boundary": mean_of(values, band & limit),
        "seg_entropy_k": None if entropy_of is None else mean_of(entropy_of(structure)[box], own),
        **_unknown(),
        "components": pieces[:MOST_PIECES],
        "component_count": len(pieces),
    }


def _unknown() -> dict:
    return {**dict.fromkeys(OF_STRUCTURE), "components": [], "component_count": 0}
