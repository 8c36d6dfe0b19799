"""What is averaged over members at every voxel, as sums that one member after the other adds to.

An array of sums holds every temperature's probabilities, the entropy, and of `EXTRAS` what was asked for by name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LOG_CLIP = 1e-7  # no logarithm is taken of less
EXTRAS = ("squares", "log_probabilities", "votes")


@dataclass(frozen=True)
class MemberMeans:
    """Of all members at one window, float32: mean probability (C, ...) at each temperature asked for, mean entropy (...).

    The entropy is at the first temperature; of sigmoid heads the mean over regions of each region's binary entropy. extras: at the
    first temperature too, what was asked for: squares (...), the sum over channels of p^2; log_probabilities (C, ...), ln p of each
    channel, no less than ln `LOG_CLIP`, of sigmoid heads ln p and then ln (1 - p) of each, (2 C, ...); votes (C, ...), the share
    of members that decide for each channel (sigmoid: p > 0.5).
    """

    probability: tuple[np.ndarray, ...]
    entropy: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)


class MemberSums:
    """How members' logits become sums, and sums become means."""

    def __init__(
        self,
        channels: int,
        sigmoid: bool,
        temperatures: Sequence[float | Sequence[float] | np.ndarray],
        extras: Sequence[str] = (),
    ) -> None:
        """temperatures: each a number, one for each channel, or (sources, 1 or channels): one for each set of weights."""
        if not set(extras) <= set(EXTRAS):
            raise ValueError(f"extras are some of {EXTRAS}, got {extras}")
        self._channels, self._sigmoid = channels, sigmoid
        rows = [np.atleast_2d(np.asarray(t, np.float32)) for t in temperatures]
        self._temperatures = [np.broadcast_to(t, (len(t), channels)) for t in rows]
        self._rows = self._rows_of(["entropy", *extras])

    @property
    def values(self) -> int:
        """How many sums a voxel has."""
        return max(rows.stop for rows in self._rows.values())

    def add(self, sums: np.ndarray, logits: torch.Tensor, count: int, source: int | None = None) -> None:
        """Add `count` times what is kept of these logits (C, ...) to sums (values, ...) float32.

        source: which set of weights they come from; None for a mean over several.
        """
        import torch

        logits = logits.float()
        into = torch.from_numpy(sums)
        for index, temperature in enumerate(self._at(source)):
            p, others = _statistics(_cooled(logits, temperature), self._sigmoid, self._rows if index == 0 else ())
            into[index * self._channels : (index + 1) * self._channels].add_(p.cpu(), alpha=count)
            for name, values in others.items():
                into[self._rows[name]].add_(values.cpu(), alpha=count)

    def means(self, sums: np.ndarray, members: int) -> MemberMeans:
        """Of sums (values, ...) over so many members, which are overwritten."""
        sums /= np.float32(members)
        c = self._channels
        probability = tuple(sums[i * c : (i + 1) * c] for i in range(len(self._temperatures)))
        others = {name: sums[rows] for name, rows in self._rows.items()}
        if "squares" in others:
            others["squares"] = others["squares"][0]
        return MemberMeans(probability, others.pop("entropy")[0], others)

    def _rows_of(self, names: Sequence[str]) -> dict[str, slice]:
        """Where each sum at the first temperature lies in an array, behind the probabilities of every temperature."""
        sizes = {"log_probabilities": self._channels * (2 if self._sigmoid else 1), "votes": self._channels}
        found, begin = {}, len(self._temperatures) * self._channels
        for name in names:
            found[name] = slice(begin, begin + sizes.get(name, 1))
            begin = found[name].stop
        return found

    def _at(self, source: int | None) -> list[np.ndarray]:
        """The temperatures (C,) of a source; None for a mean over several: the highest, at which they are still sure where they
        are silent."""
        return [
            t.max(axis=0) if source is None and len(t) > 1 else t[(source or 0) % len(t)] for t in self._temperatures
        ]


def _cooled(logits: torch.Tensor, temperature: np.ndarray) -> torch.Tensor:
    """Logits (C, ...) float32 divided by each channel's temperature."""
    import torch

    if (temperature == 1).all():
        return logits
    return logits / torch.from_numpy(temperature.copy()).to(logits.device)[:, None, None, None]


def _statistics(z: torch.Tensor, sigmoid: bool, names: Collection[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(C, ...) float32 logits to probabilities, and to what is wanted of "entropy" (nats) and `EXTRAS`, each (n, ...)."""
    import torch

    if sigmoid:
        p = torch.sigmoid(z)
        logarithm = -torch.nn.functional.softplus(torch.cat([-z, z])) if "log_probabilities" in names else None
    else:
        logarithm = torch.log_softmax(z, dim=0)
        p = logarithm.exp()
    found = {}
    if "entropy" in names:
        # of a region binary entropy, exact in both tails
        found["entropy"] = (
            (torch.nn.functional.softplus(z) - p * z).mean(dim=0, keepdim=True)
            if sigmoid
            else (p * logarithm).sum(dim=0, keepdim=True).neg_()
        ).clamp_(min=0)
    if "squares" in names:
        found["squares"] = (p * p).sum(dim=0, keepdim=True)
    if "votes" in names:
        found["votes"] = p > 0.5 if sigmoid else _first_largest(p)
    if "log_probabilities" in names:
        found["log_probabilities"] = logarithm.clamp_(min=math.log(LOG_CLIP))
    return p, found


def _first_largest(p: torch.Tensor) -> torch.Tensor:
    """Where each channel of (C, ...) is the first that holds the largest value. torch's argmax takes many times as long."""
    import torch

    largest, votes = p.amax(dim=0), torch.empty_like(p, dtype=torch.bool)
    open_still = torch.ones_like(largest, dtype=torch.bool)
    for vote, of_channel in zip(votes, p, strict=True):
        torch.eq(of_channel, largest, out=vote)
        vote &= open_still
        open_still ^= vote
    return votes
