"""`check` of more than folds of one model: several models, regions, a cascade's first stage."""

import json
import shutil

import pytest
from tiny_model import plans, write_model

from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.model.record_hash import with_content_hash
from CalibUncertaintyLib.workflow.check import check_model


def store(members: MemberSet, path, **values) -> None:
    record = CalibrationRecord.for_model(members.fingerprint())
    entry = {"temperature": 1.5, "roi": {"distance_mm": 15.0, "reference": "union"}, "cases": ["A", "B"]} | values
    record.put(CalibrationEntry(members.as_recorded(), "pool_logit", **entry))
    path.write_text(json.dumps(with_content_hash(record.to_json())), encoding="utf-8")


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return [
        write_model(folder / "a", plans(), folds=(0,)),
        write_model(folder / "b", plans(spacing=(2.5, 1.5, 1.5)), folds=(0,), seed=7),
    ]


def test_the_checkpoints_of_several_models_are_looked_for_each_in_its_own(two_models, tmp_path):
    copied = [shutil.copytree(path, tmp_path / f"{index}" / path.name) for index, path in enumerate(two_models)]
    store(MemberSet.choose(copied), copied[1] / "calibration.json")  # beside the second: found too
    report = check_model(MemberSet.choose(copied), "pool_logit")
    assert report.ok
    assert report.record == copied[1] / "calibration.json"
    assert "Checkpoint files: 2 as when it was made, 0 not" in report.entries[0].lines
    assert check_model(MemberSet.choose(copied[::-1]), "pool_logit").ok
    weights = copied[0] / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(weights.read_bytes() + b"x")
    report = check_model(MemberSet.choose(copied), "pool_logit")
    assert not report.ok
    assert str(copied[0]) in report.entries[0].problems[0]


def test_models_of_the_same_plans_are_told_apart_by_their_weights(tmp_path):
    models = [write_model(tmp_path / name, plans(), folds=(0,), seed=seed) for seed, name in enumerate("abc")]
    store(MemberSet.choose(models), models[0] / "calibration.json")
    report = check_model(MemberSet.choose([models[2], models[0], models[1]]), "pool_logit")
    assert report.ok
    assert report.entries[0].problems == ()
    weights = models[1] / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(weights.read_bytes() + b"x")
    (problem,) = check_model(MemberSet.choose(models[::-1]), "pool_logit").entries[0].problems
    assert str(models[1]) in problem


def test_a_model_that_was_not_given_is_said_not_to_be_looked_at(two_models, tmp_path):
    copied = [shutil.copytree(path, tmp_path / f"{index}" / path.name) for index, path in enumerate(two_models)]
    store(MemberSet.choose(copied), copied[0] / "calibration.json")
    report = check_model(MemberSet.choose(copied[0]), "pool_logit")
    assert not report.ok
    assert "2 model folders" in report.verdict
    assert (
        "fold_0/checkpoint_final.pth was not looked at: its model Dataset999_Tiny was not given"
        in report.entries[0].warnings
    )


def test_temperatures_of_regions_are_each_told(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    model = write_model(tmp_path, plans(), folds=(0,), labels=labels, regions_class_order=(1, 2))
    members = MemberSet.choose(model)
    store(members, model / "calibration.json", temperature=[1.5, 20.0], temperature_interval=[[1.2, 1.8], None])
    report = check_model(members, "pool_logit")
    assert report.ok
    assert report.entries[0].lines[0].endswith("1.500 (95 % interval 1.20 to 1.80), 20.000")
    assert any("end of the range" in warning for warning in report.entries[0].warnings)


def test_a_cascades_first_stage_is_looked_at(tmp_path):
    content = plans(lowres=(4.0, 3.0, 3.0))
    first = write_model(tmp_path, content, folds=(0,), configuration="3d_lowres")
    second = write_model(tmp_path / "second", content, folds=(0,), configuration="3d_cascade_fullres")
    members = MemberSet.choose(second, previous=first)
    store(members, second / "calibration.json")
    report = check_model(members, "pool_logit")
    assert report.ok
    assert "Checkpoint files: 2 as when it was made, 0 not" in report.entries[0].lines
    weights = first / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(weights.read_bytes() + b"x")
    report = check_model(members, "pool_logit")
    assert not report.ok
    assert f"holds other weights than when the calibration was made ({first})" in report.entries[0].problems[0]
