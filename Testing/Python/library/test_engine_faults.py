"""What can go wrong while members are asked: every fault ends in one clear line or in the right answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine_parts import Heard, few_slices, member_logits, predictor_of, prepared, stock_logits
from tiny_model import plans, stock_prediction, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError, Cancelled
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.inference.sliding_window import SlidingWindow
from CalibUncertaintyLib.model.folder import FINAL_CHECKPOINT
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), folds=(0, 1))


@pytest.fixture
def ct(tmp_path):
    (tmp_path / "in").mkdir()
    return write_ct(tmp_path / "in" / "ct.nii.gz", shape=(18, 20, 22))


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("in", "Dataset999_Tiny"))


# --- values that are no numbers ----------------------------------------------------------------------------------------------


def spoil(model, fold, value):
    path = model / f"fold_{fold}" / FINAL_CHECKPOINT
    content = torch.load(path, weights_only=True)
    content["network_weights"]["decoder.seg_layers.0.weight"][1, 0] = value
    torch.save(content, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named_with_checkpoint_and_tile(value, ct, tmp_path):
    model = write_model(tmp_path, plans(), folds=(0, 1))
    spoil(model, 1, value)
    with pytest.raises(CalibUncertaintyError) as refusal:
        segment(ct, model, tmp_path / "out", mirroring=False)
    said = str(refusal.value)
    assert str(model / "fold_1" / FINAL_CHECKPOINT) in said
    assert "tile 1 of 8" in said
    assert "not numbers" in said
    assert "\n" not in said
    assert left_in(tmp_path) == []


def test_the_one_wrong_tile_of_several_is_named(model, ct):
    """One value of the input is none: only the last tile sees it, whichever it is of those that a forward takes."""
    predictor = predictor_of(model, folds=[0], flips="off")
    case = prepared(predictor, ct)
    case.data[0, -1, -1, -1] = float("nan")
    window = SlidingWindow(case.data, (16, 16, 16), 0.5)
    for tiles_per_forward in (1, 3, 4):
        predictor._models[0].tiles_per_forward = tiles_per_forward
        with pytest.raises(CalibUncertaintyError, match=rf"tile {window.tiles} of {window.tiles}"):
            member_logits(predictor, case)


def test_values_beyond_half_precision_are_named_and_stock_refuses_them_too(ct, tmp_path):
    model = write_model(tmp_path, plans(), folds=(0,))
    spoil(model, 0, 1e6)
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, ct)
    with pytest.raises(RuntimeError, match="inf"):
        stock_logits(model, case.data)
    with pytest.raises(CalibUncertaintyError, match=r"fold_0/checkpoint_final.pth.*half precision at planes \d+ to \d+"):
        member_logits(predictor, case)


# --- memory that is too short ------------------------------------------------------------------------------------------------


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A device that calls itself cuda and computes on the CPU. Its `room` says what is refused: "zeros", "total"."""
    to, zeros, room = torch.Tensor.to, torch.zeros, set()

    def is_gpu(device):
        return device is not None and torch.device(device).type == "cuda"

    def moved(self, *given, **named):
        given = [torch.device("cpu") if isinstance(item, torch.device) and is_gpu(item) else item for item in given]
        if is_gpu(named.get("device")):
            named["device"] = torch.device("cpu")
        return to(self, *given, **named)

    def made(*given, device=None, **named):
        if is_gpu(device):
            if "zeros" in room or ("total" in room and len(given[0]) == 3):
                raise OUT_OF_MEMORY
            device = torch.device("cpu")
        return zeros(*given, device=device, **named)

    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch, "zeros", made)
    return room


def on_gpu(model, tiles_per_forward):
    predictor = predictor_of(model, folds=[0], flips="off")
    predictor.device = predictor._models[0].band_device = torch.device("cuda")
    predictor._models[0].tiles_per_forward = tiles_per_forward
    return predictor


