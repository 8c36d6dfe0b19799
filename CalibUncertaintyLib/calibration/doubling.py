"""Sums over voxels of the logarithm of softmax's denominator at beta = 1/T, and of its slope, at powers of 2 and of its cube root.

Doubling beta squares exp(beta z): one exponential a logit serves several nodes. Once no other class has weight beside a voxel's
highest one, it adds nothing at any higher beta and is left out. Between the nodes stands the polynomial in ln beta that has
value and slope at the eight nodes nearest by. Its error moves no temperature from 0.05 to 20 by more than a share of 1e-7 with 6
classes, 5e-7 with 25 (3e-6 near T = 20) and 1e-5 with 118 (3e-5), for one and the same margin everywhere, where it is largest.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import CalibUncertaintyError
from .softmax import SMALLEST_LOG_PROBABILITY

EXPONENTS = np.arange(-14, 19) / 3  # of 2
BETAS = 2.0**EXPONENTS
NODES = EXPONENTS.size
AT_ONE = int(np.flatnonzero(EXPONENTS == 0.0)[0])  # the node beta = 1
_CHAINS = 3  # nodes an octave, computed together; to the next octave every exponential is squared
_ANEW = (0, 12, 27)  # nodes from where the exponential is taken anew: every squaring doubles its rounding
FINE_NODES = 161  # odd, so that beta = 1 is one of them
_WINDOW = 8  # nodes a polynomial goes through
_KNOWN = 2  # at each: value and slope
_FAINT = np.float32(1e-18)  # keeps squares normal numbers (subnormal ones are slow), far below any weight that counts
_FAR = np.float32(-1100.0)  # its exponential at the first node is that faint: further down nothing changes
_NEAR_FAINT = -40.0  # its exponential squared still is a normal number
_WEIGHTLESS = np.float32(1e-8)  # beside the highest class; at the next node 1e-10
_WORTH_A_COPY = 0.5  # leave voxels out where fewer than this share stay
_HALF_EXPONENT = np.int16(0x7C00)  # the exponent's bits in half precision: all set in infinity and NaN
_BLOCK = 512  # sums are in double precision but for so many parts


class Sums(NamedTuple):
    """Sums over voxels that make up the negative log-likelihood (NLL): at beta it is curve(beta) - beta label.

    `curve` is (2, NODES), value and slope in beta at the nodes. `label` is the sum of the label's logit less the highest.
    `wrong`: whether any voxel's label has less than the highest logit. `spread`: whether any voxel's logits differ.
    """

    curve: np.ndarray
    label: float
    wrong: bool
    spread: bool


class Workspace:
    """The arrays a thread computes in, made once: fresh ones for every chunk would cost more than some of the arithmetic."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array of this shape with whatever is in it; the next one of the same name lies in the same place."""
        size, held = math.prod(shape), self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, np.float32)
        return held[:size].reshape(shape)


def sums_of_one(chunk: np.ndarray, labels: np.ndarray, case_id: str, space: Workspace | None = None) -> Sums:
    """Of one logit vector a voxel, logits (C, n) and labels (n,) intp: `curve` sums ln(1 + rest), the softmax's denominator.

    :param space: where to compute, one for each thread.
    :raises CalibUncertaintyError: when logits are NaN or +inf.
    """
    state = _Exponentials(len(chunk) - 1, labels.size, space or Workspace())
    label = relative_to_highest(chunk, labels, case_id, state.z, state.unused)[1].sum(dtype=np.float64)
    lowest = state.begin()
    curve = np.zeros((2, NODES))
    for first in range(0, NODES, _CHAINS):
        rest_and_mean = state.at(first)
        rest = rest_and_mean[0]
        weighs = rest[-1] > _WEIGHTLESS
        np.log1p(rest, out=rest)
        curve[:, first : first + _CHAINS] = _sums(rest_and_mean)
        if first + _CHAINS > AT_ONE and not state.keep_only(weighs):
            break
    return Sums(curve, float(label), bool(label < 0), lowest < 0)


def sums_of_many(
    members: np.ndarray, labels: np.ndarray, case_id: str, spaces: Sequence[Workspace] | None = None
) -> Sums:
    """As `sums_of_one` of members (M, C, n): NLL = -ln mean_m q_m with q_m the label's probability.

    `label` sums the highest of the members' logits of the label, each less that member's highest.

    :param spaces: where to compute, one for each member.
    """
    spaces = spaces or [Workspace() for _ in members]
    states = [_Exponentials(len(member) - 1, labels.size, space) for member, space in zip(members, spaces, strict=True)]
    of_label = np.stack([
        relative_to_highest(member, labels, case_id, state.z, state.unused)[1]
        for member, state in zip(members, states, strict=True)
    ]).astype(np.float64)  # fmt: skip
    wrong, spread = bool((of_label < 0).any()), min(state.begin() for state in states) < 0
    label = of_label.max(axis=0)
    behind, label = of_label - label, float(label.sum())
    curve = np.zeros((2, NODES))
    for first in range(0, NODES, _CHAINS):
        nodes = slice(first, first + _CHAINS)
        rest, mean = np.stack([state.at(first) for state in states], axis=1).astype(np.float64)  # (M, 3, n) each
        curve[:, nodes] = _of_mean_likelihood(rest, mean, behind[:, np.newaxis], BETAS[nodes, np.newaxis])
        if first + _CHAINS > AT_ONE:
            weighs = (rest[:, -1] > _WEIGHTLESS).any(axis=0) | (behind < 0).any(axis=0)
            if not max(state.keep_only(weighs) for state in states):
                break
            if states[0].voxels < behind.shape[1]:
                behind = behind[:, weighs]
    return Sums(curve, label, wrong, spread)


