"""How high a pooled exceedance usually is: its distribution over calibration cases by distance from the interfaces.

Neighbouring exceedances depend on each other, so no formula says how often their mean is high by chance: calibration cases do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..value_codes import COUNT, codes_of
from .distance_bands import BANDS, bands_of, refuse_nan
from .law_json import numbers, packed, texts, unpacked, whole_numbers
from .quantile_tables import LEAST_VOXELS, LEVELS, band_tables, tails_by_code

CHUNK_VOXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class PooledLaw:
    """The distribution of the pooled exceedance over all ROI voxels of calibration cases, for each unsigned band of distance.

    sigma_mm: how far it was pooled. tables: (T, 512) codes of quantiles; voxels: of each; table_of_band: (BANDS,), -1 where
    there is none; cases: whose voxels they are.
    """

    sigma_mm: float
    tables: np.ndarray
    voxels: tuple[int, ...]
    table_of_band: tuple[int, ...]
    cases: tuple[str, ...]

    @property
    def status(self) -> str:
        """ "ok", or "no_voxels" where no voxel was seen: then nothing ranks above 0."""
        return "ok" if self.voxels else "no_voxels"

    def rank(self, pooled: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """The share of calibration voxels of the same band whose pooled exceedance is lower, equal ones counting half.

        :param pooled: pooled exceedance, any shape. :param distance: mm to the interfaces, signed or not, of the same shape.
        :returns: float32 in [0, 1] of the same shape.
        :raises CalibUncertaintyError: when a value is NaN.
        """
        pooled, distance = np.asarray(pooled), np.asarray(distance)
        if pooled.shape != distance.shape:
            raise ValueError(f"expected arrays of one shape, got {pooled.shape} and {distance.shape}")
        refuse_nan(pooled)
        result = np.zeros(pooled.shape, np.float32)
        if self.status != "ok":
            return result
        flat, pooled, distance = result.reshape(-1), pooled.reshape(-1), distance.reshape(-1)
        last, tables = self._tails.shape[1] - 1, np.array(self.table_of_band)
        for start in range(0, flat.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            codes = np.minimum(codes_of(pooled[part]), last)
            flat[part] = 1.0 - self._tails[tables[bands_of(distance[part])], codes]
        return result

    @cached_property
    def _tails(self) -> np.ndarray:
        return tails_by_code(self.tables)

    def to_json(self) -> dict:
        """Plain JSON values, the tables as base64; part of a `ContextLaw`'s."""
        return {
            "sigma_mm": self.sigma_mm, "table_of_band": list(self.table_of_band), "voxels": list(self.voxels),
            "tables": packed(self.tables), "cases": list(self.cases),
        }  # fmt: skip

    @classmethod
    def read(cls, document: object) -> PooledLaw:
        """The law that `to_json` described; ValueError, in words, where it is damaged."""
        if not isinstance(document, Mapping):
            raise ValueError("'pooled' must be an object")
        voxels = whole_numbers(document, "voxels", 1)
        low, high = (0, len(voxels) - 1) if voxels else (-1, -1)
        (sigma,) = numbers({"sigma_mm": [document.get("sigma_mm")]}, "sigma_mm", 1)
        if not sigma > 0:
            raise ValueError("'sigma_mm' must be above 0")
        return cls(
            float(sigma), unpacked(document.get("tables"), len(voxels)), tuple(voxels),
            tuple(whole_numbers(document, "table_of_band", low, high, BANDS)), texts(document, "cases"),
        )  # fmt: skip


class PooledLawFit:
    """Accumulator for `PooledLaw`: a histogram of the pooled exceedance for each band, over the ROI voxels of many cases.

    :param sigma_mm: how far it is pooled, kept with the law.
    """

    def __init__(self, sigma_mm: float = 3.0, least_voxels: int = LEAST_VOXELS) -> None:
        self._sigma_mm = float(sigma_mm)
        self._least = least_voxels
        self._counts = np.zeros((BANDS, COUNT), np.int64)
        self._cases: dict[str, None] = {}

    def add(self, case_id: str, pooled: np.ndarray, distance: np.ndarray) -> None:
        """Add voxels of a case's region of interest, right and wrong ones; a case may come in several pieces.

        :param pooled: (N,) pooled exceedance (`exceedance.ebcu`). :param distance: (N,) mm to the interfaces, signed or not.
        :raises CalibUncertaintyError: when a value is NaN.
        """
        pooled, distance = np.asarray(pooled).reshape(-1), np.asarray(distance).reshape(-1)
        if pooled.shape != distance.shape:
            raise ValueError(f"{pooled.size} values but {distance.size} distances")
        refuse_nan(pooled, str(case_id))
        if pooled.size:
            self._cases[str(case_id)] = None
        for start in range(0, pooled.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            places = bands_of(distance[part]) * COUNT + codes_of(pooled[part])
            self._counts += np.bincount(places, minlength=BANDS * COUNT).reshape(BANDS, COUNT)

    def fit(self) -> PooledLaw:
        """The law of what was added."""
        found = band_tables(self._counts, self._least, always=True)
        if found is None:
            return PooledLaw(self._sigma_mm, np.zeros((0, LEVELS), np.uint16), (), (-1,) * BANDS, tuple(self._cases))
        return PooledLaw(
            self._sigma_mm, np.array(found.tables), tuple(found.voxels), found.table_of_band, tuple(self._cases)
        )
