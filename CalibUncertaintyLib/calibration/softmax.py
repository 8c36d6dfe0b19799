"""Logits to probabilities and back, for softmax and sigmoid heads, in numpy, a chunk of voxels at a time."""

from collections.abc import Sequence

import numpy as np

CHUNK_VOXELS = 16384
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
        # half precision as float32: the same numbers, and numpy's arithmetic is several times faster
        chunk = flat[:, part].astype(np.result_type(flat.dtype, np.float32), copy=False)
        shifted = np.subtract(chunk, chunk.max(axis=0))
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


def sigmoid(logits: np.ndarray, temperature: float | Sequence[float] = 1.0) -> np.ndarray:
    """Probabilities 1 / (1 + exp(-z / T)) of each region by itself, stable for any logits.

    It never falls as z rises, so z > 0 gives p >= 0.5 at every temperature and z <= 0 gives p <= 0.5.

    :param logits: (C, ...) float16, float32 or float64, one region a channel.
    :param temperature: T > 0, one for all regions or one for each, (C,); above 1 softens, below 1 sharpens.
    :returns: float32, the shape of `logits`, in [0, 1]; the regions' probabilities do not depend on each other.
    :raises ValueError: when a temperature is not a finite number above 0, or there is not one for each region.
    Source: the two-class case of Guo et al. 2017, Eq. 9 (softmax of (0, z) / T).
    """
    logits = np.asarray(logits)
    flat = logits.reshape(logits.shape[0], -1)
    result = np.empty(flat.shape, dtype=np.float32)
    for channel, value in enumerate(temperatures_of(temperature, len(flat))):
        factor = -1.0 / value
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            exponent = np.multiply(flat[channel, part], factor, dtype=np.result_type(flat.dtype, np.float32))
            # exp(88) still is a float32; what lies further down, below 6e-39, is all the same
            np.minimum(exponent, 88.0, out=exponent)
            np.exp(exponent, out=exponent)
            exponent += 1.0
            np.divide(1.0, exponent, out=result[channel, part], casting="same_kind")
    return result.reshape(logits.shape)


def temperatures_of(temperature: float | Sequence[float], channels: int) -> list[float]:
    """One temperature for each of the channels, of one for all or one for each.

    :raises ValueError: when one is not a finite number above 0, or their number is not 1 (a scalar) or `channels`.
    """
    values = [float(value) for value in ([temperature] * channels if np.isscalar(temperature) else temperature)]
    if len(values) != channels:
        raise ValueError(f"{len(values)} temperatures for {channels} regions")
    for value in values:
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"temperature must be a finite number above 0, got {value}")
    return values


def probabilities(logits: np.ndarray, temperature: float | Sequence[float], heads_sigmoid: bool) -> np.ndarray:
    """`sigmoid` or `softmax` of logits (C, ...), (C, ...) float32; softmax takes one temperature."""
    return sigmoid(logits, temperature) if heads_sigmoid else softmax(logits, temperature)


def log_odds_of_probabilities(p: np.ndarray) -> np.ndarray:
    """ln p / (1 - p), to be used as the logits of sigmoid heads (`pool_prob`: sigmoid(logit(p) / T)).

    Above 0 exactly where p > 0.5. Probabilities of 0 and 1, whose log-odds are infinite, are read as the float32 next to them
    inside (log-odds -103.3 and 16.6); `saturated` counts them. Above log-odds of 16.6 float32 cannot tell p from 1.

    :param p: (...) in [0, 1].
    :returns: float32, same shape.
    """
    inside = np.clip(p, np.finfo(np.float32).smallest_subnormal, 1.0 - np.finfo(np.float32).epsneg, dtype=np.float32)
    result = np.log(inside)
    np.negative(inside, out=inside)
    result -= np.log1p(inside, out=inside)
    return result


def saturated(p: np.ndarray) -> int:
    """How many probabilities are exactly 0 or 1 in float32, that is, clipped by `log_odds_of_probabilities`."""
    p = np.asarray(p, dtype=np.float32)
    return int(np.count_nonzero(p <= 0.0) + np.count_nonzero(p >= 1.0))
