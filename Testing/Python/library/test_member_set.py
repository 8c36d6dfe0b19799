"""Which members are meant: every choice understood or refused in one line, and plain folds exactly as they always were."""

import json

import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record_check import problem_in
from CalibUncertaintyLib.workflow.options import MemberOptions, SegmentOptions

LABELS = {"background": 0, "Liver": 1, "Node": 2}
FINAL = "checkpoint_final.pth"
CYCLES = ("checkpoint_cycle_1.pth", "checkpoint_cycle_2.pth", "checkpoint_cycle_10.pth")


def model_folder(place, labels=None, channels=None, checkpoints=(FINAL,), folds=(0, 1), seed="", **dataset):
    """A folder that looks like a model; the checkpoints' bytes differ unless told otherwise."""
    folder = place / "T__P__3d_fullres"
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True)
        for name in checkpoints:
            (folder / f"fold_{fold}" / name).write_text(f"{seed}{fold}{name}".ljust(64), encoding="utf-8")
    plans = {"dataset_name": "Dataset1_X", "configurations": {"3d_fullres": {"spacing": [1, 1, 1]}}}
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    content = {"labels": labels or LABELS, "channel_names": channels or {"0": "CT"}, **dataset}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def model(tmp_path):
    return model_folder(tmp_path, checkpoints=(FINAL, *CYCLES, "checkpoint_best.pth"))


def refusal(*arguments, **options) -> str:
    with pytest.raises(CalibUncertaintyError) as caught:
        MemberSet.choose(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_of(chosen):
    return [name for index, fold, name in chosen.sources() if (index, fold) == (0, 0)]


# --- plain folds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", ["mean", "off"])
@pytest.mark.parametrize("folds", ["all", [1, 0], 1])
def test_folds_of_one_model_have_the_fingerprint_and_the_record_they_always_had(model, folds, flips):
    chosen, folder = MemberSet.choose(model, folds, flips=flips), ModelFolder.open(model)
    selected = folder.select_folds(folds)
    assert chosen.fingerprint() == folder.fingerprint(selected)
    assert chosen.as_recorded() == {
        "folds": selected, "checkpoint": FINAL, "checkpoints": folder.fingerprint(selected)["checkpoints"],
        "mirroring": flips == "mean",
    }  # fmt: skip
    assert [(fold, name) for _, fold, name in chosen.sources()] == [(fold, FINAL) for fold in selected]


def test_every_combination_is_a_source_in_the_order_model_fold_checkpoint(tmp_path):
    models = [model_folder(tmp_path / letter, checkpoints=(FINAL, *CYCLES[:1]), seed=letter) for letter in "ab"]
    chosen = MemberSet.choose(models, checkpoints="all", flips="members", dropout=5)
    names = (FINAL, CYCLES[0])
    assert chosen.sources() == [(index, fold, name) for index in (0, 1) for fold in (0, 1) for name in names]
    assert chosen.least_members == 8 * 5 * 2


# --- checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, [FINAL]),
        ("checkpoint_best.pth", ["checkpoint_best.pth"]),
        (["checkpoint_cycle*"], list(CYCLES)),
        ([CYCLES[2], FINAL, CYCLES[0]], [FINAL, CYCLES[0], CYCLES[2]]),
        ("all", [FINAL, "checkpoint_best.pth", *CYCLES]),
        (["checkpoint_cycle_?.pth", "checkpoint_best*"], ["checkpoint_best.pth", *CYCLES[:2]]),
    ],
)
def test_checkpoints_are_names_patterns_or_all_in_one_order(model, asked, found):
    assert names_of(MemberSet.choose(model, checkpoints=asked)) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([FINAL, FINAL], "the checkpoint checkpoint_final.pth is listed twice"),
        (["checkpoint_cycle*", CYCLES[1]], "the checkpoint checkpoint_cycle_2.pth is listed twice"),
        ("checkpoint_last.pth", "has no checkpoint checkpoint_last.pth; it has: checkpoint_final.pth, checkpoint_best.pth"),
        ("epoch*", "has no checkpoint epoch*; it has: checkpoint_final.pth"),
        ([], "checkpoints must be file names"),
        ([3], "checkpoints must be file names"),
        ("../checkpoint_final.pth", "checkpoints must be file names"),
        (["all", FINAL], "or all, not both"),
    ],
)
def test_checkpoints_that_are_not_there_or_doubled_are_named(model, asked, said):
    assert said in refusal(model, checkpoints=asked)


def test_a_checkpoint_that_only_some_folds_have_is_named_with_the_fold(model):
    (model / "fold_1" / CYCLES[2]).unlink()
    said = refusal(model, checkpoints="checkpoint_cycle*")
    assert str(model / "fold_1") in said
    assert f"no checkpoint {CYCLES[2]}; it has: checkpoint_final.pth" in said
    assert names_of(MemberSet.choose(model, [0], "checkpoint_cycle*")) == list(CYCLES)


