"""The files of a proof: what stands in them, of which record, and what is left when writing fails."""

import copy
import csv
import json
import math
import os

import numpy as np
import pytest
from proof_parts import CHECKPOINTS, NAMES, figures, proof, with_everything

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.workflow.proof import FILES, check_proof_folder, proof_of, write_proof
from CalibUncertaintyLib.workflow.proof_numbers import BY_KEY, number, statistics_of

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def plain_proof() -> dict:
    return proof()


@pytest.fixture(scope="module")
def full_proof() -> dict:
    full = proof(compared=[{"mode": "pool_logit", "method": "vector", "nll_cv": 0.5, "ece_cv": 0.031, "changed_labels": 12,
                            "chosen": False}])  # fmt: skip
    full["figures"] = {
        "before": with_everything(full["figures"]["before"]),
        "after": with_everything(full["figures"]["after"], -0.004),
    }
    return full


@pytest.fixture(scope="module")
def written(full_proof, tmp_path_factory) -> dict:
    return write_proof(tmp_path_factory.mktemp("proof") / "deep" / "er", full_proof)


def read(paths: dict, name: str) -> str:
    return paths[name].read_text(encoding="utf-8")


def test_all_files_are_written_and_nothing_else(written):
    assert set(written) == set(FILES)
    folder = written["report.html"].parent
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert all(path == folder / name for name, path in written.items())


def test_the_json_holds_the_proof_as_it_was_given_and_its_statistics(written, full_proof):
    found = json.loads(read(written, "proof.json"))
    assert found["schema"] == "calib-uncertainty/proof"
    assert found["figures"]["before"]["cases"] == full_proof["figures"]["before"]["cases"]
    assert found["classes"] == list(NAMES)
    before = [values["nll"] for values in full_proof["figures"]["before"]["cases"].values()]
    after = [values["nll"] for values in full_proof["figures"]["after"]["cases"].values()]
    nll = found["statistics"]["metrics"]["nll"]
    assert nll["before"]["mean"] == pytest.approx(np.mean(before))
    assert nll["difference"]["mean"] == pytest.approx(np.mean(after) - np.mean(before))
    assert nll["difference"]["upper"] < 0
    assert nll["relative"] == pytest.approx(np.mean(after) / np.mean(before) - 1)
    assert nll["wilcoxon"]["p"] == pytest.approx(2 / 2**8)  # every one of 8 cases got better


def test_the_means_are_those_that_calibrating_already_stored(plain_proof):
    found = statistics_of(plain_proof)["metrics"]
    for when in ("before", "after"):
        stored = plain_proof["figures"][when]["per_case"]
        assert {
            key: found[key][when]["mean"] for key in ("nll", "ece_toplabel", "brier_mean", "accuracy", "signed_gap")
        } == (
            pytest.approx({key: stored[key] for key in ("nll", "ece_toplabel", "brier_mean", "accuracy", "signed_gap")})
        )


def test_the_table_of_cases_has_every_figure_before_and_after(written, full_proof):
    rows = list(csv.DictReader(read(written, "cases.csv").splitlines()))
    assert [row["case"] for row in rows] == list(full_proof["figures"]["before"]["cases"])
    for row in rows:
        for when in ("before", "after"):
            values = full_proof["figures"][when]["cases"][row["case"]]
            for key in ("nll", "ece_toplabel", "brier_sum", "ece_class", "dice", "signed_gap"):
                assert float(row[f"{key}_{when}"]) == pytest.approx(values[key], rel=1e-9)
            for name in NAMES[1:]:
                assert float(row[f"dice_{name}_{when}"]) == pytest.approx(values["dice_per_class"][name], rel=1e-9)
        assert row["voxels"] == "4000"


def test_figures_that_were_not_measured_leave_out_their_columns(plain_proof, tmp_path):
    paths = write_proof(tmp_path, plain_proof)
    heads = next(csv.reader(read(paths, "cases.csv").splitlines()))
    assert "ece_toplabel_after" in heads
    assert not any(head.startswith(("dice", "brier_sum", "smooth")) for head in heads)
    assert "classes.png" not in paths


