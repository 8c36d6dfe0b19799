"""Members that are asked about one case once, and repeat it as often as they are asked again: what several calibrations share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ..model.member_set import MemberSet
from ..progress import Progress
from ..volume import Volume
from .kept_logits import logit_bytes, room_for_logits
from .member import Member, Prepared
from .members import MemberPredictor
from .scratch import Blocks, Scratch

if TYPE_CHECKING:
    import torch


class RememberingPredictor(MemberPredictor):
    """A `MemberPredictor` of one single case, whose logits wait in scratch files for the next time.

    What is repeated is equal to the bit and comes in the same pieces on the same device, so whatever is made of it is as well.
    A time that ended early, and logits that the disk has no room for, are not repeated: then the members run again.
    `spared_s` adds up the seconds that repeating has saved.
    """

    def __init__(self, chosen: MemberSet, *options, scratch: Scratch) -> None:
        """options: of `MemberPredictor`. scratch: whose files hold the logits until it is closed."""
        super().__init__(chosen, *options)
        self.spared_s = 0.0
        self._scratch = scratch
        self._prepared: tuple[Prepared, float] | None = None
        self._stores: dict[int, Blocks] | None = None  # by the member's number
        self._known: list[tuple[Member, list[tuple[int, int, torch.device]]]] | None = None
        self._cost_s, self._threads = 0.0, 1

    def prepare(self, volumes: Volume | Sequence[Volume], previous: np.ndarray | None = None) -> Prepared:
        """What was prepared the first time; the volumes are of the same case."""
        if self._prepared is None:
            began = time.perf_counter()
            self._prepared = super().prepare(volumes, previous), time.perf_counter() - began
        else:
            self.spared_s += self._prepared[1]
        return self._prepared[0]

    def predict(self, case: Prepared, progress: Progress) -> Iterator[tuple[Member, Iterator]]:
        """See `MemberPredictor.predict`."""
        if self._known is not None:
            return self._repeated(progress)
        self._stores = self._new_stores(case) if self._stores is None else self._stores
        return self._remembered(case, progress) if self._stores else super().predict(case, progress)

    def _new_stores(self, case: Prepared) -> dict[int, Blocks]:
        """Room for every member's logits; none where it is short."""
        shapes = [(self.n_classes, *map(int, prepared.data.shape[1:])) for prepared in case.cases]
        needed = sum(logit_bytes(self.n_classes, shapes[member.model][1:]) for member in self.members)
        try:
            if needed > room_for_logits(self._scratch.folder):  # computed again each time
                return {}
            return {
                member.index: self._scratch.blocks((channels, rows, columns), np.float16, planes)
                for member in self.members
                for channels, planes, rows, columns in [shapes[member.model]]
            }
        except OSError:
            self._scratch.close()
            return {}

    def _remembered(self, case: Prepared, progress: Progress) -> Iterator[tuple[Member, Iterator]]:
        import torch

        known, self._cost_s = [], 0.0
        with closing(super().predict(case, progress)) as asked:
            for member, planes in asked:
                self._threads = torch.get_num_threads()  # the order of additions is that of their number
                known.append((member, []))
                yield member, self._written(self._stores[member.index], planes, known[-1][1])
        self._known = known

    def _written(self, store: Blocks, planes: Iterator, pieces: list) -> Iterator[tuple[int, torch.Tensor]]:
        with closing(planes):
            began = time.perf_counter()
            for first, logits in planes:
                self._cost_s += time.perf_counter() - began
                store.write(first, logits.cpu().numpy())
                pieces.append((first, len(logits), logits.device))
                yield first, logits
                began = time.perf_counter()

    def _repeated(self, progress: Progress) -> Iterator[tuple[Member, Iterator]]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        self.forward_seconds = 0.0
        self.spared_s += self._cost_s
        try:
            for done, (member, pieces) in enumerate(self._known):
                progress.report(done / len(self._known), f"member {done + 1} of {len(self._known)}, known already")
                yield member, _read(self._stores[member.index], pieces)
        finally:
            torch.set_num_threads(threads)


def _read(store: Blocks, pieces: list) -> Iterator[tuple[int, torch.Tensor]]:
    import torch

    for first, count, device in pieces:
        values = store.read(first, first + count)
        yield first, torch.from_numpy(values.copy() if store.in_memory else values).to(device)