def test_files_that_are_equal_byte_by_byte_are_one_opinion_and_said(model):
    (model / "fold_0" / CYCLES[2]).write_bytes((model / "fold_0" / FINAL).read_bytes())
    chosen = MemberSet.choose(model, [0], "all")
    assert names_of(chosen) == [FINAL, "checkpoint_best.pth", *CYCLES[:2]]
    assert chosen.left_out == ((0, 0, CYCLES[2]),)
    assert chosen.warnings == (
        "fold_0/checkpoint_cycle_10.pth holds the same weights as fold_0/checkpoint_final.pth and is asked only once",
    )
    assert chosen.fingerprint()["duplicates"][0]["checkpoint"] == CYCLES[2]
    assert chosen.least_members == 4


def test_equal_weights_that_show_only_when_loaded_are_taken_out_later(model):
    chosen = MemberSet.choose(model, [0], "all")
    less = chosen.without({(0, 0, CYCLES[2]): (0, 0, FINAL)})
    assert names_of(less) == [FINAL, "checkpoint_best.pth", *CYCLES[:2]]
    assert names_of(chosen) == [FINAL, "checkpoint_best.pth", *CYCLES]
    assert "the same weights as fold_0/checkpoint_final.pth" in less.warnings[0]
    assert less.without([(0, 0, CYCLES[2])]) == less
    assert "1 of them left out as a duplicate" in less.describe()


# --- several models ------------------------------------------------------------------------------------------------------


def test_models_of_other_seeds_and_plans_are_asked_together(tmp_path):
    first, second = (model_folder(tmp_path / letter, seed=letter) for letter in "ab")
    plans = json.loads((second / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["spacing"] = [2, 2, 2]
    (second / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    chosen = MemberSet.choose([first, second], [0])
    found = chosen.fingerprint()
    assert [item["model"] for item in found["checkpoints"]] == [0, 1]
    assert found["plans_sha256"] == ModelFolder.open(first).fingerprint([])["plans_sha256"]
    assert found["models"][1]["plans_sha256"] != found["plans_sha256"]
    assert chosen.describe() == "2 models (fold 0 of T__P__3d_fullres; fold 0 of T__P__3d_fullres)"
    assert chosen.name_of((1, 0, FINAL)) == str(second / "fold_0" / FINAL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"background": 0, "Liver": 1, "Spleen": 2}}, "the second does not have Node"),
        ({"labels": {**LABELS, "Spleen": 3}}, "only the second has Spleen"),
        ({"labels": {"background": 0, "Liver": 2, "Node": 1}}, "Liver is 1 in one and 2 in the other"),
        ({"channels": {"0": "PET"}}, "the first wants CT as input, the second PET"),
        ({"channels": {"0": "CT", "1": "PET"}}, "the first wants CT as input, the second CT, PET"),
    ],
)
def test_models_that_do_not_fit_together_are_refused_by_folder_and_difference(tmp_path, change, said):
    first, second = model_folder(tmp_path / "a"), model_folder(tmp_path / "b", seed="b", **change)
    answer = refusal([first, second])
    assert answer.startswith(f"{first} and {second} cannot be asked together: {said}")


def test_regions_and_their_order_must_be_the_same(tmp_path):
    regions = {"background": 0, "Whole": [1, 2], "Core": [2]}
    first = model_folder(tmp_path / "a", labels=regions, regions_class_order=[1, 2])
    other = model_folder(tmp_path / "b", labels=regions, regions_class_order=[2, 1], seed="b")
    assert "regions_class_order is [1, 2] in one and [2, 1] in the other" in refusal([first, other])
    third = model_folder(tmp_path / "c", labels={**regions, "Core": [1]}, regions_class_order=[1, 2], seed="c")
    assert "Core is 2 in one and 1 in the other" in refusal([first, third])


def test_an_ignore_label_of_one_model_only_is_no_difference(tmp_path):
    first, second = model_folder(tmp_path / "a"), model_folder(tmp_path / "b", labels={**LABELS, "ignore": 3}, seed="b")
    assert len(MemberSet.choose([first, second]).sources()) == 4


def test_the_same_folder_twice_under_any_name_is_refused(model, tmp_path):
    assert "is listed twice" in refusal([model, model])
    (tmp_path / "link").symlink_to(model)
    assert "is listed twice" in refusal([model, tmp_path / "link"])


def test_a_copy_of_a_model_gives_no_further_opinion(model, tmp_path):
    copy = model_folder(tmp_path / "copy")
    said = refusal([model, copy])
    assert said.startswith(f"{copy} holds nothing but weights that other checkpoints hold too")


