"""Statistics of ensemble members that are seen one at a time, and the measures that follow from means over them.

`MemberStatistics` keeps what expected entropy and mutual information need, and by name what the measures of `disagreement`
need beside that (`EXTRAS`). Shapes, units and regions are as in `measures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..model.heads import first_argmax
from .catalogue import LOG_CLIP, MEASURES
from .chunks import any_entropy_of, flat_and_result, parts

# What may be averaged over members beside p and its entropy. squares: the sum over channels of p^2 (...). log_probabilities:
# ln p of each channel, no less than ln LOG_CLIP, (C, ...); of regions ln p and then ln (1 - p) of each, (2 C, ...). votes: 1 for
# the channel that a member decides for, the first of equals, (C, ...); of regions 1 where p > 0.5.
EXTRAS = ("squares", "log_probabilities", "votes")


def expected_entropy(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Mean over members of each member's entropy: what every member by itself is unsure about.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, ln C], sigmoid [0, ln 2], unit: nats.
    Source: Kahl et al. 2024 (expected entropy).
    """
    return MemberStatistics.of(members_p, sigmoid).expected_entropy


def mutual_information(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Entropy of the members' mean less the mean of their entropies: how far the members contradict each other.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, min(ln C, ln M)], sigmoid [0, ln 2], unit: nats; 0 everywhere for one member, which has
        nobody to contradict (`MEASURES["mi"].status(1)` is "single_member").
    Source: Kahl et al. 2024 (mutual information).
    """
    return MemberStatistics.of(members_p, sigmoid).mutual_information


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
    flat, result = flat_and_result(mean)
    expected = np.asarray(expected_entropy).reshape(-1)
    if np.shape(mean)[1:] != np.shape(expected_entropy):
        raise ValueError(f"a mean of shape {np.shape(mean)} and expected entropies {np.shape(expected_entropy)}")
    upper = MEASURES["mi"].upper(flat.shape[0], n_members, sigmoid)
    for part in parts(result.shape[0] if n_members > 1 else 0):
        of_mean = any_entropy_of(flat[:, part], sigmoid)
        # Rounding can leave a difference just below zero where all members agree.
        np.clip(of_mean - expected[part], 0.0, upper, out=result[part])
    if n_members <= 1:
        result[...] = 0.0
    return result.reshape(np.shape(mean)[1:])


class MemberStatistics:
    """Running statistics of ensemble members that are seen one at a time and forgotten.

    Memory is one (C, ...) and one (...) float32 array, and those of the extras, however many members there are.
    Source: Kahl et al. 2024 for expected entropy and mutual information.

    :param sigmoid: whether the channels are regions.
    :param extras: names of `EXTRAS` that are averaged as well.
    :raises ValueError: for a name that is not among them.
    """

    def __init__(self, sigmoid: bool = False, extras: Sequence[str] = ()) -> None:
        if not set(extras) <= set(EXTRAS):
            raise ValueError(f"extras are some of {EXTRAS}, got {extras}")
        self.count = 0
        self._sigmoid = sigmoid
        self._sum: np.ndarray | None = None
        self._entropy_sum: np.ndarray | None = None
        self._extra_sums: dict[str, np.ndarray] = dict.fromkeys(extras)
        self._shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, members_p: np.ndarray, sigmoid: bool = False, extras: Sequence[str] = ()) -> MemberStatistics:
        """Of all members' probabilities (M, C, ...)."""
        statistics = cls(sigmoid, extras)
        for p in members_p:
            statistics.add(p)
        return statistics

    def add(self, p: np.ndarray) -> None:
        """Take one member's probabilities p (C, ...) into account.

        :raises ValueError: when the shape is not that of the members before.
        """
        p = np.asarray(p)
        if self._sum is None:
            self._begin(p.shape)
        elif p.shape != self._shape:
            raise ValueError(f"a member of shape {p.shape} among members of shape {self._shape}")
        flat = p.reshape(p.shape[0], -1)
        for part in parts(flat.shape[1]):
            self._sum[:, part] += flat[:, part]
            self._entropy_sum[part] += any_entropy_of(flat[:, part], self._sigmoid)
            for name, total in self._extra_sums.items():
                _add_extra(name, total[:, part], flat[:, part], self._sigmoid)
        self.count += 1

    def _begin(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        channels, voxels = shape[0], math.prod(shape[1:])
        self._sum = np.zeros((channels, voxels), dtype=np.float32)
        self._entropy_sum = np.zeros(voxels, dtype=np.float32)
        rows = {"squares": 1, "log_probabilities": channels * (2 if self._sigmoid else 1), "votes": channels}
        self._extra_sums = {name: np.zeros((rows[name], voxels), np.float32) for name in self._extra_sums}

    @property
    def status(self) -> str:
        """ "ok", or "single_member" when fewer than two members were added."""
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
    def extras(self) -> dict[str, np.ndarray]:
        """Mean over the members of each extra that was asked for, float32, shaped as `EXTRAS` says."""
        self._need_members()
        means = {name: total / np.float32(self.count) for name, total in self._extra_sums.items()}
        shape = self._shape[1:]
        return {name: m.reshape(shape if name == "squares" else (len(m), *shape)) for name, m in means.items()}

    @property
    def mutual_information(self) -> np.ndarray:
        """Entropy of the mean less the mean entropy, (...) float32, nats; zeros for a single member."""
        return mutual_information_of(self.mean, self.expected_entropy, self.count, self._sigmoid)

    def _need_members(self) -> None:
        if self.count == 0:
            raise ValueError("no member was added")


def _add_extra(name: str, total: np.ndarray, p: np.ndarray, sigmoid: bool) -> None:
    """Add what `EXTRAS` says of a (C, n) chunk to a view of its sum."""
    if name == "squares":
        total[0] += np.einsum("cn,cn->n", p, p, dtype=np.float32, casting="same_kind")
    elif name == "votes":
        total += p > 0.5 if sigmoid else np.arange(len(p))[:, np.newaxis] == first_argmax(p)
    else:
        total[: len(p)] += np.log(np.maximum(p, LOG_CLIP, dtype=np.float32))
        if sigmoid:
            total[len(p) :] += np.log(np.maximum(np.subtract(1.0, p, dtype=np.float32), LOG_CLIP, dtype=np.float32))
