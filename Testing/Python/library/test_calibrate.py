"""`calibrate`: references drawn from a model's own tempered probabilities give that temperature back, end to end."""

import json
import shutil

import numpy as np
import pytest
import torch
from listening import Listening
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.applied import choose_calibration
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.chosen_measures import ALL
from CalibUncertaintyLib.workflow.labelled import LabelledCase, read_cases
from CalibUncertaintyLib.workflow.segment import segment

TRUE_TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(transpose=(1, 0, 2)), sharpness=6.0)


def sample_reference(probabilities: np.ndarray, temperature: float, seed: int) -> np.ndarray:
    """Labels drawn voxel by voxel from p^(1/T), normalised: for these the temperature T is the truth."""
    tempered = np.clip(probabilities, 1e-12, 1) ** (1 / temperature)
    cumulative = np.cumsum(tempered / tempered.sum(axis=0), axis=0)
    return (np.random.default_rng(seed).random(cumulative.shape[1:]) > cumulative[:-1]).sum(axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def cases(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    lines = ["id,ct,labels"]
    for seed in range(3):
        ct = write_ct(folder / f"ct{seed}.nii.gz", shape=(20, 26, 24), direction=rotation(15), seed=seed)
        result = segment(ct, model, folder / f"r{seed}", mirroring=False, full_volume=True)
        p = np.stack([result.probability(label).array for label in result.labels])
        p = np.concatenate([1 - p.sum(axis=0, keepdims=True), p])
        Volume.read(ct).with_array(sample_reference(p, TRUE_TEMPERATURE, seed)).write(folder / f"seg{seed}.nii.gz")
        lines.append(f"case{seed},ct{seed}.nii.gz,seg{seed}.nii.gz")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def record_path(model, cases, tmp_path_factory):
    path, _ = calibrate(cases, model, tmp_path_factory.mktemp("record") / "calibration.json", mirroring=False)
    return path


def test_the_temperature_that_made_the_references_comes_back(record_path):
    entry = CalibrationRecord.read(record_path).entries[0]
    assert entry.mode == "pool_logit"
    assert entry.temperature == pytest.approx(TRUE_TEMPERATURE, rel=0.03)
    low, high = entry.temperature_interval
    assert low < entry.temperature < high
    assert entry.cases == ["case0", "case1", "case2"]


def test_calibration_lowers_nll_and_ece_and_changes_no_label(record_path):
    for entry in CalibrationRecord.read(record_path).entries:
        before, after = entry.figures["before"], entry.figures["after"]
        # the references follow the pooled logits; for the other way of pooling a temperature can only lower the NLL it fits
        for figure in ("nll", "ece_toplabel") if entry.mode == "pool_logit" else ("nll",):
            assert after["pooled"][figure] < before["pooled"][figure]
        assert after["pooled"]["accuracy"] == before["pooled"]["accuracy"]
        assert after["changed_by_temperature"] == 0


def test_the_figures_say_which_cases_and_voxels_they_are_of(record_path):
    for entry in CalibrationRecord.read(record_path).entries:
        assert entry.figures["evaluated_on"] == "fit"
        for when in ("before", "after"):
            found = entry.figures[when]
            assert list(found["domains"]) == ["dist:15:pred"]
            assert 0 < found["domains"]["dist:15:pred"]["n"] <= found["pooled"]["n"]


def test_both_ways_of_pooling_are_stored_with_thresholds_for_every_measure(record_path):
    record = CalibrationRecord.read(record_path)
    assert [entry.mode for entry in record.entries] == ["pool_logit", "pool_prob"]
    for entry in record.entries:
        assert set(entry.thresholds) == set(ALL)


def test_segment_takes_the_record_and_its_threshold(record_path, model, cases, tmp_path):
    case = read_cases(cases)[0]
    result = segment(case.ct, model, tmp_path / "out", mirroring=False, calibration=record_path)
    entry = CalibrationRecord.read(record_path).entries[0]
    assert result.calibrated
    assert result.provenance["calibration"]["temperature"] == entry.temperature
    assert result.provenance["threshold"]["value"] == entry.thresholds["entropy"]["value"]
    assert result.provenance["changed_labels"] == {"by_pooling": 0, "by_temperature": 0}


def test_a_second_member_set_joins_the_record(record_path, model, cases, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(record_path.read_bytes())
    calibrate(cases, model, path, folds=[0], mirroring=False, bootstrap=0)
    sets = [(entry.members["folds"], entry.mode) for entry in CalibrationRecord.read(path).entries]
    assert sets == [([0, 1], "pool_logit"), ([0, 1], "pool_prob"), ([0], "pool_logit"), ([0], "pool_prob")]


def test_cases_that_trained_a_fold_are_refused_by_name(model, cases, tmp_path):
    splits = [{"train": ["case1"], "val": []}, {"train": [], "val": ["case1"]}]
    (model / "splits_final.json").write_text(json.dumps(splits))
    try:
        with pytest.raises(CalibUncertaintyError, match=r"fold 0 .* was trained on case1"):
            calibrate(cases, model, tmp_path / "r.json", mirroring=False)
    finally:
        (model / "splits_final.json").unlink()


def test_the_record_of_another_model_is_not_overwritten(model, cases, record_path, tmp_path):
    other = write_model(tmp_path, plans(), labels={"background": 0, "Liver": 1, "Spleen": 2})
    (tmp_path / "r.json").write_bytes(record_path.read_bytes())
    with pytest.raises(CalibUncertaintyError, match="record of another model"):
        calibrate(cases, other, tmp_path / "r.json", mirroring=False)
    assert (tmp_path / "r.json").read_bytes() == record_path.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,ct\na,b\n", "no column labels"),
        ("id,ct,labels\n", "lists no case"),
        ("id,ct,labels\na,no.nii.gz,no.nii.gz\n", "line 2: .*no.nii.gz does not exist"),
        ("id,ct,labels\na,,seg0.nii.gz\n", "line 2: id, ct and labels"),
        ("id,ct,labels\na,ct0.nii.gz,seg0.nii.gz\na,ct1.nii.gz,seg1.nii.gz\n", "listed twice"),
    ],
)
def test_a_wrong_list_of_cases_is_refused_by_line(text, said, cases):
    path = cases.parent / "wrong.csv"
    path.write_text(text)
    with pytest.raises(CalibUncertaintyError, match=said):
        read_cases(path)


def test_a_reference_on_another_grid_or_with_other_labels_is_named(model, cases, tmp_path):
    case = read_cases(cases)[0]
    reference = Volume.read(case.labels)
    reference.crop((0, 0, 0), (10, 10, 10)).write(tmp_path / "small.nii.gz")
    reference.with_array(reference.array + np.uint8(3)).write(tmp_path / "other.nii.gz")
    for name, said in (
        ("small.nii.gz", "does not lie on the grid"),
        ("other.nii.gz", "label 3, which Dataset999_Tiny"),
    ):
        with pytest.raises(CalibUncertaintyError, match=said):
            calibrate(
                [LabelledCase("a", case.ct, tmp_path / name)], model, tmp_path / "r.json", folds=[0], mirroring=False
            )


def test_a_place_that_cannot_be_written_is_said_before_the_computing(model, cases):
    with pytest.raises(CalibUncertaintyError, match="--out"):
        calibrate(cases, model, "/proc/calibration.json", mirroring=False)


def test_the_model_folder_itself_takes_the_record(cases, tmp_path):
    folder = write_model(tmp_path, plans(transpose=(1, 0, 2)), sharpness=6.0)
    calibrate(cases, folder, folds=[1], mirroring=False, bootstrap=0)
    entry, reason = CalibrationRecord.read(folder / "calibration.json").find(
        ModelFolder.open(folder).fingerprint([1]), "pool_logit", False
    )
    assert entry is not None, reason


def test_a_reference_that_is_turned_does_not_lie_on_the_ct(model, cases, tmp_path):
    case = read_cases(cases)[0]
    reference = Volume.read(case.labels)
    turned = Volume(
        reference.array, reference.spacing_zyx, reference.origin_lps, reference.direction_lps @ np.diag([1, -1, -1])
    )
    turned.write(tmp_path / "turned.nii.gz")
    with pytest.raises(CalibUncertaintyError, match="does not lie on the grid"):
        calibrate(
            [LabelledCase("a", case.ct, tmp_path / "turned.nii.gz")],
            model,
            tmp_path / "r.json",
            folds=[0],
            mirroring=False,
        )


@pytest.mark.parametrize(("kind", "value"), [(np.uint16, 65535), (np.uint32, 65537), (np.float32, 0.7), (np.int16, -1)])
def test_a_reference_value_that_a_cast_would_make_valid_is_refused(kind, value, model, cases, tmp_path):
    case = read_cases(cases)[0]
    reference = Volume.read(case.labels)
    array = reference.array.astype(kind)
    array[3, 3, 3] = value
    reference.with_array(array).write(tmp_path / "odd.nrrd")
    with pytest.raises(CalibUncertaintyError, match=r"odd.nrrd holds the label"):
        calibrate(
            [LabelledCase("a", case.ct, tmp_path / "odd.nrrd")], model, tmp_path / "r.json", folds=[0], mirroring=False
        )


def test_an_ignored_label_is_left_out_of_the_fit(cases, tmp_path):
    folder = write_model(tmp_path, plans(transpose=(1, 0, 2)), sharpness=6.0)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    content["labels"]["ignore"] = 3
    (folder / "dataset.json").write_text(json.dumps(content))
    case = read_cases(cases)[0]
    reference = Volume.read(case.labels)
    array = reference.array.copy()
    array[:8] = 3
    reference.with_array(array).write(tmp_path / "part.nii.gz")
    entries = [
        calibrate([LabelledCase("a", case.ct, labels)], folder, tmp_path / f"{index}.json", folds=[0], mirroring=False)[
            1
        ]
        for index, labels in enumerate((case.labels, tmp_path / "part.nii.gz"))
    ]
    whole, part = (entry.figures["before"]["pooled"]["n"] for entry in entries)
    assert part == pytest.approx(whole * 12 / 20, rel=0.02)


def test_a_damaged_record_is_set_aside_and_said(model, cases, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text("{")
    heard = Listening()
    calibrate(cases, model, path, folds=[0], mirroring=False, bootstrap=0, progress=heard)
    assert CalibrationRecord.read(path).entries
    assert (tmp_path / "calibration.json.bak-1").read_text(encoding="utf-8") == "{"
    assert any("set aside as" in warning for warning in heard.warnings)
    assert any("splits_final.json" in warning for warning in heard.warnings)


def test_a_renamed_model_folder_is_the_same_model(record_path, model, cases, tmp_path):
    renamed = shutil.copytree(model, tmp_path / "renamed")
    (tmp_path / "r.json").write_bytes(record_path.read_bytes())
    calibrate(cases, renamed, tmp_path / "r.json", folds=[1], mirroring=False, bootstrap=0)
    assert len(CalibrationRecord.read(tmp_path / "r.json").entries) == 4


def test_what_another_run_stored_meanwhile_is_kept(model, cases, record_path, tmp_path):
    path = tmp_path / "r.json"

    class Meddling(Progress):
        def show(self, message):
            if self.stage_name == "fit" and not path.exists():
                path.write_bytes(record_path.read_bytes())

    calibrate(cases, model, path, folds=[0], mirroring=False, bootstrap=0, progress=Meddling())
    assert len(CalibrationRecord.read(path).entries) == 4


def test_one_case_gives_no_interval(model, cases, tmp_path):
    _, entry = calibrate(read_cases(cases)[:1], model, tmp_path / "r.json", folds=[0], mirroring=False)
    assert entry.temperature_interval is None


@pytest.mark.parametrize("options", [{"step_size": 0}, {"roi_mm": float("nan")}, {"bootstrap": -1}, {"roi_mm": 0}])
def test_an_option_out_of_range_is_refused(options, model, cases, tmp_path):
    with pytest.raises(CalibUncertaintyError):
        calibrate(cases, model, tmp_path / "r.json", **options)
    assert not (tmp_path / "r.json").exists()


def test_no_case_and_a_doubled_case_are_refused(model, cases, tmp_path):
    case = read_cases(cases)[0]
    for listed, said in (([], "no case was given"), ([case, case], "listed twice")):
        with pytest.raises(CalibUncertaintyError, match=said):
            calibrate(listed, model, tmp_path / "r.json", folds=[0])


def test_a_temporary_folder_that_is_not_there_is_said(model, cases, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(CalibUncertaintyError, match="TMPDIR"):
        calibrate(cases, model, tmp_path / "r.json", folds=[0], mirroring=False)


def test_a_model_that_allows_no_mirroring_is_calibrated_where_it_is_asked_for_by_default(cases, tmp_path):
    folder = write_model(tmp_path, plans(transpose=(1, 0, 2)), folds=(0,), sharpness=6.0)
    content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    content["inference_allowed_mirroring_axes"] = None
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    calibrate(cases, folder, bootstrap=0)
    result = segment(read_cases(cases)[0].ct, folder, tmp_path / "out")
    assert result.calibrated, result.provenance["calibration"]["reason"]
    assert choose_calibration(
        ModelFolder.open(folder), [0], True, "pool_logit"
    ).calibrated  # what `info` and the panel ask
