"""What `calibrate` refuses or warns of: records, folders, room and cases that would lose data or mislead in silence."""

import json
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from listening import Listening
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow import calibrate as calibrate_module
from CalibUncertaintyLib.workflow.calibrate import CalibrateOptions, calibrate
from CalibUncertaintyLib.workflow.labelled import LabelledCase


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), sharpness=6.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return labelled(tmp_path_factory.mktemp("case"), reference_with_two_structures)


def labelled(folder, draw, **ct_settings):
    ct = write_ct(folder / "ct.nii.gz", shape=(18, 20, 18), **ct_settings)
    volume = Volume.read(ct)
    volume.with_array(draw(volume.array.shape)).write(folder / "labels.nii.gz")
    return LabelledCase("P01", ct, folder / "labels.nii.gz")


def reference_with_two_structures(shape):
    array = np.zeros(shape, np.uint8)
    array[4:11, 5:12, 5:12], array[12:16, 3:8, 3:8] = 1, 2
    return array


def refusal(*arguments, **options) -> str:
    with pytest.raises(CalibUncertaintyError) as caught:
        calibrate(*arguments, mirroring=False, bootstrap=0, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def never_computes(monkeypatch):
    def fail(*_arguments, **_options):
        raise AssertionError("the members were loaded although the run cannot end well")

    monkeypatch.setattr(calibrate_module, "MemberPredictor", fail)


def test_a_folder_given_for_the_record_is_refused_and_left_alone(model, case, tmp_path, never_computes):
    (tmp_path / "mine").mkdir()
    assert "is a folder" in refusal([case], model, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(("name", "text"), [("notes.csv", "a,b\n"), ("dataset.json", '{"labels": {}}'), ("list.json", "[]")])
def test_a_file_that_was_never_a_record_is_refused_and_left_alone(name, text, model, case, tmp_path, never_computes):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert "is not a calibration record" in refusal([case], model, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_a_record_of_another_version_is_set_aside_beside_earlier_ones(model, case, tmp_path):
    path = tmp_path / "calibration.json"
    old = json.dumps({"schema": "calib-uncertainty/calibration-record", "schema_version": 0})
    path.write_text(old, encoding="utf-8")
    (tmp_path / "calibration.json.bak-1").write_text("the first", encoding="utf-8")
    heard = Listening()
    calibrate([case], model, path, folds=[0], mirroring=False, bootstrap=0, progress=heard)
    assert (tmp_path / "calibration.json.bak-1").read_text(encoding="utf-8") == "the first"
    assert (tmp_path / "calibration.json.bak-2").read_text(encoding="utf-8") == old
    assert sum("calibration.json.bak-2" in warning for warning in heard.warnings) == 1


def test_unknown_training_cases_are_said_once_for_all_folds(model, case, tmp_path):
    heard = Listening()
    calibrate([case], model, tmp_path / "r.json", mirroring=False, bootstrap=0, progress=heard)
    assert sum("make sure these cases were held out" in warning for warning in heard.warnings) == 1


def test_a_reference_of_one_class_is_said_once_and_its_limit_stands_in_the_reason(model, tmp_path):
    only = labelled(tmp_path, lambda shape: np.ones(shape, np.uint8))
    heard = Listening()
    path, entry = calibrate([only], model, tmp_path / "r.json", folds=[0], mirroring=False, bootstrap=0, progress=heard)
    assert sum("only one class occurs" in warning for warning in heard.warnings) == 1
    # the network is untrained: its logits know nothing of this reference
    assert entry.temperature_status == "uninformative"
    found, reason = CalibrationRecord.read(path).find(ModelFolder.open(model).fingerprint([0]), "pool_logit", False)
    assert found is not None
    assert "at its limit (uninformative)" in reason


def test_voxels_in_the_cropped_background_are_counted_aloud(model, tmp_path):
    bordered = labelled(tmp_path, lambda shape: np.ones(shape, np.uint8), empty_border=4)
    heard = Listening()
    calibrate([bordered], model, tmp_path / "r.json", folds=[0], mirroring=False, bootstrap=0, progress=heard)
    volume = Volume.read(bordered.ct)
    inside = np.argwhere(volume.array != 0)
    left_out = volume.array.size - np.prod(np.ptp(inside, axis=0) + 1)
    assert left_out > 0
    assert any(f"P01: {left_out:,} voxels" in warning for warning in heard.warnings)


@pytest.mark.parametrize("folds", [[0, 1], [0]])
def test_a_disk_without_room_is_said_with_numbers_and_case(folds, model, case, tmp_path, monkeypatch):
    monkeypatch.setattr("CalibUncertaintyLib.workflow.room.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(calibrate_module, "Scratch", partial(Scratch, limit_bytes=0))
    said = refusal([case], model, tmp_path / "r.json", folds=folds)
    assert re.fullmatch(r"case P01 needs up to \d\.\d MB in .*, whose disk has 0\.0 MB free; set TMPDIR to another disk", said)


@pytest.mark.parametrize(("error", "said"), [
    (MemoryError(), "not enough memory"), (OSError(28, "No space left on device"), "is full; set TMPDIR"),
])
def test_a_lack_of_room_while_computing_is_one_line(error, said, model, case, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(calibrate_module, "collect", fail)
    assert said in refusal([case], model, tmp_path / "r.json", folds=[0])


def test_an_error_of_another_file_is_not_put_down_to_the_temporary_folder(model, case, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "elsewhere")

    monkeypatch.setattr(calibrate_module, "collect", fail)
    with pytest.raises(PermissionError, match="elsewhere"):
        calibrate([case], model, tmp_path / "r.json", folds=[0], mirroring=False)


def test_a_tmpdir_that_is_not_there_is_named_before_the_computing(model, case, tmp_path, monkeypatch, never_computes):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert str(tmp_path / "gone") in refusal([case], model, tmp_path / "r.json")


def test_numbers_of_numpy_are_taken_as_options():
    chosen = CalibrateOptions(roi_mm=np.float32(10), step_size=np.float64(0.5), bootstrap=np.int64(10))
    assert chosen.bootstrap == 10


@pytest.mark.parametrize("options", [
    {"step_size": 0.04}, {"step_size": float("nan")}, {"step_size": 1.1}, {"roi_mm": 1001}, {"roi_mm": "15"},
    {"bootstrap": 1.5}, {"bootstrap": True}, {"dropout": -1}, {"dropout": 1.5}, {"seed": -1}, {"flips": "no"},
])
def test_an_option_that_makes_no_sense_is_one_line_naming_the_value(options):
    with pytest.raises(CalibUncertaintyError) as caught:
        CalibrateOptions(**options)
    assert str(next(iter(options.values()))) in str(caught.value)
    assert "\n" not in str(caught.value)
