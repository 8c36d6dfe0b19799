"""Which planes of voxels the slice views show."""

import numpy as np

from . import ctVolume
from .mrmlTools import arrayFromMatrix, nodesOfClass

TOLERANCE = 0.01  # of a voxel: a neighbour with so little weight is not seen


def visiblePlanes(scene, volumeNode):
    """The planes of a volume that any slice view needs for what it shows now, whether or not it shows this volume.

    :return: set of (axis of the array, first, last), axis 0, 1, 2 for z, y, x, last included; None where a view does not lie
        along the volume's axes, or where this cannot be told.
    """
    try:
        rasToIjk = np.linalg.inv(ctVolume.worldIjkToRas(volumeNode))
    except (ValueError, np.linalg.LinAlgError):  # under a transform that is not linear
        return None
    size = volumeNode.GetImageData().GetDimensions()
    found = set()
    for view in viewsInUse(scene):
        planes = _planesOf(view, rasToIjk)
        if planes is None:
            return None
        axis, first, last = planes
        first, last = max(first, 0), min(last, size[axis] - 1)
        if first <= last:
            found.add((2 - axis, first, last))
    return found


def viewsInUse(scene):
    """The slice nodes of the layout that is shown; all, where none is known to be."""
    views = nodesOfClass(scene, "vtkMRMLSliceNode")
    return [view for view in views if view.IsMappedInLayout()] or views


def _planesOf(view, rasToIjk):
    """(axis i, j or k, first, last) of one view, not cut to the volume; None where it lies along none of them."""
    xyToIjk = rasToIjk @ arrayFromMatrix(view.GetXYToRAS())
    width, height, count = view.GetDimensions()
    right, up, through = (xyToIjk[:3, axis] * n for axis, n in enumerate((width, height, count - 1)))
    across = np.abs(right) + np.abs(up)
    axis = int(across.argmin())
    if across[axis] > TOLERANCE:
        return None
    first, last = sorted((xyToIjk[axis, 3], xyToIjk[axis, 3] + through[axis]))
    slab = _halfSlab(view, rasToIjk)[axis]
    return axis, int(np.floor(first - slab + TOLERANCE)), int(np.ceil(last + slab - TOLERANCE))


def _halfSlab(view, rasToIjk):
    """Half the thickness of what a view puts together into one picture, in voxels along i, j, k."""
    if not view.GetSlabReconstructionEnabled():
        return np.zeros(3)
    normal = arrayFromMatrix(view.GetSliceToRAS())[:3, 2] * view.GetSlabReconstructionThickness() / 2
    return np.abs(rasToIjk[:3, :3] @ normal)
