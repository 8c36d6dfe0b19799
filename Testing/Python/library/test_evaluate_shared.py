"""Configurations of the same members share one prediction of a case: the same figures to the bit, and nothing lost with it."""

import json

import numpy as np
import pytest
from listening import Listening

from CalibUncertaintyLib.errors import Cancelled
from CalibUncertaintyLib.inference import kept_logits, remembered
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.workflow import evaluate_case, evaluate_report
from CalibUncertaintyLib.workflow.evaluate import evaluate
from CalibUncertaintyLib.workflow.evaluate_case import read_counts

OPTIONS = {"flips": "off", "roi_mm": 4.0, "device": "cpu", "keep_results": True}
CONFIGURATIONS = [
    {"name": "raw", "calibration": "none"},
    {"name": "calibrated"},
    {"name": "probabilities", "mode": "pool_prob"},
]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(evaluate_report, "draw", lambda content: {})


@pytest.fixture
def asked(monkeypatch):
    """How often members were really run on a case."""
    times = []
    real = MemberPredictor.predict

    def counted(self, case, progress):
        times.append(self)
        return real(self, case, progress)

    monkeypatch.setattr(MemberPredictor, "predict", counted)
    return times


def stored(folder, configuration, case):
    return json.loads((folder / "cases" / configuration / f"{case.id}.json").read_text(encoding="utf-8"))


def assert_same(one, two, configuration, case):
    """Figures, tables of counts, and every map of the Result."""
    first, second = (stored(folder, configuration, case) for folder in (one, two))
    changing = ("created", "seconds", "result")
    assert {key: first[key] for key in first if key not in changing} == {
        key: second[key] for key in second if key not in changing
    }
    counts = [read_counts(folder / "cases" / configuration / f"{case.id}.npz") for folder in (one, two)]
    assert counts[0].keys() == counts[1].keys()
    assert counts[0]
    assert all(np.array_equal(counts[0][name].table, counts[1][name].table) for name in counts[0])
    results = [Result.open(of["result"]) for of in (first, second)]
    assert results[0].provenance["box"] == results[1].provenance["box"]
    assert results[0].provenance["maps"] == results[1].provenance["maps"]
    assert results[0].provenance["regions"] == results[1].provenance["regions"]
    files = sorted(path.name for path in (results[0].folder / "maps").iterdir())
    assert files == sorted(path.name for path in (results[1].folder / "maps").iterdir())
    for name in files:
        assert (results[0].folder / "maps" / name).read_bytes() == (results[1].folder / "maps" / name).read_bytes()


@pytest.mark.parametrize(
    "members", [{}, {"folds": [1]}, {"flips": "members", "folds": [0]}], ids=["two folds", "one", "flips"]
)
def test_the_figures_are_those_of_configurations_evaluated_one_by_one(calibrated_model, cases, tmp_path, asked, members):
    options = OPTIONS | {key: value for key, value in members.items() if key != "folds"}
    folds = {key: value for key, value in members.items() if key == "folds"}
    configurations = [item | folds for item in CONFIGURATIONS]
    together = evaluate(cases[:1], calibrated_model, tmp_path / "all", configurations=configurations, **options)
    assert together.count("ok") == 3
    assert len(asked) == 1
    for item in configurations:
        evaluate(cases[:1], calibrated_model, tmp_path / item["name"], configurations=[item], **options)
        assert_same(tmp_path / "all", tmp_path / item["name"], item["name"], cases[0])
    assert len(asked) == 1 + 3


def test_calibration_makes_a_difference_and_logits_are_gone_afterwards(calibrated_model, cases, tmp_path, asked):
    found = evaluate(cases, calibrated_model, tmp_path, configurations=CONFIGURATIONS, **OPTIONS)
    assert len(asked) == len(cases)
    nll = [of["calibration"]["union"]["figures"]["nll"]["mean"] for of in found.content["configurations"].values()]
    assert len(set(nll)) == 3
    assert not list(tmp_path.rglob("*.members"))
    assert not list(tmp_path.rglob("*.scratch"))


def test_other_members_are_asked_themselves(calibrated_model, cases, tmp_path, asked):
    configurations = [
        {"name": "one raw", "folds": [0], "calibration": "none"},
        {"name": "two raw", "calibration": "none"},
        {"name": "flips", "flips": "members", "folds": [0], "calibration": "none"},
        {"name": "one", "folds": [0], "mode": "pool_prob"},
    ]
    found = evaluate(cases[:1], calibrated_model, tmp_path, configurations=configurations, **OPTIONS)
    assert found.count("ok") == 4
    assert [len(predictor.members) for predictor in asked] == [1, 2, 8]


def test_without_room_for_the_logits_the_members_run_again_and_say_the_same(calibrated_model, cases, tmp_path, asked, monkeypatch):
    evaluate(cases[:1], calibrated_model, tmp_path / "room", configurations=CONFIGURATIONS, **OPTIONS)
    monkeypatch.setattr(kept_logits, "SHARE_OF_DISK", 0.0)
    evaluate(cases[:1], calibrated_model, tmp_path / "none", configurations=CONFIGURATIONS, **OPTIONS)
    assert len(asked) == 1 + 3
    for item in CONFIGURATIONS:
        assert_same(tmp_path / "room", tmp_path / "none", item["name"], cases[0])


