"""From the voxels of labelled cases to a calibration's temperatures, figures and thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..calibration.regions import FittedRegionTemperatures, RegionTemperatureFit
from ..calibration.softmax import probabilities
from ..calibration.temperature import FittedTemperature, TemperatureFit
from ..errors import CalibUncertaintyError
from ..evaluation.metrics import CalibrationMetrics, RegionMetrics, mean_over_cases
from ..model.folder import ModelFolder
from ..model.heads import Heads, region_truth
from ..model.record import CalibrationEntry
from ..progress import Progress
from ..uncertainty.measures import MEASURES, MemberStatistics
from ..uncertainty.threshold import ThresholdFit
from .applied import MODES, AppliedCalibration, mean_probability, pooled_scores
from .labelled import RoiVoxels
from .maps import measure_names, measure_values

CHUNK_VALUES = 8_000_000  # logits of one part, over members and classes: mean and statistics take some times that
_FIGURES = ("nll", "ece_toplabel", "brier_mean", "accuracy", "mean_confidence", "signed_gap")


@dataclass(frozen=True)
class Reference:
    """How reference labels are read for a model's heads. labels: "labels" of its dataset.json."""

    heads: Heads
    labels: dict = field(repr=False)

    @classmethod
    def of(cls, model: ModelFolder) -> Reference:
        """Of a model folder."""
        return cls(model.heads, model.dataset["labels"])

    def truth(self, numbers: np.ndarray) -> np.ndarray:
        """What a fit compares with, of label numbers (N,): these for softmax; for regions (C, N) bool."""
        return region_truth(numbers, self.labels) if self.heads.sigmoid else numbers

    def decoded(self, numbers: np.ndarray) -> np.ndarray:
        """The segmentation (N,) that would be right: for regions drawn one over the other, as a prediction is."""
        return self.heads.label_of(self.truth(numbers).astype(np.float32)) if self.heads.sigmoid else numbers

    def new_fit(self) -> TemperatureFit | RegionTemperatureFit:
        """An accumulator of voxels for a temperature, or one a region."""
        return RegionTemperatureFit(self.heads.names) if self.heads.sigmoid else TemperatureFit()

    def new_metrics(self) -> CalibrationMetrics | RegionMetrics:
        """An accumulator of voxels for the figures."""
        return RegionMetrics(self.heads.names) if self.heads.sigmoid else CalibrationMetrics(self.heads.channels)


def fit_entries(
    cases: Sequence[RoiVoxels], members: dict, reference: Reference, roi_mm: float, bootstrap: int, progress: Progress
) -> list[CalibrationEntry]:
    """One entry for each way of pooling, of everything that was collected.

    members: as they stand in the record. roi_mm: the distance that the voxels were collected in. bootstrap: draws of cases.
    Raises CalibUncertaintyError where there is no voxel at all.
    """
    if not any(case.size for case in cases):
        raise CalibUncertaintyError("no structure was predicted or drawn in any case; there is nothing to calibrate on")
    fits, shared = {mode: reference.new_fit() for mode in MODES}, reference.new_fit()
    for index, voxels in enumerate(cases):
        for part in parts(voxels):
            pooled, of_members = voxels.pooled[:, part], voxels.members[..., part]
            truth = reference.truth(voxels.labels[part])
            mean = mean_probability(of_members, reference.heads)
            for mode in MODES:
                fits[mode].add(voxels.case.id, pooled_scores(mode, reference.heads, pooled, mean)[0], truth)
            shared.add(voxels.case.id, of_members, truth)
        progress.report(0.5 * (index + 1) / len(cases), "fitting temperatures")
    member = shared.fit(bootstrap=0)
    for message in member.warnings:
        progress.warn(f"{message}; the temperature says nothing about the others")
    fitted = {mode: fit.fit(bootstrap) for mode, fit in fits.items()}
    return [_entry(cases, mode, fitted[mode], member, members, reference, roi_mm, progress) for mode in MODES]