def test_unknown_values_are_null_empty_or_a_dash_and_never_a_number(tmp_path):
    given = proof(4)
    for when in ("before", "after"):
        given["figures"][when]["cases"]["case_1"] = dict.fromkeys(given["figures"][when]["cases"]["case_1"], math.nan)
    given["figures"]["after"]["cases"]["case_2"]["brier_mean"] = None
    paths = write_proof(tmp_path, given)
    text = read(paths, "proof.json")
    assert "NaN" not in text
    found = json.loads(text)
    assert found["figures"]["after"]["cases"]["case_1"]["nll"] is None
    assert (
        found["statistics"]["metrics"]["nll"]["difference"]["used"],
        found["statistics"]["metrics"]["nll"]["difference"]["total"],
    ) == (3, 4)
    assert found["statistics"]["metrics"]["brier_mean"]["before"]["used"] == 2  # only complete pairs
    rows = {row["case"]: row for row in csv.DictReader(read(paths, "cases.csv").splitlines())}
    assert rows["case_1"]["nll_before"] == ""
    assert rows["case_2"]["brier_mean_after"] == ""
    assert rows["case_2"]["brier_mean_before"] != ""
    assert "1 case of 4 had no figures" in read(paths, "report.html")
    assert (
        "nan"
        not in read(paths, "report.html").split("</style>")[1].replace("base64", "").lower().split("data:image")[0]
    )


def test_one_case_gives_a_proof_without_intervals(tmp_path):
    found = json.loads(read(write_proof(tmp_path, proof(1)), "proof.json"))["statistics"]["metrics"]["nll"]
    assert found["before"]["status"] == "one_case"
    assert found["before"]["lower"] is None
    assert found["wilcoxon"]["p"] == 1.0


def test_a_calibration_that_does_nothing_has_no_difference_and_p_one(tmp_path):
    given = proof(5)
    given["figures"]["after"] = given["figures"]["before"]
    found = json.loads(read(write_proof(tmp_path, given), "proof.json"))["statistics"]["metrics"]["ece_toplabel"]
    assert found["difference"]["mean"] == found["difference"]["lower"] == found["difference"]["upper"] == 0
    assert (found["wilcoxon"]["p"], found["wilcoxon"]["status"]) == (1.0, "no_difference")


def test_subjects_are_judged_by_one_limit_before_and_after(plain_proof):
    found = statistics_of(plain_proof)["subjects"]
    whole = [abs(plain_proof["figures"][when]["pooled"]["signed_gap"]) for when in ("before", "after")]
    assert found["limit"] == pytest.approx(min(whole) + 0.9 * (max(whole) - min(whole)))
    gaps = [values["signed_gap"] for values in plain_proof["figures"]["before"]["cases"].values()]
    assert found["before"]["over"] == sum(gap > found["limit"] for gap in gaps) > 0
    assert found["after"]["over"] == found["after"]["under"] == 0


def entry_and_record() -> tuple[CalibrationEntry, CalibrationRecord]:
    cases = {"a": 1, "b": 2, "c": 3}
    fingerprint = proof(1)["model"] | {"labels": {1: NAMES[1], 2: NAMES[2], 3: NAMES[3]}}
    entry = CalibrationEntry(
        members={"folds": [0, 1], "checkpoint": "checkpoint_final.pth", "checkpoints": CHECKPOINTS, "mirroring": True},
        mode="pool_logit", temperature=2.0, temperature_interval=(1.9, 2.125), member_temperature=1.5,
        roi={"distance_mm": 15.0, "reference": "union"}, cases=list(cases),
        figures={"before": figures(1.0, cases), "after": figures(2.0, cases)},
    )  # fmt: skip
    record = CalibrationRecord.for_model(fingerprint, {"numpy": "2"})
    record.put(entry)
    return entry, record


def test_a_stored_record_alone_is_enough(tmp_path):
    entry, record = entry_and_record()
    record.write(tmp_path / "calibration.json")
    stored = CalibrationRecord.read(tmp_path / "calibration.json")
    made = proof_of(stored.entries[0], stored, NAMES, "folds 0 and 1")
    assert made == json.loads(json.dumps(proof_of(entry, record, NAMES, "folds 0 and 1"), allow_nan=False))
    assert made["parameters"]["temperature"] == 2.0
    assert made["parameters"]["member_temperature"] == 1.5
    assert made["evaluated_on"] == "fit"
    paths = write_proof(tmp_path / "proof", made)
    page = read(paths, "report.html")
    for said in ("Temperature 2.000", "0a" * 32, "f" * 64, "within 15 mm", "3 cases: a, b, c", "they flatter it"):
        assert said in page


