"""The way back: logits on the network's grid to the CT grid, only where asked, with the numbers stock nnU-Net gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_COLUMNS = 64  # CT voxels of a row that are made in one product


@dataclass(frozen=True)
class AxisMap:
    """Where each voxel of the CT grid lies between two voxels of the network's grid, along one axis."""

    low: np.ndarray  # int64 (n_out,)
    high: np.ndarray  # int64 (n_out,)
    weight: np.ndarray  # float64 (n_out,), of `high`

    @classmethod
    def between(cls, n_in: int, n_out: int, nearest: bool) -> AxisMap:
        """Cell-centred grids over the same extent, edges repeated: the rule of scipy's zoom and of nnU-Net."""
        centre = np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)
        low = np.floor(centre + 0.5 if nearest else centre).astype(np.int64)
        weight = np.zeros(n_out) if nearest else centre - low
        return cls(low, np.minimum(low + (weight > 0), n_in - 1), weight)

    def reaching(self, start: int, stop: int) -> tuple[int, int]:
        """The CT voxels [a, b) that take anything from network voxels [start, stop)."""
        touched = np.nonzero((self.high >= start) & (self.low < stop))[0]
        return (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, 0)

    def keeps(self, part: slice, n_in: int) -> bool:
        """Whether CT voxels `part` are just the `n_in` network voxels that they take anything from, one by one."""
        low = self.low[part]
        return not self.weight[part].any() and len(low) == n_in and bool((np.diff(low) == 1).all())

    def matrix(self, part: slice, first: int, n_in: int) -> torch.Tensor:
        """The weights (CT voxels `part`, `n_in` network voxels from `first` on), float32."""
        import torch

        low, high, weight = self.low[part], self.high[part], self.weight[part]
        weights, rows = np.zeros((len(low), n_in), np.float32), np.arange(len(low))
        weights[rows, low - first] = 1 - weight
        weights[rows, high - first] += weight.astype(np.float32)
        return torch.from_numpy(weights)


class GridReturn:
    """Brings logits of one case from the network's grid to its (cropped) CT grid.

    nnU-Net interpolates logits linearly (in plane, and nearest through plane for thick slices), which is separable: any
    window of the CT grid can be made on its own. A plan with another rule takes the whole volume through that rule.
    """

    def __init__(
        self, configuration, grid_shape: Sequence[int], ct_shape: Sequence[int], grid_spacing, ct_spacing
    ) -> None:
        self.ct_shape = tuple(int(n) for n in ct_shape)
        self._whole = lambda logits: configuration.resampling_fn_probabilities(
            logits, self.ct_shape, grid_spacing, ct_spacing
        )
        self.maps = _separable_maps(configuration, tuple(grid_shape), self.ct_shape, grid_spacing, ct_spacing)
        self.separable = self.maps is not None
        if self.maps is None:
            self.maps = tuple(AxisMap.between(n, n, nearest=True) for n in self.ct_shape)

    def whole(self, logits: np.ndarray) -> np.ndarray:
        """Logits (C, grid) on the whole CT grid, float16, by the plan's own rule; for rules that are not separable."""
        import torch

        return np.asarray(self._whole(torch.from_numpy(np.ascontiguousarray(logits))), dtype=np.float16)

    def support(self, window: Sequence[slice]) -> tuple[slice, slice, slice]:
        """The network voxels that a window of the cropped CT grid takes anything from."""
        return tuple(
            slice(int(m.low[w].min()), int(m.high[w].max()) + 1) for m, w in zip(self.maps, window, strict=True)
        )

    def sample(self, source: torch.Tensor, window: Sequence[slice], exact: bool = True) -> torch.Tensor:
        """Logits (C, ...) float16 at a window of the cropped CT grid, as stock nnU-Net keeps them.

        source: (C, ...) float16, the window's `support` and nothing more. exact: interpolated in double precision, in the order of
        nnU-Net's own sums, and rounded once, so that labels agree with nnU-Net's voxel for voxel; otherwise in single, which may
        round the other way where two halves are equally near, but takes a fraction of the time.
        """
        cut = self.support(window)
        return self._in_order(source, window, cut) if exact else self._by_products(source, window, cut)

    def _in_order(self, source: torch.Tensor, window: Sequence[slice], cut: Sequence[slice]) -> torch.Tensor:
        """`sample` as nnU-Net adds up."""
        import torch

        moves = [m.weight[w].any() for m, w in zip(self.maps, window, strict=True)]
        values = source.cpu().numpy()
        values = values.astype(np.float64) if any(moves) else values
        for axis, (m, w, c, moving) in enumerate(zip(self.maps, window, cut, moves, strict=True), start=1):
            if m.keeps(w, values.shape[axis]):
                continue
            low = np.take(values, m.low[w] - c.start, axis=axis)
            if moving:
                weight = m.weight[w].reshape([-1 if a == axis else 1 for a in range(4)])
                high = np.take(values, m.high[w] - c.start, axis=axis)
                np.multiply(low, 1 - weight, out=low)
                np.multiply(high, weight, out=high)
                low += high
            values = low
        # numpy rounds double to half once; torch goes through single and may round twice
        return torch.from_numpy(np.ascontiguousarray(values).astype(np.float16, copy=False))

    def _by_products(self, source: torch.Tensor, window: Sequence[slice], cut: Sequence[slice]) -> torch.Tensor:
        """`sample` as one matrix product an axis: reading neighbours from all over memory takes longer than multiplying zeros."""
        values = source
        # through plane while the planes are small; the last axis needs no copy of what it multiplies
        for axis in (1, 3, 2):
            axis_map, part, first = self.maps[axis - 1], window[axis - 1], cut[axis - 1].start
            if axis_map.keeps(part, values.shape[axis]):
                continue
            matrix = axis_map.matrix(part, first, values.shape[axis]).to(values.device)
            values = values.float()
            if axis == 3:
                values = _times_rows(values, matrix, axis_map, part, first)
            elif axis == 2:
                values = matrix @ values
            else:
                values = (matrix @ values.flatten(2)).unflatten(2, values.shape[2:])
        return values.half()


