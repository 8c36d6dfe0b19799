"""How far the members' segmentations agree: Dice of every pair, and the spread of the volumes they draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OF_CASE = ("pairwise_dice", "pairwise_dice_min", "pairwise_dice_generalised")
OF_STRUCTURE = ("pairwise_dice", "pairwise_dice_min", "vol_cv")
EXACT_VOXELS = 1 << 20  # float32 counts exactly up to 2^24


@dataclass(frozen=True)
class MemberAgreement:
    """Voxels that M members gave to each of K structures, and that every two of them both gave to it.

    `structures`: the K labels. `volumes` (M, K) int64 voxels. `overlaps` (M, M, K) int64 voxels of both, symmetric.
    """

    structures: tuple[int, ...]
    volumes: np.ndarray
    overlaps: np.ndarray

    @classmethod
    def of(cls, members: Sequence[np.ndarray], structures: Sequence[int]) -> MemberAgreement:
        """Of whole label maps, plane by plane.

        :param members: M label maps (z, y, x), integers of one shape.
        :param structures: labels above 0 that are compared.
        :raises ValueError: without a member, when shapes differ, or a structure is no label above 0.
        """
        if not members or len({np.shape(member) for member in members}) != 1 or np.ndim(members[0]) != 3:
            raise ValueError(f"expected (z, y, x) label maps of one shape, got {[np.shape(m) for m in members]}")
        counts = AgreementCounts(len(members), structures)
        for plane in zip(*members, strict=True):
            counts.add(np.stack([np.ravel(of_member) for of_member in plane]))
        return counts.counted()

    @property
    def members(self) -> int:
        """M."""
        return len(self.volumes)

    def pairwise_dice(self) -> dict[int, float]:
        """For each structure the mean Dice, [0, 1], over all unordered pairs of members; both empty counts as 1.

        :raises ValueError: with a single member, who has nobody to agree with.
        Source: Roy et al. 2019; pairs without the structure as in the benchmark of Zenk et al. 2025.
        """
        return dict(zip(self.structures, self._dice_of_pairs().mean(axis=0).tolist(), strict=True))

    def lowest_dice(self) -> dict[int, float]:
        """For each structure the Dice, [0, 1], of the two members that agree least. Raises and counts as `pairwise_dice`."""
        return dict(zip(self.structures, self._dice_of_pairs().min(axis=0).tolist(), strict=True))

    def generalised_dice(self) -> float:
        """Mean generalised Dice, [0, 1], of all structures together over all unordered pairs of members.

        2 sum_k w_k |A_k and B_k| / sum_k w_k (|A_k| + |B_k|), with w_k = 1 / |A_k|^2 of the earlier member, so that small
        structures count as much as large ones; a structure that A lacks has the largest weight of the others. Both without any
        structure 1. Not the same where the members are in another order.

        :raises ValueError: with a single member.
        Source: Sudre et al. 2017, with the weights and empty classes of MONAI, as the benchmark of Zenk et al. 2025 uses it.
        """
        return float(np.mean([self._generalised(a, b) for a, b in zip(*self._pairs(), strict=True)]))

    def volume_cv(self) -> dict[int, float]:
        """For each structure the coefficient of variation of its volume: population standard deviation / mean over the members.

        NaN where no member has the structure, and with a single member. Source: Roy et al. 2019.
        """
        mean, spread = self.volumes.mean(axis=0), self.volumes.std(axis=0)
        known = (mean > 0) & (self.members > 1)
        values = np.where(known, spread / np.maximum(mean, 1e-300), math.nan)
        return dict(zip(self.structures, values.tolist(), strict=True))

    def _dice_of_pairs(self) -> np.ndarray:
        """(pairs, K) float64."""
        first, second = self._pairs()
        total = self.volumes[first] + self.volumes[second]
        return np.where(total > 0, 2.0 * self.overlaps[first, second] / np.maximum(total, 1), 1.0)

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        if self.members < 2:
            raise ValueError("agreement in pairs needs at least two members")
        return np.triu_indices(self.members, k=1)

    def _generalised(self, a: int, b: int) -> float:
        volume, total = self.volumes[a].astype(float), (self.volumes[a] + self.volumes[b]).astype(float)
        if not total.any():
            return 1.0
        if not volume.any():
            return 0.0
        weight = np.divide(1.0, volume**2, out=np.zeros_like(volume), where=volume > 0)
        weight[volume == 0] = weight.max()
        return float(2.0 * (weight * self.overlaps[a, b]).sum() / (weight * total).sum())


class AgreementCounts:
    """Counts what `MemberAgreement` holds while voxels come in pieces.

    Where all members say the same, one count does for all pairs; elsewhere a product of matrices counts all pairs at once. Memory
    is M * M * K numbers, and what a piece takes.
    """

    def __init__(self, members: int, structures: Sequence[int], regions: bool = False) -> None:
        """Of M members.

        :param structures: the K labels above 0 that are compared.
        :param regions: whether codes are bits instead of labels: bit k is set where the k-th structure holds; these may overlap.
        :raises ValueError: without a member, or when a structure is no label above 0.
        """
        self._structures = tuple(int(structure) for structure in structures)
        if members < 1 or min(self._structures, default=1) < 1:
            raise ValueError(f"expected members, and labels above 0 as structures; got {members} and {self._structures}")
        self._regions = regions
        self._shared = np.zeros(len(self._structures), np.int64)
        self._overlaps = np.zeros((members, members, len(self._structures)), np.int64)

    def add(self, codes: np.ndarray, times: int = 1) -> None:
        """Voxels (M, n): the label, or the bits, that each member gives to each; each of them stands for so many voxels.

        :raises ValueError: when there are other than M rows.
        """
        if np.ndim(codes) != 2 or len(codes) != len(self._overlaps):
            raise ValueError(f"expected codes of {len(self._overlaps)} members, got an array of shape {np.shape(codes)}")
        disputed = (codes[1:] != codes[0]).any(axis=0)
        for index, mask in self._masks(codes[:1, ~disputed]):
            self._shared[index] += times * np.count_nonzero(mask)
        for begin in range(0, int(np.count_nonzero(disputed)), EXACT_VOXELS):
            part = codes[:, np.flatnonzero(disputed)[begin : begin + EXACT_VOXELS]]
            for index, mask in self._masks(part):
                drawn = mask[:, mask.any(axis=0)].astype(np.float32)
                self._overlaps[..., index] += times * (drawn @ drawn.T).astype(np.int64)

    def counted(self) -> MemberAgreement:
        """What was counted so far."""
        overlaps = self._overlaps + self._shared
        return MemberAgreement(self._structures, np.einsum("mmk->mk", overlaps).copy(), overlaps)

    def _masks(self, codes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each structure that any of these codes holds, by its place, with where they do."""
        if self._regions:
            yield from ((k, (codes >> np.asarray(k, codes.dtype)) & 1 != 0) for k in range(len(self._structures)))
            return
        there = np.bincount(codes.ravel()) if codes.size else ()
        for index, structure in enumerate(self._structures):
            if structure < len(there) and there[structure]:
                yield index, codes == structure


