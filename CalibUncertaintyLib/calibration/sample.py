"""A bounded sample of labelled voxels, drawn in one pass, the same number from every case."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import CalibUncertaintyError
from .base import Calibrator, Fitted
from .softmax import SMALLEST_LOG_PROBABILITY, probabilities

MOST_VALUES = 2_000_000  # logits kept over all cases: 8 MB as float32, 333,000 voxels of 6 classes
CHUNK_VOXELS = 65536
CLIP = 1e-7  # probabilities below this are clipped before the logarithm


@dataclass
class _Case:
    random: np.random.Generator
    voxels: int = 0
    highest_key: float = math.inf  # voxels with a larger key are not kept
    keys: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)

    def shrink(self, most: int) -> None:
        """Keep the `most` voxels with the smallest keys, which is a simple random sample of the case."""
        if not self.keys:
            return
        keys = np.concatenate(self.keys)
        chosen = np.sort(np.argpartition(keys, most)[:most]) if keys.size > most else np.arange(keys.size)
        if keys.size > most:
            self.highest_key = float(keys[chosen].max())
        self.keys = [keys[chosen]]
        self.logits = [np.concatenate(self.logits, axis=1)[:, chosen]]
        self.truth = [np.concatenate(self.truth, axis=1)[:, chosen]]


@dataclass(frozen=True)
class Kept:
    """The sample: logits (C, K) float32, truth (T, K), weight (K,) whose sum is the number of all voxels."""

    logits: np.ndarray
    truth: np.ndarray
    weight: np.ndarray


class VoxelSample:
    """Keeps at most `most_values` logits of all voxels added, whatever their number.

    Every case gets an equal share of the room, so that a large CT does not crowd out the others; what a small case leaves is
    not handed on. A kept voxel weighs as many as it stands for (voxels of its case / kept of its case), so that sums over the
    sample estimate those over all voxels without bias. The draw depends on the seed, the case's identifier and the order of
    its voxels only. Source: our definition (random keys, the smallest are kept).
    """

    def __init__(self, channels: int, most_values: int = MOST_VALUES, seed: int = 0) -> None:
        if channels < 1 or most_values < channels:
            raise ValueError(f"room for {most_values} values of {channels} channels")
        self.channels = channels
        self._most_voxels = most_values // channels
        self._seed = seed
        self._cases: dict[str, _Case] = {}

    def add(self, case_id: str, logits: np.ndarray, truth: np.ndarray) -> None:
        """Draw from logits (C, N) float32, checked before, and truth (T, N) of a case."""
        if truth.shape[1] == 0:
            return
        if str(case_id) not in self._cases:
            self._cases[str(case_id)] = _Case(np.random.default_rng([self._seed, zlib.crc32(str(case_id).encode())]))
            for case in self._cases.values():
                case.shrink(self._share)
        case = self._cases[str(case_id)]
        keys = case.random.random(truth.shape[1])
        case.voxels += keys.size
        drawn = np.flatnonzero(keys < case.highest_key)
        if drawn.size:
            case.keys.append(keys[drawn])
            case.logits.append(logits[:, drawn])
            case.truth.append(truth[:, drawn])
            if sum(part.size for part in case.keys) > 2 * self._share:
                case.shrink(self._share)

    @property
    def _share(self) -> int:
        return max(1, self._most_voxels // max(1, len(self._cases)))

    @property
    def cases(self) -> tuple[str, ...]:
        """Cases that brought voxels."""
        return tuple(self._cases)

    @property
    def voxels(self) -> int:
        """Voxels added."""
        return sum(case.voxels for case in self._cases.values())

    def kept(self, equal_weights: bool = False) -> Kept:
        """The sample of all cases.

        :param equal_weights: a simple random sample of all voxels, smaller but of equal weights: cases thinned alike.
        """
        for case in self._cases.values():
            case.shrink(self._share)
        cases = list(self._cases.values())
        if equal_weights:
            limit = min((case.highest_key for case in cases), default=math.inf)
            chosen = [case.keys[0] <= limit for case in cases]
        else:
            chosen = [np.ones(case.keys[0].size, bool) for case in cases]
        parts = list(zip(cases, chosen, strict=True))
        logits = [case.logits[0][:, of_case] for case, of_case in parts]
        truth = [case.truth[0][:, of_case] for case, of_case in parts]
        if equal_weights:
            count = sum(int(of_case.sum()) for of_case in chosen)
            weight = [np.full(count, self.voxels / max(count, 1))]
        else:
            weight = [np.full(of_case.size, case.voxels / of_case.size) for case, of_case in parts]
        empty = np.zeros((self.channels, 0), np.float32)
        return Kept(
            np.concatenate(logits, axis=1) if logits else empty,
            np.concatenate(truth, axis=1) if truth else np.zeros((1, 0), np.int64),
            np.concatenate(weight) if weight else np.zeros(0),
        )


def finite_logits(logits: np.ndarray, case_id: str, heads_sigmoid: bool) -> np.ndarray:
    """Logits (C, n) as finite float32: of softmax heads less the voxel's highest, -inf the logarithm of the smallest float32.

    :raises CalibUncertaintyError: when logits are NaN or +inf, or of sigmoid heads infinite.
    """
    wide = np.asarray(logits).astype(np.result_type(logits.dtype, np.float32), copy=False)
    with np.errstate(invalid="ignore"):
        relative = wide if heads_sigmoid else np.subtract(wide, wide.max(axis=0))
    if not np.isfinite(relative).all():
        if heads_sigmoid or np.isnan(relative).any():
            raise CalibUncertaintyError(
                f"case {case_id}: the logits hold NaN or infinite values; predict the case again"
            )
        relative = np.maximum(relative, SMALLEST_LOG_PROBABILITY)
    return relative.astype(np.float32, copy=False)


def checked_truth(
    case_id: str, logits: np.ndarray, truth: np.ndarray, channels: int, heads_sigmoid: bool
) -> np.ndarray:
    """Truth as rows: classes (N,) or of R raters (R, N) to (R, N); regions (C, N) or (R, C, N) bool to (R, C, N).

    :raises ValueError: when the shapes do not fit together, or regions are not True or False.
    :raises CalibUncertaintyError: when a label is not a class.
    """
    truth = np.asarray(truth)
    rows = truth[np.newaxis] if truth.ndim == (2 if heads_sigmoid else 1) else truth
    expected = logits.shape if heads_sigmoid else logits.shape[1:]
    if logits.ndim != 2 or len(logits) != channels or rows.shape[1:] != expected or not len(rows):
        raise ValueError(f"logits {logits.shape} and truth {truth.shape} do not fit a model of {channels} channels")
    if heads_sigmoid:
        if truth.dtype != bool:
            raise ValueError(f"truth must say True or False for each region, got {truth.dtype}")
        return rows
    if rows.size and (rows.min() < 0 or rows.max() >= channels):
        worst = int(rows.max() if rows.min() >= 0 else rows.min())
        raise CalibUncertaintyError(
            f"case {case_id}: label {worst} is not one of the model's classes 0 to {channels - 1}; give a reference with the"
            " model's own labels"
        )
    return rows


def mean_nll(p: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean of -ln p of the true class, nats; p clipped to [1e-7, 1 - 1e-7]; NaN without a voxel.

    :param p: (C, K) probabilities.
    :param truth: (R, K) classes of each rater, whose mean counts; or (R, C, K) bool: the mean over regions of the binary NLL.
    """
    total = 0.0
    for rater in truth if weight.size else ():
        if truth.ndim == 3:
            of_truth = np.where(rater, p, 1.0 - p.astype(np.float64)).clip(CLIP, 1 - CLIP)
            total += float(weight @ -np.log(of_truth).mean(axis=0))
        else:
            of_truth = p[rater.astype(np.intp), np.arange(rater.size)].astype(np.float64).clip(CLIP, 1 - CLIP)
            total += float(weight @ -np.log(of_truth))
    return total / len(truth) / float(weight.sum()) if weight.size else math.nan


