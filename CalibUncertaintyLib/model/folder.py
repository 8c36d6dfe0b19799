"""`ModelFolder`: a trained nnU-Net v2 folder, read without torch."""

from __future__ import annotations

import hashlib
import mmap
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..plain_json import parsed
from .folder_check import check_labels, check_plans, is_whole_number, label_number, settings_of
from .heads import Heads

FINAL_CHECKPOINT = "checkpoint_final.pth"
RECORD_NAME = "calibration.json"
SPLITS_NAME = "splits_final.json"
Fold = int | str  # 0, 1, ... or "all", the fold nnU-Net trains on every case


@dataclass(frozen=True)
class ModelFolder:
    """A trained nnU-Net v2 folder: `plans.json`, `dataset.json` and `fold_*` with checkpoints."""

    path: Path
    plans: dict
    dataset: dict
    folds: list[Fold]

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Open a trained nnU-Net folder; its parent, or one of its fold folders, is understood too.

        Raises CalibUncertaintyError, one line naming the folder or file, for anything else.
        """
        folder = _find_model_folder(Path(path))
        plans, dataset = _read_json(folder / "plans.json"), _read_json(folder / "dataset.json")
        for name, content, key in (("plans.json", plans, "configurations"), ("dataset.json", dataset, "labels")):
            if not isinstance(content.get(key), dict) or not content[key]:
                raise CalibUncertaintyError(
                    f"{folder / name} has no '{key}'; it is not one of nnU-Net v2's, copy it again"
                )
        model = cls(folder, plans, dataset, _folds_of(folder))
        if not model.folds:
            raise CalibUncertaintyError(f"{folder} holds no fold_*/{FINAL_CHECKPOINT}; copy the trained folds there")
        return model

    @property
    def name(self) -> str:
        """The dataset's name, as in Dataset501_HeadNeck."""
        return str(self.plans.get("dataset_name") or self.path.parent.name or self.path.name)

    @property
    def trainer(self) -> str:
        """Trainer class, as nnU-Net writes it into the folder's name; empty where the folder was renamed."""
        return self.path.name.split("__")[0] if self.path.name.count("__") == 2 else ""

    @property
    def configuration(self) -> str:
        """2d, 3d_fullres, ...: from the folder's name, or the plans' only one; empty where only the checkpoint can tell."""
        name = self.path.name.split("__")[-1]
        known = list(self.plans["configurations"])
        return name if name in known else known[0] if len(known) == 1 else ""

    @property
    def labels(self) -> dict[int, str]:
        """Foreground structures by their number in the segmentation, in the order of the network's channels: {1: "Brainstem", ...}.

        Of a model with regions {regions_class_order: region}; CalibUncertaintyError where dataset.json does not fit together.
        """
        if self.has_regions:
            return dict(zip(self.heads.values, self.heads.names, strict=True))
        numbered = {name: label_number(value) for name, value in self.dataset["labels"].items() if name != "ignore"}
        return {value: name for name, value in sorted(numbered.items(), key=lambda i: i[1] or 0) if value}

    @property
    def heads(self) -> Heads:
        """What the network's output channels mean. Raises CalibUncertaintyError where dataset.json does not fit together."""
        return Heads.of(self.dataset["labels"], self.dataset.get("regions_class_order"), self.path / "dataset.json")

    @property
    def has_regions(self) -> bool:
        """Whether the model has a sigmoid head for each of several overlapping regions."""
        return any(isinstance(value, list | tuple) and len(value) > 1 for value in self.dataset["labels"].values())

    @property
    def channels(self) -> list[str]:
        """What the model wants as input, in order: ["CT"].

        Raises CalibUncertaintyError where dataset.json does not list them as nnU-Net v2 does.
        """
        key = "channel_names" if self.dataset.get("channel_names") else "modality"
        names = self.dataset.get(key) or {"0": "CT"}
        if not isinstance(names, dict) or not all(is_whole_number(index) for index in names):
            raise CalibUncertaintyError(
                f'{self.path / "dataset.json"}: \'{key}\' does not number the channels as in {{"0": "CT"}};'
                " it is not one of nnU-Net v2's, copy it again"
            )
        return [str(names[key]) for key in sorted(names, key=int)]

    @property
    def record_path(self) -> Path:
        """Where the calibration record of this model lies, if there is one."""
        return self.path / RECORD_NAME

    def checkpoint_path(self, fold: Fold, checkpoint: str = FINAL_CHECKPOINT) -> Path:
        """The checkpoint file of one fold (it need not exist)."""
        return self.path / f"fold_{fold}" / checkpoint

    def checkpoints(self, fold: Fold) -> list[str]:
        """File names of all checkpoints of a fold, checkpoint_final first and cycle2 before cycle10; [] without that fold."""
        names = [file.name for file in (self.path / f"fold_{fold}").glob("*.pth") if file.is_file()]

        def order(name: str) -> tuple:
            parts = re.split(r"([0-9]+)", name)
            return name != FINAL_CHECKPOINT, [int(part) if part.isdecimal() else part for part in parts]

        return sorted(names, key=order)

    @property
    def previous_stage(self) -> str | None:
        """The configuration whose segmentation a cascade takes as input, as in "3d_lowres"; None where there is none.

        None too where only the checkpoint knows the configuration. Raises CalibUncertaintyError for damaged plans.
        """
        return (settings_of(self.plans, self.configuration, self.path / "plans.json") or {}).get("previous_stage")

    def previous_model(self, path: str | Path | None = None) -> ModelFolder:
        """The model of a cascade's previous stage: the folder beside this one, or the one that the user names.

        Raises CalibUncertaintyError when this model has no previous stage, and when that one is missing or is another.
        """
        stage = self.previous_stage
        if stage is None:
            raise CalibUncertaintyError(
                f"{self.name} ({self.configuration}) has no previous stage; leave --previous out"
            )
        if path is None:
            parts = self.path.name.split("__")
            beside = self.path.with_name("__".join([*parts[:-1], stage]))
            if len(parts) != 3 or not beside.is_dir():
                missing = f"{beside} does not exist" if len(parts) == 3 else "its folder was renamed"
                raise CalibUncertaintyError(
                    f"{self.path} is the second stage of a cascade and needs the model {stage} of the same training; {missing}:"
                    " copy it there, or name it with --previous DIR"
                )
            path = beside
        model = ModelFolder.open(path)
        if model.configuration not in ("", stage):
            raise CalibUncertaintyError(
                f"{model.path} is a model {model.configuration}; the cascade {self.path.name} needs {stage} as its previous stage"
            )
        for what, mine, theirs in (
            ("labels", self.dataset["labels"], model.dataset["labels"]),
            ("regions_class_order", self.dataset.get("regions_class_order"), model.dataset.get("regions_class_order")),
            ("input channels", self.channels, model.channels),
        ):
            if mine != theirs:
                raise CalibUncertaintyError(
                    f"{model.path} cannot be the previous stage of {self.path.name}: their {what} differ ({theirs} and {mine});"
                    " name the one of the same training"
                )
        return model

    def select_folds(self, folds: str | Fold | list[Fold] | tuple[Fold, ...] = "all") -> list[Fold]:
        """Folds to use, in the order asked for; "all" means every numbered fold, or fold_all where it is the only one.

        Raises CalibUncertaintyError that names the missing fold and the ones that are there.
        """
        if folds == "all":
            return list(self.folds)
        asked = [folds] if isinstance(folds, int | str) else list(folds)
        chosen: list[Fold] = []
        for item in asked:
            fold: Fold = int(item) if is_whole_number(str(item)) else str(item)
            if fold not in chosen:
                chosen.append(fold)
        missing = [str(fold) for fold in chosen if not self.checkpoint_path(fold).is_file()]
        if missing or not chosen:
            there = ", ".join(str(fold) for fold in self.folds)
            raise CalibUncertaintyError(
                f"{self.path} has no fold {', '.join(missing) or '(none given)'} with {FINAL_CHECKPOINT}; it has: {there}"
            )
        return chosen

    def fingerprint(self, folds: list[Fold], checkpoint: str = FINAL_CHECKPOINT) -> dict:
        """What a calibration record is tied to: hashes of plans, dataset and the checkpoints of these folds, and the labels."""
        return {
            "name": self.name,
            "configuration": self.configuration,
            "trainer": self.trainer,
            "labels": {str(index): name for index, name in self.labels.items()},
            "plans_sha256": _sha256_of(self.path / "plans.json"),
            "dataset_sha256": _sha256_of(self.path / "dataset.json"),
            "checkpoints": [
                {"fold": fold, "checkpoint": checkpoint, "sha256": _sha256_of(self.checkpoint_path(fold, checkpoint))}
                for fold in folds
            ],
        }

    def plans_digest(self) -> str:
        """SHA-256 of plans.json."""
        return _sha256_of(self.path / "plans.json")

    @property
    def splits_paths(self) -> tuple[Path, Path]:
        """Where a `splits_final.json` that came with the model may lie: in its folder, or one up, in that of its dataset.

        One that lies elsewhere, such as in nnUNet_preprocessed, may be of another training.
        """
        return self.path / SPLITS_NAME, self.path.parent / SPLITS_NAME

    def training_cases(self, fold: Fold) -> list[str] | None:
        """Identifiers of the cases this fold was trained on, from the first of `splits_paths` that is there; None without it."""
        try:
            path = next((path for path in self.splits_paths if path.is_file()), self.splits_paths[0])
            splits = parsed(path.read_text(encoding="utf-8"))
            if fold == "all":
                return sorted({case for split in splits for case in [*split["train"], *split["val"]]})
            return list(splits[int(fold)]["train"])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return None

    def refuse_unsupported(self) -> None:
        """Raise CalibUncertaintyError, one line, that names what in the folder this version cannot run or what is damaged."""
        channels = self.channels
        if self.has_regions:
            _ = self.heads
        else:
            check_labels(self.dataset["labels"], self.path / "dataset.json")
        settings = settings_of(self.plans, self.configuration, self.path / "plans.json")
        check_plans(self.plans, settings, len(channels), self.path / "plans.json")

    def describe(self, folds: str | list[Fold] = "all", previous: str | Path | None = None) -> list[str]:
        """Plain sentences about what is in the folder, for a panel or a terminal. previous: see `previous_model`."""
        lines = [f"{self.name}, {self.configuration or 'configuration named in the checkpoints'}"]
        try:
            names = list(self.labels.values()) or list(self.dataset["labels"])
            kind = "Regions that may overlap" if self.has_regions else "Structures"
            lines.append(f"{kind} ({len(self.labels)}): {', '.join(names)}")
            lines.append(f"Folds: {', '.join(str(fold) for fold in self.folds)}")
            channels = self.channels
            count = f" ({len(channels)} images, in this order)" if len(channels) > 1 else ""
            lines.append(f"Input: {', '.join(channels)}{count}")
            self.refuse_unsupported()
            self.select_folds(folds)
            if self.previous_stage is not None:
                model = self.previous_model(previous)
                model.refuse_unsupported()
                lines.append(f"Second stage of a cascade; {self.previous_stage} is run first: {model.path}")
        except CalibUncertaintyError as error:
            lines.append(f"Cannot be run: {error}")
        return lines