def failing(predictor, fails):
    """The forward runs out of memory where fails(call number, tiles) says so; returns the sizes that were tried."""
    forward, tried = predictor._forward, []

    def limited(model, member, tiles, number):
        tried.append(len(tiles))
        if fails(len(tried), len(tiles)):
            raise OUT_OF_MEMORY
        return forward(model, member, tiles, number)

    predictor._forward = limited
    return tried


def test_too_many_tiles_at_a_time_become_fewer_said_once_and_not_tried_again(model, ct, pretended_gpu):
    predictor = on_gpu(model, 4)
    case, heard = prepared(predictor, ct), Heard()
    expected = stock_logits(model, case.data)
    tried = failing(predictor, lambda call, tiles: tiles > 2)
    (logits,) = member_logits(predictor, case, heard)
    assert float((logits.float() - expected.float()).abs().max()) < 0.02  # two tiles at a time
    assert heard.warnings == ["The device's memory was too short for 4 tiles at a time; going on with 2"]
    assert tried == [4, 2, 2, 2, 2]


def test_from_many_tiles_down_to_one_and_further_to_the_cpu_gives_stocks_bits(model, ct, pretended_gpu):
    predictor = on_gpu(model, 8)
    case, heard = prepared(predictor, ct), Heard()
    expected = stock_logits(model, case.data)
    tried = failing(predictor, lambda call, tiles: tiles > 1 or call == 3)  # call 3: the first single tile
    (logits,) = member_logits(predictor, case, heard)
    assert torch.equal(logits, expected)
    assert tried == [4, 2, 1, *[1] * 8]
    assert [" 4 tiles" in heard.warnings[0], " 2 tiles" in heard.warnings[1]] == [True, True]
    assert "added up on the CPU" in heard.warnings[2]
    assert len(heard.warnings) == 3
    assert all("\n" not in warning for warning in heard.warnings)


@pytest.mark.parametrize("at_tile", [1, 5, 8])
def test_a_single_tile_that_does_not_fit_beside_the_sums_moves_them_to_the_cpu(at_tile, model, ct, pretended_gpu):
    predictor = on_gpu(model, 1)
    case, heard = prepared(predictor, ct), Heard()
    expected = stock_logits(model, case.data)
    failing(predictor, lambda call, tiles: call == at_tile)
    (logits,) = member_logits(predictor, case, heard)
    assert torch.equal(logits, expected)
    (warning,) = heard.warnings
    assert "added up on the CPU" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("what", ["zeros", "total"])
def test_sums_that_do_not_fit_on_the_device_are_kept_on_the_cpu(what, model, ct, pretended_gpu):
    predictor = on_gpu(model, 1)
    case, heard = prepared(predictor, ct), Heard()
    expected = stock_logits(model, case.data)
    pretended_gpu.add(what)
    (logits,) = member_logits(predictor, case, heard)
    assert torch.equal(logits, expected)
    assert len(heard.warnings) == 1


def test_a_network_that_never_fits_ends_the_run_and_not_in_a_circle(model, ct, pretended_gpu):
    predictor = on_gpu(model, 4)
    case = prepared(predictor, ct)
    tried = failing(predictor, lambda call, tiles: True)
    with pytest.raises(torch.OutOfMemoryError):
        member_logits(predictor, case)
    assert tried == [4, 2, 1, 1]


def test_another_error_of_the_network_is_not_taken_for_short_memory(model, ct, pretended_gpu):
    predictor = on_gpu(model, 4)
    case, heard = prepared(predictor, ct), Heard()
    predictor._forward = lambda *_: (_ for _ in ()).throw(RuntimeError("expected scalar type Float"))
    with pytest.raises(RuntimeError, match="scalar type"):
        member_logits(predictor, case, heard)
    assert heard.warnings == []


