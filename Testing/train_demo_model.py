"""Train the demo model: five folds of a deliberately small nnU-Net v2 on the CT phantom.

    python Testing/train_demo_model.py --work FOLDER             # make the data, plan, preprocess, train what is missing, store
    python Testing/train_demo_model.py --work FOLDER --evaluate  # only: Dice of the stored model on the held-out phantoms

Everything of nnU-Net is the real thing (fingerprint, planner, preprocessor, trainer); only the plan is shrunk and the augmentation
cut down to mirroring and noise, so that a fold takes minutes on two CPU cores. Each fold can be stopped and resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from phantom import make_phantom
from phantom_anatomy import LABELS, LYMPH_NODES
from short_training import prepare_environment, step_in_bfloat16

REPOSITORY = Path(__file__).resolve().parents[1]
DATASET_ID, DATASET = 900, "Dataset900_Phantom"
MODEL_FOLDER = REPOSITORY / "Resources" / "DemoModel" / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"

# A phantom is its seed. These sets must never meet: calibration and test seeds are for `calibrate` and for figures.
SEEDS = {
    "training": list(range(1000, 1030)),
    "calibration": list(range(2000, 2010)),
    "test": list(range(3000, 3010)),
    "demo": [7],
}

PATCH_SIZE = [48, 56, 56]
FEATURES = [8, 16, 32, 48]
ITERATIONS_PER_EPOCH = 50


def write_dataset(work: Path) -> None:
    """Write the training phantoms as an nnU-Net raw dataset. Every fifth is padded with 0, every fifth with -1024."""
    folder = work / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS["training"]):
        image = folder / "imagesTr" / f"phantom_{seed}_0000.nii.gz"
        if image.is_file():
            continue
        phantom = make_phantom(seed, padding_hu={1: 0, 3: -1024}.get(number % 5))
        phantom.labels.write(folder / "labelsTr" / f"phantom_{seed}.nii.gz")
        phantom.ct.write(image)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: index for index, name in LABELS.items()}},
        "numTraining": len(SEEDS["training"]),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=4))


def plan_and_preprocess(work: Path) -> None:
    """nnU-Net's fingerprint and plan; the plan shrunk to the small network; nnU-Net's preprocessing."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    preprocessed = work / "preprocessed" / DATASET
    if (preprocessed / "done").is_file():
        return
    DatasetFingerprintExtractor(DATASET_ID, num_processes=2).run(overwrite_existing=True)
    name = "nnUNet_n_proc_DA"
    loaders = os.environ[name]
    os.environ[name] = "1"  # the planner computes with as many threads, and refuses 0
    ExperimentPlanner(DATASET_ID).plan_experiment()
    os.environ[name] = loaders
    plans_file = preprocessed / "nnUNetPlans.json"
    plans_file.write_text(json.dumps(shrink(json.loads(plans_file.read_text(encoding="utf-8"))), indent=4))
    DefaultPreprocessor(verbose=False).run(DATASET_ID, "3d_fullres", "nnUNetPlans", num_processes=2)
    (preprocessed / "done").write_text("")


