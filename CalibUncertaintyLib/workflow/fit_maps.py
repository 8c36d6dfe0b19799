"""What a new patient's maps need of a calibration: thresholds of every measure, laws of what is usual, chances of regions."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.measures import MEASURES
from ..uncertainty.threshold import ThresholdFit
from .applied import AppliedCalibration
from .candidates import Reference
from .case_values import values_of_case
from .chosen_measures import measure_names
from .context_fit import entropy_and_labels, fit_context
from .context_maps import CONTEXT
from .fit_regions import fit_regions
from .labelled import RoiVoxels


def maps_of_entry(
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, roi_mm: float
) -> dict:
    """Thresholds, context law and chances of regions of an entry, as they stand in the record; of the ROI a new patient has."""
    law = fit_context(cases, calibration, reference)
    thresholds = _thresholds(cases, calibration, reference, law)
    return {
        "thresholds": thresholds,
        "context": None if law is None or law.status != "ok" else law.to_json(),
        "regions": fit_regions(cases, calibration, reference, law, thresholds, roi_mm) or None,
    }


def _thresholds(
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, law: ContextLaw | None
) -> dict:
    """For every measure the threshold whose marked voxels overlap best with the errors."""
    heads, n_members = reference.heads, len(cases[0].members)
    fits = {name: _threshold_fit(name, heads, n_members) for name in (*measure_names(n_members), *CONTEXT)}
    for voxels in cases:
        near = voxels.near_prediction
        wrong = entropy_and_labels(voxels, calibration, reference)[2][near]
        for name, values in values_of_case(voxels, calibration, reference, law, list(fits)).items():
            fits[name].add(voxels.case.id, values[near], wrong)
    fitted = {name: fit.fit() for name, fit in fits.items()}
    return {name: threshold.to_json() for name, threshold in fitted.items() if threshold.status == "ok"}


def _threshold_fit(name: str, heads: Heads, n_members: int) -> ThresholdFit:
    return ThresholdFit(name, MEASURES[name].upper(heads.channels, n_members, heads.sigmoid))