def agreement_figures(
    members: Sequence[np.ndarray] | MemberAgreement, structures: Mapping[int, str] | Sequence[int]
) -> tuple[dict, dict[int, dict]]:
    """({"pairwise_dice", "pairwise_dice_min", "pairwise_dice_generalised"} of a case, {"pairwise_dice", "pairwise_dice_min",
    "vol_cv"} of each structure).

    NaN with one member. The case's `pairwise_dice` is the mean, and its `pairwise_dice_min` the lowest, of the structures that at
    least one member has; NaN when there is none.

    :param members: label maps as `MemberAgreement.of` takes them, or what was counted of these structures already.
    """
    agreement = members if isinstance(members, MemberAgreement) else MemberAgreement.of(members, list(structures))
    if agreement.members < 2:
        return dict.fromkeys(OF_CASE, math.nan), {
            structure: dict.fromkeys(OF_STRUCTURE, math.nan) for structure in agreement.structures
        }
    dice, lowest, spread = agreement.pairwise_dice(), agreement.lowest_dice(), agreement.volume_cv()
    seen = [k for k, some in zip(agreement.structures, agreement.volumes.any(axis=0), strict=True) if some]
    case = (
        float(np.mean([dice[k] for k in seen])), min(lowest[k] for k in seen), agreement.generalised_dice()
    ) if seen else (math.nan,) * 3  # fmt: skip
    return dict(zip(OF_CASE, case, strict=True)), {
        k: dict(zip(OF_STRUCTURE, (dice[k], lowest[k], spread[k]), strict=True)) for k in agreement.structures
    }
