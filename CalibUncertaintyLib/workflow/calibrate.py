"""The verb `calibrate`: labelled held-out cases and one or several ModelFolders give a CalibrationRecord."""

from __future__ import annotations

import errno
import numbers
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.devices import out_of_memory_in_words
from ..inference.members import MemberPredictor
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry
from ..model.record_match import computing
from ..progress import Progress
from ..volume import Volume
from .cascade import run_previous_stage
from .fit import Reference, fit_entries
from .labelled import FirstStage, LabelledCase, RoiVoxels, collect, read_cases, refuse_doubtful_cases
from .options import MemberOptions, is_number
from .record_file import add_to_record, check_record_file


@dataclass(frozen=True)
class CalibrateOptions(MemberOptions):
    """Everything one may choose about a run of `calibrate`; see `MemberOptions` for the members.

    roi_mm: fit within this distance of prediction or reference, mm. bootstrap: draws of cases for the interval, 0 for none.
    """

    roi_mm: float = 15.0
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.roi_mm, 0, 1000) or self.roi_mm == 0:
            raise CalibUncertaintyError(f"the ROI distance must lie above 0 and up to 1000 mm, got {self.roi_mm}")
        if isinstance(self.bootstrap, bool) or not isinstance(self.bootstrap, numbers.Integral) or self.bootstrap < 0:
            raise CalibUncertaintyError(
                f"the number of bootstrap draws must be a whole number from 0 up, got {self.bootstrap}"
            )


@out_of_memory_in_words()
def calibrate(
    cases: str | Path | Sequence[LabelledCase], model: str | Path | ModelFolder | Sequence[str | Path | ModelFolder],
    out: str | Path | None = None, *, progress: Progress | None = None, **options,
) -> tuple[Path, CalibrationEntry]:  # fmt: skip
    """Fit temperatures on held-out labelled cases and store them; returns the record's path and the `pool_logit` entry.

    Fits, within the ROI (distance from prediction or reference), by least NLL (Guo et al. 2017): one temperature of the pooled
    probability for each way of pooling, and one shared by the members for the measures that compare them; of a model with
    regions one for each region. Thresholds of every measure are those with the best overlap between marked voxels and errors
    (Jungo et al. 2020). An existing record of the same model keeps its other entries.
    model: a trained folder, or several that are asked together. out: record file; by default `calibration.json` in the (first)
    model folder.
    Raises CalibUncertaintyError, one line, for anything that is wrong with a case, the model or the record.
    """
    chosen, progress = CalibrateOptions(**options), progress or Progress()
    progress.begin()
    members = chosen.members_of(model)
    for folder in (*members.models, *(members.before.models if members.before else ())):
        folder.refuse_unsupported()
    first = members.models[0]
    listed = read_cases(cases) if isinstance(cases, str | Path) else list(cases)
    refuse_doubtful_cases(listed, members, progress)
    path = Path(os.path.realpath(out)) if out else first.record_path
    check_record_file(path, members)
    with _working_folder() as folder:
        predictor = MemberPredictor(
            members, chosen.device, chosen.step_size, chosen.trust_checkpoint, chosen.precision, chosen.trainers
        )
        for message in predictor.warnings:
            progress.warn(message)
        members = predictor.chosen  # less what turned out to hold the same weights
        recorded = members.as_recorded() | computing(chosen.step_size, chosen.precision)
        with Scratch(folder) as kept:
            voxels = collect_cases(
                listed, first, predictor, chosen.roi_mm, folder, progress,
                _FirstStage(members, chosen, folder, progress), kept,
            )  # fmt: skip
            with progress.stage("fit", 0.9, 1.0, "fitting temperatures and thresholds"):
                entries = fit_entries(voxels, recorded, Reference.of(first), chosen.roi_mm, chosen.bootstrap, progress)
            voxels.clear()  # they may be mapped to files, which cannot be removed everywhere as long as they are
    add_to_record(path, members, entries, progress)
    progress.finish()
    return path, entries[0]


@dataclass(frozen=True)
class _FirstStage:
    """What a cascade's first stage predicts on a case's images; None where there is none. What it warns of is said once."""

    members: MemberSet
    options: CalibrateOptions
    folder: Path
    progress: Progress
    said: set[str] = field(default_factory=set)

    def __call__(self, volumes: Sequence[Volume]) -> np.ndarray | None:
        stage = run_previous_stage(self.members, volumes, self.options, self.progress, self.folder)
        for warning in stage.warnings if stage else ():
            if warning not in self.said:
                self.said.add(warning)
                self.progress.warn(warning)
        return stage.labels if stage else None


@contextmanager
def _working_folder() -> Iterator[Path]:
    """A temporary folder for logits; its own troubles are said in one line."""
    remedy = "set TMPDIR to a folder on a disk with room and run again"
    named = os.environ.get("TMPDIR")
    # Python would take another place without a word
    if named and not (os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK)):
        raise CalibUncertaintyError(f"the temporary folder {named} (TMPDIR) is not there or not writable; {remedy}")
    try:
        place = tempfile.gettempdir()
        holder = tempfile.TemporaryDirectory(prefix="calib-uncertainty-", ignore_cleanup_errors=True)
    except OSError as error:
        place = tempfile.tempdir or "of the system"
        raise CalibUncertaintyError(
            f"the temporary folder {place} cannot be used ({error.strerror}); {remedy}"
        ) from error
    with holder as folder:
        try:
            yield Path(folder)
        except MemoryError as error:
            raise CalibUncertaintyError(
                "there is not enough memory to calibrate; close other programs, or take fewer folds or a smaller ROI"
            ) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise CalibUncertaintyError(f"the disk of the temporary folder {place} is full; {remedy}") from error


def collect_cases(
    cases: Sequence[LabelledCase],
    model: ModelFolder,
    predictor: MemberPredictor,
    roi_mm: float,
    folder: Path,
    progress: Progress,
    previous: FirstStage | None = None,
    kept: Scratch | None = None,
) -> list[RoiVoxels]:
    """Run the members on every case; what they say near the structures is kept in `kept`, or where that is None in `folder`.

    The caller closes `kept` when the voxels are done with; without it they stay as long as the folder.
    """
    found = []
    kept = Scratch(folder) if kept is None else kept
    for index, case in enumerate(cases):
        start, stop = 0.9 * index / len(cases), 0.9 * (index + 1) / len(cases)
        stage = progress.stage("cases", start, stop, f"case {case.id} ({index + 1} of {len(cases)})")
        with stage, tempfile.TemporaryDirectory(dir=folder) as place, Scratch(Path(place)) as passing:
            found.append(collect(case, model, predictor, roi_mm, passing, kept, progress, previous))
    return found
