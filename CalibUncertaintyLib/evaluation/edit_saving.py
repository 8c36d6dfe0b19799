"""What correcting the most uncertain voxels would gain: Dice of each structure before and after an edit that makes no mistake.

The edit gives every voxel of U_b (the top part b of the region by uncertainty) its reference label; voxels outside the region
keep theirs. Where the budget cuts a group of equal values, the expected number of each kind of voxel is corrected.
Our definition; the budget is that of Brioso et al. (arXiv 2604.11798).
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import COUNT, codes_of
from .budget import expected_in_top, voxels_of_share
from .calibration_errors import dice

CHUNK_VOXELS = 1 << 20


class EditCounts:
    """Accumulator of right and wrong voxels of each class by code of the uncertainty; one case, or several merged.

    Memory is two tables of C x COUNT numbers (13 MB with 25 classes). A region model is counted region by region, with two classes.

    :param classes: C, background included as 0.
    """

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise ValueError(f"needs background and one structure at least, got {classes} classes")
        self.classes = classes
        self.voxels = np.zeros(COUNT, np.int64)
        """(COUNT,) of the region."""
        self.false_positives = np.zeros((classes, COUNT), np.int64)
        """(C, COUNT) of the region: labelled c, but of another class."""
        self.false_negatives = np.zeros((classes, COUNT), np.int64)
        """(C, COUNT) of the region: labelled otherwise, but of class c."""
        self.labelled = np.zeros(classes, np.int64)
        """(C,) voxels labelled c, inside the region and outside."""
        self.referenced = np.zeros(classes, np.int64)
        """(C,) voxels that are of class c."""
        self.right = np.zeros(classes, np.int64)
        """(C,) voxels that are both."""

    def add(self, u: np.ndarray, label: np.ndarray, reference: np.ndarray) -> None:
        """Add voxels of the region.

        :param u: (N,) uncertainty, 0 or more. :param label: (N,) predicted, integers in [0, C). :param reference: (N,) true.
        :raises CalibUncertaintyError: when u holds NaN, or a label is no class. Nothing is added then.
        :raises ValueError: when the shapes differ.
        """
        u, label, reference = np.asarray(u), np.asarray(label), np.asarray(reference)
        if u.ndim != 1 or label.shape != u.shape or reference.shape != u.shape:
            raise ValueError(f"expected three (N,) arrays, got {u.shape}, {label.shape} and {reference.shape}")
        if np.isnan(u).any():
            raise CalibUncertaintyError(
                "an uncertainty map holds NaN inside the region of interest; predict the case again"
            )
        self.add_outside(label, reference)
        for start in range(0, u.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            codes = codes_of(u[part])
            self.voxels += np.bincount(codes, minlength=COUNT)
            wrong = np.flatnonzero(label[part] != reference[part])
            codes = codes[wrong].astype(np.int64)
            for table, of in ((self.false_positives, label), (self.false_negatives, reference)):
                np.add.at(table, (of[part][wrong], codes), 1)

    def add_outside(self, label: np.ndarray, reference: np.ndarray) -> None:
        """Add voxels outside the region, that no budget reaches but that count in Dice; as `add`, without an uncertainty."""
        label, reference = np.asarray(label), np.asarray(reference)
        if label.ndim != 1 or reference.shape != label.shape:
            raise ValueError(f"expected two (N,) arrays, got {label.shape} and {reference.shape}")
        if label.size and (min(label.min(), reference.min()) < 0 or max(label.max(), reference.max()) >= self.classes):
            raise CalibUncertaintyError(
                f"a label outside 0 to {self.classes - 1} was met; give a reference with the model's own labels"
            )
        for start in range(0, label.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            given, true = label[part], reference[part]
            self.labelled += np.bincount(given, minlength=self.classes)
            self.referenced += np.bincount(true, minlength=self.classes)
            self.right += np.bincount(given[given == true], minlength=self.classes)

    def merge(self, other: EditCounts) -> None:
        """Add all voxels that another accumulator of as many classes has seen."""
        if other.classes != self.classes:
            raise ValueError(f"cannot merge counts of {other.classes} classes into those of {self.classes}")
        for name in ("voxels", "false_positives", "false_negatives", "labelled", "referenced", "right"):
            getattr(self, name).__iadd__(getattr(other, name))


def edit_saving(counts: EditCounts, share: float) -> dict:
    """Dice of the structures after the top `share` of the region is corrected.

    - `share`, `corrected` voxels looked at, `errors_corrected` (expected numbers)
    - `dice_before`, `dice_after`, `saving` = after - before: means over the structures that are drawn or predicted, NaN without any
    - `dice_random`, `random_saving`: after correcting as many voxels of the region in no order
    - `dice_all`: after correcting the whole region: what errors outside it leave
    - `classes`: for each class from 1 `before`, `after`, `random`, `all` and `status` ("ok" or "both_empty")

    :param share: of the region's voxels, [0, 1].
    """
    codes = np.flatnonzero(counts.voxels)[::-1]
    of_code = counts.voxels[codes]
    n = int(of_code.sum())
    voxels = voxels_of_share(n, share)

    def top(table: np.ndarray) -> np.ndarray:
        return np.array([float(expected_in_top(of_code, row[codes], voxels)) for row in table])

    gone, regained = top(counts.false_positives), top(counts.false_negatives)
    all_gone, all_regained = counts.false_positives.sum(axis=1), counts.false_negatives.sum(axis=1)
    part = voxels / n if n else 0.0
    edits = {
        "before": (np.zeros(counts.classes), np.zeros(counts.classes)),
        "after": (gone, regained),
        "random": (all_gone * part, all_regained * part),
        "all": (all_gone, all_regained),
    }
    classes = {str(number): _of_class(counts, number, edits) for number in range(1, counts.classes)}
    means = {name: _mean([row[name] for row in classes.values() if row["status"] == "ok"]) for name in edits}
    return {
        "share": float(share),
        "corrected": voxels,
        "errors_corrected": float(gone.sum()),
        **{f"dice_{name}": value for name, value in means.items()},
        "saving": means["after"] - means["before"],
        "random_saving": means["random"] - means["before"],
        "classes": classes,
    }


def _of_class(counts: EditCounts, number: int, edits: dict) -> dict:
    """Dice of a class under each edit: `gone` of its false positives, `regained` of its false negatives."""
    row = {}
    for name, (gone, regained) in edits.items():
        right = counts.right[number] + regained[number]
        labelled = counts.labelled[number] - gone[number] + regained[number]
        row[name] = float(dice(right, labelled, counts.referenced[number])[0])
    empty = counts.labelled[number] + counts.referenced[number] == 0
    return row | {"status": "both_empty" if empty else "ok"}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
