"""A tiny model, its calibration and labelled test cases, for the tests of `evaluate`."""

import json

import numpy as np
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.segment import segment

SHAPE = (16, 20, 18)


def write_calibrated_model(folder):
    """A model of two folds with a record for both; what it says of its cases is half wrong where it is unsure."""
    model = write_model(folder, plans(), sharpness=5.0)
    calibrate(labelled_cases(model, folder / "calibration", seeds=(90, 91)), model, flips="off", bootstrap=0)
    return model


def labelled_cases(model, folder, seeds=(1, 2, 3)):
    """Cases whose reference is the model's own label, but where it is least sure: there one in two is another."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in seeds:
        ct = write_ct(folder / f"ct{seed}.nii.gz", shape=SHAPE, seed=seed)
        result = segment(ct, model, folder / f"result{seed}", flips="off", calibration="none", full_volume=True)
        entropy, random = result.uncertainty("entropy").array, np.random.default_rng(seed)
        doubted = (entropy > np.quantile(entropy, 0.8)) & (random.random(entropy.shape) < 0.5)
        labels = np.where(doubted, random.integers(0, 3, entropy.shape), result.segmentation.array).astype(np.uint8)
        labels[:, :3] = 1  # a structure that the model misses
        Volume.read(ct).with_array(labels).write(folder / f"labels{seed}.nii.gz")
        found.append(LabelledCase(f"P{seed}", ct, folder / f"labels{seed}.nii.gz"))
    return found


def write_list(path, cases, split="test"):
    """A JSON list of the cases."""
    rows = [{"id": case.id, "ct": str(case.ct), "labels": str(case.labels), "split": split} for case in cases]
    path.write_text(json.dumps({"cases": rows}))
    return path
