"""Does each measure of a case's Result find the case's errors, and does each listed region hold one?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..evaluation.domains import Domain
from ..evaluation.edit_saving import EditCounts
from ..evaluation.error_components import error_components
from ..evaluation.localisation import LocalisationCounts, boundary_mm, near_boundary
from ..evaluation.localisation_result import localisation_result
from ..result_regions import RegionVoxels
from ..uncertainty.interface_distance import distance_to_interfaces
from ..uncertainty.region_calibration import holds_error
from .evaluate_window import CaseWindow

BUDGETS = (0.01, 0.02, 0.05)  # flagged shares at which measures are compared
STORED = "stored"  # name of the threshold that the Result brings: frozen, of the record, or our default


def localisation_of(window: CaseWindow, domains: Mapping[str, Domain]) -> dict:
    """{"errors": {domain: ...}, "measures": {measure: {"threshold", ..., "domains": {domain: ...}}}, "counts": {...}}.

    domains: where errors are looked for, by name. A domain's figures are those of `localisation_result`. "counts" holds the
    `LocalisationCounts` by (measure, domain), for pooling; whoever writes JSON takes it out.
    """
    limit = boundary_mm(window.spacing)
    near = near_boundary(distance_to_interfaces(window.label, window.spacing), limit)
    errors = {name: _errors(window, domain, near, limit) for name, domain in domains.items()}
    measures, counts = {}, {}
    for entry in window.result.provenance["maps"]["uncertainty"]:
        name = entry["measure"]
        found = measures[name] = {
            key: entry.get(key) for key in ("title", "unit", "threshold", "threshold_source", "status")
        }
        found["domains"] = {}
        if entry["file"] is None:
            continue
        u, threshold = window.measure(name), entry.get("threshold")
        thresholds = {} if threshold is None or not math.isfinite(threshold) else {STORED: float(threshold)}
        for place, domain in domains.items():
            counted = counts[name, place] = LocalisationCounts()
            inside = domain.mask
            counted.add(u[inside], window.error[inside], window.label[inside] > 0, near[inside])
            found["domains"][place] = localisation_result(
                counted, thresholds, BUDGETS, edits=_edits(window, u, inside),
                components=error_components(window.error & inside, u, near, window.spacing),
            )  # fmt: skip
    return {"errors": errors, "measures": measures, "counts": counts}


def _edits(window: CaseWindow, u: np.ndarray, inside: np.ndarray) -> EditCounts:
    """Right and wrong voxels of each structure, as the drawn segmentation has them."""
    values = window.reference.heads.values
    place = np.zeros(max(*values, int(window.label.max()), int(window.decoded.max())) + 1, np.intp)
    place[list(values)] = np.arange(1, len(values) + 1)
    counts = EditCounts(len(values) + 1)
    counts.add(u[inside], place[window.label[inside]], place[window.decoded[inside]])
    outside = window.valid & ~inside
    counts.add_outside(place[window.label[outside]], place[window.decoded[outside]])
    return counts


def _errors(window: CaseWindow, domain: Domain, near: np.ndarray, limit: float) -> dict:
    wrong, ml = window.error & domain.mask, math.prod(window.spacing) / 1000.0
    n, errors = int(np.count_nonzero(domain.mask)), int(np.count_nonzero(wrong))
    return {
        "domain": domain.id, "missed_structure": domain.missed_structure, "voxels": n, "volume_ml": n * ml, "errors": errors,
        "error_ml": errors * ml, "boundary_errors": int(np.count_nonzero(wrong & near)), "boundary_mm": limit,
        "outside": int(np.count_nonzero(window.error)) - errors,
        "status": "empty_roi" if n == 0 else "no_errors" if errors == 0 else "ok",
    }  # fmt: skip


def regions_of(window: CaseWindow) -> list[dict]:
    """Of every region that the Result lists whether it holds a real error (`holds_error`), beside the chance that was stated."""
    voxels, found = RegionVoxels.of_result(window.result), []
    start = np.rint(window.result.segmentation.index_from_lps(voxels.geometry.lps_from_index((0, 0, 0)))).astype(int)
    box = tuple(
        slice(int(a) - o, int(a) - o + n)
        for a, o, n in zip(start, window.start, voxels.geometry.array.shape, strict=True)
    )
    valid, error = (np.ascontiguousarray(array[box]).reshape(-1) for array in (window.valid, window.error))
    for region in window.result.regions:
        places = voxels.of[region.id]
        known, wrong = int(np.count_nonzero(valid[places])), int(np.count_nonzero(error[places]))
        found.append(
            {
                "id": region.id, "kind": region.kind, "structure": region.structure, "volume_ml": region.volume_ml,
                "score": region.score, "share": region.share, "chance": region.chance, "voxels": known, "wrong": wrong,
                "holds_error": holds_error(wrong, known, math.prod(window.spacing)) if known else None,
            }
        )  # fmt: skip
    return found
