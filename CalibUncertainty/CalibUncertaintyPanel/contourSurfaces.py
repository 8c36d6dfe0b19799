"""Where a probability crosses a level: the surface that slice views cut into a contour. numpy and VTK, no scene, no Qt."""

from dataclasses import dataclass

import numpy as np
import vtk
import vtk.util.numpy_support

from .mrmlTools import matrixFromArray


@dataclass(frozen=True)
class Contour:
    """One contour: `surface` (vtkPolyData in RAS mm) encloses where `structure` has at least the probability `level` (0..1).

    surface is None where the probability reaches that level nowhere.
    """

    structure: str
    level: float
    inner: bool
    surface: object


def contoursOf(readProbability, structures, outer, inner):
    """The outer and the inner contour of several structures. Touches no scene, so a thread may do it.

    :param readProbability: function from a structure's name to a `Volume` of its probability.
    :param structures: names.
    :param outer, inner: levels in 0..1; a level of 0 has no contour, since all places have that probability.
    :return: list of `Contour`, outer then inner of each structure.
    """
    contours = []
    for structure in structures:
        volume = readProbability(structure)
        for level, isInner in ((outer, False), (inner, True)):
            surface = levelSurface(volume.array, volume.ijk_to_ras, level)
            contours.append(Contour(structure, level, isInner, surface))
    return contours


def levelSurface(array, ijkToRas, level):
    """The closed surface on which a map, trilinear between its voxels and 0 around them, has a value.

    :param array: (z, y, x), float32.
    :param ijkToRas: 4x4 geometry of the map.
    :param level: value, above 0.
    :return: vtkPolyData in RAS mm, or None where the map does not reach the level.
    """
    if level <= 0:
        return None
    start, stop = _boundingBox(array, level)
    if start is None:
        return None
    part = array[tuple(slice(max(a - 1, 0), b + 1) for a, b in zip(start, stop, strict=True))]
    before = [1 if a == 0 else 0 for a in start]  # at the border of the map the surface is closed by a layer of zeros
    after = [1 if b == size else 0 for b, size in zip(stop, array.shape, strict=True)]
    part = np.pad(part.astype(np.float32, copy=False), list(zip(before, after, strict=True)))
    image = vtk.vtkImageData()
    image.SetDimensions(part.shape[::-1])
    image.SetOrigin([float(a - 1) for a in start][::-1])
    scalars = vtk.util.numpy_support.numpy_to_vtk(np.ascontiguousarray(part).ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
    return _inRas(_surface(image, level), ijkToRas)


def _surface(image, level):
    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, level)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    return edges.GetOutput()


def _inRas(surface, ijkToRas):
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrixFromArray(ijkToRas))
    transformed = vtk.vtkTransformPolyDataFilter()
    transformed.SetInputData(surface)
    transformed.SetTransform(transform)
    transformed.Update()
    return transformed.GetOutput()


def _boundingBox(array, level):
    """First and one past the last index (z, y, x) at which the array is at least the level; (None, None) if nowhere."""
    start, stop = [], []
    reached = array >= level
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(reached.any(axis=others))
        if not len(where):
            return None, None
        start.append(int(where[0]))
        stop.append(int(where[-1]) + 1)
    return start, stop
