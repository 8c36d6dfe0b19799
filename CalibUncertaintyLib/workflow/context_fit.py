"""What is usual near the structures, from labelled cases: laws of the measures that look around themselves, and their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..inference.scratch import Scratch
from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw, ContextLawFit
from ..uncertainty.exceedance import SIGMA_MM, ebcu
from ..uncertainty.pooled_law import PooledLawFit
from .calibrated_case import CalibratedCase
from .context_maps import CONTEXT, context_maps, context_names, normalised


@dataclass(frozen=True)
class CaseBox:
    """One calibrated case in the box of its places, (z, y, x) each: as a new patient's run would have it near the structures.

    u: normalised entropy. label: predicted labels. signed: mm to the interfaces. roi: within the distance of the prediction.
    """

    u: np.ndarray
    label: np.ndarray
    signed: np.ndarray
    roi: np.ndarray


def case_box(case: CalibratedCase, heads: Heads) -> CaseBox:
    """A case's voxels back in their places; beyond them there is background, sure and far from everything."""
    voxels, places = case.voxels, case.voxels.places
    return CaseBox(
        places.scattered(normalised(case.entropy, heads)), places.scattered(case.label),
        places.scattered(np.asarray(places.signed), np.float32(np.inf)), places.scattered(np.asarray(voxels.near_prediction)),
    )  # fmt: skip


def fit_context(cases: Sequence[CalibratedCase], heads: Heads, scratch: Scratch) -> ContextLaw | None:
    """The law of the normalised entropy of right voxels, by predicted class and distance, within the ROI that a new patient has.

    None where it is not known where the voxels lie. With it comes what is usual of the pooled exceedance, over all ROI voxels;
    its values are kept as each case's measure "ebcu". scratch: for these.
    """
    if any(case.voxels.places is None for case in cases):
        return None
    fit = ContextLawFit(heads.values)
    for case in cases:
        near, places = case.voxels.near_prediction, case.voxels.places
        u = normalised(case.entropy, heads)
        fit.add(case.voxels.case.id, u[near], case.label[near], places.signed[near], ~case.wrong[near])
    law, pooled = fit.fit(), PooledLawFit(SIGMA_MM)
    for case in cases:
        voxels, places = case.voxels, case.voxels.places
        if voxels.size:
            box, near = case_box(case, heads), voxels.near_prediction
            values = case.measures["ebcu"] = scratch.array((voxels.size,), np.float32)
            values[:] = places.gathered(ebcu(box.u, box.label, box.signed, box.roi, places.spacing, law))
            pooled.add(voxels.case.id, values[near], places.signed[near])
    return law.with_pooled(pooled.fit())


def context_values(
    case: CalibratedCase, heads: Heads, law: ContextLaw | None, names: Sequence[str] = CONTEXT
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (N,) float32 values) of these context measures that can be had, 0 outside the prediction's ROI for those that are
    pooled. The case has been in `fit_context`.
    """
    wanted, places = context_names(names, law), case.voxels.places
    if places is None or not case.voxels.size or not wanted:
        return
    box = case_box(case, heads)
    pooled = places.scattered(case.measures["ebcu"])
    for name, values in context_maps(wanted, box.u, box.label, box.signed, box.roi, places.spacing, law, pooled):
        yield name, places.gathered(values)
