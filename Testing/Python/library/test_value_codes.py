"""Codes keep the order of values, and a threshold on their grid splits values as it splits codes."""

import numpy as np

from CalibUncertaintyLib.value_codes import COUNT, codes_of, values_of


def test_every_code_is_the_code_of_its_value():
    codes = np.arange(COUNT)
    assert (codes_of(values_of(codes)) == codes).all()


def test_codes_keep_the_order_and_lose_no_more_than_a_thousandth():
    values = np.sort(np.float32(2.0) ** np.random.default_rng(0).uniform(-23, 7.9, 20000).astype(np.float32))
    codes = codes_of(values)
    assert (np.diff(codes) >= 0).all()
    below = values_of(codes)
    assert (below <= values).all()
    assert ((values - below) / values < 2.0**-10).all()


def test_a_threshold_on_the_grid_splits_values_and_codes_alike():
    rng = np.random.default_rng(1)
    values = rng.random(5000).astype(np.float32) ** 4
    for code in rng.integers(0, COUNT, 50):
        assert ((values >= values_of(code)) == (codes_of(values) >= code)).all()


def test_the_ends():
    assert codes_of(np.float32([0, -1, 1e-9, 2.0**-24, 256, 1e30])).tolist() == [0, 0, 0, 1, COUNT - 1, COUNT - 1]
    assert values_of(np.array([0, 1, COUNT - 1])).tolist() == [0, 2.0**-24, 256]


def test_codes_have_the_shape_of_the_values_and_what_is_no_number_is_above_all():
    values = np.random.default_rng(2).random((4, 6))
    assert (codes_of(values.T[::2]) == codes_of(values)[:, ::2].T).all()
    assert codes_of(0.5).shape == ()
    assert codes_of(np.float32([np.nan, np.inf])).tolist() == [COUNT - 1, COUNT - 1]
