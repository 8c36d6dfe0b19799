"""From a map of uncertainty to a list of places that a reader should look at, worst first."""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from .components import Components, components_of
from .region import BOUNDARY, NON_BOUNDARY, POSSIBLE_MISS, UNCERTAIN, FoundRegions, Region, reason_of
from .region_calibration import RegionCalibration
from .roi import ROUNDING_MM, roi_mask

__all__ = [
    "BOUNDARY",
    "NON_BOUNDARY",
    "POSSIBLE_MISS",
    "UNCERTAIN",
    "FoundRegions",
    "Geometry",
    "Region",
    "find_regions",
]


HARDLY_EVER = 0.1  # of regions like it, by the upper end of the interval; our definition


class Geometry(Protocol):
    """The part of `Volume` that regions need: where voxels lie, in mm."""

    spacing_zyx: tuple[float, float, float]

    def lps_from_index(self, index_zyx: np.ndarray) -> np.ndarray:
        """LPS mm of array indices (..., 3)."""

    def ras_from_index(self, index_zyx: np.ndarray) -> np.ndarray:
        """RAS mm of array indices (..., 3)."""


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
    interfaces: np.ndarray | None = None,
    merge_gap_mm: float = 0.0,
    calibration: RegionCalibration | None = None,
    inside: np.ndarray | None = None,
) -> FoundRegions:
    """Uncertain regions near the structures, then places farther off where a structure may have been missed.

    Uncertain: 26-connected components of {measure >= threshold, distance <= roi_mm}, or of {measure >= threshold, inside}. Possible
    miss: 26-connected components of {p_foreground >= miss_probability, distance > roi_mm}, less those that share a voxel with an
    uncertain region that is listed. Components between which no more than `merge_gap_mm` lies are one; what is under
    `min_volume_mm3` then is left out. Uncertain regions come first, sorted by `share`, possible misses after them,
    sorted by `score`, highest first; those that were hardly ever wrong in the calibration cases after all others; numbered from 1.
    Our definition.

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
    :param interfaces: (z, y, x) mm to the nearest predicted interface, signed or not (`interface_distance`); with it uncertain
        regions are told apart: "boundary" when at least half of their voxels lie within `boundary_mm` of one (our definition).
    :param calibration: how often such regions held a real error.
    :param inside: (z, y, x) bool, a region of interest in place of the distance, such as the patient's body.
    :raises ValueError: when the arrays' shapes differ or the threshold is not a number.
    """
    arrays = (measure_array, distance, label, p_foreground, expected_error, class_of_miss)
    arrays += () if inside is None else (inside,)
    if len({np.shape(array) for array in arrays}) != 1 or np.ndim(label) != 3:
        raise ValueError(f"expected (z, y, x) arrays of one shape, got {[np.shape(array) for array in arrays]}")
    if math.isnan(threshold) or math.isnan(miss_probability):
        raise ValueError("the threshold and the probability of a miss must be numbers")
    near_structures = roi_mask(distance, roi_mm)
    inside = near_structures if inside is None else inside
    least = min_volume_mm3 / math.prod(volume.spacing_zyx) - 1e-6

    near = components_of((measure_array >= threshold) & inside, least, volume.spacing_zyx, merge_gap_mm)
    near_labels = near.majority(_take(label, near).astype(np.int64))
    uncertain = _describe(UNCERTAIN, near, near_labels, measure_array, expected_error, distance, label, volume, labels)
    if interfaces is not None:
        _tell_apart(uncertain, near, interfaces, boundary_mm(volume.spacing_zyx))

    far = components_of((p_foreground >= miss_probability) & ~near_structures, least, volume.spacing_zyx, merge_gap_mm)
    far = far.apart_from(near)
    far_labels = far.majority(_take(class_of_miss, far).astype(np.int64))
    missed = _describe(POSSIBLE_MISS, far, far_labels, p_foreground, p_foreground, distance, label, volume, labels)

    regions, places = _numbered(uncertain, missed, calibration)
    return FoundRegions(regions, near.dropped + far.dropped, places)


