"""Sums of the negative log-likelihood's derivatives in beta = 1/T over voxels, at powers of 2 and of their roots.

Doubling beta squares exp(beta z): one exponential a logit serves several nodes. Once no other class has weight beside a voxel's
highest one, it adds nothing at any higher beta and is left out. Between the nodes stands the polynomial in ln beta that has
the first three derivatives of the NLL at the six nodes nearest by. Measured error of dNLL/d ln beta for T from 0.05 to 20, as a
share of its height: with 6 classes 3e-8, with 25 classes 2e-6, for one and the same margin everywhere, where it is largest.
"""

import functools
import math

import numpy as np

from ..errors import CalibUncertaintyError
from .softmax import SMALLEST_LOG_PROBABILITY

# of 2: whole ones and halves
EXPONENTS = np.array(sorted([*range(-5, 7), *(whole + 0.5 for whole in range(-5, 6))]))
BETAS = 2.0**EXPONENTS
NODES = EXPONENTS.size
AT_ONE = int(np.flatnonzero(EXPONENTS == 0.0)[0])  # the node beta = 1
# Where the exponential is taken anew: every squaring doubles its rounding.
_ANEW = (-5.0, 1.0, -4.5, 1.5)
FINE_NODES = 161  # odd, so that beta = 1 is one of them
_WINDOW = 6  # nodes a polynomial goes through, each with three derivatives
_FAINT = np.float32(1e-18)  # keeps squares normal numbers (subnormal ones are slow), far below any weight that counts
_FAR = np.float32(-1300.0)  # exp(_FAR / 32) is that faint: further down nothing changes
_ONE = np.float32(1.0)
_WORTH_A_COPY = 0.7  # leave voxels out where fewer than this share stay
_HALF_INFINITY = 65536.0  # what the bits of half precision's infinity and NaN are read as, or more


def sums_of_one(chunk: np.ndarray, labels: np.ndarray, case_id: str) -> tuple[np.ndarray, float, bool, bool]:
    """Of one logit vector a voxel, logits (C, n) and labels (n,) intp.

    :returns: (3, NODES) sums of the first to third derivative of the NLL in beta; the sum of the NLL at beta = 1, nats;
        whether any voxel's label has less than the highest logit; whether any voxel's logits differ.
    :raises CalibUncertaintyError: when logits are NaN or +inf.
    """
    relative, of_label = relative_to_highest(chunk, labels, case_id)
    label_sum = of_label.sum(dtype=np.float64)
    sums, at_one = np.zeros((3, NODES)), 0.0
    state = _Exponentials(relative)
    for node in range(NODES):
        denominator, mean, second, third = state.at(node)
        sums[0, node] = mean.sum(dtype=np.float64)
        square = mean * mean
        second -= square  # the variance
        sums[1, node] = second.sum(dtype=np.float64)
        # the third central moment, E z^3 - 3 E z Var z - (E z)^3
        second *= np.float32(3.0)
        second += square
        second *= mean
        third -= second
        sums[2, node] = third.sum(dtype=np.float64)
        if node >= AT_ONE:
            if node == AT_ONE:
                at_one = float(state.log_denominator().sum(dtype=np.float64) - label_sum)
            # A denominator that rounds to 1: less than 6e-8 of weight beside the highest class, at the next node of the
            # same chain the square of that.
            stays = denominator > _ONE
            count = np.count_nonzero(stays)
            if not count:
                break
            if count < _WORTH_A_COPY * stays.size:
                state.keep(np.flatnonzero(stays))
    sums[0] -= label_sum
    return sums, at_one, bool(label_sum < 0), bool(relative.min() < 0)


