"""A linear map to logits, fitted by cross-entropy and pulled towards the map it starts from.

Two calibrators are of this kind: a convolution on the logits, whose inputs are each class's neighbourhood, and the last layer
of a network, whose inputs are the features of a voxel. Both are convex, so the optimum does not depend on the way to it. The
pull keeps it finite where every voxel is right, and near the start in directions of which the voxels say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..progress import Progress

CHUNK_VOXELS = 65536


@dataclass(frozen=True)
class LinearMap:
    """What `fit_linear` found: weights (C, K) float64; mean NLL at the start and at the end in nats, without the pull."""

    weights: np.ndarray
    nll_before: float
    nll_after: float
    passes: int


def nll_of_scores(scores: np.ndarray, truth: np.ndarray, sigmoid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of each voxel and its derivative in the scores.

    :param scores: (C, N) float32 or float64 logits.
    :param truth: softmax: (N,) classes in [0, C). sigmoid: (C, N) bool.
    :returns: (N,) nats (sigmoid: the mean over regions), and (C, N) derivatives, both in the scores' precision.
    Source: softmax and sigmoid cross-entropy (Guo et al. 2017, Eq. 5 and 6).
    """
    if sigmoid:
        signed = np.where(truth, -scores, scores)
        nll = np.maximum(signed, 0) + np.log1p(np.exp(-np.abs(signed)))
        slope = np.exp(signed - nll)  # sigmoid of signed: the probability of what is not true
        return nll.mean(axis=0), np.where(truth, -slope, slope) / len(scores)
    shifted = scores - scores.max(axis=0)
    columns = np.arange(scores.shape[1])
    of_truth = shifted[truth, columns]
    np.exp(shifted, out=shifted)
    total = shifted.sum(axis=0)
    shifted /= total
    shifted[truth, columns] -= 1
    return np.log(total) - of_truth, shifted


def nll_sum(scores: np.ndarray, truth: np.ndarray, sigmoid: bool) -> float:
    """Sum of `nll_of_scores` over all voxels, nats, a chunk of them at a time."""
    total = 0.0
    for start in range(0, scores.shape[1], CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        total += float(nll_of_scores(scores[:, part], truth[..., part], sigmoid)[0].sum(dtype=np.float64))
    return total


def fit_linear(
    inputs: np.ndarray, truth: np.ndarray, start: np.ndarray, sigmoid: bool, pull: float, weights: np.ndarray | None = None,
    progress: Progress | None = None, max_passes: int = 200,
) -> LinearMap:  # fmt: skip
    """The weights W that minimise mean NLL(W x) + pull / 2 * |W - start|^2.

    :param inputs: x, (K, N) float32 the same for all classes, or (C, K, N) each class its own; a bias is a row of ones.
    :param truth: softmax: (N,) classes; sigmoid: (C, N) bool.
    :param start: (C, K), where the search begins and where it is pulled to.
    :param pull: above 0.
    :param weights: (N,) of the voxels in the mean, all the same where None.
    :param progress: told of every pass over the voxels; may cancel.
    :returns: never a map with a higher value of what is minimised than the start has.
    :raises ValueError: when there is no voxel or the pull is not above 0.
    Source: Rousseau et al. 2021, section 2.2 (cross-entropy); pull and search (L-BFGS in whitened weights) are our definition.
    """
    from scipy.optimize import minimize

    if inputs.shape[-1] == 0 or not pull > 0:
        raise ValueError(f"{inputs.shape[-1]} voxels, pull {pull}: both must be above 0")
    progress = progress or Progress()
    mean = _Mean(inputs, truth, np.asarray(start, np.float64), sigmoid, weights)
    first_nll, _, confusion = mean.look(mean.start)
    # The curvature is about `confusion` times the inputs' second moments. Neighbouring logits are nearly equal, so in the
    # weights themselves it differs by orders of magnitude between directions, and the search would take thousands of passes.
    whitener = _whitener(mean.second_moments(), confusion, pull)
    best, passes = [first_nll, np.zeros_like(mean.start), first_nll], 0

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal passes
        change = np.einsum("cjk,ck->cj", whitener, flat.reshape(mean.start.shape))
        nll, slope, _ = mean.look(mean.start + change)
        total = nll + 0.5 * pull * float((change * change).sum())
        if total < best[0]:
            best[:] = total, change, nll
        passes += 1
        progress.report(min(passes / max_passes, 1.0), f"pass {passes} over the voxels, NLL {nll:.5f}")
        return total, np.einsum("cjk,cj->ck", whitener, slope + pull * change).ravel()

    minimize(
        value, np.zeros(mean.start.size), jac=True, method="L-BFGS-B",
        options={"maxiter": max_passes, "maxfun": max_passes, "ftol": 1e-9, "gtol": 1e-7},
    )  # fmt: skip
    return LinearMap(mean.start + best[1], first_nll, best[2], passes)


class _Mean:
    """Mean NLL over voxels, its slope in the weights, and how undecided the classes are, in chunks with float64 sums."""

    def __init__(self, inputs, truth, start: np.ndarray, sigmoid: bool, weights: np.ndarray | None) -> None:
        self.inputs, self.truth, self.start, self._sigmoid = inputs, truth, start, sigmoid
        self._weights = None if weights is None else np.asarray(weights, np.float64)
        self._total = float(inputs.shape[-1] if weights is None else self._weights.sum())

    def _parts(self):
        for begin in range(0, self.inputs.shape[-1], CHUNK_VOXELS):
            part = slice(begin, begin + CHUNK_VOXELS)
            yield self.inputs[..., part], self.truth[..., part], None if self._weights is None else self._weights[part]

    def look(self, weights: np.ndarray) -> tuple[float, np.ndarray, float]:
        """(mean NLL, slope (C, K), mean over voxels and classes of p (1 - p))."""
        single = weights.astype(np.float32)
        nll, slope, confusion = 0.0, np.zeros_like(weights), 0.0
        for inputs, truth, weight in self._parts():
            scores = single @ inputs if inputs.ndim == 2 else np.matmul(single[:, np.newaxis], inputs)[:, 0]
            each, residual = nll_of_scores(scores, truth, self._sigmoid)
            if weight is not None:
                each = each * weight
                residual = residual * weight.astype(np.float32)
            nll += float(each.sum(dtype=np.float64))
            size = np.abs(residual)
            confusion += float((size * np.maximum(1 - size, 0)).mean(axis=0).sum(dtype=np.float64))
            # same shapes as above, the voxels summed over
            slope += residual @ inputs.T if inputs.ndim == 2 else np.matmul(inputs, residual[..., np.newaxis])[..., 0]
        return nll / self._total, slope / self._total, confusion / self._total

    def second_moments(self) -> np.ndarray:
        """Mean of x x^T of each class, (C, K, K) float64."""
        moments = 0.0
        for inputs, _, weight in self._parts():
            weighted = inputs if weight is None else inputs * weight.astype(np.float32)
            moments = moments + np.matmul(weighted, np.swapaxes(inputs, -1, -2)).astype(np.float64)
        moments = moments / self._total
        return np.broadcast_to(moments, (len(self.start), *moments.shape[-2:]))


def _whitener(moments: np.ndarray, confusion: float, pull: float) -> np.ndarray:
    """(C, K, K) matrices that turn weights in which the curvature is about one in all directions into plain ones."""
    size = moments.shape[-1]
    curvature = max(confusion, 1e-4) * moments + pull * np.eye(size)
    lower = np.linalg.cholesky(curvature)
    return np.swapaxes(np.linalg.solve(lower, np.broadcast_to(np.eye(size), lower.shape)), -1, -2)
