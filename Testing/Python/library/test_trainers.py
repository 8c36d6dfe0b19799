"""The trainers for checkpoint ensembles and dropout: the schedule, a real short training by nnU-Net's command, its checkpoints."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import LABELS, plans

from CalibUncertaintyLib import trainers
from CalibUncertaintyLib.model.dropout import dropout_layers

sys.path.insert(0, str(trainers.FOLDER))
from cyclic_schedule import CyclicSchedule, CyclicScheduler

CYCLIC = "nnUNetTrainerCyclicCheckpoints"
# nnU-Net's own variant that needs timm and through it torchvision, whose wheel from PyPI does not import beside a CPU torch.
PRIMUS = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"


def trainer_class(name):
    """A trainer as nnU-Net finds it behind nnUNet_extTrainer."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(trainers.FOLDER)
    return recursive_find_python_class(folder, name, None, base_folder=folder, cleanup_imports_from_base_folder=True)


def schedule(**other):
    numbers = {"cycles": 3, "epochs_per_cycle": 10, "checkpoints_per_cycle": 2, "base_rate": 0.01, "restart_rate": 0.01}
    return CyclicSchedule(**{**numbers, **other})


# (1 - s/30)^0.9 / 100 by hand: s = 1 -> 0.969949, 8 -> 0.756434, 11 -> 0.662932, 18 -> 0.438383, 21 -> 0.338383, 28 -> 0.087401
@pytest.mark.parametrize(
    ("decay", "restart", "expected"),
    [
        ("local", 0.01, {0: 0.01, 1: 0.00969949, 8: 0.00756434, 9: 0.00756434, 10: 0.01, 11: 0.00969949, 29: 0.00756434}),
        (
            "global",
            0.1,
            {0: 0.1, 1: 0.00969949, 9: 0.00756434, 10: 0.1, 11: 0.00662932, 18: 0.00438383, 19: 0.00438383, 21: 0.00338383,
             28: 0.00087401, 29: 0.00087401},
        ),
    ],
)  # fmt: skip
def test_the_rates_are_those_computed_by_hand(decay, restart, expected):
    rates = schedule(decay=decay, restart_rate=restart)
    assert {epoch: rates.rate(epoch) for epoch in expected} == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize(
    ("cycle", "count", "kept"),
    [(10, 2, [8, 9]), (20, 4, [16, 17, 18, 19]), (20, 3, [17, 18, 19]), (400, 10, list(range(327, 400, 8))), (5, 1, [4])],
)
def test_checkpoints_are_spread_over_the_plateau_and_end_with_the_cycle(cycle, count, kept):
    rates = schedule(epochs_per_cycle=cycle, checkpoints_per_cycle=count)
    due = {epoch: rates.cycle_to_keep(epoch) for epoch in range(rates.epochs) if rates.cycle_to_keep(epoch) is not None}
    assert due == {epoch + cycle * k: k + 1 for k in range(3) for epoch in kept}


