"""Several maps of uncertainty of one case in short: a few figures for each measure, of the case and of each structure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from ..plain_json import plain
from .aggregation_scores import PATCH_VOXELS, mean_of, patch_score
from .measures import binary_entropy
from .roi import box_around, checked_grid

Maps = Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]


def aggregate_maps(
    maps: Maps,
    label: np.ndarray,
    distance_to_interfaces: np.ndarray,
    spacing_zyx: tuple[float, float, float],
    names: Mapping[int, str],
    probabilities: Mapping[int, np.ndarray] | None = None,
    roi: np.ndarray | None = None,
) -> dict:
    """A few figures of every map, ready for JSON: what there is no voxel for is None.

    {"structures": {name: {"volume_ml", "expected_volume_ml", "measures": {measure: {"mean_inside", "mean_boundary", "max"}},
    "mean_entropy_k"}}, "case": {measure: {"mean_roi", "sum_roi", "patch", "max"}}}. `aggregate` says more of a single map.

    - `mean_inside`, `max`: over all voxels of the structure. `mean_boundary`: over those of its own voxels that lie in the band of
      4 voxels along any interface (`boundary_band`), so up to 2 deep; `boundary` of `aggregate` takes both sides of its surface.
    - `patch`: the largest sum over 10^3 voxels, see `patch_score`.
    - `expected_volume_ml`: sum of p times a voxel's volume, None without p. `mean_entropy_k`: mean entropy of (p, 1 - p) over the
      voxels of the structure, [0, ln 2], only there when probabilities are given (Mehrtash et al. 2020, Eq. 7).

    Volumes are of the whole image, all else is of the region of interest.

    :param maps: (measure, (z, y, x) map) one after the other, each let go before the next is asked for; or a mapping.
    :param label: (z, y, x) integers, 0 is background.
    :param distance_to_interfaces: (z, y, x) mm of the same labels, from the function of that name or from `signed_distance`.
    :param names: names, each once, of the labels above 0 to tell apart.
    :param probabilities: (z, y, x) p in [0, 1] by label; asked for one at a time.
    :param roi: (z, y, x) bool; None for the whole image.
    :raises CalibUncertaintyError: when a map holds NaN within the region of interest.
    :raises ValueError: when shapes differ, or a name or label does not fit.
    Source: Kahl et al. 2024 (ValUES) for the case, Zenk et al. 2025 for the boundary; the choice of figures is ours.
    """
    label = checked_grid(label, spacing_zyx)
    roi = np.ones(label.shape, bool) if roi is None else np.asarray(roi, bool)
    _check_shapes(label, distance_to_interfaces=distance_to_interfaces, roi=roi)
    labels = _checked_labels(names)
    inside = _Inside.of(label, labels, roi, distance_to_interfaces)
    structures = {
        name: {"volume_ml": volume, "expected_volume_ml": None, "measures": {}}
        for name, volume in zip(names.values(), _volumes_ml(label, labels, spacing_zyx), strict=True)
    }
    # every window that the region touches, and some that it does not, lie in this box
    box = box_around(roi, (PATCH_VOXELS,) * 3)
    case = {}
    for measure, u in maps.items() if isinstance(maps, Mapping) else maps:
        _check_shapes(label, **{measure: u})
        case[measure] = _case_figures(measure, u, roi, box)
        for of_structure, figures in zip(structures.values(), inside.figures(u), strict=True):
            of_structure["measures"][measure] = figures
        del u  # or it would still be held while the next one is made
    for place, number in enumerate(labels if probabilities is not None else ()):
        structures[names[number]] |= _of_probability(
            probabilities.get(number), inside.voxels_of(place), spacing_zyx, label
        )
    return plain({"structures": structures, "case": case})


@dataclass(frozen=True)
class _Inside:
    """The voxels of K structures in the region of interest, structure after structure: one pass over a map sums all of them up."""

    voxel: np.ndarray  # (n,) flat index into the array
    structure: np.ndarray  # (n,) 0 .. K-1, ascending
    at_boundary: np.ndarray  # (n,) bool
    sizes: np.ndarray  # (K,) voxels

    @classmethod
    def of(cls, label: np.ndarray, labels: list[int], roi: np.ndarray, distance: np.ndarray) -> _Inside:
        """Find them. Structures that are not predicted have no voxel."""
        voxel = np.flatnonzero((label != 0) & roi)
        found = np.take(label, voxel).astype(np.intp, copy=False)
        place = np.full(max([*labels, int(found.max(initial=0))], default=0) + 1, len(labels), np.uint16)
        place[labels] = np.arange(len(labels))
        structure = place[found]
        named = structure < len(labels)
        voxel, structure = voxel[named], structure[named]
        order = np.argsort(structure, kind="stable")  # 16 bits are sorted in linear time
        voxel, structure = voxel[order], structure[order]
        sizes = np.bincount(structure, minlength=len(labels))
        return cls(voxel, structure, np.take(_band(distance), voxel), sizes)

    def figures(self, u: np.ndarray) -> list[dict[str, float]]:
        """{"mean_inside", "mean_boundary", "max"} of a map for each structure, NaN over no voxel."""
        values = np.take(u, self.voxel)
        highest, some = np.full(self.sizes.size, math.nan), self.sizes > 0
        if some.any():
            highest[some] = np.maximum.reduceat(values, (np.cumsum(self.sizes) - self.sizes)[some])
        whole = self._means(values, self.structure)
        edge = self._means(values[self.at_boundary], self.structure[self.at_boundary])
        return [
            {"mean_inside": float(mean), "mean_boundary": float(at_edge), "max": float(most)}
            for mean, at_edge, most in zip(whole, edge, highest, strict=True)
        ]

    def voxels_of(self, place: int) -> np.ndarray:
        """(n,) flat indices of one structure's voxels, ascending."""
        end = int(self.sizes[: place + 1].sum())
        return self.voxel[end - int(self.sizes[place]) : end]

    def _means(self, values: np.ndarray, structure: np.ndarray) -> np.ndarray:
        sizes = np.bincount(structure, minlength=self.sizes.size)
        sums = np.bincount(structure, weights=values, minlength=self.sizes.size)
        return np.divide(sums, sizes, out=np.full(sizes.size, math.nan), where=sizes > 0)


