"""One run of `segment` on its way from voxels to maps and regions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..body import body_of
from ..inference.boxes import Box, hull
from ..inference.devices import give_back_memory
from ..inference.estimate import Estimate
from ..inference.members import MemberPredictor, Prepared
from ..inference.opinions import Opinions
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet
from ..progress import Progress
from ..uncertainty.aggregation import aggregate
from ..uncertainty.distance_aware import thin_structures_warning
from ..uncertainty.interface_distance import signed_distance
from ..uncertainty.measures import MEASURES
from ..uncertainty.region_calibration import RegionCalibration
from ..uncertainty.regions import FoundRegions, find_regions
from ..uncertainty.roi import box_around, distance_to_structures, roi_mask
from ..volume import Volume
from .agreement import agreement_of, agreement_status, counts_of_members
from .applied import AppliedCalibration
from .cascade import PreviousStage
from .case_scores import MEASURE
from .chosen_measures import OF_VOXELS, context_measure_names, extras_of, measure_names
from .context_maps import context_maps, normalised
from .inputs import ct_of
from .maps import ALWAYS, EXPECTED_ERROR, FOREGROUND, Maps, make_maps, stored, temperatures_of
from .options import BODY, SegmentOptions
from .room import bytes_on_disk
from .traits import traits_of_ct
from .writing import check_space


@dataclass
class Run:
    """One run's parts on their way; what `report` writes down."""

    volumes: list[Volume]
    members: MemberSet
    options: SegmentOptions
    calibration: AppliedCalibration
    predictor: MemberPredictor
    previous: PreviousStage | None
    estimate: Estimate
    out: Path
    folder: Path
    progress: Progress

    @property
    def volume(self) -> Volume:
        """The CT, or the first of several channels."""
        return self.volumes[0]

    @property
    def model(self) -> ModelFolder:
        """The model folder, or the first of several."""
        return self.members.models[0]

    @property
    def measures(self) -> list[str]:
        """The measures that are computed: what was asked for and these members can give, and what regions are made of."""
        return (
            measure_names(len(self.predictor.members), self.options.measures, [self.options.measure])
            + self.context_measures
        )

    @property
    def context_measures(self) -> list[str]:
        """Those of them that need the finished label map."""
        return context_measure_names(self.calibration.context, self.options.measures, [self.options.measure])

    def compute(self, scratch: Scratch) -> None:
        """From voxels to maps. Sets `case`, `maps`, `geometry`, `label`, `distance`, `left_out`, ..."""
        progress, chosen, predictor = self.progress, self.options, self.predictor
        with progress.stage("preprocess", 0.05, 0.1, "nnU-Net's preprocessing"):
            self.body = self._body_of_ct()  # first: it may be refused
            self.case: Prepared = predictor.prepare(self.volumes, self.previous and self.previous.labels)
            values = predictor.n_classes * int(np.prod(self.case.data.shape[1:], dtype=np.int64))
            check_space(self.out, self.folder, bytes_on_disk(scratch, [(2 if predictor.adds_as_stock else 4) * values]))
        give_back_memory()
        with progress.stage("predict", 0.1, 0.75):
            opinions = Opinions.ask(
                predictor, self.case, scratch, progress, temperatures_of(self.calibration, len(predictor.members)),
                self.calibration.highest_temperature(), self.calibration.mode != "pool_logit", extras=extras_of(self.measures),
                keep_labels=agreement_status(len(predictor.members), predictor.heads) == "ok",
            )  # fmt: skip
            self.precision = predictor.labels_that_differ(self.case, opinions.likely)
        self.effective_members = opinions.effective_members
        give_back_memory()
        with progress.stage("maps", 0.75, 0.85, "probabilities and uncertainty"):
            boxes, self.left_out = opinions.boxes(chosen.box_probability, chosen.roi_mm, self._body_boxes())
            if chosen.full_volume:
                boxes, self.left_out = [opinions.whole()], 0.0
            voxels, written = hull(boxes).voxels, len(predictor.heads.names) + len(self.measures) + 1
            exported = int(self.volume.array.size) * (1 + 4 * written * len(chosen.export))
            maps = 4 * voxels * (written + 2 + len(set(ALWAYS) - set(self.measures)))
            check_space(self.out, self.folder, bytes_on_disk(scratch, [maps]) + maps + exported)
            image = self.case.frame.to_network(self.volume.array)
            counts = counts_of_members(len(predictor.members), predictor.heads)
            self.maps: Maps = make_maps(
                opinions, boxes, self.calibration, predictor.heads, scratch, progress, image,
                [name for name in self.measures if name in OF_VOXELS], self.context_measures, counts,
            )  # fmt: skip
            self.agreement = None if counts is None else agreement_of(opinions.member_labels, counts)
        opinions.discard()  # what follows needs the room
        del opinions
        give_back_memory()
        with progress.stage("context", 0.85, 0.87, "what is usual at these places"):
            self._place(self.maps.box)
            self._add_context(self.maps.box)

    def look_through(self) -> None:
        """From maps to regions and figures. Sets `regions`, `threshold`, `aggregates`, ..."""
        with self.progress.stage("regions", 0.87, 0.9, "regions"):
            self._find_regions()
            self.aggregates = self.summed_up(self.options.measure)
            self.entropy_summed_up = self._entropy_summed_up()

    def _body_of_ct(self) -> np.ndarray | None:
        """The patient's body on the CT grid, where it is the region of interest."""
        if self.options.roi != BODY:
            return None
        return body_of(ct_of(self.volumes, self.model))

    def _body_boxes(self) -> list[Box]:
        """The box around the body, in the network's axis order."""
        around = None if self.body is None else box_around(self.case.frame.to_network(self.body))
        return [] if around is None else [Box(*zip(*((part.start, part.stop) for part in around), strict=True))]

    def _place(self, box: Box) -> None:
        """Where the box lies in the CT, its labels, their distance from each voxel, and what is of the region of interest."""
        frame = self.case.frame
        start = frame.start_in_volume(box.start, box.stop, self.case.full_shape)
        self.label = np.ascontiguousarray(frame.to_volume(self.maps.label))
        self.start = start
        self.geometry = self.volume.crop(start, self.label.shape)
        self.distance = distance_to_structures(self.label, self.volume.spacing_zyx)
        self.signed = signed_distance(self.label, self.volume.spacing_zyx)
        if self.body is None:
            self.inside = roi_mask(self.distance, self.options.roi_mm)
        else:
            self.inside = self.body[tuple(slice(a, a + n) for a, n in zip(start, self.label.shape, strict=True))].copy()
            self.body = None  # the box holds all of it

    def _add_context(self, box: Box) -> None:
        """The maps that need labels and distances, into the fields that are kept for them."""
        names, frame, heads = self.context_measures, self.case.frame, self.predictor.heads
        if not names:
            return
        spacing = self.volume.spacing_zyx
        u = normalised(frame.to_volume(self.maps.fields.read("entropy")), heads)
        whole = tuple(slice(0, n) for n in box.shape)
        for name, values in context_maps(names, u, self.label, self.signed, self.inside, spacing, self.calibration.context):
            self.maps.fields.put(name, whole, stored(np.ascontiguousarray(frame.to_network(values))))

    def _find_regions(self) -> None:
        frame, field = self.case.frame, self.maps.fields.read
        self.threshold, self.threshold_source = self.threshold_of(self.options.measure)
        if self.options.threshold != "stored":
            self.threshold, self.threshold_source = float(self.options.threshold), "value"
        expected = EXPECTED_ERROR if self.predictor.heads.sigmoid else "conf"
        self.regions: FoundRegions = find_regions(
            frame.to_volume(field(self.options.measure)), self.distance, self.label,
            frame.to_volume(field(FOREGROUND)), frame.to_volume(field(expected)),
            self.options.roi_mm, self.threshold, self.geometry, self.model.labels, self.options.min_region_ml * 1000.0,
            self.options.miss_probability, frame.to_volume(self.maps.likeliest), self.signed, self.options.merge_gap_mm,
            self._chances(), self.inside,
        )  # fmt: skip

    def summed_up(self, measure: str) -> dict:
        """One measure, summed up for the case and each structure, within the ROI, with the members' agreement; see `aggregate`.

        What is of a structure's own probability is added when that is written.
        """
        roi = self.inside
        box = box_around(roi, (0, 0, 0)) or tuple(slice(0, n) for n in roi.shape)
        u = self.case.frame.to_volume(self.maps.fields.read(measure))[box]
        found = aggregate(
            np.ascontiguousarray(u), self.label[box], self.volume.spacing_zyx, self.model.labels, roi[box], self.threshold,
            members=self.agreement, to_interfaces=np.abs(self.signed[box]),
        )  # fmt: skip
        n_members = len(self.predictor.members)
        return {
            "measure": measure,
            "unit": MEASURES[measure].unit,
            **found,
            "agreement": {"status": agreement_status(n_members, self.predictor.heads), "members": n_members},
        }

    def _entropy_summed_up(self) -> dict:
        """The entropy, which is what calibration cases are compared by; anew only where another measure was summed up and there are
        calibration cases."""
        needed = self.options.measure != MEASURE and self.calibration.case_scores is not None
        return self.summed_up(MEASURE) if needed else self.aggregates

    def _chances(self) -> RegionCalibration | None:
        """How often regions listed as this run lists them held a real error; None where they were listed otherwise."""
        stored, options = self.calibration.regions.get(self.options.measure), self.options
        if stored is None or self.threshold != stored["threshold"] or self.calibration.in_body != (self.options.roi == BODY):
            return None
        asked = {
            name: getattr(options, name) for name in ("roi_mm", "min_region_ml", "miss_probability", "merge_gap_mm")
        }
        return (
            RegionCalibration.from_json(stored["calibration"])
            if all(stored[n] == v for n, v in asked.items())
            else None
        )

    def thin_structures(self) -> list[str]:
        """That distance-aware entropy says little of structures as thin as these, where it is written down."""
        if not {"dae", "dae_linear"} & set(self.context_measures):
            return []
        said = thin_structures_warning(self.label, self.signed)
        return [said] if said else []

    def threshold_of_another_roi(self) -> list[str]:
        """That the stored threshold was fitted elsewhere than regions are listed, where it was."""
        calibration, options = self.calibration, self.options
        in_body, nearby = options.roi == BODY, calibration.roi_mm == options.roi_mm
        if self.threshold_source != "stored" or (calibration.in_body == in_body and (in_body or nearby)):
            return []
        here = replace(calibration, in_body=in_body, roi_mm=options.roi_mm).roi_in_words
        return [
            f"The stored threshold of {options.measure} was fitted {calibration.roi_in_words}, and regions are listed {here}:"
            " it may mark too much or too little there"
        ]

    def outside_of_calibration(self) -> list[str]:
        """In what this CT and what was found in it lie outside of what the applied calibration has seen; see `CalibratedRange`."""
        calibration, heads, options = self.calibration, self.predictor.heads, self.options
        if calibration.range is None:
            return []
        names = dict(zip(heads.values, heads.names, strict=True))
        entropy = self.case.frame.to_volume(self.maps.fields.read("entropy"))
        traits = traits_of_ct(self.volume).with_run(
            entropy,
            self.label,
            roi_mask(self.distance, calibration.roi_mm),
            names,
            self.volume.voxel_volume_ml,
            calibration.roi_mm,
        )
        # the box holds all voxels that near to a structure only where the run's ROI reaches as far
        whole = options.full_volume or options.roi_mm >= calibration.roi_mm
        return calibration.range.warnings_for(traits if whole else replace(traits, entropy=None, roi_mm=None))

    def threshold_of(self, measure: str) -> tuple[float, str]:
        """The stored threshold of a measure, or our default."""
        stored = self.calibration.thresholds.get(measure)
        if stored:
            return float(stored["value"]), "stored"
        return float(
            MEASURES[measure].default_threshold(self.predictor.n_classes, self.predictor.heads.sigmoid)
        ), "default"
