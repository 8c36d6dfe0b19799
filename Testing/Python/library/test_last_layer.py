"""Fine-tuning the last layer: stock nnU-Net gives the numbers that were promised, and the user's folder stays as it is."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_parts import prepared, stock_logits, whole_logits
from scipy.special import softmax
from tiny_model import plans, stock_prediction, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError, cli
from CalibUncertaintyLib.inference.last_layer import FeaturePredictor
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.last_layer import fit_last_layer
from CalibUncertaintyLib.workflow.last_layer_folder import check_place_of_copy
from CalibUncertaintyLib.workflow.segment import segment

NEW = "checkpoint_last_layer.pth"
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def digests(folder):
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def write_case(folder, model, seed, shape=(18, 22, 20)):
    """A CT with labels drawn from the model's own softmax at T = 2, and class 2 swapped for 1 in a part of it."""
    ct = write_ct(folder / f"ct{seed}.nii.gz", shape=shape, seed=seed)
    _, p = stock_prediction(model, ct, folder / f"stock{seed}.nii.gz", folds=(0,), mirroring=False)
    tempered = softmax(np.log(np.clip(p, 1e-12, 1)) / 2, axis=0)
    random = np.random.default_rng(seed)
    labels = (random.random(p.shape[1:]) > np.cumsum(tempered, axis=0)[:-1]).sum(axis=0).astype(np.uint8)
    labels[(labels == 2) & (random.random(labels.shape) < 0.3)] = 1
    volume = Volume.read(ct)
    volume.with_array(labels.reshape(volume.array.shape)).write(folder / f"seg{seed}.nii.gz")
    return LabelledCase(f"case{seed}", ct, folder / f"seg{seed}.nii.gz")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(transpose=(1, 0, 2)), sharpness=6.0)


@pytest.fixture(scope="module")
def cases(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return [write_case(folder, model, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def fitted(model, cases):
    before = digests(model)
    found = fit_last_layer(cases[:2], model, folds=[0], mirroring=False)
    assert digests(model) == before
    return found


@pytest.fixture(scope="module")
def written(fitted, tmp_path_factory):
    before = digests(fitted.model.path)
    out = fitted.write(tmp_path_factory.mktemp("out") / fitted.model.path.name, allow_changed_labels=True)
    assert digests(fitted.model.path) == before
    return out


@pytest.mark.parametrize(("residual", "flips"), [(False, "mean"), (True, "off")])
def test_features_through_the_trained_layer_are_stock_nnunets_logits(tmp_path, residual, flips):
    folder = write_model(tmp_path, plans(residual=residual), folds=(0,))
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(18, 22, 20))
    predictor = FeaturePredictor(MemberSet.choose(folder, flips=flips), "cpu")
    case = prepared(predictor, ct)
    features = next(whole_logits(planes) for _, planes in predictor.predict(case, Progress())).numpy()
    assert features.shape[0] == predictor.n_classes == 4
    stock = stock_logits(folder, case.data, mirroring=flips == "mean").float().numpy()
    # eight tiles are added up in half precision, features here and logits there: eight roundings of 2^-11 each
    summands = np.einsum("cf,f...->c...", np.abs(predictor.layer.weight), np.abs(features.astype(np.float32)))
    error = np.abs(predictor.layer.logits(features) - stock) / (summands + np.abs(stock) + 1e-30)
    inner = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))  # beyond, nnU-Net's weights are close to zero
    assert error[inner].max() < 8 * 2.0**-11


