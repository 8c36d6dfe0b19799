"""How well probabilities agree with what is true: proper scores, calibration errors and overlap, streamed, in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from . import calibration_errors as errors
from .counts import CLIP, Counts, count
from .smooth import smooth_error

__all__ = ["CHUNK_VOXELS", "CLIP", "SCALARS", "CalibrationMetrics", "RegionMetrics", "mean_over_cases"]

CHUNK_VOXELS = 65536
SCALARS = (
    "nll", "nll_clipped_fraction", "brier_sum", "brier_mean", "ece_toplabel", "accuracy", "mean_confidence", "signed_gap",
)
PARTS = ("reliability", "resolution", "uncertainty", "residual")


class CalibrationMetrics:
    """Accumulator of scores over voxels with known labels. All sums are float64; memory does not grow with voxels.

    `result` gives the headline, `full_result` everything else of the same pass:
    - `nll`: -mean ln p_y, nats, [0, 16.1], p clipped to [1e-7, 1 - 1e-7]; `nll_clipped_fraction` says how often (Guo et al. 2017)
    - `brier_mean`: mean over voxels of sum_c (p_c - [c = y])^2 / C, [0, 2/C] (Mehrtash et al. 2020, Eq. 4);
      `brier_sum` is not divided by C, [0, 2]
    - `ece_toplabel`: sum over bins of n_b/n |accuracy_b - confidence_b|, [0, 1], with confidence max_c p_c, correct when the
      first argmax is the label (Guo et al. 2017, Eq. 3). Bins are equally wide and right-closed (l, u]; 0 falls into the first
    - `accuracy`, `mean_confidence`, `signed_gap` = mean confidence - accuracy (above 0: over-confident)
    - `n` voxels; `bins`: lower, upper, n, confidence, accuracy (None in an empty bin); `status`: "ok" or "empty_roi" (NaN)

    Figures of several raters of one case are those of their accumulators merged: every rater weighs the same.

    :param n_classes: C, two at least.
    :param bins: equally wide ones from 0 to 1.
    :param names: of the classes, for `full_result`; "0", "1", ... by default.
    :param mce_min_voxels: a bin with fewer is no candidate for the largest gap.
    :param threads: that share a call's voxels; None lets their number decide.
    """

    def __init__(
        self, n_classes: int, bins: int = 20, *, names: Sequence[str] | None = None,
        mce_min_voxels: int = errors.MCE_MIN_VOXELS, threads: int | None = None,
    ) -> None:  # fmt: skip
        if n_classes < 2 or bins < 1:
            raise ValueError(f"needs at least two classes and one bin, got {n_classes} and {bins}")
        self.n_classes = n_classes
        self.names = tuple(names) if names is not None else tuple(str(index) for index in range(n_classes))
        if len(set(self.names)) != n_classes:
            raise ValueError(f"needs the names of {n_classes} classes, each its own, got {names}")
        self.mce_min_voxels = mce_min_voxels
        self._threads = threads
        self._counts = Counts.empty(n_classes, bins)

    def add(self, p: np.ndarray, labels: np.ndarray) -> None:
        """Add voxels; nothing is added when something is wrong with them.

        :param p: (C, N) probabilities, each column sums to 1. float32 and float16 are fastest.
        :param labels: (N,) integers in [0, C), the true classes.
        :raises CalibUncertaintyError: when a label is no class, or probabilities are NaN or outside [0, 1].
        :raises ValueError: when the shapes do not fit.
        """
        p, labels = np.asarray(p), np.asarray(labels)
        if p.ndim != 2 or p.shape[0] != self.n_classes or labels.shape != p.shape[1:]:
            raise ValueError(f"expected ({self.n_classes}, N) probabilities and (N,) labels, got {p.shape}, {labels.shape}")
        self._counts.add(count(p, labels, self._counts.bins, self._threads))

    def merge(self, other: CalibrationMetrics) -> None:
        """Add all voxels that another accumulator of the same form has seen (pooling cases)."""
        if other.n_classes != self.n_classes or other._counts.bins != self._counts.bins:
            raise ValueError("cannot merge metrics of another number of classes or bins")
        self._counts.add(other._counts)

    def result(self) -> dict:
        """The headline figures of the voxels so far; see the class."""
        seen = self._counts
        n = seen.n
        bins = self.top_bins()
        for item in bins:
            del item["gap"]
        if n == 0:
            return dict.fromkeys(SCALARS, math.nan) | {"n": 0, "status": "empty_roi", "bins": bins}
        accuracy, confidence = float(seen.top_correct.sum() / n), float(seen.top_p.sum() / n)
        brier = float(seen.brier.sum() / n)
        return {
            "nll": seen.nll / n,
            "nll_clipped_fraction": seen.clipped / n,
            "brier_sum": brier,
            "brier_mean": brier / self.n_classes,
            "ece_toplabel": errors.expected_error(*self._top()),
            "accuracy": accuracy,
            "mean_confidence": confidence,
            "signed_gap": confidence - accuracy,
            "n": n,
            "status": "ok",
            "bins": bins,
        }

    def full_result(self) -> dict:
        """Everything: `result`'s figures and the following. p_c is compared with [y = c] wherever "class" is said.

        - `brier_foreground`: mean of (p_fg - [y > 0])^2, [0, 1]; `brier_decomposition`: reliability - resolution +
          uncertainty + residual = brier_sum, summed over the classes, from the class bins
        - `ece_class`, `ace_class` (bins with voxels weigh the same), `ace_adaptive` (equal mass), `mce_class`,
          `smooth_ece_class`: means over all classes; with `_foreground`, over all but class 0
        - `mce_toplabel`, `ace_toplabel`, `ace_adaptive_toplabel`, `smooth_ece`, `smooth_ece_width`: of the highest probability
        - `dice`: mean over the foreground classes that are drawn or predicted; `dice_classes_used` of `dice_classes_total`
        - `classes`: for each name `labelled` and `predicted` voxels, `brier`, `brier_decomposition`, `ece`, `ace`,
          `ace_adaptive`, `mce`, `smooth_ece`, `signed_gap`, `dice`, `dice_status` ("ok", "both_empty": 1) and `bins`
        - `bins` and each class's bins: lower, upper, n, confidence, accuracy, gap = confidence - accuracy
        - `bin_count`, `mce_min_voxels`: what the figures were made with
        """
        seen = self._counts
        classes = {name: self._of_class(index) for index, name in enumerate(self.names)}
        rows = list(classes.values())
        top = self._top()
        cells = tuple(part.sum(axis=0) for part in (seen.top, seen.top_p, seen.top_correct))
        smooth, width = smooth_error(*cells)
        found = self.result() | {
            "brier_foreground": rows[0]["brier"],
            "brier_decomposition": {part: sum(row["brier_decomposition"][part] for row in rows) for part in PARTS},
            "ace_toplabel": errors.average_error(*top),
            "ace_adaptive_toplabel": errors.adaptive_error(*cells, seen.bins),
            "mce_toplabel": errors.maximum_error(*top, self.mce_min_voxels),
            "smooth_ece": smooth,
            "smooth_ece_width": width,
        }
        for key, of in (("ece_class", "ece"), ("ace_class", "ace"), ("ace_adaptive", "ace_adaptive"),
                        ("mce_class", "mce"), ("smooth_ece_class", "smooth_ece")):  # fmt: skip
            found[key] = mean_of_known(row[of] for row in rows)
            found[f"{key}_foreground"] = mean_of_known(row[of] for row in rows[1:])
        overlaps = [row["dice"] for row in rows[1:] if row["dice_status"] == "ok"]
        return found | {
            "dice": mean_of_known(overlaps),
            "dice_classes_used": len(overlaps),
            "dice_classes_total": self.n_classes - 1,
            "bins": self.top_bins(),
            "bin_count": seen.bins,
            "mce_min_voxels": self.mce_min_voxels,
            "classes": classes,
        }

    def top_bins(self) -> list[dict]:
        """The bins of the highest probability: lower, upper, n, confidence, accuracy, gap."""
        return errors.bin_table(*self._top())

    def _top(self) -> tuple[np.ndarray, ...]:
        seen = self._counts
        return tuple(seen.in_bins(part.sum(axis=0)) for part in (seen.top, seen.top_p, seen.top_correct))

    def _class(self, index: int) -> tuple[np.ndarray, ...]:
        seen = self._counts
        return tuple(seen.in_bins(part[index]) for part in (seen.cells, seen.cells_p, seen.cells_positive))

    def _of_class(self, index: int) -> dict:
        seen = self._counts
        bins = self._class(index)
        cells = (seen.cells[index], seen.cells_p[index], seen.cells_positive[index])
        brier = float(seen.brier[index] / seen.n) if seen.n else math.nan
        labelled, predicted = int(cells[2].sum()), int(seen.top[index].sum())
        overlap, status = errors.dice(int(seen.top_correct[index].sum()), predicted, labelled)
        if not seen.n:
            overlap, status = math.nan, "empty_roi"
        return {
            "labelled": labelled,
            "predicted": predicted,
            "brier": brier,
            "brier_decomposition": errors.brier_decomposition(*bins, brier),
            "ece": errors.expected_error(*bins),
            "ace": errors.average_error(*bins),
            "ace_adaptive": errors.adaptive_error(*cells, seen.bins),
            "mce": errors.maximum_error(*bins, self.mce_min_voxels),
            "smooth_ece": smooth_error(*cells)[0],
            "signed_gap": errors.signed_gap(*bins),
            "dice": overlap,
            "dice_status": status,
            "bins": errors.bin_table(*bins),
        }


class RegionMetrics:
    """Accumulator of the scores of sigmoid heads: each region by itself, inside against outside, then their mean.

    `result` has the keys of `CalibrationMetrics.result`; every figure is the mean over regions of that of the two classes
    (1 - p, p), so `brier_mean` is the mean of (p - y)^2 and confidence is max(p, 1 - p). `bins` hold all regions' decisions
    together (their n is that many times the voxels), `regions` the figures of each region by name, without bins.
    Source of the mean over regions: our definition.

    :param names: of the regions, in the order of the heads.
    :param bins: of the confidence.
    :param mce_min_voxels: a bin with fewer is no candidate for the largest gap.
    :param threads: that share a call's voxels; None lets their number decide.
    """

    def __init__(
        self, names: Sequence[str], bins: int = 20, *,
        mce_min_voxels: int = errors.MCE_MIN_VOXELS, threads: int | None = None,
    ) -> None:  # fmt: skip
        if not names or len(set(names)) != len(names):
            raise ValueError(f"needs the names of regions, each its own, got {names}")
        self.names = tuple(names)
        self._bins = bins
        self._of = [
            CalibrationMetrics(2, bins, names=("outside", "inside"), mce_min_voxels=mce_min_voxels, threads=threads)
            for _ in self.names
        ]

    def add(self, p: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels.

        :param p: (C, N) probabilities, one region a channel.
        :param truth: (C, N) bool, where each region truly is.
        :raises CalibUncertaintyError: when probabilities are NaN or outside [0, 1].
        :raises ValueError: when the shapes do not fit, or truth is not boolean.
        """
        p, truth = np.asarray(p), np.asarray(truth)
        if p.ndim != 2 or len(p) != len(self.names) or truth.shape != p.shape or truth.dtype != bool:
            raise ValueError(
                f"expected ({len(self.names)}, N) probabilities and as many booleans, got {p.shape}, {truth.shape} {truth.dtype}"
            )
        step = 16 * CHUNK_VOXELS  # enough for several threads, and little beside a case
        for start in range(0, p.shape[1], step):
            part = slice(start, start + step)
            for metrics, inside, holds in zip(self._of, p[:, part], truth[:, part], strict=True):
                exact = inside.astype(np.float64)
                metrics.add(np.stack([1.0 - exact, exact]), holds.view(np.uint8))

    def merge(self, other: RegionMetrics) -> None:
        """Add all voxels that another accumulator of the same regions has seen (pooling cases)."""
        if other.names != self.names:
            raise ValueError("cannot merge metrics of other regions")
        for mine, theirs in zip(self._of, other._of, strict=True):
            mine.merge(theirs)

    def result(self) -> dict:
        """The headline figures of the voxels so far; see the class."""
        each = [metrics.result() for metrics in self._of]
        return {
            **{key: float(np.mean([result[key] for result in each])) for key in SCALARS},
            "n": each[0]["n"],
            "status": each[0]["status"],
            "bins": self._together().result()["bins"],
            "regions": {
                name: {key: result[key] for key in (*SCALARS, "n", "status")}
                for name, result in zip(self.names, each, strict=True)
            },
        }

    def full_result(self) -> dict:
        """Everything, by region and as means over the regions that are known.

        `ece_class`, `ace_class`, `ace_adaptive`, `mce_class`, `smooth_ece_class` and `brier_foreground` compare the probability
        of being inside with being inside; `regions` holds for each name `result`'s figures of the decision inside or outside
        and, of its probability, what `CalibrationMetrics.full_result` says of a class (with `bins` for its diagram).
        """
        found = self.result()
        regions, top = {}, []
        for name, metrics in zip(self.names, self._of, strict=True):
            full = metrics.full_result()
            top.append(full)
            regions[name] = found["regions"][name] | full["classes"]["inside"]
        rows = list(regions.values())
        for key, of in (("ece_class", "ece"), ("ace_class", "ace"), ("ace_adaptive", "ace_adaptive"), ("mce_class", "mce"),
                        ("smooth_ece_class", "smooth_ece"), ("brier_foreground", "brier")):  # fmt: skip
            found[key] = mean_of_known(row[of] for row in rows)
        for key in ("ace_toplabel", "ace_adaptive_toplabel", "mce_toplabel", "smooth_ece"):
            found[key] = mean_of_known(full[key] for full in top)
        overlaps = [row["dice"] for row in rows if row["dice_status"] == "ok"]
        return found | {
            "dice": mean_of_known(overlaps),
            "dice_classes_used": len(overlaps),
            "dice_classes_total": len(rows),
            "bins": self._together().top_bins(),
            "bin_count": self._bins,
            "mce_min_voxels": self._of[0].mce_min_voxels,
            "regions": regions,
        }

    def _together(self) -> CalibrationMetrics:
        together = CalibrationMetrics(2, self._bins)
        for metrics in self._of:
            together.merge(metrics)
        return together


def mean_over_cases(results: Iterable[Mapping]) -> dict:
    """Mean of each headline figure over cases, every case weighing the same; cases without voxels (NaN) are left out.

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


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
