"""The verb `calibrate`: labelled held-out cases and a ModelFolder give a CalibrationRecord."""

from __future__ import annotations

import errno
import json
import math
import numbers
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from ..calibration.temperature import FittedTemperature, TemperatureFit
from ..errors import CalibUncertaintyError
from ..evaluation.metrics import CalibrationMetrics, mean_over_cases
from ..inference.members import MemberPredictor
from ..model.folder import FINAL_CHECKPOINT, RECORD_NAME, Fold, ModelFolder
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_check import SCHEMA
from ..progress import Progress
from ..uncertainty.measures import MEASURES
from ..uncertainty.threshold import ThresholdFit
from .applied import MODES, AppliedCalibration, mean_probability, pooled_scores
from .labelled import CaseScratch, LabelledCase, RoiVoxels, collect, read_cases, refuse_doubtful_cases
from .maps import measure_names, measure_values
from .options import is_number
from .report import versions

CHUNK_VOXELS = 262_144
_FIGURES = ("nll", "ece_toplabel", "brier_mean", "accuracy", "mean_confidence", "signed_gap")


@dataclass(frozen=True)
class CalibrateOptions:
    """Everything one may choose about a run of `calibrate`; names as in `SegmentOptions`. bootstrap: draws of cases."""

    folds: str | Sequence[Fold] = "all"
    device: str = "auto"
    mirroring: bool = True
    roi_mm: float = 15.0
    step_size: float = 0.5
    trust_checkpoint: bool = False
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if not is_number(self.roi_mm, 0, 1000) or self.roi_mm == 0:
            raise CalibUncertaintyError(f"the ROI distance must lie above 0 and up to 1000 mm, got {self.roi_mm}")
        if not is_number(self.step_size, 0.05, 1):
            raise CalibUncertaintyError(f"the step size must lie between 0.05 and 1, got {self.step_size}")
        if isinstance(self.bootstrap, bool) or not isinstance(self.bootstrap, numbers.Integral) or self.bootstrap < 0:
            raise CalibUncertaintyError(
                f"the number of bootstrap draws must be a whole number from 0 up, got {self.bootstrap}"
            )

    @classmethod
    def names(cls) -> list[str]:
        """The options' names."""
        return [item.name for item in fields(cls)]


def calibrate(
    cases: str | Path | Sequence[LabelledCase], model: str | Path | ModelFolder, out: str | Path | None = None, *,
    progress: Progress | None = None, **options,
) -> tuple[Path, CalibrationEntry]:  # fmt: skip
    """Fit temperatures on held-out labelled cases and store them; returns the record's path and the `pool_logit` entry.

    Fits, within the ROI (distance from prediction or reference), by least NLL (Guo et al. 2017): one temperature of the pooled
    probability for each way of pooling, and one shared by the members for the measures that compare them. Thresholds of
    every measure are those with the best overlap between marked voxels and errors (Jungo et al. 2020). An existing record
    of the same model keeps its other entries.
    out: record file; by default `calibration.json` in the model folder.
    Raises CalibUncertaintyError, one line, for anything that is wrong with a case, the model or the record.
    """
    chosen, progress = CalibrateOptions(**options), progress or Progress()
    progress.begin()
    model = model if isinstance(model, ModelFolder) else ModelFolder.open(model)
    model.refuse_unsupported()
    folds = model.select_folds(chosen.folds)
    listed = read_cases(cases) if isinstance(cases, str | Path) else list(cases)
    refuse_doubtful_cases(listed, model, folds, progress)
    path = Path(os.path.realpath(out)) if out else model.record_path
    _check_record_file(path, model, folds)
    with _working_folder() as folder:
        predictor = MemberPredictor(
            model, folds, chosen.device, chosen.mirroring, chosen.step_size, chosen.trust_checkpoint
        )
        voxels = collect_cases(listed, model, predictor, chosen.roi_mm, folder, progress)
        with progress.stage("fit", 0.9, 1.0, "fitting temperatures and thresholds"):
            entries = _fit(voxels, model, folds, predictor, chosen, progress)
    # read now, not before the computing: another run may have added its members meanwhile
    record = _record_to_extend(path, model, folds, progress)
    for entry in entries:
        record.put(entry)
    record.versions = versions()
    record.write(path)
    progress.finish()
    return path, entries[0]