def test_a_disk_that_is_full_when_the_room_is_taken_is_no_failure(calibrated_model, cases, tmp_path, asked, monkeypatch):
    def full(self, shape, dtype, count, real=remembered.Scratch.blocks):
        if self.folder.name.endswith(".members"):
            raise OSError(28, "No space left on device")
        return real(self, shape, dtype, count)

    monkeypatch.setattr(remembered.Scratch, "blocks", full)
    found = evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS[:2], **OPTIONS)
    assert found.count("ok") == 2
    assert len(asked) == 2


def test_logits_in_files_are_repeated_as_well(calibrated_model, cases, tmp_path, asked, monkeypatch):
    evaluate(cases[:1], calibrated_model, tmp_path / "memory", configurations=CONFIGURATIONS, **OPTIONS)
    monkeypatch.setattr(remembered.Scratch.__init__, "__defaults__", (0,))
    evaluate(cases[:1], calibrated_model, tmp_path / "files", configurations=CONFIGURATIONS, **OPTIONS)
    assert len(asked) == 2
    for item in CONFIGURATIONS:
        assert_same(tmp_path / "memory", tmp_path / "files", item["name"], cases[0])


def test_a_configuration_that_fails_leaves_the_prediction_to_the_next(calibrated_model, cases, tmp_path, asked, monkeypatch):
    real = evaluate_case.figures_of

    def broken(window, folder, reference):
        if not window.result.provenance["calibration"]["calibrated"]:
            raise RuntimeError("a bug")
        return real(window, folder, reference)

    monkeypatch.setattr(evaluate_case, "figures_of", broken)
    heard = Listening()
    found = evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS[:2], progress=heard, **OPTIONS)
    assert found.count("ok") == 1
    assert [name for name, _, _ in found.failed] == ["raw"]
    assert any(message.startswith(f"{cases[0].id}, raw: internal error") for message in heard.warnings)
    assert len(asked) == 1
    assert not list(tmp_path.rglob("*.members"))
    monkeypatch.undo()
    monkeypatch.setattr(evaluate_report, "draw", lambda content: {})
    evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS[:2], **OPTIONS)
    for item in CONFIGURATIONS[:2]:
        evaluate(cases[:1], calibrated_model, tmp_path / item["name"], configurations=[item], **OPTIONS)
        assert_same(tmp_path, tmp_path / item["name"], item["name"], cases[0])


def test_a_prediction_that_ended_early_is_not_repeated(calibrated_model, cases, tmp_path, asked, monkeypatch):
    real, calls = MemberPredictor._forward, []

    def interrupted(self, *given):
        calls.append(given)
        if len(calls) == 2:
            raise RuntimeError("the driver went away")
        return real(self, *given)

    monkeypatch.setattr(MemberPredictor, "_forward", interrupted)
    found = evaluate(cases[:1], calibrated_model, tmp_path / "all", configurations=CONFIGURATIONS, **OPTIONS)
    assert [name for name, _, _ in found.failed] == ["raw"]
    assert len(asked) == 2
    monkeypatch.setattr(MemberPredictor, "_forward", real)
    evaluate(cases[:1], calibrated_model, tmp_path / "alone", configurations=CONFIGURATIONS[1:], **OPTIONS)
    for item in CONFIGURATIONS[1:]:
        assert_same(tmp_path / "all", tmp_path / "alone", item["name"], cases[0])


class Stopping(Progress):
    """Says stop once the second configuration is under way."""

    def __init__(self):
        super().__init__(lambda: self.second)
        self.second, self.fractions = False, []

    def show(self, message):
        self.fractions.append(self.fraction)
        self.second = self.second or ("(2 of 3)" in message and "known already" in message)


def test_stopping_between_configurations_keeps_the_first_and_a_rerun_does_the_rest(calibrated_model, cases, tmp_path, asked):
    stopping = Stopping()
    with pytest.raises(Cancelled):
        evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS, progress=stopping, **OPTIONS)
    assert stopping.fractions == sorted(stopping.fractions)
    assert sorted(path.name for path in tmp_path.rglob("*.json") if path.parent.parent.name == "cases") == [
        f"{cases[0].id}.json"
    ]
    assert not list(tmp_path.rglob("*.members"))
    left = evaluate_case.members_folder(tmp_path / "cases" / "raw" / f"{cases[0].id}.json")
    left.mkdir()  # what a killed run leaves
    found = evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS, **OPTIONS)
    assert [of["status"] for of in found.outcomes.values()] == ["kept", "ok", "ok"]
    assert len(asked) == 2
    assert not left.exists()


def test_the_seconds_of_every_configuration_are_those_it_would_take_alone(calibrated_model, cases, tmp_path, monkeypatch):
    import time

    real = MemberPredictor._forward

    def slow(self, *given):
        time.sleep(0.5)
        return real(self, *given)

    monkeypatch.setattr(MemberPredictor, "_forward", slow)
    evaluate(cases[:1], calibrated_model, tmp_path, configurations=CONFIGURATIONS[:2], **OPTIONS)
    forward = Result.open(stored(tmp_path, "raw", cases[0])["result"]).provenance["timings_s"]["forward"]
    assert forward > 0.9
    again = Result.open(stored(tmp_path, "calibrated", cases[0])["result"]).provenance["timings_s"]
    assert again["forward"] == 0.0
    assert stored(tmp_path, "calibrated", cases[0])["seconds"] > forward