def _numbered(
    uncertain: list[dict], missed: list[dict], calibration: RegionCalibration | None
) -> tuple[list[Region], tuple]:
    """The regions in the order in which to look at them, with their chances and reasons, and the voxels of each."""
    # without any structure there is nothing that they could be a share of
    shared = all(region["share"] is not None for region in uncertain)
    ordered = _in_order(uncertain, "share" if shared else "score") + _in_order(missed, "score")
    places = tuple(values.pop("places") for values in ordered)
    for values in ordered if calibration is not None else ():
        values |= calibration.chance_of(values["kind"], values["score"])
    ordered, places = _hardly_ever_wrong_last(ordered, places)
    regions = [Region(id=number, **values, reason=reason_of(values)) for number, values in enumerate(ordered, start=1)]
    return regions, places


def _hardly_ever_wrong_last(ordered: list[dict], places: tuple) -> tuple[list[dict], tuple]:
    """The same order, but that regions of which surely fewer than `HARDLY_EVER` held a real error come after all others."""
    later = [bool(values.get("chance_interval")) and values["chance_interval"][1] < HARDLY_EVER for values in ordered]
    chosen = [index for last in (False, True) for index, is_last in enumerate(later) if is_last == last]
    return [ordered[index] for index in chosen], tuple(places[index] for index in chosen)


def boundary_mm(spacing_zyx: tuple[float, float, float]) -> float:
    """Up to which distance from a predicted interface a voxel is at the surface: its diagonal, 2 mm at least; our definition."""
    return max(2.0, math.hypot(*spacing_zyx))


def _tell_apart(found: list[dict], components: Components, interfaces: np.ndarray, limit_mm: float) -> None:
    """Give every uncertain region its kind, by how many of its voxels lie at a surface."""
    if components.count == 0:
        return
    at_surface = (np.abs(_take(interfaces, components)) <= limit_mm + ROUNDING_MM).astype(np.float64)
    shares = components.sum(at_surface) / np.bincount(components.component, minlength=components.count)
    for region, share in zip(found, shares.tolist(), strict=True):
        region |= {"surface_share": share, "kind": BOUNDARY if share >= 0.5 else NON_BOUNDARY}


def _take(array: np.ndarray, components: Components) -> np.ndarray:
    return np.take(array, components.voxel)


def _describe(
    kind: str,
    components: Components,
    structure_labels: np.ndarray,
    shown: np.ndarray,
    wrong: np.ndarray,
    distance: np.ndarray,
    label: np.ndarray,
    volume: Geometry,
    labels: Mapping[int, str],
) -> list[dict]:
    """The fields of `Region`, but for id and reason, of every component, unsorted; and its voxels as "places"."""
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
    of_structures = kind == UNCERTAIN and bool(np.any(label))
    if of_structures:
        structure_labels = structure_labels.copy()
        apart = np.flatnonzero(structure_labels == 0)
        structure_labels[apart] = _label_nearest_to(indices[nearest[apart]], label, volume.spacing_zyx)
    structure_ml = _count_of_each(label) * voxel_ml
    order = np.argsort(components.component, kind="stable")
    voxels, edges = (
        components.voxel[order],
        np.searchsorted(components.component[order], np.arange(components.count + 1)),
    )
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
            "share": float(scores[number] / structure_ml[structure_labels[number]]) if of_structures else None,
            "distance_mm": gap if math.isfinite(gap) else None,
            **_positions("centroid", centroids[number], volume),
            **_positions("peak", indices[peaks[number]], volume),
        }
        found.append(region | {"places": voxels[edges[number] : edges[number + 1]]})
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


def _in_order(found: list[dict], key: str) -> list[dict]:
    return sorted(found, key=lambda region: (-region[key], -region["volume_ml"], region["peak_lps_mm"]))
