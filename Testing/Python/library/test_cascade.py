"""Cascades: the first stage and then the second, label by label what stock nnU-Net writes when it is run twice."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.cascade import _labels_of, run_previous_stage
from CalibUncertaintyLib.workflow.options import MemberOptions

LOWRES = (4.0, 3.0, 3.0)
REGIONS = {"background": 0, "Whole": [1, 2], "Node": 2}


class Heard(Progress):
    def __init__(self):
        super().__init__()
        self.messages = []

    def show(self, message):
        self.messages.append(message)


def write_cascade(path, folds=(0, 1), low_folds=(0, 1), of_model=None, seed=0, **of_plans):
    content = plans(lowres=LOWRES, **of_plans)
    of_model = of_model or {}
    low = write_model(path, content, folds=low_folds, configuration="3d_lowres", seed=20, **of_model)
    return low, write_model(path, content, folds=folds, configuration="3d_cascade_fullres", seed=seed, **of_model)


def run(folder, ct, **options):
    """The first stage, then the second's labels, (z, y, x)."""
    chosen = MemberOptions(device="cpu", **options)
    members = chosen.members_of(folder)
    volumes = [Volume.read(path) for path in (ct if isinstance(ct, list) else [ct])]
    before = run_previous_stage(members, volumes, chosen, Progress())
    predictor = MemberPredictor(members, "cpu")
    with Scratch(volumes and folder) as scratch:
        opinions = Opinions.ask(predictor, predictor.prepare(volumes, before.labels), scratch, Progress())
        return before, _labels_of(opinions, predictor)


