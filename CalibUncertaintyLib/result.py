"""`Result`: what one CT gave, a folder on disk, opened again with its geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .ct_digest import has_voxels
from .errors import CalibUncertaintyError
from .plain_json import parsed
from .result_check import problem_in
from .uncertainty.measures import binary_entropy
from .uncertainty.regions import Region
from .volume import Volume

RESULT_SCHEMA = "calib-uncertainty/result"
RESULT_SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
STORED_STEP = 2.0**-20  # probabilities are stored rounded down to multiples of it
LARGEST_RAW_ERROR = 0.05  # beyond it a raw probability is not given: what is stored no longer says what it was
_AGAIN = "copy the whole Result folder again or run segment again"
_POOL_MODES = ("pool_logit", "pool_prob")


@dataclass(frozen=True)
class Result:
    """A finished Result folder. Maps may be cropped to the box around the structures; their geometry says where they lie."""

    folder: Path
    provenance: dict

    @classmethod
    def open(cls, folder: str | Path) -> Result:
        """Open a Result folder.

        Raises CalibUncertaintyError, one line naming the file, for a folder that is not a finished Result of this version.
        """
        path = Path(folder) / RESULT_FILE
        if not path.is_file():
            raise CalibUncertaintyError(f"{folder} is not a Result folder: there is no {RESULT_FILE} in it")
        try:
            content = parsed(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibUncertaintyError(
                f"{path} cannot be read; copy the Result folder again or run segment again"
            ) from error
        if not isinstance(content, dict) or content.get("schema") != RESULT_SCHEMA:
            raise CalibUncertaintyError(f"{path} is not a Result of CalibUncertainty")
        version = content.get("schema_version")
        if version != RESULT_SCHEMA_VERSION:
            newer = isinstance(version, int) and version > RESULT_SCHEMA_VERSION
            raise CalibUncertaintyError(
                f"{path} was written in version {version} of the format, this program reads version {RESULT_SCHEMA_VERSION};"
                f" {'update CalibUncertainty to open it' if newer else 'run segment again'}"
            )
        if content.get("status") != "complete":
            raise CalibUncertaintyError(f"{path} is not of a finished run; run segment again")
        problem = problem_in(content)
        if problem:
            raise CalibUncertaintyError(
                f"{path} is damaged: {problem}; copy the Result folder again or run segment again"
            )
        return cls(Path(folder), content)

    @property
    def labels(self) -> dict[int, str]:
        """Foreground structures {1: "Brainstem", ...}."""
        return {int(item["index"]): str(item["name"]) for item in self.provenance["model"]["labels"]}

    def is_of(self, array: np.ndarray) -> bool | None:
        """Whether this was made from a CT with these voxels (z, y, x), HU; None in older Results, which cannot tell.

        See `ct_digest.ct_digest` for what is compared.
        """
        return has_voxels(array, self.provenance.get("ct", {}).get("voxels_digest"))

    @property
    def calibrated(self) -> bool:
        """Whether a valid calibration was applied to the probabilities."""
        return bool(self.provenance["calibration"]["calibrated"])

    @cached_property
    def segmentation(self) -> Volume:
        """Labels (z, y, x) on the whole CT grid."""
        name = self.provenance["segmentation"]["file"]
        volume, highest = self._read(name, in_box=False), max(self.labels)
        whole = volume.array.dtype.kind in "iu"
        if not whole or volume.array.min() < 0 or volume.array.max() > highest:
            raise CalibUncertaintyError(
                f"{self.folder / name} does not hold the Result's labels, whole numbers from 0 to {highest}; {_AGAIN}"
            )
        return volume

    @cached_property
    def distance(self) -> Volume:
        """Distance in mm from the nearest predicted structure, 0 inside.

        Raises CalibUncertaintyError where the model found no structure.
        """
        name = self.provenance["maps"]["distance"]["file"]
        if name is None:
            raise CalibUncertaintyError(f"{self.folder} has no distance map: the model found no structure in this CT")
        return self._read(name)

    @property
    def of_body(self) -> bool:
        """Whether the region of interest is the patient's body, in place of a distance from the structures."""
        return self.provenance["roi"].get("reference") == "body"

    @cached_property
    def body(self) -> Volume:
        """The patient's body, 1 inside, over the box of the maps.

        Raises CalibUncertaintyError where it was not the region of interest of the run.
        """
        entry = self.provenance["maps"].get("body")
        if entry is None:
            raise CalibUncertaintyError(f"{self.folder} has no map of the body; run segment with --roi body")
        return self._read(entry["file"])

    def probability(self, label: int | str) -> Volume:
        """Probability in [0, 1] of one structure, by number or name; calibrated where `calibrated` is true."""
        return self._read(self._probability_entry(label)["file"])

    @cached_property
    def raw_availability(self) -> tuple[bool, str]:
        """Whether `raw_probability` can be had, and why not, in one sentence.

        A temperature of the pooled probability can be taken back; what each member was divided by before they were averaged, and
        other methods of calibration, cannot.
        """
        calibration = self.provenance["calibration"]
        if not self.calibrated:
            return False, "What is shown is raw already: this result was not calibrated"
        mode, method = calibration.get("mode"), calibration.get("method") or "temperature"
        again = "run segment again with calibration none to see the raw one"
        if mode not in _POOL_MODES:
            return False, (
                f"The members were calibrated before they were averaged (mode {mode}), which the stored maps do not undo; {again}"
            )
        if method != "temperature":
            return False, f"Calibration by {method} cannot be undone from the stored maps; {again}"
        count, wanted = len(self.provenance["maps"]["probability"]), self._temperatures
        regions = isinstance(calibration.get("temperature"), list)
        if not wanted or not all(0 < t < math.inf for t in wanted) or len(wanted) != (count if regions else 1):
            return False, f"{self.folder / RESULT_FILE} does not say which temperature was applied; {again}"
        if self.raw_precision > LARGEST_RAW_ERROR:
            return False, (
                f"At temperature {min(wanted):.2f} the raw probability cannot be told from the stored maps (it may be off by"
                f" {self.raw_precision:.2f}); {again}"
            )
        return True, ""

    @cached_property
    def raw_precision(self) -> float:
        """The most that a raw probability may be off, in 0..1, because p is stored rounded down to d = 2^-20.

        Bounds, for K structures (regions: K = 1, each by itself): 4 T (K + 1) K d for T >= 1, for the largest p is at least
        1 / (K + 1) and p^T has the slope T p^(T-1); 2 (K d^T + (K d)^T) below, where p^T is steepest at 0 and the sum of all p^T
        is at least 1. d includes float32's own rounding. Our derivation.
        """
        k = 1 if self.overlapping else len(self.provenance["maps"]["probability"])
        d = STORED_STEP + float(np.finfo(np.float32).eps)
        return max(4 * t * (k + 1) * k * d if t >= 1 else 2 * (k * d**t + (k * d) ** t) for t in self._temperatures)

    @cached_property
    def overlapping(self) -> bool:
        """Whether the structures are regions that may overlap (sigmoid heads), each with a probability of its own.

        Told by the largest entropy that result.json names: ln 2 for regions, ln(1 + K) for K structures that exclude each other.
        Of a single structure, where both are ln 2, both are the same two-class problem.
        """
        upper = {item["measure"]: item["range"][1] for item in self.provenance["maps"]["uncertainty"]}
        several = len(self.provenance["maps"]["probability"]) > 1
        return several and float(upper["entropy"]) < 0.5 * (math.log(2) + math.log(3))

    def raw_probability(self, label: int | str) -> Volume:
        """Probability in [0, 1] of one structure, by number or name, before it was calibrated.

        Calibration by a temperature T of the pooled probability is taken back: p^T / sum_c p_c^T over all classes, the background
        1 - sum p among them; of regions that may overlap p^T / (p^T + (1 - p)^T), each with its own T. Exact but for the step in
        which p is stored; `raw_precision` bounds it. The first call reads every structure's map, one at a time; the sum that all
        structures share, 4 bytes a voxel of the box, is kept as long as this object.
        Raises CalibUncertaintyError with the reason of `raw_availability` where it cannot be had.
        Source: the inverse of Guo et al. 2017, Eq. 9, by our definition.
        """
        available, reason = self.raw_availability
        if not available:
            raise CalibUncertaintyError(f"{self.folder}: {reason}")
        entry = self._probability_entry(label)
        calibrated = self._read(entry["file"])
        raw = np.zeros(calibrated.array.shape, np.float32)
        if self.overlapping:
            place = self.provenance["maps"]["probability"].index(entry)
            temperature = self._temperatures[place if len(self._temperatures) > 1 else 0]
            norms = map(lambda p: _binary_norm(p, temperature), calibrated.array)
        else:
            temperature, norms = self._temperatures[0], self._norm
        for plane, p, norm in zip(raw, calibrated.array, norms, strict=True):
            inside = p > 0
            plane[inside] = (p[inside].astype(np.float64) / norm[inside]) ** temperature
        metadata = {**calibrated.metadata, "CalibUncertainty.calibrated": "false", "CalibUncertainty.raw": "true"}
        return calibrated.with_array(raw, metadata)

    @property
    def _temperatures(self) -> list[float]:
        """Of the pooled probability: one, or one for each region; empty where result.json holds none."""
        stored = self.provenance["calibration"].get("temperature")
        return [float(t) for t in (stored if isinstance(stored, list) else [] if stored is None else [stored])]

    @cached_property
    def _norm(self) -> np.ndarray:
        """(sum over all classes of p^T)^(1/T), (z, y, x) float32: unlike the sum itself it never leaves float32's range."""
        temperature, norm, foreground = self._temperatures[0], None, None
        for entry in self.provenance["maps"]["probability"]:
            probability = self._read(entry["file"]).array
            if norm is None:
                norm, foreground = np.zeros(probability.shape, np.float32), np.zeros(probability.shape, np.float32)
            for of_plane, total, p in zip(norm, foreground, probability, strict=True):
                _add_to_norm(of_plane, p, temperature)
                total += p
        for of_plane, total in zip(norm, foreground, strict=True):
            _add_to_norm(of_plane, np.maximum(1 - total, 0), temperature)
        return norm

    def uncertainty(self, measure: str, label: int | str | None = None) -> Volume:
        """One measure in its own unit. `entropy_k` (nats) is of one structure, which `label` names.

        Raises CalibUncertaintyError for an unknown measure, for one that was not computed, and for one that a single member cannot
        give.
        """
        if measure == "entropy_k":
            if label is None:
                raise CalibUncertaintyError("entropy_k is the entropy of one structure; name it with label=")
            entry = self._probability_entry(label)
            probability = self._read(entry["file"])
            metadata = {
                **probability.metadata, "CalibUncertainty.kind": "uncertainty", "CalibUncertainty.measure": "entropy_k",
                "CalibUncertainty.unit": "nats",
            }  # fmt: skip
            return probability.with_array(binary_entropy(probability.array), metadata)
        entries = {item["measure"]: item for item in self.provenance["maps"]["uncertainty"]}
        if measure not in entries:
            raise CalibUncertaintyError(
                f"{self.folder} has no measure '{measure}'; it has {', '.join(entries)} and entropy_k"
            )
        if entries[measure].get("status") == "not_computed":
            raise CalibUncertaintyError(
                f"{measure} was not computed for {self.folder}; run segment with --measures all, or with its name"
            )
        if entries[measure].get("status") == "no_law":
            raise CalibUncertaintyError(
                f"{measure} compares with what is usual in calibration cases, which {self.folder} was made without; calibrate the"
                " model and run segment again"
            )
        if entries[measure]["file"] is None:
            raise CalibUncertaintyError(
                f"{measure} compares several members and this result has a single one; run segment with more folds"
            )
        return self._read(entries[measure]["file"])

    @cached_property
    def regions(self) -> list[Region]:
        """Uncertain regions and places of a possible miss, in the order in which to look at them."""
        return [Region.from_json(item) for item in self.provenance["regions"]]

    def _probability_entry(self, label: int | str) -> dict:
        for item in self.provenance["maps"]["probability"]:
            if label in (item["label"], item["name"]):
                return item
        names = ", ".join(f"{index} {name}" for index, name in self.labels.items())
        raise CalibUncertaintyError(f"{self.folder} has no structure '{label}'; it has {names}")

    def _read(self, name: str, in_box: bool = True) -> Volume:
        path = self.folder / name
        if not path.is_file():
            raise CalibUncertaintyError(
                f"{path} is missing from the Result folder; copy the whole folder or run segment again"
            )
        volume = Volume.read(path, check=False)
        self._refuse_other_place(volume, path, in_box)
        return volume

    def _refuse_other_place(self, volume: Volume, path: Path, in_box: bool) -> None:
        """A map of another size or place than result.json says was edited, or is of another Result."""
        geometry, box = self.provenance.get("geometry"), self.provenance.get("box")
        if geometry is None or box is None:  # made by hand, not opened: a folder's result.json has both
            return
        size = tuple((box if in_box else geometry)["size_xyz"])[::-1]
        if volume.array.shape != size:
            there, wanted = (" x ".join(str(n) for n in shape[::-1]) for shape in (volume.array.shape, size))
            raise CalibUncertaintyError(f"{path} has {there} voxels and {RESULT_FILE} says {wanted}; {_AGAIN}")
        spacing, start = np.array(geometry["spacing_xyz_mm"]), np.array(box["start_xyz"] if in_box else (0, 0, 0))
        direction = np.array(geometry["direction_lps"]).reshape(3, 3)
        corners = np.array([(0, 0, 0), np.array(size[::-1]) - 1])
        wanted = np.array(geometry["origin_lps_mm"]) + ((start + corners) * spacing) @ direction.T
        if np.abs(volume.lps_from_index(corners[:, ::-1]) - wanted).max() > 0.1 * spacing.min():
            raise CalibUncertaintyError(f"{path} lies elsewhere than {RESULT_FILE} says; {_AGAIN}")


def _binary_norm(p: np.ndarray, temperature: float) -> np.ndarray:
    """(p^T + (1 - p)^T)^(1/T) of one region's plane."""
    norm = np.array(p, np.float32)
    _add_to_norm(norm, 1 - p, temperature)
    return norm


def _add_to_norm(norm: np.ndarray, p: np.ndarray, temperature: float) -> None:
    """norm becomes (norm^T + p^T)^(1/T), in place, where p is not 0; in double precision, which holds every p^T."""
    both = (p > 0) & (norm > 0)
    np.maximum(norm, p, out=norm, where=~both)
    powers = norm[both].astype(np.float64) ** temperature + p[both].astype(np.float64) ** temperature
    norm[both] = powers ** (1 / temperature)
