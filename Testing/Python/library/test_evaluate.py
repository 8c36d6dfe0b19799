"""`evaluate` from labelled cases to the report: its numbers, what is kept of an earlier run, and what fails."""

import csv
import json
import shutil

import numpy as np
import pytest
from evaluate_parts import write_list
from listening import Listening
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score, roc_auc_score

from CalibUncertaintyLib import CalibUncertaintyError, cli
from CalibUncertaintyLib.errors import Cancelled
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow import evaluate_case, evaluate_report
from CalibUncertaintyLib.workflow.evaluate import REPORT_FILES, evaluate
from CalibUncertaintyLib.workflow.labelled import LabelledCase

ROI_MM = 4.0


@pytest.fixture(scope="module")
def first(calibrated_model, cases, tmp_path_factory):
    """One run of everything, with the Results kept."""
    return evaluate(cases, calibrated_model, tmp_path_factory.mktemp("run") / "out", flips="off", roi_mm=ROI_MM, keep_results=True)


@pytest.fixture
def again(first, calibrated_model, cases, tmp_path, monkeypatch):
    """Function that runs again in a copy of the first run's folder, without drawing."""
    out = tmp_path / "out"
    monkeypatch.setattr(evaluate_report, "draw", lambda content: {})
    shutil.copytree(first.folder, out)

    def run(of=cases, **options):
        return evaluate(of, calibrated_model, out, **{"flips": "off", "roi_mm": ROI_MM, **options})

    run.out = out
    return run