VARIANTS = {
    "plain": ({}, {}, {}),
    "oblique, transposed, border, thick slices": (
        dict(transpose=(1, 0, 2), reader="NibabelIOWithReorient"),
        {},
        dict(direction=rotation(15) @ np.diag([-1, 1, 1]), empty_border=3, spacing=(0.9, 0.9, 6.0)),
    ),
    "regions": ({}, dict(labels=REGIONS, regions_class_order=(1, 2)), {}),
    "two channels": (dict(channels=2), dict(channels={"0": "CT", "1": "PET"}), {}),
    "ignore label": ({}, dict(labels={"background": 0, "Liver": 1, "Node": 2, "ignore": 3}), {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_stages_give_stock_nnunets_labels(tmp_path, variant):
    of_plans, of_model, of_ct = VARIANTS[variant]
    low, high = write_cascade(tmp_path, of_model=of_model, **of_plans)
    images = [write_ct(tmp_path / f"ct_{i}.nii.gz", seed=i, **of_ct) for i in range(of_plans.get("channels", 1))]
    first, _ = stock_prediction(low, images, tmp_path / "low.nii.gz")
    second, _ = stock_prediction(high, images, tmp_path / "high.nii.gz", previous=tmp_path / "low.nii.gz")
    before, labels = run(high, images)
    assert np.array_equal(before.labels, sitk.GetArrayFromImage(first))
    assert np.array_equal(labels, sitk.GetArrayFromImage(second))
    assert all(len(np.unique(found)) == 3 for found in (before.labels, labels))
    assert before.warnings == ()


def test_only_the_places_of_labels_are_brought_back_to_the_ct(tmp_path, monkeypatch):
    low, _ = write_cascade(tmp_path)
    for fold in (0, 1):
        path = low / f"fold_{fold}" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=True)
        for name, weights in content["network_weights"].items():
            if name.endswith("seg_layers.0.bias"):
                weights[0] = 5.0  # background, but where something is seen
        path.unlink()
        torch.save(content, path)
    ct = write_ct(tmp_path / "ct.nii.gz")
    image = sitk.ReadImage(str(ct))
    array = sitk.GetArrayFromImage(image)
    corner = array[:8, :8, :8] + 400
    array[...] = -500
    array[:8, :8, :8] = corner
    empty = sitk.GetImageFromArray(array)
    empty.CopyInformation(image)
    sitk.WriteImage(empty, str(ct))
    expected, _ = stock_prediction(low, ct, tmp_path / "low.nii.gz")
    looked_at, slabs = [], Opinions.slabs
    monkeypatch.setattr(Opinions, "slabs", lambda self, box: looked_at.append(box.voxels) or slabs(self, box))
    volume = Volume.read(ct)
    predictor = MemberPredictor(MemberSet.choose(low), "cpu")
    with Scratch(tmp_path) as scratch:
        labels = _labels_of(Opinions.ask(predictor, predictor.prepare([volume]), scratch, Progress()), predictor)
    assert np.array_equal(labels, sitk.GetArrayFromImage(expected))
    assert 0 < np.count_nonzero(labels) <= sum(looked_at) < 0.5 * labels.size


def test_the_second_stage_depends_on_the_first(tmp_path):
    """Else the comparison above would say nothing."""
    _, high = write_cascade(tmp_path)
    ct = write_ct(tmp_path / "ct.nii.gz")
    _, labels = run(high, ct)
    volume = Volume.read(ct)
    predictor = MemberPredictor(MemberSet.choose(high), "cpu")
    with Scratch(tmp_path) as scratch:
        case = predictor.prepare([volume], np.zeros(volume.array.shape))
        without = _labels_of(Opinions.ask(predictor, case, scratch, Progress()), predictor)
    assert np.mean(without != labels) > 0.05


def test_the_folds_of_the_second_stage_are_used_where_the_first_has_them(tmp_path):
    low, high = write_cascade(tmp_path, folds=(0, 1), low_folds=(0, 1, 2))
    ct = write_ct(tmp_path / "ct.nii.gz")
    expected, _ = stock_prediction(low, ct, tmp_path / "low.nii.gz", folds=(1,))
    before, _ = run(high, ct, folds=[1])
    assert (before.provenance["folds"], before.warnings) == ([1], ())
    assert np.array_equal(before.labels, sitk.GetArrayFromImage(expected))


def test_other_folds_of_the_first_stage_are_said(tmp_path):
    low, high = write_cascade(tmp_path, folds=(0, 1), low_folds=(0, 3))
    ct = write_ct(tmp_path / "ct.nii.gz")
    expected, _ = stock_prediction(low, ct, tmp_path / "low.nii.gz", folds=(0, 3))
    before, _ = run(high, ct)
    assert before.provenance["folds"] == [0, 3]
    assert before.warnings == (
        "The first stage of the cascade (3d_lowres) does not have folds 0 and 1; its folds 0 and 3 were used instead",
    )
    assert np.array_equal(before.labels, sitk.GetArrayFromImage(expected))


def test_flips_are_off_in_both_stages_or_in_none(tmp_path):
    low, high = write_cascade(tmp_path)
    ct = write_ct(tmp_path / "ct.nii.gz")
    for flips, mirroring in (("off", False), ("members", True)):
        expected, _ = stock_prediction(low, ct, tmp_path / "low.nii.gz", mirroring=mirroring)
        chosen = MemberOptions(device="cpu", flips=flips)
        before = run_previous_stage(chosen.members_of(high), [Volume.read(ct)], chosen, Progress())
        assert np.array_equal(before.labels, sitk.GetArrayFromImage(expected))


def test_the_provenance_is_json_and_names_what_was_run(tmp_path):
    low, high = write_cascade(tmp_path)
    before, _ = run(high, write_ct(tmp_path / "ct.nii.gz"))
    stored = json.loads(json.dumps(before.provenance))
    assert (stored["stage"], stored["folder"], stored["flips"], stored["previous"]) == ("3d_lowres", str(low), "mean", None)
    assert stored["fingerprint"] == MemberSet.choose(low).fingerprint()
    assert stored["seconds"] > 0


def test_a_cascade_of_three_stages_runs_them_all(tmp_path):
    content = plans(lowres=LOWRES)
    content["configurations"]["3d_lowest"] = {"inherits_from": "3d_fullres", "spacing": [5.0, 4.5, 4.5]}
    content["configurations"]["3d_lowres"]["previous_stage"] = "3d_lowest"
    folders = [
        write_model(tmp_path, content, configuration=name, seed=10 * seed)
        for seed, name in enumerate(("3d_lowest", "3d_lowres", "3d_cascade_fullres"))
    ]
    ct = write_ct(tmp_path / "ct.nii.gz")
    expected, _ = stock_prediction(folders[0], ct, tmp_path / "0.nii.gz")
    for number in (1, 2):
        expected, _ = stock_prediction(
            folders[number], ct, tmp_path / f"{number}.nii.gz", previous=tmp_path / f"{number - 1}.nii.gz"
        )
    before, labels = run(folders[2], ct)
    assert np.array_equal(labels, sitk.GetArrayFromImage(expected))
    assert before.provenance["previous"]["stage"] == "3d_lowest"


def test_the_user_may_have_the_first_stage_elsewhere(tmp_path):
    low, high = write_cascade(tmp_path)
    ct = write_ct(tmp_path / "ct.nii.gz")
    expected, _ = run(high, ct)
    shutil.move(low, tmp_path / "somewhere")
    with pytest.raises(CalibUncertaintyError, match=r"needs the model 3d_lowres .*--previous DIR"):
        run(high, ct)
    before, _ = run(high, ct, previous=tmp_path / "somewhere")
    assert np.array_equal(before.labels, expected.labels)


def test_progress_tells_which_stage_is_running(tmp_path):
    _, high = write_cascade(tmp_path)
    heard = Heard()
    chosen = MemberOptions(device="cpu")
    run_previous_stage(chosen.members_of(high), [Volume.read(write_ct(tmp_path / "ct.nii.gz"))], chosen, heard)
    assert any(message.startswith("first stage 3d_lowres: member 1 of 2, tile") for message in heard.messages)


def test_a_model_without_a_first_stage_needs_none(tmp_path):
    folder = write_model(tmp_path, plans())
    assert run_previous_stage(MemberSet.choose(folder), [], MemberOptions(), Progress()) is None
    with pytest.raises(CalibUncertaintyError, match="is no second stage of a cascade; leave --previous out"):
        MemberOptions(previous=str(tmp_path)).members_of(folder)


def test_models_with_first_stages_of_their_own_are_refused_together(tmp_path):
    low, first = write_cascade(tmp_path / "a")
    _, second = write_cascade(tmp_path / "b", seed=5)
    with pytest.raises(CalibUncertaintyError, match="first stages of their own"):
        MemberOptions().members_of([first, second])
    assert MemberOptions(previous=low).members_of([first, second]).before.models[0].path == low


def test_a_first_stage_that_cannot_be_run_is_named(tmp_path):
    low, high = write_cascade(tmp_path)
    content = json.loads((low / "plans.json").read_text(encoding="utf-8"))
    (low / "plans.json").write_text(json.dumps(content | {"image_reader_writer": "NaturalImage2DIO"}))
    with pytest.raises(CalibUncertaintyError, match="NaturalImage2DIO") as refusal:
        run(high, write_ct(tmp_path / "ct.nii.gz"))
    assert str(low / "plans.json") in str(refusal.value)
    (low / "plans.json").write_text(json.dumps(content))
    checkpoint = low / "fold_1" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(CalibUncertaintyError, match="is truncated") as refusal:
        run(high, write_ct(tmp_path / "ct.nii.gz"))
    assert str(checkpoint) in str(refusal.value)
