"""What a new patient's maps need of a calibration: thresholds of every measure, laws of what is usual, chances of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..calibration.softmax import probabilities
from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.measures import MEASURES
from ..uncertainty.member_statistics import MemberStatistics
from ..uncertainty.threshold import BINS, ThresholdFit
from .applied import AppliedCalibration
from .candidates import Reference, calibrated, member_temperatures, parts
from .chosen_measures import extras_of, measure_names
from .context_fit import context_values, fit_context
from .context_maps import CONTEXT
from .labelled import RoiVoxels
from .maps import measure_values


def maps_of_entry(cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference) -> dict:
    """ "thresholds" and "context" of an entry, as they stand in the record; all of it from the ROI a new patient has."""
    law = fit_context(cases, calibration, reference)
    return {
        "thresholds": _thresholds(cases, calibration, reference, law),
        "context": None if law is None or law.status != "ok" else law.to_json(),
    }


def _thresholds(
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, law: ContextLaw | None
) -> dict:
    """For every measure the threshold whose marked voxels overlap best with the errors."""
    heads, n_members = reference.heads, len(cases[0].members)
    fits = {name: _threshold_fit(name, heads, n_members) for name in (*measure_names(n_members), *CONTEXT)}
    for voxels in cases:
        around = context_values(voxels, calibration, reference, law)
        for part in parts(voxels):
            near = voxels.near_prediction[part]
            p, label, _ = calibrated(voxels, part, calibration)
            wrong = (label != reference.decoded(voxels.labels[part]))[near]
            of_members = _of_members(voxels, part, calibration, extras_of(fits)) if n_members > 1 else ()
            values = measure_values(p, heads, n_members, *of_members)
            for name, of_part in (values | {name: found[part] for name, found in around.items()}).items():
                fits[name].add(voxels.case.id, of_part[near], wrong)
    fitted = {name: fit.fit() for name, fit in fits.items()}
    return {name: threshold.to_json() for name, threshold in fitted.items() if threshold.status == "ok"}


def _threshold_fit(name: str, heads: Heads, n_members: int) -> ThresholdFit:
    """Of one measure; its grid of thresholds is finer where the range goes far beyond what is ever shown."""
    given = (heads.channels, n_members, heads.sigmoid)
    upper, shown = MEASURES[name].upper(*given), MEASURES[name].shown(*given)
    return ThresholdFit(name, upper, BINS if upper < 8 * shown else 4 * BINS)


def _of_members(
    voxels: RoiVoxels, part: slice, calibration: AppliedCalibration, extras: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The members' mean probability (C, N), mean entropy (N,) and extras, at the temperature they share, or each at its own."""
    statistics = MemberStatistics(calibration.sigmoid, extras)
    for of_member, temperature in zip(voxels.members[..., part], member_temperatures(voxels, calibration), strict=True):
        statistics.add(probabilities(of_member, temperature, calibration.sigmoid))
    return statistics.mean, statistics.expected_entropy, statistics.extras
