"""Between the array a `Volume` holds and the array nnU-Net works on: a permutation and flips of axes, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..errors import CalibUncertaintyError
from ..volume import Volume

_PLAIN_READERS = ("SimpleITKIO", "NibabelIO")  # they hand nnU-Net the array as SimpleITK has it, (z, y, x)


@dataclass(frozen=True)
class Frame:
    """network = flip(transpose(volume, axes), flipped); the axes of `flipped` are the network's.

    A model's plans name the reader it was trained with (one of them turns every image to RAS first) and a transposition
    of the axes; both are repeated here so that the network sees a CT exactly as stock nnU-Net would show it.
    """

    axes: tuple[int, int, int]
    flipped: tuple[int, ...] = ()

    def to_network(self, array: np.ndarray) -> np.ndarray:
        """(z, y, x) of the volume to the network's axis order; a view."""
        return np.flip(array.transpose(self.axes), self.flipped) if self.flipped else array.transpose(self.axes)

    def to_volume(self, array: np.ndarray) -> np.ndarray:
        """The network's axis order back to (z, y, x) of the volume; a view. Leading axes are kept."""
        lead = array.ndim - 3
        flipped = np.flip(array, [axis + lead for axis in self.flipped]) if self.flipped else array
        back = [int(axis) + lead for axis in np.argsort(self.axes)]
        return flipped.transpose([*range(lead), *back])

    def spacing_to_network(self, spacing_zyx: tuple[float, ...]) -> tuple[float, ...]:
        """Spacing in mm in the network's axis order."""
        return tuple(spacing_zyx[axis] for axis in self.axes)

    def start_in_volume(self, start, stop, full_shape) -> tuple[int, int, int]:
        """Where a box [start, stop) of the network's frame (whose full shape is given) begins in the volume's array."""
        begin = [full_shape[a] - stop[a] if a in self.flipped else start[a] for a in range(3)]
        return tuple(int(begin[axis]) for axis in np.argsort(self.axes))

    def then_transpose(self, forward) -> Frame:
        """This frame followed by nnU-Net's `transpose_forward`."""
        forward = [int(axis) for axis in forward]
        flipped = tuple(new for new, old in enumerate(forward) if old in self.flipped)
        return Frame(tuple(self.axes[axis] for axis in forward), flipped)


def reader_frame(volume: Volume, reader: str) -> Frame:
    """What the plans' `image_reader_writer` does to the axes before nnU-Net's own transposition.

    Raises CalibUncertaintyError for a reader that is not for volumes of CT.
    """
    if reader in _PLAIN_READERS:
        return Frame((0, 1, 2))
    if reader == "SimpleITKIOWithReorient":
        return _itk_ras_frame(volume)
    if reader == "NibabelIOWithReorient":
        return _ras_frame(volume)
    raise CalibUncertaintyError(f"the model's plans read images with {reader}, which is not a reader of CT volumes")


def _ras_frame(volume: Volume) -> Frame:
    """Axes turned to RAS+ as nibabel turns them (closest canonical orientation of the affine)."""
    from nibabel.orientations import io_orientation

    orientation = io_orientation(volume.ijk_to_ras)  # for each of i, j, k: the RAS axis it becomes, and its sign
    source = np.argsort(orientation[:, 0]).astype(int)  # which of i, j, k becomes R, A, S
    axes = tuple(int(2 - source[2 - axis]) for axis in range(3))
    flipped = tuple(axis for axis in range(3) if orientation[source[2 - axis], 1] < 0)
    return Frame(axes, flipped)


def _itk_ras_frame(volume: Volume) -> Frame:
    """Axes turned to RAS as ITK turns them, seen on a small image of numbered voxels.

    Where two axes are equally near, as in scans turned by 45 degrees, ITK and nibabel decide differently.
    """
    numbered = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(numbered)
    image.SetDirection(np.asarray(volume.direction_lps, dtype=float).ravel().tolist())
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS"))
    axes = tuple(numbered.shape.index(count) for count in turned.shape)
    corner = np.argwhere(numbered.transpose(axes) == turned[0, 0, 0])[0]
    return Frame(axes, tuple(int(axis) for axis in np.flatnonzero(corner)))
