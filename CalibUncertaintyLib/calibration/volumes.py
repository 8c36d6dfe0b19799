"""Pieces of labelled volumes, kept for the fits that need each voxel's neighbourhood.

A voxel's neighbours count only where they surround a voxel of the region of interest (ROI), so each case is cut to the box of
its ROI and, where that is large, into blocks; each block carries a halo of the voxels around it. Logits and image are kept in
half precision. What is kept never exceeds `max_bytes`: beyond it, blocks of the case that has the most are let go, chosen by
chance from a seed, and the fit says so.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from .linear_fit import nll_sum
from .softmax import SMALLEST_LOG_PROBABILITY

Triple = tuple[int, int, int]
BLOCK_VOXELS: Triple = (64, 128, 128)
MAX_BYTES = 1 << 30
LARGEST_HALF = 6e4  # half precision ends at 65504
SLAB_VOXELS = 1 << 20
# Beyond these, Hounsfield units tell metal from metal and air from air
LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0


@dataclass(frozen=True)
class Block:
    """One piece of a case.

    logits: (C, z, y, x) float16 and image: (z, y, x) float16 in HU or None, both with the halo. truth: softmax (z, y, x) int32
    classes, sigmoid (C, z, y, x) bool; roi: (z, y, x) bool; both without the halo.
    """

    case_id: str
    logits: np.ndarray
    truth: np.ndarray
    roi: np.ndarray
    image: np.ndarray | None
    chance: int

    @property
    def voxels(self) -> int:
        """Number of ROI voxels."""
        return int(np.count_nonzero(self.roi))

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return (
            self.logits.nbytes + self.truth.nbytes + self.roi.nbytes + (0 if self.image is None else self.image.nbytes)
        )


class VolumeStore:
    """Blocks of all added cases.

    :param halo: voxels of context in (z, y, x).
    :param sigmoid: whether logits are one a region, with the truth (C, Z, Y, X) bool.
    :param max_bytes: bound on what is kept; at least one block a case stays.
    :param seed: of the choice of blocks that are let go.
    """

    def __init__(self, halo: Triple, sigmoid: bool = False, max_bytes: int = MAX_BYTES, seed: int = 0) -> None:
        self.halo, self.sigmoid, self.blocks = halo, sigmoid, []
        self._max_bytes, self._seed = max_bytes, seed
        self.let_go = 0
        self.channels: int | None = None
        self.has_image: bool | None = None

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that brought voxels, in the order they came."""
        return tuple(dict.fromkeys(block.case_id for block in self.blocks))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Whether anything was let go."""
        if not self.let_go:
            return ()
        return (f"{self.let_go} blocks around the structures were left out, as they would not fit into memory",)

    def add(
        self, case_id: str, logits: np.ndarray, truth: np.ndarray, roi: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Add a whole case, cut to its ROI.

        :param case_id: each case may come once.
        :param logits: (C, Z, Y, X); log-probabilities (sigmoid: log-odds) will do.
        :param truth: softmax: (Z, Y, X) integer classes; sigmoid: (C, Z, Y, X) bool. Outside the ROI anything may stand.
        :param roi: (Z, Y, X) bool.
        :param image: (Z, Y, X) in HU, or None; with all cases or with none.
        :raises CalibUncertaintyError: when logits are NaN or infinite, a label is no class, or the case came before.
        :raises ValueError: when the shapes do not fit together.
        """
        case_id, logits, truth, roi = str(case_id), np.asarray(logits), np.asarray(truth), np.asarray(roi)
        self._check(case_id, logits, truth, roi, image)
        if not roi.any():
            return
        box = [np.flatnonzero(roi.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        spans = [_pieces(int(b[0]), int(b[-1]) + 1, most) for b, most in zip(box, BLOCK_VOXELS, strict=True)]
        for number, window in enumerate(itertools.product(*spans)):
            if roi[window].any():
                self.blocks.append(self._block(case_id, logits, truth, roi, image, window, number))
        self._bound()

    def _check(self, case_id: str, logits, truth, roi, image) -> None:
        shape = logits.shape if self.sigmoid else logits.shape[1:]
        if logits.ndim != 4 or truth.shape != shape or roi.shape != logits.shape[1:] or roi.dtype != bool:
            raise ValueError(f"logits {logits.shape}, truth {truth.shape} and ROI {roi.shape} ({roi.dtype}) do not fit")
        if self.sigmoid and truth.dtype != bool:
            raise ValueError(f"truth must say True or False for each region, got {truth.dtype}")
        if image is not None and np.shape(image) != roi.shape:
            raise ValueError(f"image {np.shape(image)} and ROI {roi.shape} do not fit")
        if case_id in self.cases:
            raise CalibUncertaintyError(f"the case {case_id} was added twice; list each case once")
        if self.channels is not None and len(logits) != self.channels:
            raise ValueError(f"case {case_id} has {len(logits)} channels, the others have {self.channels}")
        if self.has_image is not None and self.has_image != (image is not None):
            raise ValueError(f"case {case_id}: give an image with every case or with none")
        if not self.sigmoid and roi.any():
            found = truth[roi]
            wrong = found[(found < 0) | (found >= len(logits))]
            if wrong.size:
                raise CalibUncertaintyError(
                    f"case {case_id}: label {int(wrong[0])} is not one of the model's classes 0 to {len(logits) - 1}; give a"
                    " reference with the model's own labels"
                )
        self.channels, self.has_image = len(logits), image is not None

    def _block(self, case_id: str, logits, truth, roi, image, window, number: int) -> Block:
        cut = clean_logits(with_halo(logits, window, self.halo), self.sigmoid, f"case {case_id}: ")
        if image is not None:
            image = np.clip(with_halo(np.asarray(image), window, self.halo), LOWEST_HU, HIGHEST_HU).astype(np.float16)
            if not np.isfinite(image).all():
                raise CalibUncertaintyError(f"case {case_id}: the image holds NaN values; export the CT again")
        chance = hashlib.sha256(f"{self._seed}/{case_id}/{number}".encode()).digest()
        inside = truth[(..., *window)]
        return Block(
            case_id,
            np.clip(cut, -LARGEST_HALF, LARGEST_HALF).astype(np.float16),
            inside.copy() if self.sigmoid else np.where(roi[window], inside, 0).astype(np.int32),
            roi[window].copy(),
            image,
            int.from_bytes(chance[:8], "big"),
        )

    def _bound(self) -> None:
        total = sum(block.bytes for block in self.blocks)
        while total > self._max_bytes:
            of_case: dict[str, list[Block]] = {}
            for block in self.blocks:
                of_case.setdefault(block.case_id, []).append(block)
            several = [blocks for blocks in of_case.values() if len(blocks) > 1]
            if not several:
                return
            largest = max(several, key=lambda blocks: sum(block.bytes for block in blocks))
            gone = max(largest, key=lambda block: block.chance)
            self.blocks = [block for block in self.blocks if block is not gone]
            self.let_go += 1
            total -= gone.bytes


def mean_nll(blocks: Sequence[Block], sigmoid: bool, scores_of: Callable[[Block], np.ndarray]) -> float:
    """Mean NLL over the ROI voxels of these blocks, nats.

    :param scores_of: gives the calibrated logits (C, z, y, x) float32 of a block, without the halo.
    """
    total, voxels = 0.0, 0
    for block in blocks:
        scores = scores_of(block)[:, block.roi]
        total += nll_sum(scores, block.truth[..., block.roi], sigmoid)
        voxels += scores.shape[1]
    return total / voxels


def clean_logits(logits: np.ndarray, sigmoid: bool, where: str = "") -> np.ndarray:
    """Logits (C, ...) as float32 that a convolution may mix: shift-invariant for softmax, as they are for sigmoid.

    The mean over classes is subtracted, since a constant added to all logits of a voxel means nothing but would change the
    result. -inf, the logarithm of a probability rounded to 0, is read as the smallest float32's.

    :param where: begins the error's line, as in "case a: ".
    :raises CalibUncertaintyError: when logits are NaN or +inf.
    """
    values = np.array(logits, np.float32)
    values = values if sigmoid else np.subtract(values, values.max(axis=0), out=values)
    if not np.isfinite(values).all():
        if np.isnan(values).any() or np.isposinf(values).any():
            raise CalibUncertaintyError(f"{where}the logits hold NaN or infinite values; predict the case again")
        np.maximum(values, SMALLEST_LOG_PROBABILITY, out=values, where=np.isneginf(values))
    return values if sigmoid else np.subtract(values, values.mean(axis=0), out=values)


def with_halo(array: np.ndarray, window: Sequence[slice], halo: Sequence[int]) -> np.ndarray:
    """A window of the last three axes with the halo around it; beyond the array its outermost voxels are repeated."""
    inside, missing = [], [(0, 0)] * (array.ndim - 3)
    for part, reach, size in zip(window, halo, array.shape[-3:], strict=True):
        begin, end = part.start - reach, part.stop + reach
        inside.append(slice(max(begin, 0), min(end, size)))
        missing.append((max(-begin, 0), max(end - size, 0)))
    return np.pad(array[(..., *inside)], missing, mode="edge")


def without_halo(array: np.ndarray, halo: Sequence[int]) -> np.ndarray:
    """The inner part of the last three axes; a view."""
    return array[(..., *(slice(h, n - h) for h, n in zip(halo, array.shape[-3:], strict=True)))]


def slab_windows(shape: Sequence[int], voxels: int = SLAB_VOXELS) -> Iterator[tuple[slice, slice, slice]]:
    """Windows of whole planes that cover a volume (Z, Y, X), each of about this many voxels."""
    step = max(1, voxels // max(1, shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0])), slice(0, shape[1]), slice(0, shape[2])


def _pieces(start: int, stop: int, most: int) -> list[slice]:
    """[start, stop) in equal pieces no longer than `most`."""
    count = -(-(stop - start) // most)
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
