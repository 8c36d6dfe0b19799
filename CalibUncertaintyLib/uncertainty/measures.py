"""Measures of uncertainty, voxel by voxel, from class probabilities.

Arrays are class-first: probabilities p are (C, ...), those of M members (M, C, ...). Results are float32 of the shape
behind the class axis. Logarithms are natural (nats) and 0 log 0 = 0.

`conf`, `margin`, `entropy` and `entropy_k` are of the pooled probability that is shown. `exp_entropy` and `mi` are of the
members' own probabilities at the members' shared temperature. Where members are pooled by their logits the two describe
different mixtures, so `mi` is not `entropy - exp_entropy` there; it is H(mean of members) - mean of H(member).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LN2 = math.log(2.0)
CHUNK_VOXELS = 65536
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Measure:
    """What a person and the display need to know about one measure.

    `upper(n_classes, n_members)` is the largest value it can take and `default_threshold(n_classes)` the value used when
    the model has no stored threshold (our definition). `needs_members` says that it is computed from the single members;
    fewer than `minimum_members` of them leave it without meaning.
    """

    id: str
    title: str
    unit: str
    upper: Callable[[int, int], float]
    needs_members: bool
    sentence: str
    default_threshold: Callable[[int], float]
    minimum_members: int = 1

    def status(self, n_members: int) -> str:
        """"ok", or "single_member" when this many members cannot disagree."""
        return "ok" if n_members >= self.minimum_members else "single_member"


MEASURES: dict[str, Measure] = {
    measure.id: measure
    for measure in (
        Measure(
            "conf", "Lack of confidence", "probability",
            lambda classes, members: 1.0 - 1.0 / classes, False,
            "Bright: the structure shown here has a low probability; dark: the model is nearly sure of it.",
            lambda classes: 0.25,
        ),
        Measure(
            "margin", "Closeness of the runner-up", "probability",
            lambda classes, members: 1.0, False,
            "Bright: a second answer is almost as likely as the one shown; dark: no other answer comes close.",
            lambda classes: 0.5,
        ),
        Measure(
            "entropy", "Entropy", "nats",
            lambda classes, members: math.log(classes), False,
            "Bright: the probability is spread over several structures; dark: one answer holds nearly all of it.",
            lambda classes: 0.5 * LN2,
        ),
        Measure(
            "exp_entropy", "Expected entropy", "nats",
            lambda classes, members: math.log(classes), True,
            "Bright: each network by itself hesitates here, as at a blurred border; dark: each one is sure.",
            lambda classes: 0.5 * LN2,
        ),
        Measure(
            "mi", "Mutual information", "nats",
            lambda classes, members: min(math.log(classes), math.log(max(members, 1))), True,
            "Bright: the networks contradict each other here; dark: they say the same.",
            lambda classes: 0.05, minimum_members=2,
        ),
        Measure(
            "entropy_k", "Entropy of one structure", "nats",
            lambda classes, members: LN2, False,
            "Bright: it is open whether this voxel belongs to the chosen structure; dark: it is clearly in or out.",
            lambda classes: 0.5 * LN2,
        ),
    )
}


def confidence_complement(p: np.ndarray) -> np.ndarray:
    """1 - max_c p_c.

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, 1 - 1/C], unit: probability.
    Source: the maximum softmax probability of Hendrycks & Gimpel 2017, turned round.
    """
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        np.subtract(1.0, flat[:, part].max(axis=0), out=result[part], casting="same_kind")
    # Probabilities that were rounded may exceed 1 by one unit in the last place.
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def margin(p: np.ndarray) -> np.ndarray:
    """1 - (highest - second highest probability).

    :param p: (C, ...) probabilities, C >= 2.
    :returns: (...) float32 in [0, 1], unit: probability; 1 where two classes are equally likely.
    :raises ValueError: when there is only one class.
    Source: margin of Scheffer et al. 2001, turned round.
    """
    flat, result = _flat_and_result(p)
    if flat.shape[0] < 2:
        raise ValueError("the margin needs at least two classes")
    for part in _parts(flat.shape[1]):
        first = np.maximum(flat[0, part], flat[1, part])
        second = np.minimum(flat[0, part], flat[1, part])
        for values in flat[2:, part]:
            np.maximum(second, np.minimum(first, values), out=second)
            np.maximum(first, values, out=first)
        np.subtract(second, first, out=second)
        np.add(second, 1.0, out=result[part], casting="same_kind")
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def entropy(p: np.ndarray) -> np.ndarray:
    """Shannon entropy -sum_c p_c ln p_c of the class probabilities.

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, ln C], unit: nats.
    Source: Shannon 1948; the predictive entropy of Kahl et al. 2024 when p is the pooled probability.
    """
    flat, result = _flat_and_result(p)
    for part in _parts(flat.shape[1]):
        result[part] = _entropy_of_chunk(flat[:, part])
    return result.reshape(p.shape[1:])


def expected_entropy(members_p: np.ndarray) -> np.ndarray:
    """Mean over members of each member's entropy: what every member by itself is unsure about.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, ln C], unit: nats.
    Source: Kahl et al. 2024 (expected entropy).
    """
    return _statistics(members_p).expected_entropy


def mutual_information(members_p: np.ndarray) -> np.ndarray:
    """Entropy of the members' mean less the mean of their entropies: how far the members contradict each other.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, min(ln C, ln M)], unit: nats; 0 everywhere for one member, which has nobody to
        contradict (`MEASURES["mi"].status(1)` is "single_member").
    Source: Kahl et al. 2024 (mutual information).
    """
    return _statistics(members_p).mutual_information


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

    def __init__(self) -> None:
        self.count = 0
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
            self._entropy_sum[part] += _entropy_of_chunk(flat[:, part])
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
        self._need_members()
        result = np.zeros(self._entropy_sum.shape, dtype=np.float32)
        if self.count > 1:
            upper = MEASURES["mi"].upper(self._shape[0], self.count)
            count = np.float32(self.count)
            for part in _parts(result.shape[0]):
                of_mean = _entropy_of_chunk(self._sum[:, part] / count)
                # Rounding can leave a difference just below zero where all members agree.
                np.clip(of_mean - self._entropy_sum[part] / count, 0.0, upper, out=result[part])
        return result.reshape(self._shape[1:])

    def _need_members(self) -> None:
        if self.count == 0:
            raise ValueError("no member was added")


def _statistics(members_p: np.ndarray) -> MemberStatistics:
    statistics = MemberStatistics()
    for p in members_p:
        statistics.add(p)
    return statistics


def _parts(voxels: int) -> Iterator[slice]:
    for start in range(0, voxels, CHUNK_VOXELS):
        yield slice(start, start + CHUNK_VOXELS)


def _flat_and_result(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.asarray(p).reshape(p.shape[0], -1)
    return flat, np.empty(flat.shape[1], dtype=np.float32)


def _entropy_of_chunk(p: np.ndarray) -> np.ndarray:
    """Entropy of a (C, n) chunk, (n,) float32. The floor under the logarithm makes 0 log 0 exactly 0."""
    logarithm = np.maximum(p, _TINY, dtype=np.float32)
    np.log(logarithm, out=logarithm)
    total = np.einsum("cn,cn->n", p, logarithm, dtype=np.float32, casting="same_kind")
    np.negative(total, out=total)
    return np.clip(total, 0.0, math.log(p.shape[0]), out=total)
