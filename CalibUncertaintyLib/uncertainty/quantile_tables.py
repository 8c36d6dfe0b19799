"""Distributions of values as tables of 512 quantiles, and how much of a distribution lies above a value.

A table holds, for falling shares of the distribution, the code (`value_codes`) of the value that this share exceeds. The shares
are dense where they are small: half of them divide what lies below the highest tenth evenly, the others go on from 0.1 to 1e-4
in steps of 2.7 %, with 0.05 among them. Our definition.

A value counts as the middle of those equal to it (mid-rank). Only the order of values matters: nothing is interpolated, so a
rising map of all values changes nothing but which of them share a code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .distance_bands import BANDS

LEVELS = 512
LEAST_VOXELS = 2000  # of a table: a tail of 1 in 1000 still has two voxels, one of 5 % a hundred
_EVEN, _TO_TWENTIETH = 256, 26
TAILS = np.concatenate([
    1.0 - (np.arange(_EVEN) + 0.5) * (0.9 / _EVEN),
    0.1 * 0.5 ** (np.arange(_TO_TWENTIETH) / _TO_TWENTIETH),
    np.geomspace(0.05, 1e-4, LEVELS - _EVEN - _TO_TWENTIETH),
])  # fmt: skip
"""The share of a distribution that lies above each of a table's values, falling; (512,)."""
# what lies above a value between two of a table's values, and beyond its ends
_BETWEEN = np.concatenate([[1.0], (TAILS[1:] + TAILS[:-1]) / 2.0, [0.0]])


def table_of(counts: np.ndarray) -> np.ndarray:
    """(512,) uint16 codes, never falling: for each of TAILS the least code above which no larger share lies.

    :param counts: (COUNT,) voxels at each code, at least one in all.
    """
    reached = np.cumsum(counts)
    total = int(reached[-1])
    if total < 1:
        raise ValueError("a table of quantiles needs at least one voxel")
    wanted = np.maximum((1.0 - TAILS) * total - 1e-12 * total, 1.0)
    return np.searchsorted(reached, wanted, side="left").astype(np.uint16)


def tails_by_code(tables: np.ndarray) -> np.ndarray:
    """(T, W) float32: of each table the share above each code, those of the code itself half; 0 from code W - 1 on.

    :param tables: (T, 512) codes.
    """
    width = int(tables.max(initial=0)) + 2
    found = np.empty((len(tables), width), np.float32)
    for row, table in zip(found, tables, strict=True):
        up_to = np.cumsum(np.bincount(table, minlength=width))
        below = np.concatenate([[0], up_to[:-1]])
        row[:] = (_BETWEEN[below] + _BETWEEN[up_to]) / 2.0
    return found


@dataclass(frozen=True)
class BandTables:
    """Tables of some bands: (512,) codes each, their medians' codes and voxels, and which of them each of the BANDS bands takes."""

    tables: list[np.ndarray]
    medians: list[int]
    voxels: list[int]
    table_of_band: tuple[int, ...]


def band_tables(counts: np.ndarray, least: int, always: bool = False) -> BandTables | None:
    """One table for each band; bands of fewer than `least` voxels merge outward, what is left over with the nearest other.

    :param counts: (BANDS, COUNT) voxels.
    :param always: with fewer than `least` voxels in all make one table of what there is.
    :returns: None where all bands together have too few voxels.
    """
    groups = merged_bands(counts.sum(axis=1), least)
    if not groups and always and counts.any():
        groups = [list(range(BANDS))]
    if not groups:
        return None
    summed = [counts[group].sum(axis=0) for group in groups]
    places = [number for number, group in enumerate(groups) for _ in group]
    voxels = [int(of_group.sum()) for of_group in summed]
    medians = [int(np.searchsorted(np.cumsum(s), (n + 1) // 2)) for s, n in zip(summed, voxels, strict=True)]
    return BandTables([table_of(of_group) for of_group in summed], medians, voxels, tuple(places))


def merged_bands(voxels: Sequence[int], least: int) -> list[list[int]]:
    """Neighbouring bands in groups of at least `least` voxels, from the interface outward; [] where there are too few in all."""
    groups: list[list[int]] = []
    waiting: list[int] = []
    for band in range(len(voxels)):
        waiting.append(band)
        if sum(int(voxels[b]) for b in waiting) >= least:
            groups.append(waiting)
            waiting = []
    if groups:
        groups[-1] += waiting
    return groups
