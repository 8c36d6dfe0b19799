"""One pass over probabilities and labels: the sums and histograms from which every figure of calibration is made.

Each probability falls into one of `bins` equally wide, right-closed bins (l, u], 0 into the first, as everywhere in the field;
each bin is cut into as many equally wide cells. For every class and cell the pass counts voxels, adds up their probabilities
and counts those whose label is the class. Bins are sums of cells, so the figures that are defined by bins are exact; those that
need an order of the voxels (equally full bins) or a kernel read the cells.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from ..errors import CalibUncertaintyError

# Probabilities below this (or above 1 less this) are clipped before the logarithm; the share of them is reported.
CLIP = 1e-7
# About as many cells over [0, 1]; a whole number of them makes a bin.
CELLS = 2000
# Values (voxels times classes) of one step: its arrays stay in the second-level cache.
CHUNK_VALUES = 131072
FEWEST_VOXELS = 4096
# Below this a second thread costs more than it saves.
THREADED_VALUES = 1_000_000
MOST_THREADS = 4
# Softmax in single precision leaves [0, 1] by rounding only; logits given by mistake leave it by far.
TOLERANCE = 1e-4


@dataclass
class Counts:
    """What a pass has seen. F = bins * cells_per_bin cells from 0 to 1, C classes; int64 counts, float64 sums.

    - `cells`, `cells_p`, `cells_positive` (C, F): values p_c in the cell, their sum, and those whose label is c
    - `top`, `top_p`, `top_correct` (C, F): the same of the highest probability, by the predicted class (the first argmax)
    - `brier` (C,): sum of (p_c - [c = y])^2
    - `nll`, `clipped`, `n`: sum of -ln p_y, how many p_y were clipped, voxels
    """

    bins: int
    cells: np.ndarray
    cells_p: np.ndarray
    cells_positive: np.ndarray
    top: np.ndarray
    top_p: np.ndarray
    top_correct: np.ndarray
    brier: np.ndarray
    nll: float = 0.0
    clipped: int = 0
    n: int = 0

    @classmethod
    def empty(cls, classes: int, bins: int) -> Counts:
        """Of no voxel."""
        shape = (classes, cell_count(bins))
        whole = (np.zeros(shape, np.int64) for _ in range(4))
        cells, positive, top, correct = whole
        return cls(bins, cells, np.zeros(shape), positive, top, np.zeros(shape), correct, np.zeros(classes))

    def add(self, other: Counts) -> None:
        """Add what another pass of the same form has seen."""
        if other.cells.shape != self.cells.shape or other.bins != self.bins:
            raise ValueError("cannot merge counts of another number of classes or bins")
        for item in fields(self):
            if item.name == "bins":
                continue
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, np.add(mine, theirs, out=mine) if isinstance(mine, np.ndarray) else mine + theirs)

    def in_bins(self, of_cells: np.ndarray) -> np.ndarray:
        """(..., F) cells to (..., bins)."""
        return of_cells.reshape(*of_cells.shape[:-1], self.bins, -1).sum(axis=-1)


def cell_count(bins: int) -> int:
    """Cells from 0 to 1: the multiple of `bins` that lies nearest `CELLS`, but one a bin at least."""
    return bins * max(1, round(CELLS / bins))


def threads_for(values: int, threads: int | None) -> int:
    """How many threads a pass over so many values takes: those asked for, else what the machine has, up to four."""
    if threads is not None:
        return max(1, threads)
    return min(MOST_THREADS, os.cpu_count() or 1) if values >= THREADED_VALUES else 1


def count(p: np.ndarray, labels: np.ndarray, bins: int, threads: int | None = None) -> Counts:
    """Everything there is to know about these voxels.

    :param p: (C, N) probabilities.
    :param labels: (N,) integers in [0, C).
    :param bins: equally wide ones from 0 to 1.
    :param threads: that share the chunks; None lets the number of values decide. Sums differ by rounding (1e-16) only.
    :raises CalibUncertaintyError: when probabilities are NaN or outside [0, 1], or a label is no class.
    """
    classes, voxels = p.shape
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise CalibUncertaintyError(
            f"a reference label outside 0 to {classes - 1} was met; give a reference with the model's own labels"
        )
    step = max(FEWEST_VOXELS, CHUNK_VALUES // classes)
    starts = range(0, voxels, step)
    workers = min(threads_for(p.size, threads), max(1, len(starts)))

    def part(worker: int) -> Counts:
        counts, room = Counts.empty(classes, bins), _Room(classes, step, cell_count(bins))
        for start in starts[worker::workers]:
            _add_chunk(counts, room, p[:, start : start + step], labels[start : start + step])
        return counts

    if workers == 1:
        return part(0)
    with ThreadPoolExecutor(workers) as pool:
        first, *others = pool.map(part, range(workers))
    for other in others:
        first.add(other)
    return first


class _Room:
    """Arrays of a thread that every chunk uses again."""

    def __init__(self, classes: int, voxels: int, cells: int) -> None:
        self.columns = np.arange(voxels)
        self.offset = (np.arange(classes) * cells - 1.0)[:, np.newaxis]
        self.scaled = np.empty(classes * voxels)
        self.index32 = np.empty(classes * voxels, np.int32)
        self.index = np.empty(classes * voxels, np.intp)


def _add_chunk(counts: Counts, room: _Room, p: np.ndarray, labels: np.ndarray) -> None:
    classes, n = p.shape
    cells = counts.cells.shape[1]
    exact = p.astype(np.float64, order="C")
    highest = exact.max(axis=0)
    _refuse_what_is_no_probability(exact, highest)
    index = _cell_index(exact, cells, room, rounded=p.dtype.itemsize > 4)
    flat = exact.ravel()
    columns = room.columns[:n]
    at_label = labels.astype(np.intp)
    right = _first_argmax(exact, highest)
    correct = right == at_label
    at_label *= n
    at_label += columns
    of_label = flat.take(at_label)
    at_top = right * n
    at_top += columns
    top = index.take(at_top)

    def counted(positions: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(positions, weights=weights, minlength=classes * cells).reshape(classes, cells)

    counts.cells += counted(index)
    counts.cells_p += counted(index, flat)
    label_index = index.take(at_label)
    counts.cells_positive += counted(label_index)
    counts.top += counted(top)
    counts.top_p += counted(top, highest)
    counts.top_correct += counted(top[correct])
    clipped = np.clip(of_label, CLIP, 1.0 - CLIP)
    counts.nll -= float(np.log(clipped).sum())
    counts.clipped += int(np.count_nonzero(clipped != of_label))
    # sum (p_c - [c = y])^2 = sum p_c^2 + sum over the label's own of 1 - 2 p_y
    counts.brier += np.einsum("cn,cn->c", exact, exact)
    counts.brier += np.bincount(labels, weights=1.0 - 2.0 * of_label, minlength=classes)
    counts.n += n


def _refuse_what_is_no_probability(p: np.ndarray, highest: np.ndarray) -> None:
    largest, smallest = float(highest.max()), float(p.min())
    if math.isnan(largest) or math.isnan(smallest):
        raise CalibUncertaintyError("probabilities hold NaN; predict the case again")
    if largest > 1.0 + TOLERANCE or smallest < -TOLERANCE:
        raise CalibUncertaintyError(
            f"probabilities from {smallest:g} to {largest:g} were met, outside 0 to 1; give probabilities, not logits"
        )


def _cell_index(p: np.ndarray, cells: int, room: _Room, rounded: bool) -> np.ndarray:
    """Position of each value in a (C, F) array of right-closed cells, flat, (C * n,).

    p times F is exact in double precision where p came from single or half precision, so its ceiling is the cell. Where p is
    double, the product may round over an edge: then (`rounded`) the edges themselves decide.
    """
    scaled = room.scaled[: p.size].reshape(p.shape)
    np.multiply(p, cells, out=scaled)
    np.ceil(scaled, out=scaled)
    np.maximum(scaled, 1.0, out=scaled)
    np.minimum(scaled, cells, out=scaled)
    if rounded:
        scaled -= (p <= (scaled - 1.0) / cells) & (scaled > 1.0)
        scaled += (p > scaled / cells) & (scaled < cells)
    scaled += room.offset
    # by way of int32, which processors convert several at a time
    short = room.index32[: p.size]
    np.copyto(short, scaled.ravel(), casting="unsafe")
    index = room.index[: p.size]
    np.copyto(index, short)
    return index


def _first_argmax(p: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """(n,) intp: the first class that has the highest probability. Many times faster than argmax along the first axis."""
    first = np.full(highest.size, len(p) - 1, np.uint8 if len(p) <= 256 else np.intp)
    for number in range(len(p) - 2, -1, -1):
        np.copyto(first, number, where=p[number] == highest)
    return first.astype(np.intp)
