"""`check`: what is stored with a model, whether it holds, and whether a CT lies within what was calibrated."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.calibrated_range import CalibratedRange
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.model.record_hash import with_content_hash
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.check import check_model
from CalibUncertaintyLib.workflow.segment import segment
from CalibUncertaintyLib.workflow.traits import traits_of_ct


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A model calibrated for both folds and for fold 0 alone, as `calibrate` writes it; the CTs lie beside it."""
    folder = tmp_path_factory.mktemp("calibrated")
    model = write_model(folder, plans(), sharpness=6.0)
    lines = ["id,ct,labels"]
    for seed in range(3):
        ct = Volume.read(write_ct(folder / f"ct{seed}.nii.gz", shape=(18, 20, 19), seed=seed))
        generator = np.random.default_rng(seed)
        predicted = segment(ct, model, folder / f"r{seed}", mirroring=False).segmentation.array
        random = generator.integers(0, 3, ct.array.shape)  # where a rater and the model go different ways
        reference = np.where(generator.random(ct.array.shape) < 0.7, predicted, random).astype(np.uint8)
        ct.with_array(reference).write(folder / f"seg{seed}.nii.gz")
        lines.append(f"P{seed},ct{seed}.nii.gz,seg{seed}.nii.gz")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    for folds in ("all", [0]):
        calibrate(folder / "cases.csv", model, folds=folds, mirroring=False, bootstrap=50)
    return folder


@pytest.fixture
def model(calibrated, tmp_path):
    """A copy to do harm to, with the range of its cases and the hash of its record."""
    found = next((calibrated / "Dataset999_Tiny").iterdir())
    copied = tmp_path / found.name
    shutil.copytree(found, copied)
    traits = [traits_of_ct(Volume.read(path)) for path in sorted(calibrated.glob("ct*.nii.gz"))]
    known = CalibratedRange.of(traits).to_json()
    change_record(copied, lambda document: [entry.update(range=known) for entry in document["entries"]])
    return copied


@pytest.fixture
def ct(calibrated):
    return Volume.read(calibrated / "ct0.nii.gz")


def change_record(model, change, hashed: bool = True) -> None:
    path = model / "calibration.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(with_content_hash(document) if hashed else document), encoding="utf-8")


def checked(model, mode="pool_logit", folds="all", flips="off", **options):
    return check_model(MemberSet.choose(model, folds, flips=flips), mode, **options)


def said(report) -> str:
    lines = report.lines()
    assert all(line == line.rstrip() and "\n" not in line for line in lines)
    return "\n".join(lines)


# --- what is stored --------------------------------------------------------------------------------------------------


def test_a_record_that_holds_is_told_in_full(model):
    report = checked(model)
    assert report.ok
    assert report.exit_status == 0
    assert report.lines()[0].startswith("HOLDS: calibrated on 3 cases for folds 0 and 1 together, temperature ")
    assert [entry.title for entry in report.entries] == [
        f"{folds}, without flips, {mode}, temperature"
        for folds in ("folds 0 and 1 together", "fold 0 alone")
        for mode in ("pool_logit", "pool_prob")
    ]
    record = CalibrationRecord.read(model / "calibration.json")
    text = said(report)
    assert "Content: as it was written" in text
    assert f"calib-uncertainty {record.versions['calib-uncertainty']}" in text
    assert f"torch {record.versions['torch']}" in text
    assert "schema version 1 (1 to 3 can be read)" in text
    assert "Entry 1 of 4, the one that holds for these members: " in text
    assert text.count("the one that holds") == 1
    for stored, entry in zip(record.entries, report.entries, strict=True):
        before, after = (stored.figures[when]["per_case"] for when in ("before", "after"))
        assert entry.lines[0].startswith(f"Temperature {stored.temperature:.3f} (95 % interval ")
        assert entry.lines[1] == "3 cases: P0, P1, P2"
        assert entry.lines[2] == "Fitted within 15 mm of prediction or reference"
        assert f"NLL {before['nll']:.4f} before, {after['nll']:.4f} after" in entry.lines[3]
        assert (
            f"ECE (top label) {before['ece_toplabel']:.4f} before, {after['ece_toplabel']:.4f} after" in entry.lines[3]
        )
        assert f"Made {stored.created}" in entry.lines
        assert f"Checkpoint files: {len(stored.members['folds'])} as when it was made, 0 not" in entry.lines
        assert entry.problems == ()


