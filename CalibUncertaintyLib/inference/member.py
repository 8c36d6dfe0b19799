"""`Member`: one opinion, and `Prepared`: the case it is asked about."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..model.folder import Fold
from .prepare import PreparedCase


@dataclass(frozen=True)
class Member:
    """One opinion. flip: the axes this member is mirrored in, None where flips are averaged inside it or off (`mirroring`).

    model: index of the model folder. sample: number of the dropout sample, None without dropout.
    """

    index: int
    model: int
    fold: Fold
    checkpoint: str
    flip: tuple[int, ...] | None
    sample: int | None
    mirroring: bool

    def to_json(self) -> dict:
        """As it stands in result.json."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """One case as each model wants it. What leads back to the CT is the same for all, so the first stands for it."""

    cases: tuple[PreparedCase, ...]

    def __getattr__(self, name: str):
        return getattr(self.cases[0], name)
