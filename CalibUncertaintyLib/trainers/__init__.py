"""Trainers for stock `nnUNetv2_train` (nnU-Net 2.8 and later), found through its variable `nnUNet_extTrainer`.

    export nnUNet_extTrainer=$(python -c "import CalibUncertaintyLib.trainers as t; print(t.FOLDER)")
    nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerCyclicCheckpoints

The library never imports the trainer files: they import nnU-Net and torch at once, as nnU-Net wants them to.
nnU-Net puts this folder itself on the path and imports every file in it as a module of its own, so they import each other
by plain name and take nothing relative.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent

__all__ = ["FOLDER"]
