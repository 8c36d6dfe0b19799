"""From a map of uncertainty to a list of places that a reader should look at, worst first."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Protocol

import numpy as np

from .roi import roi_mask

UNCERTAIN = "uncertain"
POSSIBLE_MISS = "possible_miss"


class Geometry(Protocol):
    """The part of `Volume` that regions need: where voxels lie, in mm."""

    spacing_zyx: tuple[float, float, float]

    def lps_from_index(self, index_zyx: np.ndarray) -> np.ndarray: ...

    def ras_from_index(self, index_zyx: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Region:
    """One place to look at.

    `kind` is "uncertain" (above the threshold, near a structure) or "possible_miss" (far from every structure, yet some
    structure is likely enough). `label` and `structure` are the nearest structure, or the one possibly missed; 0 and "" when
    there is none. `mean` and `peak` are of the measure (possible_miss: of the foreground probability). `score` is the volume
    in mL expected to be wrong: the sum of the calibrated probability of an error (possible_miss: of the foreground probability)
    times the voxel volume; our definition. `distance_mm` is the least distance to a predicted structure, None when there is
    none. `share` is `score` as a part of the structure's predicted volume, what regions are read by: 0.1 mL in doubt is much of
    a lymph node and nothing of a liver (our definition; None for a possible miss). The centroid may lie outside a region that
    is a shell; the peak is always inside.
    """

    id: int
    kind: str
    label: int
    structure: str
    voxels: int
    volume_ml: float
    mean: float
    peak: float
    score: float
    distance_mm: float | None
    centroid_ras_mm: tuple[float, float, float]
    centroid_lps_mm: tuple[float, float, float]
    peak_ras_mm: tuple[float, float, float]
    peak_lps_mm: tuple[float, float, float]
    reason: str
    share: float | None = None

    def to_json(self) -> dict:
        """Plain JSON values, positions as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping) -> "Region":
        """The region that `to_json` described; keys of later versions are ignored."""
        values = {item.name: document[item.name] for item in fields(cls) if item.default is MISSING or item.name in document}
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@dataclass(frozen=True)
class FoundRegions:
    """The regions in the order in which to look at them, and how many were left out as too small."""

    regions: list[Region]
    dropped: int

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __getitem__(self, index: int) -> Region:
        return self.regions[index]


@dataclass(frozen=True)
class _Components:
    """Connected components as one flat list of voxels, and sums over each."""

    shape: tuple[int, int, int]
    voxel: np.ndarray      # (n,) flat index into the array, ascending
    component: np.ndarray  # (n,) 0 .. count-1
    count: int
    dropped: int

    def sum(self, values: np.ndarray) -> np.ndarray:
        """(count,) float64 sums of one value a voxel."""
        return np.bincount(self.component, weights=values, minlength=self.count)

    def first_by(self, key: np.ndarray) -> np.ndarray:
        """For each component the position in `voxel` of its least key; of equal keys the first voxel."""
        order = np.lexsort((key, self.component))
        first = np.searchsorted(self.component[order], np.arange(self.count))
        return order[first]

    def majority(self, labels: np.ndarray) -> np.ndarray:
        """(count,) most frequent label above 0 in each component, 0 when there is none; of equal ones the lowest."""
        # counted by place among those present: regions may have numbers up to 65535
        occurs = np.bincount(labels, minlength=1)
        occurs[0] = 1
        present = np.flatnonzero(occurs)
        place = np.zeros(present[-1] + 1, np.int64)
        place[present] = np.arange(present.size)
        counts = np.bincount(self.component * present.size + place[labels], minlength=self.count * present.size)
        counts = counts.reshape(self.count, present.size)
        counts[:, 0] = 0
        return present[counts.argmax(axis=1)]


