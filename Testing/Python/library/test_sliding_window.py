"""The sliding window against stock nnU-Net's own, bit for bit, and every kind of forward a member may make."""

import numpy as np
import pytest
import torch
from engine_parts import few_slices, predictor_of, prepared, stock_logits, whole_logits
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.inference import sliding_window
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.inference.sliding_window import SlidingWindow, padding_of, rows_of
from CalibUncertaintyLib.progress import Progress

GRIDS = {
    "3D": ({}, {}),
    "3D, several rows and odd steps": ({"patch": (8, 16, 12)}, {"shape": (31, 37, 29)}),
    "2D": ({"spacing": (1.5, 1.5), "patch": (16, 12)}, {"shape": (9, 30, 28)}),
    "2D, padded": ({"spacing": (1.5, 1.5), "patch": (32, 16)}, {"shape": (5, 13, 40)}),
    "smaller than the patch": ({"patch": (16, 32, 16)}, {"shape": (7, 40, 9)}),
    "smaller than the patch in its first axis only": ({"patch": (32, 16, 16)}, {"shape": (11, 30, 28)}),
    "one slice": ({}, {"shape": (1, 30, 28)}),
    "one slice, 2D": ({"spacing": (1.5, 1.5), "patch": (16, 16)}, {"shape": (1, 30, 28)}),
}


