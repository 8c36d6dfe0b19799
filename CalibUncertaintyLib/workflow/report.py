"""Writing down a finished run of `segment`: the maps and result.json."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ..inference.scratch import Scratch
from ..result import RESULT_FILE, RESULT_SCHEMA, RESULT_SCHEMA_VERSION
from ..uncertainty.measures import MEASURES, binary_entropy
from ..uncertainty.roi import box_around, distance_to_structures
from ..version import __version__
from ..volume import Volume
from .case_scores import combined
from .context_maps import context_names
from .maps import structure
from .options import BODY
from .run import Run
from .writing import write_json

_WRITERS = 2
_PACKAGES = ("nnunetv2", "torch", "numpy", "SimpleITK", "edt", "connected-components-3d")


def write_result(folder: Path, run: Run, ct: str, warnings: list[str], began: float, scratch: Scratch) -> None:
    """Write maps, segmentation and result.json into a folder that is renamed into place afterwards; the scratch is given up."""
    (folder / "maps").mkdir()
    if "nifti" in run.options.export:
        (folder / "nifti").mkdir()
    with _MapWriter(folder, run) as writer:
        writer.segmentation()
        maps = {
            "probability": [writer.probability(index) for index in range(len(run.predictor.heads.names))],
            "uncertainty": [writer.measure(name) for name in MEASURES if name != "entropy_k"],
            "distance": writer.distance(),
            **writer.body(),
        }
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


class _MapWriter:
    """Each map as float32 NRRD over the box, with what it is in its header; and on the CT grid where asked.

    Compressing takes most of the time and leaves Python alone meanwhile, so two files are written at a time. As a context it
    ends when all of them are there, or raises what went wrong with the first that is not.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run
        self._done = 0
        self._total = len(run.model.labels) + len(run.maps.measures) + 2
        self._pool, self._waiting = ThreadPoolExecutor(_WRITERS), []

    def __enter__(self) -> _MapWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            while self._waiting and kind is None:
                self._finish_one()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, task: Callable[[], None]) -> None:
        if len(self._waiting) >= _WRITERS:  # no more arrays in memory than are being written
            self._finish_one()
        self._waiting.append(self._pool.submit(task))

    def _finish_one(self) -> None:
        self._waiting.pop(0).result()
        self._done += 1
        self._run.progress.report(self._done / self._total, "writing the maps")

    def segmentation(self) -> None:
        """The labels on the whole CT grid."""
        run, labels = self._run, self.on_ct_grid(self._run.label)
        folders = [self._folder, self._folder / "nifti"] if "nifti" in run.options.export else [self._folder]
        self._submit(lambda: [labels.write(folder / "segmentation.nii.gz") for folder in folders])

    def probability(self, index: int) -> dict:
        """Probability of one structure, by its place in `Heads.names`."""
        heads = self._run.predictor.heads
        name, value = heads.names[index], heads.values[index]
        array = self._run.case.frame.to_volume(self._run.maps.fields.read(structure(index)))
        file = f"maps/probability_{value}_{file_name(name)}.nrrd"
        self._write(array, file, {"kind": "probability", "label": str(value), "structure": name, "unit": "probability"})
        self._sum_up(value, array)
        return {"label": value, "name": name, "file": file, "unit": "probability", "range": [0.0, 1.0]}

    def _sum_up(self, value: int, p: np.ndarray) -> None:
        """Add to a structure's summary its expected volume, and its mean entropy inside (Mehrtash et al. 2020, Eq. 7)."""
        of_structure = self._run.aggregates["structures"][str(value)]
        of_structure["expected_volume_ml"] = float(p.sum(dtype=np.float64) * self._run.volume.voxel_volume_ml)
        inside = self._run.label == value
        box = box_around(inside)
        if box is not None:
            of_structure["seg_entropy_k"] = float(binary_entropy(p[box][inside[box]]).mean(dtype=np.float64))

    def measure(self, name: str) -> dict:
        """One measure of uncertainty, or why there is none."""
        run, measure, sigmoid = self._run, MEASURES[name], self._run.predictor.heads.sigmoid
        n_members = len(run.predictor.members)
        threshold, source = run.threshold_of(name)
        file = None
        if name in run.maps.measures:
            file = f"maps/uncertainty_{name}.nrrd"
            array = run.case.frame.to_volume(run.maps.fields.read(name))
            self._write(array, file, {"kind": "uncertainty", "measure": name, "unit": measure.unit})
        given = (run.predictor.n_classes, n_members, sigmoid)
        status = measure.status(n_members)
        return {
            "measure": name, "title": measure.title, "file": file, "unit": measure.unit,
            "range": [0.0, measure.upper(*given)], "scale": [0.0, measure.shown(*given)],
            "status": self._status(name) if file is None and status == "ok" else status,
            "sentence": measure.sentence_for(sigmoid), "threshold": threshold, "threshold_source": source,
        }  # fmt: skip

    def _status(self, name: str) -> str:
        """Why a measure that the members could give was not made: nothing says what is usual, or it was not asked for."""
        return (
            "not_computed"
            if MEASURES[name].stage == "voxel" or context_names([name], self._run.calibration.context)
            else "no_law"
        )

    def distance(self) -> dict:
        """Distance to the structures in mm; no file where the model found none."""
        file = None
        if np.isfinite(self._run.distance.flat[0]):
            file = "maps/distance.nrrd"
            self._write(self._run.distance, file, {"kind": "distance", "unit": "mm"})
        return {"file": file, "unit": "mm"}

    def body(self) -> dict:
        """The patient's body, 1 inside, where it is the region of interest."""
        if self._run.options.roi != BODY:
            return {}
        file = "maps/body.nrrd"
        self._write(self._run.inside.astype(np.uint8), file, {"kind": "body", "unit": "none"})
        return {"body": {"file": file}}

    def _write(self, array: np.ndarray, file: str, metadata: dict[str, str]) -> None:
        run = self._run
        common = {"calibrated": str(run.calibration.calibrated).lower(), "model": run.model.name}
        named = {f"CalibUncertainty.{key}": value for key, value in {**metadata, **common}.items()}
        volume = run.geometry.with_array(np.ascontiguousarray(array), named)
        self._submit(lambda: self._write_now(volume, file, metadata["kind"]))

    def _write_now(self, volume: Volume, file: str, kind: str) -> None:
        volume.write(self._folder / file)
        if "nifti" in self._run.options.export:
            whole = self.on_ct_grid(volume.array)
            if kind == "distance":  # known exactly everywhere, so not padded
                labels = self.on_ct_grid(self._run.label)
                whole = labels.with_array(distance_to_structures(labels.array, labels.spacing_zyx))
            whole.write(self._folder / "nifti" / (Path(file).stem + ".nii.gz"))

    def on_ct_grid(self, array: np.ndarray) -> Volume:
        """Outside the box: background, whose probability of a structure and whose uncertainty are 0."""
        whole = np.zeros(self._run.volume.array.shape, array.dtype)
        whole[tuple(slice(a, a + n) for a, n in zip(self._run.start, array.shape, strict=True))] = array
        return self._run.volume.with_array(whole)


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


def file_name(name: str) -> str:
    """A label's name with what file systems object to taken out."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "structure"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"calib-uncertainty": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
