"""The CT: whether it can be segmented, how it is handed to the computation, and which one a Result belongs to."""

import logging
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .mrmlTools import arrayFromMatrix, matrixFromArray, nodesOfClass

SHEAR_TOLERANCE = 1e-3  # cosine between two axes; a gantry tilt is a hundred times more
POSITION_TOLERANCE_MM = 0.05


def ctProblem(volumeNode):
    """Say why a volume cannot be segmented.

    :param volumeNode: a volume node, or None when nothing is chosen.
    :return: one sentence for the user, or an empty string when the volume is fine.
    """
    if volumeNode is None:
        return _("Choose a CT volume (load one with Add Data or Add DICOM Data).")
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode") or not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        kind = volumeNode.GetNodeTagName()
        return _("{name} is not a CT: it is a {kind}. Choose a scalar volume.").format(name=name, kind=kind)
    if volumeNode.GetAttribute("CalibUncertainty.Kind"):
        return _("{name} is a map that this module has made. Choose the CT.").format(name=name)
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return _("{name} has no voxels. Load the CT again.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        count = image.GetNumberOfScalarComponents()
        return _("{name} has {count} values in each voxel. Choose a single-channel CT.").format(name=name, count=count)
    if min(image.GetDimensions()) < 2:
        return _("{name} is a single slice. Choose a volume with several slices.").format(name=name)
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None and not transformNode.IsTransformToWorldLinear():
        text = _("{name} is under a non-linear transform. Harden the transform (Transforms module), then run again.")
        return text.format(name=name)
    if _isSheared(worldIjkToRas(volumeNode)):
        text = _(
            "{name} has axes that are not at right angles (gantry tilt or a shearing transform). Resample it first."
        )
        return text.format(name=name)
    return ""


def worldIjkToRas(volumeNode):
    """Geometry of a volume as it lies in the world, its parent transform included.

    :return: 4x4 array from (i, j, k, 1) to RAS mm.
    :raises ValueError: if the parent transform is not linear.
    """
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None:
        toWorld = vtk.vtkMatrix4x4()
        if not transformNode.GetMatrixTransformToWorld(toWorld):
            raise ValueError(_("{name} is under a non-linear transform").format(name=volumeNode.GetName()))
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return arrayFromMatrix(matrix)


def writeCt(volumeNode, path):
    """Write the CT as it lies in the world to an .nrrd file; neither the scene nor the volume is touched.

    :param volumeNode: a volume that `ctProblem` has nothing against.
    :param path: file to write; uncompressed, because it is read once, at once.
    :raises OSError: if it cannot be written.
    """
    copy = slicer.vtkMRMLScalarVolumeNode()
    copy.SetName(volumeNode.GetName())
    copy.SetAndObserveImageData(volumeNode.GetImageData())
    copy.SetIJKToRASMatrix(matrixFromArray(worldIjkToRas(volumeNode)))
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    expected = volumeNode.GetImageData().GetPointData().GetScalars().GetDataSize()
    expected *= volumeNode.GetImageData().GetScalarSize()
    if not storage.WriteData(copy) or not Path(path).is_file() or Path(path).stat().st_size < expected:
        raise OSError(_("The CT could not be written to {path}. Check the free space of that disk.").format(path=path))


def belongsTogether(volumeNode, result):
    """Whether a volume of the scene has the voxel grid of the CT that a Result was made from.

    :param volumeNode: scalar volume node.
    :param result: a `Result`.
    """
    if volumeNode is None or volumeNode.GetImageData() is None:
        return False
    segmentation = result.segmentation
    if tuple(volumeNode.GetImageData().GetDimensions()) != segmentation.array.shape[::-1]:
        return False
    try:
        here = worldIjkToRas(volumeNode)
    except ValueError as error:
        logging.info("CalibUncertainty: %s; it is not taken as the CT of the result", error)
        return False
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array(segmentation.array.shape[::-1]) - 1
    return np.abs(corners @ here.T - corners @ segmentation.ijk_to_ras.T).max() < POSITION_TOLERANCE_MM


def hasVoxels(volumeNode, result):
    """Whether a volume has the voxels of the CT that a Result was made from; None where the Result does not tell.

    :param volumeNode: scalar volume node on the Result's voxel grid.
    :param result: a `Result`.
    """
    return result.is_of(slicer.util.arrayFromVolume(volumeNode))


def findCt(scene, result, preferred=None):
    """The volume of the scene that a Result was made from.

    Of those on its voxel grid the one that has its voxels, else one of which nobody can tell, else any: CTs of one scanner often
    have one grid. Of equals the preferred one, else the first.

    :return: scalar volume node or None.
    """
    nodes = [preferred] if belongsTogether(preferred, result) else []
    for node in nodesOfClass(scene, "vtkMRMLScalarVolumeNode"):
        isOurs = node.GetAttribute("CalibUncertainty.ResultFolder") or node.IsA("vtkMRMLLabelMapVolumeNode")
        if not isOurs and node is not preferred and belongsTogether(node, result):
            nodes.append(node)
    order = (True, None, False)
    return min(nodes, key=lambda node: order.index(hasVoxels(node, result)), default=None)


def libraryVolume(ctNode):
    """A CT as the library has it; its voxels are shared, not copied.

    :param ctNode: scalar volume node.
    :return: `Volume`.
    """
    from CalibUncertaintyLib.volume import Volume

    ijkToRas = worldIjkToRas(ctNode)
    spacing = np.linalg.norm(ijkToRas[:3, :3], axis=0)
    flip = np.diag([-1.0, -1.0, 1.0])
    direction, origin = flip @ (ijkToRas[:3, :3] / spacing), flip @ ijkToRas[:3, 3]
    return Volume(slicer.util.arrayFromVolume(ctNode), tuple(spacing[::-1]), tuple(origin), direction)


def _isSheared(ijkToRas):
    axes = ijkToRas[:3, :3] / np.linalg.norm(ijkToRas[:3, :3], axis=0)
    return np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE
