"""Which calibration a run applies, and why none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..calibration.decisions import changed_by_temperature
from ..calibration.softmax import log_of_probabilities, softmax
from ..calibration.temperature import TemperatureScaling
from ..errors import CalibUncertaintyError
from ..model.folder import Fold, ModelFolder
from ..model.record import CalibrationRecord, find_calibration

MODES = ("pool_logit", "pool_prob")


@dataclass(frozen=True)
class AppliedCalibration:
    """Temperatures in use. `temperature` is of the pooled probability that is shown, `member_temperature` of each member."""

    mode: str
    temperature: float = 1.0
    member_temperature: float = 1.0
    calibrated: bool = False
    reason: str = ""
    record: str | None = None
    interval: Sequence[float] | None = None
    thresholds: dict = field(default_factory=dict)
    status: str = "ok"

    def probabilities(self, pooled: np.ndarray, members: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
        """Calibrated probabilities (C, ...) float32, labels (...), and how many labels the temperature changed."""
        scores, before = pooled_scores(self.mode, pooled, members)
        calibrated = TemperatureScaling(self.temperature).transform(scores)
        return calibrated, before.argmax(axis=0), changed_by_temperature(before, calibrated)

    def summary(self, folds: Sequence[Fold]) -> str:
        """One line for people."""
        if not self.calibrated:
            return f"NOT CALIBRATED: {self.reason}"
        named = ", ".join(str(fold) for fold in folds)
        limit = "" if self.status == "ok" else f", at its limit ({self.status})"
        members = f"fold{'s' if len(folds) > 1 else ''} {named}, {self.mode}"
        return f"Calibrated: temperature {self.temperature:.2f}{limit} ({members})"

    def to_json(self, folds: Sequence[Fold]) -> dict:
        """As it stands in result.json."""
        return {
            "calibrated": self.calibrated,
            "mode": self.mode,
            "method": "temperature" if self.calibrated else None,
            "temperature": self.temperature,
            "temperature_interval": list(self.interval) if self.interval else None,
            "member_temperature": self.member_temperature,
            "record": self.record,
            "reason": self.reason,
            "summary": self.summary(folds),
        }


def pooled_scores(mode: str, pooled: np.ndarray, members: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a temperature divides, (C, ...), and what the label is the argmax of, (C, ...).

    pool_logit: the mean logits, both times; labels are stock nnU-Net's. pool_prob: the logarithm of the mean of the members'
    softmax, and that mean (Rahaman and Thiery 2021: pool, then calibrate).
    """
    if mode == "pool_logit":
        return pooled, pooled
    mean = softmax(members[0])
    for logits in members[1:]:
        mean += softmax(logits)
    mean /= len(members)
    return log_of_probabilities(mean), mean


def choose_calibration(
    model: ModelFolder, folds: list[Fold], mirroring: bool, mode: str, wanted: str | Path = "auto"
) -> AppliedCalibration:
    """The calibration for these members: of the record beside the model (auto), none, or of a record file.

    A record beside the model that does not fit leaves the result uncalibrated, and `reason` says why. A record that was asked
    for by name and does not fit raises CalibUncertaintyError.
    """
    if str(wanted) == "none":
        return AppliedCalibration(mode, reason="calibration was switched off for this run")
    fingerprint = model.fingerprint(folds)
    if str(wanted) == "auto":
        path = model.record_path
        entry, reason = find_calibration(path, fingerprint, mode, mirroring)
    else:
        path = Path(wanted)
        entry, reason = CalibrationRecord.read(path).find(fingerprint, mode, mirroring)
        if entry is None:
            raise CalibUncertaintyError(
                f"{path} does not fit {model.path}: {reason}; calibrate it, or --calibration none"
            )
    if entry is None:
        return AppliedCalibration(mode, reason=reason)
    return AppliedCalibration(
        mode, float(entry.temperature), float(entry.member_temperature or entry.temperature), True, reason, str(path),
        entry.temperature_interval, dict(entry.thresholds), entry.temperature_status,
    )  # fmt: skip