def assert_bits_of_stock(folder, of_plans, of_ct, folds=(0,), mirroring=False, step_size=0.5, **of_model):
    model = write_model(folder, plans(**of_plans), folds=folds, **of_model)
    ct = few_slices(folder / "ct.nii.gz", **{"shape": (24, 30, 28), **of_ct})
    predictor = predictor_of(model, flips="mean" if mirroring else "off", step_size=step_size)
    case = prepared(predictor, ct)
    expected = stock_logits(model, case.data, folds, mirroring, step_size)
    assert expected.dtype == torch.half
    assert float(expected.float().std()) > 0.1, "the comparison is empty: all logits are alike"
    found = []
    for _, planes in predictor.predict(case, Progress()):
        found.append(whole_logits(planes))
    assert len(found) == len(folds)
    if len(folds) == 1:
        assert torch.equal(found[0], expected)
        return
    assert not torch.equal(found[0], found[1])
    with Scratch(folder) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress())
        pool = opinions._pools[0].total
        assert torch.equal(torch.from_numpy(pool.read(0, len(pool)).copy()).permute(1, 0, 2, 3), expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_logits_equal_stocks_to_the_last_bit(grid, tmp_path):
    assert_bits_of_stock(tmp_path, *GRIDS[grid])


@pytest.mark.parametrize("grid", ["3D", "2D", "smaller than the patch"])
def test_mirrored_logits_equal_stocks_to_the_last_bit(grid, tmp_path):
    assert_bits_of_stock(tmp_path, *GRIDS[grid], mirroring=True)


@pytest.mark.parametrize("step_size", [0.25, 0.31, 0.75, 1.0])
def test_other_steps_equal_stocks_to_the_last_bit(step_size, tmp_path):
    assert_bits_of_stock(tmp_path, {"patch": (8, 16, 16)}, {"shape": (21, 25, 22)}, step_size=step_size)


@pytest.mark.parametrize("grid", ["3D", "2D"])
def test_the_mean_of_folds_equals_stocks_to_the_last_bit(grid, tmp_path):
    assert_bits_of_stock(tmp_path, *GRIDS[grid], folds=(0, 1, 2))


def test_mirrored_folds_of_a_model_with_many_structures_equal_stocks_to_the_last_bit(tmp_path):
    labels = {"background": 0, **{f"Structure{i}": i for i in range(1, 13)}}
    assert_bits_of_stock(tmp_path, {}, {"shape": (18, 20, 22)}, folds=(0, 1), mirroring=True, labels=labels)


@pytest.mark.parametrize("dims", [2, 3])
def test_several_tiles_a_forward_change_no_more_than_rounding(dims, tmp_path):
    """Convolutions over a batch may add in another order, for the last bit of half precision; a misplaced tile would not hide."""
    model = write_model(tmp_path, plans(patch=(12, 16, 16)[3 - dims :], spacing=(2.0, 1.5, 1.5)[3 - dims :]), folds=(0,))
    predictor = predictor_of(model, flips="mean")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", shape=(24, 30, 28)))
    (one,) = [whole_logits(planes) for _, planes in predictor.predict(case, Progress())]
    sizes = []
    forward = predictor._forward

    def counted(model, member, tiles, number):
        sizes.append(len(tiles))
        return forward(model, member, tiles, number)

    predictor._forward, predictor._models[0].tiles_per_forward = counted, 5
    (several,) = [whole_logits(planes) for _, planes in predictor.predict(case, Progress())]
    assert max(sizes) == 5
    assert sum(sizes) == SlidingWindow(case.data, predictor._models[0].configuration.patch_size, 0.5).tiles
    assert float((one.float() - several.float()).abs().max()) < 0.02
    assert float((one.float() - several.float()).abs().mean()) < 1e-3


@pytest.mark.parametrize("size", [1, 100, 1 << 24])
def test_planes_come_once_each_and_in_order_however_large_the_portions(size, monkeypatch):
    monkeypatch.setattr(sliding_window, "PLANES_BYTES", size)
    data = torch.arange(23 * 17 * 19, dtype=torch.float32).reshape(1, 23, 17, 19) / 1000 + 2
    window = SlidingWindow(data, (8, 8, 8), 0.5)
    told = []
    parts = list(window.planes(lambda tiles, number: torch.cat([tiles, -tiles], 1), 2, torch.device("cpu"), 3, told.append))
    assert [first for first, _ in parts] == list(np.cumsum([0, *(len(planes) for _, planes in parts)])[:-1])
    logits = whole_logits(parts)
    # a network that answers with its input: the weighted mean of equal values is that value, less the rounding of half sums,
    # which is coarse at the volume's faces, where a patch this small has next to no weight
    for found, expected in ((logits[0], data[0]), (logits[1], -data[0])):
        wrong = (found.float() - expected).abs()
        assert float(wrong.max()) < 0.2
        assert float(wrong[2:-2, 2:-2, 2:-2].max()) < 0.02
    assert told[-1] == window.tiles
    assert told == sorted(told)


@pytest.mark.parametrize("shape", [(5, 9, 40), (16, 16, 16), (1, 1, 1), (17, 15, 33)])
@pytest.mark.parametrize("patch", [(16, 16, 16), (8, 32, 12), (12, 40)])
def test_padding_is_nnunets(shape, patch):
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    padded, undo = pad_nd_image(np.zeros((1, *shape)), patch, "constant", {"constant_values": 0}, True, None)
    found = padding_of(shape, patch)
    assert found.shape == padded.shape[1:]
    assert found.inside == tuple(slice(int(s.start), int(s.stop)) for s in undo[1:])


@pytest.mark.parametrize("shape", [(33, 20, 41), (16, 16, 16)])
@pytest.mark.parametrize(("patch", "step"), [((16, 16, 16), 0.5), ((8, 12, 16), 0.3), ((12, 16), 0.5), ((16, 16), 1.0)])
def test_tiles_are_nnunets_in_its_order(shape, patch, step, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stock = nnUNetPredictor(tile_step_size=step, device=torch.device("cpu"), perform_everything_on_device=False)
    stock.configuration_manager = type("Settings", (), {"patch_size": list(patch)})()
    expected = []
    for found in stock._internal_get_sliding_window_slicers(shape):
        first, rows, columns = found[1:]
        expected.append((first if isinstance(first, int) else first.start, rows.start, columns.start))
    ours = [(row.start, *corner) for row in rows_of(shape, patch, step) for corner in row.corners]
    assert ours == [tuple(map(int, corner)) for corner in expected]


def test_the_tile_with_most_of_a_mask_is_found_in_a_padded_grid():
    window = SlidingWindow(torch.zeros(1, 6, 40, 30), (16, 16, 16), 0.5)
    mask = np.zeros((6, 40, 30), bool)
    mask[2:5, 25:38, 1:5] = True
    row, corner, inside = window.most_of(mask)
    assert np.count_nonzero(inside) == mask.sum()
    window._data[(slice(None), *window.padding.inside)] = torch.from_numpy(mask)[None].float()
    np.testing.assert_array_equal(window.tile(row, corner)[0, 0].numpy() > 0, inside)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_no_number_is_noticed_among_millions(bad):
    values = torch.full((64, 64, 64), 60000.0).half()  # their sum is none either
    assert sliding_window.is_finite(values)
    values[13, 60, 7] = bad
    assert not sliding_window.is_finite(values)
