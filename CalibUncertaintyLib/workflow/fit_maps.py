"""What a new patient's maps need of a calibration: thresholds of every measure, laws of what is usual, chances of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..inference.scratch import Scratch
from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.measures import MEASURES
from ..uncertainty.regions import boundary_mm
from ..uncertainty.roi import ROUNDING_MM
from ..uncertainty.threshold import ThresholdFit
from .calibrated_case import REGION_MEASURES, CalibratedCase
from .candidates import Reference
from .case_scores import fit_case_scores
from .chosen_measures import measure_names
from .context_fit import context_values, fit_context
from .context_maps import CONTEXT
from .fit_regions import fit_regions


def threshold_fits(heads: Heads, n_members: int) -> dict[str, ThresholdFit]:
    """Accumulators for the thresholds of all measures of single voxels, by name; for `calibrated_cases`."""
    return {name: _threshold_fit(name, heads, n_members) for name in measure_names(n_members)}


def maps_of_entry(
    cases: Sequence[CalibratedCase],
    fits: Mapping[str, ThresholdFit],
    reference: Reference,
    roi_mm: float,
    scratch: Scratch,
) -> dict:
    """Thresholds, context law, chances of regions and scores of cases, as they stand in the record; of the ROI a new patient has.

    fits: `threshold_fits` that were given all voxels of these cases. scratch: for more values of them.
    """
    law = fit_context(cases, reference.heads, scratch)
    thresholds = _thresholds(cases, fits, reference.heads, law, scratch)
    scores = fit_case_scores(cases, reference.heads, roi_mm)
    return {
        "thresholds": thresholds,
        "context": None if law is None or law.status != "ok" else law.to_json(),
        "regions": fit_regions(cases, reference.heads, thresholds, roi_mm) or None,
        "case_scores": None if scores is None else scores.to_json(),
    }


def _thresholds(
    cases: Sequence[CalibratedCase], fits: Mapping[str, ThresholdFit], heads: Heads, law: ContextLaw | None,
    scratch: Scratch,
) -> dict:  # fmt: skip
    """For every measure the threshold whose marked voxels overlap best with the errors: with those away from borders, of a measure
    that is dark along them, if there are any. Few cases have such errors, and a mean over cases would reward marking nothing in all
    the others; so of these all voxels are pooled.
    """
    # what is dark along borders looks around itself, so no measure of single voxels is among it
    around = {name: _threshold_fit(name, heads, len(cases[0].voxels.members)) for name in CONTEXT}
    off_borders = [_off_borders(case) for case in cases]
    apart = {name for name in around if MEASURES[name].off_borders and any(map(np.any, off_borders))}
    for case, off in zip(cases, off_borders, strict=True):
        near = case.voxels.near_prediction
        for name, values in context_values(case, heads, law):
            around[name].add(case.voxels.case.id, values[near], (off if name in apart else case.wrong)[near])
            if name in REGION_MEASURES and name not in case.measures:
                case.measures[name] = scratch.array(values.shape, np.float32)
                case.measures[name][:] = values
    fitted = {name: fit.fit("pooled" if name in apart else "mean") for name, fit in {**fits, **around}.items()}
    return {
        name: threshold.to_json() | ({"errors": "off_borders"} if name in apart else {})
        for name, threshold in fitted.items()
        if threshold.status == "ok"
    }


def _off_borders(case: CalibratedCase) -> np.ndarray:
    """Those errors (N,) near the prediction that are not at its surface; none where it is not known where voxels lie."""
    voxels = case.voxels
    if voxels.places is None:
        return np.zeros_like(case.wrong)
    away = np.abs(voxels.places.signed) > boundary_mm(voxels.places.spacing) + ROUNDING_MM
    return case.wrong & voxels.near_prediction & away


def _threshold_fit(name: str, heads: Heads, n_members: int) -> ThresholdFit:
    return ThresholdFit(name, MEASURES[name].upper(heads.channels, n_members, heads.sigmoid))
