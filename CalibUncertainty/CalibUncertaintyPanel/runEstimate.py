"""What a run will take, told before it starts. Arithmetic on the plans and the CT's size: no PyTorch, some milliseconds. No Qt."""

import platform
import shutil

import numpy as np
from slicer.i18n import tr as _

from . import ctVolume


def ctGrid(volumeNode, array=None):
    """Size and geometry of a CT without its voxels, for a thread.

    :param array: (k, j, i) voxels to put in all the same.
    :return: `Volume`, without an array of zeros that take no memory.
    """
    from CalibUncertaintyLib.volume import Volume

    shape = volumeNode.GetImageData().GetDimensions()[::-1]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ctVolume.worldIjkToRas(volumeNode)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    array = np.broadcast_to(np.int16(0), shape) if array is None else array
    return Volume(array, tuple(float(s) for s in spacing[::-1]), tuple(lps[:3, 3]), lps[:3, :3] / spacing)


def estimateSentence(grid, modelFolder, folds, mirroring, device, wholeMaps=False):
    """Time, memory and disk in one line.

    :param grid: of `ctGrid`.
    :param folds: "all" or a list.
    :param device: auto, cpu, cuda or mps.
    :param wholeMaps: maps of all of the CT, or nearly.
    :raises CalibUncertaintyError: if the CT is too thin for the model.
    """
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.workflow.preflight import estimate_run

    members = MemberSet.choose(modelFolder, folds, flips="mean" if mirroring else "off")
    device = likelyDevice() if device == "auto" else device
    sentence = estimate_run(members, grid, device, full_volume=wholeMaps).sentence()
    # In which axes a model may be mirrored stands in its checkpoints, which need PyTorch.
    return sentence + (_("; less where the model allows fewer mirrored copies") if mirroring else "")


def likelyDevice():
    """What "auto" will probably be: without PyTorch only the driver's tool tells."""
    if shutil.which("nvidia-smi"):
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"
