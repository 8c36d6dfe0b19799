"""What the measures of uncertainty share: voxels in chunks that fit into a processor's cache, and the formulas of one chunk.

A chunk is class-first, (C, n). Logarithms are natural (nats) and 0 log 0 = 0.
"""

import math
from collections.abc import Iterator

import numpy as np

from .catalogue import LN2

# Chunks of 25 classes still fit into the cache; measured against 2048 to 65536 with 6 and 25 classes.
CHUNK_VOXELS = 16384
TINY = np.finfo(np.float32).tiny


def parts(voxels: int) -> Iterator[slice]:
    """So many voxels in chunks."""
    for start in range(0, voxels, CHUNK_VOXELS):
        yield slice(start, start + CHUNK_VOXELS)


def flat_and_result(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array (C, ...) as (C, n), and an empty float32 array (n,) for what is made of it."""
    flat = np.asarray(p).reshape(p.shape[0], -1)
    return flat, np.empty(flat.shape[1], dtype=np.float32)


def less_likely(p: np.ndarray) -> np.ndarray:
    """min(p, 1 - p) of a chunk, float32: how likely the opposite of what is decided is."""
    aside = np.subtract(1.0, p, dtype=np.float32)
    np.minimum(aside, p, out=aside, casting="same_kind")
    return np.maximum(aside, 0.0, out=aside)


def any_entropy_of(p: np.ndarray, sigmoid: bool) -> np.ndarray:
    """Entropy of a chunk of probabilities, (n,) float32 nats; of regions the mean of each one's."""
    return region_entropy_of(less_likely(p)) if sigmoid else entropy_of(p)


def region_entropy_of(aside: np.ndarray) -> np.ndarray:
    """Mean binary entropy of a (C, n) chunk of min(p, 1 - p), (n,) float32; right to 1e-7."""
    other = np.subtract(1.0, aside, dtype=np.float32)
    logarithm = np.maximum(aside, TINY)
    np.log(logarithm, out=logarithm)
    total = np.einsum("cn,cn->n", aside, logarithm)
    np.log(other, out=logarithm)
    total += np.einsum("cn,cn->n", other, logarithm)
    total *= np.float32(-1.0 / len(aside))
    return np.clip(total, 0.0, LN2, out=total)


def entropy_of(p: np.ndarray) -> np.ndarray:
    """Entropy of a (C, n) chunk, (n,) float32. The floor under the logarithm makes 0 log 0 exactly 0."""
    logarithm = np.maximum(p, TINY, dtype=np.float32)
    np.log(logarithm, out=logarithm)
    total = np.einsum("cn,cn->n", p, logarithm, dtype=np.float32, casting="same_kind")
    np.negative(total, out=total)
    return np.clip(total, 0.0, math.log(p.shape[0]), out=total)