def shrink(plans: dict) -> dict:
    """The planner's 3d_fullres with a small patch, few features and four stages; the other configurations are dropped."""
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"] = PATCH_SIZE
    configuration["batch_size"] = 2
    # Dice over the batch: per sample, every patch without a node would teach that there are none.
    configuration["batch_dice"] = True
    network = configuration["architecture"]["arch_kwargs"]
    stages = len(FEATURES)
    network.update(
        n_stages=stages,
        features_per_stage=FEATURES,
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    plans["configurations"] = {"3d_fullres": configuration}
    return plans


def node_loader_class() -> type:
    """nnU-Net's loader of patches, with lymph nodes more often."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    class NodeLoader(nnUNetDataLoader):
        """nnU-Net's loader; every second patch that must hold a structure holds a lymph node, the smallest of them."""

        def get_bbox(self, data_shape, force_fg, class_locations, overwrite_class=None, verbose=False):
            if force_fg and np.random.uniform() < 0.5:
                overwrite_class = LYMPH_NODES
            return super().get_bbox(data_shape, force_fg, class_locations, overwrite_class, verbose)

    return NodeLoader


def training_transforms(mirror_axes, deep_supervision_scales):
    """Light augmentation, as one of nnU-Net's transforms: some noise, and mirroring along these axes."""
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    transforms = [
        RandomTransform(GaussianNoiseTransform(noise_variance=(0, 0.02)), apply_probability=0.3),
        MirrorTransform(allowed_axes=mirror_axes),
        RemoveLabelTansform(-1, 0),
    ]
    if deep_supervision_scales is not None:
        transforms.append(DownsampleSegForDSTransform(ds_scales=deep_supervision_scales))
    return ComposeTransforms(transforms)


def trainer_class(iterations: int) -> type:
    """A subclass of nnUNetTrainer with a short schedule, AdamW, bfloat16 on the CPU, and light augmentation."""
    import torch
    from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    loader_class = node_loader_class()

    class PhantomTrainer(nnUNetTrainer):
        def __init__(self, plans, configuration, fold, dataset_json, device) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.oversample_foreground_percent = 0.6
            self.probabilistic_oversampling = True
            self.num_iterations_per_epoch = ITERATIONS_PER_EPOCH
            self.num_val_iterations_per_epoch = 2
            self.num_epochs = max(1, round(iterations / ITERATIONS_PER_EPOCH))
            self.save_every = 2
            self.initial_lr = 3e-3
            self.logger.plot_progress_png = lambda folder: None

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=1e-3)
            return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802 (nnU-Net's name)
            # Only head-feet mirroring: the liver and the spleen would change sides in the other, and the table its place.
            self.inference_allowed_mirroring_axes = (0,)
            return (0.0, 0.0), False, self.configuration_manager.patch_size, (0,)

        def get_dataloaders(self):
            rotation, flat, patch, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            scales = self._get_deep_supervision_scales()
            made = (
                self.get_training_transforms(patch, rotation, scales, mirror_axes, flat),
                self.get_validation_transforms(scales),
            )
            # In this process: a batch takes 10 ms, and a worker would only fight the network for the cores.
            return tuple(
                SingleThreadedAugmenter(
                    loader_class(
                        dataset, self.batch_size, patch, patch, self.label_manager, self.oversample_foreground_percent,
                        probabilistic_oversampling=self.probabilistic_oversampling, transforms=transforms,
                    ),
                    None,
                )
                for dataset, transforms in zip(self.get_tr_and_val_datasets(), made, strict=True)
            )

        @staticmethod
        def get_training_transforms(patch_size, rotation, deep_supervision_scales, mirror_axes, *_, **__):
            return training_transforms(mirror_axes, deep_supervision_scales)

        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            # The nodes are some hundred voxels in half a million: in the first half they weigh more, so that every fold
            # finds them; then every voxel counts the same again, or their probability would stay too high.
            weight = torch.ones(len(LABELS) + 1)
            weight[LYMPH_NODES] = 30.0 if self.current_epoch < self.num_epochs / 2 else 1.0
            self.loss.loss.ce.weight = weight

        def train_step(self, batch: dict) -> dict:
            return step_in_bfloat16(self, batch)

        def plot_network_architecture(self) -> None:
            """Nothing: a picture of the network is not wanted."""

    return PhantomTrainer


def make_trainer(work: Path, fold: int, iterations: int):
    """The trainer of a fold, at its beginning or where it stopped."""
    import torch

    preprocessed = work / "preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    latest = work / "results" / DATASET / "PhantomTrainer__nnUNetPlans__3d_fullres" / f"fold_{fold}" / "checkpoint_latest.pth"
    plans["continue_training"] = latest.is_file()
    dataset = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    trainer = trainer_class(iterations)(plans, "3d_fullres", fold, dataset, torch.device("cpu"))
    trainer.initialize()
    if latest.is_file():
        trainer.load_checkpoint(str(latest))
    return trainer


def train_fold(work: Path, fold: int, iterations: int) -> Path:
    """Train one fold, or go on where it stopped; returns the finished checkpoint, untouched when it exists."""
    import torch

    finished = work / "results" / DATASET / "PhantomTrainer__nnUNetPlans__3d_fullres" / f"fold_{fold}" / "checkpoint_final.pth"
    if finished.is_file():
        return finished
    torch.manual_seed(fold)
    np.random.seed(fold)  # nnU-Net's data loader draws from the global generator
    start = time.time()
    make_trainer(work, fold, iterations).run_training()
    print(f"fold {fold}: {iterations} iterations in {time.time() - start:.0f} s", flush=True)
    return finished


def store_fold(work: Path, fold: int, model_folder: Path = MODEL_FOLDER) -> Path:
    """Copy one trained fold into the model folder: weights only, loadable by stock nnU-Net and with weights_only=True."""
    import torch

    results = work / "results" / DATASET / "PhantomTrainer__nnUNetPlans__3d_fullres"
    # Our own file of a moment ago; the training log in it holds numpy scalars, which weights_only refuses.
    trained = torch.load(results / f"fold_{fold}" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    slim = {
        "network_weights": {key: value.float().contiguous() for key, value in trained["network_weights"].items()},
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres", "fold": fold},
        "inference_allowed_mirroring_axes": tuple(trained["inference_allowed_mirroring_axes"]),
        "current_epoch": int(trained["current_epoch"]),
    }
    target = model_folder / f"fold_{fold}" / "checkpoint_final.pth"
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(slim, target)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        shutil.copyfile(results / name, model_folder / name)
    shutil.copyfile(work / "preprocessed" / DATASET / "splits_final.json", model_folder / "splits_final.json")
    (model_folder / "phantom_seeds.json").write_text(json.dumps(SEEDS, indent=2) + "\n")
    return target


def evaluate(model_folder: Path = MODEL_FOLDER, seeds: list[int] | None = None, folds: list[int] | None = None) -> dict:
    """Dice of every class on held-out phantoms, by stock nnU-Net: {"fold 0": {"Liver": mean over seeds, ...}, ..., "all folds"}."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    seeds = seeds or SEEDS["test"]
    folds = folds or sorted(int(f.parent.name[5:]) for f in model_folder.glob("fold_*/checkpoint_final.pth"))
    sets = {f"fold {fold}": (fold,) for fold in folds}
    if len(folds) > 1:
        sets["all folds"] = tuple(folds)
    scores: dict[str, dict[str, float]] = {}
    for name, members in sets.items():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
        predictor.initialize_from_trained_model_folder(str(model_folder), members)
        per_case = []
        for seed in seeds:
            phantom = make_phantom(seed)
            image = phantom.ct.array[None].astype(np.float32)
            found = predictor.predict_single_npy_array(image, {"spacing": list(phantom.ct.spacing_zyx)}, None, None, False)
            per_case.append([_dice(found == index, phantom.labels.array == index) for index in LABELS])
        scores[name] = dict(zip(LABELS.values(), np.mean(per_case, axis=0).round(3).tolist(), strict=True))
        print(name, scores[name], flush=True)
    return scores


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * np.count_nonzero(found & true) / max(1, np.count_nonzero(found) + np.count_nonzero(true)))


def main(arguments: list[str] | None = None) -> int:
    """Command line: train what is missing, store it, and print the Dice on held-out phantoms."""
    parser = argparse.ArgumentParser(description="Train the five-fold demo model on CT phantoms.")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and training, outside the repository")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=1000, help="training steps a fold")
    parser.add_argument("--store", type=Path, default=MODEL_FOLDER, help="model folder to write")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; only measure the stored model")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    prepare_environment(work)
    if not options.evaluate:
        write_dataset(work)
        plan_and_preprocess(work)
        for fold in options.folds:
            train_fold(work, fold, options.iterations)
            store_fold(work, fold, options.store)
    evaluate(options.store)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
