"""The verb `segment`: a CT and a ModelFolder give a Result."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.members import MemberPredictor, PreparedCase
from ..inference.opinions import Box, Opinions
from ..inference.scratch import Scratch
from ..model.folder import Fold, ModelFolder
from ..progress import Progress
from ..reading import check_is_ct, check_volume
from ..result import Result
from ..uncertainty.measures import MEASURES
from ..uncertainty.regions import FoundRegions, find_regions
from ..uncertainty.roi import distance_to_structures
from ..volume import Volume
from . import report
from .applied import MODES, AppliedCalibration, choose_calibration
from .maps import Maps, make_maps, what_matters
from .writing import check_output, check_space, output_folder, written_aside

EXPORTS = ("nifti",)


@dataclass(frozen=True)
class SegmentOptions:
    """Everything one may choose about a run of `segment`, with its defaults.

    folds: "all" or a list of folds. device: auto, cpu, cuda, cuda:1, mps. calibration: auto, none, or a record file.
    mode: pool_logit (labels as stock nnU-Net's) or pool_prob. mirroring: nnU-Net's test-time mirroring. roi_mm: how far from the
    predicted structures uncertain regions are listed, mm. measure, threshold: what regions are made of; "stored" takes the
    record's threshold, or our default where there is none. min_region_ml: smaller regions are not listed. miss_probability:
    foreground probability beyond the ROI that is listed as a possible miss. box_probability: every place whose foreground
    probability can exceed this is kept in the maps. full_volume: maps of the whole CT. export: ("nifti",) writes every map on
    the CT grid. overwrite: replace an earlier Result. series: DICOM SeriesInstanceUID. step_size: of nnU-Net's sliding
    window. trust_checkpoint: read checkpoints that hold more than data. skip_ct_check: take any voxel values.
    """

    folds: str | Sequence[Fold] = "all"
    device: str = "auto"
    calibration: str = "auto"
    mode: str = "pool_logit"
    mirroring: bool = True
    roi_mm: float = 15.0
    measure: str = "entropy"
    threshold: str | float = "stored"
    min_region_ml: float = 0.1
    miss_probability: float = 0.1
    box_probability: float = 0.01
    full_volume: bool = False
    export: Sequence[str] = ()
    overwrite: bool = False
    series: str | None = None
    step_size: float = 0.5
    trust_checkpoint: bool = False
    skip_ct_check: bool = False

    def __post_init__(self) -> None:
        stored = [name for name in MEASURES if name != "entropy_k"]
        rules = [
            (self.mode in MODES, f"mode '{self.mode}' is unknown; choose {' or '.join(MODES)}"),
            (self.measure in stored, f"measure '{self.measure}' is unknown; choose one of {', '.join(stored)}"),
            (_is_number(self.roi_mm, 0, 1000), f"the ROI distance must lie between 0 and 1000 mm, got {self.roi_mm}"),
            (
                self.threshold == "stored" or _is_number(self.threshold, 0, math.inf),
                f"the threshold must be 'stored' or a number from 0 up, got {self.threshold}",
            ),
            (
                _is_number(self.min_region_ml, 0, math.inf),
                f"the smallest region must be 0 mL or more, got {self.min_region_ml}",
            ),
            (
                _is_number(self.box_probability, 0, 1),
                f"the box probability must lie in 0 to 1, got {self.box_probability}",
            ),
            (
                _is_number(self.miss_probability, 0, 1) and self.miss_probability >= self.box_probability,
                f"the probability of a miss must lie between the box probability ({self.box_probability}) and 1,"
                f" got {self.miss_probability}",
            ),
            (_is_number(self.step_size, 0.05, 1), f"the step size must lie between 0.05 and 1, got {self.step_size}"),
            (
                not isinstance(self.export, str) and set(self.export) <= set(EXPORTS),
                f"export {self.export!r} is unknown; choose a list with 'nifti', or an empty one",
            ),
            *(
                (isinstance(getattr(self, name), bool), f"{name} must be true or false, got {getattr(self, name)!r}")
                for name in ("mirroring", "full_volume", "overwrite", "trust_checkpoint", "skip_ct_check")
            ),
        ]
        for holds, message in rules:
            if not holds:
                raise CalibUncertaintyError(message)

    @classmethod
    def names(cls) -> list[str]:
        """The options' names."""
        return [item.name for item in fields(cls)]


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
        run = _Run(volume, model, folds, chosen, calibration, predictor, out, aside, progress)
        run.compute()
        with progress.stage("write", 0.9, 0.995, "writing the maps"):
            report.write_result(aside, run, description, warnings, began)
    progress.finish()
    return Result.open(out)


@dataclass
class _Run:
    """One run's parts on their way; what `report` writes down."""

    volume: Volume
    model: ModelFolder
    folds: list[Fold]
    options: SegmentOptions
    calibration: AppliedCalibration
    predictor: MemberPredictor
    out: Path
    folder: Path
    progress: Progress

    def compute(self) -> None:
        """From voxels to maps and regions. Sets `maps`, `geometry`, `label`, `distance`, `regions`, `left_out`."""
        progress, chosen, scratch = self.progress, self.options, Scratch(self.folder)
        with progress.stage("preprocess", 0.05, 0.1, "nnU-Net's preprocessing"):
            self.case: PreparedCase = self.predictor.prepare(self.volume)
            values = self.predictor.n_classes * int(np.prod(self.case.data.shape[1:], dtype=np.int64))
            check_space(self.out, self.folder, 2 * values * len(self.predictor.members))
        with progress.stage("predict", 0.1, 0.75):
            opinions = Opinions.ask(self.predictor, self.case, scratch, progress)
        with progress.stage("maps", 0.75, 0.85, "probabilities and uncertainty"):
            box, self.left_out = opinions.foreground_box(
                what_matters(self.calibration), chosen.box_probability, chosen.roi_mm
            )
            if chosen.full_volume:
                box, self.left_out = opinions.whole(), 0.0
            n_classes = self.predictor.n_classes
            voxels = int(np.prod(box.shape, dtype=np.int64))
            exported = int(self.volume.array.size) * (1 + 4 * (n_classes + 5) * len(chosen.export))
            check_space(self.out, self.folder, 2 * 4 * voxels * (n_classes + 7) + exported)
            self.maps: Maps = make_maps(opinions, box, self.calibration, n_classes, scratch, progress)
        with progress.stage("regions", 0.85, 0.9, "distances and regions"):
            self._find_regions(box)

    def _find_regions(self, box: Box) -> None:
        frame = self.case.frame
        start = frame.start_in_volume(box.start, box.stop, self.case.full_shape)
        self.label = np.ascontiguousarray(frame.to_volume(self.maps.label))
        self.start = start
        self.geometry = self.volume.crop(start, self.label.shape)
        self.distance = distance_to_structures(self.label, self.volume.spacing_zyx)
        self.threshold, self.threshold_source = self.threshold_of(self.options.measure)
        if self.options.threshold != "stored":
            self.threshold, self.threshold_source = float(self.options.threshold), "value"
        if self.options.measure not in self.maps.measures:
            raise CalibUncertaintyError(
                f"{self.options.measure} compares several members and only one fold is used; choose more folds or another measure"
            )
        self.regions: FoundRegions = find_regions(
            frame.to_volume(self.maps.measures[self.options.measure]), self.distance, self.label,
            frame.to_volume(self.maps.foreground), frame.to_volume(self.maps.measures["conf"]),
            self.options.roi_mm, self.threshold, self.geometry, self.model.labels, self.options.min_region_ml * 1000.0,
            self.options.miss_probability, frame.to_volume(self.maps.likeliest),
        )  # fmt: skip

    def threshold_of(self, measure: str) -> tuple[float, str]:
        """The stored threshold of a measure, or our default."""
        stored = self.calibration.thresholds.get(measure)
        if stored:
            return float(stored["value"]), "stored"
        return float(MEASURES[measure].default_threshold(self.predictor.n_classes)), "default"


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
    if predictor.trainer not in ("", "nnUNetTrainer") and not predictor.trainer.startswith("nnUNetTrainer"):
        warnings.append(f"The model comes from a custom trainer ({predictor.trainer}); its plans' network was used")
    return warnings


def _is_number(value, low: float, high: float) -> bool:
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and low <= value <= high
        and math.isfinite(value)
    )
