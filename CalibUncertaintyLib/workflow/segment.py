"""The verb `segment`: a CT and a ModelFolder give a Result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.devices import out_of_memory_in_words
from ..inference.estimate import Estimate
from ..inference.kept_logits import room_for_logits
from ..inference.members import MemberPredictor
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet
from ..progress import Progress
from ..result import Result
from ..uncertainty.context_law import ContextLaw
from ..volume import Volume
from .applied import AppliedCalibration, calibration_of
from .asking import Asking
from .chosen_measures import (
    context_measure_names,
    extras_of,
    measure_names,
    refuse_without_law,
    refuse_without_members,
    values_of_extras,
)
from .inputs import check_channels, read_channels
from .map_writer import MapWriter
from .options import SegmentOptions
from .out_place import refuse_inside_model
from .preflight import check_ct_size, check_fits, estimate_run
from .report import write_result
from .run import Run
from .writing import check_output, output_folder, written_aside


@out_of_memory_in_words()
def segment(
    ct: str | Path | Volume | Sequence[str | Path | Volume],
    model: str | Path | ModelFolder | Sequence[str | Path | ModelFolder],
    out: str | Path,
    *,
    progress: Progress | None = None,
    asking: Asking | None = None,
    **options,
) -> Result:
    """Segment a CT with calibrated probabilities and uncertainty maps; returns the finished Result folder, opened.

    ct: a file, a DICOM folder, or a `Volume` (HU); a list of them for a model with several input channels. model: a trained
    nnU-Net v2 folder, or several with the same structures. out: the folder to make; it appears only when it is complete.
    options: see `SegmentOptions`. progress: told of every stage. asking: shared by runs of the same CT and members that differ in
    calibration; by default the members are asked anew.
    Raises CalibUncertaintyError, one line, for anything that is wrong with the input, the model or the output folder, and
    Cancelled when `progress` says so.
    """
    chosen, progress, out = SegmentOptions(**options), progress or Progress(), output_folder(out)
    asking = asking or Asking()
    progress.begin()
    began = time.perf_counter()
    check_output(out, chosen.overwrite)
    refuse_inside_model(out)
    members = chosen.members_of(model)
    _refuse_inputs_inside(out, ct, members)
    for folder in (*members.models, *_stages_before(members)):
        folder.refuse_unsupported()
    by_name = [chosen.measure, *([] if isinstance(chosen.measures, str) else chosen.measures)]
    refuse_without_members(by_name, members.least_members)
    with progress.stage("read", 0.0, 0.02, "reading the CT"):
        for given in [ct] if isinstance(ct, str | Path | Volume) else ct:
            check_ct_size(given)
        volumes, description = read_channels(ct, members.models[0], chosen.series)
        warnings = [] if chosen.skip_ct_check else check_channels(volumes, members.models[0], description)
    with progress.stage("load", 0.02, 0.05, "loading the model"):
        predictor = asking.predictor(members, chosen)
        members = predictor.chosen
        refuse_without_members(by_name, len(predictor.members))  # fewer, where checkpoints hold the same weights
        calibration = calibration_of(
            members, chosen.mode, chosen.calibration, predictor.heads, chosen.step_size, chosen.precision
        )
        refuse_without_law(by_name, calibration.context)
        estimate, short = _estimated(members, predictor, volumes[0], chosen, out, calibration.context)
        progress.report(1.0, estimate.sentence(str(out)))
    warnings += [*short, *predictor.warnings, *_warnings(members, calibration)]
    for message in warnings:
        progress.warn(message)
    with written_aside(out, chosen.overwrite) as aside, Scratch(aside) as scratch:
        previous = None
        if members.before is not None:
            with progress.stage("previous stage", 0.05, 0.2, "the first stage of the cascade"):
                previous = asking.previous(members, volumes, chosen, progress, aside)
            for message in previous.warnings:
                progress.warn(message)
            warnings += previous.warnings
        run = Run(volumes, members, chosen, calibration, predictor, previous, estimate, out, aside, progress)
        run.compute(scratch)
        with MapWriter(aside, run) as writer:
            run.look_through()
            found = [*run.threshold_of_another_roi(), *run.outside_of_calibration(), *run.thin_structures()]
            for message in found:
                progress.warn(message)
            warnings += found
            with progress.stage("write", 0.9, 0.995, "writing the maps"):
                write_result(aside, run, writer, description, warnings, began, scratch)
    progress.finish()
    return Result.open(out)


def _refuse_inputs_inside(out: Path, ct, members: MemberSet) -> None:
    """With --overwrite the folder would take its own input with it."""
    given = [ct] if isinstance(ct, str | Path | Volume) else list(ct)
    inputs = [Path(item) for item in given if not isinstance(item, Volume)] + [
        model.path for model in (*members.models, *_stages_before(members))
    ]
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(out):
            raise CalibUncertaintyError(
                f"{path} lies inside {out}, which the result would replace; choose another --out"
            )


def _estimated(
    members: MemberSet,
    predictor: MemberPredictor,
    volume: Volume,
    chosen: SegmentOptions,
    out: Path,
    law: ContextLaw | None,
) -> tuple[Estimate, list[str]]:
    """What the run will take, and warnings where it may not fit. Raises CalibUncertaintyError where it surely does not."""
    device = str(predictor.device)
    names = measure_names(len(predictor.members), chosen.measures, [chosen.measure])
    names += context_measure_names(law, chosen.measures, [chosen.measure])
    heads = predictor.heads
    estimate = estimate_run(
        members, volume, device, precision=chosen.precision, step_size=chosen.step_size,
        flips_allowed=3 if predictor.mirroring or chosen.flips == "members" else 0, full_volume=chosen.whole_maps,
        export=bool(chosen.export), measures=len(names),
        extras=values_of_extras(extras_of(names), heads.channels, heads.sigmoid),
        kept_bytes=room_for_logits(out.parent),
        n_members=[sum(member.model == index for member in predictor.members) for index in range(len(members.models))],
    )  # fmt: skip
    return estimate, check_fits(estimate, device, out.parent)


def _stages_before(members: MemberSet) -> list[ModelFolder]:
    """The model folders of a cascade's earlier stages."""
    found, before = [], members.before
    while before is not None:
        found += before.models
        before = before.before
    return found


def _warnings(members: MemberSet, calibration: AppliedCalibration) -> list[str]:
    warnings = []
    if not calibration.calibrated:
        warnings.append(f"The probabilities are NOT CALIBRATED: {calibration.reason}")
    elif calibration.status != "ok":
        warnings.append(
            f"The stored temperature ran to its limit when it was fitted ({calibration.status}); calibrate again"
        )
    channels = members.models[0].channels
    if channels[0].upper() != "CT":
        warnings.append(f"The model was trained on '{channels[0]}' images, not on CT")
    return warnings
