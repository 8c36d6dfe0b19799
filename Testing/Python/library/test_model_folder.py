"""Model folders: what is in them, what is refused, and checkpoints that are data and nothing else."""

import json
import pathlib

import numpy as np
import pytest
import torch
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.checkpoint import load_checkpoint
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path, plans(), folds=(0, 1, 3))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_model_is_found_from_its_folder_its_parent_and_its_folds(folder):
    for path in (folder, folder.parent, folder / "fold_3"):
        model = ModelFolder.open(path)
        assert model.path == folder
        assert model.folds == [0, 1, 3]
        assert model.labels == {1: "Liver", 2: "Node"}
        assert (model.name, model.configuration, model.channels) == ("Dataset999_Tiny", "3d_fullres", ["CT"])


def test_a_fold_trained_on_everything_is_used_where_it_is_alone(folder):
    for fold in (0, 1):
        (folder / f"fold_{fold}" / "checkpoint_final.pth").unlink()
    (folder / "fold_3").rename(folder / "fold_all")
    assert ModelFolder.open(folder).select_folds("all") == ["all"]


def test_a_missing_fold_is_named_with_the_ones_that_are_there(folder):
    with pytest.raises(CalibUncertaintyError, match=r"no fold 2 .*it has: 0, 1, 3"):
        ModelFolder.open(folder).select_folds([0, 2])


@pytest.mark.parametrize("what", ["nothing", "file", "empty folder", "broken json", "no labels", "no folds"])
def test_a_folder_that_is_no_model_is_refused_in_one_line(what, folder, tmp_path):
    path = {"nothing": tmp_path / "no", "file": folder / "plans.json", "empty folder": tmp_path / "empty"}.get(what, folder)
    (tmp_path / "empty").mkdir()
    if what == "broken json":
        (folder / "plans.json").write_text("{")
    if what == "no labels":
        edit(folder / "dataset.json", lambda d: d.pop("labels"))
    if what == "no folds":
        for fold in (0, 1, 3):
            (folder / f"fold_{fold}" / "checkpoint_final.pth").unlink()
    with pytest.raises(CalibUncertaintyError) as refusal:
        ModelFolder.open(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_channels_are_refused_by_name(tmp_path):
    model = write_model(tmp_path, plans(), channels={"0": "CT", "1": "PET"})
    with pytest.raises(CalibUncertaintyError, match="2 input channels \\(CT, PET\\)"):
        segment(write_ct(tmp_path / "ct.nii.gz"), model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_regions_and_cascades_are_refused_by_name(folder):
    edit(folder / "dataset.json", lambda d: d["labels"].update(Whole=[1, 2]))
    with pytest.raises(CalibUncertaintyError, match="overlapping regions"):
        ModelFolder.open(folder).refuse_unsupported()
    edit(folder / "dataset.json", lambda d: d["labels"].pop("Whole"))
    edit(folder / "plans.json", lambda p: p["configurations"]["3d_fullres"].update(previous_stage="3d_lowres"))
    with pytest.raises(CalibUncertaintyError, match="cascade"):
        ModelFolder.open(folder).refuse_unsupported()


def test_the_fingerprint_changes_with_the_weights(folder):
    before = ModelFolder.open(folder).fingerprint([0, 1])
    content = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=True)
    first = next(iter(content["network_weights"]))
    content["network_weights"][first] += 1
    torch.save(content, folder / "fold_1" / "checkpoint_final.pth")
    after = ModelFolder.open(folder).fingerprint([0, 1])
    assert before["checkpoints"][0] == after["checkpoints"][0]
    assert before["checkpoints"][1]["sha256"] != after["checkpoints"][1]["sha256"]


def test_the_description_names_structures_folds_and_input(folder):
    text = "\n".join(ModelFolder.open(folder).describe())
    for word in ("Dataset999_Tiny", "Liver", "Node", "0, 1, 3", "CT"):
        assert word in text


def test_a_stock_checkpoint_with_its_training_log_is_read_without_trust(folder):
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["logging"] = {"dice": [np.float64(0.5), np.float32(0.25)], "ema": np.zeros(3), "epochs": [np.int64(3)]}
    content["init_args"]["device"] = torch.device("cpu")
    torch.save(content, path)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.configuration, checkpoint.mirroring_axes) == ("3d_fullres", (0, 1, 2))


def test_a_checkpoint_that_could_run_code_needs_trust(folder):
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["surprise"] = pathlib.PurePosixPath("/tmp")
    torch.save(content, path)
    with pytest.raises(CalibUncertaintyError, match="--trust-checkpoint"):
        load_checkpoint(path)
    assert load_checkpoint(path, trusted=True).weights


def test_a_truncated_checkpoint_is_named(folder, tmp_path):
    path = folder / "fold_1" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CalibUncertaintyError, match=r"fold_1/checkpoint_final.pth is truncated"):
        segment(write_ct(tmp_path / "ct.nii.gz"), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_architecture_is_named(folder, tmp_path):
    edit(
        folder / "plans.json",
        lambda p: p["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(features_per_stage=[6, 12]),
    )
    with pytest.raises(CalibUncertaintyError, match="belongs to another network"):
        segment(write_ct(tmp_path / "ct.nii.gz"), folder, tmp_path / "out")


def test_a_checkpoint_whose_training_diverged_is_named(folder, tmp_path):
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    for weights in content["network_weights"].values():
        weights.fill_(float("nan"))
    torch.save(content, path)
    with pytest.raises(CalibUncertaintyError, match="not numbers"):
        segment(write_ct(tmp_path / "ct.nii.gz"), folder, tmp_path / "out", folds=[0])
    assert list(tmp_path.glob(".*")) == []
