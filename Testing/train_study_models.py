"""Train the models of the checkpoint and dropout studies on real CT, with the trainers this library ships.

    python Testing/train_study_models.py                      # data, preprocessing, every model that is missing, their Dice
    python Testing/train_study_models.py --only dropout       # one of them
    python Testing/train_study_models.py --evaluate           # only: Dice of what is there, on calibration cases

It reuses plans and splits of an existing small model of the same cases and is nnU-Net's own machinery (preprocessor, data loader,
loss, trainer classes found as nnUNet_extTrainer finds them); only the augmentation, the optimizer and the length are cut down so
that a fold takes minutes on two CPU cores. A stopped training goes on where it was. Nothing made here belongs into the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from short_training import prepare_environment, step_in_bfloat16

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = Path(os.environ.get("CALIB_UNCERTAINTY_DATA", REPOSITORY.parent / "shared"))
CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlansSmall"
FOLD = 0
# (trainer, iterations an epoch, class attributes that make it short). Rates are for AdamW, a fifth of nnU-Net's for SGD.
CYCLES = {"cycles": 3, "epochs_per_cycle": 20, "checkpoints_per_cycle": 4, "base_rate": 2e-3}
STUDIES = {
    "cyclic": ("nnUNetTrainerCyclicCheckpoints", 25, {**CYCLES, "restart_rate": 2e-3}),
    "cyclic-global": ("nnUNetTrainerCyclicCheckpointsGlobal", 25, {**CYCLES, "restart_rate": 1e-2}),
    "dropout": ("nnUNetTrainerDropout", 25, {"study_epochs": 48, "study_rate": 2e-3}),
    "dropout-center": ("nnUNetTrainerDropoutCenter", 25, {"study_epochs": 48, "study_rate": 2e-3}),
}


def cases_of(data: Path, split: str) -> list[dict]:
    """The head-neck cases of a split ("train", "calibration"), as cases.json describes them."""
    cases = json.loads((data / "cases.json").read_text(encoding="utf-8"))["cases"]
    return [case for case in cases if case["group"] == "openkbp" and case["split"] == split]


def write_dataset(work: Path, data: Path, model: Path) -> str:
    """The training cases as an nnU-Net raw dataset, preprocessed by the plans of `model`; returns the dataset's name."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    name = model.parent.name
    raw, preprocessed = work / "raw" / name, work / "preprocessed" / name
    if (preprocessed / "done").is_file():
        return name
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    for case in cases_of(data, "train"):
        shutil.copyfile(data / case["files"]["ct"], raw / "imagesTr" / f"{case['id']}_0000.nii.gz")
        shutil.copyfile(data / case["files"]["seg_clinical"], raw / "labelsTr" / f"{case['id']}.nii.gz")
    for file in ("dataset.json", "dataset_fingerprint.json", "splits_final.json"):
        shutil.copyfile(model / file, preprocessed / file)
    shutil.copyfile(model / "dataset.json", raw / "dataset.json")
    shutil.copyfile(model / "plans.json", preprocessed / f"{PLANS}.json")
    DefaultPreprocessor(verbose=False).run(int(name[7:10]), CONFIGURATION, PLANS, num_processes=2)
    (preprocessed / "done").write_text("")
    return name


def shipped_trainer(name: str):
    """A trainer class of the library, found the way nnU-Net finds it behind nnUNet_extTrainer.

    Not through nnU-Net's search by name: that first imports all of nnU-Net's own variants, and with them timm and torchvision.
    """
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    from CalibUncertaintyLib import trainers

    folder = str(trainers.FOLDER)
    return recursive_find_python_class(folder, name, None, base_folder=folder, cleanup_imports_from_base_folder=True)


