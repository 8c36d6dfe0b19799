"""Cases that trained a member are named, over all models, and file names that look like such cases are pointed out."""

import json

import pytest
from listening import Listening
from test_member_set import model_folder

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.fold_honesty import case_name, named_like_training, trained_on, unknown_training
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.workflow.labelled import LabelledCase, read_cases, refuse_doubtful_cases

SPLITS = [{"train": ["p1", "p2"], "val": ["p3"]}, {"train": ["p2", "p3"], "val": ["p1"]}]


@pytest.fixture
def members(tmp_path):
    """Two models: the first has the splits, the second was trained on p9 in both folds."""
    first, second = (model_folder(tmp_path / letter, seed=letter) for letter in "ab")
    (first / "splits_final.json").write_text(json.dumps(SPLITS), encoding="utf-8")
    (second / "splits_final.json").write_text(json.dumps([{"train": ["p9"], "val": []}] * 2), encoding="utf-8")
    return MemberSet.choose([first, second])


def case(tmp_path, name, *files):
    return LabelledCase(name, *(tmp_path / file for file in (files or ("ct.nii.gz", "labels.nii.gz"))))


def test_what_a_case_trained_is_told_by_model_and_fold(members):
    assert trained_on(["p2", "p3", "p9", "new"], members) == {"p2": [(0, 0), (0, 1)], "p3": [(0, 1)], "p9": [(1, 0), (1, 1)]}
    assert trained_on(["p3"], MemberSet.choose(members.models[0], [0])) == {}


def test_folds_without_splits_are_unknown(members, tmp_path):
    third = model_folder(tmp_path / "c", seed="c")
    assert unknown_training(members) == []
    assert unknown_training(MemberSet.choose([*members.models, third])) == [third]


def test_splits_that_came_with_the_model_may_lie_one_folder_up_and_the_models_own_come_first(tmp_path):
    folder = model_folder(tmp_path / "Dataset001_X", seed="d")
    (folder.parent / "splits_final.json").write_text(json.dumps(SPLITS), encoding="utf-8")
    members = MemberSet.choose(folder)
    assert unknown_training(members) == []
    assert trained_on(["p3", "new"], members) == {"p3": [(0, 1)]}
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["p9"], "val": []}] * 2), encoding="utf-8")
    assert trained_on(["p3", "p9"], members) == {"p9": [(0, 0), (0, 1)]}
    (folder / "splits_final.json").write_text("no JSON", encoding="utf-8")
    assert unknown_training(members) == [folder]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("p1.nii.gz", "p1"), ("/data/p1_0000.nii.gz", "p1"), ("p1_0001.NRRD", "p1"), ("p_10.mha", "p_10"), ("series", "series"),
        ("a.b.nii", "a.b"),
    ],
)  # fmt: skip
def test_a_files_name_is_read_as_nnunet_names_cases(name, found):
    assert case_name(name) == found


def test_a_file_with_the_name_of_a_training_case_is_pointed_out(members, tmp_path):
    files = {"a": [tmp_path / "p2_0000.nii.gz"], "p2": [tmp_path / "p2.nii.gz"], "b": [tmp_path / "q.nii.gz"]}
    assert named_like_training(files, members) == {"a": ("p2", [(0, 0), (0, 1)])}
    for name, found in (("p9_ct.nii.gz", "p9"), ("p9-seg.nrrd", "p9"), ("p99.nii.gz", None), ("xp9.nii.gz", None), ("p.nii", None)):
        alike = named_like_training({"new": [tmp_path / name]}, members)
        assert alike.get("new", (None,))[0] == found, name


def test_calibrating_on_a_training_case_is_refused_with_model_fold_and_case(members, tmp_path):
    with pytest.raises(CalibUncertaintyError) as caught:
        refuse_doubtful_cases([case(tmp_path, "p9"), case(tmp_path, "new")], members, Listening())
    assert str(caught.value) == f"folds 0 and 1 of {members.models[1].path} were trained on p9; give held-out cases only"
    with pytest.raises(CalibUncertaintyError, match=r"^fold 1 of Dataset1_X was trained on p3; give held-out"):
        refuse_doubtful_cases([case(tmp_path, "p3")], MemberSet.choose(members.models[0]), Listening())


def test_a_training_case_under_another_id_is_warned_of(members, tmp_path):
    heard = Listening()
    refuse_doubtful_cases([case(tmp_path, "a", "p3.nii.gz", "labels.nii.gz")], members, heard)
    (warning,) = heard.warnings
    assert f"The case a has a file with the name of p3, on which fold 1 of {members.models[0].path} was trained" in warning
    heard = Listening()
    refuse_doubtful_cases([case(tmp_path, "a", "ct.nii.gz", "p9.nii.gz")], members, heard)
    assert "p9" in heard.warnings[0]
    heard = Listening()
    refuse_doubtful_cases([case(tmp_path, "new")], members, heard)
    assert heard.warnings == []


def test_the_images_of_several_channels_are_listed_with_semicolons(tmp_path):
    for name in ("ct.nii", "pet.nii", "labels.nii", "odd;name.nii", "labels2.nii"):
        (tmp_path / name).touch()
    lines = ["id,ct,labels", "a,ct.nii; pet.nii,labels.nii", "b,odd;name.nii,labels2.nii"]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first, second = read_cases(tmp_path / "cases.csv")
    assert first.channels == (tmp_path / "ct.nii", tmp_path / "pet.nii")
    assert second.channels == (tmp_path / "odd;name.nii",)
    (tmp_path / "cases.csv").write_text("id,ct,labels\na,ct.nii;gone.nii,labels.nii\n", encoding="utf-8")
    with pytest.raises(CalibUncertaintyError, match=r"line 2: .*gone\.nii does not exist"):
        read_cases(tmp_path / "cases.csv")
