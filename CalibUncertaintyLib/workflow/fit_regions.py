"""How often listed regions hold a real error: what a new patient's run would list on labelled cases, and what was wrong there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..model.heads import Heads
from ..uncertainty.region_calibration import RegionCalibrationFit, holds_error
from ..uncertainty.regions import find_regions
from .calibrated_case import REGION_MEASURES, CalibratedCase
from .options import SegmentOptions

_DEFAULTS = SegmentOptions()
LISTED = {name: getattr(_DEFAULTS, name) for name in ("min_region_ml", "miss_probability", "merge_gap_mm")}
"""How regions are listed when their chances are learnt: as `segment` lists them by default."""


@dataclass(frozen=True)
class _Grid:
    """Where voxels of a box lie: nowhere in particular, only their size counts."""

    spacing_zyx: tuple[float, float, float]

    def lps_from_index(self, index_zyx: np.ndarray) -> np.ndarray:
        return np.asarray(index_zyx, float)

    ras_from_index = lps_from_index


def fit_regions(
    cases: Sequence[CalibratedCase], heads: Heads, thresholds: Mapping[str, Mapping], roi_mm: float
) -> dict:
    """{measure: {"threshold", "roi_mm", how they were listed, "calibration"}} as it stands in the record; {} without places.

    cases: with the values of those of REGION_MEASURES that have a threshold.
    """
    wanted = [name for name in REGION_MEASURES if name in thresholds]
    if not wanted or any(case.voxels.places is None for case in cases):
        return {}
    fits = {name: RegionCalibrationFit() for name in wanted}
    for case in cases:
        name_of_case, box = case.voxels.case.id, _box_of(case) if case.voxels.size else None
        for name, fit in fits.items():
            fit.add_case(name_of_case)
            if box is not None:
                values = case.voxels.places.scattered(case.measures[name])
                _add_case(fit, name_of_case, box, values, float(thresholds[name]["value"]), heads, roi_mm)
    fitted = {name: fit.fit() for name, fit in fits.items()}
    return {
        name: {
            "threshold": float(thresholds[name]["value"]),
            "roi_mm": float(roi_mm),
            **LISTED,
            "calibration": found.to_json(),
        }
        for name, found in fitted.items()
        if found is not None
    }


@dataclass
class _Box:
    """A case as a run of `segment` would have it, in the box of its places; wrong: where the label is not the reference's;
    inside: the ROI, where it is no distance."""

    grid: _Grid
    distance: np.ndarray
    signed: np.ndarray
    label: np.ndarray
    foreground: np.ndarray
    expected: np.ndarray
    likeliest: np.ndarray
    wrong: np.ndarray
    inside: np.ndarray | None


def _box_of(case: CalibratedCase) -> _Box:
    """Near voxels and far ones, where a structure may have been missed, together; measures are known of the near ones."""
    places = case.voxels.places
    shape = places.shape
    box = _Box(
        _Grid(places.spacing), np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint16),
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, bool),
        places.scattered(np.asarray(case.voxels.near_prediction)) if case.voxels.of_body else None,
    )  # fmt: skip
    for part in (case, case.far):
        if part is not None:
            at = part.voxels.places.positions
            box.distance.reshape(-1)[at] = part.voxels.places.distance
            box.signed.reshape(-1)[at] = part.voxels.places.signed
            for name in ("label", "foreground", "expected", "likeliest", "wrong"):
                getattr(box, name).reshape(-1)[at] = getattr(part, name)
    return box


def _add_case(
    fit: RegionCalibrationFit, case: str, box: _Box, values: np.ndarray, threshold: float, heads: Heads, roi_mm: float
) -> None:
    """values: (z, y, x) of the measure that regions are made of."""
    found = find_regions(
        values, box.distance, box.label, box.foreground, box.expected, roi_mm, threshold, box.grid,
        dict(zip(heads.values, heads.names, strict=True)), LISTED["min_region_ml"] * 1000.0, LISTED["miss_probability"],
        box.likeliest, box.signed, LISTED["merge_gap_mm"], inside=box.inside,
    )  # fmt: skip
    voxel_mm3 = math.prod(box.grid.spacing_zyx)
    for region, places in zip(found, found.places, strict=True):
        wrong = int(np.count_nonzero(box.wrong.reshape(-1)[places]))
        fit.add(case, region.kind, region.score, holds_error(wrong, region.voxels, voxel_mm3))
