"""Calibration in space against sums over single voxels and against scipy, in mm."""

import itertools
import math

import numpy as np
import pytest

from CalibUncertaintyLib.evaluation.spatial import (
    BANDS_MM,
    boundary_aware_error,
    boundary_concentration,
    boundary_distance,
    bounding_box,
    smoothed_error,
)

pytest.importorskip("scipy")
pytest.importorskip("edt")
SPACING = (2.5, 0.8, 1.1)


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of a ball of two classes, uncertainties in [0, 1] that are larger near it, and errors."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((12, 40, 36))
    radius = np.sqrt((2.5 * (z - 6)) ** 2 + (0.8 * (y - 20)) ** 2 + (1.1 * (x - 16)) ** 2)
    label = np.where(radius < 9, np.where(x < 16, 1, 2), 0)
    uncertainty = np.exp(-np.abs(radius - 9) / 4) * random.uniform(0.5, 1.0, radius.shape)
    error = random.random(radius.shape) < uncertainty * 0.5
    return label, uncertainty.astype(np.float32), error


def distances_one_by_one(label: np.ndarray) -> np.ndarray:
    boundary = []
    for place in np.ndindex(label.shape):
        for axis in range(3):
            for step in (-1, 1):
                other = list(place)
                other[axis] += step
                if 0 <= other[axis] < label.shape[axis] and label[tuple(other)] != label[place]:
                    boundary.append(place)
    points = np.array(sorted(set(boundary))) * SPACING
    every = np.stack(np.indices(label.shape), axis=-1).reshape(-1, 3) * SPACING
    nearest = [np.sqrt(((points - voxel) ** 2).sum(axis=1)).min() for voxel in every]
    return np.reshape(nearest, label.shape)


def test_the_distance_is_that_to_the_nearest_voxel_beside_another_label():
    label = scene()[0][3:9, 8:30:2, 4:30:2]
    assert boundary_distance(label, SPACING) == pytest.approx(distances_one_by_one(label), abs=1e-4)


def test_without_an_interface_the_distance_is_infinite():
    assert np.isinf(boundary_distance(np.ones((3, 4, 5), int), SPACING)).all()


@pytest.mark.parametrize("with_roi", [False, True])
def test_concentration_and_bands_equal_the_sums_over_voxels(with_roi):
    label, uncertainty, error = scene()
    distance = boundary_distance(label, SPACING)
    roi = np.random.default_rng(5).random(label.shape) < 0.6 if with_roi else None
    inside = roi if with_roi else np.ones(label.shape, bool)
    found = boundary_concentration(uncertainty, distance, 3.0, roi)
    u, d, e = (part[inside].astype(np.float64) for part in (uncertainty, distance, error))
    near, far = u[d <= 3].mean(), u[d > 3].mean()
    assert found["buc"] == pytest.approx(near / (near + far), abs=1e-9)
    assert (found["n_near"], found["n_far"]) == ((d <= 3).sum(), (d > 3).sum())
    top = bottom = 0.0
    for low, high in itertools.pairwise(BANDS_MM):
        band = (d >= low) & (d < high)
        if band.any():
            weight = 1 / (1 + d[band].mean())
            top += weight * abs(u[band].mean() - e[band].mean())
            bottom += weight
    assert boundary_aware_error(uncertainty, error, distance, roi=roi)["ba_ece"] == pytest.approx(
        top / bottom, abs=1e-7
    )


def test_a_voxel_exactly_at_the_limit_is_near():
    distance = np.array([1.0, 3.0, 3.5, 9.0], dtype=np.float32).reshape(1, 2, 2)
    found = boundary_concentration(np.ones((1, 2, 2)), distance, 3.0)
    assert (found["n_near"], found["n_far"]) == (2, 2)


def test_in_voxels_the_published_form_is_met():
    label, uncertainty, error = scene()
    in_voxels = boundary_distance(label, (1, 1, 1))
    from scipy.ndimage import distance_transform_edt

    boundary = in_voxels == 0
    assert in_voxels == pytest.approx(distance_transform_edt(~boundary), abs=1e-4)
    found = boundary_aware_error(uncertainty, error, in_voxels)
    assert [band["n"] for band in found["bands"]] == [
        int(((in_voxels >= low) & (in_voxels < high)).sum()) for low, high in itertools.pairwise(BANDS_MM)
    ]