def test_the_gap_that_is_left_names_the_case_that_is_farthest_off(model):
    gaps = {"P0": 0.01, "P1": -0.123, "P2": 0.02}

    def change(document):
        after = document["entries"][0]["figures"]["after"]
        after["per_case"]["signed_gap"] = 0.004
        for name, gap in gaps.items():
            after["cases"][name]["signed_gap"] = gap

    change_record(model, change)
    words = said(checked(model))
    assert "After calibration these cases are on average 0.4 percentage points too sure; farthest off is P1" in words
    assert "P1, 12.3 percentage points too unsure" in words


@pytest.mark.parametrize(
    ("mode", "folds", "chosen"), [("pool_prob", "all", 1), ("pool_logit", [0], 2), ("pool_prob", [0], 3)]
)
def test_the_entry_for_the_members_asked_for_is_pointed_at(model, mode, folds, chosen):
    report = checked(model, mode, folds)
    assert report.ok
    assert report.chosen == chosen


def test_all_of_it_can_be_written_as_json_for_a_panel(model, ct):
    content = json.loads(json.dumps(checked(model, ct=ct).to_json(), allow_nan=False))
    assert content["ok"] is True
    assert content["chosen"] == 0
    assert len(content["entries"]) == 4


# --- whether it holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "reason"), [
    ({"folds": [1]}, "calibrated for folds 0 and 1 together; fold 0 alone, not for fold 1 alone"),
    ({"flips": "mean"}, "made without mirroring, and this run is with it"),
    ({"step_size": 0.7}, "--step-size 0.7"),
    ({"precision": "bf16"}, "--precision bf16"),
])  # fmt: skip
def test_other_members_are_named_and_do_not_hold(model, options, reason):
    report = checked(model, **options)
    assert not report.ok
    assert report.exit_status == 1
    assert report.chosen is None
    assert report.lines()[0].startswith("DOES NOT HOLD: ")
    assert reason in report.lines()[0]
    assert len(report.entries) == 4


def test_other_weights_are_named_in_every_entry_that_used_them(model):
    path = model / "fold_1" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes() + b"more training")
    report = checked(model, folds=[0])
    assert report.ok  # fold 0 alone is as it was
    assert [len(entry.problems) for entry in report.entries] == [1, 1, 0, 0]
    assert (
        "fold_1/checkpoint_final.pth holds other weights than when the calibration was made"
        in report.entries[0].problems[0]
    )
    assert "Checkpoint files: 1 as when it was made, 1 not" in report.entries[0].lines
    both = checked(model)
    assert not both.ok
    assert "fold 1's weights (fold_1/checkpoint_final.pth) are not the ones this record was made with" in both.verdict


def test_a_missing_checkpoint_is_named(model):
    shutil.rmtree(model / "fold_1")
    change_record(model, lambda document: document["entries"].__delitem__(slice(2, None)))
    report = checked(model)
    assert not report.ok
    assert report.verdict == "the model was calibrated for folds 0 and 1 together, not for fold 0 alone"
    assert report.entries[0].problems == (f"fold_1/checkpoint_final.pth is missing in {model}",)


def test_a_fold_that_is_passed_over_is_said_though_the_rest_holds(model):
    (model / "fold_1" / "checkpoint_final.pth").unlink()
    report = checked(model)
    assert report.ok  # fold 0 alone was calibrated too
    assert report.chosen == 2
    assert "Warning: fold_1 has no checkpoint_final.pth and is not asked" in report.lines()


def test_other_plans_are_named(model):
    path = model / "plans.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n")
    report = checked(model)
    assert not report.ok
    assert "its plans.json is not this model's" in report.verdict
    assert all("plans.json is another" in entry.problems[-1] for entry in report.entries)


def test_no_record_is_said_with_the_place(model):
    (model / "calibration.json").unlink()
    report = checked(model)
    assert not report.ok
    assert report.lines() == [f"DOES NOT HOLD: there is no calibration.json in {model}; calibrate the model first"]


