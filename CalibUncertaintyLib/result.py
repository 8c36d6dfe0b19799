"""`Result`: what one CT gave, a folder on disk, opened again with its geometry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import CalibUncertaintyError
from .uncertainty.measures import binary_entropy
from .uncertainty.regions import Region
from .volume import Volume

RESULT_SCHEMA = "calib-uncertainty/result"
RESULT_SCHEMA_VERSION = 1
RESULT_FILE = "result.json"


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
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibUncertaintyError(
                f"{path} cannot be read; copy the Result folder again or run segment again"
            ) from error
        if not isinstance(content, dict) or content.get("schema") != RESULT_SCHEMA:
            raise CalibUncertaintyError(f"{path} is not a Result of CalibUncertainty")
        if content.get("schema_version") != RESULT_SCHEMA_VERSION:
            raise CalibUncertaintyError(
                f"{path} was written in version {content.get('schema_version')} of the format, this program reads version"
                f" {RESULT_SCHEMA_VERSION}; run segment again"
            )
        missing = [key for key in ("calibration", "maps", "model", "regions", "segmentation") if key not in content]
        if missing:
            raise CalibUncertaintyError(f"{path} has no '{missing[0]}'; it is damaged: run segment again")
        if content.get("status") != "complete":
            raise CalibUncertaintyError(f"{path} is not of a finished run; run segment again")
        return cls(Path(folder), content)

    @property
    def labels(self) -> dict[int, str]:
        """Foreground structures {1: "Brainstem", ...}."""
        return {int(item["index"]): str(item["name"]) for item in self.provenance["model"]["labels"]}

    @property
    def calibrated(self) -> bool:
        """Whether a valid calibration was applied to the probabilities."""
        return bool(self.provenance["calibration"]["calibrated"])

    @cached_property
    def segmentation(self) -> Volume:
        """Labels (z, y, x) on the whole CT grid."""
        return self._read(self.provenance["segmentation"]["file"])

    @cached_property
    def distance(self) -> Volume:
        """Distance in mm from the nearest predicted structure, 0 inside.

        Raises CalibUncertaintyError where the model found no structure.
        """
        name = self.provenance["maps"]["distance"]["file"]
        if name is None:
            raise CalibUncertaintyError(f"{self.folder} has no distance map: the model found no structure in this CT")
        return self._read(name)

    def probability(self, label: int | str) -> Volume:
        """Probability in [0, 1] of one structure, by number or name; calibrated where `calibrated` is true."""
        return self._read(self._probability_entry(label)["file"])

    def uncertainty(self, measure: str, label: int | str | None = None) -> Volume:
        """One measure in its own unit. `entropy_k` (nats) is of one structure, which `label` names.

        Raises CalibUncertaintyError for an unknown measure and for one that a single member cannot give.
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

    def _read(self, name: str) -> Volume:
        path = self.folder / name
        if not path.is_file():
            raise CalibUncertaintyError(
                f"{path} is missing from the Result folder; copy the whole folder or run segment again"
            )
        return Volume.read(path, check=False)
