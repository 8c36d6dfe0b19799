"""Every mode and method that `calibrate` stores is what `segment` applies, and what may change labels asks first."""

import json
import shutil

import numpy as np
import pytest
import torch
from listening import Listening
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError, cli
from CalibUncertaintyLib.calibration.methods import METHODS, calibrator_from_json
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.segment import segment

SHAPE = (18, 22, 20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two folds that are sure of themselves, the second one more than the first."""
    model = write_model(tmp_path_factory.mktemp("model"), plans(), sharpness=5.0)
    path = model / "fold_1" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["network_weights"] = {
        key: value * (1.6 if "seg_layers" in key else 1) for key, value in content["network_weights"].items()
    }
    torch.save(content, path)
    return model


def logits_of_members(model, ct):
    """Every member's logits (C, z, y, x) and the pool's on the whole CT, as the engine gives them."""
    predictor = MemberPredictor(MemberSet.choose(model, flips="off"), "cpu")
    case = predictor.prepare([Volume.read(ct)])
    with Scratch(model) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), keep_members=True)
        box = opinions.whole()
        members, pooled = np.zeros((2, 3, *box.shape), np.float32), np.zeros((3, *box.shape), np.float32)
        for slab in opinions.slabs(box):
            pooled[(slice(None), *slab.inside)] = slab.pooled
            for into, logits in zip(members, slab.members, strict=True):
                into[(slice(None), *slab.inside)] = logits
    return members, pooled


def softmax(z):
    e = np.exp(z.astype(np.float64) - z.max(axis=0))
    return e / e.sum(axis=0)


@pytest.fixture(scope="module")
def cases(trained, tmp_path_factory):
    """Labels drawn from what the first fold says at a temperature of 2: it is overconfident, and the second fold more so."""
    folder, found = tmp_path_factory.mktemp("cases"), []
    for seed in range(3):
        ct = write_ct(folder / f"ct{seed}.nii.gz", shape=SHAPE, seed=seed)
        members, _ = logits_of_members(trained, ct)
        cumulative = np.cumsum(softmax(members[0] / 2), axis=0)
        drawn = np.random.default_rng(seed).random(cumulative.shape[1:]) > cumulative[:-1]
        Volume.read(ct).with_array(drawn.sum(axis=0).astype(np.uint8)).write(folder / f"labels{seed}.nii.gz")
        found.append(LabelledCase(f"P{seed}", ct, folder / f"labels{seed}.nii.gz"))
    return found


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


def probabilities_of(result):
    structures = np.stack([result.probability(label).array for label in result.labels])
    return np.concatenate([1 - structures.sum(axis=0, keepdims=True), structures])


def test_all_modes_are_stored_and_their_temperatures_differ_where_the_members_do(model, cases):
    _, first = calibrate(cases, model, flips="off", mode="all", bootstrap=50)
    entries = {entry.mode: entry for entry in CalibrationRecord.read(model / "calibration.json").entries}
    assert list(entries) == ["pool_logit", "pool_prob", "shared", "member"]
    assert first.mode == "pool_logit"
    each = entries["member"].member_temperatures
    assert each[0] == pytest.approx(2, rel=0.03)
    assert each[1] > 1.3 * each[0]
    assert each[0] < entries["shared"].temperature < each[1]
    assert entries["member"].temperature is None
    assert entries["shared"].figures["after"]["per_case"]["nll"] < entries["shared"].figures["before"]["per_case"]["nll"]
    document = json.loads((model / "calibration.json").read_text(encoding="utf-8"))
    assert document["schema_version"] == 3
    assert len(document["content_sha256"]) == 64


@pytest.mark.parametrize("mode", ["shared", "member"])
def test_members_are_calibrated_before_they_are_averaged(mode, model, cases, tmp_path):
    _, entry = calibrate(cases, model, flips="off", mode=mode, bootstrap=0)
    result = segment(cases[0].ct, model, tmp_path / "out", flips="off", mode=mode, full_volume=True)
    assert result.calibrated, result.provenance["calibration"]["reason"]
    each = entry.member_temperatures if mode == "member" else [entry.temperature] * 2
    members, pooled = logits_of_members(model, cases[0].ct)
    expected = np.mean([softmax(z / t) for z, t in zip(members, each, strict=True)], axis=0)
    # 2e-3: single precision interpolation rounded to half, and the cells that sleep
    assert np.abs(probabilities_of(result) - expected).max() < 2e-3
    label = result.segmentation.array
    sure = np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[-2] > 5e-3
    assert (label == expected.argmax(axis=0))[sure].all()
    changed = int(np.count_nonzero(label != pooled.argmax(axis=0)))
    assert result.provenance["changed_labels"]["by_pooling"] == changed


def test_a_single_member_takes_its_temperature_in_every_mode(model, cases, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="there is only one"):
        calibrate(cases, model, folds=[0], flips="off", mode="member")
    calibrate(cases, model, folds=[0], flips="off", mode="all", bootstrap=0)
    modes = [entry.mode for entry in CalibrationRecord.read(model / "calibration.json").entries]
    assert modes == ["pool_logit", "pool_prob"]


@pytest.mark.parametrize("method", ["platt", "vector", "isotonic", "auxiliary_convolution"])
def test_a_method_that_changes_labels_is_refused_with_its_figures_and_stored_when_allowed(method, model, cases, tmp_path):
    with pytest.raises(CalibUncertaintyError, match=r"changes [\d,]+ labels .* Dice .* before, .* after.*nothing was stored"):
        calibrate(cases, model, flips="off", mode="pool_logit", method=method)
    assert not (model / "calibration.json").exists()
    _, entry = calibrate(cases, model, flips="off", mode="pool_logit", method=method, allow_changed_labels=True)
    assert (entry.temperature, entry.method) == (None, method)
    assert entry.figures["after"]["per_case"]["nll"] < entry.figures["before"]["per_case"]["nll"]
    result = segment(cases[1].ct, model, tmp_path / "out", flips="off", full_volume=True)
    calibration = result.provenance["calibration"]
    assert result.calibrated, calibration["reason"]
    assert (calibration["method"], calibration["temperature"]) == (method, None)
    assert METHODS[method].title in calibration["summary"]
    _, pooled = logits_of_members(model, cases[1].ct)
    calibrator = calibrator_from_json(entry.parameters)
    image = Volume.read(cases[1].ct).array.astype(np.float32)
    expected = calibrator.transform(pooled, image) if METHODS[method].spatial else calibrator.transform(pooled)
    assert np.abs(probabilities_of(result) - expected).max() < 1e-5
    changed = int(np.count_nonzero(expected.argmax(axis=0) != pooled.argmax(axis=0)))
    assert result.provenance["changed_labels"] == {"by_pooling": 0, "by_temperature": changed}
    assert changed > 0


def test_auto_takes_the_least_held_out_nll_among_what_changes_no_label(model, cases, tmp_path):
    _, entry = calibrate(cases, model, flips="off", mode="auto", method="auto", proof=tmp_path / "proof")
    rows = entry.compared
    assert {row["mode"] for row in rows} == {"pool_logit", "pool_prob", "shared", "member"}
    assert {"temperature", "platt", "vector", "matrix", "dirichlet", "isotonic"} <= {row["method"] for row in rows}
    allowed = [row for row in rows if row["changed_labels"] == 0]
    chosen = [row for row in rows if row["chosen"]]
    least = min(row["nll_cv"] for row in allowed)
    assert len(chosen) == 1
    assert chosen[0] in allowed
    assert least <= chosen[0]["nll_cv"] <= least * 1.0001
    assert (entry.mode, entry.method) == (chosen[0]["mode"], chosen[0]["method"])
    page = (tmp_path / "proof" / "report.html").read_text(encoding="utf-8")
    assert "vector" in page
    assert "dirichlet" in page


def test_one_case_is_too_few_to_compare(model, cases):
    with pytest.raises(CalibUncertaintyError, match="at least two cases"):
        calibrate(cases[:1], model, flips="off", mode="auto")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "best"}, "mode 'best' is unknown"),
        ({"method": "magic"}, "no calibration method 'magic'"),
        ({"mode": "shared", "method": "platt"}, "calibrates the pool"),
        ({"mode": "pool_prob", "method": "local_temperature"}, "choose --mode pool_logit"),
        ({"allow_changed_labels": 1}, "must be true or false"),
        ({"npz": ["only one"]}, "1 folders of probabilities"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, named, model, cases):
    with pytest.raises(CalibUncertaintyError, match=named):
        calibrate(cases, model, flips="off", **options)
    assert not (model / "calibration.json").exists()


def test_a_dataset_calibrates_every_fold_on_what_it_did_not_see(trained, model, cases, tmp_path):
    dataset = tmp_path / "nnUNet_raw" / "Dataset999_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    shutil.copyfile(trained / "dataset.json", dataset / "dataset.json")
    for case in cases:
        shutil.copyfile(case.ct, dataset / "imagesTr" / f"{case.id}_0000.nii.gz")
        shutil.copyfile(case.labels, dataset / "labelsTr" / f"{case.id}.nii.gz")
    splits = tmp_path / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["P1", "P2"], "val": ["P0"]}, {"train": ["P0"], "val": ["P1", "P2"]}]))
    heard = Listening()
    _, first = calibrate(dataset, model, flips="off", splits=splits, bootstrap=0, progress=heard)
    record = CalibrationRecord.read(model / "calibration.json")
    found = {(tuple(entry.members["folds"]), entry.mode): entry for entry in record.entries}
    assert set(found) == {((0, 1), "shared"), ((0, 1), "member"), ((0,), "pool_logit"), ((1,), "pool_logit")}
    assert {entry.source for entry in record.entries} == {"out_of_fold"}
    assert found[(0,), "pool_logit"].cases == ["P0"]
    assert sorted(found[(1,), "pool_logit"].cases) == ["P1", "P2"]
    alone = [found[(fold,), "pool_logit"].temperature for fold in (0, 1)]
    assert found[(0, 1), "member"].member_temperatures == pytest.approx(alone)
    assert min(alone) < found[(0, 1), "shared"].temperature < max(alone)
    assert first.mode == "shared"
    assert any("No case is held out of all folds" in message for message in heard.warnings)
    assert segment(cases[0].ct, model, tmp_path / "out", flips="off", mode="member").calibrated
    with pytest.raises(CalibUncertaintyError, match="only temperatures"):
        calibrate(dataset, model, flips="off", splits=splits, method="platt")


def test_a_ct_unlike_the_calibration_cases_is_said_in_the_result(model, cases, tmp_path):
    calibrate(cases, model, flips="off", bootstrap=0)
    other = write_ct(tmp_path / "other.nii.gz", shape=SHAPE, spacing=(1.5, 1.5, 6.0), seed=9)
    warned = segment(other, model, tmp_path / "a", flips="off").provenance["warnings"]
    assert any("6.0 mm apart" in message for message in warned)
    quiet = segment(cases[0].ct, model, tmp_path / "b", flips="off").provenance["warnings"]
    assert not any("calibrated on" in message for message in quiet)


def test_a_record_edited_by_hand_is_named_and_not_applied(model, cases, tmp_path, capsys):
    calibrate(cases, model, flips="off", bootstrap=0)
    path = model / "calibration.json"
    assert cli.main(["check", str(model), "--flips", "off", "--ct", str(cases[0].ct)]) == 0
    assert "HOLDS" in capsys.readouterr().out
    document = json.loads(path.read_text(encoding="utf-8"))
    document["entries"][0]["temperature"] = 1.01
    path.write_text(json.dumps(document))
    result = segment(cases[0].ct, model, tmp_path / "out", flips="off")
    assert not result.calibrated
    assert "changed after it was written" in result.provenance["calibration"]["reason"]
    assert cli.main(["check", str(model), "--flips", "off"]) == 1


def test_the_proof_of_a_stored_calibration_needs_nothing_but_the_record(model, cases, tmp_path, capsys):
    calibrate(cases, model, flips="off", bootstrap=20)
    assert cli.main(["proof", str(model), "--flips", "off", "--out", str(tmp_path / "proof")]) == 0
    table = (tmp_path / "proof" / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in table] == ["case", "P0", "P1", "P2"]
    assert (tmp_path / "proof" / "reliability.png").stat().st_size > 5000
    assert (tmp_path / "proof" / "classes.png").is_file()
    assert cli.main(["proof", str(model), "--out", str(tmp_path / "none")]) == 1  # calibrated without flips
    assert not (tmp_path / "none").exists()
