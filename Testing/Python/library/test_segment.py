"""`segment` from a file to a Result folder: what is in it, and that nothing unfinished can be taken for one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError, Cancelled
from CalibUncertaintyLib.model.folder import FINAL_CHECKPOINT, ModelFolder
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.uncertainty.measures import MEASURES
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), folds=(0, 1, 2))


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz", direction=rotation(12), empty_border=3)


@pytest.fixture(scope="module")
def result(model, ct, tmp_path_factory):
    return segment(ct, model, tmp_path_factory.mktemp("out") / "result", export=["nifti"], mirroring=False)


def store_record(folder, temperature=2.0, mode="pool_logit", folds=(0, 1, 2), mirroring=False, **changes):
    model = ModelFolder.open(folder)
    fingerprint = model.fingerprint(list(folds))
    record = CalibrationRecord.for_model(fingerprint)
    members = {
        "folds": list(folds), "checkpoint": FINAL_CHECKPOINT, "checkpoints": fingerprint["checkpoints"], "mirroring": mirroring,
    }  # fmt: skip
    record.put(
        CalibrationEntry(
            members=members, mode=mode, temperature=temperature, roi={"distance_mm": 15.0, "reference": "union"}, cases=["a", "b"],
            **{"member_temperature": 1.5, **changes},
        )
    )
    record.write(model.record_path)
    return model.record_path


@pytest.fixture
def own_model(model, tmp_path):
    return shutil.copytree(model, tmp_path / "own" / model.parent.name / model.name)


def test_a_result_says_what_it_is_made_of(result, model):
    found = result.provenance
    assert found["status"] == "complete"
    assert [m["fold"] for m in found["members"]] == [0, 1, 2]
    fingerprint = ModelFolder.open(model).fingerprint([0, 1, 2])
    assert found["model"]["checkpoints"] == fingerprint["checkpoints"]
    assert found["model"]["plans_sha256"] == fingerprint["plans_sha256"]
    assert {m["measure"] for m in found["maps"]["uncertainty"]} == set(MEASURES) - {"entropy_k"}
    assert {"read", "predict", "maps", "regions", "total"} <= set(found["timings_s"])
    assert found["versions"]["nnunetv2"]


def test_an_uncalibrated_result_says_so_everywhere(result):
    assert not result.calibrated
    assert result.provenance["calibration"]["summary"].startswith("NOT CALIBRATED: the model has no calibration record")
    assert any("NOT CALIBRATED" in warning for warning in result.provenance["warnings"])
    for volume in (result.probability("Liver"), result.uncertainty("entropy")):
        assert volume.metadata["CalibUncertainty.calibrated"] == "false"


def test_maps_lie_where_the_ct_lies(result, ct):
    whole = Volume.read(ct)
    for volume in (result.probability(1), result.uncertainty("mi"), result.distance):
        volume.with_array(volume.array * 0 + 1).embed_in(whole)  # raises where it is no crop of the CT's grid
    np.testing.assert_allclose(result.segmentation.direction_lps, whole.direction_lps, atol=1e-6)


def test_the_most_probable_structure_is_the_label(result):
    background = 1 - sum(result.probability(label).array for label in result.labels)
    order = np.stack([background, *(result.probability(label).array for label in result.labels)])
    label = result.segmentation.crop(*_window(result.segmentation, result.distance)).array
    sure = np.sort(order, axis=0)[-1] - np.sort(order, axis=0)[-2] > 1e-5
    np.testing.assert_array_equal(order.argmax(axis=0)[sure], label[sure])


def _window(whole, part):
    return tuple(np.rint(whole.index_from_lps(part.origin_lps)).astype(int)), part.array.shape


def _computed(result):
    return [item for item in result.provenance["maps"]["uncertainty"] if item["file"] is not None]


def test_measures_are_within_their_range_and_agree_with_the_probabilities(result):
    p = np.stack([result.probability(label).array for label in result.labels])
    p = np.concatenate([1 - p.sum(axis=0, keepdims=True), p]).clip(1e-12, 1)
    entropy = -(p * np.log(p)).sum(axis=0)
    np.testing.assert_allclose(result.uncertainty("entropy").array, entropy, atol=2e-4)
    np.testing.assert_allclose(result.uncertainty("conf").array, 1 - p.max(axis=0), atol=1e-5)
    for item in _computed(result):
        values = result.uncertainty(item["measure"]).array
        assert values.min() >= 0
        assert values.max() <= item["range"][1] + 1e-5
        assert values.max() > 0
    liver = result.probability("Liver").array.astype(float).clip(1e-12, 1 - 1e-12)
    expected = -liver * np.log(liver) - (1 - liver) * np.log1p(-liver)
    np.testing.assert_allclose(result.uncertainty("entropy_k", label="Liver").array, expected, atol=1e-4)


def test_mutual_information_is_the_members_entropy_of_mean_less_mean_of_entropies(result, model, ct, tmp_path):
    alone = [segment(ct, model, tmp_path / str(fold), folds=[fold], mirroring=False, full_volume=True) for fold in (0, 1, 2)]
    box = _window(alone[0].distance, result.distance)
    members = []
    for single in alone:
        p = np.stack([single.probability(label).crop(*box).array for label in single.labels]).astype(float)
        members.append(np.concatenate([1 - p.sum(axis=0, keepdims=True), p]).clip(1e-9, 1))
    mean = np.mean(members, axis=0)
    expected = -(mean * np.log(mean)).sum(axis=0) + np.mean([(p * np.log(p)).sum(axis=0) for p in members], axis=0)
    np.testing.assert_allclose(result.uncertainty("mi").array, expected, atol=1e-3)


def test_exported_maps_lie_on_the_ct_grid_with_the_same_values(result, ct):
    whole = Volume.read(ct)
    exported = Volume.read(result.folder / "nifti" / "probability_1_Liver.nii.gz")
    assert exported.array.shape == whole.array.shape
    np.testing.assert_allclose(exported.crop(*_window(exported, result.probability(1))).array, result.probability(1).array)
    distance = Volume.read(result.folder / "nifti" / "distance.nii.gz")
    assert distance.array[result.segmentation.array > 0].max() == 0
    image = sitk.Cast(sitk.ReadImage(str(result.folder / "segmentation.nii.gz")) > 0, sitk.sitkUInt8)
    reference = sitk.GetArrayFromImage(
        sitk.DanielssonDistanceMap(image, inputIsBinary=True, squaredDistance=False, useImageSpacing=True)
    )
    assert np.abs(distance.array - reference).max() < max(whole.spacing_zyx)


def test_regions_hold_what_lies_above_the_threshold_near_a_structure(result):
    threshold = result.provenance["threshold"]["value"]
    above = (result.uncertainty("entropy").array >= threshold) & (result.distance.array <= 15)
    listed = [region for region in result.regions if region.kind != "possible_miss"]
    least = result.provenance["min_region_ml"]
    assert sum(region.volume_ml for region in listed) <= above.sum() * result.distance.voxel_volume_ml + 1e-6
    assert all(region.volume_ml >= least - 1e-6 and region.peak >= threshold for region in listed)
    assert [region.share for region in listed] == sorted((region.share for region in listed), reverse=True)
    peak = result.distance.index_from_lps(listed[0].peak_lps_mm)
    assert result.uncertainty("entropy").array[tuple(np.rint(peak).astype(int))] == pytest.approx(listed[0].peak)
    np.testing.assert_allclose(np.array(listed[0].peak_ras_mm) * [-1, -1, 1], listed[0].peak_lps_mm)


def test_a_stored_temperature_is_applied_and_changes_no_label(own_model, ct, result, tmp_path):
    store_record(own_model, temperature=3.0, thresholds={"entropy": {"value": 0.2, "unit": "nats", "mean_error_dice": 0.4}})
    calibrated = segment(ct, own_model, tmp_path / "out", mirroring=False, full_volume=True)
    assert calibrated.calibrated
    assert calibrated.provenance["calibration"]["temperature"] == 3.0
    assert calibrated.provenance["calibration"]["summary"].startswith("Calibrated: temperature 3.00 (folds 0, 1 and 2")
    assert calibrated.provenance["changed_labels"] == {"by_pooling": 0, "by_temperature": 0}
    np.testing.assert_array_equal(calibrated.segmentation.array, result.segmentation.array)
    assert calibrated.uncertainty("entropy").array.mean() > result.uncertainty("entropy").array.mean()
    assert calibrated.provenance["threshold"] == {"measure": "entropy", "value": 0.2, "unit": "nats", "source": "stored"}
    assert calibrated.probability(1).metadata["CalibUncertainty.calibrated"] == "true"
    raw = segment(ct, own_model, tmp_path / "raw", mirroring=False, full_volume=True, calibration="none")
    clear = (raw.probability(1).array > 1e-3) & (raw.probability(2).array > 1e-3)
    odds = [np.log(r.probability(1).array[clear] / r.probability(2).array[clear]) for r in (raw, calibrated)]
    np.testing.assert_allclose(odds[1], odds[0] / 3.0, atol=2e-2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mirroring": True}, "mirroring"),
        ({"folds": (0, 1)}, "calibrated for folds 0 and 1"),
        ({"mode": "pool_prob"}, "pool_prob"),
    ],
)
def test_a_record_for_other_members_leaves_the_result_uncalibrated_and_says_why(change, reason, own_model, ct, tmp_path):
    path = store_record(own_model, **change)
    result = segment(ct, own_model, tmp_path / "out", mirroring=False)
    assert not result.calibrated
    assert reason in result.provenance["calibration"]["reason"]
    with pytest.raises(CalibUncertaintyError, match="does not fit"):
        segment(ct, own_model, tmp_path / "asked", mirroring=False, calibration=path)


def test_a_record_for_other_weights_is_noticed(own_model, ct, tmp_path):
    store_record(own_model)
    content = torch.load(own_model / "fold_1" / FINAL_CHECKPOINT, weights_only=True)
    next(iter(content["network_weights"].values())).mul_(1.01)
    torch.save(content, own_model / "fold_1" / FINAL_CHECKPOINT)
    result = segment(ct, own_model, tmp_path / "out", mirroring=False)
    assert "fold 1's weights" in result.provenance["calibration"]["reason"]


def test_a_damaged_record_leaves_the_result_uncalibrated(own_model, ct, tmp_path):
    (own_model / "calibration.json").write_text("{")
    result = segment(ct, own_model, tmp_path / "out", folds=[0], mirroring=False)
    assert "damaged" in result.provenance["calibration"]["summary"]


def test_pooling_probabilities_counts_the_labels_it_changes(model, ct, result, tmp_path):
    pooled = segment(ct, model, tmp_path / "out", mode="pool_prob", mirroring=False)
    different = int(np.count_nonzero(pooled.segmentation.array != result.segmentation.array))
    assert different > 0, "the comparison is empty: both ways of pooling agree everywhere"
    assert pooled.provenance["changed_labels"] == {"by_pooling": different, "by_temperature": 0}


def test_a_single_member_gives_no_disagreement_and_says_why(model, ct, tmp_path):
    alone = segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    entry = next(item for item in alone.provenance["maps"]["uncertainty"] if item["measure"] == "mi")
    assert (entry["file"], entry["status"]) == (None, "single_member")
    with pytest.raises(CalibUncertaintyError, match="more folds"):
        alone.uncertainty("mi")
    with pytest.raises(CalibUncertaintyError, match="only one is used"):
        segment(ct, model, tmp_path / "asked", folds=[0], mirroring=False, measure="mi")
    np.testing.assert_allclose(alone.uncertainty("exp_entropy").array, alone.uncertainty("entropy").array, atol=1e-5)


@pytest.fixture
def model_that_finds_nothing(tmp_path):
    folder = write_model(tmp_path / "nothing", plans(), folds=(0,))
    content = torch.load(folder / "fold_0" / FINAL_CHECKPOINT, weights_only=True)
    for name, weights in content["network_weights"].items():
        if "seg_layers" in name:
            weights.zero_()
            if name.endswith("bias"):
                weights[0] = 20.0
    torch.save(content, folder / "fold_0" / FINAL_CHECKPOINT)
    return folder


def test_an_empty_segmentation_is_a_result_too(model_that_finds_nothing, ct, tmp_path):
    result = segment(ct, model_that_finds_nothing, tmp_path / "out", mirroring=False)
    assert result.segmentation.array.max() == 0
    assert result.regions == []
    assert result.provenance["roi"]["voxels"] == 0
    assert result.provenance["left_out"]["largest_foreground_probability"] < 1e-6
    with pytest.raises(CalibUncertaintyError, match="found no structure"):
        _ = result.distance


def test_an_existing_folder_is_not_touched_without_leave(model, ct, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CalibUncertaintyError, match=r"exists already|not a Result folder"):
            segment(ct, model, tmp_path / "out", folds=[0], overwrite=overwrite)
    assert (tmp_path / "out" / "precious.txt").read_text(encoding="utf-8") == "mine"


def test_overwriting_replaces_an_earlier_result_only_when_the_new_one_is_whole(model, ct, tmp_path):
    first = segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    with pytest.raises(CalibUncertaintyError):
        segment(tmp_path / "missing.nii.gz", model, tmp_path / "out", overwrite=True)
    assert Result.open(tmp_path / "out").provenance["created"] == first.provenance["created"]
    again = segment(ct, model, tmp_path / "out", folds=[1], mirroring=False, overwrite=True)
    assert again.provenance["members"][0]["fold"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class StopAt(Progress):
    def __init__(self, stage):
        super().__init__()
        self.stage_wanted = stage

    def show(self, message):
        if self.stage_name == self.stage_wanted:
            raise Cancelled("stopped")


@pytest.mark.parametrize("stage", ["predict", "maps", "write"])
def test_a_run_stopped_at_any_stage_leaves_nothing(stage, model, ct, tmp_path):
    with pytest.raises(Cancelled):
        segment(ct, model, tmp_path / "out", mirroring=False, progress=StopAt(stage))
    assert list(tmp_path.iterdir()) == []


def test_progress_never_goes_back_and_ends_at_one(model, ct, tmp_path):
    seen = []

    class Watching(Progress):
        def show(self, message):
            seen.append((self.fraction, self.stage_name, message))

    segment(ct, model, tmp_path / "out", mirroring=False, progress=Watching())
    fractions = [fraction for fraction, _, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    tiles = [message for _, stage, message in seen if stage == "predict" and "tile" in message]
    assert tiles[-1].startswith("member 3 of 3")


def test_a_full_disk_is_said_and_leaves_nothing(model, ct, tmp_path):
    """A limit on the size of any file stands for the full disk: the system refuses the write as it would there."""
    script = f"""
