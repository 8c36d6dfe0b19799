"""The studies of calibration on real data run from end to end, here on a tiny model and made-up cases."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.options import MemberOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Benchmarks"))
import calibration_study
import temperature_study


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cases to calibrate on and one to test on, listed as the studies want them, and a model."""
    folder, listed = tmp_path_factory.mktemp("data"), []
    for number, split in enumerate(("calibration", "calibration", "test")):
        ct = write_ct(folder / f"p{number}_ct.nii.gz", shape=(16, 20, 18), seed=number)
        volume = Volume.read(ct)
        labels = np.random.default_rng(number).integers(0, 3, volume.array.shape).astype(np.uint8)
        volume.with_array(labels).write(folder / f"p{number}_seg.nii.gz")
        listed.append({"id": f"sts_{number}", "split": split, "files": {"ct": ct.name}})
    listed.append({"id": "okbp_9", "split": "test", "files": {"ct": "gone_ct.nii.gz"}})
    (folder / "cases.json").write_text(json.dumps({"cases": listed}), encoding="utf-8")
    return folder, write_model(folder, plans(), folds=(0,), sharpness=6.0)


def answer_of(study, data, out, monkeypatch, *further) -> dict:
    folder, model = data
    asked = ["study", "--data", str(folder), "--group", "sts", "--model", str(model), "--folds", "0", "--flips", "off"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(out), *further])
    study.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["group"], found["n_members"], found["model"]) == ("sts", 1, "Dataset999_Tiny")
    return found


def test_the_study_of_temperatures_fits_on_one_split_and_reports_on_the_other(data, tmp_path, monkeypatch):
    found = answer_of(temperature_study, data, tmp_path / "t.json", monkeypatch)
    assert set(found["modes"]) >= {"pool_logit", "pool_prob"}
    for answer in found["modes"].values():
        assert answer["calibration_cases"] == ["sts_0", "sts_1"]
        assert list(answer["test_after"]["cases"]) == ["sts_2"]


def test_the_study_of_all_ways_marks_one_as_chosen(data, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_study, "candidates_of", only_two_methods(calibration_study.candidates_of))
    found = answer_of(calibration_study, data, tmp_path / "w.json", monkeypatch)
    assert (found["calibration_cases"], found["test_cases"]) == (["sts_0", "sts_1"], ["sts_2"])
    assert {way["method"] for way in found["ways"]} == {"temperature", "platt_slope"}
    assert sum(way["chosen"] for way in found["ways"]) == 1


def only_two_methods(candidates_of):
    """The others have tests of their own, and take their time."""
    return lambda *asked: [one for one in candidates_of(*asked) if one.method in ("temperature", "platt_slope")]


def test_what_is_asked_for_on_the_command_line_are_the_members(data):
    folder, model = data
    asked = ["--data", str(folder), "--group", "sts", "--model", str(model), "--out", "x.json"]
    every = temperature_study.member_options(temperature_study.study_parser(None).parse_args(asked))
    assert MemberOptions(**every).folds == "all"
    some = temperature_study.study_parser(None).parse_args([*asked, "--folds", "0", "2", "--flips", "members"])
    assert temperature_study.member_options(some) == {"folds": [0, 2], "flips": "members", "checkpoints": None}