def _find_model_folder(path: Path) -> Path:
    if not path.exists():
        raise CalibUncertaintyError(f"{path} does not exist; choose a trained nnU-Net v2 model folder")
    if not path.is_dir():
        raise CalibUncertaintyError(
            f"{path} is a file; choose the folder of a trained nnU-Net v2 model (with plans.json)"
        )
    if (path / "plans.json").is_file():
        return path
    if path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        return path.parent
    try:
        inside = sorted(found.parent for found in path.glob("*/plans.json"))
    except OSError:
        inside = []
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise CalibUncertaintyError(f"{path} holds several models, choose one: {', '.join(f.name for f in inside)}")
    raise CalibUncertaintyError(
        f"{path} is not a trained nnU-Net v2 model (no plans.json in it); choose the folder Trainer__Plans__configuration"
    )


def _folds_of(folder: Path) -> list[Fold]:
    names = [found.parent.name[5:] for found in folder.glob(f"fold_*/{FINAL_CHECKPOINT}")]
    # fold_03 is not the fold_3 that nnU-Net, and checkpoint_path, would look for
    numbers = sorted(int(name) for name in names if is_whole_number(name) and str(int(name)) == name)
    if numbers:
        return list(numbers)
    return ["all"] if (folder / "fold_all" / FINAL_CHECKPOINT).is_file() else []


def _read_json(path: Path) -> dict:
    try:
        content = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CalibUncertaintyError(f"{path} is missing; copy the whole model folder") from error
    except PermissionError as error:
        raise CalibUncertaintyError(f"{path} may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        raise CalibUncertaintyError(f"{path} is not readable JSON; copy the model folder again") from error
    if not isinstance(content, dict):
        raise CalibUncertaintyError(f"{path} is not one of nnU-Net v2's files; copy the model folder again")
    return content


def _sha256_of(path: Path) -> str:
    try:
        state = path.stat()
        return _sha256_of_state(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); copy the model folder again") from error


@lru_cache(maxsize=256)
def _sha256_of_state(path: Path, size: int, _modified: int) -> str:
    """Hashing a large checkpoint takes a second; the panel asks at every change of the fold selection."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if size:
            # in one call: Slicer's main thread hardly lets another Python thread in between two
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest.update(content)
    return digest.hexdigest()
