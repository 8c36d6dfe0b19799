"""What is usual near the structures, from labelled cases: laws of the measures that look around themselves, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..uncertainty.context_law import ContextLaw, ContextLawFit
from ..uncertainty.exceedance import SIGMA_MM, ebcu
from ..uncertainty.measures import measures_of
from ..uncertainty.pooled_law import PooledLawFit
from .applied import AppliedCalibration
from .candidates import Reference, calibrated, parts
from .context_maps import CONTEXT, context_maps, context_names, normalised
from .labelled import RoiVoxels


@dataclass(frozen=True)
class CaseBox:
    """One calibrated case in the box of its places, (z, y, x) each: as a new patient's run would have it near the structures.

    u: normalised entropy. label: predicted labels. signed: mm to the interfaces. roi: within the distance of the prediction.
    """

    u: np.ndarray
    label: np.ndarray
    signed: np.ndarray
    roi: np.ndarray


def case_box(voxels: RoiVoxels, calibration: AppliedCalibration, reference: Reference) -> CaseBox:
    """A case's voxels, calibrated and back in their places; beyond them there is background, sure and far from everything."""
    u, label, _ = entropy_and_labels(voxels, calibration, reference)
    places = voxels.places
    return CaseBox(
        places.scattered(u), places.scattered(label), places.scattered(np.asarray(places.signed), np.float32(np.inf)),
        places.scattered(np.asarray(voxels.near_prediction)),
    )  # fmt: skip


def entropy_and_labels(
    voxels: RoiVoxels, calibration: AppliedCalibration, reference: Reference
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) normalised entropy, predicted labels, and whether they are wrong."""
    u, label = np.empty(voxels.size, np.float32), np.empty(voxels.size, np.uint16)
    wrong = np.empty(voxels.size, bool)
    for part in parts(voxels):
        p, label[part], _ = calibrated(voxels, part, calibration)
        u[part] = normalised(measures_of(p, reference.heads.sigmoid)["entropy"], reference.heads)
        wrong[part] = label[part] != reference.decoded(voxels.labels[part])
    return u, label, wrong


def fit_context(cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference) -> ContextLaw | None:
    """The law of the normalised entropy of right voxels, by predicted class and distance, within the ROI that a new patient has.

    None where it is not known where the voxels lie. With it comes what is usual of the pooled exceedance, over all ROI voxels.
    """
    if any(voxels.places is None for voxels in cases):
        return None
    fit = ContextLawFit(reference.heads.values)
    for voxels in cases:
        u, label, wrong = entropy_and_labels(voxels, calibration, reference)
        near = voxels.near_prediction
        fit.add(voxels.case.id, u[near], label[near], voxels.places.signed[near], ~wrong[near])
    law, pooled = fit.fit(), PooledLawFit(SIGMA_MM)
    for voxels in cases:
        if voxels.size:
            box, near = case_box(voxels, calibration, reference), voxels.near_prediction
            values = voxels.places.gathered(ebcu(box.u, box.label, box.signed, box.roi, voxels.places.spacing, law))
            pooled.add(voxels.case.id, values[near], voxels.places.signed[near])
    return law.with_pooled(pooled.fit())


def context_values(
    voxels: RoiVoxels,
    calibration: AppliedCalibration,
    reference: Reference,
    law: ContextLaw | None,
    names: Sequence[str] = CONTEXT,
) -> dict[str, np.ndarray]:
    """(N,) values of these context measures that can be had, 0 outside the ROI of the prediction for those that are pooled."""
    wanted = context_names(names, law)
    if voxels.places is None or not voxels.size or not wanted:
        return {}
    box = case_box(voxels, calibration, reference)
    return {
        name: voxels.places.gathered(values)
        for name, values in context_maps(wanted, box.u, box.label, box.signed, box.roi, voxels.places.spacing, law)
    }
