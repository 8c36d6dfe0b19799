"""Our Result against stock nnU-Net's probabilities and labels of the same members, on the CT grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MARGIN = 2e-3  # stock's half-precision accumulator: where its two best classes lie nearer, its own label is chance


def compare_with_reference(result_folder: Path, reference: Path) -> dict:
    """Largest difference of probability inside our boxes, labels that differ, and what stock sees outside the boxes.

    reference: a folder with p.npy (C, z, y, x) and label.npy (z, y, x) of the whole CT.
    """
    from CalibUncertaintyLib.result import Result

    result = Result.open(result_folder)
    p = np.load(reference / "p.npy", mmap_mode="r")
    start, boxes = boxes_of(result.provenance)
    largest = 0.0
    for index in result.labels:
        inner = result.probability(index).array
        for box in boxes:
            local = tuple(slice(part.start - offset, part.stop - offset) for part, offset in zip(box, start, strict=True))
            for plane, row in zip(inner[local], p[(index, *box)], strict=True):
                largest = max(largest, float(np.abs(plane - row).max()))
    found = {"max_abs_dp": largest, **compare_labels(result.segmentation.array, np.load(reference / "label.npy"), p)}
    outside = np.ones(p.shape[1:], bool)
    for box in boxes:
        outside[box] = False
    found["box_share"] = float(1 - outside.mean())
    seen = [float((1 - row[here]).max()) for row, here in zip(p[0], outside, strict=True) if here.any()]
    found["stock_foreground_outside"] = max(seen, default=0.0)
    found["foreground_share"] = float(np.count_nonzero(result.segmentation.array) / outside.size)
    return found


def compare_labels(ours: np.ndarray, stock: np.ndarray, p: np.ndarray) -> dict:
    """How many labels differ, and how many of those where stock's two best classes are more than MARGIN apart.

    ours, stock: (z, y, x). p: (C, z, y, x), stock's probabilities.
    """
    different = beyond = 0
    widest = 0.0
    for index in range(stock.shape[0]):
        where = ours[index] != stock[index]
        if where.any():
            best = np.sort(p[:, index][:, where], axis=0)[-2:]
            margin = best[1] - best[0]
            different += int(where.sum())
            beyond += int(np.count_nonzero(margin > MARGIN))
            widest = max(widest, float(margin.max()))
    return {"different_labels": different, "beyond_margin": beyond, "widest_margin": widest, "voxels": int(stock.size)}


def boxes_of(provenance: dict) -> tuple[list[int], list[tuple[slice, slice, slice]]]:
    """Where the stored arrays begin on the CT grid (z, y, x), and the boxes that were computed, as slices of the CT grid."""
    whole = provenance["box"]
    start = list(whole["start_xyz"][::-1])
    boxes = provenance.get("boxes") or [whole]
    return start, [
        tuple(slice(a, a + n) for a, n in zip(box["start_xyz"][::-1], box["size_xyz"][::-1], strict=True)) for box in boxes
    ]
