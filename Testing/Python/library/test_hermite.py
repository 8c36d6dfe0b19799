"""The least of a function known at the nodes of a grid: between nodes, at either end, and of several minima the lowest."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib.calibration import hermite

GRID = np.linspace(-3.0, 3.0, 161)


def table_of(height, slope, bend) -> np.ndarray:
    """(3, K) value and two derivatives in beta of a function that is given, with two derivatives, in ln beta."""
    beta = np.exp(GRID)
    return np.stack([height(GRID), slope(GRID) / beta, (bend(GRID) - slope(GRID)) / beta**2])


def wave(tilt: float, phase: float):
    """sin(2x + phase) + tilt x, which has two valleys in the range, and its derivatives."""
    return (
        lambda x: np.sin(2 * x + phase) + tilt * x,
        lambda x: 2 * np.cos(2 * x + phase) + tilt,
        lambda x: -4 * np.sin(2 * x + phase) + 0 * x,
    )


def polynomial(*coefficients: float):
    """Highest power first, with its derivatives."""
    whole = np.poly1d(coefficients)
    return whole, whole.deriv(1), whole.deriv(2)


FUNCTIONS = {
    "one valley": polynomial(1.0, -1.4, 0.0),
    "two valleys, the first lower": wave(0.2, 0.0),
    "two valleys, the second lower": wave(-0.2, 0.0),
    "a valley, but the lower end lies deeper": polynomial(1.0, 0.0, -2.0, 0.0),
    "a valley, but the upper end lies deeper": polynomial(-1.0, 0.0, 2.0, 0.0),
    "falling towards the upper end, the valley deeper": polynomial(-1 / 3, 0.5, 2.0, 0.0),
    "falling towards the lower end, the valley deeper": polynomial(1 / 3, 0.5, -2.0, 0.0),
    "a hill, the lower end deeper": polynomial(-1.0, 0.3, 0.0),
    "a hill, the upper end deeper": polynomial(-1.0, -0.3, 0.0),
    "falling": polynomial(-1.0, 0.0),
    "rising": polynomial(1.0, 0.0),
    "level": polynomial(0.0, 2.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_lowest_place_of_the_range_is_found(name):
    height, slope, bend = FUNCTIONS[name]
    fine = np.linspace(-3.0, 3.0, 600_001)
    expected = fine[np.argmin(np.broadcast_to(height(fine), fine.shape))]
    found = hermite.minimum(GRID, table_of(height, slope, bend)[np.newaxis])
    assert found == pytest.approx([expected], abs=2e-5)


def test_several_functions_at_once_are_answered_each_by_itself():
    tables = np.stack([table_of(*function) for function in FUNCTIONS.values()])
    alone = [float(hermite.minimum(GRID, table[np.newaxis])[0]) for table in tables]
    assert hermite.minimum(GRID, tables).tolist() == alone
    assert len({round(place, 3) for place in alone}) == 7


def test_the_value_between_nodes_is_the_functions_up_to_both_ends():
    height, slope, bend = wave(0.2, 0.5)
    table = table_of(height, slope, bend)
    step = GRID[1] - GRID[0]
    for place in (-3.0, -3.0 + 0.4 * step, 0.0, math.pi / 4, GRID[-2] + 0.9 * step, GRID[-2], 3.0):
        assert hermite.value(GRID, table, place) == pytest.approx(float(height(place)), abs=1e-10)