def test_stock_nnunet_gives_what_the_new_layer_promised(fitted, written, cases, model, tmp_path):
    """Probabilities of the file that was written, by stock nnU-Net; NLL and changed labels are those that were reported."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    total, changed, voxels = 0.0, 0, 0
    for case in cases[:2]:
        p = {}
        for folder, checkpoint in ((model, "checkpoint_final.pth"), (written, NEW)):
            stock = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
            stock.initialize_from_trained_model_folder(str(folder), (0,), checkpoint)
            array, properties = stock.plans_manager.image_reader_writer_class().read_images([str(case.ct)])
            p[checkpoint] = stock.predict_single_npy_array(array, properties, None, None, True)[1]
        labels = Volume.read(case.labels).array
        total += -np.log(np.take_along_axis(p[NEW], labels[None].astype(int), 0)).sum()
        changed += np.count_nonzero(p[NEW].argmax(axis=0) != p["checkpoint_final.pth"].argmax(axis=0))
        voxels += labels.size
    # untrained, the model sees structures everywhere: the ROI is the whole CT
    assert fitted.folds[0].nll[1] == pytest.approx(total / voxels, rel=1e-3)
    assert fitted.folds[0].changed == pytest.approx(changed, rel=0.02)
    assert fitted.folds[0].voxels == voxels


def test_the_nll_falls_on_the_cases_and_on_one_that_took_no_part(fitted, cases, model):
    assert fitted.folds[0].nll[1] < 0.9 * fitted.folds[0].nll[0]
    other = fit_last_layer(cases[:2], model, test_cases=cases[2:], folds=[0], mirroring=False)
    assert other.measured_on == ("case2",)
    assert other.folds[0].nll[1] < other.folds[0].nll[0]
    assert np.array_equal(other.folds[0].layer.weight, fitted.folds[0].layer.weight)


def test_an_overwhelming_pull_changes_no_label_and_is_stored_without_asking(cases, model, tmp_path):
    found = fit_last_layer(cases[:1], model, folds=[0], mirroring=False, pull=1e6)
    assert found.changed_labels == 0
    assert found.folds[0].nll[1] <= found.folds[0].nll[0]
    out = found.write(tmp_path / model.name)
    stored = [
        torch.load(out / "fold_0" / name, weights_only=True)["network_weights"]
        for name in ("checkpoint_final.pth", NEW)
    ]
    for name in stored[0]:
        torch.testing.assert_close(stored[0][name], stored[1][name], atol=1e-5, rtol=0)


def test_only_the_last_layer_differs(written):
    stored = [torch.load(written / "fold_0" / name, weights_only=True) for name in ("checkpoint_final.pth", NEW)]
    before, after = (content["network_weights"] for content in stored)
    assert before.keys() == after.keys()
    different = {name for name in before if not torch.equal(before[name], after[name])}
    assert different == {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}
    for key in ("trainer_name", "init_args", "inference_allowed_mirroring_axes"):
        assert stored[0][key] == stored[1][key]


def test_changed_labels_are_refused_with_the_figures_until_confirmed(fitted, tmp_path):
    assert fitted.changed_labels > 0
    with pytest.raises(CalibUncertaintyError, match=r"labels change, NLL .* Dice Liver .* confirm with allow_changed"):
        fitted.write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_written_over(fitted, model):
    before = digests(model)
    with pytest.raises(CalibUncertaintyError, match="exists already, and no model is written over"):
        fitted.write(model, allow_changed_labels=True)
    assert digests(model) == before


def test_our_own_segment_takes_the_new_checkpoint(written, cases, tmp_path):
    result = segment(cases[0].ct, written, tmp_path / "r", checkpoints=NEW, folds=[0], mirroring=False)
    assert (tmp_path / "r" / "result.json").is_file()
    assert result.labels
    assert ModelFolder.open(written).checkpoints(0) == ["checkpoint_final.pth", NEW]


def test_dice_is_that_of_the_label_maps(fitted, written, cases, model, tmp_path):
    dice = {name: ([], []) for name in fitted.folds[0].dice}
    for case in cases[:2]:
        truth = Volume.read(case.labels).array
        for which, (folder, checkpoint) in enumerate(((model, None), (written, NEW))):
            out = tmp_path / f"{case.id}{which}"
            segment(case.ct, folder, out, checkpoints=checkpoint, folds=[0], mirroring=False)
            labels = Volume.read(out / "segmentation.nii.gz").array
            for name, number in (("Liver", 1), ("Node", 2)):
                a, b = labels == number, truth == number
                dice[name][which].append(2 * np.count_nonzero(a & b) / (a.sum() + b.sum()))
    for name, pair in fitted.folds[0].dice.items():
        assert pair == pytest.approx([np.mean(values) for values in dice[name]], abs=2e-3)


def test_fitted_cases_count_as_training_cases_of_the_copy(cases, model, tmp_path):
    splits = [{"train": ["x"], "val": ["case0", "y"]}, {"train": ["y"], "val": ["x"]}]
    (model / "splits_final.json").write_text(json.dumps(splits))
    try:
        found = fit_last_layer(cases[:1], model, folds=[0], mirroring=False, pull=1e6)
        out = found.write(tmp_path / model.name)
        with pytest.raises(CalibUncertaintyError, match="was trained on case0"):
            fit_last_layer(cases[:1], out, folds=[0], mirroring=False)
    finally:
        (model / "splits_final.json").unlink()
    assert ModelFolder.open(out).training_cases(0) == ["x", "case0"]
    assert ModelFolder.open(out).training_cases(1) == ["y"]


def test_splits_one_folder_up_are_taken_over_into_the_copy(cases, model, tmp_path):
    source = tmp_path / "Dataset001_X" / model.name
    shutil.copytree(model, source)
    (source.parent / "splits_final.json").write_text(json.dumps([{"train": ["x"], "val": ["case0"]}] * 2))
    found = fit_last_layer(cases[:1], source, folds=[0], mirroring=False, pull=1e6)
    assert ModelFolder.open(found.write(tmp_path / "copy")).training_cases(0) == ["x", "case0"]


def test_the_terminal_writes_the_copy_when_changed_labels_are_allowed(cases, model, tmp_path, capsys):
    lines = [
        f"{case.id},{case.ct},{case.labels},{split}"
        for case, split in zip(cases, ["calibration", "test", "x"], strict=True)
    ]
    (tmp_path / "cases.csv").write_text("\n".join(["id,ct,labels,split", *lines]))
    asked = [
        "last-layer",
        "--model",
        str(model),
        "--cases",
        str(tmp_path / "cases.csv"),
        "--folds",
        "0",
        "--flips",
        "off",
    ]
    asked += ["--test-cases", str(tmp_path / "cases.csv"), "--out", str(tmp_path / "copy"), "--quiet"]
    assert cli.main(asked) == 1
    assert "labels change" in (said := capsys.readouterr().err)
    assert "--allow-changed-labels" in said
    assert not (tmp_path / "copy").exists()
    assert cli.main([*asked, "--allow-changed-labels"]) == 0
    assert (tmp_path / "copy" / "fold_0" / NEW).is_file()
    described = json.loads((tmp_path / "copy" / "last_layer.json").read_text(encoding="utf-8"))
    assert (described["fitted_on"], described["measured_on"]) == (["case0"], ["case1"])
    assert cli.main([*asked, "--allow-changed-labels"]) == 1  # said before anything is computed
    assert "exists already" in capsys.readouterr().err


PLACES = {
    "an existing file": ("file", "exists already, and no model is written over"),
    "a folder of somebody's": ("folder", "exists already, and no model is written over"),
    "below a file": ("file/copy", "a part of its path is a file, not a folder"),
    "a name too long": ("n" * 260, "has a name of 260 bytes"),
    "where nobody may write": ("/proc/nowhere/copy", "/proc/nowhere/copy cannot be written"),
}


@pytest.mark.parametrize(("place", "named"), PLACES.values(), ids=PLACES)
def test_an_impossible_place_is_said_before_the_fit(place, named, model, tmp_path, capfd, monkeypatch):
    def fit(*_, **__):
        raise AssertionError("the fit began")

    monkeypatch.setattr("CalibUncertaintyLib.workflow.last_layer.fit_last_layer", fit)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    before = digests(tmp_path)
    code = cli.main(
        ["last-layer", "--model", str(model), "--cases", "c.csv", "--out", str(tmp_path / place), "--quiet"]
    )
    text = capfd.readouterr().err
    assert code == 1
    assert named in text
    assert len(text.splitlines()) == 1
    assert digests(tmp_path) == before


def test_a_possible_place_leaves_nothing_behind_when_it_is_tried(model, tmp_path):
    check_place_of_copy(tmp_path / "a" / "b" / "copy", ModelFolder.open(model), [0, 1])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_copy_is_said_before_the_fit(model, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(CalibUncertaintyError, match=r"copy needs up to .* free space or choose another folder"):
        check_place_of_copy(tmp_path / "copy", ModelFolder.open(model), [0])


def test_either_module_of_the_last_layer_can_be_imported_first():
    for first in ("last_layer", "last_layer_folder"):
        command = f"import CalibUncertaintyLib.workflow.{first}, CalibUncertaintyLib.workflow.last_layer"
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_regions_have_a_logistic_regression_each(tmp_path):
    folder = write_model(tmp_path, plans(), folds=(0,), labels=REGIONS, regions_class_order=(1, 2), sharpness=6.0)
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(16, 20, 18))
    volume = Volume.read(ct)
    labels = np.random.default_rng(0).integers(0, 3, volume.array.shape).astype(np.uint8)
    volume.with_array(labels).write(tmp_path / "seg.nii.gz")
    found = fit_last_layer([LabelledCase("a", ct, tmp_path / "seg.nii.gz")], folder, mirroring=False)
    fold = found.folds[0]
    assert set(fold.dice) == {"whole", "core"}
    # labels that have nothing to do with the image: no better than how often each region holds
    rates = np.array([np.mean(labels > 0), np.mean(labels == 2)])
    base = -np.mean(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))
    assert fold.nll[1] == pytest.approx(base, rel=0.01)
    assert fold.nll[0] > 1.2 * base


def test_the_same_case_for_fitting_and_testing_is_refused(cases, model):
    with pytest.raises(CalibUncertaintyError, match="case0 is listed for fitting and for testing"):
        fit_last_layer(cases[:1], model, test_cases=cases[:1], folds=[0])


def test_a_case_without_any_structure_is_refused(tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(18, 22, 20))
    volume = Volume.read(ct)
    volume.with_array(np.zeros(volume.array.shape, np.uint8)).write(tmp_path / "seg.nii.gz")
    empty = write_model(tmp_path, plans(), folds=(0,))
    path = empty / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["network_weights"]["decoder.seg_layers.0.bias"][0] = 1000
    path.unlink()
    torch.save(content, path)
    with pytest.raises(CalibUncertaintyError, match="no structure was predicted or drawn"):
        fit_last_layer([LabelledCase("a", ct, tmp_path / "seg.nii.gz")], empty, folds=[0], mirroring=False)


@pytest.mark.parametrize("wrong", [{"dropout": 5}, {"flips": "members"}, {"roi_mm": 0}, {"pull": -1}])
def test_options_that_mean_nothing_here_are_refused(cases, model, wrong):
    with pytest.raises(CalibUncertaintyError):
        fit_last_layer(cases, model, **wrong)


def test_another_kind_of_last_layer_is_named(model, monkeypatch):
    from CalibUncertaintyLib.inference import members as engine

    built = engine.build_network

    def with_wide_layer(*arguments):
        network = built(*arguments)
        layer = network.decoder.seg_layers[-1]
        network.decoder.seg_layers[-1] = torch.nn.Conv3d(layer.in_channels, layer.out_channels, 3, padding=1)
        return network

    monkeypatch.setattr(engine, "build_network", with_wide_layer)
    monkeypatch.setattr(engine, "load_weights", lambda *_: None)
    with pytest.raises(CalibUncertaintyError, match="does not end in a convolution of one voxel"):
        FeaturePredictor(MemberSet.choose(model, folds=[0]), "cpu")