def stored(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def statuses(report):
    return {name: outcome["status"] for name, outcome in report.outcomes.items()}


def test_everything_is_written_for_every_case_and_configuration(first, cases):
    assert {path.name for path in first.folder.iterdir()} == {"cases", *REPORT_FILES}
    assert set(statuses(first)) == {(name, case.id) for name in ("uncalibrated", "calibrated") for case in cases}
    assert first.count("ok") == 4
    content = stored(first.folder)
    assert [of["applied"]["calibrated"] for of in content["configurations"].values()] == [False, True]
    assert all(of["cases_used"] == of["cases_total"] == 2 for of in content["configurations"].values())
    with (first.folder / "cases.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    measures = {row["measure"] for row in rows}
    assert {"entropy", "conf", "mi"} <= measures
    for name, of in content["configurations"].items():  # some measures need a stored law, some several members
        there = [measure for measure, about in of["measures"].items() if about["domains"]]
        assert sum(row["configuration"] == name for row in rows) == 2 * 2 * len(there)
    assert not any(path.name.endswith(".partial") for path in first.folder.rglob("*"))


def test_the_page_needs_nothing_else_and_says_how_many_cases_and_where(first):
    page = (first.folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.split("default-src")[1]
    assert "<script" not in page
    assert page.count("data:image/png;base64,") >= 5
    for said in ("2 test cases, 2 configurations", "Within 4\N{NO-BREAK SPACE}mm".replace("\N{NO-BREAK SPACE}", " "),
                 "2 of 2", "Only 2 cases", "NLL (nats)", "UEO-AUC", "Holm"):  # fmt: skip
        assert said in page, said


def roi_of(label, spacing):
    outside = label == 0
    return distance_transform_edt(outside, sampling=spacing) <= ROI_MM + 1e-4


def cut(values):
    """Values as they are counted: rounded down to 10 binary digits behind the first."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.floor(mantissa * 2048) / 2048, exponent)


def by_hand(result, case):
    """The figures of one case from its Result's files, written independently."""
    label = result.segmentation.array.astype(int)
    truth = Volume.read(case.labels).array.astype(int)
    box = result.provenance["box"]
    window = tuple(slice(a, a + n) for a, n in zip(box["start_xyz"][::-1], box["size_xyz"][::-1], strict=True))
    p = np.zeros((3, *label.shape))
    for value in (1, 2):
        p[(value, *window)] = result.probability(value).array
    p[0] = 1 - p[1:].sum(axis=0)
    u = np.zeros(label.shape)
    u[window] = result.uncertainty("entropy").array
    spacing = result.segmentation.spacing_zyx
    pred = roi_of(label, spacing)
    union = pred | roi_of(truth, spacing)
    q, y = p[:, union], truth[union]
    top, right = q.max(axis=0), q.argmax(axis=0) == y
    bins = np.clip(np.ceil(top * 20).astype(int) - 1, 0, 19)
    wrong, values = (label != truth)[pred], cut(u[pred])
    entry = next(item for item in result.provenance["maps"]["uncertainty"] if item["measure"] == "entropy")
    flagged = values >= cut(entry["threshold"])
    dice = [2 * np.sum((label == k) & (truth == k)) / (np.sum(label == k) + np.sum(truth == k)) for k in (1, 2)]
    return {
        "n": int(union.sum()),
        "nll": -np.mean(np.log(np.clip(q[y, np.arange(y.size)], 1e-7, 1))),
        "brier_sum": np.mean(((q - np.eye(3)[y].T) ** 2).sum(axis=0)),
        "ece_toplabel": sum(abs((right[bins == b] * 1.0 - top[bins == b]).sum()) for b in range(20)) / y.size,
        "dice": dice,
        "voxels": int(pred.sum()),
        "errors": int(wrong.sum()),
        "auroc": roc_auc_score(wrong, values),
        "auprc": average_precision_score(wrong, values),
        "error_dice": 2 * np.sum(flagged & wrong) / (flagged.sum() + wrong.sum()),
        "recall": np.sum(flagged & wrong) / wrong.sum(),
        "precision": np.sum(flagged & wrong) / flagged.sum(),
    }


def test_the_numbers_are_those_of_an_independent_look_at_the_kept_results(first, cases):
    content = stored(first.folder)
    for name, of in content["configurations"].items():
        expected = {}
        for case in cases:
            kept = evaluate_case.stored_case(evaluate_case.case_file(first.folder / "cases" / name, case.id))
            expected[case.id] = by_hand(Result.open(kept["result"]), case)
            numbers, hand = of["by_case"][case.id], expected[case.id]
            for key in ("n", "nll", "brier_sum", "ece_toplabel"):
                assert numbers["calibration"]["union"][key] == pytest.approx(hand[key], rel=1e-5), key
            assert [numbers["dice"][structure] for structure in ("Liver", "Node")] == pytest.approx(hand["dice"])
            assert {key: numbers["errors"]["pred"][key] for key in ("voxels", "errors")} == {
                key: hand[key] for key in ("voxels", "errors")
            }
            found = numbers["measures"]["entropy"]["pred"]
            for key in ("auroc", "auprc"):
                assert found[f"ranking.{key}"] == pytest.approx(hand[key], rel=1e-9), key
            for key in ("error_dice", "recall", "precision"):
                assert found[f"at_thresholds.stored.{key}"] == pytest.approx(hand[key], rel=1e-9), key
        for key in ("nll", "brier_sum", "ece_toplabel"):
            mean = np.mean([hand[key] for hand in expected.values()])
            assert of["calibration"]["union"]["figures"][key]["mean"] == pytest.approx(mean, rel=1e-5)
        n = np.array([hand["n"] for hand in expected.values()])
        nll = np.array([hand["nll"] for hand in expected.values()])
        assert of["calibration"]["union"]["pooled"]["nll"] == pytest.approx((n * nll).sum() / n.sum(), rel=1e-5)
        errors = sum(hand["errors"] for hand in expected.values())
        assert of["measures"]["entropy"]["domains"]["pred"]["pooled"]["errors"] == errors


def test_a_second_run_computes_nothing_and_writes_the_same_figures(first, again):
    before = {path: path.stat().st_mtime_ns for path in (again.out / "cases").rglob("*.json")}
    report = again()
    assert set(statuses(report).values()) == {"kept"}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert stored(again.out)["configurations"] == stored(first.folder)["configurations"]


def test_a_changed_option_file_or_record_computes_what_depends_on_it_anew(again, calibrated_model, cases, tmp_path):
    moved = tmp_path / "labels.nii.gz"
    shutil.copyfile(cases[0].labels, moved)
    other = [LabelledCase(cases[0].id, cases[0].ct, moved), cases[1]]
    report = again(other)
    assert {case for (_, case), status in statuses(report).items() if status == "ok"} == {cases[0].id}
    record = calibrated_model / "calibration.json"
    content = record.read_bytes()
    try:
        record.unlink()
        report = again(other)
        assert statuses(report)["calibrated", cases[1].id] == "ok"
        assert statuses(report)["uncalibrated", cases[1].id] == "kept"
        assert "no calibration was applied" in (again.out / "report.html").read_text(encoding="utf-8")
    finally:
        record.write_bytes(content)
    report = again(cases[:1], roi_mm=6.0, calibration="none")
    assert statuses(report) == {("uncalibrated", cases[0].id): "ok"}


def test_only_what_was_lost_is_computed_again(again, cases):
    lost, damaged = (again.out / "cases" / "calibrated" / f"{case.id}.json" for case in cases)
    lost.unlink()
    damaged.write_text(damaged.read_text(encoding="utf-8")[:200])
    report = again()
    assert {name for name, status in statuses(report).items() if status == "ok"} == {
        ("calibrated", case.id) for case in cases
    }
    assert not (again.out / "cases" / "calibrated" / cases[0].id).exists()  # the Result, which was not to be kept


def test_a_case_that_fails_is_named_and_the_others_are_reported(again, cases, tmp_path):
    small = Volume.read(cases[0].labels)
    small.crop((0, 0, 0), (5, 5, 5)).write(tmp_path / "small.nii.gz")
    bad = LabelledCase("bad", cases[0].ct, tmp_path / "small.nii.gz")
    heard = Listening()
    report = again([*cases, bad], calibration="none", progress=heard)
    assert [(configuration, case) for configuration, case, _ in report.failed] == [("uncalibrated", "bad")]
    assert "does not lie on the grid" in report.failed[0][2]
    assert any("bad, uncalibrated" in message and "skipped" in message for message in heard.warnings)
    of = stored(again.out)["configurations"]["uncalibrated"]
    assert (of["cases_used"], of["cases_total"], sorted(of["by_case"])) == (2, 3, ["P1", "P2"])
    page = (again.out / "report.html").read_text(encoding="utf-8")
    assert "Cases that failed" in page
    assert "2 of 3" in page
    assert not (again.out / "cases" / "uncalibrated" / "bad").exists()


def test_what_nobody_foresaw_is_a_failed_case_with_its_traceback_in_a_file(again, cases, monkeypatch):
    real = evaluate_case.figures_of

    def broken(window, folder, reference):
        if window.result.provenance["ct"]["path"] == str(cases[0].ct):
            raise RuntimeError("a bug\nin two lines")
        return real(window, folder, reference)

    monkeypatch.setattr(evaluate_case, "figures_of", broken)
    report = again(calibration="none", overwrite=True)
    (failed,) = report.failed
    assert failed[:2] == ("uncalibrated", cases[0].id)
    assert "\n" not in failed[2]
    log = again.out / "cases" / "uncalibrated" / f"{cases[0].id}.log"
    assert str(log) in failed[2]
    assert "RuntimeError: a bug" in log.read_text(encoding="utf-8")
    monkeypatch.undo()
    assert statuses(again(calibration="none"))["uncalibrated", cases[0].id] == "ok"
    assert not log.exists()


def test_no_case_that_works_is_an_error_that_names_the_first_reason(calibrated_model, cases, tmp_path):
    missing = LabelledCase("gone", cases[0].ct, tmp_path / "nothing.nii.gz")
    with pytest.raises(CalibUncertaintyError, match=r"nothing\.nii\.gz"):
        evaluate([missing], calibrated_model, tmp_path / "out", flips="off")
    foreign = LabelledCase("P1", cases[0].ct, cases[0].ct)  # HU are no labels
    with pytest.raises(CalibUncertaintyError, match=r"no case could be evaluated.*holds the label"):
        evaluate([foreign], calibrated_model, tmp_path / "out", flips="off", calibration="none")


class Stopping(Progress):
    """Says stop once the second case is under way."""

    def __init__(self):
        super().__init__(lambda: self.second)
        self.second = False

    def show(self, message):
        self.second = self.second or "(2 of" in message


def test_stopping_keeps_the_finished_cases_and_a_rerun_goes_on(calibrated_model, cases, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Cancelled):
        evaluate(cases, calibrated_model, out, flips="off", roi_mm=ROI_MM, calibration="none", progress=Stopping())
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert left == [f"cases/uncalibrated/{cases[0].id}.{kind}" for kind in ("json", "npz", "png")]
    assert not (out / "cases" / "uncalibrated" / cases[1].id).exists()
    report = evaluate(cases, calibrated_model, out, flips="off", roi_mm=ROI_MM, calibration="none")
    assert list(statuses(report).values()) == ["kept", "ok"]


def test_cases_that_trained_a_member_are_refused(calibrated_model, cases, tmp_path):
    splits = calibrated_model / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["P1", "x"], "val": ["P2"]}, {"train": ["x"], "val": ["P1", "P2"]}]))
    try:
        with pytest.raises(CalibUncertaintyError, match=r"fold 0 .* was trained on P1"):
            evaluate(cases, calibrated_model, tmp_path / "out", flips="off")
        configurations = [{"name": "one", "folds": [1], "calibration": "none"}]
        found = evaluate(cases[:1], calibrated_model, tmp_path / "out", flips="off", configurations=configurations)
        assert found.count("ok") == 1
    finally:
        splits.unlink()


