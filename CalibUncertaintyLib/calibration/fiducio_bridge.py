"""Class-conditional calibrators that keep the label, through the optional package fiducio (Kirscher et al. 2026, arXiv 2607.01902).

Nothing of fiducio is rewritten: it fits and it transforms; this file samples voxels for it, and turns its stored parameters into
plain JSON and back. fiducio (0.2 or later) needs torch 2.10 or later.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CalibUncertaintyError
from .base import Fitted
from .parameters import check_channels, check_method, numbers_of
from .sample import MOST_VALUES, Kept, SampledFit, finite_logits

# ours: fiducio's class, the identifier in its files, and what it keeps
METHODS = {
    "cc_order": ("OrderPreservingMatrixScaling", "order_preserving_matrix_scaling", "order"),
    "cc_argmax": ("ArgmaxPreservingMatrixScaling", "argmax_preserving_matrix_scaling", "argmax"),
}
CHUNK_VOXELS = 65536
# fiducio's start, nearly the identity: gaps of consecutive logits times 1, plus 1e-6, both through softplus
_RAW_ONE, _RAW_FLOOR = math.log(math.expm1(1.0)), math.log(math.expm1(1e-6))


@dataclass(frozen=True)
class ClassConditionalScaling:
    """One affine map of the gaps between log-probabilities for each top class, kept so that order or argmax stay.

    `raw_b` (C, C-1, C-1) and `raw_mu` (C, C-1) are fiducio's own parameters, before its softplus.

    :raises ValueError: when the numbers are not finite, or do not fit together.
    """

    method: str
    raw_b: tuple
    raw_mu: tuple

    def __post_init__(self) -> None:
        check_method({"method": self.method}, *METHODS)
        classes = len(self.raw_mu)
        if classes < 2:
            raise ValueError(f"needs at least two classes, got {classes}")
        numbers_of({"raw_mu": self.raw_mu}, "raw_mu", (classes, classes - 1))
        numbers_of({"raw_b": self.raw_b}, "raw_b", (classes, classes - 1, classes - 1))

    @property
    def preserves(self) -> str:
        """ "order" or "argmax"; in float32 a class may draw level with the one before it, not pass it."""
        return METHODS[self.method][2]

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities.

        :raises CalibUncertaintyError: when fiducio is not installed.
        """
        logits = np.asarray(logits)
        check_channels(logits, len(self.raw_mu))
        flat = logits.reshape(len(logits), -1)
        result = np.empty(flat.shape, np.float32)
        calibrator = self._of_fiducio()
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            chunk = finite_logits(flat[:, part], "to calibrate", False)
            result[:, part] = calibrator.transform(np.ascontiguousarray(chunk.T)).numpy().T
        return result.reshape(logits.shape)

    def to_json(self) -> dict:
        """{"method": "cc_order" or "cc_argmax", "raw_b": [C][C-1][C-1], "raw_mu": [C][C-1]}."""
        return {"method": self.method, "raw_b": np.array(self.raw_b).tolist(), "raw_mu": np.array(self.raw_mu).tolist()}

    @classmethod
    def from_json(cls, document: dict) -> ClassConditionalScaling:
        """The calibrator that `to_json` described; fiducio is not needed for it."""
        method = check_method(document, *METHODS)
        raw_mu = numbers_of(document, "raw_mu", (None, None))
        raw_b = numbers_of(document, "raw_b", (*raw_mu.shape, raw_mu.shape[1]))
        return cls(method, _nested(raw_b), _nested(raw_mu))

    def _of_fiducio(self) -> Any:
        """fiducio's calibrator with these parameters, by way of a file as its own `save` writes."""
        fiducio = import_fiducio()
        import torch

        calibrator = getattr(fiducio, METHODS[self.method][0])(input_type="logits", device="cpu")
        state = {name: torch.tensor(getattr(self, name), dtype=torch.float32) for name in ("raw_b", "raw_mu")}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "calibrator.pt")
            calibrator.save(path)
            payload = torch.load(path, map_location="cpu", weights_only=True)
            payload.update(num_classes=len(self.raw_mu), fitted=True, state=state)
            torch.save(payload, path)
            return fiducio.load_calibrator(path)


