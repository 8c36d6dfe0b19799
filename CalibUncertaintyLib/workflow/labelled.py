"""Labelled cases: reading them, and what the members say about the voxels around their structures."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.boxes import Box
from ..inference.members import MemberPredictor, Prepared
from ..inference.opinions import Opinions
from ..inference.scratch import Scratch
from ..model.fold_honesty import in_words, named_like_training, trained_on, unknown_training
from ..model.folder import ModelFolder
from ..model.folder_check import label_number
from ..model.heads import region_truth, regions_of
from ..model.member_set import MemberSet
from ..progress import Progress
from ..uncertainty.roi import distance_to_structures, roi_mask
from ..volume import Volume
from .inputs import check_channels, read_channels
from .room import bytes_on_disk, check_room

COLUMNS = ("id", "ct", "labels")
FirstStage = Callable[[Sequence[Volume]], np.ndarray | None]


@dataclass(frozen=True)
class LabelledCase:
    """One case with a reference: identifier, CT and label map; further: the images of a model's other input channels, in order."""

    id: str
    ct: Path
    labels: Path
    further: tuple[Path, ...] = ()

    @property
    def channels(self) -> tuple[Path, ...]:
        """The image of every input channel, in the model's order."""
        return (self.ct, *self.further)


def read_cases(path: str | Path) -> list[LabelledCase]:
    """Cases of a CSV file with the columns id, ct, labels; paths are relative to the file, several channels have ; between.

    Raises CalibUncertaintyError naming the file and line of what is missing, doubled or not there.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CalibUncertaintyError(f"{path} cannot be read as a CSV file ({error})") from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise CalibUncertaintyError(
            f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(COLUMNS)}"
        )
    cases: list[LabelledCase] = []
    for number, row in enumerate(rows, start=2):
        values = {column: (row[column] or "").strip() for column in COLUMNS}
        if not all(values.values()):
            raise CalibUncertaintyError(f"{path}, line {number}: id, ct and labels must all be given")
        ct, *further = _channel_files(path.parent, values["ct"])
        case = LabelledCase(values["id"], ct, path.parent / values["labels"], tuple(further))
        for file in (*case.channels, case.labels):
            if not file.exists():
                raise CalibUncertaintyError(f"{path}, line {number}: {file} does not exist")
        if case.id in {other.id for other in cases}:
            raise CalibUncertaintyError(f"{path}, line {number}: the case {case.id} is listed twice")
        cases.append(case)
    if not cases:
        raise CalibUncertaintyError(f"{path} lists no case; give at least one held-out case")
    return cases


def _channel_files(folder: Path, listed: str) -> list[Path]:
    if (folder / listed).exists():  # a name may have a ; in it
        return [folder / listed]
    return [folder / name.strip() for name in listed.split(";") if name.strip()] or [folder / listed]


def refuse_doubtful_cases(cases: Sequence[LabelledCase], members: MemberSet, progress: Progress) -> None:
    """Refuse no case, a case twice, and cases that trained a member: a model is too sure of what it was trained on.

    The first stage of a cascade counts as well: its labels are too good on what it was trained on. Warns where it is not known
    what trained a fold, and of a case whose file has the name of another one that did.
    """
    if not cases:
        raise CalibUncertaintyError("no case was given; at least one held-out labelled case is needed")
    ids = [case.id for case in cases]
    doubled = sorted({name for name in ids if ids.count(name) > 1})
    if doubled:
        raise CalibUncertaintyError(f"the case {doubled[0]} is listed twice; list each case once")
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


@dataclass(frozen=True)
class RoiVoxels:
    """The voxels of one case within the ROI distance of prediction or reference, N of them, one after the other.

    pooled: (C, N) and members: (M, C, N) float16 logits. labels: (N,) reference, its own numbers. near_prediction: (N,)
    True within the distance of the prediction alone, the ROI that a new patient has. `outside` counts ROI voxels in
    the empty background that nnU-Net crops away: they have no logits and are left out.
    """

    case: LabelledCase
    pooled: np.ndarray
    members: np.ndarray
    labels: np.ndarray
    near_prediction: np.ndarray
    outside: int

    @property
    def size(self) -> int:
        """Number of voxels N."""
        return int(self.labels.size)


def read_reference(case: LabelledCase, ct: Volume, model: ModelFolder) -> np.ndarray:
    """Reference labels (z, y, x) of a case on its CT's grid; -1 where they are to be ignored.

    Raises CalibUncertaintyError naming the file where its grid is another, or it holds labels the model does not have.
    """
    reference = Volume.read(case.labels)
    if reference.array.shape != ct.array.shape or _farthest_corner_voxels(reference, ct) > 0.5:
        raise CalibUncertaintyError(f"{case.labels} does not lie on the grid of {case.ct}; resample it to the CT")
    ignored = {number for number in [label_number(model.dataset["labels"].get("ignore"))] if number is not None}
    known = labels_of_references(model)
    found = np.unique(reference.array)  # as they are in the file: a cast could turn a wrong value into a right one
    unknown = [value for value in found.tolist() if value not in {0, *known, *ignored}]
    if unknown:
        raise CalibUncertaintyError(
            f"{case.labels} holds the label {unknown[0]:.12g}, which {model.name} does not have (it has 0 to {max(known)})"
        )
    labels = reference.array.astype(np.int32)
    labels[np.isin(labels, list(ignored))] = -1
    return labels


def labels_of_references(model: ModelFolder) -> set[int]:
    """The numbers above 0 that a reference may hold: the labels; of a model with regions those that the regions are made of."""
    if not model.has_regions:
        return set(model.labels)
    of_regions = regions_of(model.dataset["labels"], model.path / "dataset.json")
    return {number for numbers in of_regions.values() for number in numbers if number > 0}


def _farthest_corner_voxels(reference: Volume, ct: Volume) -> float:
    """How far apart the grids' corners lie, in voxels of the CT."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in ct.array.shape))), dtype=float)
    there = np.stack([ct.index_from_lps(point) for point in reference.lps_from_index(corners)])
    return float(np.abs(there - corners).max())


