"""Model folders: what is in them, what is refused, and checkpoints that are data and nothing else."""

import json
import math
import pathlib
import re

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
    content = json.loads(path.read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "Liver": 1, "Node": "2"},
        {"background": 0, "Liver": [1], "Node": [2]},
        {"background": 0, "Node": 2.0, "Liver": 1},
        {"background": 0, "Liver": 1, "Node": 2, "ignore": 3},
    ],
)
def test_labels_are_read_as_nnunet_reads_them(folder, labels):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    edit(folder / "dataset.json", lambda d: d.update(labels=labels))
    model = ModelFolder.open(folder)
    model.refuse_unsupported()
    assert model.labels == {1: "Liver", 2: "Node"}
    manager = LabelManager(labels, None)
    assert (list(model.labels), len(model.labels) + 1) == (manager.foreground_labels, manager.num_segmentation_heads)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"background": 0, "Liver": 1, "Node": 5}, "has the values 0, 1, 5"),
        ({"background": 0, "Liver": 1, "Node": 1}, "has the values 0, 1, 1"),
        ({"background": 0, "Liver": 2, "Node": 3}, "has the values 0, 2, 3"),
        ({"background": 0, "Liver": -1, "Node": 1}, "has the values -1, 0, 1"),
        ({"Liver": 1, "Node": 2}, "no background"),
        ({"Liver": 0, "Node": 1}, "no background"),
        ({"background": [0], "Liver": 1}, "no background"),
        ({"background": 1, "Liver": 0}, "no background"),
        ({"background": 0, "Liver": 1, "Node": "two"}, "gives Node the value 'two'"),
        ({"background": 0, "Liver": 1, "Node": "²"}, "gives Node the value '²'"),
        ({"background": 0, "Liver": 1, "Node": 1.5}, "gives Node the value 1.5"),
        ({"background": 0, "Liver": 1, "Node": None}, "gives Node the value None"),
        ({"background": 0, "Liver": 1, "Node": 3, "ignore": 2}, "has the values 0, 1, 3"),
        ({"background": 0, "Liver": 1, "ignore": 7}, "gives ignore the value 7"),
        ({"background": 0, "ignore": 1}, "names no structure"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused_in_one_line(folder, labels, said):
    edit(folder / "dataset.json", lambda d: d.update(labels=labels))
    model = ModelFolder.open(folder)
    with pytest.raises(CalibUncertaintyError, match=re.escape(said)) as refusal:
        model.refuse_unsupported()
    assert str(folder / "dataset.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert any(said in line for line in model.describe())


@pytest.mark.parametrize("names", [["CT"], {"CT": "0"}, {"²": "CT"}, "CT"])
@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channels_that_are_not_numbered_are_refused_by_file_and_key(folder, key, names):
    def change(dataset):
        del dataset["channel_names"]
        dataset[key] = names

    edit(folder / "dataset.json", change)
    model = ModelFolder.open(folder)
    with pytest.raises(CalibUncertaintyError, match=rf"dataset\.json: '{key}' does not number") as refusal:
        model.refuse_unsupported()
    assert "\n" not in str(refusal.value)
    assert any(str(refusal.value) in line for line in model.describe())


INTENSITY = "foreground_intensity_properties_per_channel"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("transpose_forward", value) for value in (None, [0, 1], [0, 1, 1], [1, 2, 3], "012", [0, 1, True])],
        *[(INTENSITY, value) for value in (None, {}, [], {"CT": {}}, {"0": {}}, {"0": {"mean": 1.0, "std": math.nan}})],
    ],
)
def test_plans_that_do_not_say_how_to_prepare_a_ct_are_refused_by_file_and_key(folder, key, value):
    for change in (lambda p: p.update({key: value}), lambda p: p.pop(key)):
        edit(folder / "plans.json", change)
        with pytest.raises(CalibUncertaintyError, match=rf"plans\.json: '{key}'") as refusal:
            ModelFolder.open(folder).refuse_unsupported()
        assert "\n" not in str(refusal.value)


def test_the_intensities_may_have_the_name_of_nnunet_2_0(folder):
    old = INTENSITY.replace("per_channel", "by_modality")
    edit(folder / "plans.json", lambda p: p.update({old: p.pop(INTENSITY)}))
    assert ModelFolder.open(folder).refuse_unsupported() is None
    edit(folder / "plans.json", lambda p: p.update({old: {}}))  # they are read under this name, not passed over
    with pytest.raises(CalibUncertaintyError, match=f"'{old}' says nothing of channel 0"):
        ModelFolder.open(folder).refuse_unsupported()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "has no 'spacing'"),
        (None, "3d_fullres is missing or damaged"),
        ({"inherits_from": "gone"}, "gone is missing or damaged"),
        ({"inherits_from": "3d_fullres"}, "3d_fullres is missing or damaged"),
    ],
)
def test_a_damaged_configuration_is_refused_by_name(folder, settings, said):
    edit(folder / "plans.json", lambda p: p["configurations"].update({"3d_fullres": settings}))
    with pytest.raises(CalibUncertaintyError, match=rf"plans\.json: .*{said}"):
        ModelFolder.open(folder).refuse_unsupported()


def test_a_configuration_has_the_settings_it_inherits(folder):
    def change(content):
        content["configurations"] = {"base": content["configurations"]["3d_fullres"], "3d_fullres": {"inherits_from": "base"}}

    edit(folder / "plans.json", change)
    ModelFolder.open(folder).refuse_unsupported()
    edit(folder / "plans.json", lambda p: p["configurations"]["base"].update(previous_stage="3d_lowres"))
    assert ModelFolder.open(folder).previous_stage == "3d_lowres"
    with pytest.raises(CalibUncertaintyError, match=r"plans\.json: there is no configuration '3d_lowres' for 'previous_stage'"):
        ModelFolder.open(folder).refuse_unsupported()


def test_a_fold_folder_with_an_odd_number_is_not_a_fold(folder):
    for name in ("fold_²", "fold_٣", "fold_03"):
        (folder / name).mkdir()
        (folder / name / "checkpoint_final.pth").touch()
    model = ModelFolder.open(folder)
    assert model.folds == [0, 1, 3]
    assert model.select_folds("1") == [1]
    with pytest.raises(CalibUncertaintyError, match="no fold ٢ "):
        model.select_folds(["٢"])


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