def _times_rows(values: torch.Tensor, matrix: torch.Tensor, axis_map: AxisMap, part: slice, first: int) -> torch.Tensor:
    """values @ matrix.T, a few CT voxels after the other: each takes from its neighbours only, and the rest are zeros."""
    import torch

    low, high = axis_map.low[part] - first, axis_map.high[part] - first
    parts = []
    for begin in range(0, len(low), _COLUMNS):
        end = min(begin + _COLUMNS, len(low))
        taken = slice(int(low[begin]), int(high[end - 1]) + 1)
        parts.append(values[..., taken] @ matrix[begin:end, taken].T)
    return torch.cat(parts, dim=-1)


def _separable_maps(configuration, grid_shape, ct_shape, grid_spacing, ct_spacing) -> tuple[AxisMap, ...] | None:
    """The three axis maps of nnU-Net's default resampling, or None where the plan asks for something else."""
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    settings = dict(configuration.configuration["resampling_fn_probabilities_kwargs"])
    order, order_z = settings.pop("order", 3), settings.pop("order_z", 0)
    force = settings.pop("force_separate_z", False)
    threshold = settings.pop("separate_z_anisotropy_threshold", None)
    limit = {} if threshold is None else {"separate_z_anisotropy_threshold": threshold}
    is_seg = settings.pop("is_seg", False)
    name = configuration.configuration["resampling_fn_probabilities"]
    if grid_shape == ct_shape:
        return tuple(AxisMap.between(n, n, nearest=True) for n in ct_shape)  # nnU-Net's own shortcut too
    if name != "resample_data_or_seg_to_shape" or order not in (0, 1) or order_z not in (0, 1) or is_seg or settings:
        return None
    separate, thick_axis = determine_do_sep_z_and_axis(force, grid_spacing, ct_spacing, **limit)
    return tuple(
        AxisMap.between(n_in, n_out, nearest=(order_z if separate and axis == thick_axis else order) == 0)
        for axis, (n_in, n_out) in enumerate(zip(grid_shape, ct_shape, strict=True))
    )
