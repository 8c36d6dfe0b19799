"""Vector, matrix and Dirichlet scaling: softmax(W x + b) of logits x that were made free of their arbitrary offset.

A softmax does not see a constant added to all logits of a voxel, but W z + b does. Therefore x = z - mean(z) throughout: logits,
log-probabilities and logits with any offset give one and the same calibrator (translation invariance: Kirscher et al. 2026,
arXiv 2607.01902). In this form a matrix on logits and a Dirichlet map on log-probabilities are the same family. What is left
of the difference is the fit: "matrix" is free, "dirichlet" penalises the off-diagonal of W and b (ODIR).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .base import Fitted
from .parameters import check_channels, check_method, numbers_of
from .sample import CLIP, MOST_VALUES, Kept, SampledFit, finite_logits, true_fractions
from .softmax import softmax

LARGEST_WEIGHT = 20.0  # as 1 / the lowest temperature
FARTHEST_BIAS = 50.0  # 1e-22 of the odds: such a class is never or always chosen, and exp stays finite
ODIR = 1e-3  # weight of each penalty beside the mean NLL in nats
CHUNK_VOXELS = 16384


@dataclass(frozen=True)
class AffineScaling:
    """softmax(W x + b), x = z - mean(z). `weight` is (C,), the diagonal of W, for "vector", else (C, C) by rows.

    Labels may change.
    :raises ValueError: when the numbers are not finite, or do not fit together.
    Source: Guo et al. 2017 (vector, matrix); Kull et al. 2019 (Dirichlet); the mean taken out: see above.
    """

    method: str
    weight: tuple
    bias: tuple[float, ...]
    preserves = "none"

    def __post_init__(self) -> None:
        check_method({"method": self.method}, "vector", "matrix", "dirichlet")
        classes = len(self.bias)
        numbers_of({"bias": self.bias}, "bias", (None,))
        numbers_of({"weight": self.weight}, "weight", (classes,) if self.method == "vector" else (classes, classes))

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits or log-probabilities to (C, ...) float32 probabilities."""
        logits = np.asarray(logits)
        check_channels(logits, len(self.bias))
        flat = logits.reshape(len(logits), -1)
        result = np.empty(flat.shape, np.float32)
        weight, bias = np.array(self.weight), np.array(self.bias)[:, np.newaxis]
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            x = centred(finite_logits(flat[:, part], "to calibrate", False))
            result[:, part] = softmax((weight[:, np.newaxis] * x if weight.ndim == 1 else weight @ x) + bias)
        return result.reshape(logits.shape)

    def to_json(self) -> dict:
        """{"method": "vector", "matrix" or "dirichlet", "weight": [C] or [C][C], "bias": [C]}; it acts on z - mean(z)."""
        return {"method": self.method, "weight": np.array(self.weight).tolist(), "bias": list(self.bias)}

    @classmethod
    def from_json(cls, document: dict) -> AffineScaling:
        """The calibrator that `to_json` described."""
        method = check_method(document, "vector", "matrix", "dirichlet")
        bias = numbers_of(document, "bias", (None,))
        weight = numbers_of(document, "weight", bias.shape if method == "vector" else bias.shape * 2)
        return cls(method, _as_tuples(weight), _as_tuples(bias))


class AffineFit(SampledFit):
    """Accumulator for `AffineScaling` of softmax heads: the least mean NLL over a sample of the voxels (`VoxelSample`).

    Convex; L-BFGS-B in float64 from the identity, with |W| <= 20 and |b| <= 50. Rows of classes that no reference label has stay
    as they are: their likelihood only asks never to predict them.

    :param method: "vector" (2C numbers), "matrix" or "dirichlet" (C^2 + C).
    :param off_diagonal, bias: of "dirichlet", weights of the mean squared off-diagonal of W and of the mean squared b beside
        the mean NLL. Kull et al. choose them by cross-validation; 1e-3 is our choice.
    :raises ValueError: for sigmoid heads, whose channels have no offset in common: Platt scaling is their vector scaling.
    """

    def __init__(
        self, n_classes: int, sigmoid: bool = False, method: str = "vector", off_diagonal: float = ODIR, bias: float = ODIR,
        most_values: int = MOST_VALUES, seed: int = 0,
    ) -> None:  # fmt: skip
        check_method({"method": method}, "vector", "matrix", "dirichlet")
        if sigmoid:
            raise ValueError(f"{method} scaling is for softmax heads; use platt for sigmoid heads")
        super().__init__(n_classes, False, most_values, seed)
        self.method = method
        self._penalties = (off_diagonal, bias) if method == "dirichlet" else (0.0, 0.0)

    def fit(self) -> Fitted:
        """The weights with the least mean NLL (plus penalties) over the sample."""
        kept, status = self._kept(), self._degenerate()
        identity = np.ones(self.n_classes) if self.method == "vector" else np.eye(self.n_classes)
        if status:
            calibrator = AffineScaling(self.method, _as_tuples(identity), (0.0,) * self.n_classes)
            return self._result(calibrator, status, kept, self._warnings() if kept.weight.size else ())
        weight, bias = _least_nll(kept, identity, self._left_alone(), *self._penalties)
        calibrator = AffineScaling(self.method, _as_tuples(weight), _as_tuples(bias))
        result = self._result(calibrator, "ok", kept, self._warnings())
        return self._result(calibrator, self._status(weight, result.nll_after), kept, result.warnings)

    def _status(self, weight: np.ndarray, nll_after: float) -> str:
        if np.abs(weight).max() >= LARGEST_WEIGHT or nll_after <= 2 * CLIP:
            return "separable"
        share = self._counts[self._counts > 0] / self._counts.sum()
        by_frequency = -float((share * np.log(share)).sum())
        return "uninformative" if nll_after >= by_frequency * (1 - 1e-6) else "ok"


