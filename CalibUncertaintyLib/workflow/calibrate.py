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

from ..calibration.methods import METHODS, method_of
from ..errors import CalibUncertaintyError
from ..inference.devices import out_of_memory_in_words
from ..inference.members import MemberPredictor
from ..inference.scratch import Scratch
from ..model.calibrated_range import CalibratedRange
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_check import MODES
from ..model.record_match import computing
from ..progress import Progress
from ..volume import Volume
from .candidates import Candidate, Reference, forget_volume
from .cascade import run_previous_stage
from .compare import candidates_of, compare
from .fit import ensemble_entries, fit_entries
from .labelled import FirstStage, LabelledCase, RoiVoxels, collect, read_cases, refuse_doubtful_cases
from .options import STRUCTURES, MemberOptions, is_number, lists, paths, refuse_first, roi_rule, truths
from .proof import check_proof_folder, proof_of, write_proof
from .record_file import add_to_record, check_record_file
from .sources import collect_npz, collect_out_of_fold, members_of_fold, npz_of, out_of_fold_cases

SEVERAL_MODES = ("pool", "all", "auto")


@dataclass(frozen=True)
class CalibrateOptions(MemberOptions):
    """Everything one may choose about a run of `calibrate`; see `MemberOptions` for the members.

    roi_mm: fit within this distance of prediction or reference, mm. roi: "structures" for that, or "body": fit in all of the
    patient's body (`body_of`), for runs of `segment` with that region; most of it is sure background, which then decides on
    temperatures and figures, and every voxel of it is kept for each member while it is fitted. bootstrap: draws of cases for
    the interval, 0 for none. mode: how members are pooled: pool_logit, pool_prob, shared, member; pool (both ways of pooling
    first), all, or auto. method: temperature, another calibrator's name, or auto. auto chooses by cross-validation over cases,
    among what changes no label. allow_changed_labels: store a method that changes labels; without it such a method is fitted,
    shown and refused. split: of a list of cases that has a column "split" (default: calibration). splits: splits_final.json,
    where `cases` is a raw nnU-Net dataset. excluded: identifiers of cases that must not be used. resample_labels: bring label
    maps of another grid to the CT's. npz: folders with stock nnU-Net's saved probabilities, one for each member, in place of
    running the model. proof: folder for a report with pictures of the first entry.
    """

    roi_mm: float = 15.0
    roi: str = STRUCTURES
    bootstrap: int = 1000
    mode: str = "pool"
    method: str = "temperature"
    allow_changed_labels: bool = False
    split: str | None = None
    splits: str | os.PathLike | None = None
    excluded: Sequence[str] = ()
    resample_labels: bool = False
    npz: Sequence[str | os.PathLike] = ()
    proof: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.roi_mm, 0, 1000) or self.roi_mm == 0:
            raise CalibUncertaintyError(f"the ROI distance must lie above 0 and up to 1000 mm, got {self.roi_mm}")
        if isinstance(self.bootstrap, bool) or not isinstance(self.bootstrap, numbers.Integral) or self.bootstrap < 0:
            raise CalibUncertaintyError(
                f"the number of bootstrap draws must be a whole number from 0 up, got {self.bootstrap}"
            )
        if self.mode not in (*MODES, *SEVERAL_MODES):
            raise CalibUncertaintyError(f"mode '{self.mode}' is unknown; choose {', '.join((*MODES, *SEVERAL_MODES))}")
        if not isinstance(self.method, str):
            raise CalibUncertaintyError(f"the method must be one name, got {self.method!r}")
        if self.method != "auto":
            method_of(self.method)
        kinds = truths(self, "allow_changed_labels", "resample_labels") + paths(self, "splits", "proof")
        refuse_first([roi_rule(self), *kinds, *lists(self, "excluded", "npz")])