def test_equal_weights_behind_other_plans_are_another_opinion(model, tmp_path):
    other = model_folder(tmp_path / "copy")
    plans = json.loads((other / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["spacing"] = [2, 2, 2]
    (other / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    chosen = MemberSet.choose([model, other])
    assert chosen.left_out == chosen.warnings == ()
    assert [index for index, _, _ in chosen.sources()] == [0, 0, 1, 1]


def test_a_fold_without_its_final_checkpoint_is_said_where_all_are_meant(model, tmp_path):
    for name in ("fold_2", "fold_10", "fold_03", "fold_x", "fold_all"):
        (model / name).mkdir()
    (model / "fold_2" / "checkpoint_best.pth").write_text("not ended", encoding="utf-8")
    (model / "fold_4").write_text("a file", encoding="utf-8")
    chosen = MemberSet.choose(model)
    assert chosen.folds == ((0, 1),)
    said = [f"fold_{number} has no checkpoint_final.pth and is not asked" for number in (2, 10)]
    assert chosen.warnings == tuple(said)
    assert MemberSet.choose(model, [0, 1]).warnings == ()
    second = model_folder(tmp_path / "second", seed="second")
    assert MemberSet.choose([model, second]).warnings == tuple(f"{model}/{text}" for text in said)


def test_no_model_is_refused():
    assert "no model was given" in refusal([])


# --- values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flips": "some"}, "flips 'some' is unknown; choose off, mean or members"),
        ({"dropout": -1}, "dropout (samples) must be a whole number from 0 up, got -1"),
        ({"dropout": True}, "got True"),
        ({"seed": 1.5}, "seed (the seed) must be a whole number from 0 up, got 1.5"),
        ({"seed": 2**63}, "below 2 to the power of 63"),
        ({"dropout": 2, "insert_dropout": 1}, "must lie between 0 and 1, got 1"),
        ({"dropout": 2, "insert_dropout": "0.5"}, "must lie between 0 and 1, got '0.5'"),
        ({"insert_dropout": 0.5}, "does nothing without dropout samples"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(model, options, said):
    assert said in refusal(model, **options)
    with pytest.raises(CalibUncertaintyError) as caught:
        MemberOptions(**options)
    assert said in str(caught.value)


def test_what_is_asked_is_said_in_words(model):
    chosen = MemberSet.choose(model, checkpoints="checkpoint_cycle*", flips="members", dropout=20, seed=3, insert_dropout=0.2)
    assert chosen.describe() == (
        "folds 0 and 1, 3 checkpoints each (checkpoint_cycle_1.pth, checkpoint_cycle_2.pth, checkpoint_cycle_10.pth), each flip a"
        " member, 20 dropout samples (seed 3, inserted with rate 0.2)"
    )
    assert MemberSet.choose(model, [0], flips="off").describe() == "fold 0, no flips"
    assert json.loads(json.dumps(chosen.to_json()))["checkpoints"] == list(CYCLES)


def test_what_is_recorded_passes_the_records_own_check(tmp_path):
    models = [model_folder(tmp_path / letter, checkpoints=(FINAL, *CYCLES), seed=letter) for letter in "ab"]
    chosen = MemberSet.choose(models, checkpoints="all", flips="members", dropout=2, seed=7, insert_dropout=0.5)
    chosen = chosen.without([(0, 0, CYCLES[2])])
    fingerprint = chosen.fingerprint()
    model = {key: fingerprint[key] for key in ("name", "configuration", "trainer", "labels", "plans_sha256")}
    entry = {
        "members": chosen.as_recorded(), "mode": "pool_logit", "method": "temperature", "temperature": 1.0,
        "temperature_interval": None, "temperature_status": "ok", "member_temperature": None,
        "roi": {"distance_mm": 15.0, "reference": "union"}, "cases": [], "figures": {}, "thresholds": {}, "created": "",
    }  # fmt: skip
    document = {
        "schema": "calib-uncertainty/calibration-record", "schema_version": 2, "model": model, "entries": [entry], "created": "",
        "versions": {},
    }  # fmt: skip
    assert problem_in(document) == ""


# --- options -------------------------------------------------------------------------------------------------------------


def test_mirroring_switched_off_is_the_older_name_of_no_flips(model):
    for options in (SegmentOptions(mirroring=False), SegmentOptions(flips="off")):
        assert (options.flips, options.mirroring) == ("off", False)
        assert options.members_of(model).flips == "off"
    assert SegmentOptions(flips="members").mirroring
    with pytest.raises(CalibUncertaintyError, match="contradict"):
        SegmentOptions(mirroring=False, flips="members")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "half"}, "precision 'half' is unknown"),
        ({"trainers": "/nowhere"}, "/nowhere is not a folder"),
        ({"box_probability": 0.51}, "the box probability must lie in 0 to 0.5, got 0.51"),
    ],
)
def test_other_options_out_of_range_are_named(options, said):
    with pytest.raises(CalibUncertaintyError, match=said):
        SegmentOptions(**options)


def test_a_box_probability_up_to_one_half_is_taken():
    assert SegmentOptions(box_probability=0.5, miss_probability=0.5).box_probability == 0.5
    assert SegmentOptions().box_probability == 0.01
