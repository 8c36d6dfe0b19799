"""Distance in mm to the nearest predicted interface between two labels."""

import os

import numpy as np


def distance_to_interfaces(label: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Distance from each voxel's centre to the centre of the nearest voxel that touches another label with a face.

    :param label: (z, y, x) integers, 0 is background. The border of the volume is no interface.
    :param spacing_zyx: mm.
    :returns: (z, y, x) float32 mm, 0 on both sides of an interface, +inf everywhere where there is none.
    Source: our definition.
    """
    label = np.asarray(label)
    surface = np.zeros(label.shape, bool)
    for axis in range(3):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        differs = label[low] != label[high]
        surface[low] |= differs
        surface[high] |= differs
    if not surface.any():
        return np.full(label.shape, np.inf, np.float32)
    import edt

    anisotropy = tuple(float(step) for step in spacing_zyx)
    return edt.edt(~surface, anisotropy=anisotropy, black_border=False, parallel=os.cpu_count() or 1)


def signed_distance(label: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """`distance_to_interfaces`, below 0 inside structures (label > 0)."""
    distance = distance_to_interfaces(label, spacing_zyx)
    np.negative(distance, out=distance, where=np.asarray(label) > 0)
    return distance