@out_of_memory_in_words()
def calibrate(
    cases: str | Path | Sequence[LabelledCase], model: str | Path | ModelFolder | Sequence[str | Path | ModelFolder],
    out: str | Path | None = None, *, progress: Progress | None = None, **options,
) -> tuple[Path, CalibrationEntry]:  # fmt: skip
    """Fit a calibration on held-out labelled cases and store it; returns the record's path and its first new entry.

    Fits, within the ROI (distance from prediction or reference, or the body), by least NLL (Guo et al. 2017): by default one
    temperature of the pooled probability for each way of pooling, and one shared by the members for the measures that compare
    them; of a model with regions one for each region. Thresholds of every measure are those with the best overlap between
    marked voxels and errors (Jungo et al. 2020). An existing record of the same model keeps its other entries.
    cases: a CSV or JSON list, cases, or a raw nnU-Net dataset (Dataset###_Name): then each fold is fitted on the cases that it did
    not see, and the ensemble in the modes `shared` and `member`, which need no case that all folds did not see.
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
    path = Path(os.path.realpath(out)) if out else first.record_path
    check_record_file(path, members)
    if chosen.proof is not None:
        check_proof_folder(chosen.proof)
    of_dataset = isinstance(cases, str | Path) and Path(cases).is_dir()
    source = out_of_fold_entries if of_dataset else stored_entries if chosen.npz else held_out_entries
    with working_folder() as folder, Scratch(folder) as kept:
        members, entries = source(cases, members, chosen, folder, kept, progress)
    refuse_changed_labels(entries, chosen)
    add_to_record(path, members, entries, progress)
    if chosen.proof is not None:
        classes = Reference.of(first).classes
        proof = proof_of(entries[0], CalibrationRecord.read(path), classes, members.describe(), entries[0].compared)
        write_proof(Path(chosen.proof), proof)
    progress.finish()
    return path, entries[0]


def held_out_entries(
    cases: str | Path | Sequence[LabelledCase], members: MemberSet, chosen: CalibrateOptions, folder: Path, kept: Scratch,
    progress: Progress,
) -> tuple[MemberSet, list[CalibrationEntry]]:  # fmt: skip
    """Of cases that no member was trained on; the members that were asked, and what was fitted."""
    listed = read_cases(cases, chosen.split) if isinstance(cases, str | Path) else list(cases)
    refuse_doubtful_cases(listed, members, progress, chosen.excluded)
    predictor = predictor_of(members, chosen)
    for message in predictor.warnings:
        progress.warn(message)
    members = predictor.chosen  # less what turned out to hold the same weights
    sigmoid = members.models[0].heads.sigmoid
    candidates = candidates_of(chosen.mode, chosen.method, len(predictor.members), sigmoid)
    spatial = any(METHODS[candidate.method].spatial for candidate in candidates)
    voxels = collect_cases(
        listed, members.models[0], predictor, chosen.roi_mm, folder, progress,
        _FirstStage(members, chosen, folder, progress), kept, chosen.resample_labels, spatial, chosen.roi,
    )  # fmt: skip
    return members, fitted_entries(voxels, members, candidates, chosen, progress, "held_out")


def stored_entries(
    cases: str | Path | Sequence[LabelledCase], members: MemberSet, chosen: CalibrateOptions, folder: Path, kept: Scratch,
    progress: Progress,
) -> tuple[MemberSet, list[CalibrationEntry]]:  # fmt: skip
    """Of stock nnU-Net's saved probabilities, a folder for each of the members that were asked for."""
    listed = read_cases(cases, chosen.split) if isinstance(cases, str | Path) else list(cases)
    refuse_doubtful_cases(listed, members, progress, chosen.excluded)
    if len(chosen.npz) != members.least_members or members.flips == "members" or members.dropout:
        raise CalibUncertaintyError(
            f"{len(chosen.npz)} folders of probabilities for {members.describe()}; give one for each fold, made with the same flips"
        )
    candidates = candidates_of(chosen.mode, chosen.method, len(chosen.npz), members.models[0].heads.sigmoid)
    if any(METHODS[candidate.method].spatial for candidate in candidates):
        raise CalibUncertaintyError("a method that looks at neighbours needs the model to be run; leave --npz out")
    files, voxels = npz_of(listed, chosen.npz), []
    for index, case in enumerate(listed):
        with progress.stage("cases", 0.9 * index / len(listed), 0.9 * (index + 1) / len(listed), f"case {case.id}"):
            voxels.append(
                collect_npz(
                    case, files[case.id], members.models[0], chosen.roi_mm, kept, progress, chosen.resample_labels, chosen.roi
                )
            )
    return members, fitted_entries(voxels, members, candidates, chosen, progress, "stored_probabilities")


