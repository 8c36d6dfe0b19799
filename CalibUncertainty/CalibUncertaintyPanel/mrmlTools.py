"""Small things MRML does not offer to Python: nodes of a class in a given scene, matrices as arrays."""

import numpy as np
import vtk


def nodesOfClass(scene, className):
    """All nodes of a class (and those derived from it) in this scene, in its order."""
    count = scene.GetNumberOfNodesByClass(className)
    return [scene.GetNthNodeByClass(index, className) for index in range(count)]


def arrayFromMatrix(matrix):
    """4x4 vtkMatrix4x4 as an array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrixFromArray(array):
    """4x4 array as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix
