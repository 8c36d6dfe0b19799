"""Where a Result goes: nothing of somebody else's is replaced, nothing unfinished stays, and the box holds what it promises."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_parts import Told, told_case
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.softmax import softmax
from CalibUncertaintyLib.inference.boxes import Box
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.folder import FINAL_CHECKPOINT, ModelFolder
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.result import STORED_STEP, Result
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow import maps as maps_module
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans())


@pytest.fixture
def ct(tmp_path):
    (tmp_path / "in").mkdir()
    return write_ct(tmp_path / "in" / "ct.nii.gz", shape=(18, 20, 22))


def test_a_folder_with_somebody_elses_result_json_is_not_replaced(model, ct, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text('{"my": "experiment"}')
    with pytest.raises(CalibUncertaintyError, match="not a Result folder"):
        segment(ct, model, out, folds=[0], overwrite=True)
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == {"my": "experiment"}


def test_a_result_folder_that_holds_other_files_too_is_not_replaced(model, ct, tmp_path):
    segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(CalibUncertaintyError, match="holds other files"):
        segment(ct, model, tmp_path / "out", folds=[0], overwrite=True)
    assert (tmp_path / "out" / "notes.txt").exists()


def test_the_result_does_not_replace_its_own_ct(model, ct):
    for path in (ct, ct.parent):
        with pytest.raises(CalibUncertaintyError, match=r"lies inside|not a Result folder"):
            segment(ct, model, path.parent if path == ct else path, folds=[0], overwrite=True)
    assert ct.exists()


class MakeFolder(Progress):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def show(self, message):
        if self.stage_name == "maps" and not self.folder.exists():
            self.folder.mkdir()
            (self.folder / "precious.txt").write_text("mine")


def test_a_folder_that_appears_during_the_run_is_not_destroyed(model, ct, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="exists already"):
        segment(ct, model, tmp_path / "out", folds=[0], mirroring=False, progress=MakeFolder(tmp_path / "out"))
    assert (tmp_path / "out" / "precious.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_is_followed_and_stays_a_link(model, ct, tmp_path):
    segment(ct, model, tmp_path / "real", folds=[0], mirroring=False)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    segment(ct, model, tmp_path / "link", folds=[1], mirroring=False, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert Result.open(tmp_path / "real").provenance["members"][0]["fold"] == 1


@pytest.mark.parametrize("out", ["./made/below/result", "result/"])
def test_a_relative_or_nested_output_folder_is_made(out, model, ct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segment(ct, model, out, folds=[0], mirroring=False)
    assert Result.open(tmp_path / out).labels


@pytest.mark.skipif(os.name != "posix", reason="process identifiers are asked as POSIX does")
def test_what_a_killed_run_left_is_swept_and_what_a_living_one_has_is_not(model, ct, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:32]
    dead, alive = (tmp_path / f".out.{host}-{pid}-00000000.partial" for pid in (ended.pid, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
    segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on Windows")
@pytest.mark.parametrize(("nohup", "ends_with"), [(False, 130), (True, 0)])
def test_closing_the_terminal_leaves_nothing_unless_nohup_was_asked_for(nohup, ends_with, model, tmp_path):
    ct = write_ct(tmp_path / "large.nii.gz", shape=(50, 60, 60) if nohup else (90, 120, 120))
    (tmp_path / "place").mkdir()
    handler = signal.SIG_IGN if nohup else signal.SIG_DFL
    process = subprocess.Popen(
        [sys.executable, "-m", "CalibUncertaintyLib", "segment", str(ct), "--model", str(model), "--out",
         str(tmp_path / "place" / "out"), "--progress", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, handler),
    )  # fmt: skip
    for line in process.stdout:
        if "tile 2 of" in line:
            break
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=300)  # a busy machine takes its time
    assert process.returncode == ends_with
    assert [path.name for path in (tmp_path / "place").iterdir()] == (["out"] if nohup else [])


def test_large_arrays_lie_in_files_that_are_really_there(tmp_path):
    scratch = Scratch(tmp_path, limit_bytes=100)
    small, large = scratch.array((10,), np.float32), scratch.array((1000, 1000), np.float32)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    assert not large.any()
    large[999, 999] = 2
    assert float(large.sum()) == 2.0
    (file,) = tmp_path.glob("*.scratch")
    assert file.stat().st_blocks * 512 >= large.nbytes


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_blocks_read_back_what_was_written_and_zeros_elsewhere(limit, tmp_path):
    with Scratch(tmp_path, limit) as scratch:
        store = scratch.blocks((3, 5), np.float16, 20)
        expected = np.zeros((20, 3, 5), np.float16)
        for start, stop in ((0, 4), (17, 20), (2, 9)):
            values = np.random.default_rng(start).normal(size=(stop - start, 3, 5)).astype(np.float16)
            store.write(start, values)
            expected[start:stop] = values
        np.testing.assert_array_equal(store.read(0, 20), expected)
        np.testing.assert_array_equal(store.read(3, 3), expected[3:3])
        assert (len(list(tmp_path.iterdir())) == 1) == (limit == 0)
    assert list(tmp_path.iterdir()) == []


def test_the_way_through_files_gives_the_same_result(model, ct, tmp_path, monkeypatch):
    in_memory = segment(ct, model, tmp_path / "a", mirroring=False)
    monkeypatch.setattr(Scratch.__init__, "__defaults__", (0,))
    in_files = segment(ct, model, tmp_path / "b", mirroring=False)
    for name in ("entropy", "mi"):
        np.testing.assert_array_equal(in_memory.uncertainty(name).array, in_files.uncertainty(name).array)
    assert list((tmp_path / "b").glob("**/*.scratch")) == []


def bias_model(folder, biases):
    """Folds whose logits are constants: the weights are 0 and the biases given, (folds, classes)."""
    model = write_model(folder, plans(), folds=range(len(biases)))
    for fold, bias in enumerate(biases):
        path = model / f"fold_{fold}" / FINAL_CHECKPOINT
        content = torch.load(path, weights_only=True)
        for name, weights in content["network_weights"].items():
            if "seg_layers" in name:
                weights.zero_()
                if name.endswith("bias"):
                    weights.copy_(torch.tensor(bias, dtype=weights.dtype))
        torch.save(content, path)
    return model


def test_a_structure_that_only_pooled_probabilities_label_keeps_its_place_in_the_box(ct, tmp_path):
    """Two folds are for the liver, a third is so much against it that it wins the mean of the logits."""
    model = bias_model(tmp_path / "m", [[0.0, 3.0, 0.0], [0.0, 3.0, 0.0], [0.0, -20.0, 0.0]])
    result = segment(ct, model, tmp_path / "out", mode="pool_prob", mirroring=False, box_probability=0.5, miss_probability=1.0)
    assert (result.segmentation.array == 1).all()
    assert result.provenance["changed_labels"]["by_pooling"] == result.segmentation.array.size


def test_the_largest_probability_left_out_bounds_the_members_at_their_own_temperature_too(tmp_path):
    """Shown at temperature 1, compared with each other at 4: both are somewhere in the maps, so the likelier one counts."""
    logits = np.zeros((2, 3, 40, 40, 40), np.float32)
    logits[:, 0] = 40.0
    logits[:, 0, 30:, 30:, 30:] = 6.0
    logits[:, 1, :4, :4, :4] = 50.0  # something to build a box around
    heads = Heads(("Liver", "Node"), (1, 2), False)
    for temperatures, expected in (([], 1.0), ([4.0], 4.0)):
        with Scratch(tmp_path) as scratch:
            opinions = Opinions.ask(Told(logits, heads), told_case((40, 40, 40)), scratch, Progress(), temperatures)
        boxes, left_out = opinions.boxes(0.5, 0.0)
        assert boxes == [Box((0, 0, 0), (4, 4, 4))]
        p = 1 - float(softmax(np.array([[6.0], [0.0], [0.0]], np.float16), expected)[0, 0])
        assert left_out == pytest.approx(p, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"threshold": float("inf")}, {"min_region_ml": float("inf")}, {"export": "nifti"}, {"mirroring": "false"}, {"device": "meta"}],
)
def test_an_option_of_the_wrong_kind_is_refused_in_one_line(options, model, ct, tmp_path):
    with pytest.raises(CalibUncertaintyError) as refusal:
        segment(ct, model, tmp_path / "out", **options)
    assert "\n" not in str(refusal.value)


def test_numbers_of_numpy_are_numbers(model, ct, tmp_path):
    result = segment(ct, model, tmp_path / "out", folds=[0], mirroring=False, roi_mm=np.int64(5), threshold=np.float32(0.2))
    assert result.provenance["roi"]["distance_mm"] == 5


def test_a_result_with_a_part_missing_is_said_to_be_damaged(model, ct, tmp_path):
    result = segment(ct, model, tmp_path / "out", folds=[0], mirroring=False)
    content = {key: value for key, value in result.provenance.items() if key != "maps"}
    (result.folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError, match="damaged"):
        Result.open(result.folder)


REGIONS = {"background": 0, "Organ": [1, 2], "Lesion": [2]}


def stored_temperature(model, mode, temperature):
    """Put a record with this temperature of all folds beside the model."""
    folder = ModelFolder.open(model)
    fingerprint = folder.fingerprint(folder.folds)
    record = CalibrationRecord.for_model(fingerprint)
    members = {"folds": folder.folds, "checkpoint": FINAL_CHECKPOINT, "checkpoints": fingerprint["checkpoints"], "mirroring": False}
    roi = {"distance_mm": 15.0, "reference": "union"}
    record.put(CalibrationEntry(members, mode, temperature, roi, ["a"], member_temperature=temperature))
    record.write(folder.record_path)


def raw_and_calibrated(model, ct, place, mode, temperature, **options):
    """The same CT without a calibration, and with this temperature."""
    stored_temperature(model, mode, temperature)
    options = {"mirroring": False, "mode": mode, **options}
    return segment(ct, model, place / "raw", calibration="none", **options), segment(ct, model, place / "calibrated", **options)


@pytest.mark.parametrize("mode", ["pool_logit", "pool_prob"])
@pytest.mark.parametrize("temperature", [3.0, 1.2, 0.6])
def test_a_temperature_is_taken_back_to_what_a_run_without_calibration_stores(mode, temperature, ct, tmp_path):
    """Both results are rounded down to the stored step: the raw one by itself, the calibrated one before it is taken back."""
    model = write_model(tmp_path, plans(), sharpness=12.0)
    raw, calibrated = raw_and_calibrated(model, ct, tmp_path, mode, temperature, full_volume=True)
    assert calibrated.raw_availability == (True, "")
    assert not calibrated.overlapping
    for structure in ("Liver", "Node"):
        wanted, given = raw.probability(structure), calibrated.raw_probability(structure)
        assert np.abs(given.array - wanted.array).max() <= calibrated.raw_precision + STORED_STEP
        assert np.abs(calibrated.probability(structure).array - wanted.array).max() > 0.05  # there is something to take back
        np.testing.assert_allclose(given.ijk_to_ras, wanted.ijk_to_ras)
        assert given.metadata["CalibUncertainty.calibrated"] == "false"
        assert given.metadata["CalibUncertainty.structure"] == structure


@pytest.mark.parametrize("temperature", [[3.0, 0.7], [1.5, 1.5]])
def test_the_temperature_of_each_region_is_taken_back_by_itself(temperature, ct, tmp_path):
    model = write_model(tmp_path, plans(), labels=REGIONS, regions_class_order=[1, 2], sharpness=12.0)
    raw, calibrated = raw_and_calibrated(model, ct, tmp_path, "pool_logit", temperature, full_volume=True)
    assert calibrated.overlapping
    assert raw.overlapping
    for structure in ("Organ", "Lesion"):
        wanted, given = raw.probability(structure).array, calibrated.raw_probability(structure).array
        assert np.abs(given - wanted).max() <= calibrated.raw_precision + STORED_STEP


def test_two_regions_together_may_exceed_one_and_two_classes_may_not(ct, tmp_path):
    """With the formula of the other heads the regions would be wrong by far: the two are not mixed up."""
    model = write_model(tmp_path, plans(), labels=REGIONS, regions_class_order=[1, 2], sharpness=12.0)
    _, regions = raw_and_calibrated(model, ct, tmp_path, "pool_logit", [2.0, 2.0], full_volume=True)
    assert sum(regions.raw_probability(name).array for name in ("Organ", "Lesion")).max() > 1.5
    other = write_model(tmp_path / "classes", plans(), sharpness=12.0)
    _, classes = raw_and_calibrated(other, ct, tmp_path / "classes", "pool_logit", 2.0, full_volume=True)
    assert sum(classes.raw_probability(name).array for name in ("Liver", "Node")).max() <= 1 + 1e-6


def test_outside_the_boxes_the_raw_probability_is_none_and_inside_that_of_the_whole_volume(ct, tmp_path):
    model = write_model(tmp_path, plans(), sharpness=12.0)
    _, calibrated = raw_and_calibrated(model, ct, tmp_path, "pool_logit", 2.0)
    whole = segment(ct, model, tmp_path / "whole", mirroring=False, full_volume=True)
    given, around = calibrated.raw_probability(1), whole.raw_probability(1)
    start = np.rint(around.index_from_lps(given.origin_lps)).astype(int)
    part = around.crop(tuple(start), given.array.shape).array
    np.testing.assert_array_equal(given.array, np.where(calibrated.probability(1).array > 0, part, 0))


def test_the_structures_maps_are_read_once_however_often_a_raw_probability_is_asked_for(ct, tmp_path, monkeypatch):
    model = write_model(tmp_path, plans(), sharpness=12.0)
    _, calibrated = raw_and_calibrated(model, ct, tmp_path, "pool_logit", 2.0)
    read, asked = Volume.read, []
    monkeypatch.setattr(Volume, "read", lambda path, **options: (asked.append(path), read(path, **options))[1])
    first = calibrated.raw_probability("Liver").array
    assert len(asked) == 3  # itself, and both structures for the sum over classes
    np.testing.assert_array_equal(calibrated.raw_probability("Liver").array, first)
    assert len(asked) == 4


def altered(result, **calibration):
    content = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    content["calibration"].update(calibration)
    return Result(result.folder, content)


def test_why_there_is_no_raw_probability_is_said_in_one_sentence(ct, tmp_path):
    model = write_model(tmp_path, plans(), folds=[0])
    raw, calibrated = raw_and_calibrated(model, ct, tmp_path, "pool_logit", 2.0)
    cases = {
        "raw already": raw,
        "before they were averaged (mode shared)": altered(calibrated, mode="shared", temperature=None),
        "by isotonic cannot": altered(calibrated, method="isotonic", temperature=None),
        "which temperature": altered(calibrated, temperature=None),
        "does not say": altered(calibrated, temperature=[2.0]),
        "may be off by": altered(calibrated, temperature=0.05),
    }
    for words, result in cases.items():
        available, reason = result.raw_availability
        assert not available
        assert words in reason
        with pytest.raises(CalibUncertaintyError) as refusal:
            result.raw_probability(1)
        assert words in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6, 5.0])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_no_stored_probability_is_further_off_than_the_precision_says(temperature, k, tmp_path):
    """Independent of the files' way: softmax at T, rounded down, taken back in double precision by the definition itself."""
    logits = np.random.default_rng(3).normal(0, 6, (k + 1, 60, 60, 3))
    of = np.exp(logits / temperature - (logits / temperature).max(axis=0))
    stored = np.floor(of / of.sum(axis=0) / STORED_STEP) * STORED_STEP
    wanted = np.exp(logits - logits.max(axis=0))
    wanted /= wanted.sum(axis=0)
    names = [f"s{i}" for i in range(1, k + 1)]
    maps = [{"label": i, "name": name, "file": f"{name}.nrrd"} for i, name in enumerate(names, 1)]
    for item in maps:
        array = np.ascontiguousarray(stored[item["label"]], np.float32)
        Volume(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)).write(tmp_path / item["file"])
    calibration = {"calibrated": True, "mode": "pool_logit", "method": "temperature", "temperature": temperature}
    maps = {"probability": maps, "uncertainty": [{"measure": "entropy", "range": [0, np.log(k + 1)]}]}
    result = Result(tmp_path, {"calibration": calibration, "maps": maps, "model": {"labels": []}})
    off = max(np.abs(result.raw_probability(name).array - wanted[i]).max() for i, name in enumerate(names, 1))
    assert off <= result.raw_precision
    assert STORED_STEP == maps_module.STORED_STEP
