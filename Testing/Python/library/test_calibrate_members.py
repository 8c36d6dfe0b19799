"""`calibrate` for every kind of member, regions and several channels: what is stored is what `segment` then finds."""

import json

import numpy as np
import pytest
import torch
from listening import Listening
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.applied import calibration_of
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.chosen_measures import ALL
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.segment import segment

FINAL = "checkpoint_final.pth"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    ct = write_ct(folder / "ct.nii.gz", shape=(18, 20, 18))
    volume = Volume.read(ct)
    array = np.zeros(volume.array.shape, np.uint8)
    array[4:11, 5:12, 5:12], array[12:16, 3:8, 3:8] = 1, 2
    volume.with_array(array).write(folder / "labels.nii.gz")
    return LabelledCase("P01", ct, folder / "labels.nii.gz")


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", plans(), sharpness=6.0)


def add_checkpoint(model, name, fold=0, factor=None, epoch=1):
    """A further checkpoint of a fold: with other weights, or (factor None) with the same weights in another file."""
    content = torch.load(model / f"fold_{fold}" / FINAL, weights_only=True)
    if factor is not None:
        content["network_weights"] = {key: value * factor for key, value in content["network_weights"].items()}
    torch.save({**content, "current_epoch": epoch}, model / f"fold_{fold}" / name)


