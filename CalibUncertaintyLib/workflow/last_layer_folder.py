"""A copy of a model folder with new last layers: what `FittedLastLayer.write` stores."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError
from ..model.folder import FINAL_CHECKPOINT
from .room import check_room
from .writing import write_json, written_aside

if TYPE_CHECKING:
    from .last_layer import FittedLastLayer, FoldFit

LAST_LAYER_CHECKPOINT = "checkpoint_last_layer.pth"
LAST_LAYER_FILE = "last_layer.json"
_SPLITS = "splits_final.json"


def write_last_layers(fitted: FittedLastLayer, out: Path) -> Path:
    """Write a model folder that stock nnU-Net and `--checkpoints checkpoint_last_layer.pth` take; returns its path.

    It holds plans.json and dataset.json, for each fold checkpoint_final.pth as it was and checkpoint_last_layer.pth, the figures in
    last_layer.json, and splits_final.json, in which the cases that the layers were fitted on count as training cases: they
    are held out no more. Written aside and renamed; the folder it comes from is only read.
    Raises CalibUncertaintyError where `out` exists or cannot be written, or a checkpoint changed meanwhile.
    """
    source = fitted.model.path
    if out.exists():
        raise CalibUncertaintyError(f"{out} exists already, and no model is written over; choose another folder")
    needed = sum(fitted.model.checkpoint_path(fold.fold).stat().st_size for fold in fitted.folds)
    standing = next(parent for parent in out.parents if parent.exists())
    check_room(standing, 2 * needed, str(out), "free space or choose another folder")
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
        splits = json.loads((fitted.model.path / _SPLITS).read_text(encoding="utf-8"))
        for fold in fitted.folds:
            # fold_all trained on every case that is listed: one more in any split is one more for it
            split = splits[0 if fold.fold == "all" else int(fold.fold)]
            split["train"] = [*split["train"], *(case for case in fitted.fitted_on if case not in split["train"])]
            split["val"] = [case for case in split["val"] if case not in fitted.fitted_on]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return  # unknown it was, and unknown it stays; last_layer.json names the cases
    write_json(folder / _SPLITS, splits)


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
