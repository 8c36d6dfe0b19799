"""Writing the maps of a run, beside what is still computed where memory allows."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..uncertainty.measures import MEASURES, binary_entropy
from ..uncertainty.roi import box_around, distance_to_structures
from ..volume import Volume
from .context_maps import context_names
from .maps import structure
from .options import BODY
from .run import Run

_DISTANCE, _BODY = "maps/distance.nrrd", "maps/body.nrrd"
_WRITERS = 2
_BESIDE_BYTES = 1 << 27  # of a map; larger ones wait until nothing else needs the room


class MapWriter:
    """Each map as float32 NRRD over the box, with what it is in its header; and on the CT grid where asked.

    Compressing takes most of the time and leaves Python alone meanwhile, so two files are written at a time, and no more maps than
    these are in memory. As a context it leaves nobody writing behind.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        """Begins with small maps; `finish` does the rest. folder: exists and has no folder `maps` yet."""
        self._folder, self._run = folder, run
        self._pool, self._waiting = ThreadPoolExecutor(_WRITERS), []
        self._figures: dict[int, dict[str, float]] = {}
        (folder / "maps").mkdir()
        if "nifti" in run.options.export:
            (folder / "nifti").mkdir()
        if run.label.size * np.dtype(np.float32).itemsize <= _BESIDE_BYTES:
            self._waiting = self._begun()

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def finish(self) -> dict:
        """Write what is not written yet; "maps" of result.json. Raises what went wrong with the first that could not be written."""
        run = self._run
        waiting = self._waiting or self._begun()
        for done, future in enumerate(waiting, start=1):
            future.result()
            run.progress.report(done / len(waiting), "writing the maps")
        for value, figures in self._figures.items():
            run.aggregates["structures"][str(value)] |= figures
        heads = run.predictor.heads
        return {
            "probability": [
                {"label": value, "name": name, "file": _probability_file(value, name), "unit": "probability", "range": [0.0, 1.0]}
                for value, name in zip(heads.values, heads.names, strict=True)
            ],
            "uncertainty": [self._about(name) for name in MEASURES if name != "entropy_k"],
            "distance": {"file": _DISTANCE if self._has_distance else None, "unit": "mm"},
            **({"body": {"file": _BODY}} if run.options.roi == BODY else {}),
        }  # fmt: skip

    def _begun(self) -> list[Future]:
        """Everything that there is to write, on its way."""
        run = self._run
        tasks = [self._segmentation]
        tasks += [lambda index=index: self._probability(index) for index in range(len(run.predictor.heads.names))]
        tasks += [lambda name=name: self._measure(name) for name in MEASURES if name in run.maps.measures]
        if self._has_distance:
            tasks.append(lambda: self._write(run.distance, _DISTANCE, {"kind": "distance", "unit": "mm"}))
        if run.options.roi == BODY:
            tasks.append(lambda: self._write(run.inside.astype(np.uint8), _BODY, {"kind": "body", "unit": "none"}))
        return [self._pool.submit(task) for task in tasks]

    @property
    def _has_distance(self) -> bool:
        """Whether the model found any structure to be distant from."""
        return bool(np.isfinite(self._run.distance.flat[0]))

    def _segmentation(self) -> None:
        """The labels on the whole CT grid."""
        run, labels = self._run, self._on_ct_grid(self._run.label)
        folders = [self._folder, self._folder / "nifti"] if "nifti" in run.options.export else [self._folder]
        for folder in folders:
            labels.write(folder / "segmentation.nii.gz")

    def _probability(self, index: int) -> None:
        """Probability of one structure, by its place in `Heads.names`, and what its summary says of it."""
        heads = self._run.predictor.heads
        name, value = heads.names[index], heads.values[index]
        array = self._run.case.frame.to_volume(self._run.maps.fields.read(structure(index)))
        self._figures[value] = self._summed_up(value, array)
        metadata = {"kind": "probability", "label": str(value), "structure": name, "unit": "probability"}
        self._write(array, _probability_file(value, name), metadata)

    def _summed_up(self, value: int, p: np.ndarray) -> dict[str, float]:
        """A structure's expected volume, and its mean entropy inside (Mehrtash et al. 2020, Eq. 7) where it is predicted."""
        found = {"expected_volume_ml": float(p.sum(dtype=np.float64) * self._run.volume.voxel_volume_ml)}
        inside = self._run.label == value
        box = box_around(inside)
        if box is not None:
            found["seg_entropy_k"] = float(binary_entropy(p[box][inside[box]]).mean(dtype=np.float64))
        return found

    def _measure(self, name: str) -> None:
        array = self._run.case.frame.to_volume(self._run.maps.fields.read(name))
        metadata = {"kind": "uncertainty", "measure": name, "unit": MEASURES[name].unit}
        self._write(array, _measure_file(name), metadata)

    def _about(self, name: str) -> dict:
        """One measure of uncertainty, or why there is none."""
        run, measure, sigmoid = self._run, MEASURES[name], self._run.predictor.heads.sigmoid
        n_members = len(run.predictor.members)
        threshold, source = run.threshold_of(name)
        file = _measure_file(name) if name in run.maps.measures else None
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

    def _write(self, array: np.ndarray, file: str, metadata: dict[str, str]) -> None:
        run = self._run
        common = {"calibrated": str(run.calibration.calibrated).lower(), "model": run.model.name}
        named = {f"CalibUncertainty.{key}": value for key, value in {**metadata, **common}.items()}
        volume = run.geometry.with_array(np.ascontiguousarray(array), named)
        volume.write(self._folder / file)
        if "nifti" in run.options.export:
            whole = self._on_ct_grid(volume.array)
            if metadata["kind"] == "distance":  # known exactly everywhere, so not padded
                labels = self._on_ct_grid(run.label)
                whole = labels.with_array(distance_to_structures(labels.array, labels.spacing_zyx))
            whole.write(self._folder / "nifti" / (Path(file).stem + ".nii.gz"))

    def _on_ct_grid(self, array: np.ndarray) -> Volume:
        """Outside the box: background, whose probability of a structure and whose uncertainty are 0."""
        whole = np.zeros(self._run.volume.array.shape, array.dtype)
        whole[tuple(slice(a, a + n) for a, n in zip(self._run.start, array.shape, strict=True))] = array
        return self._run.volume.with_array(whole)


def _probability_file(value: int, name: str) -> str:
    return f"maps/probability_{value}_{file_name(name)}.nrrd"


def _measure_file(name: str) -> str:
    return f"maps/uncertainty_{name}.nrrd"


def file_name(name: str) -> str:
    """A label's name with what file systems object to taken out."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "structure"
