"""How far the members' segmentations agree: Dice of every pair, and the spread of the volumes they draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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
        """Count label maps plane by plane; where all members say the same, one count does for all pairs.

        :param members: M label maps (z, y, x), integers of one shape.
        :param structures: labels above 0 that are compared.
        :raises ValueError: without a member, when shapes differ, or a structure is no label above 0.
        """
        structures = tuple(int(structure) for structure in structures)
        if not members or len({np.shape(member) for member in members}) != 1 or np.ndim(members[0]) != 3:
            raise ValueError(f"expected (z, y, x) label maps of one shape, got {[np.shape(m) for m in members]}")
        if min(structures, default=1) < 1:
            raise ValueError(f"structures are labels above 0, got {structures}")
        highest = max([*structures, *(int(np.max(member, initial=0)) for member in members)], default=0)
        # where each label is kept; those that nobody asks for, and background, share one more place behind the last
        place = np.full(highest + 1, len(structures), np.int64)
        place[list(structures)] = np.arange(len(structures))
        count, bins = len(members), len(structures) + 1
        shared = np.zeros(bins, np.int64)
        overlaps = np.zeros((count, count, bins), np.int64)
        for plane in zip(*members, strict=True):
            first, *others = (np.ravel(of_member) for of_member in plane)
            disputed = np.zeros(first.size, bool)
            for other in others:
                disputed |= other != first
            shared += np.bincount(place[first[~disputed]], minlength=bins)
            if disputed.any():
                _count_pairs(overlaps, [place[np.ravel(of_member)[disputed]] for of_member in plane])
        overlaps = (overlaps + shared)[..., :-1]
        return cls(structures, np.einsum("mmk->mk", overlaps).copy(), overlaps)

    @property
    def members(self) -> int:
        """M."""
        return len(self.volumes)

    def pairwise_dice(self) -> dict[int, float]:
        """For each structure the mean Dice, [0, 1], over all unordered pairs of members; both empty counts as 1.

        :raises ValueError: with a single member, who has nobody to agree with.
        Source: Roy et al. 2019; pairs without the structure as in the benchmark of Zenk et al. 2025.
        """
        first, second = self._pairs()
        total = self.volumes[first] + self.volumes[second]
        dice = np.where(total > 0, 2.0 * self.overlaps[first, second] / np.maximum(total, 1), 1.0)
        return dict(zip(self.structures, dice.mean(axis=0).tolist(), strict=True))

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


def _count_pairs(overlaps: np.ndarray, members: Sequence[np.ndarray]) -> None:
    """Add the disputed voxels of one plane, (n,) places of labels of each member, to every pair's overlap."""
    bins = overlaps.shape[-1]
    for a, of_a in enumerate(members):
        overlaps[a, a] += np.bincount(of_a, minlength=bins)
        for b in range(a):
            both = np.bincount(of_a[of_a == members[b]], minlength=bins)
            overlaps[a, b] += both
            overlaps[b, a] += both


def agreement_figures(
    members: Sequence[np.ndarray], structures: Mapping[int, str] | Sequence[int]
) -> tuple[dict, dict[int, dict]]:
    """({"pairwise_dice", "pairwise_dice_generalised"} of a case, {"pairwise_dice", "vol_cv"} of each structure).

    NaN with one member. The case's `pairwise_dice` is the mean over the structures that at least one member has; NaN when there
    is none.
    """
    agreement = MemberAgreement.of(members, list(structures))
    if agreement.members < 2:
        unknown = dict.fromkeys(("pairwise_dice", "vol_cv"), math.nan)
        return dict.fromkeys(("pairwise_dice", "pairwise_dice_generalised"), math.nan), {
            structure: dict(unknown) for structure in agreement.structures
        }
    dice, spread = agreement.pairwise_dice(), agreement.volume_cv()
    seen = [dice[structure] for structure, some in zip(dice, agreement.volumes.any(axis=0), strict=True) if some]
    case = {
        "pairwise_dice": float(np.mean(seen)) if seen else math.nan,
        "pairwise_dice_generalised": agreement.generalised_dice() if seen else math.nan,
    }
    return case, {
        structure: {"pairwise_dice": dice[structure], "vol_cv": spread[structure]} for structure in agreement.structures
    }