def sums_of_many(members: np.ndarray, labels: np.ndarray, case_id: str) -> tuple[np.ndarray, float, bool, bool]:
    """As `sums_of_one` of members (M, C, n): NLL = -ln mean_m q_m with q_m the label's probability.

    With a, b, c the first three derivatives of ln q_m and E the mean with weights q_m / sum q: NLL' = -E a,
    NLL'' = (E a)^2 - E[a^2 + b], NLL''' = 3 E a E[a^2 + b] - E[a^3 + 3 a b + c] - 2 (E a)^3.
    """
    prepared = [relative_to_highest(member, labels, case_id) for member in members]
    of_label = np.stack([part[1] for part in prepared]).astype(np.float64)
    wrong, spread = bool((of_label < 0).any()), any(part[0].min() < 0 for part in prepared)
    states = [_Exponentials(part[0]) for part in prepared]
    sums, at_one = np.zeros((3, NODES)), 0.0
    for node in range(NODES):
        beta = BETAS[node]
        moments = [state.at(node) for state in states]
        denominator, mean, second, third = (np.stack(part).astype(np.float64) for part in zip(*moments, strict=True))
        exact = node == AT_ONE
        log_q = beta * of_label - (np.stack([s.log_denominator() for s in states]) if exact else np.log(denominator))
        highest = log_q.max(axis=0)
        weight = np.exp(log_q - highest)
        total = weight.sum(axis=0)
        weight /= total
        a = of_label - mean
        b = mean * mean - second
        c = -(third - 3 * mean * second + 2 * mean**3)
        e1, e2 = (weight * a).sum(axis=0), (weight * (a * a + b)).sum(axis=0)
        e3 = (weight * (a**3 + 3 * a * b + c)).sum(axis=0)
        sums[:, node] = -e1.sum(), (e1 * e1 - e2).sum(), (3 * e1 * e2 - e3 - 2 * e1**3).sum()
        if node >= AT_ONE:
            if exact:
                at_one = float(labels.size * math.log(len(states)) - (highest + np.log(total)).sum())
            stays = (denominator > 1.0).any(axis=0) | (of_label < 0).any(axis=0)
            count = np.count_nonzero(stays)
            if not count:
                break
            if count < _WORTH_A_COPY * stays.size:
                places = np.flatnonzero(stays)
                of_label = of_label[:, places]
                for state in states:
                    state.keep(places)
    return sums, at_one, wrong, spread


def relative_to_highest(chunk: np.ndarray, labels: np.ndarray, case_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of all classes but the voxel's highest, less the highest, (C-1, n) float32 <= 0; and the label's own, (n,).

    The others of a voxel stand in no particular order. Without the highest, whose term in the softmax's denominator is exactly
    1, ln(1 + rest) stays exact where the rest is far below float32's resolution around 1, as it mostly is.
    """
    wide = _from_half(chunk) if chunk.dtype == np.float16 else chunk
    wide = wide.astype(np.result_type(wide.dtype, np.float32), copy=False)
    others = np.empty((len(wide) - 1, wide.shape[1]), wide.dtype)
    highest = wide[0].copy()
    for other, logit in zip(others, wide[1:], strict=True):
        np.minimum(highest, logit, out=other)
        np.maximum(highest, logit, out=highest)
    with np.errstate(invalid="ignore"):
        others -= highest
        of_label = wide.reshape(-1).take(labels * labels.size + np.arange(labels.size)) - highest
    if not np.isfinite(others).all():
        if not (wide < np.inf).all() or np.isneginf(highest).any():
            raise CalibUncertaintyError(
                f"case {case_id}: the logits hold NaN or infinite values; predict the case again"
            )
        others, of_label = (np.where(np.isneginf(part), SMALLEST_LOG_PROBABILITY, part) for part in (others, of_label))
    return others.astype(np.float32, copy=False), of_label.astype(np.float32, copy=False)


def _from_half(chunk: np.ndarray) -> np.ndarray:
    """Half precision as float32 by moving its bits, four times faster than numpy's own; not finite values the slow way."""
    bits = np.ascontiguousarray(chunk).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, and 15 bits of exponent and mantissa
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)  # the difference of the exponents' offsets
    if wide.size and (wide.max() >= _HALF_INFINITY or wide.min() <= -_HALF_INFINITY):
        return chunk.astype(np.float32)
    return wide


