"""Where the slice views look: centred on a place, zoomed to it, back to how they were; and the most uncertain slice."""

import numpy as np

from .mrmlTools import arrayFromMatrix, nodesOfClass

MARGIN_MM = 25.0  # of anatomy around a region, to each side
LARGEST_REACH_MM = 60.0  # of a region that is longer, such as the rim of a liver, the part around the peak is shown
FEWEST_VOXELS = 64  # across a view: a CT shows nothing more when its voxels are drawn larger


class ReviewViews:
    """Moves and zooms every slice view of a scene, and remembers how they were zoomed before."""

    def __init__(self, scene):
        self.scene = scene
        self._before = {}
        self._marked = False

    @property
    def isZoomed(self):
        """Whether `fit` has something to give back."""
        return bool(self._before)

    def forget(self):
        """Another CT is shown: its views were never zoomed."""
        self._before.clear()

    def show(self, positionRas, widthMm=None):
        """Centre every slice view on a point, and zoom to a width where one is given.

        :param positionRas: (R, A, S) in mm.
        :param widthMm: what the smaller side of each view is to show, see `widthFor`; None leaves the zoom as it is.
        """
        r, a, s = (float(value) for value in positionRas)
        for node in nodesOfClass(self.scene, "vtkMRMLSliceNode"):
            wasModifying = node.StartModify()
            try:
                if widthMm is not None:
                    self._zoom(node, widthMm)
                node.JumpSliceByCentering(r, a, s)
            finally:
                node.EndModify(wasModifying)
        self._mark(r, a, s)

    def unmark(self):
        """Take the crosshair off the views, if it is there only because of `show`."""
        node = self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if self._marked and node is not None and node.GetCrosshairMode() == node.ShowIntersection:
            node.SetCrosshairMode(node.NoCrosshair)
        self._marked = False

    def fit(self):
        """Give every view the zoom and the place in its plane back that it had before the first zoom.

        :return: whether there was something to give back.
        """
        for node in nodesOfClass(self.scene, "vtkMRMLSliceNode"):
            before = self._before.get(node.GetID())
            if before is None:
                continue
            scale, toRas, origin = before
            wasModifying = node.StartModify()
            try:
                _setScale(node, scale)
                offset = node.GetSliceOffset()
                if np.allclose(arrayFromMatrix(node.GetSliceToRAS())[:3, :3], toRas[:3, :3]):
                    for row in range(3):
                        node.GetSliceToRAS().SetElement(row, 3, toRas[row, 3])
                    node.SetXYZOrigin(*origin)
                    node.UpdateMatrices()
                    node.SetSliceOffset(offset)  # the slice that is looked at stays
            finally:
                node.EndModify(wasModifying)
        hadSome = self.isZoomed
        self._before.clear()
        return hadSome

    def _mark(self, r, a, s):
        """Put Slicer's crosshair on the place. One that the user has chosen, or taken away meanwhile, is left as it is."""
        node = self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if node is None:
            return
        if not self._marked and node.GetCrosshairMode() == node.NoCrosshair:
            node.SetCrosshairMode(node.ShowIntersection)  # thin lines that leave the place itself free
            self._marked = True
        node.SetCrosshairRAS(r, a, s)

    def _zoom(self, node, widthMm):
        if node.GetID() not in self._before:
            place = arrayFromMatrix(node.GetSliceToRAS()), tuple(node.GetXYZOrigin())
            self._before[node.GetID()] = (_scale(node), *place)
        _setScale(node, widthMm / max(min(node.GetDimensions()[:2]), 1))


def widthFor(reachMm, ijkToRas, shape):
    """Millimetres that the smaller side of a view shows of a region: never so few that the CT's voxels are drawn larger than
    a 64th of the view, and never more than the CT has; our definition.

    :param reachMm: distance from the middle of the view to the farthest side of the region.
    :param ijkToRas: 4x4 geometry of the CT.
    :param shape: (z, y, x) voxels of the CT.
    """
    spacing = np.linalg.norm(ijkToRas[:3, :3], axis=0)[::-1]
    wanted = 2 * (min(reachMm, LARGEST_REACH_MM) + MARGIN_MM)
    return min(max(wanted, FEWEST_VOXELS * spacing.min()), (spacing * shape).max())


def reachOf(positionRas, cornersRas):
    """Distance along the patient's axes from a point to the farthest side of a box.

    :param cornersRas: (8, 3) mm.
    """
    return float(np.abs(np.asarray(cornersRas) - np.asarray(positionRas)).max())


def mostUncertainSlice(array, ijkToRas, threshold):
    """The axial slice with the largest sum of a measure at and above its threshold; our definition.

    :param array: (z, y, x) the measure, 0 outside the region of interest.
    :param ijkToRas: 4x4 geometry of the array; of an oblique volume the slices nearest to axial are taken.
    :param threshold: in the measure's unit; voxels of 0 never count.
    :return: (RAS of its most uncertain voxel, voxels above the threshold), or None where nothing is above.
    """
    axis = 2 - int(np.abs(ijkToRas[2, :3]).argmax())
    slices = np.moveaxis(array, axis, 0)
    least = max(threshold, np.finfo(np.float32).tiny)
    sums = np.array([plane[plane >= least].sum(dtype=float) for plane in slices])
    if not sums.any():
        return None
    number = int(sums.argmax())
    plane = slices[number]
    index = list(np.unravel_index(int(plane.argmax()), plane.shape))
    index.insert(axis, number)
    position = ijkToRas[:3, :3] @ index[::-1] + ijkToRas[:3, 3]
    return position, int((plane >= least).sum())


def _scale(node):
    """Millimetres of a pixel."""
    width = max(node.GetDimensions()[0], 1)
    return node.GetFieldOfView()[0] / width


def _setScale(node, millimetres):
    width, height = node.GetDimensions()[:2]
    node.SetFieldOfView(millimetres * width, millimetres * height, node.GetFieldOfView()[2])
