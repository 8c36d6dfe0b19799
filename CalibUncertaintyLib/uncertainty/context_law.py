"""What uncertainty is usual at which place: its distribution over right voxels, by predicted class and distance to an interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..value_codes import COUNT, codes_of, values_of
from .distance_bands import BANDS, EDGES_MM, bands_of, refuse_nan
from .law_json import check_schema, damaged, numbers, packed, texts, unpacked, whole_numbers
from .pooled_law import PooledLaw
from .quantile_tables import LEAST_VOXELS, LEVELS, BandTables, band_tables, tails_by_code

SCHEMA, SCHEMA_VERSION = "calib-uncertainty-context-law", 1
CHUNK_VOXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class ContextLaw:
    """The distribution of a measure u over right voxels, for each predicted class and band of distance (`distance_bands`).

    measure: what u is. labels: the classes, K of them, 0 first. tables: (T, 512) codes of quantiles (`quantile_tables`).
    voxels: of each table. table_of_band: (K + 1, BANDS) the table of each class and band, -1 where there is none; the last
    row is of all structures, for a label that is not among these. medians: (BANDS,) float32 median of u over all classes.
    cases: whose voxels they are. pooled: what is usual of the pooled exceedance, once that is known.
    """

    measure: str
    labels: tuple[int, ...]
    tables: np.ndarray
    voxels: tuple[int, ...]
    table_of_band: np.ndarray
    medians: np.ndarray
    cases: tuple[str, ...]
    pooled: PooledLaw | None = None

    @property
    def status(self) -> str:
        """ "ok", or "no_voxels" where no voxel was seen: then nothing is unusual anywhere."""
        return "ok" if self.voxels else "no_voxels"

    def tail(self, u: np.ndarray, label: np.ndarray, signed_distance: np.ndarray) -> np.ndarray:
        """1 - F(u): the share of right voxels of the same class and band that are more uncertain, equal ones counting half.

        :param u: values of the measure, any shape. :param label: predicted classes, of the same shape; one that the law does
            not know is compared with all structures of that band. :param signed_distance: mm, of the same shape.
        :returns: float32 in [0, 1] of the same shape; 1 everywhere where the law has seen no voxel.
        :raises CalibUncertaintyError: when u holds NaN.
        Source: our definition.
        """
        u, label, distance = _alike(u, label, signed_distance)
        result = np.ones(u.shape, np.float32)
        if self.status != "ok":
            refuse_nan(u)
            return result
        flat, u, label, distance = result.reshape(-1), u.reshape(-1), label.reshape(-1), distance.reshape(-1)
        last = self._tails.shape[1] - 1
        for start in range(0, flat.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            refuse_nan(u[part])
            table = self.table_of_band[self._row_of(label[part]), bands_of(distance[part])]
            flat[part] = self._tails[table, np.minimum(codes_of(u[part]), last)]
        return result

    def _row_of(self, label: np.ndarray) -> np.ndarray:
        rows = np.full(max(self.labels) + 2, len(self.labels))
        rows[list(self.labels)] = np.arange(len(self.labels))
        return rows[np.minimum(label.astype(np.intp), len(rows) - 1)]

    @cached_property
    def _tails(self) -> np.ndarray:
        return tails_by_code(self.tables)

    def with_pooled(self, pooled: PooledLaw) -> ContextLaw:
        """This law, with what is usual of the exceedance that follows from it."""
        return replace(self, pooled=pooled)

    def to_json(self) -> dict:
        """Plain JSON values, the tables as base64."""
        return {
            "schema": SCHEMA, "schema_version": SCHEMA_VERSION, "measure": self.measure, "edges_mm": list(EDGES_MM),
            "labels": list(self.labels), "table_of_band": self.table_of_band.tolist(), "voxels": list(self.voxels),
            "tables": packed(self.tables), "medians": [float(value) for value in self.medians], "cases": list(self.cases),
            "pooled": None if self.pooled is None else self.pooled.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping) -> ContextLaw:
        """The law that `to_json` described.

        :raises CalibUncertaintyError: in one line, when the document is damaged or of another version.
        """
        try:
            return cls._read(document)
        except ValueError as error:
            raise damaged(str(error)) from None

    @classmethod
    def _read(cls, document: Mapping) -> ContextLaw:
        check_schema(document, SCHEMA, SCHEMA_VERSION)
        if document.get("edges_mm") != list(EDGES_MM):
            raise ValueError("'edges_mm' are not the bands of this program")
        if not isinstance(document.get("measure"), str):
            raise ValueError("'measure' must be a text")
        labels = whole_numbers(document, "labels", 0, 2**16)
        if len(set(labels)) != len(labels) or labels[:1] != [0]:
            raise ValueError("'labels' must be different numbers, 0 first")
        voxels = whole_numbers(document, "voxels", 1)
        rows = document.get("table_of_band")
        if not isinstance(rows, list) or len(rows) != len(labels) + 1:
            raise ValueError("'table_of_band' must have a row for each label and one for all structures")
        low, high = (0, len(voxels) - 1) if voxels else (-1, -1)
        rows = [whole_numbers({"table_of_band": row}, "table_of_band", low, high, BANDS) for row in rows]
        pooled = document.get("pooled")
        return cls(
            document["measure"], tuple(labels), unpacked(document.get("tables"), len(voxels)), tuple(voxels),
            np.array(rows), numbers(document, "medians", BANDS).astype(np.float32), texts(document, "cases"),
            None if pooled is None else PooledLaw.read(pooled),
        )  # fmt: skip


class ContextLawFit:
    """Accumulator for `ContextLaw`: of every class a histogram of u for each band, over the right voxels of many cases.

    Of a class with at least `least_voxels`, bands with fewer merge outward, and what is left outermost with the nearest band.
    A class with fewer takes the tables of all structures together, and where these are too few, background's too, those of all
    classes by unsigned band.

    :param labels: values of the classes a voxel can have; 0 is always among them. :param measure: what u is, for the record.
    """

    def __init__(self, labels: Sequence[int], measure: str = "entropy", least_voxels: int = LEAST_VOXELS) -> None:
        self.labels = (0, *sorted({int(label) for label in labels} - {0}))
        if self.labels[-1] > 2**16 or min(self.labels) < 0:
            raise ValueError(f"labels must lie in 0 .. 65536, got {self.labels}")
        self.measure = measure
        self._least = least_voxels
        self._counts: dict[int, np.ndarray] = {}
        self._cases: dict[str, None] = {}

    def add(
        self, case_id: str, u: np.ndarray, label: np.ndarray, signed_distance: np.ndarray, correct: np.ndarray
    ) -> None:
        """Add voxels of a case's region of interest; a case may come in several pieces.

        :param u: (N,) values of the measure. :param label: (N,) predicted classes. :param signed_distance: (N,) mm.
        :param correct: (N,) bool; only these voxels are counted.
        :raises CalibUncertaintyError: when u holds NaN. :raises ValueError: when shapes differ or a label is not known.
        """
        arrays = _alike(u, label, signed_distance, np.asarray(correct, bool))
        arrays = [array.reshape(-1) for array in arrays]
        if arrays[0].size:
            self._cases[str(case_id)] = None
        for start in range(0, arrays[0].size, CHUNK_VOXELS):
            of_chunk = [array[start : start + CHUNK_VOXELS] for array in arrays]
            refuse_nan(of_chunk[0], str(case_id))
            self._count(*(array[of_chunk[3]] for array in of_chunk[:3]))

    def _count(self, u: np.ndarray, label: np.ndarray, distance: np.ndarray) -> None:
        places = bands_of(distance) * COUNT + codes_of(u)
        for value in np.flatnonzero(np.bincount(label)).tolist():
            if value not in self.labels:
                raise ValueError(f"label {value} is not among {self.labels}")
            found = np.bincount(places[label == value], minlength=BANDS * COUNT).reshape(BANDS, COUNT)
            if value in self._counts:
                self._counts[value] += found
            else:
                self._counts[value] = found

    def fit(self) -> ContextLaw:
        """The law of what was added."""
        nothing = np.zeros((BANDS, COUNT), np.int64)
        structures = sum((counts for label, counts in self._counts.items() if label), start=nothing)
        everything = structures + self._counts.get(0, nothing)
        of_all = band_tables(everything, self._least, always=True)
        rows = _Rows()
        if of_all is not None:
            of_structures = band_tables(structures, self._least) or of_all
            for label in self.labels:
                own = band_tables(self._counts.get(label, nothing), self._least)
                rows.add(own or (of_structures if label else of_all))
            rows.add(of_structures)
        else:
            rows.places = [[-1] * BANDS] * (len(self.labels) + 1)
        return ContextLaw(
            self.measure, self.labels, np.array(rows.tables, np.uint16).reshape(-1, LEVELS), tuple(rows.voxels),
            np.array(rows.places), _medians(of_all), tuple(self._cases),
        )  # fmt: skip


class _Rows:
    """The tables of several classes, each kept once."""

    def __init__(self) -> None:
        self.tables: list[np.ndarray] = []
        self.voxels: list[int] = []
        self.places: list[list[int]] = []
        self._start: dict[int, int] = {}
        self._kept: list[BandTables] = []

    def add(self, of_class: BandTables) -> None:
        """The row of the next class."""
        if id(of_class) not in self._start:
            self._kept.append(of_class)  # so that no other gets its id
            self._start[id(of_class)] = len(self.tables)
            self.tables += of_class.tables
            self.voxels += of_class.voxels
        start = self._start[id(of_class)]
        self.places.append([start + place for place in of_class.table_of_band])


def _medians(of_all: BandTables | None) -> np.ndarray:
    """(BANDS,) float32 median of each band; 0 where nothing was seen."""
    if of_all is None:
        return np.zeros(BANDS, np.float32)
    return values_of(np.array(of_all.medians)[list(of_all.table_of_band)])


def _alike(first: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Arrays of one shape; ValueError otherwise, and when labels, the second, are below 0."""
    arrays = [np.asarray(array) for array in (first, *others)]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"expected arrays of one shape, got {[array.shape for array in arrays]}")
    if arrays[1].size and (arrays[1].dtype.kind not in "iub" or arrays[1].min() < 0):
        raise ValueError("labels must be whole numbers from 0 up")
    return arrays
