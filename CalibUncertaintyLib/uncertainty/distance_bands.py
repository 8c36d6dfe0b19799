"""Bands of distance from the predicted interfaces: what is usual for the uncertainty depends on them."""

import numpy as np

from ..errors import CalibUncertaintyError
from .roi import ROUNDING_MM

EDGES_MM = (-15.0, -10.0, -7.0, -5.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0)
"""Edges of the bands of signed distance, mm; our definition."""
_UNSIGNED_EDGES = np.array([edge for edge in EDGES_MM if edge > 0])
BANDS = len(_UNSIGNED_EDGES) + 1
"""How many bands each side has, from the interface outward."""


def bands_of(distance: np.ndarray) -> np.ndarray:
    """Band of each distance by its size, 0 at an interface to BANDS - 1 from the last edge on; intp of the same shape.

    Which side of the interface a voxel lies on, its label tells: structures (label > 0) have the signed bands below 0, background
    those above. So a label and this number name one signed band, also on the interface itself, where the signed distance is 0 on
    both sides. A voxel exactly on an edge belongs to the band farther from the interface.

    :param distance: mm, signed or not, any shape; infinite where there is no interface.
    :raises ValueError: when a distance is NaN.
    """
    distance = np.abs(np.asarray(distance, np.float32))
    if np.isnan(distance).any():
        raise ValueError("a distance is NaN")
    return np.searchsorted(_UNSIGNED_EDGES, distance + np.float32(ROUNDING_MM), side="right")


def refuse_nan(u: np.ndarray, case_id: str = "") -> None:
    """Raise CalibUncertaintyError, naming the case where there is one, when a value of uncertainty is NaN."""
    if np.isnan(u).any():
        case = f"case {case_id}: " if case_id else ""
        raise CalibUncertaintyError(f"{case}the map of uncertainty holds NaN; predict the case again")