def test_an_empty_record_does_not_hold(model):
    change_record(model, lambda document: document["entries"].clear())
    report = checked(model)
    assert not report.ok
    assert "the calibration record is empty" in report.lines()[0]


def test_a_record_that_is_named_is_checked_instead(model, tmp_path):
    other = tmp_path / "other.json"
    shutil.move(model / "calibration.json", other)
    assert checked(model, calibration=other).ok
    with pytest.raises(CalibUncertaintyError, match="there is no calibration record"):
        checked(model, calibration=tmp_path / "no.json")
    with pytest.raises(CalibUncertaintyError, match="nothing to check"):
        checked(model, calibration="none")


# --- whether it is whole ---------------------------------------------------------------------------------------------


def test_a_temperature_edited_by_hand_is_named_and_does_not_hold(model):
    change_record(model, lambda document: document["entries"][0].update(temperature=1.0), hashed=False)
    report = checked(model)
    assert not report.ok
    assert report.lines()[0].startswith("DOES NOT HOLD: it would be used as calibrated on 3 cases")
    assert "the record was changed after it was written" in report.lines()[1]
    assert "Content: CHANGED" in said(report)
    assert len(report.entries) == 4


def test_an_edit_that_is_no_valid_value_either_names_field_and_edit(model):
    change_record(model, lambda document: document["entries"][1].update(temperature=-3), hashed=False)
    text = said(checked(model))
    assert "entries[1].temperature must be a number from 0.05 to 20" in text
    assert "the record was changed after it was written" in text


def test_a_record_without_a_hash_holds_with_a_warning(model):
    change_record(model, lambda document: document.pop("content_sha256"), hashed=False)
    report = checked(model)
    assert report.ok
    assert "Warning: The record holds no content_sha256" in said(report)


@pytest.mark.parametrize(
    ("version", "words"), [(99, "newer version"), (0, "older version"), ("1", "must be a whole number")]
)
def test_another_schema_is_named(model, version, words):
    change_record(model, lambda document: document.update(schema_version=version))
    report = checked(model)
    assert not report.ok
    assert words in report.lines()[0]
    assert report.entries == ()


@pytest.mark.parametrize(("content", "words"), [
    (b'{"schema": "calib-uncertainty/calibration-record",\n "entr', r"is no valid JSON (line 2)"),
    (b"", "is no valid JSON (line 1)"),
    (b"\xff\xfe\x00", "is no valid JSON"),
    (b"[]", "it is not a calibration record"),
    (b'"text"', "it is not a calibration record"),
])  # fmt: skip
def test_a_damaged_file_is_named(model, content, words):
    (model / "calibration.json").write_bytes(content)
    report = checked(model)
    assert not report.ok
    assert words in report.lines()[0]
    assert str(model / "calibration.json") in report.lines()[0]


# --- how much it proves ----------------------------------------------------------------------------------------------


def changed_entry(model, change) -> str:
    change_record(model, lambda document: change(document["entries"][0]))
    report = checked(model)
    assert report.ok  # a doubt is no reason not to hold
    return "\n".join(report.entries[0].warnings)


def test_few_cases_are_warned_of(model):
    assert "Fitted on 3 cases only; it takes 9" in changed_entry(model, lambda entry: None)
    alone = changed_entry(model, lambda entry: entry.update(cases=["P0"], temperature_interval=None))
    assert "Fitted on a single case: there is no interval" in alone
    enough = changed_entry(model, lambda entry: entry.update(cases=[f"P{k}" for k in range(9)]))
    assert "Fitted on" not in enough
    assert "No case is named" in changed_entry(model, lambda entry: entry.update(cases=[]))


def test_many_cases_are_listed_up_to_fifty(model):
    change_record(model, lambda document: document["entries"][0].update(cases=[f"P{k}" for k in range(52)]))
    line = checked(model).entries[0].lines[1]
    assert line.startswith("52 cases: P0, P1, ")
    assert line.endswith("P49 and 2 more")


