"""How much of a region of interest a threshold flags, and which threshold fits a reader's time: in voxels, mL, or a share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import COUNT, codes_of, values_of

CHUNK_VOXELS = 1 << 20


@dataclass(frozen=True)
class Budgeted:
    """A threshold t that was looked for, and what u >= t flags.

    `value` in the measure's unit; +inf flags nothing. `voxels`, `volume_ml` and `share` (of the region, [0, 1]) are flagged.
    `status`: "ok"; "everything" (the budget is larger than what is uncertain at all: every voxel with u > 0 is flagged); "tie" (so
    many voxels share the highest value that not even these fit: nothing is flagged); "empty_roi" (NaN, there is no voxel).
    """

    value: float
    voxels: int
    volume_ml: float
    share: float
    status: str

    def sentence(self) -> str:
        """What is flagged, for people."""
        if self.status == "empty_roi":
            return "The region of interest is empty: there is nothing to look at."
        if self.status == "tie":
            return "Nothing is flagged: the voxels that share the highest value are more than the budget."
        amount = f"{self.volume_ml:.1f} mL, {100 * self.share:.1f} % of the region of interest"
        return amount + (", which is all that is uncertain at all." if self.status == "everything" else ".")


class ValueCounts:
    """How often each value of a measure occurs in a region of interest, counted once, asked often.

    Values are counted by code (`value_codes`: relative resolution 2^-10), so every answer is exact for thresholds on the codes'
    grid, and an answer takes no more than a look-up, however many voxels there are.

    :param voxel_ml: volume of a voxel, mL.
    """

    def __init__(self, voxel_ml: float) -> None:
        if not (math.isfinite(voxel_ml) and voxel_ml > 0):
            raise ValueError(f"the volume of a voxel must be above 0 mL, got {voxel_ml}")
        self.voxel_ml = float(voxel_ml)
        self._counts = np.zeros(COUNT, np.int64)
        self._above: np.ndarray | None = None

    @classmethod
    def of(cls, u: np.ndarray, roi: np.ndarray | None, voxel_ml: float) -> ValueCounts:
        """Count a map (any shape) inside a region of interest (bool of the same shape; None for everywhere)."""
        counts = cls(voxel_ml)
        counts.add(u, roi)
        return counts

    def add(self, u: np.ndarray, roi: np.ndarray | None = None) -> None:
        """Count more voxels, in pieces that fit into a processor's cache.

        :raises CalibUncertaintyError: when u holds NaN inside the region. :raises ValueError: when the shapes differ.
        """
        u = np.asarray(u)
        if roi is not None and np.shape(roi) != u.shape:
            raise ValueError(f"expected arrays of one shape, got {u.shape} and {np.shape(roi)}")
        flat, inside = u.reshape(-1), None if roi is None else np.asarray(roi, bool).reshape(-1)
        for start in range(0, flat.size, CHUNK_VOXELS):
            part = flat[start : start + CHUNK_VOXELS]
            part = part if inside is None else part[inside[start : start + CHUNK_VOXELS]]
            if np.isnan(part).any():
                raise CalibUncertaintyError("the map of uncertainty holds NaN; predict the case again")
            self._counts += np.bincount(codes_of(part), minlength=COUNT)
        self._above = None

    @property
    def voxels(self) -> int:
        """How many voxels the region has."""
        return int(self._at_least[0])

    @property
    def _at_least(self) -> np.ndarray:
        """(COUNT + 1,) voxels with at least this code."""
        if self._above is None:
            self._above = np.concatenate([np.cumsum(self._counts[::-1])[::-1], [0]])
        return self._above

    def voxels_above(self, threshold: float) -> int:
        """How many voxels have u >= threshold; the threshold is rounded down to the codes' grid. 0 above the largest value."""
        if math.isnan(threshold):
            raise ValueError("the threshold must be a number")
        if threshold > float(values_of(np.array(COUNT - 1))):
            return 0 if math.isinf(threshold) else int(self._counts[-1])
        return int(self._at_least[int(codes_of(np.float32(threshold)))])

    def volume_above(self, threshold: float) -> float:
        """mL with u >= threshold."""
        return self.voxels_above(threshold) * self.voxel_ml

    def share_above(self, threshold: float) -> float:
        """Share of the region with u >= threshold, [0, 1]; NaN where it is empty."""
        return self.voxels_above(threshold) / self.voxels if self.voxels else math.nan

    def quantile(self, q: float) -> float:
        """The least value on the codes' grid that at least a share q of the region does not exceed; NaN where it is empty.

        :param q: [0, 1].
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, got {q}")
        if not self.voxels:
            return math.nan
        up_to = self.voxels - self._at_least[1:]
        return float(values_of(np.array(np.searchsorted(up_to, max(1.0, q * self.voxels - 1e-9)))))

    def threshold_for_volume(self, ml: float) -> Budgeted:
        """The lowest threshold that flags no more than so many mL. Source: review budget of Brioso et al. 2026, in mL."""
        if not (ml >= 0):
            raise ValueError(f"a budget must be 0 mL or more, got {ml}")
        return self._for_voxels(ml / self.voxel_ml)

    def threshold_for_share(self, share: float) -> Budgeted:
        """The lowest threshold that flags no more than this share of the region, [0, 1]."""
        if not 0 <= share <= 1:
            raise ValueError(f"a budget is a share of the region between 0 and 1, got {share}")
        return self._for_voxels(share * self.voxels)

    def _for_voxels(self, budget: float) -> Budgeted:
        if not self.voxels:
            return Budgeted(math.nan, 0, 0.0, math.nan, "empty_roi")
        allowed = math.floor(min(budget, self.voxels) + 1e-6)
        # codes are sorted upwards and voxels at least as high fall: the first code that fits; what is 0 is not uncertain
        code = 1 + int(np.searchsorted(-self._at_least[1:], -allowed))
        flagged = int(self._at_least[code])
        highest = int(np.flatnonzero(self._counts)[-1])
        if flagged == 0 and allowed > 0 and highest > 0:
            return self._flagged(math.inf, 0, "tie")
        if flagged == 0:
            return self._flagged(math.inf, 0, "ok" if highest > 0 else "everything")
        # the threshold is the least value that occurs, not one somewhere below it
        code += int(np.argmax(self._counts[code:] > 0))
        return self._flagged(
            float(values_of(np.array(code))), flagged, "everything" if flagged == int(self._at_least[1]) else "ok"
        )

    def _flagged(self, value: float, voxels: int, status: str) -> Budgeted:
        return Budgeted(value, voxels, voxels * self.voxel_ml, voxels / self.voxels, status)
