"""What a new patient's maps need of a calibration: thresholds of every measure, laws of what is usual, chances of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.measures import MEASURES
from ..uncertainty.regions import boundary_mm
from ..uncertainty.roi import ROUNDING_MM
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
    """For every measure the threshold whose marked voxels overlap best with the errors: with those away from borders, of a measure
    that is dark along them, if there are any. Few cases have such errors, and a mean over cases would reward marking nothing in all
    the others; so of these all voxels are pooled.
    """
    heads, n_members = reference.heads, len(cases[0].members)
    fits = {name: _threshold_fit(name, heads, n_members) for name in (*measure_names(n_members), *CONTEXT)}
    wrong = [entropy_and_labels(voxels, calibration, reference)[2] & voxels.near_prediction for voxels in cases]
    off_borders = [_off_borders(voxels, errors) for voxels, errors in zip(cases, wrong, strict=True)]
    sought = {
        name: "off_borders" if MEASURES[name].off_borders and any(map(np.any, off_borders)) else "all" for name in fits
    }
    for voxels, errors, off in zip(cases, wrong, off_borders, strict=True):
        near = voxels.near_prediction
        for name, values in values_of_case(voxels, calibration, reference, law, list(fits)).items():
            fits[name].add(voxels.case.id, values[near], (off if sought[name] == "off_borders" else errors)[near])
    fitted = {name: fit.fit("pooled" if sought[name] == "off_borders" else "mean") for name, fit in fits.items()}
    return {
        name: threshold.to_json() | ({"errors": "off_borders"} if sought[name] == "off_borders" else {})
        for name, threshold in fitted.items()
        if threshold.status == "ok"
    }


def _off_borders(voxels: RoiVoxels, errors: np.ndarray) -> np.ndarray:
    """Those errors (N,) that are not at a predicted surface; none where it is not known where voxels lie."""
    if voxels.places is None:
        return np.zeros_like(errors)
    return errors & (np.abs(voxels.places.signed) > boundary_mm(voxels.places.spacing) + ROUNDING_MM)


def _threshold_fit(name: str, heads: Heads, n_members: int) -> ThresholdFit:
    return ThresholdFit(name, MEASURES[name].upper(heads.channels, n_members, heads.sigmoid))
