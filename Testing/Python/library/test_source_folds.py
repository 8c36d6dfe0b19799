"""A raw nnU-Net dataset as a source of cases: every fold alone on what it did not see, and nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from listening import Listening
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.fold_honesty import find_splits
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import collect_cases
from CalibUncertaintyLib.workflow.sources import collect_out_of_fold, members_of_fold, out_of_fold_cases

NAME = "Dataset999_Tiny"
SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a"], "val": ["b", "c"]}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of two folds whose folder does not say what they saw."""
    return write_model(tmp_path_factory.mktemp("model"), plans(), sharpness=6.0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory, trained):
    """nnUNet_raw with the dataset of the model's training."""
    folder = tmp_path_factory.mktemp("nnunet") / "nnUNet_raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(trained / "dataset.json", folder / "dataset.json")
    for seed, case in enumerate("abc"):
        ct = Volume.read(write_ct(folder / "imagesTr" / f"{case}_0000.nii.gz", shape=(18, 20, 18), seed=seed))
        labels = np.zeros(ct.array.shape, np.uint8)
        labels[4:11, 5 : 12 + seed, 5:12], labels[12:16, 3:8, 3:8] = 1, 2
        ct.with_array(labels).write(folder / "labelsTr" / f"{case}.nii.gz")
    return folder


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the model that has its splits beside it."""
    folder = shutil.copytree(trained, tmp_path / NAME / trained.name)
    split(folder, SPLITS)
    return folder


@pytest.fixture
def dataset(raw, tmp_path):
    """A copy of the dataset, to be damaged."""
    return shutil.copytree(raw, tmp_path / "nnUNet_raw" / NAME)


def split(folder, content):
    Path(folder).mkdir(parents=True, exist_ok=True)
    (folder / "splits_final.json").write_text(json.dumps(content), encoding="utf-8")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def members_of(model, **options):
    return MemberSet.choose(model, flips="off", **options)


def predictor_of(members):
    return MemberPredictor(members, "cpu")


def ids(found):
    return {fold: [case.id for case in cases] for fold, cases in found.items()}


def refusal(dataset, members, *arguments, **options):
    with pytest.raises(CalibUncertaintyError) as caught:
        out_of_fold_cases(dataset, members, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_fold_gets_the_cases_it_did_not_see_with_their_files(model, raw):
    found = out_of_fold_cases(raw, members_of(model))
    assert ids(found) == {0: ["a"], 1: ["b", "c"]}
    (case,) = found[0]
    assert (case.ct, case.labels, case.further) == (raw / "imagesTr/a_0000.nii.gz", raw / "labelsTr/a.nii.gz", ())
    assert ids(out_of_fold_cases(raw, members_of(model, folds=[1]))) == {1: ["b", "c"]}


def test_each_fold_is_run_alone_on_its_own_cases(model, raw, tmp_path):
    members = members_of(model)
    cases = out_of_fold_cases(raw, members)
    with Scratch(tmp_path) as kept:
        found = collect_out_of_fold(cases, members, predictor_of, 6.0, tmp_path, Progress(), kept)
        assert {fold: [voxels.case for voxels in of_fold] for fold, of_fold in found.items()} == cases
        for fold, of_fold in found.items():
            alone = MemberSet.choose(model, [fold], flips="off")
            expected = collect_cases(cases[fold], alone.models[0], predictor_of(alone), 6.0, tmp_path, Progress())
            for voxels, other in zip(of_fold, expected, strict=True):
                assert voxels.members.shape == (1, 3, voxels.size)
                assert voxels.size > 1000
                for name in ("pooled", "members", "labels", "near_prediction"):
                    np.testing.assert_array_equal(getattr(voxels, name), getattr(other, name))
        # the other fold says something else of the same case, so it matters which one was asked
        alone = MemberSet.choose(model, [1], flips="off")
        (other,) = collect_cases(cases[0], alone.models[0], predictor_of(alone), 6.0, tmp_path, Progress())
        assert other.pooled.shape != found[0][0].pooled.shape or not np.array_equal(other.pooled, found[0][0].pooled)


def test_progress_runs_through_all_folds_and_names_fold_and_case(model, raw, tmp_path):
    class Shown(Progress):
        def __init__(self):
            super().__init__()
            self.said = []

        def show(self, message):
            self.said.append((round(self.fraction, 6), message))

    heard, members = Shown(), members_of(model)
    with Scratch(tmp_path) as kept:
        collect_out_of_fold(out_of_fold_cases(raw, members), members, predictor_of, 3.0, tmp_path, heard, kept)
    named = list(dict.fromkeys(message.split(": ")[0] for _, message in heard.said if "of 3)" in message))
    assert named == ["fold 0, case a (1 of 3)", "fold 1, case b (2 of 3)", "fold 1, case c (3 of 3)"]
    assert [part for part, _ in heard.said] == sorted(part for part, _ in heard.said)
    assert heard.fraction == pytest.approx(0.9)


@pytest.mark.parametrize(
    "place", ["given file", "given folder", "model", "above the model", "environment", "beside raw", "in raw"]
)
def test_the_splits_are_found_where_nnunet_and_people_put_them(place, trained, dataset, tmp_path, monkeypatch):
    model = shutil.copytree(trained, tmp_path / "nnUNet_results" / NAME / trained.name)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = {
        "model": model, "above the model": model.parent, "environment": tmp_path / "pre" / NAME,
        "beside raw": tmp_path / "nnUNet_preprocessed" / NAME, "in raw": dataset,
    }.get(place, tmp_path / "mine")  # fmt: skip
    assert "there is no splits_final.json" in refusal(dataset, members_of(model))
    split(folder, SPLITS)
    if place == "environment":
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    given = {"given file": folder / "splits_final.json", "given folder": folder}.get(place)
    assert ids(out_of_fold_cases(dataset, members_of(model), given)) == {0: ["a"], 1: ["b", "c"]}
    assert find_splits(members_of(model).models[0], dataset, given).path == folder / "splits_final.json"


def test_the_models_own_splits_go_first_and_others_must_agree(model, dataset, tmp_path):
    other = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    split(dataset, other)
    assert ids(out_of_fold_cases(dataset, members_of(model))) == {0: ["a"], 1: ["b", "c"]}
    (model / "splits_final.json").unlink()
    assert ids(out_of_fold_cases(dataset, members_of(model))) == {0: ["b"], 1: ["a"]}
    split(tmp_path / "nnUNet_preprocessed" / NAME, SPLITS)
    said = refusal(dataset, members_of(model))
    assert str(dataset / "splits_final.json") in said
    assert "differ; copy the one" in said


def test_without_splits_the_refusal_says_where_they_belong(trained, dataset, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    said = refusal(dataset, members_of(trained))
    assert f"copy it from nnUNet_preprocessed into {trained}" in said
    assert "gone does not exist" in refusal(dataset, members_of(trained), dataset / "gone")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SPLITS[:1], "has 1 folds and says nothing of fold 1"),
        ([SPLITS[0], {"train": ["a"], "val": []}], r"lists no held-out case \('val'\) for fold 1"),
        ([{"train": ["a", "b"], "val": ["a", "c"]}, SPLITS[1]], "fold 0 was trained on a, which it lists as held out"),
        ({"train": []}, "does not list 'train' and 'val'"),
        ([["a"]], "does not list 'train' and 'val'"),
        ([{"train": ["a"]}], "does not list 'train' and 'val'"),
        ([{"train": ["a"], "val": [3]}], "does not list 'train' and 'val'"),
    ],
)
def test_splits_that_hold_nothing_out_are_refused(content, said, model, raw):
    split(model, content)
    with pytest.raises(CalibUncertaintyError, match=said):
        out_of_fold_cases(raw, members_of(model))
    refusal(raw, members_of(model))


def test_what_nnunet_validated_a_fold_on_must_agree_with_the_splits(model, raw):
    validation = model / "fold_0" / "validation"
    validation.mkdir()
    (validation / "summary.json").write_text("{}")
    (validation / "a.nii.gz").touch()
    assert ids(out_of_fold_cases(raw, members_of(model)))[0] == ["a"]
    (validation / "b.nii.gz").touch()
    said = refusal(raw, members_of(model))
    assert "says that b trained fold 0, but nnU-Net validated it on them" in said


def test_fold_all_has_seen_everything(model, raw):
    (model / "fold_0").rename(model / "fold_all")
    shutil.rmtree(model / "fold_1")
    assert "fold all of Dataset999_Tiny was trained on every case" in refusal(raw, members_of(model))


def test_several_models_are_refused(model, raw, tmp_path):
    other = write_model(tmp_path / "other", plans(), seed=7)
    assert "one model at a time" in refusal(raw, members_of([model, other]))


def test_all_missing_files_are_listed(model, dataset):
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/c.nii.gz"):
        (dataset / name).unlink()
    said = refusal(dataset, members_of(model))
    assert (
        f"2 files do not exist: case a: {dataset / 'imagesTr/a_0000.nii.gz'}; case c: {dataset / 'labelsTr/c.nii.gz'}"
        in said
    )
    split(model, [SPLITS[0], {"train": ["a", "c"], "val": ["b"]}])
    # what is asked of no fold may be missing
    assert ids(out_of_fold_cases(dataset, members_of(model, folds=[1]))) == {1: ["b"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"background": 0, "Liver": 1}}, "the label Node is not there, in .* 2"),
        ({"labels": {"background": 0, "Liver": 2, "Node": 1}}, "the label Liver is 2, in .* 1"),
        ({"labels": {"background": 0, "Liver": 1, "Node": 2, "ignore": 3}}, "the label ignore is 3, in .* not there"),
        ({"channel_names": {"0": "MR"}}, "the input channels are MR, those of Dataset999_Tiny CT"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "the input channels are CT, PET"),
        ({"file_ending": None}, "no 'file_ending'"),
        ({"labels": 3}, "no 'labels'"),
    ],
)
def test_a_dataset_of_another_model_is_refused(changes, said, model, dataset):
    edit(dataset / "dataset.json", **changes)
    with pytest.raises(CalibUncertaintyError, match=said):
        out_of_fold_cases(dataset, members_of(model))
    refusal(dataset, members_of(model))


def test_numbers_written_as_text_are_the_same_labels(model, dataset):
    edit(dataset / "dataset.json", labels={"background": "0", "Liver": "1", "Node": [2]})
    assert ids(out_of_fold_cases(dataset, members_of(model))) == {0: ["a"], 1: ["b", "c"]}


@pytest.mark.parametrize(("gone", "said"), [
    (["dataset.json"], "has no dataset.json;"), (["imagesTr", "labelsTr"], "has no imagesTr and no labelsTr"), ([], "is not there"),
])  # fmt: skip
def test_a_folder_that_is_no_raw_dataset_is_refused(gone, said, model, dataset):
    for name in gone:
        (dataset / name).rename(dataset / f"old_{name}")
    assert said in refusal(dataset if gone else dataset / "gone", members_of(model))


def test_files_that_dataset_json_lists_are_taken_from_there(model, dataset):
    (dataset / "elsewhere").mkdir()
    listed = {}
    for case in "abc":
        shutil.move(dataset / "imagesTr" / f"{case}_0000.nii.gz", dataset / "elsewhere" / f"{case}.nii.gz")
        listed[case] = {"images": [f"elsewhere/{case}.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
    edit(dataset / "dataset.json", dataset=listed)
    found = out_of_fold_cases(dataset, members_of(model))
    assert found[0][0].ct == dataset / "elsewhere" / "a.nii.gz"
    edit(dataset / "dataset.json", dataset={key: listed[key] for key in "ab"})
    assert "has no 'images' and 'label' of c" in refusal(dataset, members_of(model))


def test_a_patient_who_is_in_the_dataset_twice_was_not_held_out(model, dataset):
    shutil.copyfile(dataset / "imagesTr/a_0000.nii.gz", dataset / "imagesTr/b_0000.nii.gz")
    said = refusal(dataset, members_of(model))
    assert "the same file under several cases" in said
    assert "(case a)" in said
    assert "(case b)" in said


def test_cases_kept_for_testing_are_refused_by_name(model, raw):
    said = refusal(raw, members_of(model), excluded=["c", "z"])
    assert said.startswith("the case c is kept for testing")
    assert refusal(raw, members_of(model), excluded=["c", "a"]).startswith("the cases a, c are kept for testing")
    assert ids(out_of_fold_cases(raw, members_of(model), excluded=["z"])) == {0: ["a"], 1: ["b", "c"]}


def test_a_fold_with_the_weights_of_another_is_refused(model, raw, tmp_path):
    shutil.copyfile(model / "fold_0" / "checkpoint_final.pth", model / "fold_1" / "checkpoint_final.pth")
    members = members_of(model)
    with Scratch(tmp_path) as kept, pytest.raises(CalibUncertaintyError, match=r"fold_1/.* holds the same weights"):
        collect_out_of_fold(out_of_fold_cases(raw, members), members, predictor_of, 6.0, tmp_path, Progress(), kept)


def test_splits_given_from_elsewhere_do_not_outdo_those_beside_the_model(model, raw, tmp_path):
    split(tmp_path / "mine", [SPLITS[1], SPLITS[0]])
    members = members_of(model)
    cases = out_of_fold_cases(raw, members, tmp_path / "mine")
    assert ids(cases) == {0: ["b", "c"], 1: ["a"]}
    with Scratch(tmp_path) as kept, pytest.raises(CalibUncertaintyError, match=r"fold 0 of .* was trained on b, c"):
        collect_out_of_fold(cases, members, predictor_of, 6.0, tmp_path, Progress(), kept)


def test_a_cascade_is_shown_the_labels_of_the_same_fold_of_its_first_stage(tmp_path):
    content = plans(lowres=(3.0, 2.5, 2.5))
    first, second = (write_model(tmp_path / c, content, configuration=c) for c in ("3d_lowres", "3d_cascade_fullres"))
    second = shutil.move(second, first.with_name(second.name))
    members = MemberSet.choose(second, flips="off")
    assert members.before.folds == ((0, 1),)
    alone = members_of_fold(members, 1)
    assert (alone.folds, alone.before.folds) == (((1,),), ((1,),))
    shutil.rmtree(first / "fold_1")
    with pytest.raises(CalibUncertaintyError, match=r"has no fold 1, whose labels fold 1 of the second stage"):
        members_of_fold(members, 1)


def test_a_label_map_on_another_grid_is_resampled_only_when_asked(model, dataset, tmp_path):
    path = dataset / "labelsTr" / "a.nii.gz"
    labels = Volume.read(path)
    labels.crop((0, 0, 0), (14, 20, 18)).write(path)
    members = replace(members_of(model, folds=[0]), warnings=())
    cases = out_of_fold_cases(dataset, members)
    with Scratch(tmp_path) as kept:
        with pytest.raises(CalibUncertaintyError, match="does not lie on the grid"):
            collect_out_of_fold(cases, members, predictor_of, 6.0, tmp_path, Progress(), kept)
        heard = Listening()
        collect_out_of_fold(cases, members, predictor_of, 6.0, tmp_path, heard, kept, resample_labels=True)
    assert any(warning.startswith("a: a.nii.gz lay on another grid and was resampled") for warning in heard.warnings)