def _entry(
    cases: Sequence[RoiVoxels], mode: str, fitted: FittedTemperature | FittedRegionTemperatures,
    member: FittedTemperature | FittedRegionTemperatures, members: dict, reference: Reference, roi_mm: float, progress: Progress,
) -> CalibrationEntry:  # fmt: skip
    if fitted.status != "ok":
        shown = ", ".join(f"{value:g}" for value in np.atleast_1d(fitted.temperature))
        progress.warn(f"{mode}: the temperature ran to its limit ({shown}, {fitted.status}); look at the cases")
    before = AppliedCalibration(mode, heads=reference.heads)
    after = AppliedCalibration(mode, fitted.temperature, member.temperature, calibrated=True, heads=reference.heads)
    return CalibrationEntry(
        members=members,
        mode=mode,
        temperature=_plain(fitted.temperature),
        temperature_interval=_known(fitted.interval),
        temperature_status=fitted.status,
        member_temperature=_plain(member.temperature),
        roi={"distance_mm": roi_mm, "reference": "union"},
        cases=list(fitted.cases),
        figures={"before": figures(cases, before, reference), "after": figures(cases, after, reference)},
        thresholds=_thresholds(cases, after, reference),
    )


def _plain(temperature: float | Sequence[float]) -> float | list[float]:
    return float(temperature) if np.isscalar(temperature) else [float(value) for value in temperature]


def _known(interval: Sequence) -> list | None:
    """The interval, or None where there is none (one case only, no bootstrap); of regions one each, or None for all."""
    if np.isscalar(interval[0]):
        return [float(end) for end in interval] if all(map(math.isfinite, interval)) else None
    each = [_known(of_region) for of_region in interval]
    return each if any(each) else None


def figures(cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference) -> dict:
    """NLL, ECE, Brier score and more over the ROI voxels, as mean over cases and pooled over all voxels."""
    results, pooled, changed = [], reference.new_metrics(), 0
    for voxels in cases:
        metrics = reference.new_metrics()
        for part in parts(voxels):
            p, _, by_temperature = _calibrated(voxels, part, calibration)
            metrics.add(p, reference.truth(voxels.labels[part]))
            changed += by_temperature
        results.append(metrics.result())
        pooled.merge(metrics)
    whole = pooled.result()
    return {
        "per_case": mean_over_cases(results),
        "pooled": {key: value for key, value in whole.items() if key != "bins"},
        "cases": {voxels.case.id: {key: r[key] for key in _FIGURES} for voxels, r in zip(cases, results, strict=True)},
        "bins": whole["bins"],
        "changed_by_temperature": changed,
    }


def _thresholds(cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference) -> dict:
    """For every measure the threshold whose marked voxels overlap best with the errors, in the ROI a new patient has."""
    heads, n_members = reference.heads, len(cases[0].members)
    fits = {
        name: ThresholdFit(name, MEASURES[name].upper(heads.channels, n_members, heads.sigmoid))
        for name in measure_names(n_members)
    }
    for voxels in cases:
        for part in parts(voxels):
            near = voxels.near_prediction[part]
            p, label, _ = _calibrated(voxels, part, calibration)
            wrong = (label != reference.decoded(voxels.labels[part]))[near]
            mean, entropy = _of_members(voxels.members[..., part], calibration) if n_members > 1 else (None, None)
            for name, values in measure_values(p, heads, n_members, mean, entropy).items():
                fits[name].add(voxels.case.id, values[near], wrong)
    fitted = {name: fit.fit() for name, fit in fits.items()}
    return {name: threshold.to_json() for name, threshold in fitted.items() if threshold.status == "ok"}


def _calibrated(voxels: RoiVoxels, part: slice, calibration: AppliedCalibration) -> tuple[np.ndarray, np.ndarray, int]:
    mean = mean_probability(voxels.members[..., part], calibration.heads) if calibration.mode == "pool_prob" else None
    return calibration.probabilities(voxels.pooled[:, part], mean)


def _of_members(logits: np.ndarray, calibration: AppliedCalibration) -> tuple[np.ndarray, np.ndarray]:
    """The members' mean probability (C, N) and mean entropy (N,), at the temperature they share."""
    statistics = MemberStatistics(calibration.sigmoid)
    for of_member in logits:
        statistics.add(probabilities(of_member, calibration.member_temperature, calibration.sigmoid))
    return statistics.mean, statistics.expected_entropy


def parts(voxels: RoiVoxels) -> Iterator[slice]:
    """The voxels of a case in pieces that fit into memory, however many members and classes there are."""
    step = max(1, CHUNK_VALUES // max(1, voxels.members.shape[0] * voxels.members.shape[1]))
    return (slice(start, min(start + step, voxels.size)) for start in range(0, voxels.size, step))
