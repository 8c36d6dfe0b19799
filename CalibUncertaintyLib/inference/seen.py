"""Where on the network's grid anything but background is likely, and how many members' worth of opinions there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SAMPLED_VOXELS = 1 << 16
LOOKED_AT_FROM = 0.01  # probability; where every member is surer of background they do not disagree


def largest_foreground(logits: torch.Tensor, temperature: np.ndarray, sigmoid: bool, factor: float = 1.0) -> np.ndarray:
    """The most foreground below one half that any temperature up to the given one makes of these logits, (n, Y, X) float32.

    logits: (n, C, Y, X) float16. temperature: (C,), none below 1. factor: of the odds, a bound for what pooling may add.
    Below one half, foreground only grows with the temperature; from one half on it stays there (softmax), so one temperature
    answers for all below it, and for the mean of several members' logits as well: log-odds of foreground are convex.
    """
    import torch

    z = logits.float()
    if (temperature != 1).any():
        z = z / torch.from_numpy(temperature.astype(np.float32)).to(z.device)[None, :, None, None]
    odds = z.amax(dim=1) if sigmoid else torch.logsumexp(z[:, 1:], dim=1).sub_(z[:, 0])
    if factor != 1:
        odds += float(np.log(factor))
    return torch.sigmoid_(odds).cpu().numpy()


def has_label(logits: torch.Tensor, sigmoid: bool) -> np.ndarray:
    """Where the segmentation is not background, (n, Y, X); logits: (n, C, Y, X)."""
    if sigmoid:
        return (logits.amax(dim=1) > 0).cpu().numpy()
    return (logits[:, 1:].amax(dim=1) > logits[:, 0]).cpu().numpy()


class Seen:
    """The largest foreground probability of any member, and where the pool has a label; over one grid."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.likely = np.zeros(tuple(shape), np.float16)
        self.labelled = np.zeros(tuple(shape), bool)

    def member(self, first: int, foreground: np.ndarray) -> None:
        """One member's planes from `first` on."""
        import torch  # whose half precision is several times as fast as numpy's

        part = torch.from_numpy(self.likely[first : first + len(foreground)])
        torch.maximum(part, torch.from_numpy(np.ascontiguousarray(foreground)).half(), out=part)

    def pool(self, first: int, labelled: np.ndarray) -> None:
        """The pool's planes from `first` on."""
        self.labelled[first : first + len(labelled)] |= labelled


class MemberSample:
    """Every member's foreground probability, at temperature 1, at the same scattered places: how alike the members are."""

    def __init__(self, members: int, sigmoid: bool, seed: int = 0) -> None:
        count = SAMPLED_VOXELS // max(1, members // 16)  # hundreds of members share the room of sixteen
        self._places = np.random.default_rng(seed).random((count, 3), dtype=np.float32)
        self._values = np.zeros((members, count), np.float32) if members > 1 else None
        self._sigmoid = sigmoid
        self._order: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, member: int, first: int, logits: torch.Tensor, shape: Sequence[int]) -> None:
        """One member's planes (n, C, Y, X) from `first` on, of a grid of `shape`."""
        import torch

        if self._values is None:
            return
        index, order = self._indices(tuple(shape))
        begin, end = np.searchsorted(index[0], [first, first + len(logits)])
        if begin == end:
            return
        z, y, x = torch.from_numpy(index[:, begin:end]).to(logits.device)
        there = logits[z - first, :, y, x]  # (places, C)
        one = np.ones(there.shape[1])
        self._values[member, order[begin:end]] = largest_foreground(there[:, :, None, None], one, self._sigmoid)[
            :, 0, 0
        ]

    def _indices(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        if shape not in self._order:
            index = np.minimum((self._places * shape).astype(np.int64), np.array(shape) - 1)
            order = np.argsort(index[:, 0], kind="stable")
            self._order[shape] = index[order].T, order
        return self._order[shape]

    def effective(self) -> dict:
        """How many independent members these are worth, and how far they lie apart.

        number: 1 + (sum of eigenvalues)^2 / (sum of their squares), of the covariance over places of what each member says
        beyond the mean of all: M for members that differ independently, however little, and 1 for copies. spread: root mean
        square of that, a probability; where it is near 0 the number means little. Places are those where some member's
        foreground probability exceeds 1 %. None where that cannot be told: fewer than 30 places, and the number for two
        members, which always differ in one way only. Our definition.
        """
        if self._values is None:
            return {"number": 1.0, "spread": 0.0}
        seen = self._values[:, self._values.max(axis=0) > LOOKED_AT_FROM].astype(np.float64)
        if seen.shape[1] < 30:
            return {"number": None, "spread": None}
        beyond = seen - seen.mean(axis=0)
        spread = float(np.sqrt((beyond**2).mean()))
        covariance = beyond @ beyond.T / seen.shape[1]
        squares = float((covariance**2).sum())  # the sum of squared eigenvalues of a symmetric matrix
        if squares <= 1e-24:
            return {"number": 1.0, "spread": spread}
        number = 1.0 + float(np.trace(covariance)) ** 2 / squares if len(seen) > 2 else None
        return {"number": number, "spread": spread}