class SampledFit:
    """What the accumulators that keep a sample share: checks, chunks, and figures on the sample.

    :param n_classes: C, output channels of the network; of sigmoid heads one or more regions.
    :param sigmoid: whether every channel is a region by itself.
    :param most_values: see `VoxelSample`.
    :param seed: of the draw.
    """

    def __init__(self, n_classes: int, sigmoid: bool = False, most_values: int = MOST_VALUES, seed: int = 0) -> None:
        if n_classes < (1 if sigmoid else 2):
            raise ValueError(f"needs at least two classes or one region, got {n_classes}")
        self.n_classes, self.sigmoid = n_classes, sigmoid
        self._sample = VoxelSample(n_classes, most_values, seed)
        self._counts = np.zeros(n_classes)  # voxels of each class or region, of several raters the mean

    def add(self, case_id: str, logits: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels of a case; a case may come in several pieces.

        :param logits: (C, N); log-probabilities will do, -inf too, for softmax heads.
        :param truth: (N,) classes, or (R, N) of R raters. Of sigmoid heads (C, N) or (R, C, N) bool. Leave ignored voxels out.
        :raises CalibUncertaintyError: when a label is not a class, or logits are NaN or infinite.
        :raises ValueError: when the shapes do not fit together.
        """
        logits = np.asarray(logits)
        rows = checked_truth(case_id, logits, truth, self.n_classes, self.sigmoid)
        for start in range(0, logits.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            chunk = finite_logits(logits[:, part], case_id, self.sigmoid)
            of_chunk = rows[..., part]
            fractions = true_fractions(of_chunk, self.n_classes)
            self._counts += fractions.sum(axis=1, dtype=np.float64)
            self._look(chunk, fractions)
            self._sample.add(case_id, chunk, of_chunk.reshape(-1, of_chunk.shape[-1]))

    def _look(self, logits: np.ndarray, fractions: np.ndarray) -> None:
        """See every voxel once, for methods that need more than the sample; fractions (C, n) of `true_fractions`."""

    def _kept(self) -> Kept:
        """The sample, truth as `mean_nll` wants it."""
        kept = self._sample.kept()
        truth = kept.truth
        if self.sigmoid:
            truth = (
                truth.reshape(-1, self.n_classes, truth.shape[-1])
                if truth.size
                else np.zeros((1, self.n_classes, 0), bool)
            )
        return Kept(kept.logits, truth, kept.weight)

    def _result(self, calibrator: Calibrator, status: str, kept: Kept, warnings: Sequence[str] = ()) -> Fitted:
        before = probabilities(kept.logits, 1.0, self.sigmoid)
        return Fitted(
            fitted=calibrator,
            status=status,
            nll_before=mean_nll(before, kept.truth, kept.weight),
            nll_after=mean_nll(calibrator.transform(kept.logits), kept.truth, kept.weight),
            cases=self._sample.cases,
            voxels=self._sample.voxels,
            kept=kept.weight.size,
            warnings=tuple(warnings),
        )

    def _degenerate(self) -> str:
        """ "empty_roi" or "single_class" where there is nothing to fit, else empty."""
        if not self._sample.voxels:
            return "empty_roi"
        everywhere_or_nowhere = (self._counts == 0) | (self._counts == self._sample.voxels)
        return "single_class" if everywhere_or_nowhere.all() else ""

    def _left_alone(self) -> list[int]:
        """Classes that no rater marks anywhere, and regions that are everywhere: nothing tells how to change them."""
        return np.flatnonzero((self._counts == 0) | (self._counts == self._sample.voxels)).tolist()

    def _warnings(self) -> list[str]:
        what = "region" if self.sigmoid else "class"
        return [
            f"{what} {number} is {'nowhere' if self._counts[number] == 0 else 'everywhere'} in the reference labels inside the"
            " region of interest; its parameters were left as they are"
            for number in self._left_alone()
        ]


def true_fractions(rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of the raters that give each class, (C, n) float32, of labels (R, n) or regions (R, C, n) bool."""
    if rows.ndim == 3:
        return rows.mean(axis=0, dtype=np.float32)
    result = np.zeros((n_classes, rows.shape[1]), np.float32)
    for number in range(n_classes):
        result[number] = (rows == number).mean(axis=0, dtype=np.float32)
    return result