def test_a_case_that_the_calibration_was_fitted_on_is_warned_of(calibrated_model, cases, tmp_path):
    fitted = LabelledCase("P90", cases[0].ct, cases[0].labels)
    heard = Listening()
    evaluate([fitted], calibrated_model, tmp_path / "out", flips="off", progress=heard)
    (said,) = [message for message in heard.warnings if "was fitted on P90" in message]
    assert said.startswith("calibrated:")
    assert "its calibration was fitted on P90" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    found = stored(tmp_path / "out")["configurations"]
    assert [of["fitted_on"] for of in found.values()] == [[], ["P90"]]


def test_a_folder_with_other_files_is_left_alone(calibrated_model, cases, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CalibUncertaintyError, match=r"holds other files \(mine\.txt\)"):
        evaluate(cases, calibrated_model, tmp_path, flips="off")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_terminal_takes_the_test_split_and_answers_with_the_headline(calibrated_model, cases, tmp_path, capsys):
    path = write_list(tmp_path / "cases.json", cases[:1])
    configurations = tmp_path / "configurations.json"
    configurations.write_text(json.dumps([{"name": "first fold", "folds": [0], "calibration": "none"}]))
    arguments = ["evaluate", "--model", str(calibrated_model), "--cases", str(path), "--out", str(tmp_path / "out"),
                 "--flips", "off", "--configurations", str(configurations), "--measures", "entropy", "conf"]  # fmt: skip
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "first fold (1 of 1 cases): Dice" in said.err
    assert (tmp_path / "out" / "report.html").is_file()
    found = stored(tmp_path / "out")["configurations"]["first fold"]["measures"]
    assert found["mi"]["status"] == "single_member"
    write_list(path, cases[:1], "calibration")
    assert cli.main(arguments) == 1
    assert "no case in the split 'test'" in capsys.readouterr().err
