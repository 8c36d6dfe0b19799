"""What a calibration says at the voxels of a labelled case, worked out once for all laws, thresholds, regions and ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..calibration.softmax import probabilities
from ..inference.scratch import Scratch
from ..model.heads import first_argmax
from ..uncertainty.measures import binary_entropy, expected_error, measures_of
from ..uncertainty.member_statistics import MemberStatistics
from ..uncertainty.threshold import ThresholdFit
from .applied import AppliedCalibration
from .candidates import Reference, calibrated, member_temperatures, parts
from .chosen_measures import extras_of
from .labelled import RoiVoxels
from .maps import measure_values

# Of the measures that a reader goes through a list of; their values are kept
REGION_MEASURES = ("entropy", "mi", "dae", "ebcu")


@dataclass(frozen=True)
class CalibratedCase:
    """The N voxels of a case, (N,) each, with the calibration applied; arrays may lie in scratch files.

    entropy: float32, nats. label: uint16, predicted. wrong: where it is not the reference's. foreground: float32, probability of
    any structure. expected: float32, expected error. likeliest: uint16, the likeliest structure, were it not background.
    measures: float32 values by name of those that are looked at again. far: the same of the far voxels, None without. own_entropy:
    by label, the sum over a structure's voxels of its entropy against all else, nats.
    """

    voxels: RoiVoxels
    entropy: np.ndarray
    label: np.ndarray
    wrong: np.ndarray
    foreground: np.ndarray
    expected: np.ndarray
    likeliest: np.ndarray
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    far: CalibratedCase | None = None
    own_entropy: dict[int, float] = field(default_factory=dict)


@contextmanager
def calibrated_cases(
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, fits: Mapping[str, ThresholdFit]
) -> Iterator[tuple[list[CalibratedCase], Scratch]]:
    """Every case with the calibration applied, and the scratch that holds what is large, until the block ends.

    fits: by their names the measures of single voxels whose thresholds are fitted; each is given every case's voxels near the
    prediction, and whether their label is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="calib-uncertainty-", ignore_cleanup_errors=True) as folder:
        found: list[CalibratedCase] = []
        with Scratch(Path(folder)) as scratch:
            try:
                found += [_calibrated_case(voxels, calibration, reference, fits, scratch) for voxels in cases]
                yield found, scratch
            finally:
                found.clear()  # mapped files cannot be removed everywhere


def _calibrated_case(
    voxels: RoiVoxels, calibration: AppliedCalibration, reference: Reference, fits: Mapping[str, ThresholdFit],
    scratch: Scratch,
) -> CalibratedCase:  # fmt: skip
    # far voxels have no neighbours for a calibrator to look at, and are of use to regions alone
    far = voxels.far if fits and calibration.halo is None else None
    case = CalibratedCase(
        voxels,
        *(scratch.array((voxels.size,), kind) for kind in (np.float32, np.uint16, bool, np.float32, np.float32, np.uint16)),
        {name: scratch.array((voxels.size,), np.float32) for name in fits if name in REGION_MEASURES},
        None if far is None else _calibrated_case(far, calibration, reference, {}, scratch),
    )  # fmt: skip
    heads = reference.heads
    for part in parts(voxels):
        p, label, _ = calibrated(voxels, part, calibration)
        values = _values(voxels, part, p, calibration, reference, list(fits))
        case.entropy[part], case.label[part] = values["entropy"], label
        case.wrong[part] = label != reference.decoded(voxels.labels[part])
        case.foreground[part], case.expected[part] = heads.foreground(p), expected_error(p, heads.sigmoid)
        case.likeliest[part] = np.asarray(heads.values, np.uint16)[first_argmax(heads.structures(p))]
        for value, of_structure in zip(heads.values, heads.structures(p), strict=True):
            own = float(binary_entropy(of_structure[label == value]).sum(dtype=np.float64))
            case.own_entropy[value] = case.own_entropy.get(value, 0.0) + own
        for name, kept in case.measures.items():
            kept[part] = values[name]
        near, wrong = voxels.near_prediction[part], case.wrong[part]
        for name, fit in fits.items():
            fit.add(voxels.case.id, values[name][near], wrong[near])
    return case


def _values(
    voxels: RoiVoxels, part: slice, p: np.ndarray, calibration: AppliedCalibration, reference: Reference, names: Sequence[str]
) -> dict[str, np.ndarray]:  # fmt: skip
    """Measures of single voxels, as a new patient's run would give them there; the entropy alone where none is asked for."""
    n_members, sigmoid = len(voxels.members), reference.heads.sigmoid
    if not names:
        return measures_of(p, sigmoid)
    members = _of_members(voxels, part, calibration, extras_of(names)) if n_members > 1 else ()
    return measure_values(p, reference.heads, n_members, *members)


def _of_members(
    voxels: RoiVoxels, part: slice, calibration: AppliedCalibration, extras: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The members' mean probability (C, N), mean entropy (N,) and extras, at the temperature they share, or each at its own."""
    statistics = MemberStatistics(calibration.sigmoid, extras)
    for of_member, temperature in zip(voxels.members[..., part], member_temperatures(voxels, calibration), strict=True):
        statistics.add(probabilities(of_member, temperature, calibration.sigmoid))
    return statistics.mean, statistics.expected_entropy, statistics.extras
