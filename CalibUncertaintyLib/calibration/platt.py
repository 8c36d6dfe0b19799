"""Platt scaling: sigmoid(a s + b) of each class's log-odds s, two numbers a class.

The fit keeps, for each class, a histogram of the log-odds with the count and the sum of s in every bin, and the exact sums of
the labels' terms: NLL = sum of ln(1 + exp(a s + b)) - a sum(y s) - b sum(y). Only the first sum needs the histogram, and there
every bin stands at its own mean: with 65536 bins that differs from all voxels by less than 1e-8 of the NLL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Fitted
from .parameters import check_channels, check_method, numbers_of
from .sample import MOST_VALUES, SampledFit
from .softmax import SMALLEST_LOG_PROBABILITY, sigmoid, softmax

LOWEST_SLOPE, HIGHEST_SLOPE = 0.05, 20.0  # as the temperature's range
FARTHEST_INTERCEPT = 50.0
BINS = 65536
_MIDDLE = 8.0  # bins are as fine as 2.4e-4 at log-odds 0, and twice as coarse at 3.3
CHUNK_VOXELS = 16384

PLATT, SLOPE_ONLY = "platt", "platt_slope"


@dataclass(frozen=True)
class PlattScaling:
    """sigmoid(a_c s_c + b_c) with a_c > 0. Sigmoid heads: s_c is the region's logit. Softmax heads: s_c is the log-odds of
    class c against the rest, and the results are divided by their sum.

    Without intercepts no region's decision changes (p > 0.5 where s > 0); of softmax heads labels may change all the same.

    :raises ValueError: when a slope is not above 0, a number is not finite, or there are not as many intercepts as slopes.
    Source: Platt 1999; one against the rest and renormalised: Zadrozny & Elkan 2002.
    """

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    heads_sigmoid: bool = True
    method: str = PLATT

    def __post_init__(self) -> None:
        if self.method == SLOPE_ONLY and any(self.intercepts):
            raise ValueError(f"{SLOPE_ONLY} has no intercepts, got {self.intercepts}")
        if len(self.slopes) != len(self.intercepts) or not self.slopes:
            raise ValueError(f"{len(self.slopes)} slopes and {len(self.intercepts)} intercepts")
        if not np.isfinite([*self.slopes, *self.intercepts]).all() or min(self.slopes) <= 0:
            raise ValueError(
                f"slopes must be finite numbers above 0, intercepts finite, got {self.slopes}, {self.intercepts}"
            )

    @property
    def preserves(self) -> str:
        """ "decisions" of sigmoid heads without intercepts, else "none"."""
        return "decisions" if self.heads_sigmoid and not any(self.intercepts) else "none"

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities."""
        logits = np.asarray(logits)
        check_channels(logits, len(self.slopes))
        flat = logits.reshape(len(logits), -1)
        result = np.empty(flat.shape, np.float32)
        slopes, intercepts = (np.array(v, np.float32)[:, np.newaxis] for v in (self.slopes, self.intercepts))
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            chunk = flat[:, part].astype(np.float32)
            if self.heads_sigmoid:
                result[:, part] = sigmoid(chunk * slopes + intercepts)
                continue
            score = log_odds_of_classes(chunk) * slopes + intercepts
            # ln sigmoid, whose softmax is the sigmoids divided by their sum, also where all of them are tiny
            result[:, part] = softmax(np.minimum(score, 0) - np.log1p(np.exp(-np.abs(score))))
        return result.reshape(logits.shape)

    def to_json(self) -> dict:
        """{"method": "platt" or "platt_slope", "heads": "softmax" or "sigmoid", "slopes": [C], "intercepts": [C]}."""
        heads = "sigmoid" if self.heads_sigmoid else "softmax"
        return {"method": self.method, "heads": heads, "slopes": list(self.slopes), "intercepts": list(self.intercepts)}

    @classmethod
    def from_json(cls, document: dict) -> PlattScaling:
        """The calibrator that `to_json` described."""
        method = check_method(document, PLATT, SLOPE_ONLY)
        if document.get("heads") not in ("softmax", "sigmoid"):
            raise ValueError(f"'heads' must be softmax or sigmoid, got {document.get('heads')!r}")
        slopes = numbers_of(document, "slopes", (None,))
        intercepts = numbers_of(document, "intercepts", slopes.shape)
        return cls(tuple(slopes.tolist()), tuple(intercepts.tolist()), document["heads"] == "sigmoid", method)


