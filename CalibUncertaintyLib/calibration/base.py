"""The interfaces of every calibrator, and of what fits one."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Calibrator(Protocol):
    """A fitted map from logits to calibrated probabilities. Fitting is the work of an accumulator beside each calibrator.

    `preserves` says what a calibrator cannot change: "order" of the classes at each voxel, only the "argmax", of sigmoid
    heads each one's "decisions" (p > 0.5), or "none".
    """

    method: str
    preserves: Literal["order", "argmax", "decisions", "none"]

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities."""

    def to_json(self) -> dict:
        """The fitted parameters as plain JSON values."""

    @classmethod
    def from_json(cls, document: dict) -> "Calibrator":
        """The calibrator that `to_json` described."""


@runtime_checkable
class FittedCalibration(Protocol):
    """What a fit found. NLL is the mean over voxels in nats, NaN without a voxel; for sigmoid heads the mean over regions.

    `status` is "ok", or why the figures deserve a look: "empty_roi" (no voxel), "single_class" (one class only, nothing to
    tell apart), "separable" (every voxel can be told right: parameters at the limit of their range), "uninformative" (the
    logits say no more than the classes' frequencies). Parameters are finite in all of them.
    """

    status: str
    nll_before: float
    nll_after: float
    cases: tuple[str, ...]
    voxels: int
    warnings: tuple[str, ...]

    def calibrator(self) -> Calibrator:
        """The fitted calibrator."""


@runtime_checkable
class CalibratorFit(Protocol):
    """Accumulator of labelled voxels: `add` looks at each once, `fit` finds the calibrator with the least NLL over them."""

    def add(self, case_id: str, logits: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels of a case: logits (C, N); truth (N,) classes, or of sigmoid heads (C, N) bool. Cases may come in pieces."""

    def fit(self) -> FittedCalibration:
        """The calibrator of everything added, and how it did."""


@runtime_checkable
class SpatialCalibratorFit(Protocol):
    """As `CalibratorFit` for a method that looks at a voxel's neighbours: it is given whole volumes."""

    def add_volume(
        self, case_id: str, logits: np.ndarray, labels: np.ndarray, roi: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Add a case: logits (C, z, y, x), labels (z, y, x) or regions (C, z, y, x) bool, ROI bool, CT in HU."""

    def fit(self) -> FittedCalibration:
        """The calibrator of everything added, and how it did."""


@dataclass(frozen=True)
class Fitted:
    """A `FittedCalibration` of a method that keeps a sample of the voxels.

    `kept` of `voxels` voxels were kept, and are what the NLL was measured on, weighted to stand for all.
    """

    fitted: Calibrator
    status: str
    nll_before: float
    nll_after: float
    cases: tuple[str, ...]
    voxels: int
    kept: int
    warnings: tuple[str, ...] = ()

    def calibrator(self) -> Calibrator:
        """The fitted calibrator."""
        return self.fitted
