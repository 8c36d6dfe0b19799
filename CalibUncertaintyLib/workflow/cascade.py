"""The first stage of a cascade: run before the second one, on the same CT, and handed to it as stock nnU-Net would."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.members import MemberPredictor
from ..inference.opinions import Opinions
from ..inference.scratch import Scratch
from ..model.folder import Fold, ModelFolder
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


def previous_of(members: MemberSet, options: MemberOptions) -> ModelFolder | None:
    """The model that must be run before these; None where none of them is the second stage of a cascade.

    Raises CalibUncertaintyError where it is missing or damaged, and where models of the set need different ones.
    """
    cascades = [model for model in members.models if model.previous_stage is not None]
    if not cascades:
        if options.previous is not None:
            raise CalibUncertaintyError(
                f"{members.models[0].name} ({members.models[0].configuration}) is no second stage of a cascade; leave --previous"
                " out"
            )
        return None
    found = [model.previous_model(options.previous) for model in cascades]
    for model, other in zip(cascades, found, strict=True):
        if os.path.realpath(other.path) != os.path.realpath(found[0].path):
            raise CalibUncertaintyError(
                f"{cascades[0].path} and {model.path} have first stages of their own; ask these models one at a time, or name"
                " one first stage for all with --previous DIR"
            )
    found[0].refuse_unsupported()
    return found[0]


def run_previous_stage(
    members: MemberSet, volumes: Sequence[Volume], options: MemberOptions, progress: Progress, folder: str | Path | None = None
) -> PreviousStage | None:  # fmt: skip
    """Segment with the first stage of a cascade; None where the members need none.

    The folds asked of the second stage are averaged where the first has all of them, else all that it has; checkpoint_final of
    each, flips averaged unless they are off. volumes: the input channels. folder: for scratch files, the temporary one by default.
    Raises CalibUncertaintyError, one line, for what is wrong with that model.
    """
    model = previous_of(members, options)
    if model is None:
        return None
    began = time.perf_counter()
    folds, warnings = _folds_of(model, members)
    flips = "off" if members.flips == "off" else "mean"
    chosen = MemberSet.choose(model, folds, flips=flips)
    before = run_previous_stage(chosen, volumes, replace(options, previous=None), progress, folder)
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
        "folds": list(folds),
        "flips": flips,
        "fingerprint": predictor.chosen.fingerprint(),
        "previous": before.provenance if before else None,
        "seconds": round(time.perf_counter() - began, 3),
    }
    warnings += [*predictor.warnings, *(before.warnings if before else ())]
    return PreviousStage(labels, provenance, tuple(warnings))


def _folds_of(model: ModelFolder, members: MemberSet) -> tuple[list[Fold], list[str]]:
    """The folds of the first stage, and a sentence where they are not those of the second."""
    wanted = list(
        dict.fromkeys(fold for index, fold, _ in members.sources() if members.models[index].previous_stage is not None)
    )
    if all(model.checkpoint_path(fold).is_file() for fold in wanted):
        return wanted, []
    return list(model.folds), [
        f"The first stage of the cascade ({model.configuration}) does not have {folds_in_words(wanted)}; its"
        f" {folds_in_words(model.folds)} {'was' if len(model.folds) == 1 else 'were'} used instead"
    ]


def _labels_of(opinions: Opinions, predictor: MemberPredictor) -> np.ndarray:
    """Labels of the pooled logits on the whole CT, (z, y, x) in the CT's own order of axes."""
    highest = max(predictor.heads.values)
    labels = np.zeros(opinions.case.full_shape, np.uint8 if highest <= 255 else np.uint16)
    for slab in opinions.slabs(opinions.whole()):
        labels[slab.inside] = predictor.heads.label_of_logits(slab.pooled)
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
