"""How runs of `segment` ask their members: each anew, or several runs of one case, which differ in calibration alone, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..inference.members import MemberPredictor
from ..inference.remembered import RememberingPredictor
from ..inference.scratch import Scratch
from ..model.member_set import MemberSet
from ..progress import Progress
from ..volume import Volume
from .cascade import PreviousStage, run_previous_stage
from .options import MemberOptions


class Asking:
    """Asks anew: every run loads its members, and runs them."""

    def predictor(self, members: MemberSet, options: MemberOptions) -> MemberPredictor:
        """The members, ready to be asked about a case."""
        return MemberPredictor(members, *_given(options))

    def previous(
        self, members: MemberSet, volumes: Sequence[Volume], options: MemberOptions, progress: Progress, folder: Path
    ) -> PreviousStage | None:
        """What the first stage of a cascade predicts; see `run_previous_stage`."""
        return run_previous_stage(members, volumes, options, progress, folder)


class AskingOnce(Asking):
    """Asks once for all runs of one case by the same members; a context, at whose end everything is let go.

    Members, device, precision and the like have to be the same in all runs; calibration, mode and what is made of it may differ.
    `spared_s`: seconds that the runs after the first were spared so far.
    """

    def __init__(self, folder: Path) -> None:
        """folder: for scratch files; exists."""
        self._scratch = Scratch(folder)
        self._predictor: tuple[RememberingPredictor, float] | None = None
        self._previous: tuple[PreviousStage | None, float] | None = None
        self._spared_s = 0.0

    @property
    def spared_s(self) -> float:
        """Seconds that loading, preparing and asking would have taken again."""
        return self._spared_s + (self._predictor[0].spared_s if self._predictor else 0.0)

    def predictor(self, members: MemberSet, options: MemberOptions) -> MemberPredictor:
        """The same predictor for every run."""
        if self._predictor is None:
            began = time.perf_counter()
            made = RememberingPredictor(members, *_given(options), scratch=self._scratch)
            self._predictor = made, time.perf_counter() - began
        else:
            self._spared_s += self._predictor[1]
        return self._predictor[0]

    def previous(
        self, members: MemberSet, volumes: Sequence[Volume], options: MemberOptions, progress: Progress, folder: Path
    ) -> PreviousStage | None:
        """The same prediction for every run."""
        if self._previous is None:
            began = time.perf_counter()
            found = super().previous(members, volumes, options, progress, folder)
            self._previous = found, time.perf_counter() - began
        else:
            self._spared_s += self._previous[1]
        return self._previous[0]

    def __enter__(self) -> AskingOnce:
        return self

    def __exit__(self, *_) -> None:
        self._predictor = None
        self._scratch.close()


def _given(options: MemberOptions) -> tuple:
    return options.device, options.step_size, options.trust_checkpoint, options.precision, options.trainers