def out_of_fold_entries(
    cases: str | Path, members: MemberSet, chosen: CalibrateOptions, folder: Path, kept: Scratch, progress: Progress
) -> tuple[MemberSet, list[CalibrationEntry]]:
    """Of a raw nnU-Net dataset: each fold on the cases it did not see.

    One entry for every fold alone; and for several folds together those modes that calibrate each member before averaging, since
    no case is held out of all folds: `member` takes each fold's own temperature, `shared` one temperature for all.
    """
    of_folds = out_of_fold_cases(cases, members, chosen.splits, chosen.excluded)
    if chosen.method != "temperature":
        raise CalibUncertaintyError(
            "on the cases that each fold did not see only temperatures can be fitted: there is no pool of all folds to calibrate;"
            " leave --method out, or give a list of cases that no fold has seen"
        )
    found = collect_out_of_fold(
        of_folds, members, lambda some: predictor_of(some, chosen), chosen.roi_mm, folder, progress, kept,
        lambda some: _FirstStage(some, chosen, folder, progress), chosen.resample_labels, chosen.roi,
    )  # fmt: skip
    entries, reference = [], Reference.of(members.models[0])
    for fold, voxels in found.items():
        alone = members_of_fold(members, fold)
        recorded = alone.as_recorded() | computing(chosen.step_size, chosen.precision)
        entries += fit_entries(
            voxels, recorded, reference, chosen.roi_mm, chosen.bootstrap, progress, [Candidate()], "out_of_fold"
        )
    if len(found) > 1:
        recorded = members.as_recorded() | computing(chosen.step_size, chosen.precision)
        entries = [*ensemble_entries(found, recorded, reference, chosen.roi_mm, chosen.bootstrap, progress), *entries]
        progress.warn(
            "No case is held out of all folds: the ensemble was calibrated in the modes shared and member only; its figures are"
            " those of the single folds on the cases each did not see"
        )
    return members, entries


def predictor_of(members: MemberSet, chosen: CalibrateOptions) -> MemberPredictor:
    """The predictor of some members, as the options say."""
    return MemberPredictor(
        members, chosen.device, chosen.step_size, chosen.trust_checkpoint, chosen.precision, chosen.trainers
    )


def fitted_entries(
    voxels: list[RoiVoxels], members: MemberSet, candidates: Sequence[Candidate], chosen: CalibrateOptions, progress: Progress,
    source: str,
) -> list[CalibrationEntry]:  # fmt: skip
    """Fit the candidates, or of those that are compared the best one; the voxels are let go."""
    recorded = members.as_recorded() | computing(chosen.step_size, chosen.precision)
    reference, rows = Reference.of(members.models[0]), []
    with progress.stage("fit", 0.9, 1.0, "fitting"):
        if "auto" in (chosen.mode, chosen.method):
            rows = compare(voxels, candidates, reference, progress)
            best = next(row for row in rows if row["chosen"])
            candidates = [Candidate(best["mode"], best["method"])]
        entries = fit_entries(
            voxels, recorded, reference, chosen.roi_mm, chosen.bootstrap, progress, candidates, source, rows
        )
    for message in cautions_of(entries):
        progress.warn(message)
    forget_volume()
    voxels.clear()  # they may be mapped to files, which cannot be removed everywhere as long as they are
    return entries


def cautions_of(entries: Sequence[CalibrationEntry]) -> list[str]:
    """How little few cases say, once."""
    ranges = [CalibratedRange.from_json(entry.range) for entry in entries if entry.range is not None]
    return list(dict.fromkeys(caution for found in ranges if (caution := found.caution())))


def refuse_changed_labels(entries: Sequence[CalibrationEntry], chosen: CalibrateOptions) -> None:
    """A method that changes labels is shown with what it does to them, and stored only when that was allowed."""
    for entry in entries:
        before, after = entry.figures["before"], entry.figures["after"]
        if entry.method == "temperature" or not after["changed_by_temperature"] or chosen.allow_changed_labels:
            continue
        raise CalibUncertaintyError(
            f"{entry.method} changes {after['changed_by_temperature']:,} labels on the calibration cases (mean Dice"
            f" {before['per_case']['dice']:.4f} before, {after['per_case']['dice']:.4f} after; NLL {before['per_case']['nll']:.4f}"
            f" before, {after['per_case']['nll']:.4f} after); nothing was stored: allow it with --allow-changed-labels, or choose a"
            " method that changes none, such as temperature"
        )


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
def working_folder() -> Iterator[Path]:
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
    resample_labels: bool = False,
    with_volume: bool = False,
    roi: str = STRUCTURES,
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
            found.append(
                collect(
                    case, model, predictor, roi_mm, passing, kept, progress, previous, resample_labels, with_volume, roi=roi
                )
            )
    return found
