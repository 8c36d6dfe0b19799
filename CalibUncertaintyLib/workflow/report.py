"""Writing down a finished run of `segment`: result.json, when its maps are written (`map_writer`)."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ..inference.scratch import Scratch
from ..result import RESULT_FILE, RESULT_SCHEMA, RESULT_SCHEMA_VERSION
from ..uncertainty.measures import MEASURES
from ..version import __version__
from .case_scores import combined
from .map_writer import MapWriter
from .options import BODY
from .run import Run
from .writing import write_json

_PACKAGES = ("nnunetv2", "torch", "numpy", "SimpleITK", "edt", "connected-components-3d")


def write_result(
    folder: Path, run: Run, writer: MapWriter, ct: str, warnings: list[str], began: float, scratch: Scratch
) -> None:
    """Write what is missing of the maps, and result.json, into a folder that is renamed into place afterwards; the scratch is
    given up."""
    maps = writer.finish()
    scratch.close()
    _place_among_calibration_cases(run)
    content = _document(run, ct, warnings, maps)
    forward = {"forward": run.predictor.forward_seconds}
    stages = run.progress.stages_so_far()  # writing too, as far as it has come
    seconds = {name: stage["s"] for name, stage in stages.items()}
    content["timings_s"] = {**seconds, **forward, "total": time.perf_counter() - began}
    content["stages"] = stages
    content["peak_memory_mb"] = run.progress.peak_mb
    content["peak_memory_of_stages"] = "own" if run.progress.peak_is_of_stage else "since the process began"
    content["estimate"] = run.estimate.to_json()
    write_json(folder / RESULT_FILE, content)


def _place_among_calibration_cases(run: Run) -> None:
    """Add to the summaries how the case and its structures stand; see `combined`."""
    structures, calibration = run.aggregates["structures"], run.calibration
    figures = run.entropy_summed_up
    for value, of_structure in structures.items():
        figures["structures"][value]["seg_entropy_k"] = of_structure["seg_entropy_k"]
    roi_mm = None if run.options.roi == BODY else run.options.roi_mm
    run.aggregates["combined"] = combined(figures, calibration.case_scores, calibration.calibrated, roi_mm)


def _document(run: Run, ct: str, warnings: list[str], maps: dict) -> dict:
    model, volume, options = run.model, run.volume, run.options
    fingerprint, frame = run.members.fingerprint(), run.case.frame
    roi_voxels = int(np.count_nonzero(run.inside))
    return {
        "schema": RESULT_SCHEMA,
        "schema_version": RESULT_SCHEMA_VERSION,
        "status": "complete",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "ct": {
            "path": ct, "kind": "dicom" if Path(ct).is_dir() else "file",
            "description": " x ".join(map(str, volume.array.shape[::-1])) + " voxels",
            "voxels_digest": volume.voxels_digest(),
        },
        "geometry": {
            "size_xyz": list(volume.array.shape[::-1]), "spacing_xyz_mm": list(volume.spacing_zyx[::-1]),
            "origin_lps_mm": list(volume.origin_lps), "direction_lps": volume.direction_lps.ravel().tolist(),
        },
        "box": {"start_xyz": list(run.start[::-1]), "size_xyz": list(run.label.shape[::-1])},
        "boxes": [
            {
                "start_xyz": list(frame.start_in_volume(box.start, box.stop, run.case.full_shape)[::-1]),
                "size_xyz": [box.shape[axis] for axis in np.argsort(frame.axes)][::-1],
            }
            for box in run.maps.boxes
        ],
        "model": {
            "name": model.name, "folder": str(model.path), "configuration": model.configuration, "trainer": run.predictor.trainer,
            "labels": [{"index": index, "name": name} for index, name in model.labels.items()],
            "plans_sha256": fingerprint["plans_sha256"], "checkpoints": fingerprint["checkpoints"],
        },
        "members": [member.to_json() for member in run.predictor.members],
        "member_set": run.members.to_json(),
        "previous_stage": run.previous and run.previous.provenance,
        "effective_members": run.effective_members["number"],
        "member_spread": run.effective_members["spread"],
        "precision": {"name": run.predictor.precision, **(run.precision or {})},
        "device": str(run.predictor.device),
        "calibration": run.calibration.to_json(run.members),
        "segmentation": {"file": "segmentation.nii.gz", "voxels": int(np.count_nonzero(run.label)), "volumes_ml": _volumes(run)},
        "changed_labels": {"by_pooling": run.maps.changed_by_pooling, "by_temperature": run.maps.changed_by_temperature},
        "maps": maps,
        "roi": {
            "distance_mm": options.roi_mm, "reference": "body" if options.roi == BODY else "predicted structures",
            "voxels": roi_voxels, "volume_ml": roi_voxels * volume.voxel_volume_ml,
        },
        "threshold": {
            "measure": options.measure, "value": run.threshold, "unit": MEASURES[options.measure].unit,
            "source": run.threshold_source,
        },
        "min_region_ml": options.min_region_ml,
        "merge_gap_mm": options.merge_gap_mm,
        "miss_probability": options.miss_probability,
        "aggregates": run.aggregates,
        "regions": [region.to_json() for region in run.regions],
        "regions_left_out_as_too_small": run.regions.dropped,
        "left_out": {"largest_foreground_probability": run.left_out},
        "warnings": warnings,
        "versions": versions(),
    }  # fmt: skip


def _volumes(run: Run) -> dict[str, float]:
    counts = np.bincount(run.label.ravel(), minlength=max(run.model.labels) + 1)
    return {name: float(counts[index] * run.volume.voxel_volume_ml) for index, name in run.model.labels.items()}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"calib-uncertainty": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
