"""The verb `segment`: a CT and a ModelFolder give a Result."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.members import MemberPredictor
from ..model.folder import ModelFolder
from ..progress import Progress
from ..reading import check_is_ct, check_volume
from ..result import Result
from ..volume import Volume
from .applied import AppliedCalibration, choose_calibration
from .maps import measure_names
from .options import SegmentOptions
from .report import write_result
from .run import Run
from .writing import check_output, output_folder, written_aside


def segment(
    ct: str | Path | Volume,
    model: str | Path | ModelFolder,
    out: str | Path,
    *,
    progress: Progress | None = None,
    **options,
) -> Result:
    """Segment a CT with calibrated probabilities and uncertainty maps; returns the finished Result folder, opened.

    ct: a file, a DICOM folder, or a `Volume` (HU). model: a trained nnU-Net v2 folder. out: the folder to make; it appears only
    when it is complete. options: see `SegmentOptions`. progress: told of every stage.
    Raises CalibUncertaintyError, one line, for anything that is wrong with the input, the model or the output folder, and
    Cancelled when `progress` says so.
    """
    chosen, progress, out = SegmentOptions(**options), progress or Progress(), output_folder(out)
    progress.begin()
    began = time.perf_counter()
    check_output(out, chosen.overwrite)
    model = model if isinstance(model, ModelFolder) else ModelFolder.open(model)
    _refuse_inputs_inside(out, ct, model)
    model.refuse_unsupported()
    folds = model.select_folds(chosen.folds)
    if chosen.measure not in measure_names(len(folds)):
        raise CalibUncertaintyError(
            f"{chosen.measure} compares several members and only one fold is used; choose more folds or another measure"
        )
    with progress.stage("read", 0.0, 0.02, "reading the CT"):
        volume, description = _read_ct(ct, chosen.series)
        warnings = [] if chosen.skip_ct_check else check_is_ct(volume, description)
    with progress.stage("load", 0.02, 0.05, "loading the model"):
        predictor = MemberPredictor(
            model, folds, chosen.device, chosen.mirroring, chosen.step_size, chosen.trust_checkpoint
        )  # fmt: skip
        calibration = choose_calibration(model, folds, chosen.mirroring, chosen.mode, chosen.calibration)
    warnings += _warnings(model, calibration, predictor)
    for message in warnings:
        progress.warn(message)
    with written_aside(out, chosen.overwrite) as aside:
        run = Run(volume, model, folds, chosen, calibration, predictor, out, aside, progress)
        run.compute()
        with progress.stage("write", 0.9, 0.995, "writing the maps"):
            write_result(aside, run, description, warnings, began)
    progress.finish()
    return Result.open(out)


def _refuse_inputs_inside(out: Path, ct: str | Path | Volume, model: ModelFolder) -> None:
    """With --overwrite the folder would take its own input with it."""
    inputs = [model.path] if isinstance(ct, Volume) else [Path(ct), model.path]
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(out):
            raise CalibUncertaintyError(
                f"{path} lies inside {out}, which the result would replace; choose another --out"
            )


def _read_ct(ct: str | Path | Volume, series: str | None) -> tuple[Volume, str]:
    if isinstance(ct, Volume):
        check_volume(ct, "the given volume")
        return ct, "the given volume"
    return Volume.read(ct, series), str(ct)


def _warnings(model: ModelFolder, calibration: AppliedCalibration, predictor: MemberPredictor) -> list[str]:
    warnings = []
    if not calibration.calibrated:
        warnings.append(f"The probabilities are NOT CALIBRATED: {calibration.reason}")
    elif calibration.status != "ok":
        warnings.append(
            f"The stored temperature ran to its limit when it was fitted ({calibration.status}); calibrate again"
        )
    if model.channels[0].upper() != "CT":
        warnings.append(f"The model was trained on '{model.channels[0]}' images, not on CT")
    if predictor.trainer and not predictor.trainer.startswith("nnUNetTrainer"):
        warnings.append(f"The model comes from a custom trainer ({predictor.trainer}); its plans' network was used")
    return warnings