class _Exponentials:
    """exp(beta z) of relative logits (K, n), from node to node, and the moments of z under them."""

    def __init__(self, relative: np.ndarray) -> None:
        self._z = np.maximum(relative, _FAR)
        self._lowest = float(self._z.min())
        square = self._z * self._z
        # of whole and of half exponents
        self._e = [np.empty_like(self._z), np.empty_like(self._z)]
        self._powers = self._z, square, square * self._z

    def at(self, node: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Denominator, and mean of z, z^2 and z^3 under softmax(beta z), (n,) float32 each. Nodes come in order."""
        e = self._e[int(EXPONENTS[node] % 1 > 0)]
        if EXPONENTS[node] in _ANEW:
            np.multiply(self._z, np.float32(BETAS[node]), out=e)
            np.maximum(e, np.float32(-40.0), out=e)
            np.exp(e, out=e)
        else:
            e *= e
            if self._lowest * BETAS[node] < -40.0:
                e += _FAINT
        denominator = np.add.reduce(e, axis=0)
        denominator += _ONE
        inverse = _ONE / denominator
        moments = [np.einsum("cn,cn->n", e, power) for power in self._powers]
        for moment in moments:
            moment *= inverse
        return denominator, *moments

    def log_denominator(self) -> np.ndarray:
        """ln of the denominator at a whole exponent, (n,) float32, exact also where it is 1 + 1e-12, as it mostly is."""
        return np.log1p(self._e[0].sum(axis=0))

    def keep(self, stays: np.ndarray) -> None:
        """Leave out all voxels but these, indices."""
        self._e = [array.take(stays, axis=1) for array in self._e]
        self._powers = [array.take(stays, axis=1) for array in self._powers]
        self._z = self._powers[0]


def refined(sums: np.ndarray, at_one: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Value, first and second derivative in beta on a fine grid of ln beta, of sums at the nodes.

    :param sums: (B, 3, NODES) first to third derivative in beta at the nodes, B functions.
    :param at_one: (B,) their values at beta = 1.
    :param span: the grid goes from -span to span, at most ln 32.
    :returns: (FINE_NODES,) ln beta, ascending and equally spaced; (B, 3, FINE_NODES).
    """
    first, second, third = (sums[:, k] * BETAS ** (k + 1) for k in range(3))
    # derivatives by ln beta, in steps of ln 2, of G = dNLL / d ln beta
    step = math.log(2.0)
    known = np.stack([first, (first + second) * step, (first + 3 * second + third) * step**2], axis=-1)
    log_beta, value_of, first_of, second_of = _refinement(span)
    known = known.reshape(len(known), -1)
    fine = np.exp(log_beta)
    g, slope = known @ first_of.T, known @ second_of.T / step
    return log_beta, np.stack([at_one[:, np.newaxis] + known @ value_of.T, g / fine, (slope - g) / fine**2], axis=1)


@functools.lru_cache(maxsize=4)
def _refinement(span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ln beta of the fine grid; and what takes G at the nodes to its integral from beta = 1, to G and to its slope there."""
    log_beta = np.linspace(-span, span, FINE_NODES)
    log_beta[FINE_NODES // 2] = 0.0
    places, weights = np.polynomial.legendre.leggauss(4)
    middle, half = (log_beta[1:] + log_beta[:-1]) / 2, np.diff(log_beta) / 2
    between = _interpolation((middle[:, np.newaxis] + half[:, np.newaxis] * places).reshape(-1))[0]
    areas = np.einsum("kpc,kp->kc", between.reshape(len(middle), 4, -1), half[:, np.newaxis] * weights)
    value = np.concatenate([np.zeros((1, 3 * NODES)), np.cumsum(areas, axis=0)])
    return log_beta, value - value[FINE_NODES // 2], *_interpolation(log_beta)


def _interpolation(log_beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3 NODES) matrices: from value and two derivatives at the nodes to value and derivative at P places (steps of ln 2)."""
    value, slope = (np.zeros((log_beta.size, 3 * NODES)) for _ in range(2))
    exponent = log_beta / math.log(2.0)
    starts = np.clip(np.searchsorted(EXPONENTS, exponent) - _WINDOW // 2, 0, NODES - _WINDOW)
    coefficients = {start: _divided_differences(EXPONENTS[start : start + _WINDOW]) for start in set(starts.tolist())}
    for row, (start, x) in enumerate(zip(starts.tolist(), exponent, strict=True)):
        nodes = np.repeat(EXPONENTS[start : start + _WINDOW], 3)
        basis, d_basis = np.ones(nodes.size), np.zeros(nodes.size)
        for k in range(1, nodes.size):  # Newton's products (x - x_0) ... (x - x_k-1), and their derivatives
            basis[k] = basis[k - 1] * (x - nodes[k - 1])
            d_basis[k] = d_basis[k - 1] * (x - nodes[k - 1]) + basis[k - 1]
        columns = slice(3 * start, 3 * (start + _WINDOW))
        value[row, columns], slope[row, columns] = basis @ coefficients[start], d_basis @ coefficients[start]
    return value, slope


def _divided_differences(places: np.ndarray) -> np.ndarray:
    """(3K, 3K): from value, first and second derivative at K places to the coefficients of Newton's polynomial (Hermite)."""
    nodes, index = np.repeat(places, 3), np.repeat(np.arange(places.size), 3)
    size = nodes.size
    known = np.eye(size)
    current = known[3 * index]  # the value at each place, three times
    coefficients = [current[0]]
    for order in range(1, size):
        following = []
        for i in range(size - order):
            width = nodes[i + order] - nodes[i]
            same = known[3 * index[i] + min(order, 2)] / math.factorial(order)
            following.append((current[i + 1] - current[i]) / width if width else same)
        current = np.array(following)
        coefficients.append(current[0])
    return np.array(coefficients)
