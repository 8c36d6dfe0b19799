"""Labelled cases: reading them, and what the members say about the voxels around their structures."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.members import MemberPredictor
from ..inference.opinions import Box, Opinions
from ..inference.scratch import Scratch
from ..model.folder import Fold, ModelFolder
from ..progress import Progress
from ..reading import check_is_ct
from ..uncertainty.roi import distance_to_structures, roi_mask
from ..volume import Volume

COLUMNS = ("id", "ct", "labels")


@dataclass(frozen=True)
class LabelledCase:
    """One case with a reference: identifier, CT and label map."""

    id: str
    ct: Path
    labels: Path


def read_cases(path: str | Path) -> list[LabelledCase]:
    """Cases of a CSV file with the columns id, ct, labels; paths are relative to the file.

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
        case = LabelledCase(values["id"], path.parent / values["ct"], path.parent / values["labels"])
        for file in (case.ct, case.labels):
            if not file.exists():
                raise CalibUncertaintyError(f"{path}, line {number}: {file} does not exist")
        if case.id in {other.id for other in cases}:
            raise CalibUncertaintyError(f"{path}, line {number}: the case {case.id} is listed twice")
        cases.append(case)
    if not cases:
        raise CalibUncertaintyError(f"{path} lists no case; give at least one held-out case")
    return cases


def refuse_doubtful_cases(cases: list[LabelledCase], model: ModelFolder, folds: list[Fold], progress: Progress) -> None:
    """Refuse no case, a case twice, and cases that trained a fold: a model is too sure of what it was trained on."""
    if not cases:
        raise CalibUncertaintyError("no case was given; at least one held-out labelled case is needed")
    ids = [case.id for case in cases]
    doubled = sorted({name for name in ids if ids.count(name) > 1})
    if doubled:
        raise CalibUncertaintyError(f"the case {doubled[0]} is listed twice; list each case once")
    trained = {fold: model.training_cases(fold) for fold in folds}
    if None in trained.values():
        progress.warn(
            f"It is not known which cases the folds were trained on (no usable splits_final.json in {model.path}): make sure"
            " these cases were held out"
        )
    for fold in folds:
        seen = [name for name in ids if name in set(trained[fold] or [])]
        if seen:
            raise CalibUncertaintyError(
                f"fold {fold} of {model.name} was trained on {', '.join(seen[:5])}{' and more' if len(seen) > 5 else ''};"
                " give held-out cases only"
            )


class CaseScratch(Scratch):
    """A Scratch that refuses in one line, with numbers, what its disk has no room for, before the hours of computing."""

    def check_room(self, case: LabelledCase, sizes: Sequence[int]) -> None:
        """Raise CalibUncertaintyError where arrays of these sizes in bytes do not fit into the memory share and the disk."""
        left, needed = self._left, 0
        for size in sizes:
            fits = size <= left
            left, needed = (left - size, needed) if fits else (left, needed + size)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise CalibUncertaintyError(
                f"case {case.id} needs about {needed / 1e9:.3g} GB in {self._folder}, {free / 1e9:.3g} GB free; set TMPDIR to"
                " another disk"
            )


@dataclass(frozen=True)
class RoiVoxels:
    """The voxels of one case within the ROI distance of prediction or reference, N of them, one after the other.

    pooled: (C, N) and members: (M, C, N) float16 logits. labels: (N,) reference. near_prediction: (N,)
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
    ignore = model.dataset["labels"].get("ignore")
    ignored = [int(ignore)] if isinstance(ignore, int) else []
    found = np.unique(reference.array)  # as they are in the file: a cast could turn a wrong value into a right one
    unknown = [value for value in found.tolist() if value not in {0, *model.labels, *ignored}]
    if unknown:
        raise CalibUncertaintyError(
            f"{case.labels} holds the label {unknown[0]:.12g}, which {model.name} does not have (it has 0 to {max(model.labels)})"
        )
    labels = reference.array.astype(np.int32)
    labels[np.isin(labels, ignored)] = -1
    return labels


def _farthest_corner_voxels(reference: Volume, ct: Volume) -> float:
    """How far apart the grids' corners lie, in voxels of the CT."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in ct.array.shape))), dtype=float)
    there = np.stack([ct.index_from_lps(point) for point in reference.lps_from_index(corners)])
    return float(np.abs(there - corners).max())


def collect(
    case: LabelledCase, model: ModelFolder, predictor: MemberPredictor, roi_mm: float, passing: CaseScratch,
    kept: CaseScratch, progress: Progress,
) -> RoiVoxels:  # fmt: skip
    """Run the members on one case and keep what they say within `roi_mm` of prediction or reference.

    passing: for the logits of the whole case; kept: for those that are returned.
    """
    volume = Volume.read(case.ct)
    check_is_ct(volume, case.ct)
    reference = read_reference(case, volume, model)
    prepared = predictor.prepare(volume)
    n_members = len(predictor.members)
    if n_members > 1:
        grid = prepared.data.shape[1:] if prepared.grid.separable else prepared.grid.ct_shape
        passing.check_room(case, [_logit_bytes(predictor.n_classes, grid)] * n_members)
    opinions = Opinions.ask(predictor, prepared, passing, progress)
    frame, whole = prepared.frame, opinions.whole()
    predicted = np.zeros(whole.shape, np.int16)
    box, _ = opinions.foreground_box(_where_labelled, 0.5, 0.0)
    for slab in opinions.slabs(box):
        window = tuple(slice(s.start + a, s.stop + a) for s, a in zip(slab.inside, box.start, strict=True))
        predicted[window] = slab.pooled.argmax(axis=0)
    truth = np.ascontiguousarray(frame.to_network(reference))
    near = roi_mask(distance_to_structures((predicted > 0) | (truth > 0), prepared.spacing), roi_mm)
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


def _where_labelled(pooled: np.ndarray, _members: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    labelled = pooled.argmax(axis=0) != 0
    return labelled.astype(np.float32), labelled


def _gather(
    case: LabelledCase, opinions: Opinions, near: np.ndarray, near_prediction: np.ndarray, truth: np.ndarray,
    scratch: CaseScratch,
) -> RoiVoxels:  # fmt: skip
    start, size = opinions.case.crop_start, opinions.case.grid.ct_shape
    crop = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    count, total = int(np.count_nonzero(near[crop])), int(np.count_nonzero(near))
    alone = len(opinions.members) == 1
    n_classes = opinions.n_classes
    one = _logit_bytes(n_classes, (count,))
    scratch.check_room(case, [one] if alone else [one, one * len(opinions.members)])
    pooled = scratch.array((n_classes, count), np.float16)
    members = pooled[np.newaxis] if alone else scratch.array((len(opinions.members), n_classes, count), np.float16)
    labels, close = np.empty(count, np.int32), np.empty(count, bool)
    done = 0
    box = _bounds(near) if count else Box((0, 0, 0), (0, 0, 0))
    for slab in opinions.slabs(box):
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
