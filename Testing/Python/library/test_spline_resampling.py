"""The resampling of the CT by matrix products, against nnU-Net's own function."""

import numpy as np
import pytest

from CalibUncertaintyLib.inference.spline_resampling import AxisProduct, can_resize, resized

KINDS = {
    "thin slices made finer": ((16, 64, 60), (27, 39, 40), (2.5, 0.9, 0.9), (1.5, 1.5, 1.4)),
    "thick slices, kept": ((12, 50, 51), (12, 32, 30), (5, 0.8, 0.8), (5, 1.2, 1.3)),
    "thick slices made finer": ((12, 30, 31), (20, 33, 37), (5, 1.2, 1.2), (3, 1.1, 1)),
    "thin slices made thick": ((40, 30, 31), (9, 33, 37), (1, 1, 1), (4.5, 0.9, 0.8)),
    "only in plane": ((20, 40, 30), (20, 25, 20), (1.5, 0.9, 0.9), (1.5, 1.5, 1.4)),
    "only through plane": ((20, 21, 30), (33, 21, 30), (1.5, 0.9, 0.9), (0.9, 0.9, 0.9)),
    "thick in the last axis": ((30, 31, 8), (15, 36, 12), (1, 1, 5), (2, 0.9, 3.3)),
    "thick in the middle axis": ((30, 7, 31), (15, 12, 36), (1, 5, 1), (2, 3, 0.9)),
    "one slice": ((1, 30, 28), (2, 20, 19), (2, 1, 1), (1, 1.5, 1.5)),
    "two voxels": ((2, 30, 2), (5, 20, 1), (1, 1, 1), (0.4, 1.5, 2)),
    "a hundred times larger": ((3, 4, 3), (300, 9, 5), (1, 1, 1), (0.01, 0.5, 0.6)),
    "the same": ((5, 6, 7), (5, 6, 7), (1, 1, 1), (1, 1, 1)),
}


def stock(data, *arguments, **settings):
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    return resample_data_or_seg_to_shape(data.copy(), *arguments, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separate", [None, False, True])
def test_it_gives_the_numbers_of_nnu_net_to_the_last_bit_or_the_one_before(kind, separate):
    shape, new, old_mm, new_mm = KINDS[kind]
    rng = np.random.default_rng(len(kind))
    # air, tissue and metal as CT normalisation leaves them, in two channels
    data = rng.normal(size=(2, *shape)).astype(np.float32) + np.where(rng.random((2, *shape)) < 0.1, 30, 0).astype(
        np.float32
    )
    settings = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": separate}
    expected = stock(data, new, old_mm, new_mm, **settings)
    found = resized(data, new, old_mm, new_mm, **settings)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= np.spacing(np.float32(np.abs(expected).max()))
    assert np.count_nonzero(found != expected) <= max(1, expected.size // 10_000)


def test_of_an_order_above_one_it_stays_within_the_values_that_are_there():
    data = np.zeros((1, 8, 20, 20), np.float32)
    data[:, 4:, 10:] = 1  # a spline overshoots at a step
    found = resized(data, (13, 33, 33), (1, 1, 1), (0.6, 0.6, 0.6))
    assert found.min() == 0
    assert found.max() == 1


def test_a_plan_that_asks_for_something_else_is_left_to_nnu_net():
    assert can_resize({"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None})
    assert not can_resize({"is_seg": True})
    assert not can_resize({"order": 3, "order_z": 1})
    assert not can_resize({"order": 1})
    assert not can_resize({"order": 3, "mode": "reflect"})
    with pytest.raises(ValueError, match="only images"):
        resized(np.zeros((1, 2, 2, 2), np.float32), (3, 3, 3), (1, 1, 1), (1, 1, 1), is_seg=True)


def test_the_rows_of_an_axis_sum_to_one():
    for n_in, n_out in ((5, 9), (40, 13), (1, 4), (700, 333)):
        constant = AxisProduct(n_in, n_out, 3).along(np.full((2, n_in, 3), 7.0), 1)
        assert constant.shape == (2, n_out, 3)
        np.testing.assert_allclose(constant, 7, rtol=1e-13)
