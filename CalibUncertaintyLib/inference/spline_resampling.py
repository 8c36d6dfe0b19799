"""nnU-Net's resampling of the CT to the network's grid: the same numbers from matrix products, in a fraction of time and memory.

nnU-Net resizes with scikit-image, that is with scipy's `zoom`: splines of third order in double precision over the whole volume,
64 neighbours a voxel, and several copies of the volume in double precision. But a spline filter and its evaluation are linear and
separable. So each axis has one matrix, made by scipy's own zoom from unit vectors, and a volume is resized by one product an axis.
Its entries fall off by a factor of 3.7 a voxel, which leaves a narrow band. The products are in double precision too; rounded to
single, about one voxel in a million differs from nnU-Net's in its last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

# Of what multiplies a voxel, this is lost in the rounding of a sum in double precision
_NOTHING = 1e-17
_OUTPUTS_AT_ONCE = 32
_CHUNK_BYTES = 1 << 24


class AxisProduct:
    """Resizing along one axis from `n_in` to `n_out` voxels, as blocks of a banded matrix; scipy's zoom with edges repeated."""

    def __init__(self, n_in: int, n_out: int, order: int) -> None:
        self.n_in, self.n_out = n_in, n_out
        matrix = _matrix(n_in, n_out, order)
        self._blocks = []
        for start in range(0, n_out, _OUTPUTS_AT_ONCE):
            rows = matrix[start : start + _OUTPUTS_AT_ONCE]
            used = np.nonzero((np.abs(rows) > _NOTHING).any(axis=0))[0]
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            self._blocks.append((slice(start, start + len(rows)), inputs, np.ascontiguousarray(rows[:, inputs])))

    def along(self, values: np.ndarray, axis: int) -> np.ndarray:
        """values: (a, b, c) float64; the same with `n_out` voxels along `axis`."""
        shape = list(values.shape)
        shape[axis] = self.n_out
        out = np.empty(shape)
        for outputs, inputs, rows in self._blocks:
            if axis == 2:
                np.matmul(values[:, :, inputs], rows.T, out=out[:, :, outputs])
            elif axis == 1:
                np.matmul(rows, values[:, inputs], out=out[:, outputs])
            else:
                flat = values[inputs].reshape(inputs.stop - inputs.start, -1)
                np.matmul(rows, flat, out=out[outputs].reshape(len(rows), -1))
        return out


@functools.lru_cache(maxsize=16)
def _matrix(n_in: int, n_out: int, order: int) -> np.ndarray:
    """(n_out, n_in): what scipy's zoom makes of each unit vector, as scikit-image's `resize` calls it."""
    from scipy.ndimage import zoom

    unit, columns = np.zeros(n_in), np.empty((n_in, n_out))
    for index, column in enumerate(columns):
        unit[index] = 1
        zoom(unit, 1 / (n_in / n_out), output=column, order=order, mode="nearest", grid_mode=True)
        unit[index] = 0
    return np.ascontiguousarray(columns.T)


def can_resize(settings: Mapping) -> bool:
    """Whether a plan's settings for resampling images are nnU-Net's usual ones: cubic splines, the nearest slice through plane.

    Linear interpolation hits exact halves, whose rounding depends on the order of the additions; it is left to nnU-Net.
    """
    known = {"is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"}
    plain = not settings.get("is_seg") and settings.get("order_z", 0) == 0 and settings.get("order", 3) == 3
    return plain and set(settings) <= known


def resized(
    data: np.ndarray, new_shape: Sequence[int], current_spacing: Sequence[float], new_spacing: Sequence[float], *,
    is_seg: bool = False, order: int = 3, order_z: int = 0, force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float | None = None,
) -> np.ndarray:  # fmt: skip
    """What nnU-Net's `resample_data_or_seg_to_shape` gives for images, (channels, *new_shape) float32.

    data: (channels, z, y, x) float32. Spacings in mm decide whether slices are resized each by itself, and the nearest ones taken
    (`order_z` 0), as nnU-Net does for thick slices. The answer stays within the values that are there, of the volume or, slice by
    slice, of the slice: splines overshoot.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import ANISO_THRESHOLD, determine_do_sep_z_and_axis

    if is_seg or order_z != 0:  # see `can_resize`
        raise ValueError("only images, with the nearest slice through plane")
    new_shape = tuple(int(n) for n in new_shape)
    if data.shape[1:] == new_shape:
        return data
    limit = ANISO_THRESHOLD if separate_z_anisotropy_threshold is None else separate_z_anisotropy_threshold
    separate, thick = determine_do_sep_z_and_axis(force_separate_z, current_spacing, new_spacing, limit)
    out = np.empty((len(data), *new_shape), data.dtype)
    for volume, into in zip(data, out, strict=True):
        if separate:
            _slice_by_slice(np.moveaxis(volume, thick, 0), np.moveaxis(into, thick, 0), order)
        else:
            _whole(volume, into, order)
    return out


def _slice_by_slice(volume: np.ndarray, into: np.ndarray, order: int) -> None:
    """Slices along the first axis are resized each by itself, and only those that are the nearest to one of the new ones."""
    n_in, n_out = len(volume), len(into)
    # as nnU-Net rounds: the coordinate of scipy's map_coordinates, edges repeated, to its nearest
    centre = np.clip(n_in / n_out * (np.arange(n_out) + 0.5) - 0.5, 0, n_in - 1) if n_in != n_out else np.arange(n_out)
    nearest = np.floor(centre + 0.5).astype(int)
    products = [AxisProduct(a, b, order) for a, b in zip(volume.shape[1:], into.shape[1:], strict=True)]
    for index in np.unique(nearest):
        plane = volume[index : index + 1].astype(np.float64)
        resized_plane = products[0].along(products[1].along(plane, 2), 1)
        into[nearest == index] = resized_plane.clip(plane.min(), plane.max())


def _whole(volume: np.ndarray, into: np.ndarray, order: int) -> None:
    """In plane first, a few planes at a time, and then through plane, a few rows at a time."""
    low, high = float(volume.min()), float(volume.max())
    sizes = enumerate(zip(volume.shape, into.shape, strict=True))
    products = {axis: AxisProduct(n_in, n_out, order) for axis, (n_in, n_out) in sizes if n_in != n_out}
    moving = 0 in products
    between = np.empty((len(volume), *into.shape[1:])) if moving else into
    step = max(1, _CHUNK_BYTES // (8 * int(np.prod(volume.shape[1:]))))
    for begin in range(0, len(volume), step):
        planes = volume[begin : begin + step].astype(np.float64)
        for axis in (2, 1):
            if axis in products:
                planes = products[axis].along(planes, axis)
        between[begin : begin + step] = planes if moving else planes.clip(low, high, out=planes)
    if moving:
        step = max(1, _CHUNK_BYTES // (8 * len(volume) * into.shape[2]))
        for begin in range(0, into.shape[1], step):
            rows = products[0].along(np.ascontiguousarray(between[:, begin : begin + step]), 0)
            into[:, begin : begin + step] = rows.clip(low, high, out=rows)
