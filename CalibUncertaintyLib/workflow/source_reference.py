"""The reference of a case: its label map on the CT's grid, checked, and resampled where that was asked for."""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk

from ..errors import CalibUncertaintyError
from ..model.folder import ModelFolder
from ..model.folder_check import label_number
from ..model.heads import regions_of
from ..progress import Progress
from ..volume import Volume
from .source_case import LabelledCase

_IGNORED, _BEYOND = -1, -2


def read_reference(
    case: LabelledCase, ct: Volume, model: ModelFolder, resample: bool = False, progress: Progress | None = None
) -> np.ndarray:
    """Reference labels (z, y, x) int32 of a case on its CT's grid; -1 where they are to be ignored.

    resample: bring a label map that lies on another grid to the CT's, by nearest neighbour, and warn of it; voxels of the CT
    that it does not reach are ignored, because nobody said what they are.
    Raises CalibUncertaintyError naming the file where its grid is another and `resample` was not asked for, where it does not
    reach the CT at all, or holds labels the model does not have.
    """
    reference = Volume.read(case.labels)
    same_grid = reference.array.shape == ct.array.shape and _farthest_corner_voxels(reference, ct) <= 0.5
    if not same_grid and not resample:
        raise CalibUncertaintyError(
            f"{case.labels} does not lie on the grid of {case.ct}; resample it to the CT (nearest neighbour), or ask for that"
            " with resample_labels"
        )
    labels = _checked(reference.array, case, model)
    return labels if same_grid else _resampled(labels, reference, ct, case, progress or Progress())


def labels_of_references(model: ModelFolder) -> set[int]:
    """The numbers above 0 that a reference may hold: the labels; of a model with regions those that the regions are made of."""
    if not model.has_regions:
        return set(model.labels)
    of_regions = regions_of(model.dataset["labels"], model.path / "dataset.json")
    return {number for numbers in of_regions.values() for number in numbers if number > 0}


def _checked(array: np.ndarray, case: LabelledCase, model: ModelFolder) -> np.ndarray:
    ignored = {number for number in [label_number(model.dataset["labels"].get("ignore"))] if number is not None}
    known = labels_of_references(model)
    found = np.unique(array)  # as they are in the file: a cast could turn a wrong value into a right one
    unknown = [value for value in found.tolist() if value not in {0, *known, *ignored}]
    if unknown:
        raise CalibUncertaintyError(
            f"{case.labels} holds the label {unknown[0]:.12g}, which {model.name} does not have (it has 0 to {max(known)})"
        )
    labels = array.astype(np.int32)
    labels[np.isin(labels, list(ignored))] = _IGNORED
    return labels


def _farthest_corner_voxels(reference: Volume, ct: Volume) -> float:
    """How far apart the grids' corners lie, in voxels of the CT."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in ct.array.shape))), dtype=float)
    there = np.stack([ct.index_from_lps(point) for point in reference.lps_from_index(corners)])
    return float(np.abs(there - corners).max())


def _resampled(labels: np.ndarray, reference: Volume, ct: Volume, case: LabelledCase, progress: Progress) -> np.ndarray:
    """Labels (z, y, x) on the CT's grid, -1 where the CT reaches farther than they do."""
    grid = sitk.ResampleImageFilter()
    grid.SetSize([int(n) for n in ct.array.shape[::-1]])
    grid.SetOutputSpacing(ct.spacing_zyx[::-1])
    grid.SetOutputOrigin(ct.origin_lps)
    grid.SetOutputDirection(np.asarray(ct.direction_lps).ravel().tolist())
    grid.SetInterpolator(sitk.sitkNearestNeighbor)
    grid.SetDefaultPixelValue(_BEYOND)
    brought = sitk.GetArrayFromImage(grid.Execute(reference.with_array(labels).to_sitk()))
    beyond = int(np.count_nonzero(brought == _BEYOND))
    if beyond == brought.size:
        raise CalibUncertaintyError(
            f"{case.labels} does not reach {case.ct} anywhere; is it the label map of another CT?"
        )
    progress.warn(
        f"{case.id}: {case.labels.name} lay on another grid and was resampled to the CT (nearest neighbour)"
        + (f"; {beyond:,} voxels of the CT beyond it were left out" if beyond else "")
    )
    return np.maximum(brought, _IGNORED)
