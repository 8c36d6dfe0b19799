"""The way back: logits on the network's grid to the CT grid, only where asked, with the numbers stock nnU-Net gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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

    def prepare(self, logits: np.ndarray) -> np.ndarray:
        """Logits (C, grid) as `sample` wants them: as they are, or whole on the CT grid where the rule is not separable."""
        if self.separable:
            return logits
        import torch

        return np.asarray(self._whole(torch.from_numpy(np.ascontiguousarray(logits))), dtype=np.float16)

    def sample(self, logits: np.ndarray, window: tuple[slice, slice, slice]) -> np.ndarray:
        """Logits (C, ...) at a window of the cropped CT grid, float16 as stock nnU-Net keeps them.

        Interpolated in double precision and rounded once, so that labels agree with nnU-Net's voxel for voxel.
        """
        import torch

        cut = [slice(int(m.low[w].min()), int(m.high[w].max()) + 1) for m, w in zip(self.maps, window, strict=True)]
        source = torch.from_numpy(np.ascontiguousarray(logits[(slice(None), *cut)]))
        if not any(m.weight[w].any() for m, w in zip(self.maps, window, strict=True)):
            for axis, (m, w, c) in enumerate(zip(self.maps, window, cut, strict=True), start=1):
                source = source.index_select(axis, torch.from_numpy(m.low[w] - c.start))
            return source.numpy()
        values = source.double()
        for axis, (m, w, c) in enumerate(zip(self.maps, window, cut, strict=True), start=1):
            low = values.index_select(axis, torch.from_numpy(m.low[w] - c.start))
            if m.weight[w].any():
                weight = torch.from_numpy(m.weight[w]).reshape([-1 if a == axis else 1 for a in range(4)])
                high = values.index_select(axis, torch.from_numpy(m.high[w] - c.start))
                low.mul_(1 - weight).add_(high.mul_(weight))
            values = low
        # numpy rounds double to half once; torch goes through single and may round twice
        return values.numpy().astype(np.float16)


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