@pytest.mark.parametrize(("values", "words"), [
    ({"temperature": 0.05, "temperature_status": "separable"}, "ran to its limit: every voxel of the cases was right"),
    ({"temperature": 20.0, "temperature_status": "uninformative"}, "ran to its limit: the logits of the cases say nothing"),
    ({"temperature": 20.0}, "lies at the end of the range that is searched (0.05 to 20)"),
])  # fmt: skip
def test_a_temperature_at_its_limit_is_warned_of(model, values, words):
    assert words in changed_entry(model, lambda entry: entry.update(values, temperature_interval=None))


@pytest.mark.parametrize(("figures", "words"), [
    ({"signed_gap": -0.08, "ece_toplabel": 0.09}, "on average 8.0 percentage points too unsure"),
    ({"signed_gap": 0.01, "ece_toplabel": 0.06}, "A gap is left after calibration: ECE 0.060"),
    ({"nll": 9.0}, "The mean NLL over the cases rose from"),
])  # fmt: skip
def test_what_calibration_did_not_mend_is_warned_of(model, figures, words):
    assert words in changed_entry(model, lambda entry: entry["figures"]["after"]["per_case"].update(figures))


@pytest.mark.parametrize("figures", [{}, {"before": {"nll": 0.2}, "after": {"nll": 0.1}}, {"after": None, "before": 3},
                                     {"before": {"per_case": {"nll": None}}, "after": {"per_case": {"nll": None}}}])  # fmt: skip
def test_a_record_without_figures_is_told_without_them(model, figures):
    change_record(model, lambda document: document["entries"][0].update(figures=figures))
    assert "No figures before and after are stored" in said(checked(model))


# --- with a CT -------------------------------------------------------------------------------------------------------


def test_a_calibration_case_lies_within(model, ct):
    report = checked(model, ct=ct)
    assert report.outside == ()
    text = said(report)
    assert "CT: voxels of 2 x 1.5 x 1.5 mm and 36 x 30 x 28 mm in all (z, y, x); the body is " in text
    assert "Spacing, field of view and HU lie within what was calibrated" in text
    assert text.endswith("calibrate on ten cases or more")  # three cases


def test_a_ct_with_thick_slices_warns_and_the_record_still_holds(model, ct):
    report = checked(model, ct=replace(ct, spacing_zyx=(5.0, 1.5, 1.5)))
    assert report.ok
    assert report.exit_status == 0
    assert (
        "Warning: The CT's slices are 5.0 mm apart; the model was calibrated on 2.0 mm (3 cases): the probabilities may be off"
        in report.lines()
    )
    assert "lie within" not in said(report)


def test_a_ct_with_shifted_hounsfield_units_warns(model, ct):
    report = checked(model, ct=ct.with_array(ct.array.astype(np.float32) + 1024))
    assert any("The median of the body in the CT" in sentence for sentence in report.outside)


def test_a_ct_is_not_compared_where_nothing_holds_or_nothing_is_known(model, ct):
    assert "The CT was not compared: nothing that is stored holds" in said(checked(model, folds=[1], ct=ct))
    change_record(model, lambda document: [entry.pop("range") for entry in document["entries"]])
    report = checked(model, ct=ct)
    assert report.ok
    assert "The CT was not compared: what the entry's cases looked like is not known" in said(report)
    assert "lie within" not in said(report)
    assert "so that no CT can be compared with them" in "\n".join(report.entries[0].warnings)
    (model / "calibration.json").unlink()
    assert "The CT was not compared" in said(checked(model, ct=ct))


def test_a_damaged_range_is_named(model, ct):
    change_record(model, lambda document: document["entries"][0]["range"]["traits"]["hu_low"].update(n=-1))
    report = checked(model, ct=ct)
    assert "range.traits.hu_low.n must be a whole number" in "\n".join(report.entries[0].warnings)
    assert "The CT was not compared" in said(report)


def test_the_range_survives_reading_and_writing_by_this_version(model):
    path = model / "calibration.json"
    before = json.loads(path.read_text(encoding="utf-8"))["entries"][0]["range"]
    CalibrationRecord.read(path).write(path)
    assert json.loads(path.read_text(encoding="utf-8"))["entries"][0]["range"] == before


def test_looking_changes_nothing(model, ct):
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    document = copy.deepcopy(json.loads((model / "calibration.json").read_text(encoding="utf-8")))
    checked(model, ct=ct)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert json.loads((model / "calibration.json").read_text(encoding="utf-8")) == document