def collect(
    case: LabelledCase, model: ModelFolder, predictor: MemberPredictor, roi_mm: float, passing: Scratch, kept: Scratch,
    progress: Progress, previous: FirstStage | None = None,
) -> RoiVoxels:  # fmt: skip
    """Run the members on one case and keep what they say within `roi_mm` of prediction or reference.

    model: the first of the members' models. passing: for the logits of the whole case; kept: for those that are returned.
    previous: gives what a cascade's first stage predicts on the case's images, (z, y, x).
    """
    volumes = read_images(case, model, progress)
    reference = read_reference(case, volumes[0], model)
    prepared = predictor.prepare(volumes, previous(volumes) if previous else None)
    _check_room_for_logits(case, predictor, prepared, passing)
    opinions = Opinions.ask(predictor, prepared, passing, progress, keep_members=True)
    frame, whole, heads = prepared.frame, opinions.whole(), predictor.heads
    predicted = np.zeros(whole.shape, np.uint16)
    for box in opinions.boxes(1.0, 0.0)[0]:  # no probability exceeds 1: these are the places of labels
        for slab in opinions.slabs(box):
            window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
            predicted[window] = heads.label_of_logits(slab.pooled)
    truth = np.ascontiguousarray(frame.to_network(reference))
    drawn = region_truth(truth, model.dataset["labels"]).any(axis=0) if heads.sigmoid else truth > 0
    near = roi_mask(distance_to_structures((predicted > 0) | drawn, prepared.spacing), roi_mm)
    near_prediction = roi_mask(distance_to_structures(predicted, prepared.spacing), roi_mm)
    # a voxel to be ignored is no structure for the distance either, but it must not be counted
    near &= truth >= 0
    voxels = _gather(case, opinions, near, near_prediction, truth, kept)
    if voxels.outside:
        progress.warn(
            f"{case.id}: {voxels.outside:,} voxels near the structures lie in the empty background that nnU-Net crops away;"
            " the model says nothing there and they were left out"
        )
    return voxels


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
        size = _logit_bytes(predictor.n_classes, of_model.data.shape[1:])
        on_ct = size if of_model.grid.separable else _logit_bytes(predictor.n_classes, of_model.grid.ct_shape)
        members = sum(member.model == index for member in predictor.members) if len(predictor.members) > 1 else 0
        sizes += [size, *[on_ct] * members]
    _check_room(case, scratch, sizes)


def _check_room(case: LabelledCase, scratch: Scratch, sizes: Sequence[int]) -> None:
    check_room(scratch.folder, bytes_on_disk(scratch, sizes), f"case {case.id}", "set TMPDIR to another disk")


def _gather(
    case: LabelledCase, opinions: Opinions, near: np.ndarray, near_prediction: np.ndarray, truth: np.ndarray,
    scratch: Scratch,
) -> RoiVoxels:  # fmt: skip
    start, size = opinions.case.crop_start, opinions.case.grid.ct_shape
    crop = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    count, total = int(np.count_nonzero(near[crop])), int(np.count_nonzero(near))
    alone = len(opinions.members) == 1
    n_classes = opinions.n_classes
    one = _logit_bytes(n_classes, (count,))
    _check_room(case, scratch, [one] if alone else [one, one * len(opinions.members)])
    pooled = scratch.array((n_classes, count), np.float16)
    members = pooled[np.newaxis] if alone else scratch.array((len(opinions.members), n_classes, count), np.float16)
    labels, close = np.empty(count, np.int32), np.empty(count, bool)
    done = 0
    box = _bounds(near) if count else None
    for slab in opinions.slabs(box) if box else ():
        window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
        mask = near[window]
        part = slice(done, done + int(np.count_nonzero(mask)))
        pooled[:, part] = slab.pooled[:, mask]
        if not alone:
            for index, logits in enumerate(slab.members):
                members[index][:, part] = logits[:, mask]
        labels[part], close[part] = truth[window][mask], near_prediction[window][mask]
        done = part.stop
    return RoiVoxels(case, pooled, members, labels, close, total - count)


def _logit_bytes(n_classes: int, shape: Sequence[int]) -> int:
    return n_classes * int(np.prod(shape, dtype=np.int64)) * np.dtype(np.float16).itemsize


def _bounds(mask: np.ndarray) -> Box:
    ranges = [np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3)]
    return Box(tuple(int(r[0]) for r in ranges), tuple(int(r[-1]) + 1 for r in ranges))