def test_what_is_kept_is_said_of_the_models_kind_of_heads():
    """A slope of its own for every channel keeps a region's decision, and may change which class is the highest."""
    entry, record = entry_and_record()
    for of_regions, kept in ((False, "none"), (True, "decisions")):
        found = copy.deepcopy(entry.figures)
        for when in ("before", "after"):
            found[when]["pooled"].update({"regions": {name: {} for name in NAMES}} if of_regions else {"classes": {}})
        stored = CalibrationEntry(**{
            **vars(entry), "method": "platt_slope", "temperature": None, "temperature_interval": None, "figures": found,
            "parameters": {"method": "platt_slope"},
        })  # fmt: skip
        assert proof_of(stored, record, NAMES, "")["preserves"] == kept


def test_a_record_without_figures_gives_no_proof_and_one_line_that_says_why(tmp_path):
    entry, record = entry_and_record()
    for figures_of in ({}, {"before": entry.figures["before"]}, {"before": {"cases": {}}, "after": {}}):
        bare = CalibrationEntry(**{**vars(entry), "figures": figures_of})
        with pytest.raises(
            CalibUncertaintyError, match=r"no figures of its cases .*calibrate the model again"
        ) as caught:
            write_proof(tmp_path / "proof", proof_of(bare, record, NAMES, ""))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "proof").exists()


def test_figures_edited_by_hand_are_refused_or_read_as_unknown(tmp_path):
    given = proof(3)
    given["figures"]["before"]["cases"]["case_1"] = "0.2"
    with pytest.raises(CalibUncertaintyError, match="case_1 before"):
        write_proof(tmp_path, given)
    assert all(math.isnan(number(value)) for value in ("0.1", None, True, math.inf, [1]))
    assert number(np.float32(0.5)) == 0.5


def test_a_later_proof_takes_the_place_of_an_earlier_one_and_leaves_other_files(full_proof, plain_proof, tmp_path):
    write_proof(tmp_path, full_proof)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "classes_2.png").write_bytes(b"of an earlier proof")
    write_proof(tmp_path, plain_proof)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "notes.txt"} - {"classes.png"}
    assert json.loads(read({"": tmp_path / "proof.json"}, ""))["compared"] == []


@pytest.mark.parametrize("name", ["cases.csv", "proof.json", "report.html"])
def test_a_file_of_the_same_name_that_is_of_no_proof_is_not_replaced(name, plain_proof, tmp_path):
    (tmp_path / name).write_text("id,ct,labels")
    for attempt in (lambda: write_proof(tmp_path, plain_proof), lambda: check_proof_folder(tmp_path)):
        with pytest.raises(CalibUncertaintyError, match=f"{name} is there already and of no proof.*choose another folder"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "id,ct,labels"


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(plain_proof, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CalibUncertaintyError, match=r"cannot be written to .*file.*choose another folder"):
        write_proof(tmp_path / "file" / "proof", plain_proof)
    # a folder in the way of one of the files: what was written aside goes, the earlier files stay whole
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(CalibUncertaintyError, match="choose another folder"):
        write_proof(tmp_path / "out", plain_proof)
    assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".partial")]


def test_the_same_proof_is_written_the_same(plain_proof, tmp_path):
    first, second = (write_proof(tmp_path / name, plain_proof) for name in "ab")
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def test_values_are_shown_with_a_true_minus_and_never_as_minus_zero():
    gap, nll = BY_KEY["signed_gap"], BY_KEY["nll"]
    assert gap.text(0.0123) == "+1.23"
    assert gap.text(-0.0123) == "\N{MINUS SIGN}1.23"
    assert gap.text(-1e-9) == "0.00"
    assert nll.text(0.12345) == "0.123"
    assert nll.text(0.02, signed=True) == "+0.020"
    assert nll.text(math.nan) == "–"
