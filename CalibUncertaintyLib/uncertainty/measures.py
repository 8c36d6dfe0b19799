"""Measures of uncertainty, voxel by voxel, from class probabilities.

Arrays are class-first: probabilities p are (C, ...), those of M members (M, C, ...). Results are float32 of the shape
behind the class axis. Logarithms are natural (nats) and 0 log 0 = 0.

`conf`, `margin`, `entropy` and `entropy_k` are of the pooled probability that is shown. `exp_entropy` and `mi` are of the
members' own probabilities at the members' shared temperature. Where members are pooled by their logits the two describe
different mixtures, so `mi` is not `entropy - exp_entropy` there; it is H(mean of members) - mean of H(member).

Sigmoid heads (`sigmoid=True`) are C regions, each a question of its own: inside or outside. Every measure is then that of
the two-class distribution (1 - p_c, p_c), averaged over the regions.
"""

import math
from collections.abc import Iterator

import numpy as np

from .catalogue import LN2, MEASURES, Measure

__all__ = [
    "CHUNK_VOXELS", "LN2", "MEASURES", "Measure", "MemberStatistics", "binary_entropy", "confidence_complement", "entropy",
    "expected_entropy", "expected_error", "margin", "measures_of", "mutual_information", "mutual_information_of",
]  # fmt: skip

# Chunks of 25 classes still fit into the cache; measured against 2048 to 65536 with 6 and 25 classes.
CHUNK_VOXELS = 16384
_TINY = np.finfo(np.float32).tiny


def measures_of(p: np.ndarray, sigmoid: bool = False) -> dict[str, np.ndarray]:
    """`conf`, `margin` and `entropy` of the same probabilities, in one pass over them.

    Each chunk of voxels is read from memory once, and what one measure has found the next one uses. The values are those of
    `confidence_complement`, `margin` and `entropy`.

    :param p: (C, ...) probabilities; softmax: C >= 2.
    :returns: (...) float32 each.
    :raises ValueError: when there is only one class and no sigmoid.
    """
    flat, conf = _flat_and_result(p)
    gap, total = np.empty_like(conf), np.empty_like(conf)
    for part in _parts(flat.shape[1]):
        chunk = flat[:, part]
        if sigmoid:
            aside = _less_likely(chunk)
            conf[part] = aside.mean(axis=0)
            np.multiply(conf[part], 2.0, out=gap[part])
            total[part] = _region_entropy_of(aside)
        else:
            first, second = _two_highest(chunk)
            np.subtract(1.0, first, out=conf[part], casting="same_kind")
            np.subtract(second, first, out=second)
            np.add(second, 1.0, out=gap[part], casting="same_kind")
            total[part] = _entropy_of_chunk(chunk)
    np.maximum(conf, 0.0, out=conf)
    np.maximum(gap, 0.0, out=gap)
    shape = np.shape(p)[1:]
    return {"conf": conf.reshape(shape), "margin": gap.reshape(shape), "entropy": total.reshape(shape)}


