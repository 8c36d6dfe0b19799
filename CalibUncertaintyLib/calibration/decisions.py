"""What pooling or a calibrator did to the labels, in voxels."""

import numpy as np

CHUNK_VOXELS = 65536


def changed_labels(first: np.ndarray, second: np.ndarray) -> int:
    """Number of voxels where two label maps differ.

    :param first: integer labels of any shape, e.g. (z, y, x).
    :param second: integer labels, the same shape.
    :raises ValueError: when the shapes differ.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"label maps of different shapes: {first.shape} and {second.shape}")
    return int(np.count_nonzero(first != second))


def changed_by_temperature(before: np.ndarray, after: np.ndarray) -> int:
    """Number of voxels whose label under `before` no longer has the highest value under `after`.

    The label under `before` is its first argmax. Voxels where that label ties for the highest value under `after` are
    not counted: the label still attains the maximum, and rounding to float32 makes such ties.

    :param before: (C, ...) logits or probabilities before the calibrator.
    :param after: (C, ...) logits or probabilities after it, the same shape.
    :raises ValueError: when the shapes differ.
    Source: our definition.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        raise ValueError(f"arrays of different shapes: {before.shape} and {after.shape}")
    classes = before.shape[0]
    before, after = before.reshape(classes, -1), after.reshape(classes, -1)
    changed = 0
    for start in range(0, before.shape[1], CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        highest_before = before[0, part].copy()
        value_after = after[0, part].copy()
        for index in range(1, classes):
            higher = before[index, part] > highest_before
            np.copyto(highest_before, before[index, part], where=higher)
            np.copyto(value_after, after[index, part], where=higher)
        changed += int(np.count_nonzero(value_after < after[:, part].max(axis=0)))
    return changed


def changed_by_region_temperatures(before: np.ndarray, after: np.ndarray) -> int:
    """Number of voxels where a probability contradicts what its region's logit decided, of sigmoid heads.

    A region is decided to hold where its logit is above 0. Contradicted is that by a probability below 0.5, its opposite by
    one above 0.5. Exactly 0.5 is not counted: rounding to float32 makes it of log-odds below 1e-7.

    :param before: (C, ...) logits before the temperatures, one region a channel.
    :param after: (C, ...) probabilities after them, the same shape.
    :raises ValueError: when the shapes differ.
    Source: our definition.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        raise ValueError(f"arrays of different shapes: {before.shape} and {after.shape}")
    contradicted = np.zeros(before.shape[1:], bool)
    for logit, p in zip(before, after, strict=True):
        contradicted |= np.where(logit > 0, p < 0.5, p > 0.5)
    return int(np.count_nonzero(contradicted))
