"""One run of `segment` on its way from voxels to maps and regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..inference.members import MemberPredictor, PreparedCase
from ..inference.opinions import Box, Opinions
from ..inference.scratch import Scratch
from ..model.folder import Fold, ModelFolder
from ..progress import Progress
from ..uncertainty.measures import MEASURES
from ..uncertainty.regions import FoundRegions, find_regions
from ..uncertainty.roi import distance_to_structures
from ..volume import Volume
from .applied import AppliedCalibration
from .maps import Maps, make_maps, what_matters
from .options import SegmentOptions
from .writing import check_space


@dataclass
class Run:
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
