"""What pooling or a calibrator did to the labels, in voxels."""

import numpy as np

from ..model.heads import first_argmax

CHUNK_VOXELS = 16384


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
    return labels_outdone(first_argmax(before), after)


def labels_outdone(label: np.ndarray, after: np.ndarray) -> int:
    """As `changed_by_temperature`, of the labels (...) themselves instead of the scores that they are the argmax of."""
    label, after = np.asarray(label), np.asarray(after)
    if label.shape != after.shape[1:]:
        raise ValueError(f"arrays of different shapes: {label.shape} and {after.shape}")
    label, after = label.reshape(-1), after.reshape(after.shape[0], -1)
    changed = 0
    for start in range(0, label.size, CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        chunk, of_chunk = after[:, part], label[part]
        highest = chunk.max(axis=0)
        attained = np.zeros(of_chunk.shape, bool)
        for channel, values in enumerate(chunk):
            attained |= (of_chunk == channel) & (values == highest)
        changed += int(np.count_nonzero(~attained))
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