CPU_FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, MemoryError("no room"), CPU_FULL])
def test_short_memory_on_the_cpu_is_one_line_on_the_terminal_and_leaves_nothing(error, model, ct, tmp_path, monkeypatch, capsys):
    from CalibUncertaintyLib.cli import main

    def fail(*_):
        raise error

    monkeypatch.setattr(MemberPredictor, "_forward", fail)
    code = main(["segment", str(ct), "--model", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"])
    said = [line for line in capsys.readouterr().err.splitlines() if "calib-uncertainty:" in line]
    assert code == 1
    assert len(said) == 1
    assert "memory" in said[0]
    assert "unforeseen" not in said[0]
    assert left_in(tmp_path) == []


# --- interruptions -----------------------------------------------------------------------------------------------------------


class StopAtTile(Progress):
    def __init__(self, words, error):
        super().__init__()
        self.words, self.error = words, error

    def show(self, message):
        if self.words in message:
            raise self.error("stopped")


@pytest.mark.parametrize("words", ["member 1 of 2, tile 3 of", "member 2 of 2, tile 5 of"])
@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt])
def test_stopping_in_the_middle_of_a_member_leaves_nothing_and_gives_threads_back(words, error, model, ct, tmp_path, monkeypatch):
    monkeypatch.setattr(Scratch.__init__, "__defaults__", (0,))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 3)
    try:
        with pytest.raises(error):
            segment(ct, model, tmp_path / "out", mirroring=False, progress=StopAtTile(words, error))
        assert torch.get_num_threads() == threads + 3
    finally:
        torch.set_num_threads(threads)
    assert left_in(tmp_path) == []


def test_a_checkpoint_that_changes_during_the_run_is_said(model, ct, tmp_path):
    """A training that still writes would give a member that no fingerprint knows."""
    own = write_model(tmp_path, plans(), folds=(0, 1))
    predictor = predictor_of(own, flips="off")
    case = prepared(predictor, ct)
    spoil(own, 1, 0.5)
    with pytest.raises(CalibUncertaintyError, match=r"fold_1.*was changed during the run"):
        member_logits(predictor, case)


def test_a_measure_of_several_members_is_refused_where_all_hold_the_same_weights(ct, tmp_path):
    model = write_model(tmp_path, plans(), folds=(0,))
    content = torch.load(model / "fold_0" / FINAL_CHECKPOINT, weights_only=True)
    torch.save({**content, "current_epoch": 3}, model / "fold_0" / "checkpoint_best.pth")
    with pytest.raises(CalibUncertaintyError, match="compares several members"):
        segment(ct, model, tmp_path / "out", checkpoints="all", mirroring=False, measure="mi")
    assert left_in(tmp_path) == []


# --- unusual CTs -------------------------------------------------------------------------------------------------------------