def _band(distance: np.ndarray) -> np.ndarray:
    """`boundary_band` of width 4 without another distance transform: voxels on an interface, and their face neighbours."""
    surface = np.asarray(distance) == 0
    band = surface.copy()
    for axis in range(3):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        band[low] |= surface[high]
        band[high] |= surface[low]
    return band


def _case_figures(
    measure: str, u: np.ndarray, roi: np.ndarray, box: tuple[slice, slice, slice] | None
) -> dict[str, float]:
    if box is None:
        return dict.fromkeys(("mean_roi", "sum_roi", "patch", "max"), math.nan)
    values = u[box][roi[box]]
    total = float(values.sum(dtype=np.float64))
    if math.isnan(total):
        raise CalibUncertaintyError(f"the map of {measure} holds NaN; predict the case again")
    patch = patch_score(u[box], mask=roi[box])
    return {"mean_roi": total / values.size, "sum_roi": total, "patch": patch, "max": float(values.max())}


def _of_probability(
    p: np.ndarray | None, voxel: np.ndarray, spacing_zyx: tuple[float, float, float], label: np.ndarray
) -> dict[str, float]:
    """Expected volume of a structure, and its entropy over the voxels that it was given."""
    if p is None:
        return {"expected_volume_ml": None, "mean_entropy_k": None}
    _check_shapes(label, probability=p)
    expected = float(np.sum(p, dtype=np.float64)) * math.prod(spacing_zyx) / 1000.0
    return {"expected_volume_ml": expected, "mean_entropy_k": mean_of(binary_entropy(np.take(p, voxel)))}


def _volumes_ml(label: np.ndarray, labels: list[int], spacing_zyx: tuple[float, float, float]) -> list[float]:
    """Volume of each structure in the whole image; counted plane by plane, since counting copies what it counts to 64 bits."""
    bins = max([*labels, int(label.max(initial=0))], default=0) + 1
    counts = np.zeros(bins, np.int64)
    for plane in label:
        counts += np.bincount(np.ravel(plane), minlength=bins)
    return [float(counts[number] * math.prod(spacing_zyx) / 1000.0) for number in labels]


def _checked_labels(names: Mapping[int, str]) -> list[int]:
    labels = [int(number) for number in names]
    if min(labels, default=1) < 1 or len(set(names.values())) != len(labels):
        raise ValueError(f"expected labels above 0, each with a name of its own, got {dict(names)}")
    return labels


def _check_shapes(label: np.ndarray, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if np.shape(array) != label.shape:
            raise ValueError(f"{name} has shape {np.shape(array)}, the labels have {label.shape}")
