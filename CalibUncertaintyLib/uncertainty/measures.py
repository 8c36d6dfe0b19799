"""Measures of uncertainty, voxel by voxel, from class probabilities.

Arrays are class-first: probabilities p are (C, ...), those of M members (M, C, ...). Results are float32 of the shape
behind the class axis. Logarithms are natural (nats) and 0 log 0 = 0.

`conf`, `margin`, `entropy` and `entropy_k` are of the pooled probability that is shown. `exp_entropy`, `mi` and the measures
of `disagreement` are of the members' own probabilities at the members' shared temperature. Where members are pooled by their
logits the two describe different mixtures, so `mi` is not `entropy - exp_entropy` there; it is H(mean of members) - mean of
H(member).

Sigmoid heads (`sigmoid=True`) are C regions, each a question of its own: inside or outside. Every measure is then that of
the two-class distribution (1 - p_c, p_c), averaged over the regions.
"""

import numpy as np

from .catalogue import LN2, MEASURES, Measure
from .chunks import (
    CHUNK_VOXELS,
    TINY,
    any_entropy_of,
    entropy_of,
    flat_and_result,
    less_likely,
    parts,
    region_entropy_of,
)  # fmt: skip
from .member_statistics import MemberStatistics, expected_entropy, mutual_information, mutual_information_of

__all__ = [
    "CHUNK_VOXELS", "LN2", "MEASURES", "Measure", "MemberStatistics", "binary_entropy", "confidence_complement", "entropy",
    "expected_entropy", "expected_error", "margin", "measures_of", "mutual_information", "mutual_information_of",
]  # fmt: skip


def measures_of(p: np.ndarray, sigmoid: bool = False) -> dict[str, np.ndarray]:
    """`conf`, `margin` and `entropy` of the same probabilities, in one pass over them.

    Each chunk of voxels is read from memory once, and what one measure has found the next one uses. The values are those of
    `confidence_complement`, `margin` and `entropy`.

    :param p: (C, ...) probabilities; softmax: C >= 2.
    :returns: (...) float32 each.
    :raises ValueError: when there is only one class and no sigmoid.
    """
    flat, conf = flat_and_result(p)
    gap, total = np.empty_like(conf), np.empty_like(conf)
    for part in parts(flat.shape[1]):
        chunk = flat[:, part]
        if sigmoid:
            aside = less_likely(chunk)
            conf[part] = aside.mean(axis=0)
            np.multiply(conf[part], 2.0, out=gap[part])
            total[part] = region_entropy_of(aside)
        else:
            first, second = _two_highest(chunk)
            np.subtract(1.0, first, out=conf[part], casting="same_kind")
            np.subtract(second, first, out=second)
            np.add(second, 1.0, out=gap[part], casting="same_kind")
            total[part] = entropy_of(chunk)
    np.maximum(conf, 0.0, out=conf)
    np.maximum(gap, 0.0, out=gap)
    shape = np.shape(p)[1:]
    return {"conf": conf.reshape(shape), "margin": gap.reshape(shape), "entropy": total.reshape(shape)}


def confidence_complement(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """1 - max_c p_c; sigmoid: the mean over regions of 1 - max(p_c, 1 - p_c).

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, 1 - 1/C], sigmoid [0, 0.5], unit: probability.
    Source: the maximum softmax probability of Hendrycks & Gimpel 2017, turned round.
    """
    flat, result = flat_and_result(p)
    for part in parts(flat.shape[1]):
        if sigmoid:
            result[part] = less_likely(flat[:, part]).mean(axis=0)
        else:
            np.subtract(1.0, flat[:, part].max(axis=0), out=result[part], casting="same_kind")
    # Probabilities that were rounded may exceed 1 by one unit in the last place.
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def margin(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """1 - (highest - second highest probability); sigmoid: the mean over regions of 1 - |2 p_c - 1|, twice `conf`.

    :param p: (C, ...) probabilities; softmax: C >= 2.
    :returns: (...) float32 in [0, 1], unit: probability; 1 where two classes are equally likely.
    :raises ValueError: when there is only one class and no sigmoid.
    Source: margin of Scheffer et al. 2001, turned round.
    """
    if sigmoid:
        return 2.0 * confidence_complement(p, sigmoid=True)
    flat, result = flat_and_result(p)
    for part in parts(flat.shape[1]):
        first, second = _two_highest(flat[:, part])
        np.subtract(second, first, out=second)
        np.add(second, 1.0, out=result[part], casting="same_kind")
    np.maximum(result, 0.0, out=result)
    return result.reshape(p.shape[1:])


def entropy(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Shannon entropy -sum_c p_c ln p_c; sigmoid: the mean over regions of -p_c ln p_c - (1 - p_c) ln (1 - p_c).

    :param p: (C, ...) probabilities.
    :returns: (...) float32 in [0, ln C], sigmoid [0, ln 2], unit: nats.
    Source: Shannon 1948; the predictive entropy of Kahl et al. 2024 when p is the pooled probability; for regions the mean
        of Mehrtash et al. 2020, Eq. 7, per voxel (the mean is our definition).
    """
    flat, result = flat_and_result(p)
    for part in parts(flat.shape[1]):
        result[part] = any_entropy_of(flat[:, part], sigmoid)
    return result.reshape(p.shape[1:])


def expected_error(p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """Probability that the label shown is wrong: 1 - max_c p_c; sigmoid: the largest 1 - max(p_c, 1 - p_c) of any region.

    The probability that at least one region is wrong is no less than that of the most doubtful one, and no more than their
    sum; nested regions, whose errors coincide, lie near the lower end, which is taken (our definition).

    :param p: (C, ...) calibrated probabilities.
    :returns: (...) float32 in [0, 1 - 1/C], sigmoid [0, 0.5].
    """
    if not sigmoid:
        return confidence_complement(p)
    flat, result = flat_and_result(p)
    for part in parts(flat.shape[1]):
        result[part] = less_likely(flat[:, part]).max(axis=0)
    return result.reshape(p.shape[1:])


def binary_entropy(p_k: np.ndarray) -> np.ndarray:
    """Entropy of one class against all others, -p ln p - (1-p) ln (1-p).

    :param p_k: (...) probability of the class.
    :returns: (...) float32 in [0, ln 2], unit: nats.
    Source: Mehrtash et al. 2020, Eq. 7, per voxel.
    """
    p_k = np.asarray(p_k)
    flat = p_k.reshape(-1)
    result = np.empty(flat.shape, dtype=np.float32)
    for part in parts(flat.shape[0]):
        inside = np.clip(flat[part], 0.0, 1.0, dtype=np.float32)
        outside = np.float32(1.0) - inside
        total = inside * np.log(np.maximum(inside, TINY))
        # log1p keeps the second term right where p is too small to be seen in 1 - p.
        np.negative(inside, out=inside)
        np.maximum(inside, -1.0 + np.finfo(np.float32).epsneg, out=inside)
        total += outside * np.log1p(inside)
        np.negative(total, out=total)
        np.clip(total, 0.0, LN2, out=result[part])
    return result.reshape(p_k.shape)


def _two_highest(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest and second highest probability of a (C, n) chunk, (n,) each, new arrays."""
    if p.shape[0] < 2:
        raise ValueError("the margin needs at least two classes")
    first, second = np.maximum(p[0], p[1]), np.minimum(p[0], p[1])
    for values in p[2:]:
        np.maximum(second, np.minimum(first, values), out=second)
        np.maximum(first, values, out=first)
    return first, second