class ClassConditionalFit(SampledFit):
    """Accumulator for `ClassConditionalScaling` of softmax heads, fitted by fiducio on a simple random sample of the voxels.

    fiducio knows no weights: of the sample (`VoxelSample`) so much is left out that every voxel had the same chance.

    :param method: "cc_order" or "cc_argmax".
    :param off_diagonal, bias: fiducio's `lambda_reg` and `mu_reg`. Its default is 0; we penalise lightly, as top classes with few
        voxels would otherwise have nothing to hold their map.
    :raises ValueError: for sigmoid heads.
    """

    def __init__(
        self, n_classes: int, sigmoid: bool = False, method: str = "cc_order", off_diagonal: float = 1e-3, bias: float = 1e-3,
        most_values: int = MOST_VALUES, seed: int = 0,
    ) -> None:  # fmt: skip
        check_method({"method": method}, *METHODS)
        if sigmoid:
            raise ValueError(f"{method} is for softmax heads")
        super().__init__(n_classes, False, most_values, seed)
        self.method, self._penalties = method, {"lambda_reg": off_diagonal, "mu_reg": bias}

    def fit(self) -> Fitted:
        """fiducio's optimum by L-BFGS.

        :raises CalibUncertaintyError: when fiducio is not installed, or there are several raters.
        """
        fiducio = import_fiducio()
        kept = self._kept()
        if len(kept.truth) != 1:
            raise CalibUncertaintyError(f"{self.method} is fitted to one label a voxel; give one rater's labels")
        start = self._start()
        status, warnings = self._degenerate(), self._warnings() if kept.weight.size else []
        if status:
            return self._result(start, status, kept, warnings)
        equal = self._sample.kept(equal_weights=True)
        fitting = getattr(fiducio, METHODS[self.method][0])(
            optimizer="lbfgs", max_iter=500, input_type="logits", device="cpu", **self._penalties
        )
        try:
            fitting.fit(np.ascontiguousarray(equal.logits.T), equal.truth[0].astype(np.int64))
        except ValueError as error:
            return self._result(start, "uninformative", kept, [*warnings, f"fiducio gave up: {error}"])
        state = self._state_of(fitting)
        calibrator = ClassConditionalScaling(self.method, _nested(state["raw_b"]), _nested(state["raw_mu"]))
        result = self._result(calibrator, "ok", kept, warnings)
        return self._result(calibrator, self._status(kept, result.nll_after), kept, warnings)

    def _start(self) -> ClassConditionalScaling:
        size = self.n_classes - 1
        raw_b = np.where(np.eye(size, dtype=bool), _RAW_ONE, _RAW_FLOOR)
        return ClassConditionalScaling(
            self.method,
            _nested(np.tile(raw_b, (self.n_classes, 1, 1))),
            _nested(np.full((self.n_classes, size), _RAW_FLOOR)),
        )

    def _status(self, kept: Kept, nll_after: float) -> str:
        top = kept.logits.argmax(axis=0)
        if (top == kept.truth[0]).all():
            return "separable"
        share = self._counts[self._counts > 0] / self._counts.sum()
        return "uninformative" if nll_after >= -float((share * np.log(share)).sum()) * (1 - 1e-6) else "ok"

    @staticmethod
    def _state_of(calibrator: Any) -> dict[str, np.ndarray]:
        """The fitted parameters, from the file that fiducio's own `save` writes."""
        import torch

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "calibrator.pt")
            calibrator.save(path)
            state = torch.load(path, map_location="cpu", weights_only=True)["state"]
        return {name: value.numpy().astype(np.float64) for name, value in state.items()}


def import_fiducio() -> Any:
    """The package.

    :raises CalibUncertaintyError: when it, or the torch it needs, is not installed.
    """
    try:
        import fiducio
    except ImportError as error:
        raise CalibUncertaintyError(
            f"class-conditional calibrators need the package fiducio ({error}); install it with: pip install fiducio"
        ) from None
    return fiducio


def _nested(values: np.ndarray) -> tuple:
    return tuple(_nested(part) for part in values) if values.ndim > 1 else tuple(values.tolist())