def _of_mean_likelihood(rest: np.ndarray, mean: np.ndarray, behind: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Sums over voxels of -ln mean_m q_m and of its slope in beta, ln q_m = beta behind - ln(1 + rest), (2, 3) float64.

    The slope is the mean of the members' own slopes, mean - behind, each weighed by its q_m.
    """
    log_q = betas * behind - np.log1p(rest)
    highest = log_q.max(axis=0)
    weight = np.exp(log_q - highest)
    total = weight.sum(axis=0)
    slope = (weight * (mean - behind)).sum(axis=0) / total
    return np.stack([-(highest + np.log(total / len(rest))).sum(axis=-1), slope.sum(axis=-1)])


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums along the last axis of float32, in double precision but for a few dozen numbers each; faster than numpy's."""
    whole = values.shape[-1] // _BLOCK * _BLOCK
    parts = np.add.reduce(values[..., :whole].reshape(*values.shape[:-1], -1, _BLOCK), axis=-2)
    return parts.sum(axis=-1, dtype=np.float64) + values[..., whole:].sum(axis=-1, dtype=np.float64)


def relative_to_highest(
    chunk: np.ndarray, labels: np.ndarray, case_id: str, out: np.ndarray | None = None, unused: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of all classes but the voxel's highest, less the highest, (C-1, n) float32 <= 0; and the label's own, (n,).

    The others of a voxel stand in no particular order. Without the highest, whose term in the softmax's denominator is exactly
    1, ln(1 + rest) stays exact where the rest is far below float32's resolution around 1, as it mostly is.

    :param out: where the result is to be, float32.
    :param unused: a contiguous float32 array of at least the chunk's size, to compute in.
    """
    wide = _from_half(chunk, unused) if chunk.dtype == np.float16 else chunk
    wide = wide.astype(np.result_type(wide.dtype, np.float32), copy=False)
    shape = (len(wide) - 1, wide.shape[1])
    others = out if out is not None and wide.dtype == np.float32 else np.empty(shape, wide.dtype)
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
        for part in (others, of_label):
            part[np.isneginf(part)] = SMALLEST_LOG_PROBABILITY
    if out is None:
        out = others.astype(np.float32, copy=False)
    elif out is not others:
        out[...] = others
    return out, of_label.astype(np.float32, copy=False)


def _from_half(chunk: np.ndarray, unused: np.ndarray | None) -> np.ndarray:
    """Half precision as float32 by moving its bits, four times faster than numpy's own; not finite values the slow way."""
    half = chunk.view(np.int16)
    if (half & _HALF_EXPONENT).max(initial=0) == _HALF_EXPONENT:
        return chunk.astype(np.float32)
    wide = (
        np.empty(chunk.shape, np.float32) if unused is None else unused.reshape(-1)[: chunk.size].reshape(chunk.shape)
    )
    bits = wide.view(np.int32)
    bits[...] = half
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, and 15 bits of exponent and mantissa
    wide *= np.float32(2.0**112)  # the difference of the exponents' offsets
    return wide


class _Exponentials:
    """exp(beta z) of relative logits (K, n), from octave to octave.

    `z` has to be filled in before `begin`; `unused` is an array of 4 K n numbers that is not needed until voxels are left out.
    """

    def __init__(self, others: int, voxels: int, space: Workspace) -> None:
        self._space = space
        # of each: the chains of exponentials, and z
        shape = (_CHAINS + 1, others, voxels)
        self._stack, self.unused = space.array("stack", shape), space.array("unused", shape)
        self.z = self._stack[_CHAINS]

    def begin(self) -> float:
        """The lowest z, or 0 without any."""
        lowest = float(self.z.min(initial=0.0))
        if lowest < _FAR:
            np.maximum(self.z, _FAR, out=self.z)
        self._lowest = max(lowest, float(_FAR))
        return lowest

    def at(self, first: int) -> np.ndarray:
        """At the octave's nodes what is in the softmax's denominator beside 1, and the mean of z: (2, 3, n) float32.

        Overwritten at the next octave. Octaves come in order.
        """
        e, z, betas = self._stack[:_CHAINS], self._stack[_CHAINS], BETAS[first : first + _CHAINS]
        faint = self._lowest * betas[-1] < _NEAR_FAINT
        if first in _ANEW:
            np.multiply(z, betas.astype(np.float32)[:, np.newaxis, np.newaxis], out=e)
            if faint:
                np.maximum(e, np.float32(_NEAR_FAINT), out=e)
            np.exp(e, out=e)
        else:
            e *= e
            if faint:
                e += _FAINT
        result = self._space.array("rest and mean", (2, _CHAINS, e.shape[-1]))
        rest, mean = result
        np.add.reduce(e, axis=1, out=rest)
        np.einsum("hcn,cn->hn", e, z, out=mean)
        mean /= np.add(rest, np.float32(1.0), out=self._space.array("denominator", rest.shape))
        return result

    @property
    def voxels(self) -> int:
        """How many there still are."""
        return self._stack.shape[-1]

    def keep_only(self, stays: np.ndarray) -> int:
        """Leave out the voxels that are not to stay, (n,) bool, where that saves more than it costs; how many were to stay."""
        _, others, voxels = self._stack.shape
        count = np.count_nonzero(stays)
        if 0 < count < _WORTH_A_COPY * voxels:
            kept = self.unused.reshape(-1)[: (_CHAINS + 1) * others * count].reshape(-1, others, count)
            # "clip": in its other mode numpy fills a buffer first
            self._stack.reshape(-1, voxels).take(
                np.flatnonzero(stays), axis=1, out=kept.reshape(-1, count), mode="clip"
            )
            self._stack, self.unused = kept, self._stack
        return count


def refined(curve: np.ndarray, label: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Value, first and second derivative of the NLL in beta on a fine grid of ln beta.

    :param curve: (B, 2, NODES) as in `Sums`, B functions.
    :param label: (B,) as in `Sums`.
    :param span: the grid goes from -span to span, at most ln 20.
    :returns: (FINE_NODES,) ln beta, ascending and equally spaced; (B, 3, FINE_NODES).
    """
    log_beta, interpolations = _refinement(span)
    step = math.log(2.0)  # of the interpolation, in ln beta
    at_one = curve[:, 0, AT_ONE, np.newaxis]  # set aside: where the curve is level, its slope is 0 without any rounding
    known = np.stack([curve[:, 0] - at_one, curve[:, 1] * BETAS * step], axis=-1).reshape(len(curve), -1)
    value, slope, bend = (known @ matrix.T / step**order for order, matrix in enumerate(interpolations))
    beta, label = np.exp(log_beta), np.asarray(label)[:, np.newaxis]
    return log_beta, np.stack([at_one + value - beta * label, slope / beta - label, (bend - slope) / beta**2], axis=1)


@functools.lru_cache(maxsize=4)
def _refinement(span: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """ln beta of the fine grid, and the matrices of `_interpolation` for it."""
    log_beta = np.linspace(-span, span, FINE_NODES)
    log_beta[FINE_NODES // 2] = 0.0
    return log_beta, _interpolation(log_beta / math.log(2.0))


def _interpolation(exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P, 2 NODES) matrices: from value and slope at the nodes to value, slope and bend at P places, all by exponent of 2."""
    matrices = np.zeros((3, exponents.size, _KNOWN * NODES))
    starts = np.clip(np.searchsorted(EXPONENTS, exponents) - _WINDOW // 2, 0, NODES - _WINDOW)
    coefficients = {start: _divided_differences(EXPONENTS[start : start + _WINDOW]) for start in set(starts.tolist())}
    for row, (start, x) in enumerate(zip(starts.tolist(), exponents, strict=True)):
        basis = [np.array([1.0, 0.0, 0.0])]  # Newton's products (x - x_0) ... (x - x_k-1), and their derivatives
        for node in np.repeat(EXPONENTS[start : start + _WINDOW], _KNOWN)[:-1]:
            value, slope, bend = basis[-1]
            basis.append(np.array([value * (x - node), slope * (x - node) + value, bend * (x - node) + 2 * slope]))
        columns = slice(_KNOWN * start, _KNOWN * (start + _WINDOW))
        matrices[:, row, columns] = np.array(basis).T @ coefficients[start]
    return tuple(matrices)


def _divided_differences(places: np.ndarray) -> np.ndarray:
    """(2K, 2K): from value and slope at K places to the coefficients of Newton's polynomial (Hermite)."""
    nodes, index = np.repeat(places, _KNOWN), np.repeat(np.arange(places.size), _KNOWN)
    known = np.eye(nodes.size)
    current = known[_KNOWN * index]  # the value at each place, twice
    coefficients = [current[0]]
    for order in range(1, nodes.size):
        following = []
        for i in range(nodes.size - order):
            width = nodes[i + order] - nodes[i]
            following.append((current[i + 1] - current[i]) / width if width else known[_KNOWN * index[i] + 1])
        current = np.array(following)
        coefficients.append(current[0])
    return np.array(coefficients)