class PlattFit(SampledFit):
    """Accumulator for `PlattScaling`. The slopes and intercepts come from all voxels, the NLL figures from the sample.

    :param intercept: False leaves b = 0 everywhere.
    """

    def __init__(
        self,
        n_classes: int,
        sigmoid: bool = False,
        intercept: bool = True,
        most_values: int = MOST_VALUES,
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, sigmoid, most_values, seed)
        self.intercept = intercept
        self._voxels_of_bin, self._sum_of_bin = np.zeros((n_classes, BINS)), np.zeros((n_classes, BINS))
        self._true, self._true_score = np.zeros(n_classes), np.zeros(n_classes)
        # the highest log-odds where any rater says no, the lowest where any says yes
        self._highest_no, self._lowest_yes = np.full(n_classes, -np.inf), np.full(n_classes, np.inf)

    def _look(self, logits: np.ndarray, fractions: np.ndarray) -> None:
        scores = logits if self.sigmoid else log_odds_of_classes(logits)
        for number, (score, fraction) in enumerate(zip(scores, fractions, strict=True)):
            place = score / (np.abs(score) + np.float32(_MIDDLE))
            bins = np.clip((place * (BINS / 2)).astype(np.int32) + BINS // 2, 0, BINS - 1)
            self._voxels_of_bin[number] += np.bincount(bins, minlength=BINS)
            self._sum_of_bin[number] += np.bincount(bins, score, minlength=BINS)
            self._highest_no[number] = score.max(where=fraction < 1, initial=self._highest_no[number])
            self._lowest_yes[number] = score.min(where=fraction > 0, initial=self._lowest_yes[number])
            self._true[number] += fraction.sum(dtype=np.float64)
            self._true_score[number] += float((fraction * score).sum(dtype=np.float64))

    def fit(self) -> Fitted:
        """Slopes in [0.05, 20] and intercepts in [-50, 50] with the least binary NLL of each class."""
        kept, status = self._kept(), self._degenerate()
        slopes, intercepts, found = np.ones(self.n_classes), np.zeros(self.n_classes), []
        for number in range(self.n_classes) if not status else ():
            if number in self._left_alone():
                continue
            slopes[number], intercepts[number] = self._least(number)
            at_end = {LOWEST_SLOPE: "uninformative", HIGHEST_SLOPE: "separable"}
            found.append(at_end.get(slopes[number], "ok"))
        status = status or next((one for one in found if one != "ok"), "ok")
        method = PLATT if self.intercept else SLOPE_ONLY
        calibrator = PlattScaling(tuple(slopes.tolist()), tuple(intercepts.tolist()), self.sigmoid, method)
        return self._result(calibrator, status, kept, self._warnings() if kept.weight.size else ())

    def _least(self, number: int) -> tuple[float, float]:
        no, yes = self._highest_no[number], self._lowest_yes[number]
        if no < yes and (self.intercept or no < 0 < yes):  # told apart: the NLL falls for ever as the slope grows
            middle = -HIGHEST_SLOPE * (no + yes) / 2 if self.intercept else 0.0
            return HIGHEST_SLOPE, float(np.clip(middle, -FARTHEST_INTERCEPT, FARTHEST_INTERCEPT))
        filled = self._voxels_of_bin[number] > 0
        weight = self._voxels_of_bin[number][filled]
        score = self._sum_of_bin[number][filled] / weight
        return least_binary_nll(score, weight, self._true_score[number], self._true[number], self.intercept)


def log_odds_of_classes(logits: np.ndarray) -> np.ndarray:
    """ln p_c / (1 - p_c) of every class under softmax, (C, n) float32, of finite logits (C, n); within [-103.3, 103.3].

    The highest class's rest is summed by itself: 1 - p would lose it.
    """
    relative = logits - logits.max(axis=0)
    relative = np.maximum(relative, np.float32(SMALLEST_LOG_PROBABILITY))
    e = np.exp(relative)
    highest, columns = relative.argmax(axis=0), np.arange(relative.shape[1])
    e[highest, columns] = 0.0
    rest = e.sum(axis=0)
    others = (np.float32(1.0) + rest) - e
    others[highest, columns] = np.maximum(rest, np.finfo(np.float32).smallest_subnormal)
    return np.clip(relative - np.log(others), SMALLEST_LOG_PROBABILITY, -SMALLEST_LOG_PROBABILITY)


def least_binary_nll(
    score: np.ndarray, weight: np.ndarray, true_score: float, true: float, intercept: bool = True
) -> tuple[float, float]:
    """(a, b) of the least sum of weight ln(1 + exp(a s + b)) - a true_score - b true, within the limits; Newton, convex.

    :param score: (B,) s; weight (B,) voxels at each.
    :param true_score: sum of y s over voxels; true: sum of y.
    """
    lower = np.array([LOWEST_SLOPE, -FARTHEST_INTERCEPT if intercept else 0.0])
    upper = np.array([HIGHEST_SLOPE, FARTHEST_INTERCEPT if intercept else 0.0])
    at = np.array([1.0, 0.0])
    known = np.array([true_score, true])

    def height(place: np.ndarray) -> float:
        return float(weight @ np.logaddexp(0.0, place[0] * score + place[1]) - place @ known)

    value = height(at)
    for _ in range(100):
        p = np.exp(-np.logaddexp(0.0, -(at[0] * score + at[1])))
        q = weight * p * np.exp(-np.logaddexp(0.0, at[0] * score + at[1]))
        slope = np.array([(weight * p) @ score, (weight * p).sum()]) - known
        curvature = np.array([[q @ score**2, q @ score], [q @ score, q.sum()]])
        free = ~(((at <= lower) & (slope >= 0)) | ((at >= upper) & (slope <= 0)))
        if not free.any():
            break
        step = np.zeros(2)
        inner = curvature[np.ix_(free, free)]
        ridge = 1e-12 * max(float(np.trace(inner)), 1e-300)
        step[free] = -np.linalg.solve(inner + ridge * np.eye(free.sum()), slope[free])
        share, moved = 1.0, at
        while share > 1e-10:
            moved = np.clip(at + share * step, lower, upper)
            if height(moved) <= value + 1e-4 * float(slope @ (moved - at)):
                break
            share /= 2
        done = share <= 1e-10 or np.abs(moved - at).max() < 1e-12 * (1 + np.abs(at).max())
        if share > 1e-10:
            at, value = moved, height(moved)
        if done:
            break
    return float(at[0]), float(at[1])
