"""Ways to calibrate the same voxels, each a mode of pooling and a method: fitted side by side, in one pass where possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..calibration.methods import METHODS, method_of
from ..calibration.regions import RegionTemperatureFit
from ..calibration.temperature import TemperatureFit
from ..errors import CalibUncertaintyError
from ..model.folder import ModelFolder
from ..model.heads import Heads, region_truth
from ..model.record_check import MEMBER_MODES, POOL_MODES
from .applied import AppliedCalibration, mean_probability, pooled_scores
from .labelled import RoiVoxels

CHUNK_VALUES = 8_000_000  # logits of one part, over members and classes: mean and statistics take some times that


@dataclass(frozen=True)
class Reference:
    """How reference labels are read for a model's heads. labels: "labels" of its dataset.json."""

    heads: Heads
    labels: dict = field(repr=False)

    @classmethod
    def of(cls, model: ModelFolder) -> Reference:
        """Of a model folder."""
        return cls(model.heads, model.dataset["labels"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's channels, for softmax with the background first."""
        return self.heads.names if self.heads.sigmoid else ("background", *self.heads.names)

    def truth(self, numbers: np.ndarray) -> np.ndarray:
        """What a fit compares with, of label numbers (N,): these for softmax; for regions (C, N) bool."""
        return region_truth(numbers, self.labels) if self.heads.sigmoid else numbers

    def decoded(self, numbers: np.ndarray) -> np.ndarray:
        """The segmentation (N,) that would be right: for regions drawn one over the other, as a prediction is."""
        return self.heads.label_of(self.truth(numbers).astype(np.float32)) if self.heads.sigmoid else numbers

    def new_fit(self) -> TemperatureFit | RegionTemperatureFit:
        """An accumulator of voxels for a temperature, or one a region."""
        return RegionTemperatureFit(self.heads.names) if self.heads.sigmoid else TemperatureFit()


@dataclass(frozen=True)
class Candidate:
    """One way to calibrate: how the members are pooled, and by which method."""

    mode: str = "pool_logit"
    method: str = "temperature"

    def __post_init__(self) -> None:
        wanted = method_of(self.method)
        if self.method != "temperature" and self.mode not in POOL_MODES:
            raise CalibUncertaintyError(
                f"the method {self.method} calibrates the pool; choose --mode {' or '.join(POOL_MODES)} with it"
            )
        if wanted.spatial and self.mode != "pool_logit":
            raise CalibUncertaintyError(
                f"the method {self.method} looks at the neighbours of pooled logits; choose --mode pool_logit with it"
            )

    def __str__(self) -> str:
        return f"{self.method}, {self.mode}"


@dataclass(frozen=True)
class FittedCandidate:
    """A candidate with its parameters: as it is applied, and as it is written down."""

    candidate: Candidate
    applied: AppliedCalibration
    status: str
    interval: Sequence | None
    cases: tuple[str, ...]
    warnings: tuple[str, ...]
    parameters: dict | None = None


def fit_candidates(
    cases: Sequence[RoiVoxels], candidates: Sequence[Candidate], reference: Reference, bootstrap: int = 0
) -> dict[Candidate, FittedCandidate]:
    """Fit every candidate to the ROI voxels of these cases, which are looked at once.

    A temperature that the members share is fitted beside them, for the measures that compare members.
    bootstrap: draws of cases for the interval of a pooled temperature.
    """
    n_sources = max((max(sources_of(voxels)) for voxels in cases if voxels.size), default=0) + 1
    fits = {candidate: _fits_of(candidate, reference, n_sources) for candidate in candidates}
    shared = reference.new_fit()
    for voxels in cases:
        for part in parts(voxels):
            truth = reference.truth(voxels.labels[part])
            mean = mean_probability(voxels.members[..., part], reference.heads)
            for candidate, fit in fits.items():
                _add(candidate, fit, voxels, part, mean, truth, reference)
            shared.add(voxels.case.id, voxels.members[..., part], truth)
        for candidate, fit in fits.items():
            if METHODS[candidate.method].spatial and voxels.volume is not None:
                volume = voxels.volume
                labels = reference.truth(volume.labels)
                fit[0].add_volume(voxels.case.id, volume.logits, labels, volume.roi, volume.image)
    of_members = shared.fit(bootstrap=0)
    return {candidate: _fitted(candidate, fit, of_members, reference, bootstrap) for candidate, fit in fits.items()}


def _fits_of(candidate: Candidate, reference: Reference, n_sources: int) -> list:
    """Accumulators: one, or of mode `member` one for each set of weights."""
    if candidate.method != "temperature":
        return [method_of(candidate.method).new_fit(reference.heads.channels, reference.heads.sigmoid)]
    return [reference.new_fit() for _ in range(n_sources if candidate.mode == "member" else 1)]


def _add(candidate, fit: list, voxels: RoiVoxels, part: slice, mean: np.ndarray, truth, reference: Reference) -> None:
    name = voxels.case.id
    if METHODS[candidate.method].spatial:
        return
    if candidate.mode == "member":
        for source, of_member in zip(sources_of(voxels), voxels.members, strict=True):
            fit[source].add(name, of_member[..., part], truth)
    elif candidate.mode == "shared":
        fit[0].add(name, voxels.members[..., part], truth)
    else:
        fit[0].add(name, pooled_scores(candidate.mode, reference.heads, voxels.pooled[:, part], mean)[0], truth)


def _fitted(candidate: Candidate, fit: list, of_members, reference: Reference, bootstrap: int) -> FittedCandidate:
    heads = reference.heads
    if candidate.method != "temperature":
        found = fit[0].fit()
        calibrator = found.calibrator()
        if calibrator is None or found.status == "empty_roi":
            raise CalibUncertaintyError(f"{candidate}: there is no voxel to fit on; look at the cases")
        applied = AppliedCalibration(
            candidate.mode,
            member_temperature=of_members.temperature,
            calibrated=True,
            heads=heads,
            calibrator=calibrator,
        )
        status = found.status if found.status in ("ok", "separable", "uninformative", "single_class") else "ok"
        return FittedCandidate(
            candidate, applied, status, None, tuple(found.cases), tuple(found.warnings), calibrator.to_json()
        )
    found = [one.fit(bootstrap if candidate.mode != "member" else 0) for one in fit]
    status = next((one.status for one in found if one.status != "ok"), "ok")
    warnings = tuple(dict.fromkeys(warning for one in found for warning in one.warnings))
    named = dict.fromkeys(name for one in found for name in one.cases)
    applied = AppliedCalibration(
        candidate.mode,
        1.0 if candidate.mode == "member" else found[0].temperature,
        found[0].temperature if candidate.mode == "shared" else of_members.temperature,
        calibrated=True,
        heads=heads,
        member_temperatures=tuple(one.temperature for one in found) if candidate.mode == "member" else None,
    )
    interval = None if candidate.mode == "member" else found[0].interval
    return FittedCandidate(candidate, applied, status, interval, tuple(named), warnings)


def sources_of(voxels: RoiVoxels) -> Sequence[int]:
    """Which set of weights each member of a case has."""
    return range(len(voxels.members)) if voxels.sources is None else voxels.sources


def calibrated(voxels: RoiVoxels, part: slice, calibration: AppliedCalibration) -> tuple[np.ndarray, np.ndarray, int]:
    """Probabilities (C, N), labels (N,) and changed labels of a part of a case's voxels; see `AppliedCalibration.probabilities`."""
    mean, around = None, None
    if calibration.mode == "pool_prob":
        mean = mean_probability(voxels.members[..., part], calibration.heads)
    elif calibration.mode in MEMBER_MODES:
        mean = mean_probability(voxels.members[..., part], calibration.heads, member_temperatures(voxels, calibration))
    if calibration.halo is not None:
        around = _of_volume(voxels, calibration)[:, part]
    return calibration.probabilities(voxels.pooled[:, part], mean, around)


def member_temperatures(voxels: RoiVoxels, calibration: AppliedCalibration) -> list:
    """The temperature of each member of a case, a number or one a region."""
    if calibration.member_temperatures is None:
        return [calibration.member_temperature] * len(voxels.members)
    return [calibration.member_temperatures[source] for source in sources_of(voxels)]


_LAST: dict[str, object] = {}  # what a calibrator made of the last volume: parts of one case come one after the other


def _of_volume(voxels: RoiVoxels, calibration: AppliedCalibration) -> np.ndarray:
    """(C, N) probabilities of a case's ROI voxels by a calibrator that looks at neighbours."""
    if _LAST.get("voxels") is not voxels or _LAST.get("by") is not calibration.calibrator:
        volume = voxels.volume
        p = calibration.calibrator.transform(np.asarray(volume.logits), volume.image)
        _LAST.update(voxels=voxels, by=calibration.calibrator, p=p.reshape(len(p), -1)[:, volume.positions])
    return _LAST["p"]


def forget_volume() -> None:
    """Let go of the last case whose neighbourhoods were looked at: its arrays may be mapped to files that are to be removed."""
    _LAST.clear()


def parts(voxels: RoiVoxels) -> Iterator[slice]:
    """The voxels of a case in pieces that fit into memory, however many members and classes there are."""
    step = max(1, CHUNK_VALUES // max(1, voxels.members.shape[0] * voxels.members.shape[1]))
    return (slice(start, min(start + step, voxels.size)) for start in range(0, voxels.size, step))
