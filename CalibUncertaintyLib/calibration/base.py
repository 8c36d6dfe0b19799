"""The one interface of every calibrator."""

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
