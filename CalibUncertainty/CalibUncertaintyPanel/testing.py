"""Support for tests, here so that the module's self test finds it in an installed extension."""

import json
import sys
from pathlib import Path

import numpy as np
import slicer

from . import slicerCompat
from .mrmlTools import matrixFromArray

FAKE_PROCESS = Path(__file__).with_name("fakeProcess.py")


def fakeCommand(behaviour="ok"):
    """Command that starts the fake computation; the request and `--progress json` are put behind it.

    :param behaviour: ok, uncalibrated, slow, fail, refuse, hang, garbage, tree or silent.
    """
    python = slicerCompat.pythonExecutable() if hasattr(slicer, "app") else sys.executable
    return [python, str(FAKE_PROCESS), "--behaviour", behaviour]


def phantomArray(shape=(24, 48, 48), seed=0):
    """HU values (z, y, x) of a small body with a ball (Organ) in its left half and a smaller one (Node) in its right."""
    z, y, x = np.indices(shape, dtype=np.float32)
    middle = [(n - 1) / 2 for n in shape]
    body = ((z - middle[0]) / (0.6 * shape[0])) ** 2 + ((y - middle[1]) / (0.45 * shape[1])) ** 2
    body = body + ((x - middle[2]) / (0.45 * shape[2])) ** 2 < 1
    hu = np.where(body, 40.0, -1000.0)
    for part, radius, value in ((0.3, 0.16, 180.0), (0.68, 0.09, 150.0)):
        ball = (z - middle[0]) ** 2 * 4 + (y - middle[1]) ** 2 + (x - part * shape[2]) ** 2 < (radius * shape[2]) ** 2
        hu[ball] = value
    noise = np.random.default_rng(seed).normal(0.0, 8.0, shape)
    return (hu + noise).round().astype(np.int16)


def obliqueIjkToRas(spacing=(1.5, 1.5, 3.0), origin=(-20.0, 15.0, 40.0), degrees=20.0):
    """4x4 geometry of a volume turned about the S axis and flipped in j."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([spacing[0], -spacing[1], spacing[2]])
    matrix[:3, 3] = origin
    return matrix


def addPhantom(scene, name="Phantom CT", shape=(24, 48, 48), ijkToRas=None):
    """Add the small phantom to a scene as a CT volume.

    :return: scalar volume node.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, phantomArray(shape))
    node.SetIJKToRASMatrix(matrixFromArray(np.diag([1.5, 1.5, 3.0, 1.0]) if ijkToRas is None else ijkToRas))
    node.CreateDefaultDisplayNodes()
    return node


def makeFakeModel(folder, folds=(0, 1)):
    """Write a folder that looks like a trained nnU-Net v2 model but has empty checkpoints.

    :return: the folder to choose in the panel.
    """
    model = Path(folder) / "Dataset999_Fake" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    labels = {"background": 0, "Organ": 1, "Node": 2}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    settings = {
        "spacing": [3.0, 1.5, 1.5],
        "patch_size": [24, 48, 48],
        "normalization_schemes": ["CTNormalization"],
        "architecture": {"network_class_name": "none (fake)"},
    }
    plans = {
        "dataset_name": "Dataset999_Fake",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 160.0, "std": 20.0, "percentile_00_5": 100.0, "percentile_99_5": 220.0}
        },
        "configurations": {"3d_fullres": settings},
    }
    for fold in folds:
        (model / f"fold_{fold}").mkdir(parents=True)
        (model / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"")
    (model / "dataset.json").write_text(json.dumps(dataset))
    (model / "plans.json").write_text(json.dumps(plans))
    return model


def arrayOf(volumeNode):
    """Copy of a volume's voxels (z, y, x)."""
    return slicer.util.arrayFromVolume(volumeNode).copy()
