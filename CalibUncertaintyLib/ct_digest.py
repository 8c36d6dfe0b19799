"""A digest of a CT's voxels: it tells two CTs on one voxel grid apart, as planning CTs of one scanner often have it."""

from __future__ import annotations

import hashlib

import numpy as np

SAMPLES_PER_AXIS = 128
_KIND = "sampled-1:"  # of what follows; a digest that was made in another way is of no use for comparing


def ct_digest(array: np.ndarray) -> str:
    """Digest of the voxels (z, y, x) in HU, of any numeric type: the same for the same whole HU, whatever type holds them.

    At most SAMPLES_PER_AXIS voxels along each axis are read, every nth: enough to tell patients apart at once, also of a CT of
    gigabytes. What differs only between them (less than n voxels wide) is not seen, so this is no proof that a file is unchanged.
    """
    sample = array[tuple(slice(None, None, -(-n // SAMPLES_PER_AXIS) or None) for n in array.shape)]
    # The border between two whole numbers lies where stored values hardly do: neither at whole nor at half, fourth or fifth HU,
    # so that a program's rounding error in the last digit changes nothing
    whole = np.floor(np.nan_to_num(sample.astype(np.float64)) + 1 / 3)
    numbers = np.clip(whole, -(2**31), 2**31 - 1).astype("<i4")
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(numbers))
    return _KIND + digest.hexdigest()


def has_voxels(array: np.ndarray, digest: str | None) -> bool | None:
    """Whether an array (z, y, x) in HU has the voxels that `ct_digest` was made of; None where the digest cannot tell.

    digest: None, as of Results that were made before there was one, or one made in another way, cannot.
    """
    if digest is None or not digest.startswith(_KIND):
        return None
    return ct_digest(array) == digest
