"""Labelled cases: reading them, and what the members say about the voxels around their structures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..body import body_of
from ..calibration.softmax import probabilities
from ..errors import CalibUncertaintyError
from ..inference.boxes import Box
from ..inference.frame import Frame
from ..inference.kept_logits import logit_bytes
from ..inference.members import MemberPredictor, Prepared
from ..inference.opinions import Opinions, source_of
from ..inference.scratch import Scratch
from ..model.fold_honesty import in_common, in_words, named_like_training, same_name, trained_on, unknown_training
from ..model.folder import ModelFolder
from ..model.heads import Heads, region_truth
from ..model.member_set import MemberSet
from ..progress import Progress
from ..uncertainty.interface_distance import signed_distance
from ..uncertainty.member_agreement import MemberAgreement
from ..uncertainty.roi import distance_to_structures, roi_mask
from ..volume import Volume
from .agreement import count_members, counts_of_members
from .inputs import check_channels, ct_of, read_channels
from .options import BODY, STRUCTURES
from .places import Places, PlacesBuilder
from .room import bytes_on_disk, check_room
from .source_case import LabelledCase, named
from .source_manifest import read_cases
from .source_reference import labels_of_references, read_reference
from .traits import CaseTraits, traits_of_ct

__all__ = [
    "FirstStage", "LabelledCase", "LabelledVolume", "RoiVoxels", "bounds", "check_room_of", "collect", "in_body",
    "labels_of_references", "near_structures", "read_cases", "read_images", "read_reference", "refuse_doubtful_cases",
    "warn_of_cropped",
]  # fmt: skip

LABELS_FROM = 0.4  # foreground probability below which no member draws anything, which it does from a half on
VOLUME_MARGIN = 8  # voxels, no calibrator looks farther
# Far from the structures voxels are kept where this foreground probability may be reached at any temperature up to this one
MISS_PROBABILITY, HIGHEST_TEMPERATURE = 0.1, 2.5
FirstStage = Callable[[Sequence[Volume]], np.ndarray | None]


def refuse_doubtful_cases(
    cases: Sequence[LabelledCase], members: MemberSet, progress: Progress, excluded: Collection[str] = ()
) -> None:
    """Refuse no case, a case twice, and cases that trained a member: a model is too sure of what it was trained on.

    The first stage of a cascade counts as well: its labels are too good on what it was trained on. Warns where it is not known
    what trained a fold, and of a case whose file has the name of another one that did. excluded: identifiers that must not be
    among the cases, as those that a record is to be tested on.
    """
    if not cases:
        raise CalibUncertaintyError("no case was given; at least one held-out labelled case is needed")
    refuse_repeated(cases, excluded)
    ids = [case.id for case in cases]
    unknown = unknown_training(members)
    if unknown:
        progress.warn(
            "It is not known which cases the folds were trained on (no usable splits_final.json in"
            f" {', '.join(map(str, unknown))}): make sure these cases were held out"
        )
    seen = trained_on(ids, members)
    if seen:
        sources = next(iter(seen.values()))
        names = [case for case, of_case in seen.items() if of_case == sources]
        raise CalibUncertaintyError(
            f"{in_words(sources, members)} {'was' if len(sources) == 1 else 'were'} trained on"
            f" {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}; give held-out cases only"
        )
    files = {case.id: (*case.channels, case.labels) for case in cases}
    for case, (name, sources) in named_like_training(files, members).items():
        progress.warn(
            f"The case {case} has a file with the name of {name}, on which {in_words(sources, members)}"
            f" {'was' if len(sources) == 1 else 'were'} trained: make sure it is another patient"
        )
    if members.before is not None:
        refuse_doubtful_cases(cases, members.before, progress)


def refuse_repeated(cases: Sequence[LabelledCase], excluded: Collection[str] = ()) -> None:
    """Refuse cases that are listed twice, and cases that are among the excluded; all of them are named."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[same_name(case.id)] = counts.get(same_name(case.id), 0) + 1
    doubled = list(dict.fromkeys(case.id for case in cases if counts[same_name(case.id)] > 1))
    if doubled:
        subject = f"the case {doubled[0]} is" if len(doubled) == 1 else f"the cases {named(doubled)} are"
        raise CalibUncertaintyError(f"{subject} listed twice; list each case once")
    kept_apart = in_common([case.id for case in cases], excluded)
    if kept_apart:
        subject = f"the case {kept_apart[0]} is" if len(kept_apart) == 1 else f"the cases {named(kept_apart)} are"
        raise CalibUncertaintyError(f"{subject} kept for testing and must not be used here; leave such cases out")


