"""New last layers: what they do, and the copy of a model folder that `FittedLastLayer.write` stores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.last_layer import LastLayer
from ..model.checkpoint import Checkpoint
from ..model.folder import FINAL_CHECKPOINT, SPLITS_NAME, Fold, ModelFolder
from ..plain_json import parsed
from .out_place import refuse_inside_model
from .room import check_room
from .writing import output_folder, write_json, written_aside

LAST_LAYER_CHECKPOINT = "checkpoint_last_layer.pth"
LAST_LAYER_FILE = "last_layer.json"


@dataclass(frozen=True)
class FoldFit:
    """The new last layer of one fold, and what it does.

    nll: mean over the ROI voxels before and after, nats. changed: labels that differ, of `voxels` in the CTs. dice: mean over
    cases before and after for each structure, NaN where a structure is neither predicted nor drawn anywhere.
    """

    fold: Fold
    layer: LastLayer
    source: Checkpoint = field(repr=False)
    nll: tuple[float, float]
    changed: int
    voxels: int
    dice: dict[str, tuple[float, float]]
    sampled: int

    def in_words(self) -> str:
        """As in "fold 0: 12 of 20,000 labels change, NLL 0.412 to 0.380, Dice Liver 0.951 to 0.950"."""
        dice = ", ".join(f"{name} {before:.4f} to {after:.4f}" for name, (before, after) in self.dice.items())
        return (
            f"fold {self.fold}: {self.changed:,} of {self.voxels:,} labels change, NLL {self.nll[0]:.4f} to {self.nll[1]:.4f},"
            f" Dice {dice}"
        )


@dataclass(frozen=True)
class FittedLastLayer:
    """New last layers of a model's folds. fitted_on, measured_on: identifiers of cases; the same where none were kept apart."""

    model: ModelFolder
    folds: tuple[FoldFit, ...]
    fitted_on: tuple[str, ...]
    measured_on: tuple[str, ...]
    roi_mm: float
    pull: float

    @property
    def changed_labels(self) -> int:
        """Over all folds."""
        return sum(fold.changed for fold in self.folds)

    def in_words(self) -> str:
        """The figures of every fold in one line."""
        where = "on the cases it was fitted on" if self.fitted_on == self.measured_on else "on other cases"
        return f"{'; '.join(fold.in_words() for fold in self.folds)} ({where})"

    def write(self, out: str | Path, allow_changed_labels: bool = False) -> Path:
        """A new model folder with `checkpoint_last_layer.pth` beside each `checkpoint_final.pth`; see `write_last_layers`.

        Raises CalibUncertaintyError where labels change and that was not allowed, with the figures, and where `out` cannot be made.
        """
        if self.changed_labels and not allow_changed_labels:
            raise CalibUncertaintyError(
                f"the new last layer changes the segmentation, and nothing was stored: {self.in_words()}; confirm with"
                " allow_changed_labels (--allow-changed-labels), or choose a method that keeps the labels, such as temperature"
            )
        return write_last_layers(self, output_folder(out))


class _Rehearsed(Exception):
    """Ends a rehearsal: the folder aside was made, and nothing is to take the place."""


def check_place_of_copy(out: Path, model: ModelFolder, folds: Sequence[Fold]) -> None:
    """Refuse, before the computing, a folder that `write_last_layers` could not make after it; nothing is left there.

    out: as `output_folder` gives it. folds: whose checkpoints are copied. Raises CalibUncertaintyError in one line.
    """
    if os.path.exists(out):  # unlike Path.exists False for a folder nobody may look into: the rehearsal says why
        raise CalibUncertaintyError(f"{out} exists already, and no model is written over; choose another folder")
    refuse_inside_model(out)
    missing = [parent for parent in out.parents if not os.path.exists(parent)]
    try:
        # what the writing does, so that both refuse the same places in the same words
        with written_aside(out, overwrite=False):
            raise _Rehearsed
    except _Rehearsed:
        pass
    finally:
        for parent in missing:
            with suppress(OSError):  # one that was not made, or into which another program has written meanwhile
                parent.rmdir()
    standing = next(parent for parent in out.parents if parent.exists())
    needed = sum(model.checkpoint_path(fold).stat().st_size for fold in folds)
    check_room(standing, 2 * needed, str(out), "free space or choose another folder")


