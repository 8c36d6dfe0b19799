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
# Values (voxels times classes) of one step: those of one class stay in the second-level cache.
CHUNK_VALUES = 393216
FEWEST_VOXELS = 4096
# Where fewer of a class's values than this share lie above the lowest cell, only they are sorted into cells.
SPARSE = 0.5
# Just below the largest block that glibc learns from.
KEPT_BYTES = 24_000_000
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
    dtype = np.dtype(np.float64 if p.dtype == np.float64 else np.float32)
    step = max(FEWEST_VOXELS, CHUNK_VALUES // classes)
    starts = range(0, voxels, step)
    # glibc gives freed memory back to the system until it has seen a larger block freed, and clearing it anew for every chunk
    # takes a quarter of the time. Nothing is written to this one.
    np.empty(KEPT_BYTES, np.uint8)
    workers = min(threads_for(p.size, threads), max(1, len(starts)))

    def part(worker: int) -> Counts:
        counts, room = Counts.empty(classes, bins), _Room(step, dtype)
        for start in starts[worker::workers]:
            chunk = np.ascontiguousarray(p[:, start : start + step], dtype=dtype)
            _add_chunk(counts, room, chunk, labels[start : start + step])
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

    def __init__(self, voxels: int, dtype: np.dtype) -> None:
        self.exact, self.scaled = np.empty(voxels), np.empty(voxels)
        self.short, self.index = np.empty(voxels, np.int32), np.empty(voxels, np.intp)
        self.above = np.empty(voxels, bool)
        self.highest = np.empty(voxels, dtype)


def _add_chunk(counts: Counts, room: _Room, p: np.ndarray, labels: np.ndarray) -> None:
    """p: (C, n) contiguous float32 or float64. labels: (n,).

    The label of a right voxel is its predicted class, so its probability is sorted into a cell once for both; only the wrong
    ones are looked at again.
    """
    classes, cells = counts.cells.shape
    predicted = _first_argmax(p, room)
    of_label = room.highest[: labels.size].astype(np.float64)
    _refuse_what_is_no_probability(p, of_label)
    for number, of_class in enumerate(p):
        _add_class(counts, room, number, of_class)
    wrong = np.flatnonzero(predicted != labels)
    wrong_labels, wrong_predicted, wrong_p = labels.take(wrong), predicted.take(wrong), of_label.take(wrong)

    def cells_of(of_classes: np.ndarray, values: np.ndarray) -> np.ndarray:
        at = of_classes.astype(np.intp)
        at *= cells
        at += _cells_of(values, cells, room, p.dtype)
        return at

    def counted(at: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(at, weights=weights, minlength=classes * cells).reshape(classes, cells)

    at_top = cells_of(predicted, of_label)
    top, top_p = counted(at_top), counted(at_top, of_label)
    correct = top - counted(cells_of(wrong_predicted, wrong_p))
    of_wrong = of_label[wrong] = p[wrong_labels, wrong].astype(np.float64)
    counts.top += top
    counts.top_p += top_p
    counts.top_correct += correct
    counts.cells_positive += correct
    counts.cells_positive += counted(cells_of(wrong_labels, of_wrong))
    # sum (p_c - [c = y])^2 = sum p_c^2 + sum over the label's own of 1 - 2 p_y; of right voxels that is 1 - 2 max p
    counts.brier += correct.sum(axis=1) - 2.0 * top_p.sum(axis=1)
    counts.brier += np.bincount(wrong_predicted, weights=2.0 * wrong_p, minlength=classes)
    counts.brier += np.bincount(wrong_labels, weights=1.0 - 2.0 * of_wrong, minlength=classes)
    clipped = np.clip(of_label, CLIP, 1.0 - CLIP)
    counts.clipped += int(np.count_nonzero(clipped != of_label))
    counts.nll -= float(np.log(clipped, out=clipped).sum())
    counts.n += labels.size


def _add_class(counts: Counts, room: _Room, number: int, of_class: np.ndarray) -> None:
    """Cells and squares of one class, (n,). Most values of a segmentation lie in the lowest cell: they are not sorted in."""
    n, cells = of_class.size, counts.cells.shape[1]
    exact, scaled, above = room.exact[:n], room.scaled[:n], room.above[:n]
    np.copyto(exact, of_class)
    counts.brier[number] += np.multiply(exact, exact, out=scaled).sum()
    np.greater(of_class, _below(1.0 / cells, of_class.dtype), out=above)
    here = np.flatnonzero(above)
    if here.size < SPARSE * n:
        values = exact.take(here)
        exact[here] = 0.0
        counts.cells[number, 0] += n - here.size
        counts.cells_p[number, 0] += exact.sum()
    else:
        values = exact
    if values.size:
        index = _cells_of(values, cells, room, of_class.dtype)
        counts.cells[number] += np.bincount(index, minlength=cells)
        counts.cells_p[number] += np.bincount(index, weights=values, minlength=cells)


def _below(limit: float, dtype: np.dtype) -> np.floating:
    """The largest number of this type that is not above the limit: comparing with it is comparing with the limit."""
    value = dtype.type(limit)
    return value if float(value) <= limit else np.nextafter(value, dtype.type(0))


def _refuse_what_is_no_probability(p: np.ndarray, highest: np.ndarray) -> None:
    largest, smallest = float(highest.max()), float(p.min())
    if math.isnan(largest) or math.isnan(smallest):
        raise CalibUncertaintyError("probabilities hold NaN; predict the case again")
    if largest > 1.0 + TOLERANCE or smallest < -TOLERANCE:
        raise CalibUncertaintyError(
            f"probabilities from {smallest:g} to {largest:g} were met, outside 0 to 1; give probabilities, not logits"
        )


def _cells_of(values: np.ndarray, cells: int, room: _Room, dtype: np.dtype) -> np.ndarray:
    """The right-closed cell of each value (n,) float64, in [0, F), as intp; overwritten by the next call.

    A value times F is exact in double precision where it came from single precision, so its ceiling is the cell. Where it was
    double, the product may round over an edge: then the edges themselves decide.
    """
    scaled = np.multiply(values, cells, out=room.scaled[: values.size])
    np.ceil(scaled, out=scaled)
    np.maximum(scaled, 1.0, out=scaled)
    np.minimum(scaled, cells, out=scaled)
    if dtype == np.float64:
        scaled -= (values <= (scaled - 1.0) / cells) & (scaled > 1.0)
        scaled += (values > scaled / cells) & (scaled < cells)
    scaled -= 1.0
    # by way of int32, which processors convert several at a time
    short, index = room.short[: values.size], room.index[: values.size]
    np.copyto(short, scaled, casting="unsafe")
    np.copyto(index, short)
    return index


def _first_argmax(p: np.ndarray, room: _Room) -> np.ndarray:
    """(n,): the first class with the highest probability, which is left in `room.highest` (NaN where one is NaN)."""
    n = p.shape[1]
    kind = np.uint8 if len(p) <= 256 else np.intp
    first, candidate = np.zeros(n, kind), np.empty(n, kind)
    highest, greater = room.highest[:n], room.above[:n]
    ones = greater.view(np.uint8)
    np.copyto(highest, p[0])
    for number in range(1, len(p)):
        np.greater(p[number], highest, out=greater)
        # a later class has a higher number, so the highest number among the records is the last record's
        np.multiply(ones, kind(number), out=candidate)
        np.maximum(first, candidate, out=first)
        np.maximum(highest, p[number], out=highest)
    return first