UNUSUAL = {
    "slices of 1 mm": ({}, {"shape": (40, 24, 24), "spacing": (1.5, 1.5, 1.0)}),
    "slices of 10 mm": ({}, {"shape": (36, 24, 24), "spacing": (1.5, 1.5, 10.0)}),
    "slices of 10 mm on a fine grid": ({"spacing": (1.0, 2.0, 2.0), "patch": (8, 24, 24)},
                                       {"shape": (20, 24, 24), "spacing": (2.0, 2.0, 10.0)}),
    "two slices": ({}, {"shape": (2, 24, 24)}),
    "smaller than the patch": ({"patch": (32, 32, 32)}, {"shape": (5, 9, 11)}),
    "two slices, 2D": ({"spacing": (1.5, 1.5), "patch": (16, 16)}, {"shape": (2, 24, 24)}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_ct_has_stocks_labels(name, tmp_path):
    of_plans, of_ct = UNUSUAL[name]
    model = write_model(tmp_path / "m", plans(**of_plans), folds=(0, 1))
    volume = few_slices(tmp_path / "ct.nii.gz", **of_ct)
    volume.write(tmp_path / "ct.nii.gz")
    stock, _ = stock_prediction(model, tmp_path / "ct.nii.gz", tmp_path / "stock.nii.gz", mirroring=False)
    result = segment(tmp_path / "ct.nii.gz", model, tmp_path / "out", mirroring=False)
    expected = sitk.GetArrayFromImage(stock)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(result.segmentation.array, expected)
    assert result.uncertainty("mi").array.max() > 0.01


def test_a_ct_of_one_slice_has_stocks_labels_or_is_refused_in_one_line(tmp_path):
    model = write_model(tmp_path / "m", plans(), folds=(0, 1))
    volume = few_slices(tmp_path / "ct.nii.gz", (1, 24, 24))
    volume.write(tmp_path / "one.nii.gz")
    for given in (volume, tmp_path / "one.nii.gz"):
        with pytest.raises(CalibUncertaintyError, match="single slice") as refusal:
            segment(given, model, tmp_path / "out", mirroring=False)
        assert "\n" not in str(refusal.value)


# --- memory does not grow with members ---------------------------------------------------------------------------------------


MEMORY = """
import json, resource, sys, tempfile
sys.path[:0] = {paths}
import numpy as np, torch
from engine_parts import Told, told_case
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.maps import make_maps, temperatures_of

count, shape = {members}, (48, 128, 128)
heads = Heads(tuple(f"S{{i}}" for i in range(1, 25)), tuple(range(1, 25)), False)


class Making(Told):
    def __init__(self):
        super().__init__([torch.zeros(1)] * count, heads)

    def predict(self, case, progress):
        for member in self.members:
            yield member, self.planes(member.index)

    def planes(self, index):
        generator = torch.Generator().manual_seed(index)
        for first in range(0, shape[0], 4):
            planes = torch.randn((4, 25, 1, shape[2]), generator=generator).expand(-1, -1, shape[1], -1).clone()
            planes[:, 0] += {background}
            if 8 <= first < 28:
                planes[:, 5, 30:80, 30:80] += {background} + 1
            yield first, planes.half()


case, calibration = told_case(shape), AppliedCalibration("pool_logit", heads=heads)
with tempfile.TemporaryDirectory() as folder, Scratch(folder, 0) as scratch:
    opinions = Opinions.ask(Making(), case, scratch, Progress(), temperatures_of(calibration, count), kept_bytes={kept})
    boxes, _ = opinions.boxes(0.01, 15.0)
    maps = make_maps(opinions, boxes, calibration, heads, scratch, Progress())
    awake = opinions._cells.awake if opinions._cells else 0
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, awake, int(maps.label.max())]))
"""


def peak(members, background, kept=0):
    repository = Path(__file__).resolve().parents[3]

    paths = [str(repository), str(repository / "Testing" / "Python")]
    # else glibc keeps what was given back, some runs more and some less
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    script = MEMORY.format(paths=paths, members=members, background=background, kept=kept)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked as POSIX does")
def test_memory_does_not_grow_with_the_number_of_members():
    """25 classes: each member kept would be 39 MB, beside some 100 MB that a run takes and 350 MB of libraries."""
    one, eight = peak(1, 25.0), peak(8, 25.0)
    assert one[2] == eight[2] == 5
    assert 0 < eight[1] < 60  # of 96 cells
    assert eight[0] < 1.05 * one[0]


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked as POSIX does")
def test_memory_does_not_grow_with_members_whose_logits_are_kept_on_the_disk():
    one, two, eight = (peak(members, 2.0, 1 << 40) for members in (1, 2, 8))
    assert eight[1] == 0  # no cells: the logits are there
    assert eight[0] < 1.02 * two[0]
    assert eight[0] < 1.05 * one[0]


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked as POSIX does")
def test_memory_does_not_grow_with_members_that_disagree_everywhere():
    two, eight = peak(2, 2.0), peak(8, 2.0)
    assert two[1] == eight[1] == 96
    assert eight[0] < 1.02 * two[0]
