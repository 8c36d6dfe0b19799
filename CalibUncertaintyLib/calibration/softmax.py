"""Logits to probabilities, in numpy, a chunk of voxels at a time."""

import numpy as np

CHUNK_VOXELS = 65536
# The logarithm of the smallest positive float32. A probability that was rounded to zero is read as this one, so that
# its logarithm stays finite; it lies far below anything that a softmax of real logits distinguishes.
SMALLEST_LOG_PROBABILITY = float(np.log(np.finfo(np.float32).smallest_subnormal))


def softmax(logits: np.ndarray, temperature: float = 1.0, axis: int = 0) -> np.ndarray:
    """Probabilities softmax(z / T) along the class axis, stable for any finite logits.

    The largest logit is subtracted before the exponential, so the most likely class keeps the highest probability at
    every temperature (in rounded arithmetic another class may at most draw level with it).

    :param logits: (C, ...) float16, float32 or float64 of any shape; the class axis is `axis`. -inf means probability 0.
    :param temperature: T > 0, without unit; above 1 softens, below 1 sharpens.
    :returns: float32, the shape of `logits`, in [0, 1], sums to 1 over the class axis.
    :raises ValueError: when the temperature is not a finite number above 0.
    Source: Guo et al. 2017, Eq. 9.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
    classes_first = np.moveaxis(np.asarray(logits), axis, 0)
    flat = classes_first.reshape(classes_first.shape[0], -1)
    result = np.empty(flat.shape, dtype=np.float32)
    inverse = 1.0 / float(temperature)
    for start in range(0, flat.shape[1], CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        chunk = flat[:, part]
        shifted = np.subtract(chunk, chunk.max(axis=0), dtype=np.result_type(chunk.dtype, np.float32))
        if inverse != 1.0:
            shifted *= shifted.dtype.type(inverse)
        np.exp(shifted, out=shifted)
        np.divide(shifted, shifted.sum(axis=0), out=result[:, part], casting="same_kind")
    return np.moveaxis(result.reshape(classes_first.shape), 0, axis)


def log_of_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm of probabilities, to be used as logits (`pool_prob`: softmax(log p / T)).

    log p differs from the logits that made p by a constant per voxel, which no softmax sees.

    :param probabilities: (C, ...) in [0, 1].
    :returns: float32, same shape, in [-103.28, 0]; a probability of 0 becomes the smallest positive float32.
    """
    floor = np.finfo(np.float32).smallest_subnormal
    result = np.maximum(probabilities, floor, dtype=np.float32)
    return np.log(result, out=result)
