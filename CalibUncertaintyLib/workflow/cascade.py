"""The first stage of a cascade: run before the second one, on the same CT, and handed to it as stock nnU-Net would."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..inference.members import MemberPredictor
from ..inference.opinions import Opinions
from ..inference.scratch import Scratch
from ..model.member_set import MemberSet, folds_in_words
from ..progress import Progress
from ..volume import Volume
from .options import MemberOptions


@dataclass(frozen=True)
class PreviousStage:
    """What a cascade's first stage predicted, and how.

    labels: (z, y, x) on the grid of the CT, uint8 or uint16, as stock nnU-Net writes them. provenance: JSON-ready, for
    result.json: the folder, its fingerprint (hashes), folds, and the same of a stage before it. warnings: for the user.
    """

    labels: np.ndarray
    provenance: dict
    warnings: tuple[str, ...] = field(default=())


def run_previous_stage(
    members: MemberSet, volumes: Sequence[Volume], options: MemberOptions, progress: Progress, folder: str | Path | None = None
) -> PreviousStage | None:  # fmt: skip
    """Segment with the first stage of a cascade; None where the members need none.

    `members.before` says which members it has; their logits are averaged as stock nnU-Net averages them. volumes: the input
    channels. options: device, precision and the like. folder: for scratch files, the system's temporary one by default.
    Raises CalibUncertaintyError, one line, for what is wrong with that model.
    """
    chosen = members.before
    if chosen is None:
        return None
    model = chosen.models[0]
    model.refuse_unsupported()
    began = time.perf_counter()
    before = run_previous_stage(chosen, volumes, options, progress, folder)
    predictor = MemberPredictor(
        chosen, options.device, options.step_size, options.trust_checkpoint, options.precision, options.trainers
    )
    case = predictor.prepare(volumes, before.labels if before else None)
    with _scratch(folder) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, _Named(progress, model.configuration))
        labels = _labels_of(opinions, predictor)
    provenance = {
        "stage": model.configuration,
        "folder": str(model.path),
        "folds": list(chosen.folds[0]),
        "flips": chosen.flips,
        "fingerprint": predictor.chosen.fingerprint(),
        "previous": before.provenance if before else None,
        "seconds": round(time.perf_counter() - began, 3),
    }
    warnings = (*_other_folds(chosen, members), *predictor.warnings, *(before.warnings if before else ()))
    return PreviousStage(labels, provenance, warnings)


def _other_folds(first: MemberSet, second: MemberSet) -> list[str]:
    """A sentence where the first stage could not be asked with the folds of the second."""
    wanted = list(
        dict.fromkeys(fold for index, fold, _ in second.sources() if second.models[index].previous_stage is not None)
    )
    used = list(first.folds[0])
    if set(wanted) <= set(used):
        return []
    return [
        f"The first stage of the cascade ({first.models[0].configuration}) does not have {folds_in_words(wanted)}; its"
        f" {folds_in_words(used)} {'was' if len(used) == 1 else 'were'} used instead"
    ]


def _labels_of(opinions: Opinions, predictor: MemberPredictor) -> np.ndarray:
    """Labels of the pooled logits on the whole CT, (z, y, x) in the CT's own order of axes."""
    highest = max(predictor.heads.values)
    labels = np.zeros(opinions.case.full_shape, np.uint8 if highest <= 255 else np.uint16)
    for box in opinions.boxes(1.0, 0.0)[0]:  # no probability exceeds 1: these are the places of labels
        inside = labels[box.slices]
        for slab in opinions.slabs(box):
            inside[slab.inside] = predictor.heads.label_of_logits(slab.pooled)
    return np.ascontiguousarray(opinions.case.frame.to_volume(labels))


@contextmanager
def _scratch(folder: str | Path | None):
    if folder is not None:
        with Scratch(folder) as scratch:
            yield scratch
        return
    with tempfile.TemporaryDirectory() as own, Scratch(own) as scratch:
        yield scratch


class _Named(Progress):
    """Reports within the caller's stage, with the first stage named."""

    def __init__(self, outer: Progress, stage: str) -> None:
        super().__init__()
        self._outer, self._stage = outer, stage

    def report(self, fraction_of_stage: float, message: str = "") -> None:
        self._outer.report(fraction_of_stage, f"first stage {self._stage}: {message}")

    def warn(self, message: str) -> None:
        self._outer.warn(message)