def write_last_layers(fitted: FittedLastLayer, out: Path) -> Path:
    """Write a model folder that stock nnU-Net and `--checkpoints checkpoint_last_layer.pth` take; returns its path.

    It holds plans.json and dataset.json, for each fold checkpoint_final.pth as it was and checkpoint_last_layer.pth, the figures in
    last_layer.json, and splits_final.json, in which the cases that the layers were fitted on count as training cases: they
    are held out no more. Written aside and renamed; the folder it comes from is only read.
    Raises CalibUncertaintyError where `out` exists or cannot be written, or a checkpoint changed meanwhile.
    """
    source = fitted.model.path
    check_place_of_copy(out, fitted.model, [fold.fold for fold in fitted.folds])
    with written_aside(out, overwrite=False) as aside:
        for name in ("plans.json", "dataset.json"):
            shutil.copyfile(source / name, aside / name)
        for fold in fitted.folds:
            _write_fold(fitted, fold, aside / f"fold_{fold.fold}")
        _write_splits(fitted, aside)
        write_json(aside / LAST_LAYER_FILE, _described(fitted))
    return out


def _write_fold(fitted: FittedLastLayer, fold: FoldFit, folder: Path) -> None:
    import torch

    folder.mkdir()
    shutil.copyfile(fitted.model.checkpoint_path(fold.fold), folder / FINAL_CHECKPOINT)
    weights = fold.source.read_weights()
    checkpoint = replace(fold.source, weights=weights)
    content = {
        "network_weights": fold.layer.put_into(checkpoint),
        "trainer_name": checkpoint.trainer,
        "init_args": {"configuration": checkpoint.configuration or fitted.model.configuration},
        "last_layer": {"from": f"fold_{fold.fold}/{checkpoint.path.name}", "cases": list(fitted.fitted_on)},
    }
    if checkpoint.mirroring_axes is not None:
        content["inference_allowed_mirroring_axes"] = checkpoint.mirroring_axes
    torch.save(content, folder / LAST_LAYER_CHECKPOINT)


def _write_splits(fitted: FittedLastLayer, folder: Path) -> None:
    try:
        found = next(path for path in fitted.model.splits_paths if path.is_file())
        splits = parsed(found.read_text(encoding="utf-8"))
        for fold in fitted.folds:
            # fold_all trained on every case that is listed: one more in any split is one more for it
            split = splits[0 if fold.fold == "all" else int(fold.fold)]
            split["train"] = [*split["train"], *(case for case in fitted.fitted_on if case not in split["train"])]
            split["val"] = [case for case in split["val"] if case not in fitted.fitted_on]
    except (StopIteration, OSError, ValueError, KeyError, IndexError, TypeError):
        return  # unknown it was, and unknown it stays; last_layer.json names the cases
    write_json(folder / SPLITS_NAME, splits)


def _described(fitted: FittedLastLayer) -> dict:
    return {
        "method": "last_layer",
        "from": str(fitted.model.path),
        "roi_mm": fitted.roi_mm,
        "pull": fitted.pull,
        "fitted_on": list(fitted.fitted_on),
        "measured_on": list(fitted.measured_on),
        "folds": [
            {
                "fold": fold.fold,
                "nll": list(fold.nll),
                "changed_labels": fold.changed,
                "voxels": fold.voxels,
                "dice": {name: list(pair) for name, pair in fold.dice.items()},
                "sampled_voxels": fold.sampled,
            }
            for fold in fitted.folds
        ],
    }