@dataclass(frozen=True)
class LabelledVolume:
    """The box around a case's ROI, for calibrators that look at a voxel's neighbours, in the network's axis order.

    logits: (C, z, y, x) float16; labels: (z, y, x) int32 reference; roi: (z, y, x) bool; image: (z, y, x) float32 HU; positions:
    (N,) of the case's `RoiVoxels`, in the flattened box.
    """

    logits: np.ndarray
    labels: np.ndarray
    roi: np.ndarray
    image: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class RoiVoxels:
    """The voxels of one case within the ROI distance of prediction or reference, N of them, one after the other.

    pooled: (C, N) and members: (M, C, N) float16 logits. labels: (N,) reference, its own numbers. near_prediction: (N,)
    True within the distance of the prediction alone, the ROI that a new patient has. `outside` counts ROI voxels in
    the empty background that nnU-Net crops away: they have no logits and are left out. sources: (M,) which set of weights each
    member has, None where each has its own. traits: what the CT looks like; voxel_ml: mL. volume: where it was asked for.
    in_roi: (N,) where the voxels of the whole CT were asked for, those within the distance; else None, and all are.
    places: where they lie. far: the voxels beyond the distance where a structure is likely enough to have been missed, in the same
    box; None where there are none. agreement: of the members' own labels in the whole CT; None of a single one, or where not asked.
    of_body: the ROI is the patient's body, with or without reference, in place of a distance.
    """

    case: LabelledCase
    pooled: np.ndarray
    members: np.ndarray
    labels: np.ndarray
    near_prediction: np.ndarray
    outside: int
    sources: tuple[int, ...] | None = None
    traits: CaseTraits | None = None
    voxel_ml: float = math.nan
    volume: LabelledVolume | None = None
    in_roi: np.ndarray | None = None
    places: Places | None = None
    far: RoiVoxels | None = None
    agreement: MemberAgreement | None = None
    of_body: bool = False

    def of_roi(self) -> RoiVoxels:
        """The voxels within the ROI distance alone."""
        if self.in_roi is None:
            return self
        keep = self.in_roi
        return replace(
            self, pooled=self.pooled[:, keep], members=self.members[..., keep], labels=self.labels[keep],
            near_prediction=self.near_prediction[keep], in_roi=None,
            places=None if self.places is None else self.places.kept(keep),
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Number of voxels N."""
        return int(self.labels.size)


def collect(
    case: LabelledCase, model: ModelFolder, predictor: MemberPredictor, roi_mm: float, passing: Scratch, kept: Scratch,
    progress: Progress, previous: FirstStage | None = None, resample_labels: bool = False, with_volume: bool = False,
    whole: bool = False, roi: str = STRUCTURES,
) -> RoiVoxels:  # fmt: skip
    """Run the members on one case and keep what they say within `roi_mm` of prediction or reference, or (roi "body") in the body.

    with_volume: keep the box around these voxels too (`RoiVoxels.volume`). whole: keep every voxel of the CT that nnU-Net does not
    crop away, and say which lie in the ROI (`RoiVoxels.in_roi`).

    model: the first of the members' models. passing: for the logits of the whole case; kept: for those that are returned.
    previous: gives what a cascade's first stage predicts on the case's images, (z, y, x). resample_labels: see `read_reference`.
    """
    volumes = read_images(case, model, progress)
    reference = read_reference(case, volumes[0], model, resample_labels, progress)
    prepared = predictor.prepare(volumes, previous(volumes) if previous else None)
    _check_room_for_logits(case, predictor, prepared, passing)
    opinions = Opinions.ask(
        predictor, prepared, passing, progress, pool_temperature=HIGHEST_TEMPERATURE, keep_members=True
    )
    frame, heads = prepared.frame, predictor.heads
    predicted, counts = np.zeros(opinions.whole().shape, np.uint16), counts_of_members(len(predictor.members), heads)
    for box in opinions.boxes(LABELS_FROM, 0.0)[0]:
        for slab in opinions.slabs(box):
            window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
            predicted[window] = heads.label_of_logits(slab.pooled)
            if counts is not None:
                count_members(counts, slab.members, heads)
    truth = np.ascontiguousarray(frame.to_network(reference))
    near, near_prediction, distance = near_structures(predicted, truth, model, prepared.spacing, roi_mm)
    if roi == BODY:
        near, near_prediction = in_body(case, volumes, model, frame, truth)
    wanted = truth >= 0 if whole else near
    far = np.zeros_like(near) if whole else _far(opinions, heads, ~near & (truth >= 0))
    signed, box = signed_distance(predicted, prepared.spacing), bounds(wanted | far)

    def gathered(mask: np.ndarray, roi: np.ndarray | None = None) -> RoiVoxels:
        count = int(np.count_nonzero(mask[_crop(opinions)]))
        builder = PlacesBuilder(box, count, prepared.spacing, distance, signed, kept)
        return _gather(case, opinions, mask, near_prediction, truth, kept, builder, roi)

    voxels = gathered(wanted, near if whole else None)
    warn_of_cropped(voxels, progress)
    sources = list(dict.fromkeys(map(source_of, predictor.members)))
    return replace(
        voxels,
        sources=tuple(sources.index(source_of(member)) for member in predictor.members),
        traits=traits_of_ct(volumes[0]),
        voxel_ml=volumes[0].voxel_volume_ml,
        volume=_volume(opinions, near, truth, frame.to_network(volumes[0].array), kept) if with_volume else None,
        far=gathered(far) if far.any() else None,
        agreement=None if counts is None else counts.counted(),
        of_body=roi == BODY,
    )


def _far(opinions: Opinions, heads: Heads, allowed: np.ndarray) -> np.ndarray:
    """The allowed voxels (z, y, x) whose foreground probability may reach what a possible miss needs."""
    found = np.zeros_like(allowed)
    for box in opinions.boxes(MISS_PROBABILITY, 0.0)[0]:
        for slab in opinions.slabs(box):
            window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
            likely = [
                heads.foreground(probabilities(slab.pooled, t, heads.sigmoid)) for t in (1.0, HIGHEST_TEMPERATURE)
            ]
            found[window] = np.maximum(*likely) >= MISS_PROBABILITY
    return found & allowed


def near_structures(
    predicted: np.ndarray, truth: np.ndarray, model: ModelFolder, spacing: Sequence[float], roi_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The voxels (z, y, x) within `roi_mm` of prediction or reference, those within it of the prediction alone, and their
    distance from the prediction in mm.

    predicted: labels; truth: reference labels, -1 where they are to be ignored; such voxels are not among the first. spacing: mm
    in the order of the arrays' axes.
    """
    drawn = region_truth(truth, model.dataset["labels"]).any(axis=0) if model.heads.sigmoid else truth > 0
    near = roi_mask(distance_to_structures((predicted > 0) | drawn, spacing), roi_mm)
    distance = distance_to_structures(predicted, spacing)
    near_prediction = roi_mask(distance, roi_mm)
    # a voxel to be ignored is no structure for the distance either, but it must not be counted
    near &= truth >= 0
    return near, near_prediction, distance


def in_body(
    case: LabelledCase, volumes: Sequence[Volume], model: ModelFolder, frame: Frame, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The voxels (z, y, x) of the patient's body in the network's axis order: those with a reference, and all.

    Raises CalibUncertaintyError, naming the case, where its CT shows none.
    """
    body = np.ascontiguousarray(frame.to_network(body_of(ct_of(volumes, model), f"case {case.id}")))
    return body & (truth >= 0), body


def warn_of_cropped(voxels: RoiVoxels, progress: Progress) -> None:
    """Say how many voxels of the ROI have no logits, if there are any."""
    if voxels.outside and voxels.in_roi is None:
        progress.warn(
            f"{voxels.case.id}: {voxels.outside:,} voxels near the structures lie in the empty background that nnU-Net crops"
            " away; the model says nothing there and they were left out"
        )


def read_images(case: LabelledCase, model: ModelFolder, progress: Progress) -> list[Volume]:
    """The image of every input channel.

    Raises CalibUncertaintyError where their number or grid does not fit, or a CT's values are no Hounsfield units.
    """
    try:
        volumes, description = read_channels(list(case.channels), model)
        warnings = check_channels(volumes, model, description)
    except CalibUncertaintyError as error:
        raise CalibUncertaintyError(f"case {case.id}: {error}") from error
    for warning in warnings:
        progress.warn(f"{case.id}: {warning}")
    return volumes


def _check_room_for_logits(
    case: LabelledCase, predictor: MemberPredictor, prepared: Prepared, scratch: Scratch
) -> None:
    """Refuse in one line, with numbers, what the disk has no room for: each model's sum, and every member's logits."""
    sizes = []
    for index, of_model in enumerate(prepared.cases):
        size = logit_bytes(predictor.n_classes, of_model.data.shape[1:])
        on_ct = size if of_model.grid.separable else logit_bytes(predictor.n_classes, of_model.grid.ct_shape)
        members = sum(member.model == index for member in predictor.members) if len(predictor.members) > 1 else 0
        sizes += [size, *[on_ct] * members]
    check_room_of(case, scratch, sizes)


def check_room_of(case: LabelledCase, scratch: Scratch, sizes: Sequence[int]) -> None:
    """Refuse, naming the case, arrays of these bytes that the disk has no room for."""
    check_room(scratch.folder, bytes_on_disk(scratch, sizes), f"case {case.id}", "set TMPDIR to another disk")


def _gather(
    case: LabelledCase, opinions: Opinions, near: np.ndarray, near_prediction: np.ndarray, truth: np.ndarray,
    scratch: Scratch, places: PlacesBuilder, roi: np.ndarray | None = None,
) -> RoiVoxels:  # fmt: skip
    count, total = int(np.count_nonzero(near[_crop(opinions)])), int(np.count_nonzero(near))
    alone = len(opinions.members) == 1
    n_classes = opinions.n_classes
    one = logit_bytes(n_classes, (count,))
    check_room_of(case, scratch, [one] if alone else [one, one * len(opinions.members)])
    pooled = scratch.array((n_classes, count), np.float16)
    members = pooled[np.newaxis] if alone else scratch.array((len(opinions.members), n_classes, count), np.float16)
    labels, close = np.empty(count, np.int32), np.empty(count, bool)
    in_roi, done = None if roi is None else np.empty(count, bool), 0
    box = bounds(near) if count else None
    for slab in opinions.slabs(box) if box else ():
        window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
        mask = near[window]
        part = slice(done, done + int(np.count_nonzero(mask)))
        pooled[:, part] = slab.pooled[:, mask]
        if not alone:
            for index, logits in enumerate(slab.members):
                members[index][:, part] = logits[:, mask]
        labels[part], close[part] = truth[window][mask], near_prediction[window][mask]
        if in_roi is not None:
            in_roi[part] = roi[window][mask]
        places.add(window, mask)
        done = part.stop
    return RoiVoxels(case, pooled, members, labels, close, total - count, in_roi=in_roi, places=places.places())


def _crop(opinions: Opinions) -> tuple[slice, ...]:
    """The part of the CT grid that nnU-Net did not crop away."""
    start, size = opinions.case.crop_start, opinions.case.grid.ct_shape
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def _volume(
    opinions: Opinions, near: np.ndarray, truth: np.ndarray, image: np.ndarray, scratch: Scratch
) -> LabelledVolume | None:
    """The box around the ROI, as far as nnU-Net's crop reaches; None where there is no such voxel."""
    start, size = opinions.case.crop_start, opinions.case.grid.ct_shape
    crop = Box(tuple(start), tuple(a + n for a, n in zip(start, size, strict=True)))
    if not near[crop.slices].any():
        return None
    box = bounds(near).grown((VOLUME_MARGIN,) * 3, near.shape).within(crop)
    logits = scratch.array((opinions.n_classes, *box.shape), np.float16)
    numbers = np.arange(int(np.prod(box.shape, dtype=np.int64))).reshape(box.shape)
    for slab in opinions.slabs(box):
        logits[(slice(None), *slab.inside)] = slab.pooled
    inner, positions = bounds(near), []
    for slab in opinions.slabs(inner):  # in the order of `_gather`
        window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, inner.start, strict=True))
        here = tuple(slice(s.start - a, s.stop - a) for s, a in zip(window, box.start, strict=True))
        positions.append(numbers[here][near[window]])
    labels = np.where(near, truth, 0)[box.slices].astype(np.int32)
    return LabelledVolume(
        logits,
        labels,
        near[box.slices].copy(),
        np.ascontiguousarray(image[box.slices], np.float32),
        np.concatenate(positions),
    )


def bounds(mask: np.ndarray) -> Box:
    """The box around the True voxels; one voxel at the corner where there are none."""
    if not mask.any():
        return Box((0, 0, 0), (1, 1, 1))
    ranges = [np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3)]
    return Box(tuple(int(r[0]) for r in ranges), tuple(int(r[-1]) + 1 for r in ranges))
