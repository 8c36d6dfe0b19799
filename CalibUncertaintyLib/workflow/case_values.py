"""Values of every measure at the voxels of a labelled case, as a new patient's run would give them there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..calibration.softmax import probabilities
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.member_statistics import MemberStatistics
from .applied import AppliedCalibration
from .candidates import Reference, calibrated, member_temperatures, parts
from .chosen_measures import OF_VOXELS, extras_of
from .context_fit import context_values
from .labelled import RoiVoxels
from .maps import measure_values


def values_of_case(
    voxels: RoiVoxels,
    calibration: AppliedCalibration,
    reference: Reference,
    law: ContextLaw | None,
    names: Sequence[str],
) -> dict[str, np.ndarray]:
    """(N,) float32 of each of these measures that can be had; 0 outside the ROI of the prediction for those that are pooled."""
    n_members = len(voxels.members)
    of_voxels = [name for name in names if name in OF_VOXELS]
    found = {name: np.zeros(voxels.size, np.float32) for name in of_voxels}
    for part in parts(voxels) if of_voxels else ():
        p, _, _ = calibrated(voxels, part, calibration)
        members = _of_members(voxels, part, calibration, extras_of(of_voxels)) if n_members > 1 else ()
        values = measure_values(p, reference.heads, n_members, *members)
        for name in of_voxels:
            found[name][part] = values[name]
    around = context_values(voxels, calibration, reference, law, [name for name in names if name not in OF_VOXELS])
    return found | around


def _of_members(
    voxels: RoiVoxels, part: slice, calibration: AppliedCalibration, extras: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The members' mean probability (C, N), mean entropy (N,) and extras, at the temperature they share, or each at its own."""
    statistics = MemberStatistics(calibration.sigmoid, extras)
    for of_member, temperature in zip(voxels.members[..., part], member_temperatures(voxels, calibration), strict=True):
        statistics.add(probabilities(of_member, temperature, calibration.sigmoid))
    return statistics.mean, statistics.expected_entropy, statistics.extras