def centred(logits: np.ndarray) -> np.ndarray:
    """z - mean(z) of (C, n), float64."""
    wide = logits.astype(np.float64)
    return wide - wide.mean(axis=0)


def _as_tuples(values: np.ndarray) -> tuple:
    return tuple(map(tuple, values.tolist())) if values.ndim == 2 else tuple(values.tolist())


def _least_nll(
    kept: Kept, identity: np.ndarray, left_alone: list[int], off_diagonal: float, bias_penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) of the least mean NLL plus penalties; weight in the shape of `identity`."""
    from scipy.optimize import minimize

    classes = len(identity)
    x = centred(kept.logits)
    truth = true_fractions(kept.truth, classes)
    share = kept.weight / kept.weight.sum()
    # Weights are solved for in units that make the logits' spread 1, as the biases' are: the problem is then well shaped.
    scale = max(math.sqrt(float((x * x).mean(axis=0) @ share)), 1e-6)
    objective = _Objective(x / scale, truth, share, identity, scale, off_diagonal, bias_penalty)
    start = np.concatenate([(identity * scale).reshape(-1), np.zeros(classes)])
    limits = np.concatenate([np.full(identity.size, LARGEST_WEIGHT * scale), np.full(classes, FARTHEST_BIAS)])
    bounds = list(zip(-limits, limits, strict=True))
    rows = np.arange(identity.size).reshape(classes, -1)
    for number in left_alone:
        for place in (*rows[number].tolist(), identity.size + number):
            bounds[place] = (start[place], start[place])
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    weight, bias = found[: identity.size].reshape(identity.shape) / scale, found[identity.size :]
    weight = np.clip(weight, -LARGEST_WEIGHT, LARGEST_WEIGHT)
    if left_alone:
        return weight, bias
    return (weight, bias - bias.mean()) if weight.ndim == 1 else (_gauged(weight, off_diagonal > 0), bias - bias.mean())


def _gauged(weight: np.ndarray, penalised: bool) -> np.ndarray:
    """Of all W that give the same probabilities, the one nearest to the identity: x has mean 0, so rows may gain any constant;
    and so may columns, which the softmax does not see. A penalty has chosen by itself."""
    if penalised:
        return weight
    excess = weight - np.eye(len(weight))
    rows, columns = excess.mean(axis=1, keepdims=True), excess.mean(axis=0)
    return weight - rows - columns + excess.mean()


class _Objective:
    """Mean NLL plus penalties, and its gradient, at weights and biases laid end to end."""

    def __init__(
        self, x: np.ndarray, truth: np.ndarray, share: np.ndarray, identity: np.ndarray, scale: float, off_diagonal: float,
        bias_penalty: float,
    ) -> None:  # fmt: skip
        self._x, self._truth, self._share = x, truth, share
        self._identity, self._scale = identity, scale
        self._off_diagonal, self._bias_penalty = off_diagonal, bias_penalty

    def __call__(self, place: np.ndarray) -> tuple[float, np.ndarray]:
        size, classes = self._identity.size, len(self._identity)
        weight, bias = place[:size].reshape(self._identity.shape), place[size:]
        value, of_weight, of_bias = 0.0, np.zeros_like(weight), np.zeros(classes)
        for start in range(0, self._share.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            x, truth, share = self._x[:, part], self._truth[:, part], self._share[part]
            score = (weight[:, np.newaxis] * x if weight.ndim == 1 else weight @ x) + bias[:, np.newaxis]
            score -= score.max(axis=0)
            e = np.exp(score)
            total = e.sum(axis=0)
            value += float(share @ (np.log(total) - (truth * score).sum(axis=0)))
            e /= total
            e -= truth
            e *= share
            of_weight += (e * x).sum(axis=1) if weight.ndim == 1 else e @ x.T
            of_bias += e.sum(axis=1)
        if weight.ndim == 2 and self._off_diagonal > 0:
            off = np.where(self._identity > 0, 0.0, weight) / self._scale
            count = classes * (classes - 1)
            value += self._off_diagonal * float((off * off).sum()) / count
            of_weight += 2 * self._off_diagonal * off / self._scale / count
        value += self._bias_penalty * float((bias * bias).mean())
        of_bias += 2 * self._bias_penalty * bias / classes
        return value, np.concatenate([of_weight.reshape(-1), of_bias])