import resource, signal
from CalibUncertaintyLib.workflow.segment import segment
from CalibUncertaintyLib.errors import CalibUncertaintyError
import nnunetv2.inference.predict_from_raw_data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    segment({str(ct)!r}, {str(model)!r}, {str(tmp_path / "out")!r}, folds=[0], mirroring=False)
except CalibUncertaintyError as error:
    print("REFUSED", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "REFUSED" in done.stdout, done.stdout + done.stderr
    assert "written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_the_maps_are_made(model, ct, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(CalibUncertaintyError, match=r"has 0\.0 MB free"):
        segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_permission_is_said(model, ct):
    with pytest.raises(CalibUncertaintyError, match="/proc/nowhere/out cannot be written"):
        segment(ct, model, "/proc/nowhere/out", folds=[0], mirroring=False)


@pytest.mark.parametrize(
    "options",
    [
        {"roi_mm": -1}, {"roi_mm": float("nan")}, {"threshold": "high"}, {"threshold": -0.1}, {"mode": "mean"},
        {"measure": "doubt"}, {"step_size": 0}, {"miss_probability": 2}, {"miss_probability": 0.001}, {"export": ["dicom"]},
        {"device": "abacus"}, {"device": "cuda:7"}, {"folds": [9]}, {"folds": []},
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_in_one_line(options, model, ct, tmp_path):
    with pytest.raises(CalibUncertaintyError) as refusal:
        segment(ct, model, tmp_path / "out", **options)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_finished_result_is_not_opened(result, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="not a Result folder"):
        Result.open(tmp_path)
    content = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    wrong = (({"status": "running"}, "finished"), ({"schema_version": 99}, "version"), ({"schema": "x"}, "not a Result"))
    for change, said in wrong:
        (tmp_path / "result.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(CalibUncertaintyError, match=said):
            Result.open(tmp_path)


def test_a_missing_map_is_named(result, tmp_path):
    copy = shutil.copytree(result.folder, tmp_path / "copy")
    (copy / "maps" / "distance.nrrd").unlink()
    with pytest.raises(CalibUncertaintyError, match=r"distance.nrrd is missing"):
        _ = Result.open(copy).distance
