"""Isotonic calibration: of every class a map of its probability that never falls, to the share of voxels, or of raters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Fitted
from .parameters import check_channels, check_method, numbers_of
from .sample import MOST_VALUES, SampledFit
from .softmax import probabilities

BINS = 65536  # of the probability, equally wide
CHUNK_VOXELS = 16384


@dataclass(frozen=True)
class IsotonicCalibration:
    """Linear between the knots of each class, flat outside; of softmax heads divided by the sum over classes.

    `knots` holds for each class the probabilities before, ascending, and those after, never falling, both in [0, 1]. Where every
    class's map gives 0 the probabilities stay as they were. Labels may change: of one class the order of voxels is kept (they may
    draw level), at one voxel that of the classes is not.

    :raises ValueError: when knots are not as said.
    Source: Zadrozny & Elkan 2002; to the raters' share: TwinTrack (arXiv 2604.15950).
    """

    knots: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    heads_sigmoid: bool = False
    method = "isotonic"
    preserves = "none"

    def __post_init__(self) -> None:
        if not self.knots:
            raise ValueError("no knots")
        for before, after in self.knots:
            x, y = np.array(before), np.array(after)
            if x.shape != y.shape or x.ndim != 1 or not x.size or not np.isfinite([x, y]).all():
                raise ValueError(f"knots of shapes {x.shape} and {y.shape}")
            if min(x[0], y[0]) < 0 or max(x[-1], y[-1]) > 1 or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
                raise ValueError("knots must rise within [0, 1]")

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities."""
        logits = np.asarray(logits)
        check_channels(logits, len(self.knots))
        flat = logits.reshape(len(logits), -1)
        result = np.empty(flat.shape, np.float32)
        knots = [(np.array(before), np.array(after)) for before, after in self.knots]
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            p = probabilities(flat[:, part], 1.0, self.heads_sigmoid)
            mapped = np.stack([np.interp(of_class, *ends) for of_class, ends in zip(p, knots, strict=True)])
            if not self.heads_sigmoid:
                total = mapped.sum(axis=0)
                mapped = np.where(total > 0, mapped / np.where(total > 0, total, 1.0), p)
            result[:, part] = mapped
        return result.reshape(logits.shape)

    def to_json(self) -> dict:
        """{"method": "isotonic", "heads": "softmax" or "sigmoid", "before": [C][...], "after": [C][...]}."""
        return {
            "method": self.method,
            "heads": "sigmoid" if self.heads_sigmoid else "softmax",
            "before": [list(before) for before, _ in self.knots],
            "after": [list(after) for _, after in self.knots],
        }

    @classmethod
    def from_json(cls, document: dict) -> IsotonicCalibration:
        """The calibrator that `to_json` described."""
        check_method(document, "isotonic")
        if document.get("heads") not in ("softmax", "sigmoid"):
            raise ValueError(f"'heads' must be softmax or sigmoid, got {document.get('heads')!r}")
        before, after = document.get("before"), document.get("after")
        if not isinstance(before, list) or not isinstance(after, list) or len(before) != len(after):
            raise ValueError("'before' and 'after' must list the knots of every class")
        knots = []
        for x, y in zip(before, after, strict=True):
            ends = numbers_of({"before": x}, "before", (None,)), numbers_of({"after": y}, "after", (None,))
            knots.append(tuple(tuple(end.tolist()) for end in ends))
        return cls(tuple(knots), document["heads"] == "sigmoid")


class IsotonicFit(SampledFit):
    """Accumulator for `IsotonicCalibration`: pools adjacent violators on a histogram of p, every bin at its mean p.

    The map comes from all voxels, the NLL figures from the sample. Truth of several raters (R, N): the response is the share of
    raters that give the class, and the NLL the mean over raters; one rater gives ordinary isotonic regression.
    """

    def __init__(self, n_classes: int, sigmoid: bool = False, most_values: int = MOST_VALUES, seed: int = 0) -> None:
        super().__init__(n_classes, sigmoid, most_values, seed)
        # of every bin: voxels, sum of p, sum of the response
        self._bins = np.zeros((n_classes, 3, BINS))

    def _look(self, logits: np.ndarray, fractions: np.ndarray) -> None:
        for of_class, p, fraction in zip(self._bins, probabilities(logits, 1.0, self.sigmoid), fractions, strict=True):
            bins = np.minimum((p * np.float32(BINS)).astype(np.int32), BINS - 1)
            of_class[0] += np.bincount(bins, minlength=BINS)
            of_class[1] += np.bincount(bins, p, minlength=BINS)
            of_class[2] += np.bincount(bins, fraction, minlength=BINS)

    def fit(self) -> Fitted:
        """The map of every class with the least squares (and the least NLL) among those that never fall."""
        kept, status = self._kept(), self._degenerate()
        left_alone = range(self.n_classes) if status else self._left_alone()
        knots, flat = [], []
        for number, (voxels, p_sum, response) in enumerate(self._bins):
            if number in left_alone:
                knots.append(((0.0, 1.0), (0.0, 1.0)))
                continue
            filled = voxels > 0
            weight = voxels[filled]
            x, y = np.clip(p_sum[filled] / weight, 0.0, 1.0), response[filled] / weight
            knots.append(corners(x, pooled(y, weight)))
            flat.append(len(set(knots[-1][1])) == 1)
        if not status:
            status = "uninformative" if all(flat) else self._if_separable(knots, left_alone)
        calibrator = IsotonicCalibration(tuple(knots), self.sigmoid)
        return self._result(calibrator, status, kept, self._warnings() if kept.weight.size else ())

    @staticmethod
    def _if_separable(knots: list, left_alone: list[int]) -> str:
        mapped = [set(after) for number, (_, after) in enumerate(knots) if number not in left_alone]
        return "separable" if all(values <= {0.0, 1.0} for values in mapped) else "ok"


def pooled(response: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The never falling values nearest to a response in weighted least squares: pool adjacent violators.

    :param response: (B,) in the order of p; weight: (B,) above 0.
    :returns: (B,) float64.
    Source: Ayer et al. 1955.
    """
    means, weights, sizes = [], [], []
    for mean, mass in zip(response.tolist(), weight.tolist(), strict=True):
        size = 1
        while means and means[-1] >= mean:
            before, mass_before = means.pop(), weights.pop()
            mean = (mean * mass + before * mass_before) / (mass + mass_before)
            mass += mass_before
            size += sizes.pop()
        means.append(mean)
        weights.append(mass)
        sizes.append(size)
    # a mean of ones may round to less or more
    return np.clip(np.repeat(means, sizes), float(np.min(response)), float(np.max(response)))


def corners(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of points of a never falling map those where a level begins or ends: the same map, fewer knots."""
    inner = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    needed = np.concatenate([[True], ~inner, [True]]) if x.size > 2 else np.ones(x.size, bool)
    x, y = x[needed], y[needed]
    rises = np.concatenate([[True], np.diff(x) > 0])
    return tuple(x[rises].tolist()), tuple(y[rises].tolist())
