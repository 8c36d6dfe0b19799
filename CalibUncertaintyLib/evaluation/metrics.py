"""How well probabilities agree with what is true: proper scores and calibration error, streamed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import CalibUncertaintyError

# Probabilities below this (or above 1 less this) are clipped before the logarithm; the share of them is reported.
CLIP = 1e-7
CHUNK_VOXELS = 65536
SCALARS = (
    "nll", "nll_clipped_fraction", "brier_sum", "brier_mean", "ece_toplabel", "accuracy", "mean_confidence", "signed_gap",
)


class CalibrationMetrics:
    """Accumulator of scores over voxels with known labels. All sums are float64; memory does not grow with voxels.

    Results (`result`):
    - `nll`: -mean ln p_y, nats, [0, 16.1], p clipped to [1e-7, 1 - 1e-7]; `nll_clipped_fraction` says how often (Guo et al. 2017)
    - `brier_mean`: mean over voxels of sum_c (p_c - [c = y])^2 / C, [0, 2/C] (Mehrtash et al. 2020, Eq. 4);
      `brier_sum` is not divided by C, [0, 2]
    - `ece_toplabel`: sum over bins of n_b/n |accuracy_b - confidence_b|, [0, 1], with confidence max_c p_c, correct when the
      first argmax is the label (Guo et al. 2017, Eq. 3). Bins are equally wide and right-closed (l, u]; 0 falls into the first
    - `accuracy`, `mean_confidence`, `signed_gap` = mean confidence - accuracy (above 0: over-confident)
    - `n` voxels; `bins`: lower, upper, n, confidence, accuracy (None in an empty bin); `status`: "ok" or "empty_roi" (NaN)
    """

    def __init__(self, n_classes: int, bins: int = 20) -> None:
        if n_classes < 2 or bins < 1:
            raise ValueError(f"needs at least two classes and one bin, got {n_classes} and {bins}")
        self.n_classes = n_classes
        self._edges = np.linspace(0.0, 1.0, bins + 1)
        self._bin_n = np.zeros(bins, dtype=np.int64)
        self._bin_confidence = np.zeros(bins)
        self._bin_correct = np.zeros(bins)
        self._nll = self._brier = 0.0
        self._clipped = 0

    def add(self, p: np.ndarray, labels: np.ndarray) -> None:
        """Add voxels.

        :param p: (C, N) probabilities, each column sums to 1.
        :param labels: (N,) integers in [0, C), the true classes.
        :raises CalibUncertaintyError: when a label is no class, or probabilities are NaN.
        :raises ValueError: when the shapes do not fit.
        """
        p, labels = np.asarray(p), np.asarray(labels)
        if p.ndim != 2 or p.shape[0] != self.n_classes or labels.shape != p.shape[1:]:
            raise ValueError(f"expected ({self.n_classes}, N) probabilities and (N,) labels, got {p.shape}, {labels.shape}")
        if labels.size and (labels.min() < 0 or labels.max() >= self.n_classes):
            raise CalibUncertaintyError(
                f"a reference label outside 0 to {self.n_classes - 1} was met; give a reference with the model's own labels"
            )
        for start in range(0, labels.size, CHUNK_VOXELS):
            self._add_chunk(
                p[:, start : start + CHUNK_VOXELS].astype(np.float64), labels[start : start + CHUNK_VOXELS].astype(np.intp)
            )

    def merge(self, other: CalibrationMetrics) -> None:
        """Add all voxels that another accumulator of the same form has seen (pooling cases)."""
        if other.n_classes != self.n_classes or other._bin_n.size != self._bin_n.size:
            raise ValueError("cannot merge metrics of another number of classes or bins")
        self._bin_n += other._bin_n
        self._bin_confidence += other._bin_confidence
        self._bin_correct += other._bin_correct
        self._nll += other._nll
        self._brier += other._brier
        self._clipped += other._clipped

    def result(self) -> dict:
        """All figures of the voxels so far; see the class."""
        n = int(self._bin_n.sum())
        if n == 0:
            return dict.fromkeys(SCALARS, math.nan) | {"n": 0, "status": "empty_roi", "bins": self._bins()}
        accuracy = float(self._bin_correct.sum() / n)
        confidence = float(self._bin_confidence.sum() / n)
        return {
            "nll": float(self._nll / n),
            "nll_clipped_fraction": self._clipped / n,
            "brier_sum": float(self._brier / n),
            "brier_mean": float(self._brier / n / self.n_classes),
            "ece_toplabel": float(np.abs(self._bin_correct - self._bin_confidence).sum() / n),
            "accuracy": accuracy,
            "mean_confidence": confidence,
            "signed_gap": confidence - accuracy,
            "n": n,
            "status": "ok",
            "bins": self._bins(),
        }

    def _add_chunk(self, p: np.ndarray, labels: np.ndarray) -> None:
        of_label = p[labels, np.arange(labels.size)]
        clipped = np.clip(of_label, CLIP, 1.0 - CLIP)
        nll = -np.log(clipped).sum()
        if not math.isfinite(nll) or np.isnan(p.sum()):
            raise CalibUncertaintyError("probabilities hold NaN; predict the case again")
        self._nll += nll
        self._clipped += int(np.count_nonzero(clipped != of_label))
        # sum_c (p_c - [c = y])^2 = sum_c p_c^2 - p_y^2 + (1 - p_y)^2, written so that nothing large cancels
        self._brier += float(np.einsum("cn,cn->", p, p) + (1.0 - 2.0 * of_label).sum())
        confidence = p.max(axis=0)
        correct = p.argmax(axis=0) == labels
        # inner edges, left side: a value on an edge belongs to the bin below it
        index = np.searchsorted(self._edges[1:-1], confidence, side="left")
        bins = self._bin_n.size
        self._bin_n += np.bincount(index, minlength=bins)
        self._bin_confidence += np.bincount(index, weights=confidence, minlength=bins)
        self._bin_correct += np.bincount(index, weights=correct, minlength=bins)

    def _bins(self) -> list[dict]:
        return [
            {
                "lower": float(self._edges[index]),
                "upper": float(self._edges[index + 1]),
                "n": int(n),
                "confidence": float(self._bin_confidence[index] / n) if n else None,
                "accuracy": float(self._bin_correct[index] / n) if n else None,
            }
            for index, n in enumerate(self._bin_n)
        ]


class RegionMetrics:
    """Accumulator of the scores of sigmoid heads: each region by itself, inside against outside, then their mean.

    `result` has the keys of `CalibrationMetrics.result`; every figure is the mean over regions of that of the two classes
    (1 - p, p), so `brier_mean` is the mean of (p - y)^2 and confidence is max(p, 1 - p). `bins` hold all regions' decisions
    together (their n is that many times the voxels), `regions` the figures of each region by name, without bins.
    Source of the mean over regions: our definition.

    :param names: of the regions, in the order of the heads.
    :param bins: of the confidence.
    """

    def __init__(self, names: Sequence[str], bins: int = 20) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"needs the names of regions, each its own, got {names}")
        self.names = tuple(names)
        self._of = [CalibrationMetrics(2, bins) for _ in self.names]

    def add(self, p: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels.

        :param p: (C, N) probabilities, one region a channel.
        :param truth: (C, N) bool, where each region truly is.
        :raises CalibUncertaintyError: when probabilities are NaN.
        :raises ValueError: when the shapes do not fit, or truth is not boolean.
        """
        p, truth = np.asarray(p), np.asarray(truth)
        if p.ndim != 2 or len(p) != len(self.names) or truth.shape != p.shape or truth.dtype != bool:
            raise ValueError(
                f"expected ({len(self.names)}, N) probabilities and as many booleans, got {p.shape}, {truth.shape} {truth.dtype}"
            )
        for start in range(0, p.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            for metrics, inside, holds in zip(self._of, p[:, part].astype(np.float64), truth[:, part], strict=True):
                metrics.add(np.stack([1.0 - inside, inside]), holds.astype(np.intp))

    def merge(self, other: RegionMetrics) -> None:
        """Add all voxels that another accumulator of the same regions has seen (pooling cases)."""
        if other.names != self.names:
            raise ValueError("cannot merge metrics of other regions")
        for mine, theirs in zip(self._of, other._of, strict=True):
            mine.merge(theirs)

    def result(self) -> dict:
        """All figures of the voxels so far; see the class."""
        each = [metrics.result() for metrics in self._of]
        together = CalibrationMetrics(2, self._of[0]._bin_n.size)
        for metrics in self._of:
            together.merge(metrics)
        return {
            **{key: float(np.mean([result[key] for result in each])) for key in SCALARS},
            "n": each[0]["n"],
            "status": each[0]["status"],
            "bins": together.result()["bins"],
            "regions": {
                name: {key: result[key] for key in (*SCALARS, "n", "status")}
                for name, result in zip(self.names, each, strict=True)
            },
        }


def mean_over_cases(results: Iterable[Mapping]) -> dict:
    """Mean of each figure over cases, every case weighing the same; cases without voxels (NaN) are left out.

    :param results: what `CalibrationMetrics.result` or `RegionMetrics.result` gave for each case.
    :returns: the scalar figures (NaN when no case has voxels), `cases_used`, `cases_total`, `n` voxels in all, `status`.
    """
    results = list(results)
    used = [result for result in results if result["n"] > 0]
    figures = {key: float(np.mean([result[key] for result in used])) if used else math.nan for key in SCALARS}
    return figures | {
        "cases_used": len(used),
        "cases_total": len(results),
        "n": sum(result["n"] for result in used),
        "status": "ok" if used else "empty_roi",
    }