def _check_record_file(path: Path, model: ModelFolder, folds: list[Fold]) -> None:
    """Refuse, before the computing, a record file that belongs to another model or could not be written after it."""
    if not path.parent.is_dir():
        raise CalibUncertaintyError(f"{path.parent} does not exist; choose a folder that does with --out")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CalibUncertaintyError(
            f"{path} cannot be written ({error.strerror}); choose another place with --out"
        ) from error
    _readable_record(path, model, folds)


def _readable_record(path: Path, model: ModelFolder, folds: list[Fold]) -> CalibrationRecord | None:
    """The record that is there; None where there is none or it cannot be used. Raises where the file is anything else."""
    if not path.exists():
        return None
    if path.is_dir():
        raise CalibUncertaintyError(f"{path} is a folder; name the record's file with --out, as in {path / RECORD_NAME}")
    try:
        record = CalibrationRecord.read(path)
    except CalibUncertaintyError as error:
        if not _was_a_record(path):
            raise CalibUncertaintyError(f"{path} is not a calibration record; choose another --out") from error
        return None
    if record.is_of_another_model(model.fingerprint(folds)):
        raise CalibUncertaintyError(
            f"{path} is the record of another model ({record.model['name']}); choose another --out"
        )
    return record


def _was_a_record(path: Path) -> bool:
    """A record that is damaged or of another version, as against somebody's other file that was named by mistake."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); choose another --out") from error
    try:
        document = json.loads(content)
    except ValueError:  # cut short, or nothing left of it
        return path.suffix == ".json" or SCHEMA.encode() in content
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def _record_to_extend(path: Path, model: ModelFolder, folds: list[Fold], progress: Progress) -> CalibrationRecord:
    """The record to add to. A file that is there and cannot be used is set aside, not lost."""
    record = _readable_record(path, model, folds)
    if record is None and path.exists():
        number = 1
        while (aside := path.with_name(f"{path.name}.bak-{number}")).exists():
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            raise CalibUncertaintyError(f"{path} cannot be set aside ({error.strerror}); choose another --out") from error
        progress.warn(
            f"The calibration record that was there is damaged or of another version; it was set aside as {aside}"
        )
    return record or CalibrationRecord.for_model(model.fingerprint(folds))


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
        raise CalibUncertaintyError(f"the temporary folder {place} cannot be used ({error.strerror}); {remedy}") from error
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
) -> list[RoiVoxels]:
    """Run the members on every case; what they say near the structures is kept in `folder`."""
    found = []
    kept = CaseScratch(folder)
    for index, case in enumerate(cases):
        start, stop = 0.9 * index / len(cases), 0.9 * (index + 1) / len(cases)
        stage = progress.stage("cases", start, stop, f"case {case.id} ({index + 1} of {len(cases)})")
        with stage, tempfile.TemporaryDirectory(dir=folder) as passing:
            found.append(collect(case, model, predictor, roi_mm, CaseScratch(Path(passing)), kept, progress))
    return found


def _fit(
    cases: list[RoiVoxels], model: ModelFolder, folds: list[Fold], predictor: MemberPredictor, chosen: CalibrateOptions,
    progress: Progress,
) -> list[CalibrationEntry]:  # fmt: skip
    if not any(case.size for case in cases):
        raise CalibUncertaintyError("no structure was predicted or drawn in any case; there is nothing to calibrate on")
    fits = {mode: TemperatureFit() for mode in MODES}
    shared = TemperatureFit()
    for index, voxels in enumerate(cases):
        for part in _parts(voxels.size):
            pooled, members, labels = voxels.pooled[:, part], voxels.members[..., part], voxels.labels[part]
            mean = mean_probability(members)
            for mode in MODES:
                fits[mode].add(voxels.case.id, pooled_scores(mode, None, pooled, mean)[0], labels)
            shared.add(voxels.case.id, members, labels)
        progress.report(0.5 * (index + 1) / len(cases), "fitting temperatures")
    member = shared.fit(bootstrap=0)
    for message in member.warnings:
        progress.warn(f"{message}; the temperature says nothing about the others")
    checkpoints = model.fingerprint(folds)["checkpoints"]
    described = {
        "folds": folds,
        "checkpoint": FINAL_CHECKPOINT,
        "checkpoints": checkpoints,
        "mirroring": chosen.mirroring,
    }
    fitted = {mode: fit.fit(chosen.bootstrap) for mode, fit in fits.items()}
    return [_entry(cases, mode, fitted[mode], member, described, chosen.roi_mm, predictor, progress) for mode in MODES]


def _entry(
    cases: list[RoiVoxels], mode: str, fitted: FittedTemperature, member: FittedTemperature, described: dict, roi_mm: float,
    predictor: MemberPredictor, progress: Progress,
) -> CalibrationEntry:  # fmt: skip
    if fitted.status != "ok":
        progress.warn(
            f"{mode}: the temperature ran to its limit ({fitted.temperature:g}, {fitted.status}); look at the cases"
        )
    before = AppliedCalibration(mode)
    after = AppliedCalibration(mode, fitted.temperature, member.temperature, calibrated=True)
    return CalibrationEntry(
        members=described,
        mode=mode,
        temperature=fitted.temperature,
        temperature_interval=fitted.interval if math.isfinite(fitted.interval[0]) else None,
        temperature_status=fitted.status,
        member_temperature=member.temperature,
        roi={"distance_mm": roi_mm, "reference": "union"},
        cases=list(fitted.cases),
        figures={"before": figures(cases, before), "after": figures(cases, after)},
        thresholds=_thresholds(cases, after, predictor.n_classes, len(predictor.members)),
    )


def figures(cases: Sequence[RoiVoxels], calibration: AppliedCalibration) -> dict:
    """NLL, ECE, Brier score and more over the ROI voxels, as mean over cases and pooled over all voxels."""
    results, pooled = [], None
    changed = 0
    for voxels in cases:
        metrics = CalibrationMetrics(voxels.pooled.shape[0])
        for part in _parts(voxels.size):
            mean = mean_probability(voxels.members[..., part]) if calibration.mode == "pool_prob" else None
            p, _, by_temperature = calibration.probabilities(voxels.pooled[:, part], mean)
            metrics.add(p, voxels.labels[part])
            changed += by_temperature
        results.append(metrics.result())
        if pooled is None:
            pooled = CalibrationMetrics(voxels.pooled.shape[0])
        pooled.merge(metrics)
    return {
        "per_case": mean_over_cases(results),
        "pooled": {key: value for key, value in pooled.result().items() if key != "bins"},
        "cases": {voxels.case.id: {key: r[key] for key in _FIGURES} for voxels, r in zip(cases, results, strict=True)},
        "bins": pooled.result()["bins"],
        "changed_by_temperature": changed,
    }


def _thresholds(cases: list[RoiVoxels], calibration: AppliedCalibration, n_classes: int, n_members: int) -> dict:
    """For every measure the threshold whose marked voxels overlap best with the errors, in the ROI a new patient has."""
    names = measure_names(n_members)
    fits = {name: ThresholdFit(name, MEASURES[name].upper(n_classes, n_members)) for name in names}
    for voxels in cases:
        for part in _parts(voxels.size):
            near = voxels.near_prediction[part]
            members = voxels.members[..., part][..., near]
            mean = mean_probability(members) if calibration.mode == "pool_prob" else None
            p, label, _ = calibration.probabilities(voxels.pooled[:, part][:, near], mean)
            wrong = label != voxels.labels[part][near]
            for name, values in measure_values(p, members, calibration).items():
                fits[name].add(voxels.case.id, values, wrong)
    fitted = {name: fit.fit() for name, fit in fits.items()}
    return {name: threshold.to_json() for name, threshold in fitted.items() if threshold.status == "ok"}


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK_VOXELS, size)) for start in range(0, size, CHUNK_VOXELS))