def test_the_two_classes_are_the_two_published_presets():
    local, whole = trainer_class(CYCLIC), trainer_class(CYCLIC + "Global")
    names = ("cycles", "epochs_per_cycle", "checkpoints_per_cycle", "base_rate", "restart_rate", "decay")
    assert [getattr(local, name) for name in names] == [3, 400, 10, 0.01, 0.01, "local"]
    assert [getattr(whole, name) for name in names] == [3, 200, 10, 0.01, 0.1, "global"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cycles": 0}, "cycles is 0"),
        ({"epochs_per_cycle": 2.5}, "epochs_per_cycle is 2.5"),
        ({"checkpoints_per_cycle": 3}, "3 checkpoints a cycle do not fit into its plateau of 2 epochs"),
        ({"base_rate": 0.0}, "base_rate is 0.0"),
        ({"restart_rate": float("nan")}, "restart_rate is nan"),
        ({"decay": "both"}, "choose one of local, global"),
        ({"plateau_start": 1.0}, "plateau_start is 1.0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        schedule(**wrong)


def test_a_rate_is_asked_for_inside_the_training_only():
    for epoch in (-1, 30):
        with pytest.raises(ValueError, match=f"epoch {epoch} is outside the schedule of 30 epochs"):
            schedule().rate(epoch)


def test_the_scheduler_sets_every_parameter_group_and_has_no_memory():
    optimizer = types.SimpleNamespace(param_groups=[{"lr": 0.0}, {"lr": 0.0}])
    scheduler = CyclicScheduler(optimizer, schedule(restart_rate=0.1))
    assert scheduler.get_last_lr() == [0.1, 0.1]
    for epoch in (9, 3, 9):
        scheduler.step(epoch)
        assert [group["lr"] for group in optimizer.param_groups] == [scheduler.schedule.rate(epoch)] * 2


# --- a real training -------------------------------------------------------------------------------------------------------------

SHORT = """
from {base} import {base}

class {name}({base}):
    cycles, epochs_per_cycle, checkpoints_per_cycle = 2, 2, 1

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 2
        self.num_epochs = min(self.num_epochs, 4)
        self.save_every = 1000
        self.logger.plot_progress_png = lambda folder: None  # a second each

    def plot_network_architecture(self):
        pass

    def perform_actual_validation(self, save_probabilities=False):
        pass  # two pools of processes a training, each importing everything again
"""
# nnUNetv2_train of the command line, several times in one process (importing takes longer than training).
RUN = f"""
import json, shutil, sys, types
from pathlib import Path
try:
    import torchvision
except Exception:
    sys.modules[{PRIMUS!r}] = types.ModuleType({PRIMUS!r})
from nnunetv2.run.run_training import run_training_entry
if __name__ == "__main__":
    work = Path(sys.argv[1])
    for trainer, fold, *more in json.loads(sys.argv[2]):
        if "--c" in more:
            results = next((work / "results").glob("*/" + trainer + "__*"))
            target = results / f"fold_{{fold}}"
            target.mkdir()
            shutil.copyfile(results / "fold_0" / "checkpoint_cycle1_epoch2.pth", target / "checkpoint_latest.pth")
        sys.argv = ["nnUNetv2_train", "999", "3d_fullres", str(fold), "-tr", trainer, "-device", "cpu", *more]
        run_training_entry()
"""


def trainable_plans() -> dict:
    """Plans of a network of three stages: with two, nnU-Net's deep supervision gives its only output the weight 0."""
    content = plans(spacing=(2.0, 1.5, 1.5))
    content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(
        n_stages=3, features_per_stage=[4, 8, 8], kernel_sizes=[[3, 3, 3]] * 3, strides=[[1, 1, 1]] + [[2, 2, 2]] * 2,
        n_conv_per_stage=[1] * 3, n_conv_per_stage_decoder=[1] * 2,
    )  # fmt: skip
    return content


def write_training_data(work: Path) -> None:
    """Six cases in which the labels can be seen, preprocessed by nnU-Net with the plans of the tiny network."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    content = trainable_plans()
    raw, preprocessed = work / "raw" / content["dataset_name"], work / "preprocessed" / content["dataset_name"]
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed / "gt_segmentations"):
        folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(6):
        z, y, x = np.ogrid[:18, :20, :20]
        labels = np.zeros((18, 20, 20), np.uint8)
        labels[(z - 9) ** 2 + (y - 10) ** 2 + (x - 8 - index % 3) ** 2 < 36] = 1
        labels[(z - 9) ** 2 + (y - 10) ** 2 + (x - 8 - index % 3) ** 2 < 8] = 2
        image = sitk.GetImageFromArray((labels * 300.0 - 200 + generator.normal(0, 30, labels.shape)).astype(np.int16))
        truth = sitk.GetImageFromArray(labels)
        for volume in (image, truth):
            volume.SetSpacing((1.5, 1.5, 2.0))
        sitk.WriteImage(image, str(raw / "imagesTr" / f"case_{index}_0000.nii.gz"))
        sitk.WriteImage(truth, str(raw / "labelsTr" / f"case_{index}.nii.gz"))
        sitk.WriteImage(truth, str(preprocessed / "gt_segmentations" / f"case_{index}.nii.gz"))
    names = [f"case_{index}" for index in range(6)]
    files = {
        raw / "dataset.json": {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 6, "file_ending": ".nii.gz"},
        preprocessed / "nnUNetPlans.json": content,
        preprocessed / "dataset_fingerprint.json": {},
        preprocessed / "splits_final.json": [{"train": names[:4], "val": names[4:]}] * 2,
    }
    files[preprocessed / "dataset.json"] = files[raw / "dataset.json"]
    for path, value in files.items():
        path.write_text(json.dumps(value))
    configuration = content["configurations"]["3d_fullres"]
    for name in names:
        # run_case_save without nnU-Net's pool of processes
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(content)
        target = preprocessed / configuration["data_identifier"]
        target.mkdir(exist_ok=True)
        DefaultPreprocessor(verbose=False).run_case_save(
            str(target / name), [str(raw / "imagesTr" / f"{name}_0000.nii.gz")], str(raw / "labelsTr" / f"{name}.nii.gz"),
            manager, manager.get_configuration("3d_fullres"), files[raw / "dataset.json"],
        )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """nnU-Net's results folder after nnUNetv2_train with our trainers, shortened as their docstring tells users to."""
    work = tmp_path_factory.mktemp("training")
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    before = {name: os.environ.get(name) for name in folders}
    own = work / "trainers"
    own.mkdir()
    for base, name in ((CYCLIC, "TinyCyclic"), ("nnUNetTrainerDropout", "TinyDropout")):
        (own / f"{name}.py").write_text(SHORT.format(base=base, name=name))
    (work / "run.py").write_text(RUN)
    try:
        os.environ.update(folders)
        write_training_data(work)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    environment = {
        **os.environ, **folders, "nnUNet_extTrainer": str(own), "PYTHONPATH": str(trainers.FOLDER), "OMP_NUM_THREADS": "1",
        "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1",
    }  # fmt: skip
    trainings = [["TinyCyclic", 0], ["TinyCyclic", 1, "--c"], ["TinyDropout", 0]]
    run = subprocess.run(
        [sys.executable, str(work / "run.py"), str(work), json.dumps(trainings)],
        env=environment, cwd=work, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return work / "results" / "Dataset999_Tiny"


def read(path: Path) -> dict:
    import torch

    return torch.load(path, map_location="cpu", weights_only=False)  # a file of a moment ago


def test_a_training_keeps_one_complete_checkpoint_a_cycle(results):
    fold = results / "TinyCyclic__nnUNetPlans__3d_fullres" / "fold_0"
    assert sorted(path.name for path in fold.glob("checkpoint_c*.pth")) == [
        "checkpoint_cycle1_epoch2.pth",
        "checkpoint_cycle2_epoch4.pth",
    ]
    final = read(fold / "checkpoint_final.pth")
    rates = [0.01, 0.01 * 0.75**0.9, 0.01, 0.01 * 0.75**0.9]
    for name, epochs in (("checkpoint_cycle1_epoch2.pth", 2), ("checkpoint_cycle2_epoch4.pth", 4)):
        content = read(fold / name)
        assert set(content) == set(final)
        assert content["current_epoch"] == epochs
        assert {key: len(values) for key, values in content["logging"].items()} == dict.fromkeys(final["logging"], epochs)
        assert content["logging"]["lrs"] == pytest.approx(rates[:epochs])
        assert content["trainer_name"] == "TinyCyclic"
        assert content["inference_allowed_mirroring_axes"] == final["inference_allowed_mirroring_axes"]
    weights = {name: read(fold / name)["network_weights"] for name in os.listdir(fold) if name.startswith("checkpoint_c")}
    first, last = weights["checkpoint_cycle1_epoch2.pth"], weights["checkpoint_cycle2_epoch4.pth"]
    assert all((last[name] == value).all() for name, value in final["network_weights"].items())
    assert any((first[name] != value).any() for name, value in last.items())
    assert np.isfinite(final["logging"]["train_losses"]).all()


def test_training_goes_on_from_a_kept_checkpoint(results):
    fold = results / "TinyCyclic__nnUNetPlans__3d_fullres" / "fold_1"
    assert sorted(path.name for path in fold.glob("checkpoint_c*.pth")) == ["checkpoint_cycle2_epoch4.pth"]
    resumed, straight = read(fold / "checkpoint_final.pth"), read(fold.parent / "fold_0" / "checkpoint_final.pth")
    assert resumed["current_epoch"] == straight["current_epoch"] == 4
    assert resumed["logging"]["lrs"] == straight["logging"]["lrs"]
    assert len(resumed["logging"]["epoch_end_timestamps"]) == 4


@pytest.mark.parametrize(
    ("trainer", "checkpoint"),
    [("TinyCyclic", "checkpoint_cycle1_epoch2.pth"), ("TinyDropout", "checkpoint_final.pth")],
)
def test_stock_nnunet_predicts_with_our_checkpoints(results, trainer, checkpoint, monkeypatch):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    try:
        import torchvision  # noqa: F401
    except Exception:
        monkeypatch.setitem(sys.modules, PRIMUS, types.ModuleType(PRIMUS))
    monkeypatch.setenv("nnUNet_extTrainer", str(results.parents[1] / "trainers"))
    model = results / f"{trainer}__nnUNetPlans__3d_fullres"
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), checkpoint)
    assert bool(dropout_layers(predictor.network)) == (trainer == "TinyDropout")
    image = np.random.default_rng(1).normal(0, 200, (1, 18, 20, 20)).astype(np.float32)
    properties = {"spacing": [2.0, 1.5, 1.5]}
    _, found = predictor.predict_single_npy_array(image, properties, None, None, True)

    architecture = predictor.configuration_manager
    plain = get_network_from_plans(
        architecture.network_arch_class_name, architecture.network_arch_init_kwargs,
        architecture.network_arch_init_kwargs_req_import, 1, 3, allow_init=True, deep_supervision=False,
    )  # fmt: skip
    plain.load_state_dict(read(model / "fold_0" / checkpoint)["network_weights"])
    predictor.network = plain
    _, expected = predictor.predict_single_npy_array(image, properties, None, None, True)
    np.testing.assert_array_equal(found, expected)