def test_uncertainty_that_is_the_error_rate_of_each_band_has_no_error():
    label, _, _ = scene()
    distance = boundary_distance(label, SPACING)
    error = np.random.default_rng(0).random(label.shape) < 0.3
    uncertainty = np.zeros(label.shape)
    for low, high in itertools.pairwise(BANDS_MM):
        band = (distance >= low) & (distance < high)
        uncertainty[band] = error[band].mean() if band.any() else 0
    assert boundary_aware_error(uncertainty, error, distance)["ba_ece"] == pytest.approx(0.0, abs=1e-12)
    assert boundary_concentration(np.ones(label.shape), distance)["buc"] == pytest.approx(0.5)


def normalised_one_by_one(values: np.ndarray, roi: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothed at each voxel of the region, by the kernel's product of axes cut at four widths (rounded to voxels)."""
    reach = [int(4 * sigma / step + 0.5) for step in SPACING]
    places = np.argwhere(roi)
    found = []
    for place in places:
        offset = places - place
        near = (np.abs(offset) <= reach).all(axis=1)
        weight = np.exp(-0.5 * ((offset[near] * SPACING / sigma) ** 2).sum(axis=1))
        found.append((weight * values[tuple(places[near].T)]).sum() / weight.sum())
    return np.array(found)


def test_space_is_the_difference_of_the_two_smoothed_maps_inside_the_region():
    label, uncertainty, error = scene()
    roi = boundary_distance(label, SPACING) < 2.5
    found = smoothed_error(uncertainty, error, SPACING, 2.0, roi)
    difference = normalised_one_by_one(uncertainty, roi, 2.0) - normalised_one_by_one(error.astype(float), roi, 2.0)
    assert found["space"] == pytest.approx(np.abs(difference).mean(), abs=1e-6)
    assert found["n"] == roi.sum()
    changed = np.where(roi, uncertainty, 0.9)
    assert smoothed_error(changed, error | ~roi, SPACING, 2.0, roi)["space"] == found["space"]


def test_a_wide_kernel_leaves_the_difference_of_the_means_only():
    _, uncertainty, error = scene()
    roi = np.zeros(error.shape, bool)
    roi[3:9, 10:20, 10:20] = True
    found = smoothed_error(uncertainty, error, SPACING, 500.0, roi)["space"]
    assert found == pytest.approx(abs(uncertainty[roi].mean(dtype=float) - error[roi].mean()), rel=1e-3)


def test_what_cannot_be_measured_is_nan_and_says_why():
    label, uncertainty, error = scene()
    distance = boundary_distance(label, SPACING)
    empty = np.zeros(label.shape, bool)
    cases = [
        (boundary_concentration(uncertainty, distance, roi=empty), "buc", "empty_roi"),
        (boundary_concentration(uncertainty, distance, 1000.0), "buc", "empty_side"),
        (boundary_concentration(np.zeros(label.shape), distance), "buc", "no_uncertainty"),
        (boundary_aware_error(uncertainty, error, distance, roi=empty), "ba_ece", "empty_roi"),
        (boundary_aware_error(uncertainty, error, np.full(label.shape, np.inf)), "ba_ece", "no_boundary"),
        (smoothed_error(uncertainty, error, SPACING, roi=empty), "space", "empty_roi"),
    ]
    for found, key, status in cases:
        assert math.isnan(found[key]), key
        assert found["status"] == status


def test_what_makes_no_sense_is_refused():
    label, uncertainty, error = scene()
    distance = boundary_distance(label, SPACING)
    with pytest.raises(ValueError, match="1 - confidence"):
        boundary_aware_error(uncertainty * 3, error, distance)
    with pytest.raises(ValueError, match="rise"):
        boundary_aware_error(uncertainty, error, distance, bands_mm=(0, 3, 3))
    with pytest.raises(ValueError, match="one shape"):
        boundary_concentration(uncertainty, distance[1:])
    with pytest.raises(ValueError, match="above 0 mm"):
        boundary_distance(label, (1, 0, 1))
    with pytest.raises(ValueError, match="width"):
        smoothed_error(uncertainty, error, SPACING, sigma_mm=0)


def test_the_box_holds_every_voxel_and_no_empty_side():
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 3:5, 6] = mask[6, 1, 2] = True
    assert bounding_box(mask) == (slice(2, 7), slice(1, 5), slice(2, 7))
