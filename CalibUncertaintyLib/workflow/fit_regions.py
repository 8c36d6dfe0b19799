"""How often listed regions hold a real error: what a new patient's run would list on labelled cases, and what was wrong there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..model.heads import first_argmax
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.measures import expected_error
from ..uncertainty.region_calibration import RegionCalibrationFit, holds_error
from ..uncertainty.regions import find_regions
from .applied import AppliedCalibration
from .candidates import Reference, calibrated, parts
from .case_values import values_of_case
from .labelled import RoiVoxels
from .options import SegmentOptions

# Of the measures that a reader goes through a list of
REGION_MEASURES = ("entropy", "mi", "dae", "ebcu")
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
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, law: ContextLaw | None,
    thresholds: Mapping[str, Mapping], roi_mm: float,
) -> dict:  # fmt: skip
    """{measure: {"threshold", "roi_mm", how they were listed, "calibration"}} as it stands in the record; {} without places."""
    wanted = [name for name in REGION_MEASURES if name in thresholds]
    if not wanted or any(voxels.places is None for voxels in cases):
        return {}
    fits = {name: RegionCalibrationFit() for name in wanted}
    for voxels in cases:
        box = _box_of(voxels, calibration, reference, law, wanted) if voxels.size else None
        for name, fit in fits.items():
            fit.add_case(voxels.case.id)
            if box is not None:
                _add_case(fit, voxels.case.id, box, name, float(thresholds[name]["value"]), reference, roi_mm)
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
    measures: dict[str, np.ndarray]


def _box_of(
    voxels: RoiVoxels,
    calibration: AppliedCalibration,
    reference: Reference,
    law: ContextLaw | None,
    names: Sequence[str],
) -> _Box:
    """Near voxels and far ones, where a structure may have been missed, together; measures are known of the near ones."""
    places = voxels.places
    shape = places.shape
    box = _Box(
        _Grid(places.spacing), np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint16),
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, bool),
        places.scattered(np.asarray(voxels.near_prediction)) if voxels.of_body else None, {},
    )  # fmt: skip
    for part_of_case in (voxels, voxels.far):
        if part_of_case is not None:
            _fill(box, part_of_case, calibration, reference)
    for name, values in values_of_case(voxels, calibration, reference, law, names).items():
        box.measures[name] = places.scattered(values)
    return box


def _fill(box: _Box, voxels: RoiVoxels, calibration: AppliedCalibration, reference: Reference) -> None:
    heads = reference.heads
    at = voxels.places.positions
    box.distance.reshape(-1)[at], box.signed.reshape(-1)[at] = voxels.places.distance, voxels.places.signed
    for part in parts(voxels):
        p, label, _ = calibrated(voxels, part, calibration)
        here = at[part]
        box.label.reshape(-1)[here] = label
        box.foreground.reshape(-1)[here] = heads.foreground(p)
        box.expected.reshape(-1)[here] = expected_error(p, heads.sigmoid)
        box.likeliest.reshape(-1)[here] = np.asarray(heads.values, np.uint16)[first_argmax(heads.structures(p))]
        box.wrong.reshape(-1)[here] = label != reference.decoded(voxels.labels[part])


def _add_case(
    fit: RegionCalibrationFit, case: str, box: _Box, name: str, threshold: float, reference: Reference, roi_mm: float
) -> None:
    heads = reference.heads
    found = find_regions(
        box.measures[name], box.distance, box.label, box.foreground, box.expected, roi_mm, threshold, box.grid,
        dict(zip(heads.values, heads.names, strict=True)), LISTED["min_region_ml"] * 1000.0, LISTED["miss_probability"],
        box.likeliest, box.signed, LISTED["merge_gap_mm"], inside=box.inside,
    )  # fmt: skip
    voxel_mm3 = math.prod(box.grid.spacing_zyx)
    for region, places in zip(found, found.places, strict=True):
        wrong = int(np.count_nonzero(box.wrong.reshape(-1)[places]))
        fit.add(case, region.kind, region.score, holds_error(wrong, region.voxels, voxel_mm3))