def find_regions(
    measure_array: np.ndarray,
    distance: np.ndarray,
    label: np.ndarray,
    p_foreground: np.ndarray,
    expected_error: np.ndarray,
    roi_mm: float,
    threshold: float,
    volume: Geometry,
    labels: Mapping[int, str],
    min_volume_mm3: float,
    miss_probability: float,
    class_of_miss: np.ndarray,
) -> FoundRegions:
    """Uncertain regions near the structures, then places farther off where a structure may have been missed.

    Uncertain: 26-connected components of {measure >= threshold, distance <= roi_mm}. Possible miss: 26-connected components
    of {p_foreground >= miss_probability, distance > roi_mm}. Components under `min_volume_mm3` are left out. Uncertain regions
    come first, sorted by `share`, possible misses after them, sorted by `score`, highest first; numbered from 1. Our definition.

    :param measure_array: (z, y, x) the measure of uncertainty.
    :param distance: (z, y, x) mm to the nearest predicted structure, +inf when there is none.
    :param label: (z, y, x) predicted labels; of a model with regions the numbers of `regions_class_order`.
    :param p_foreground: (z, y, x) calibrated probability that the voxel is no background (`Heads.foreground`).
    :param expected_error: (z, y, x) calibrated probability that the label is wrong (`measures.expected_error`).
    :param roi_mm: limit of the region of interest in mm.
    :param threshold: of the measure, in its unit.
    :param volume: geometry of these arrays (spacing, and position of an index in LPS and RAS).
    :param labels: names of the foreground labels.
    :param min_volume_mm3: smallest volume that is listed.
    :param miss_probability: least foreground probability that counts as a possible miss.
    :param class_of_miss: (z, y, x) most likely foreground label.
    :raises ValueError: when the arrays' shapes differ or the threshold is not a number.
    """
    arrays = (measure_array, distance, label, p_foreground, expected_error, class_of_miss)
    if len({np.shape(array) for array in arrays}) != 1 or np.ndim(label) != 3:
        raise ValueError(f"expected (z, y, x) arrays of one shape, got {[np.shape(array) for array in arrays]}")
    if math.isnan(threshold) or math.isnan(miss_probability):
        raise ValueError("the threshold and the probability of a miss must be numbers")
    inside = roi_mask(distance, roi_mm)
    least = min_volume_mm3 / math.prod(volume.spacing_zyx) - 1e-6

    near = _components((measure_array >= threshold) & inside, least)
    near_labels = near.majority(_take(label, near).astype(np.int64))
    uncertain = _describe(UNCERTAIN, near, near_labels, measure_array, expected_error, distance, label, volume, labels)

    far = _components((p_foreground >= miss_probability) & ~inside, least)
    far_labels = far.majority(_take(class_of_miss, far).astype(np.int64))
    missed = _describe(POSSIBLE_MISS, far, far_labels, p_foreground, p_foreground, distance, label, volume, labels)

    regions = [
        Region(id=number, **values)
        for number, values in enumerate(_in_order(uncertain, "share") + _in_order(missed, "score"), start=1)
    ]
    return FoundRegions(regions, near.dropped + far.dropped)


def _components(mask: np.ndarray, least_voxels: float) -> _Components:
    """26-connected components of a mask that have at least `least_voxels` voxels."""
    nothing = np.zeros(0, dtype=np.int64)
    if not mask.any():
        return _Components(mask.shape, nothing, nothing, 0, 0)
    import cc3d

    numbered, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26, return_N=True)
    voxel = np.flatnonzero(mask)
    component = numbered.reshape(-1)[voxel].astype(np.int64) - 1
    kept = np.bincount(component, minlength=count) >= least_voxels
    renumbered = np.cumsum(kept) - 1
    stays = kept[component]
    kept_count = int(kept.sum())
    return _Components(mask.shape, voxel[stays], renumbered[component[stays]], kept_count, int(count) - kept_count)


def _take(array: np.ndarray, components: _Components) -> np.ndarray:
    return np.take(array, components.voxel)