def short_trainer(base, iterations_per_epoch: int, attributes: dict):
    """A subclass of the same name (nnU-Net stores it in the checkpoints) that trains quickly on a CPU."""
    import torch
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    class Short(base):
        study_epochs = study_rate = None

        def __init__(self, plans, configuration, fold, dataset_json, device) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.oversample_foreground_percent = 0.6
            self.probabilistic_oversampling = True
            self.num_iterations_per_epoch = iterations_per_epoch
            self.num_val_iterations_per_epoch = 1
            self.num_epochs = self.study_epochs or self.num_epochs
            self.initial_lr = self.study_rate or self.initial_lr
            self.save_every = 4
            self.logger.plot_progress_png = lambda folder: None

        def configure_optimizers(self):
            # AdamW learns in 1,000 steps what nnU-Net's SGD needs many more for; the schedule stays the trainer's own.
            _, scheduler = super().configure_optimizers()
            scheduler.optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=1e-3)
            return scheduler.optimizer, scheduler

        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802 (nnU-Net's name)
            self.inference_allowed_mirroring_axes = (0, 1)
            return (0.0, 0.0), False, self.configuration_manager.patch_size, (0, 1)

        @staticmethod
        def get_training_transforms(patch_size, rotation, deep_supervision_scales, mirror_axes, *_, **__):
            transforms = [MirrorTransform(allowed_axes=mirror_axes), RemoveLabelTansform(-1, 0)]
            if deep_supervision_scales is not None:
                transforms.append(DownsampleSegForDSTransform(ds_scales=deep_supervision_scales))
            return ComposeTransforms(transforms)

        def train_step(self, batch: dict) -> dict:
            return step_in_bfloat16(self, batch)

        def plot_network_architecture(self) -> None:
            """Nothing: a picture of the network is not wanted."""

    return type(base.__name__, (Short,), attributes)


def train(work: Path, dataset: str, study: str) -> Path:
    """Train one study's model, or go on where it stopped; returns its model folder, untouched when it is finished."""
    import torch

    name, iterations_per_epoch, attributes = STUDIES[study]
    model = work / "results" / dataset / f"{name}__{PLANS}__{CONFIGURATION}"
    fold = model / f"fold_{FOLD}"
    if (fold / "checkpoint_final.pth").is_file():
        return model
    torch.manual_seed(FOLD)
    np.random.seed(FOLD)  # nnU-Net's data loader draws from the global generator
    preprocessed = work / "preprocessed" / dataset
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    latest = fold / "checkpoint_latest.pth"
    plans["continue_training"] = latest.is_file()
    description = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    trainer_class = short_trainer(shipped_trainer(name), iterations_per_epoch, attributes)
    trainer = trainer_class(plans, CONFIGURATION, FOLD, description, torch.device("cpu"))
    trainer.initialize()
    if latest.is_file():
        trainer.load_checkpoint(str(latest))
    start = time.time()
    trainer.run_training()
    shutil.copyfile(preprocessed / "splits_final.json", model / "splits_final.json")
    print(f"{study}: {trainer.num_epochs * iterations_per_epoch} iterations, {time.time() - start:.0f} s", flush=True)
    return model


def evaluate(model: Path, data: Path, count: int = 3) -> dict[str, dict[str, float]]:
    """Dice of every structure by stock nnU-Net without flips, mean over a few calibration cases: of each checkpoint, and of all.

    "all" averages the probabilities of the kept checkpoints (checkpoint_final and _best are left out: no further members).
    """
    import SimpleITK as sitk
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    description = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    plans = PlansManager(json.loads((model / "plans.json").read_text(encoding="utf-8")))
    configuration = plans.get_configuration(CONFIGURATION)
    labels = {name: value for name, value in description["labels"].items() if value}
    network = get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, 1, len(labels) + 1, allow_init=True, deep_supervision=False,
    )  # fmt: skip
    fold = model / f"fold_{FOLD}"
    kept = sorted(fold.glob("checkpoint_cycle*.pth"), key=lambda path: path.stat().st_mtime)
    kept = kept or [fold / "checkpoint_final.pth"]
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    reader = plans.image_reader_writer_class()
    dice: dict[str, list] = {}
    for case in cases_of(data, "calibration")[:count]:
        image, properties = reader.read_images([str(data / case["files"]["ct"])])
        true = sitk.GetArrayFromImage(sitk.ReadImage(str(data / case["files"]["seg_clinical"])))
        total = 0.0
        for path in kept:
            # Our own file of a moment ago; the training log in it holds numpy scalars, which weights_only refuses.
            weights = torch.load(path, map_location="cpu", weights_only=False)["network_weights"]
            network.load_state_dict(weights)
            predictor.manual_initialization(network, plans, configuration, [weights], description, "", (0, 1))
            found, probabilities = predictor.predict_single_npy_array(image, properties, None, None, True)
            total = total + probabilities
            dice.setdefault(path.name, []).append([_dice(found == value, true == value) for value in labels.values()])
        if len(kept) > 1:
            found = np.asarray(total).argmax(0)
            dice.setdefault("all", []).append([_dice(found == value, true == value) for value in labels.values()])
    scores = {}
    for name, values in dice.items():
        scores[name] = dict(zip(labels, np.mean(values, axis=0).round(3).tolist(), strict=True))
        print(model.name, name, scores[name], f"mean {np.mean(values):.3f}", flush=True)
    return scores


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * np.count_nonzero(found & true) / max(1, np.count_nonzero(found) + np.count_nonzero(true)))


def main(arguments: list[str] | None = None) -> int:
    """Command line: train what is missing and print its Dice on calibration cases."""
    parser = argparse.ArgumentParser(description="Train the checkpoint-ensemble and dropout variants of the head-neck model.")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder with cases.json and the CTs")
    parser.add_argument(
        "--model", type=Path, help="model folder whose plans and splits are used", metavar="FOLDER",
        default=ROOT / "models" / "Dataset501_HeadNeck" / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".study", help="folder for everything that is made")
    parser.add_argument("--only", choices=STUDIES, nargs="+", default=["cyclic", "dropout"])
    parser.add_argument("--evaluate", action="store_true", help="train nothing; only measure what is there")
    options = parser.parse_args(arguments)
    work = options.out.resolve()
    prepare_environment(work)
    for needed in (options.data / "cases.json", options.model / "plans.json"):
        if not needed.is_file():
            parser.error(f"{needed} is missing; name the folders with --data and --model, or set CALIB_UNCERTAINTY_DATA")
    if not options.evaluate:
        dataset = write_dataset(work, options.data, options.model)
        for study in options.only:
            train(work, dataset, study)
    for study in options.only:
        model = work / "results" / options.model.parent.name / f"{STUDIES[study][0]}__{PLANS}__{CONFIGURATION}"
        if (model / f"fold_{FOLD}" / "checkpoint_final.pth").is_file():
            evaluate(model, options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
