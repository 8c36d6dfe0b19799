"""Which calibration a run applies, and why none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..calibration.decisions import changed_by_region_temperatures, labels_outdone
from ..calibration.softmax import log_odds_of_probabilities, log_of_probabilities, probabilities, softmax
from ..errors import CalibUncertaintyError
from ..model.folder import Fold, ModelFolder
from ..model.heads import Heads, first_argmax
from ..model.member_set import MemberSet, folds_in_words
from ..model.record import CalibrationRecord, find_calibration
from ..model.record_match import PRECISION, STEP_SIZE, computing

MODES = ("pool_logit", "pool_prob")


@dataclass(frozen=True)
class AppliedCalibration:
    """Temperatures in use. `temperature` is of the pooled probability that is shown, `member_temperature` of each member.

    `heads` None means softmax, with one temperature; sigmoid heads have one for each region, or one for all.
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

    @property
    def sigmoid(self) -> bool:
        """Whether the heads are regions, each with a probability of its own."""
        return self.heads is not None and self.heads.sigmoid

    def probabilities(
        self, pooled: np.ndarray, mean_probability: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Calibrated probabilities (C, ...) float32, labels (...), and how many labels the temperature changed.

        pooled: (C, ...) mean logits of the members; mean_probability: (C, ...) mean of their probabilities at temperature 1,
        which only `pool_prob` looks at; None where a single member's logits are the pool.
        """
        scores, before = pooled_scores(self.mode, self.heads, pooled, mean_probability)
        calibrated = probabilities(scores, self.temperature, self.sigmoid)
        if self.heads is not None and self.heads.sigmoid:
            return calibrated, self.heads.label_of_logits(before), changed_by_region_temperatures(before, calibrated)
        label = first_argmax(before)
        return calibrated, label, labels_outdone(label, calibrated)

    def summary(self, members: MemberSet | Sequence[Fold]) -> str:
        """One line for people. members: the members in use, or the folds where they are no more than that."""
        if not self.calibrated:
            return f"NOT CALIBRATED: {self.reason}"
        limit = "" if self.status == "ok" else f", at its limit ({self.status})"
        named = members.describe() if isinstance(members, MemberSet) else folds_in_words(members)
        several = "" if np.isscalar(self.temperature) or len(self.temperature) == 1 else "s"
        return f"Calibrated: temperature{several} {temperature_text(self.temperature)}{limit} ({named}, {self.mode})"

    def to_json(self, members: MemberSet | Sequence[Fold]) -> dict:
        """As it stands in result.json."""
        return {
            "calibrated": self.calibrated,
            "mode": self.mode,
            "method": "temperature" if self.calibrated else None,
            "temperature": _plain(self.temperature),
            "temperature_interval": _plain(self.interval) if self.interval else None,
            "member_temperature": _plain(self.member_temperature),
            "record": self.record,
            "reason": self.reason,
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
    if heads is not None and heads.sigmoid:
        scores = pooled if mean_probability is None else log_odds_of_probabilities(mean_probability)
        return scores, scores
    mean = softmax(pooled) if mean_probability is None else mean_probability
    return log_of_probabilities(mean), mean


def mean_probability(members: Sequence[np.ndarray], heads: Heads | None = None) -> np.ndarray:
    """Mean of the members' probabilities at temperature 1, (C, ...) float32, of their logits, (M, C, ...) or M times (C, ...)."""
    sigmoid = heads is not None and heads.sigmoid
    mean = probabilities(members[0], 1.0, sigmoid)
    for logits in members[1:]:
        mean += probabilities(logits, 1.0, sigmoid)
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
    of_members = entry.temperature if entry.member_temperature is None else entry.member_temperature
    return AppliedCalibration(
        mode, _numbers(entry.temperature), _numbers(of_members), True, reason, str(path),
        entry.temperature_interval, dict(entry.thresholds), entry.temperature_status, heads,
    )  # fmt: skip


def _numbers(temperature: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(temperature) if np.isscalar(temperature) else tuple(float(value) for value in temperature)