def confidence_complement(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """1 - max_c p_c; sigmoid: the mean over regions of 1 - max(p_c, 1 - p_c).

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, 1 - 1/C], sigmoid [0, 0.5], unit: probability.
    Source: the maximum softmax probability of Hendrycks & Gimpel 2017, turned round.
    """
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        if sigmoid:
            result[part] = _less_likely(flat[:, part]).mean(axis=0)
        else:
            np.subtract(1.0, flat[:, part].max(axis=0), out=result[part], casting="same_kind")
    # Probabilities that were rounded may exceed 1 by one unit in the last place.
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def margin(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """1 - (highest - second highest probability); sigmoid: the mean over regions of 1 - |2 p_c - 1|, twice `conf`.

    :param p: (C, ...) probabilities; softmax: C >= 2.
    :returns: (...) float32 in [0, 1], unit: probability; 1 where two classes are equally likely.
    :raises ValueError: when there is only one class and no sigmoid.
    Source: margin of Scheffer et al. 2001, turned round.
    """
    if sigmoid:
        return 2.0 * confidence_complement(p, sigmoid=True)
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        first, second = _two_highest(flat[:, part])
        np.subtract(second, first, out=second)
        np.add(second, 1.0, out=result[part], casting="same_kind")
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def entropy(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Shannon entropy -sum_c p_c ln p_c; sigmoid: the mean over regions of -p_c ln p_c - (1 - p_c) ln (1 - p_c).

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, ln C], sigmoid [0, ln 2], unit: nats.
    Source: Shannon 1948; the predictive entropy of Kahl et al. 2024 when p is the pooled probability; for regions the mean
        of Mehrtash et al. 2020, Eq. 7, per voxel (the mean is our definition).
    """
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        result[part] = _any_entropy_of_chunk(flat[:, part], sigmoid)
    return result.reshape(p.shape[1:])


def expected_error(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Probability that the label shown is wrong: 1 - max_c p_c; sigmoid: the largest 1 - max(p_c, 1 - p_c) of any region.

    The probability that at least one region is wrong is no less than that of the most doubtful one, and no more than their
    sum; nested regions, whose errors coincide, lie near the lower end, which is taken (our definition).

    :param p: (C, ...) calibrated probabilities.
    :returns: (...) float32 in [0, 1 - 1/C], sigmoid [0, 0.5].
    """
    if not sigmoid:
        return confidence_complement(p)
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        result[part] = _less_likely(flat[:, part]).max(axis=0)
    return result.reshape(p.shape[1:])


def expected_entropy(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Mean over members of each member's entropy: what every member by itself is unsure about.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, ln C], sigmoid [0, ln 2], unit: nats.
    Source: Kahl et al. 2024 (expected entropy).
    """
    return _statistics(members_p, sigmoid).expected_entropy


def mutual_information(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Entropy of the members' mean less the mean of their entropies: how far the members contradict each other.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, min(ln C, ln M)], sigmoid [0, ln 2], unit: nats; 0 everywhere for one member, which has
        nobody to contradict (`MEASURES["mi"].status(1)` is "single_member").
    Source: Kahl et al. 2024 (mutual information).
    """
    return _statistics(members_p, sigmoid).mutual_information


def mutual_information_of(
    mean: np.ndarray, expected_entropy: np.ndarray, n_members: int, sigmoid: bool = False
) -> np.ndarray:
    """`mutual_information` from what running statistics keep of the members.

    :param mean: (C, ...) mean over the members of their probabilities.
    :param expected_entropy: (...) mean over the members of their entropies, nats.
    :param n_members: M; a single member gives 0 everywhere.
    :returns: (...) float32, as `mutual_information`.
    :raises ValueError: when the shapes do not fit.
    """
    flat, result = _flat_and_result(mean)
    expected = np.asarray(expected_entropy).reshape(-1)
    if np.shape(mean)[1:] != np.shape(expected_entropy):
        raise ValueError(f"a mean of shape {np.shape(mean)} and expected entropies {np.shape(expected_entropy)}")
    upper = MEASURES["mi"].upper(flat.shape[0], n_members, sigmoid)
    for part in _parts(result.shape[0] if n_members > 1 else 0):
        of_mean = _any_entropy_of_chunk(flat[:, part], sigmoid)
        # Rounding can leave a difference just below zero where all members agree.
        np.clip(of_mean - expected[part], 0.0, upper, out=result[part])
    if n_members <= 1:
        result[...] = 0.0
    return result.reshape(np.shape(mean)[1:])


def binary_entropy(p_k: np.ndarray) -> np.ndarray:
    """Entropy of one class against all others, -p ln p - (1-p) ln (1-p).

    :param p_k: (...) probability of the class.
    :returns: (...) float32 in [0, ln 2], unit: nats.
    Source: Mehrtash et al. 2020, Eq. 7, per voxel.
    """
    p_k = np.asarray(p_k)
    flat = p_k.reshape(-1)
    result = np.empty(flat.shape, dtype=np.float32)
    for part in _parts(flat.shape[0]):
        inside = np.clip(flat[part], 0.0, 1.0, dtype=np.float32)
        outside = np.float32(1.0) - inside
        total = inside * np.log(np.maximum(inside, _TINY))
        # log1p keeps the second term right where p is too small to be seen in 1 - p.
        np.negative(inside, out=inside)
        np.maximum(inside, -1.0 + np.finfo(np.float32).epsneg, out=inside)
        total += outside * np.log1p(inside)
        np.negative(total, out=total)
        np.clip(total, 0.0, LN2, out=result[part])
    return result.reshape(p_k.shape)


class MemberStatistics:
    """Running statistics of ensemble members that are seen one at a time and forgotten.

    Memory is one (C, ...) and one (...) float32 array however many members there are.
    Source: Kahl et al. 2024 for expected entropy and mutual information.
    """

    def __init__(self, sigmoid: bool = False) -> None:
        self.count = 0
        self._sigmoid = sigmoid
        self._sum: np.ndarray | None = None
        self._entropy_sum: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()

    def add(self, p: np.ndarray) -> None:
        """Take one member's probabilities p (C, ...) into account.

        :raises ValueError: when the shape is not that of the members before.
        """
        p = np.asarray(p)
        if self._sum is None:
            self._shape = p.shape
            voxels = math.prod(p.shape[1:])
            self._sum = np.zeros((p.shape[0], voxels), dtype=np.float32)
            self._entropy_sum = np.zeros(voxels, dtype=np.float32)
        elif p.shape != self._shape:
            raise ValueError(f"a member of shape {p.shape} among members of shape {self._shape}")
        flat = p.reshape(p.shape[0], -1)
        for part in _parts(flat.shape[1]):
            self._sum[:, part] += flat[:, part]
            self._entropy_sum[part] += _any_entropy_of_chunk(flat[:, part], self._sigmoid)
        self.count += 1

    @property
    def status(self) -> str:
        """"ok", or "single_member" when fewer than two members were added."""
        return MEASURES["mi"].status(self.count)

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over the members, (C, ...) float32."""
        self._need_members()
        return (self._sum / np.float32(self.count)).reshape(self._shape)

    @property
    def expected_entropy(self) -> np.ndarray:
        """Mean over members of each member's entropy, (...) float32, nats."""
        self._need_members()
        return (self._entropy_sum / np.float32(self.count)).reshape(self._shape[1:])

    @property
    def mutual_information(self) -> np.ndarray:
        """Entropy of the mean less the mean entropy, (...) float32, nats; zeros for a single member."""
        return mutual_information_of(self.mean, self.expected_entropy, self.count, self._sigmoid)

    def _need_members(self) -> None:
        if self.count == 0:
            raise ValueError("no member was added")


def _statistics(members_p: np.ndarray, sigmoid: bool) -> MemberStatistics:
    statistics = MemberStatistics(sigmoid)
    for p in members_p:
        statistics.add(p)
    return statistics


def _parts(voxels: int) -> Iterator[slice]:
    for start in range(0, voxels, CHUNK_VOXELS):
        yield slice(start, start + CHUNK_VOXELS)


def _flat_and_result(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.asarray(p).reshape(p.shape[0], -1)
    return flat, np.empty(flat.shape[1], dtype=np.float32)


def _two_highest(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest and second highest probability of a (C, n) chunk, (n,) each, new arrays."""
    if p.shape[0] < 2:
        raise ValueError("the margin needs at least two classes")
    first, second = np.maximum(p[0], p[1]), np.minimum(p[0], p[1])
    for values in p[2:]:
        np.maximum(second, np.minimum(first, values), out=second)
        np.maximum(first, values, out=first)
    return first, second


def _less_likely(p: np.ndarray) -> np.ndarray:
    """min(p, 1 - p) of a chunk, float32: how likely the opposite of what is decided is."""
    aside = np.subtract(1.0, p, dtype=np.float32)
    np.minimum(aside, p, out=aside, casting="same_kind")
    return np.maximum(aside, 0.0, out=aside)


def _any_entropy_of_chunk(p: np.ndarray, sigmoid: bool) -> np.ndarray:
    return _region_entropy_of(_less_likely(p)) if sigmoid else _entropy_of_chunk(p)


def _region_entropy_of(aside: np.ndarray) -> np.ndarray:
    """Mean binary entropy of a (C, n) chunk of min(p, 1 - p), (n,) float32; right to 1e-7."""
    other = np.subtract(1.0, aside, dtype=np.float32)
    logarithm = np.maximum(aside, _TINY)
    np.log(logarithm, out=logarithm)
    total = np.einsum("cn,cn->n", aside, logarithm)
    np.log(other, out=logarithm)
    total += np.einsum("cn,cn->n", other, logarithm)
    total *= np.float32(-1.0 / len(aside))
    return np.clip(total, 0.0, LN2, out=total)


def _entropy_of_chunk(p: np.ndarray) -> np.ndarray:
    """Entropy of a (C, n) chunk, (n,) float32. The floor under the logarithm makes 0 log 0 exactly 0."""
    logarithm = np.maximum(p, _TINY, dtype=np.float32)
    np.log(logarithm, out=logarithm)
    total = np.einsum("cn,cn->n", p, logarithm, dtype=np.float32, casting="same_kind")
    np.negative(total, out=total)
    return np.clip(total, 0.0, math.log(p.shape[0]), out=total)