KINDS = {
    "flips": {"flips": "members"},
    "dropout": {"flips": "off", "dropout": 2, "seed": 4, "insert_dropout": 0.2},
    "flips and dropout": {"flips": "members", "dropout": 2, "insert_dropout": 0.2, "folds": [0]},
    "checkpoints": {"flips": "off", "checkpoints": [FINAL, "checkpoint_cycle1.pth"], "folds": [0]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_segment_finds_what_was_calibrated_for_its_members_and_for_no_others(kind, model, case, tmp_path):
    add_checkpoint(model, "checkpoint_cycle1.pth", factor=1.1)
    options = KINDS[kind]
    path, entry = calibrate([case], model, bootstrap=0, **options)
    assert path == model / "calibration.json"
    result = segment(case.ct, model, tmp_path / "out", **options)
    assert result.calibrated, result.provenance["calibration"]["reason"]
    assert result.provenance["calibration"]["temperature"] == entry.temperature
    assert len(result.provenance["members"]) > len(entry.members["checkpoints"]) or kind == "checkpoints"
    assert "mi" in entry.thresholds
    for others in KINDS.values():
        if others is not options:
            found = calibration_of(MemberSet.choose(model, **others), "pool_logit")
            assert not found.calibrated
            assert found.reason


def test_flips_as_members_pool_to_what_stock_mirroring_gives(model, case, tmp_path):
    path = tmp_path / "r.json"
    entries = [calibrate([case], model, path, folds=[0], flips=flips, bootstrap=0)[1] for flips in ("mean", "members")]
    assert entries[1].temperature == pytest.approx(entries[0].temperature, rel=2e-3)
    assert len(CalibrationRecord.read(path).entries) == 4
    assert "mi" not in entries[0].thresholds


def test_a_checkpoint_with_weights_of_another_is_counted_once_and_the_record_still_found(model, case, tmp_path):
    add_checkpoint(model, "checkpoint_cycle1.pth", factor=1.1)
    add_checkpoint(model, "checkpoint_cycle2.pth")
    heard = Listening()
    _, entry = calibrate([case], model, folds=[0], checkpoints="all", flips="off", bootstrap=0, progress=heard)
    assert [item["checkpoint"] for item in entry.members["checkpoints"]] == [FINAL, "checkpoint_cycle1.pth"]
    assert [item["checkpoint"] for item in entry.members["duplicates"]] == ["checkpoint_cycle2.pth"]
    said = "fold_0/checkpoint_cycle2.pth holds the same weights as fold_0/checkpoint_final.pth"
    assert sum(said in warning for warning in heard.warnings) == 1
    chosen = MemberSet.choose(model, [0], "all", flips="off")
    assert calibration_of(chosen, "pool_logit").calibrated  # what `info` asks, which loads no weights
    assert segment(case.ct, model, tmp_path / "out", folds=[0], checkpoints="all", flips="off").calibrated


def test_two_models_are_calibrated_together(model, case, tmp_path):
    other = write_model(tmp_path / "other", plans(), sharpness=6.0, seed=50)
    path, entry = calibrate([case], [model, other], folds=[0], mirroring=False, bootstrap=0)
    assert path == model / "calibration.json"
    assert [item["model"] for item in entry.members["checkpoints"]] == [0, 1]
    result = segment(case.ct, [model, other], tmp_path / "out", folds=[0], mirroring=False)
    assert result.calibrated, result.provenance["calibration"]["reason"]
    assert not calibration_of(MemberSet.choose(model, [0], flips="off"), "pool_logit").calibrated


def test_models_in_another_order_find_the_record_beside_either_of_them(model, case, tmp_path):
    other = write_model(tmp_path / "other", plans(spacing=(3.0, 2.0, 2.0)), sharpness=6.0, seed=50)
    path, entry = calibrate([case], [model, other], folds=[0], mirroring=False, bootstrap=0)
    swapped = MemberSet.choose([other, model], [0], flips="off")
    for wanted in ("auto", path):
        found = calibration_of(swapped, "pool_logit", wanted)
        assert found.calibrated, found.reason
        assert (found.temperature, found.record) == (entry.temperature, str(path))
    (other / "plans.json").write_text((other / "plans.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = calibration_of(MemberSet.choose([model, other], [0], flips="off"), "pool_logit")
    assert not found.calibrated
    assert found.reason.endswith("has other plans (plans.json) than when this record was made")


def test_a_temperature_of_another_step_size_is_not_applied(model, case):
    calibrate([case], model, folds=[0], mirroring=False, bootstrap=0, step_size=1.0)
    members = MemberSet.choose(model, [0], flips="off")
    assert calibration_of(members, "pool_logit", step_size=1.0).calibrated
    found = calibration_of(members, "pool_logit")
    assert not found.calibrated
    assert found.reason == "the record was made with --step-size 1, and this run is with --step-size 0.5"
    assert "--precision bf16, and this run is with it" in calibration_of(
        members, "pool_logit", step_size=1.0, precision="bf16"
    ).reason
    calibrate([case], model, folds=[0], mirroring=False, bootstrap=0)
    entries = CalibrationRecord.read(model / "calibration.json").entries
    assert [item.members.get("step_size") for item in entries] == [1.0, 1.0, None, None]


def test_the_files_of_kept_logits_are_closed_before_the_folder_goes(model, case, monkeypatch):
    made = []

    class Counted(Scratch):
        def __init__(self, folder):
            super().__init__(folder, limit_bytes=0)
            made.append((self, []))

        def close(self):
            made[[scratch for scratch, _ in made].index(self)][1].append(len(self._files))
            super().close()

    monkeypatch.setattr("CalibUncertaintyLib.workflow.calibrate.Scratch", Counted)
    calibrate([case], model, folds=[0], mirroring=False, bootstrap=0)
    assert len(made) == 2  # what is kept, and what passes of the one case
    assert all(len(closed) == 1 for _, closed in made)
    assert made[0][1] == [4]  # logits, and where the voxels lie: positions and two distances


def test_a_case_that_trained_the_second_model_is_refused_by_its_folder(model, case, tmp_path):
    other = write_model(tmp_path / "other", plans(), sharpness=6.0, seed=50)
    (other / "splits_final.json").write_text(json.dumps([{"train": ["P01"], "val": []}]), encoding="utf-8")
    with pytest.raises(CalibUncertaintyError) as caught:
        calibrate([case], [model, other], folds=[0], mirroring=False)
    assert str(caught.value) == f"fold 0 of {other} was trained on P01; give held-out cases only"


# --- regions -------------------------------------------------------------------------------------------------------------

REGIONS = {"background": 0, "First": [1, 3], "Second": [2, 3]}
TRUE_TEMPERATURES = (2.0, 1.3)


@pytest.fixture(scope="module")
def region_model(tmp_path_factory):
    return write_model(
        tmp_path_factory.mktemp("regions"), plans(), labels=REGIONS, regions_class_order=[1, 2], sharpness=8.0
    )


@pytest.fixture(scope="module")
def region_cases(region_model, tmp_path_factory):
    """Every region drawn voxel by voxel from sigmoid(z / T) of the pooled logits: for these, each T is the truth."""
    folder, cases = tmp_path_factory.mktemp("cases"), []
    for seed in range(3):
        ct = write_ct(folder / f"ct{seed}.nii.gz", shape=(20, 26, 24), seed=seed)
        result = segment(ct, region_model, folder / f"r{seed}", mirroring=False, full_volume=True)
        generator, labels = np.random.default_rng(seed), np.zeros(Volume.read(ct).array.shape, np.uint8)
        for index, temperature in enumerate(TRUE_TEMPERATURES):
            p = np.clip(result.probability(index + 1).array.astype(float), 1e-6, 1 - 1e-6)
            tempered = 1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature))
            labels += np.uint8(1 << index) * (generator.random(p.shape) < tempered).astype(np.uint8)
        Volume.read(ct).with_array(labels).write(folder / f"labels{seed}.nii.gz")
        cases.append(LabelledCase(f"case{seed}", ct, folder / f"labels{seed}.nii.gz"))
    return cases


def test_each_region_gets_its_own_temperature_back(region_model, region_cases, tmp_path):
    path, entry = calibrate(region_cases, region_model, tmp_path / "r.json", mirroring=False)
    assert entry.temperature == pytest.approx(TRUE_TEMPERATURES, rel=0.05)
    for value, (low, high) in zip(entry.temperature, entry.temperature_interval, strict=True):
        assert low < value < high
    stored = CalibrationRecord.read(path).entries[0]
    assert stored.temperature == entry.temperature
    before, after = stored.figures["before"], stored.figures["after"]
    assert after["pooled"]["nll"] < before["pooled"]["nll"]
    assert set(after["pooled"]["regions"]) == {"First", "Second"}
    assert after["changed_by_temperature"] == 0
    assert set(stored.thresholds) == set(ALL)
    result = segment(region_cases[0].ct, region_model, tmp_path / "out", mirroring=False, calibration=path)
    assert result.calibrated
    assert result.provenance["calibration"]["temperature"] == entry.temperature


def test_a_reference_of_regions_holds_labels_and_nothing_else(region_model, region_cases, tmp_path):
    case = region_cases[0]
    reference = Volume.read(case.labels)
    reference.with_array(reference.array + np.uint8(1)).write(tmp_path / "high.nii.gz")
    with pytest.raises(CalibUncertaintyError, match=r"holds the label 4, which .* \(it has 0 to 3\)"):
        calibrate([LabelledCase("a", case.ct, tmp_path / "high.nii.gz")], region_model, tmp_path / "r.json", mirroring=False)


# --- several channels ----------------------------------------------------------------------------------------------------


def test_several_channels_are_read_in_order_and_their_number_checked(case, tmp_path):
    model = write_model(tmp_path, plans(channels=2), folds=(0,), channels={"0": "CT", "1": "PET"}, sharpness=6.0)
    second = write_ct(tmp_path / "pet.nii.gz", shape=(18, 20, 18), seed=7)
    both = LabelledCase("P01", case.ct, case.labels, (second,))
    _, entry = calibrate([both], model, mirroring=False, bootstrap=0)
    assert calibration_of(MemberSet.choose(model, flips="off"), "pool_logit").temperature == entry.temperature
    swapped = LabelledCase("P01", second, case.labels, (case.ct,))
    _, other = calibrate([swapped], model, tmp_path / "r.json", mirroring=False, bootstrap=0)
    assert other.figures["before"]["pooled"]["nll"] != entry.figures["before"]["pooled"]["nll"]
    with pytest.raises(CalibUncertaintyError, match="case P01: Dataset999_Tiny wants 2 images"):
        calibrate([case], model, mirroring=False, bootstrap=0)


# --- cascades ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cascade(tmp_path):
    """The folders of the first and the second stage."""
    content = plans(lowres=(4.0, 3.0, 3.0))
    return [
        write_model(tmp_path, content, configuration=name, sharpness=6.0, seed=seed)
        for name, seed in (("3d_lowres", 20), ("3d_cascade_fullres", 0))
    ]


def test_a_cascade_is_calibrated_with_its_first_stage_and_for_no_other(cascade, case):
    first, second = cascade
    path, entry = calibrate([case], second, folds=[0], mirroring=False, bootstrap=0)
    assert path == second / "calibration.json"
    stored = CalibrationRecord.read(path).entries[0].members["previous"]
    assert [(item["fold"], item["checkpoint"]) for item in stored["checkpoints"]] == [(0, FINAL)]
    found = calibration_of(MemberSet.choose(second, [0], flips="off"), "pool_logit")
    assert found.calibrated, found.reason
    assert found.temperature == entry.temperature
    (first / "fold_0" / FINAL).write_bytes((first / "fold_1" / FINAL).read_bytes())
    found = calibration_of(MemberSet.choose(second, [0], flips="off"), "pool_logit")
    assert not found.calibrated
    assert found.reason == (
        "of the cascade's first stage: fold 0's weights (fold_0/checkpoint_final.pth) are not the ones this record was made with"
    )


def test_a_case_that_trained_the_first_stage_is_refused_before_the_computing(cascade, case):
    first, second = cascade
    (first / "splits_final.json").write_text(json.dumps([{"train": ["P01"], "val": []}] * 2), encoding="utf-8")
    with pytest.raises(CalibUncertaintyError, match="fold 0 of Dataset999_Tiny was trained on P01"):
        calibrate([case], second, folds=[0], mirroring=False)


def test_a_first_stage_that_is_missing_is_said_before_the_computing(cascade, case, tmp_path):
    first, second = cascade
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(CalibUncertaintyError, match="--previous"):
        calibrate([case], second, folds=[0], mirroring=False)
    assert MemberSet.choose(second, previous=tmp_path / "elsewhere").before.models[0].path == tmp_path / "elsewhere"
    with pytest.raises(CalibUncertaintyError, match="is no second stage of a cascade; leave --previous out"):
        MemberSet.choose(tmp_path / "elsewhere", previous=second)
