"""Minimum of a smooth function of beta that is known, with two derivatives, at the nodes of a logarithmic grid."""

import numpy as np


def minimum(log_beta: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """ln beta of the least value of each of several functions, over the range of the grid.

    Between two nodes where the derivative turns from negative to positive, the root of the cubic that has the derivative's
    value and slope at both nodes. An end of the grid counts where the function still falls towards it (at the lower end: where
    it does not fall away from it, so a constant function has its minimum there). Several minima: the least.

    :param log_beta: (K,) equally spaced ln beta, ascending.
    :param tables: (B, 3, K) value, first and second derivative in beta.
    :returns: (B,) ln beta.
    """
    beta = np.exp(log_beta)
    step = log_beta[1] - log_beta[0]
    derivative = tables[:, 1] * beta
    slope = (tables[:, 2] * beta + tables[:, 1]) * beta * step
    falls = derivative < 0
    result = np.where(falls[:, -1], log_beta[-1], log_beta[0])
    best = np.where(falls[:, -1], tables[:, 0, -1], np.inf)
    best = np.where(~falls[:, 0], np.minimum(best, tables[:, 0, 0]), best)
    result = np.where(~falls[:, 0] & (best == tables[:, 0, 0]), log_beta[0], result)
    rows, nodes = np.nonzero(falls[:, :-1] & ~falls[:, 1:])
    ends = (derivative[rows, nodes], slope[rows, nodes], derivative[rows, nodes + 1], slope[rows, nodes + 1])
    position = log_beta[nodes] + step * _root(*ends)
    for row, place in zip(rows, position, strict=True):
        height = value(log_beta, tables[row], place)
        if height <= best[row]:
            best[row], result[row] = height, place
    return result


def value(log_beta: np.ndarray, table: np.ndarray, place: float) -> float:
    """The function at `place` (ln beta): the quintic that has value and two derivatives at both neighbouring nodes."""
    beta = np.exp(log_beta)
    step = log_beta[1] - log_beta[0]
    node = int(np.clip((place - log_beta[0]) // step, 0, log_beta.size - 2))
    s = (place - log_beta[node]) / step
    ends = slice(node, node + 2)
    f = table[0, ends]
    d = table[1, ends] * beta[ends] * step
    c = (table[2, ends] * beta[ends] + table[1, ends]) * beta[ends] * step * step
    return float(
        f[0] * (1 - 10 * s**3 + 15 * s**4 - 6 * s**5) + f[1] * (10 * s**3 - 15 * s**4 + 6 * s**5)
        + d[0] * (s - 6 * s**3 + 8 * s**4 - 3 * s**5) + d[1] * (-4 * s**3 + 7 * s**4 - 3 * s**5)
        + c[0] * (s**2 - 3 * s**3 + 3 * s**4 - s**5) / 2 + c[1] * (s**3 - 2 * s**4 + s**5) / 2
    )


def _root(start: np.ndarray, start_slope: np.ndarray, end: np.ndarray, end_slope: np.ndarray) -> np.ndarray:
    """Where in [0, 1] a cubic that rises from start < 0 to end > 0 crosses zero; by bisection, safe for any cubic."""
    low, high = np.zeros_like(start), np.ones_like(start)
    for _ in range(48):
        s = (low + high) / 2
        cubic = (
            start * (1 + 2 * s) * (1 - s) ** 2 + start_slope * s * (1 - s) ** 2
            + end * s * s * (3 - 2 * s) + end_slope * s * s * (s - 1)
        )
        below = cubic < 0
        low, high = np.where(below, s, low), np.where(below, high, s)
    return (low + high) / 2
