"""Cases whose predictions are on the disk already: nnU-Net's stored probabilities in place of a run of the networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..calibration.softmax import log_odds_of_probabilities, log_of_probabilities, saturated
from ..errors import CalibUncertaintyError
from ..inference.frame import reader_frame
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..model.heads import Heads
from ..progress import Progress
from ..uncertainty.interface_distance import signed_distance
from .labelled import RoiVoxels, bounds, check_room_of, in_body, near_structures, read_images, warn_of_cropped
from .options import BODY, STRUCTURES
from .places import PlacesBuilder
from .source_case import LabelledCase, ListedFile, refuse_missing
from .source_npz import StoredProbabilities, check_probabilities, refuse_other_shape
from .source_reference import read_reference


def collect_npz(
    case: LabelledCase, npz: str | Path | Sequence[str | Path], model: ModelFolder, roi_mm: float, scratch: Scratch,
    progress: Progress, resample_labels: bool = False, roi: str = STRUCTURES,
) -> RoiVoxels:  # fmt: skip
    """What stored probabilities say within `roi_mm` of prediction or reference; as `collect`, without running a network.

    npz: of `nnUNetv2_predict --save_probabilities`, one file a member (of one: one). The logits are log p (softmax), which differs
    from the network's by a constant in each voxel that no softmax sees, or log p / (1 - p) (sigmoid heads); `pooled` is their
    mean, as nnU-Net pools. Float32 tells no p from 0 below 1e-45, and of sigmoid heads none from 1 above logits of 16.6: such
    values are clipped, counted and warned of. scratch: for what is returned. resample_labels: see `read_reference`.

    Nothing in an .npz says which folds, checkpoints or flips made it, and nnU-Net's own is the mean of all that were asked: the
    caller must say so, check with `refuse_doubtful_cases` that they were not trained on the case, and record no more than that.
    The .pkl beside it is not opened. Memory: one plane of all classes a member, and some bytes for each voxel of the CT.
    Raises CalibUncertaintyError, one line naming case and file, for what is not of this image or this model.
    """
    paths = [Path(npz)] if isinstance(npz, str | Path) else [Path(path) for path in npz]
    if not paths:
        raise CalibUncertaintyError(f"case {case.id}: no stored probabilities were given; name at least one .npz")
    volumes = read_images(case, model, progress)
    reference = read_reference(case, volumes[0], model, resample_labels, progress)
    frame = reader_frame(volumes[0], str(model.plans.get("image_reader_writer", "SimpleITKIO")))
    truth, heads = np.ascontiguousarray(frame.to_network(reference)), model.heads
    inside = _not_cropped([frame.to_network(volume.array) for volume in volumes])
    with ExitStack() as stack:
        files = [stack.enter_context(StoredProbabilities(path)) for path in paths]
        refuse_other_shape(files, heads.channels, truth.shape, case.ct)
        predicted = np.zeros(truth.shape, np.uint16)
        size = truth.shape[files[0].axis]
        for number, (where, label) in enumerate(_labels(files, heads)):
            predicted[where] = label
            progress.report(0.5 * (number + 1) / size, "reading stored probabilities")
        spacing = frame.spacing_to_network(volumes[0].spacing_zyx)
        near, near_prediction, distance = near_structures(predicted, truth, model, spacing, roi_mm)
        if roi == BODY:
            near, near_prediction = in_body(case, volumes, model, frame, truth)
        total = int(np.count_nonzero(near))
        near &= inside
        signed = signed_distance(predicted, spacing)
        places = PlacesBuilder(bounds(near), int(np.count_nonzero(near)), spacing, distance, signed, scratch)
        voxels = _gather(case, files, heads, near, near_prediction, truth, total, scratch, progress, places)
    voxels = replace(voxels, of_body=roi == BODY)
    warn_of_cropped(voxels, progress)
    return voxels


def npz_of(cases: Sequence[LabelledCase], folders: Sequence[str | Path]) -> dict[str, list[Path]]:
    """The file <case>.npz of every case in each folder, one folder a member: {case: files}.

    Raises CalibUncertaintyError that names every missing file at once.
    """
    found = {case.id: [Path(folder) / f"{case.id}.npz" for folder in folders] for case in cases}
    for index, folder in enumerate(folders):
        if not Path(folder).is_dir():
            raise CalibUncertaintyError(
                f"{folder} is not a folder; give the one that nnUNetv2_predict --save_probabilities wrote into"
            )
        of_folder = [ListedFile(found[case.id][index], case.id, case.id, f"case {case.id}") for case in cases]
        refuse_missing(of_folder, Path(folder))
    return found


def _labels(files: Sequence[StoredProbabilities], heads: Heads) -> Iterator[tuple[tuple, np.ndarray]]:
    """(where, what is predicted there) plane by plane, of checked values: of several files by the mean of their logits."""
    for planes in zip(*(file.planes() for file in files), strict=True):
        for file, (_, p) in zip(files, planes, strict=True):
            check_probabilities(p, heads.sigmoid, file.path)
        if len(files) == 1:
            yield planes[0][0], heads.label_of(planes[0][1])
            continue
        total = _logits_of(planes[0][1], heads)
        for _, p in planes[1:]:
            total += _logits_of(p, heads)
        yield planes[0][0], heads.label_of_logits(total)  # the labels of a sum are those of the mean


def _logits_of(p: np.ndarray, heads: Heads) -> np.ndarray:
    return log_odds_of_probabilities(p) if heads.sigmoid else log_of_probabilities(p)


def _not_cropped(images: Sequence[np.ndarray]) -> tuple:
    """The box that nnU-Net looks at: of everything that is not 0 in some channel. A mask (z, y, x), True in it."""
    filled = np.zeros(images[0].shape, bool)
    for image in images:
        filled |= image != 0
    box = tuple(
        slice(int(places[0]), int(places[-1]) + 1)
        for places in (np.nonzero(filled.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3))
    )
    filled[...] = False
    filled[box] = True
    return filled


def _gather(
    case: LabelledCase, files: Sequence[StoredProbabilities], heads: Heads, near: np.ndarray, near_prediction: np.ndarray,
    truth: np.ndarray, total: int, scratch: Scratch, progress: Progress, places: PlacesBuilder,
) -> RoiVoxels:  # fmt: skip
    """The voxels that are `near`; `total`: how many there are with those that nnU-Net cropped away."""
    count, channels, alone = int(np.count_nonzero(near)), heads.channels, len(files) == 1
    one = channels * count * np.dtype(np.float16).itemsize
    check_room_of(case, scratch, [one] if alone else [one, one * len(files)])
    pooled = scratch.array((channels, count), np.float16)
    members = pooled[np.newaxis] if alone else scratch.array((len(files), channels, count), np.float16)
    labels, close = np.empty(count, np.int32), np.empty(count, bool)
    axis = files[0].axis
    reached = np.nonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))[0]
    stop = int(reached[-1]) + 1 if count else 0
    done = clipped = 0
    for planes in zip(*(file.planes(stop) for file in files), strict=True):
        where = planes[0][0]
        mask = near[where]
        part = slice(done, done + int(np.count_nonzero(mask)))
        if part.stop == done:
            continue
        chosen = [p[:, mask] for _, p in planes]
        clipped += sum(saturated(p) if heads.sigmoid else int(np.count_nonzero(p <= 0)) for p in chosen)
        logits = [_logits_of(p, heads) for p in chosen]
        for index, of_member in enumerate(logits):
            members[index][:, part] = of_member
        if not alone:
            pooled[:, part] = np.mean(logits, axis=0)
        labels[part], close[part] = truth[where][mask], near_prediction[where][mask]
        plane = tuple(
            slice(at, at + 1) if isinstance(at, int) else slice(0, near.shape[i]) for i, at in enumerate(_all(where))
        )
        places.add(plane, near[plane])
        done = part.stop
        progress.report(0.5 + 0.5 * done / count, "reading stored probabilities")
    if clipped:
        rounded = "0 or 1" if heads.sigmoid else "0"
        progress.warn(
            f"{case.id}: {clipped:,} of {count * channels * len(files):,} stored probabilities near the structures are exactly"
            f" {rounded}; what they were before rounding is not known, and they were taken as the nearest that float32 tells apart"
        )
    return RoiVoxels(case, pooled, members, labels, close, total - count, places=places.places())


def _all(where: tuple) -> tuple:
    """An index of a plane for all three axes."""
    return where + (slice(None),) * (3 - len(where))