def _describe(
    kind: str,
    components: _Components,
    structure_labels: np.ndarray,
    shown: np.ndarray,
    wrong: np.ndarray,
    distance: np.ndarray,
    label: np.ndarray,
    volume: Geometry,
    labels: Mapping[int, str],
) -> list[dict]:
    """The fields of `Region`, but for the id, of every component, unsorted."""
    if components.count == 0:
        return []
    voxel_ml = math.prod(volume.spacing_zyx) / 1000.0
    values = _take(shown, components)
    distances = _take(distance, components)
    sizes = np.bincount(components.component, minlength=components.count)
    means = components.sum(values) / sizes
    scores = components.sum(_take(wrong, components)) * voxel_ml
    indices = np.stack(np.unravel_index(components.voxel, components.shape), axis=1)
    centroids = np.stack([components.sum(indices[:, axis]) for axis in range(3)], axis=1) / sizes[:, np.newaxis]
    peaks = components.first_by(-values)
    nearest = components.first_by(distances)
    if kind == UNCERTAIN:
        structure_labels = structure_labels.copy()
        apart = np.flatnonzero(structure_labels == 0)
        structure_labels[apart] = _label_nearest_to(indices[nearest[apart]], label, volume.spacing_zyx)
    structure_ml = _count_of_each(label) * voxel_ml
    found = []
    for number in range(components.count):
        name = labels.get(int(structure_labels[number]), "")
        gap = float(distances[nearest[number]])
        region = {
            "kind": kind,
            "label": int(structure_labels[number]),
            "structure": name,
            "voxels": int(sizes[number]),
            "volume_ml": float(sizes[number] * voxel_ml),
            "mean": float(means[number]),
            "peak": float(values[peaks[number]]),
            "score": float(scores[number]),
            "share": float(scores[number] / structure_ml[structure_labels[number]]) if kind == UNCERTAIN else None,
            "distance_mm": gap if math.isfinite(gap) else None,
            **_positions("centroid", centroids[number], volume),
            **_positions("peak", indices[peaks[number]], volume),
        }
        found.append(region | {"reason": _reason(region)})
    return found


def _positions(name: str, index_zyx: np.ndarray, volume: Geometry) -> dict[str, tuple[float, float, float]]:
    return {
        f"{name}_{space}_mm": tuple(float(value) for value in position(index_zyx))
        for space, position in (("ras", volume.ras_from_index), ("lps", volume.lps_from_index))
    }


def _count_of_each(label: np.ndarray) -> np.ndarray:
    """Voxels of each label 0, 1, ...; layer by layer, because counting makes 64-bit numbers of what it counts."""
    highest = int(label.max(initial=0))
    return sum(
        (np.bincount(np.ravel(layer), minlength=highest + 1) for layer in label), start=np.zeros(highest + 1, np.int64)
    )


def _label_nearest_to(
    indices_zyx: np.ndarray, label: np.ndarray, spacing_zyx: tuple[float, float, float]
) -> np.ndarray:
    """Label of the structure voxel nearest, in mm, to each of (n, 3) indices outside the structures."""
    if len(indices_zyx) == 0:
        return np.zeros(0, dtype=np.int64)
    from scipy.spatial import cKDTree

    # The nearest voxel of a structure always has a neighbour outside it: the surface is all that is needed.
    structure = np.pad(label > 0, 1, constant_values=True)
    inner = structure[1:-1, 1:-1, 1:-1].copy()
    surface = inner.copy()
    for axis in range(3):
        for step in (0, 2):
            window = tuple(slice(step, step + n) if a == axis else slice(1, 1 + n) for a, n in enumerate(inner.shape))
            inner &= structure[window]
    surface &= ~inner
    where = np.argwhere(surface)
    spacing = np.asarray(spacing_zyx)
    _, nearest = cKDTree(where * spacing).query(indices_zyx * spacing)
    return label[tuple(where[nearest].T)].astype(np.int64)


def _reason(region: Mapping) -> str:
    """One plain sentence that says why the place is listed."""
    volume = f"{region['volume_ml']:.2g} mL" if region["volume_ml"] < 10 else f"{region['volume_ml']:.0f} mL"
    structure, gap = region["structure"] or f"label {region['label']}", region["distance_mm"]
    if region["kind"] == UNCERTAIN:
        where = f"at {structure}" if gap == 0 else f"{gap:.1f} mm outside {structure}"
        part = "under 1 %" if region["share"] < 0.01 else f"{100 * region['share']:.0f} %"
        doubt = f"about {region['score']:.2g} mL may be wrong, {part} of the structure"
        return f"{volume} {where} lie above the uncertainty threshold; {doubt}."
    drawn = "though no structure was drawn at all" if gap is None else f"though none was drawn within {gap:.0f} mm"
    return f"{structure} may have been missed here: a structure is up to {100 * region['peak']:.0f} % likely, {drawn}."


def _in_order(found: list[dict], key: str) -> list[dict]:
    return sorted(found, key=lambda region: (-region[key], -region["volume_ml"], region["peak_lps_mm"]))
