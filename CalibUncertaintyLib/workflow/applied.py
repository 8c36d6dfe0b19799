"""Which calibration a run applies, and why none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..calibration.base import Calibrator
from ..calibration.decisions import changed_by_region_temperatures, changed_labels, labels_outdone
from ..calibration.methods import METHODS, calibrator_from_json
from ..calibration.softmax import log_odds_of_probabilities, log_of_probabilities, probabilities, softmax
from ..errors import CalibUncertaintyError
from ..model.calibrated_range import CalibratedRange
from ..model.folder import Fold, ModelFolder
from ..model.heads import Heads, first_argmax
from ..model.member_set import MemberSet, folds_in_words
from ..model.record import CalibrationEntry, CalibrationRecord, find_calibration
from ..model.record_check import MEMBER_MODES, MODES, POOL_MODES, POOLING_IN_WORDS
from ..model.record_match import PRECISION, STEP_SIZE, computing
from ..uncertainty.combined_score import CaseScores
from ..uncertainty.context_law import ContextLaw

__all__ = ["MEMBER_MODES", "METHODS", "MODES", "POOL_MODES", "AppliedCalibration", "calibration_of", "choose_calibration"]


@dataclass(frozen=True)
class AppliedCalibration:
    """What turns the members' logits into the probabilities that are shown.

    - `mode` "pool_logit", "pool_prob": `temperature` is of the pooled probability, or `calibrator` is another method that takes
      its place; `member_temperature` is of each member, for the measures that compare them
    - `mode` "shared": `member_temperature` of every member, before their probabilities are averaged; "member":
      `member_temperatures`, one for each set of weights
    - `roi_mm`, `in_body`: where it was fitted, with its thresholds, laws and chances of regions
    - `heads` None means softmax, with one temperature; sigmoid heads have one for each region, or one for all
    """

    mode: str
    temperature: float | Sequence[float] = 1.0
    member_temperature: float | Sequence[float] = 1.0
    calibrated: bool = False
    reason: str = ""
    record: str | None = None
    interval: Sequence | None = None
    thresholds: dict = field(default_factory=dict)
    status: str = "ok"
    heads: Heads | None = None
    calibrator: Calibrator | None = None
    member_temperatures: Sequence | None = None
    range: CalibratedRange | None = None
    roi_mm: float = 15.0
    in_body: bool = False
    context: ContextLaw | None = None
    regions: dict = field(default_factory=dict)
    case_scores: CaseScores | None = None

    @property
    def sigmoid(self) -> bool:
        """Whether the heads are regions, each with a probability of its own."""
        return self.heads is not None and self.heads.sigmoid

    @property
    def method(self) -> str:
        """Name of the calibration method; "temperature" where nothing else is applied."""
        return "temperature" if self.calibrator is None else self.calibrator.method

    @property
    def before_averaging(self) -> bool:
        """Whether the members are calibrated one by one, before their probabilities are averaged."""
        return self.mode in MEMBER_MODES

    def temperatures_of_members(self) -> float | Sequence[float] | np.ndarray:
        """At which the members' probabilities are averaged: one number, one a region, or (sources, 1 or C) in mode "member"."""
        if self.mode == "member" and self.member_temperatures is not None:
            return np.array([np.atleast_1d(np.asarray(t, float)) for t in self.member_temperatures])
        return self.member_temperature

    def highest_temperature(self) -> float | np.ndarray:
        """The highest that the pool's probabilities may be softened by, for where to look; of another method than temperature a
        guess, 2."""
        if self.calibrator is not None:
            return 2.0
        return np.max(self.temperatures_of_members(), axis=0) if self.mode == "member" else self.temperature

    @property
    def halo(self) -> tuple[int, int, int] | None:
        """How many voxels around a window the calibrator looks at; None where it looks at each voxel by itself."""
        return tuple(self.calibrator.halo) if getattr(self.calibrator, "spatial", False) else None

    def probabilities(
        self, pooled: np.ndarray, mean_probability: np.ndarray | None = None, calibrated: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Calibrated probabilities (C, ...) float32, labels (...), and how many labels the calibration changed.

        pooled: (C, ...) mean logits of the members; mean_probability: (C, ...) mean of their probabilities, for `pool_prob` at
        temperature 1, for `shared` and `member` at the members' temperatures; None where a single member's logits are the pool.
        calibrated: (C, ...) what a calibrator with a `halo` made of the window and its surroundings.
        Labels are those that the pool has before it is calibrated, but for a method that does not preserve them, and for
        `shared` and `member`, whose labels are those of their mean; how these differ from the pool's is the pooling's doing.
        """
        if self.before_averaging:
            return self._averaged(pooled, mean_probability)
        scores, before = pooled_scores(self.mode, self.heads, pooled, mean_probability)
        if self.calibrator is not None:
            return self._by_another_method(scores, before, calibrated)
        calibrated = probabilities(scores, self.temperature, self.sigmoid)
        if self.sigmoid:
            return calibrated, self.heads.label_of_logits(before), changed_by_region_temperatures(before, calibrated)
        label = first_argmax(before)
        return calibrated, label, labels_outdone(label, calibrated)

    def _averaged(self, pooled: np.ndarray, mean: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
        if mean is None:  # a single member, which has one temperature
            alone = np.asarray(self.temperatures_of_members(), float)
            each = alone[0] if alone.ndim == 2 else alone
            mean = probabilities(pooled, each if self.sigmoid and each.size > 1 else float(each.flat[0]), self.sigmoid)
        mean = np.asarray(mean, np.float32)
        return mean, self.heads.label_of(mean) if self.sigmoid else first_argmax(mean), 0

    def _by_another_method(
        self, scores: np.ndarray, before: np.ndarray, calibrated: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        calibrated = self.calibrator.transform(scores) if calibrated is None else calibrated
        label = self.heads.label_of_logits(before) if self.sigmoid else first_argmax(before)
        if self.calibrator.preserves != "none":
            changed = changed_by_region_temperatures if self.sigmoid else None
            return calibrated, label, changed(before, calibrated) if changed else labels_outdone(label, calibrated)
        after = self.heads.label_of(calibrated) if self.sigmoid else first_argmax(calibrated)
        return calibrated, after, changed_labels(label, after)

    @property
    def roi_in_words(self) -> str:
        """Where thresholds, laws and chances of regions were fitted."""
        return "in the patient's body" if self.in_body else f"within {self.roi_mm:g} mm of the structures"

    def summary(self, members: MemberSet | Sequence[Fold]) -> str:
        """One line for people. members: the members in use, or the folds where they are no more than that."""
        if not self.calibrated:
            return f"NOT CALIBRATED: {self.reason}"
        limit = "" if self.status == "ok" else f", at its limit ({self.status})"
        named = members.describe() if isinstance(members, MemberSet) else folds_in_words(members)
        return f"Calibrated: {self._parameters_in_words()}{limit} ({named}, {POOLING_IN_WORDS[self.mode]})"

    def _parameters_in_words(self) -> str:
        if self.calibrator is not None:
            return METHODS[self.method].title
        if self.mode == "member":
            each = "; ".join(temperature_text(t) for t in self.member_temperatures)
            return f"temperatures of the members {each}"
        several = "" if np.isscalar(self.temperature) or len(self.temperature) == 1 else "s"
        return f"temperature{several} {temperature_text(self.temperature)}"

    def to_json(self, members: MemberSet | Sequence[Fold]) -> dict:
        """As it stands in result.json."""
        return {
            "calibrated": self.calibrated,
            "mode": self.mode,
            "method": self.method if self.calibrated else None,
            "temperature": None if self.calibrator or self.mode == "member" else _plain(self.temperature),
            "member_temperatures": _plain(self.member_temperatures) if self.member_temperatures else None,
            "preserves": None
            if self.before_averaging
            else "labels"
            if self.calibrator is None
            else self.calibrator.preserves,
            "temperature_interval": _plain(self.interval) if self.interval else None,
            "member_temperature": _plain(self.member_temperature),
            "record": self.record,
            "reason": self.reason,
            "roi": self.roi_in_words if self.calibrated else None,
            "summary": self.summary(members),
        }


def _plain(value: float | Sequence) -> float | list:
    return value if np.isscalar(value) else [_plain(part) for part in value]


def temperature_text(temperature: float | Sequence[float]) -> str:
    """As "1.43", or "1.43, 0.98" of several regions, in their order."""
    return ", ".join(f"{value:.2f}" for value in ([temperature] if np.isscalar(temperature) else temperature))


def pooled_scores(
    mode: str, heads: Heads | None, pooled: np.ndarray, mean_probability: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a temperature divides, (C, ...), and what decides on the label, (C, ...): its argmax, or for sigmoid heads z > 0.

    pool_logit: the mean logits, both times; labels are stock nnU-Net's. pool_prob: the logarithm of the mean of the members'
    softmax, and that mean; for sigmoid heads the log-odds of the mean, both times (Rahaman and Thiery 2021: pool, then
    calibrate). A single member (mean_probability None) is its own mean.
    """
    if mode == "pool_logit":
        return pooled, pooled
    if mode not in POOL_MODES:
        raise ValueError(
            f"members are calibrated before they are averaged in mode {mode}: there is no pool to calibrate"
        )
    if heads is not None and heads.sigmoid:
        scores = pooled if mean_probability is None else log_odds_of_probabilities(mean_probability)
        return scores, scores
    mean = softmax(pooled) if mean_probability is None else mean_probability
    return log_of_probabilities(mean), mean


def mean_probability(
    members: Sequence[np.ndarray],
    heads: Heads | None = None,
    temperatures: Sequence[float | Sequence[float]] | None = None,
) -> np.ndarray:
    """Mean of the members' probabilities, (C, ...) float32, of their logits, (M, C, ...) or M times (C, ...).

    temperatures: one for each member (a number, or one a region); None for 1.
    """
    sigmoid = heads is not None and heads.sigmoid
    each = [1.0] * len(members) if temperatures is None else list(temperatures)
    mean = probabilities(members[0], each[0], sigmoid)
    for logits, temperature in zip(members[1:], each[1:], strict=True):
        mean += probabilities(logits, temperature, sigmoid)
    mean /= len(members)
    return mean


def choose_calibration(
    model: ModelFolder, folds: list[Fold], mirroring: bool, mode: str, wanted: str | Path = "auto"
) -> AppliedCalibration:
    """`calibration_of` folds of one model; what the panel asks before a run."""
    return calibration_of(MemberSet.choose(model, folds, flips="mean" if mirroring else "off"), mode, wanted)


def calibration_of(
    members: MemberSet, mode: str, wanted: str | Path = "auto", heads: Heads | None = None, step_size: float = STEP_SIZE,
    precision: str = PRECISION,
) -> AppliedCalibration:  # fmt: skip
    """The calibration for these members: of the record beside their model (auto), none, or of a record file.

    step_size, precision: as the members are computed in this run. Beside several models the first record that fits is taken.
    A record beside the model that does not fit leaves the result uncalibrated, and `reason` says why. A record that was asked
    for by name and does not fit raises CalibUncertaintyError.
    """
    if str(wanted) == "none":
        return AppliedCalibration(mode, reason="calibration was switched off for this run", heads=heads)
    fingerprint, first = members.fingerprint() | computing(step_size, precision), members.models[0]
    if str(wanted) == "auto":
        path = first.record_path
        entry, reason = find_calibration(path, fingerprint, mode, members.mirroring)
        for other in members.models[1:] if entry is None else ():
            found, said = find_calibration(other.record_path, fingerprint, mode, members.mirroring)
            if found is not None:  # the same models were calibrated in another order
                path, entry, reason = other.record_path, found, said
                break
    else:
        path = Path(wanted)
        entry, reason = CalibrationRecord.read(path).find(fingerprint, mode, members.mirroring)
        if entry is None:
            raise CalibUncertaintyError(
                f"{path} does not fit {first.path}: {reason}; calibrate it, or --calibration none"
            )
    if entry is None:
        return AppliedCalibration(mode, reason=reason, heads=heads)
    return applied_entry(entry, mode, heads, fingerprint["checkpoints"], reason, str(path))


def applied_entry(
    entry: CalibrationEntry, mode: str, heads: Heads | None, checkpoints: Sequence[dict], reason: str = "",
    record: str | None = None,
) -> AppliedCalibration:  # fmt: skip
    """A stored entry as it is applied. checkpoints: of the run, in its order, each with its "sha256"."""
    of_members = entry.temperature if entry.member_temperature is None else entry.member_temperature
    each = None
    if entry.member_temperatures is not None:
        stored = zip(entry.members["checkpoints"], entry.member_temperatures, strict=True)
        by_weights = {(item["sha256"], str(item["fold"])): temperature for item, temperature in stored}
        each = tuple(_numbers(by_weights[item["sha256"], str(item["fold"])]) for item in checkpoints)
    return AppliedCalibration(
        mode=mode,
        temperature=1.0 if entry.temperature is None else _numbers(entry.temperature),
        member_temperature=1.0 if of_members is None else _numbers(of_members),
        calibrated=True,
        reason=reason,
        record=record,
        interval=entry.temperature_interval,
        thresholds=dict(entry.thresholds),
        status=entry.temperature_status,
        heads=heads,
        calibrator=None if entry.method == "temperature" else calibrator_from_json(entry.parameters),
        member_temperatures=each,
        range=None if entry.range is None else CalibratedRange.from_json(entry.range),
        roi_mm=float(entry.roi["distance_mm"]),
        in_body=entry.roi["reference"] == "body",
        context=None if entry.context is None else ContextLaw.from_json(entry.context),
        regions=dict(entry.regions or {}),
        case_scores=None if entry.case_scores is None else CaseScores.from_json(entry.case_scores),
    )


def _numbers(temperature: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(temperature) if np.isscalar(temperature) else tuple(float(value) for value in temperature)
