"""Scores of whole cases: what they are in the calibration cases, and where a new case stands among these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..model.heads import Heads
from ..uncertainty.aggregation import aggregate
from ..uncertainty.combined_score import FEWEST_CASES, CaseScores
from ..uncertainty.roi import box_around, distance_to_structures, roi_mask

if TYPE_CHECKING:
    from .calibrated_case import CalibratedCase

MEASURE = "entropy"


def fit_case_scores(cases: Sequence[CalibratedCase], heads: Heads, roi_mm: float) -> CaseScores | None:
    """Of calibrated cases; None of fewer than 3, or where it is not known where their voxels lie."""
    if len(cases) < FEWEST_CASES or any(case.voxels.places is None for case in cases):
        return None
    return CaseScores.of(
        {case.voxels.case.id: figures_of_case(case, heads, roi_mm) for case in cases}, heads.values, roi_mm
    )


def figures_of_case(case: CalibratedCase, heads: Heads, roi_mm: float) -> dict:
    """What a run of `segment` would say of the case's entropy in its Result; see `aggregate`."""
    places, names = case.voxels.places, dict(zip(heads.values, heads.names, strict=True))
    label = places.scattered(case.label)
    # not `near_prediction`: a new patient's run counts what is to be ignored, and what nnU-Net crops away, as well
    roi = roi_mask(distance_to_structures(label, places.spacing), roi_mm)
    box = box_around(roi, (0, 0, 0)) or tuple(slice(0, n) for n in roi.shape)
    entropy = np.ascontiguousarray(places.scattered(case.entropy)[box])
    found = aggregate(entropy, label[box], places.spacing, names, roi[box], members=case.voxels.agreement)
    for value, total in case.own_entropy.items():
        voxels = int(np.count_nonzero(np.asarray(case.label) == value))
        found["structures"][str(value)]["seg_entropy_k"] = total / voxels if voxels else None
    return found


def combined(figures: Mapping, scores: CaseScores | None, calibrated: bool, roi_mm: float | None) -> dict:
    """Where a run's case and structures stand, for its Result.

    {"status", "measure", "cases", "case", "structures"}: status "ok"; or "not_calibrated", "no_scores" (the record has none: it
    is of fewer than 3 cases, of stored probabilities, or older) or "other_roi" (these are of another ROI), with nothing else
    known. case, structures: see `CombinedScore`.

    figures: what `aggregate` says of the run's entropy. roi_mm: what it was summed up within; None in the body.
    """
    status = "not_calibrated" if not calibrated else "no_scores" if scores is None else "ok"
    if status == "ok" and (roi_mm is None or not math.isclose(scores.roi_mm, roi_mm)):
        status = "other_roi"
    if status != "ok":
        return {"status": status, "measure": MEASURE, "cases": 0, "case": None, "structures": {}}
    case, structures = scores.place(figures)
    return {
        "status": "ok", "measure": MEASURE, "cases": len(scores.cases), "case": case.to_json(),
        "structures": {str(value): of.to_json() for value, of in structures.items()},
    }  # fmt: skip
