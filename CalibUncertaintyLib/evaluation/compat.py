"""Calibration errors as other programs compute them, faults included, so that their published numbers can be compared.

None of these is our own figure: `metrics` holds those. Each name reproduces one program:

- "torchmetrics": 15 bins closed on the left, edges in the precision of the probabilities, and confidence of exactly 1 has a bin
  of its own beyond the last. Probabilities of which one lies outside [0, 1] are taken for logits
- "curvas24": the same with 50 bins (the CURVAS 2024 challenge calls torchmetrics once a rater and averages)
- "rousseau": 20 bins closed on the left, 1 in the last; frequency of the positives against the probability of the foreground,
  though the paper's text defines the accuracy of the predicted class. A maximum above 1.1 means logits to it
- "values": 20 bins closed on the left up to 1 + 1e-8; where every voxel is right it takes the accuracy for 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError

CHUNK_VOXELS = 65536


@dataclass(frozen=True)
class _Rule:
    bins: int
    extra_bin_at_one: bool = False
    edges_of_the_values: bool = False  # float32 edges for float32 probabilities
    last_edge: float = 1.0
    logits_above: float | None = None  # a largest value above this means logits; a negative value too where this is 1
    all_right_is_all_wrong: bool = False


RULES = {
    "torchmetrics": _Rule(15, extra_bin_at_one=True, edges_of_the_values=True, logits_above=1.0),
    "curvas24": _Rule(50, extra_bin_at_one=True, edges_of_the_values=True, logits_above=1.0),
    "rousseau": _Rule(20, logits_above=1.1),
    "values": _Rule(20, last_edge=1.0 + 1e-8, all_right_is_all_wrong=True),
}


class CompatErrors:
    """Accumulator of one binary calibration problem, by another program's rule.

    :param compat: a name of `RULES`.
    :param bins: None takes that program's number.
    :raises ValueError: when the name is none of them.
    """

    def __init__(self, compat: str, bins: int | None = None) -> None:
        if compat not in RULES:
            raise ValueError(f"compat {compat!r} is none of {', '.join(RULES)}")
        self.compat = compat
        self._rule = RULES[compat]
        self.bins = self._rule.bins if bins is None else bins
        size = self.bins + self._rule.extra_bin_at_one
        self._n, self._p, self._right = np.zeros(size, np.int64), np.zeros(size), np.zeros(size)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Add voxels.

        :param confidence: (N,) probabilities in [0, 1].
        :param right: (N,) booleans: the prediction is right, or the voxel positive.
        :raises CalibUncertaintyError: when a confidence is NaN or outside [0, 1].
        """
        confidence, right = np.asarray(confidence), np.asarray(right, dtype=bool)
        if confidence.shape != right.shape or confidence.ndim != 1:
            raise ValueError(f"expected (N,) confidences and (N,) booleans, got {confidence.shape} and {right.shape}")
        for start in range(0, right.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            values = confidence[part]
            if not (values.min() >= 0.0 and values.max() <= 1.0):
                raise CalibUncertaintyError("a confidence outside 0 to 1 was met; give probabilities")
            index = np.searchsorted(self._edges(values.dtype), values, side="right") - 1
            index = np.minimum(index, self._n.size - 1)
            self._n += np.bincount(index, minlength=self._n.size)
            self._p += np.bincount(index, weights=values, minlength=self._n.size)
            self._right += np.bincount(index, weights=right[part], minlength=self._n.size)

    def merge(self, other: CompatErrors) -> None:
        """Add all voxels that another accumulator of the same rule has seen."""
        if (other.compat, other.bins) != (self.compat, self.bins):
            raise ValueError("cannot merge figures of another rule or number of bins")
        self._n += other._n
        self._p += other._p
        self._right += other._right

    def result(self) -> dict:
        """`ece` (weighted), `ace` (bins with voxels weigh the same), `mce` (largest), all in [0, 1]; `l1` their sum; `n`, `compat`.

        Of no voxel: NaN and status "empty_roi".
        """
        described = {"compat": self.compat, "bin_count": self.bins, "n": int(self._n.sum())}
        used = self._n > 0
        if not used.any():
            return dict.fromkeys(("ece", "ace", "mce", "l1"), math.nan) | described | {"status": "empty_roi"}
        right = self._right
        if self._rule.all_right_is_all_wrong and right.sum() == described["n"]:
            right = np.zeros_like(right)
        gaps = np.abs(right[used] - self._p[used]) / self._n[used]
        return {
            "ece": float((gaps * self._n[used]).sum() / described["n"]),
            "ace": float(gaps.mean()),
            "mce": float(gaps.max()),
            "l1": float(gaps.sum()),
            **described,
            "status": "ok",
        }

    def _edges(self, dtype: np.dtype) -> np.ndarray:
        edges = np.linspace(0.0, self._rule.last_edge, self.bins + 1)
        if self._rule.edges_of_the_values:
            edges = _torch_linspace(self.bins, dtype)
        elif self._rule.last_edge == 1.0:
            edges = np.linspace(0.0, 1.0 - 1.0 / self.bins, self.bins)
        return edges


def _torch_linspace(bins: int, dtype: np.dtype) -> np.ndarray:
    """torch.linspace(0, 1, bins + 1) in its own precision: the lower half is counted up from 0, the upper down from 1.

    torch multiplies and adds with one rounding only; the wider type does the same here.
    """
    narrow = np.float64 if np.dtype(dtype) == np.float64 else np.float32
    wide = np.longdouble if narrow is np.float64 else np.float64
    steps = np.arange(bins + 1)
    step = wide(narrow(1.0) / narrow(bins))
    return np.where(steps < (bins + 1) // 2, steps * step, 1 - (bins - steps) * step).astype(narrow)


def compat_errors(p: np.ndarray, labels: np.ndarray, compat: str, bins: int | None = None) -> dict:
    """Top-label and class-wise errors of one case, by another program's rule.

    :param p: (C, N) probabilities of one case; what that program would take for logits is treated so.
    :param labels: (N,) integers in [0, C).
    :param compat: a name of `RULES`; bins None takes its number.
    :returns: `toplabel` and `classes` (a list of C), each as of `CompatErrors.result`; `ece_class` mean over the classes,
        `taken_for_logits`.
    """
    p, labels = np.asarray(p), np.asarray(labels)
    if p.ndim != 2 or labels.shape != p.shape[1:]:
        raise ValueError(f"expected (C, N) probabilities and (N,) labels, got {p.shape}, {labels.shape}")
    p, taken = _as_probabilities(p, compat)
    top = CompatErrors(compat, bins)
    top.add(p.max(axis=0), p.argmax(axis=0) == labels)
    classes = []
    for index, of_class in enumerate(p):
        errors = CompatErrors(compat, bins)
        errors.add(of_class, labels == index)
        classes.append(errors.result())
    return {
        "toplabel": top.result(),
        "classes": classes,
        "ece_class": float(np.mean([item["ece"] for item in classes])),
        "taken_for_logits": taken,
    }


def _as_probabilities(p: np.ndarray, compat: str) -> tuple[np.ndarray, bool]:
    """What the program makes of its input: softmax (Rousseau's: sigmoid) where it believes to see logits."""
    rule = RULES.get(compat)
    if rule is None:
        raise ValueError(f"compat {compat!r} is none of {', '.join(RULES)}")
    if p.size == 0 or rule.logits_above is None:
        return p, False
    logits = p.max() > rule.logits_above or (rule.logits_above == 1.0 and p.min() < 0.0)
    if not logits:
        return p, False
    if compat == "rousseau":
        return 1.0 / (1.0 + np.exp(-p)), True
    shifted = np.exp(p - p.max(axis=0))
    return shifted / shifted.sum(axis=0), True


def curvas_probabilities(foreground: np.ndarray, repair: bool = True) -> np.ndarray:
    """Background and foreground probabilities from those of the foreground classes alone.

    :param foreground: (C - 1, N); rounding may make their sum pass 1.
    :param repair: clip the background at 0 and divide by the sum, as the CURVAS 2025 code does. False leaves the tiny negative
        background of 2024, which makes torchmetrics take everything for logits.
    :returns: (C, N), background first.
    """
    foreground = np.asarray(foreground)
    p = np.concatenate([1.0 - foreground.sum(axis=0, keepdims=True), foreground])
    if repair:
        np.clip(p, 0.0, 1.0, out=p)
        p /= p.sum(axis=0)
    return p
