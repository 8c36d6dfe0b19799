"""One number from a map: against sums that are taken window by window and voxel by voxel."""

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import label as number_pieces

from CalibUncertaintyLib.uncertainty.aggregation_scores import (
    boundary_band,
    components_of_structure,
    distance_weighted,
    foreground_threshold,
    mean_above,
    mean_of,
    mean_of_mask_or_all,
    patch_score,
    per_volume,
    total_of,
)
from CalibUncertaintyLib.uncertainty.budget import ValueCounts

SPACING = (2.5, 0.8, 1.1)


def scene(seed=0, shape=(9, 14, 13)):
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[2:6, 3:9, 4:9] = 1
    label[5:7, 9:12, 6:11] = 2
    label[8, 1, 1] = 3
    return random.random(shape, np.float32), label, random.random(shape) > 0.3


def interface_by_hand(label):
    """Voxels with a face neighbour of another label."""
    found = np.zeros(label.shape, bool)
    for index in np.ndindex(label.shape):
        for axis, step in itertools.product(range(3), (-1, 1)):
            beside = list(index)
            beside[axis] += step
            if 0 <= beside[axis] < label.shape[axis]:
                found[index] |= label[tuple(beside)] != label[index]
    return found


def distances_by_hand(label, spacing):
    places = np.argwhere(interface_by_hand(label)) * spacing
    if not len(places):
        return np.full(label.shape, math.inf)
    indices = np.stack(np.indices(label.shape), axis=-1).reshape(-1, 1, 3) * np.array(spacing)
    return np.sqrt(((indices - places) ** 2).sum(axis=2)).min(axis=1).reshape(label.shape)


def test_sums_and_means_are_those_of_the_voxels_and_nan_over_none():
    u, _, mask = scene()
    assert total_of(u) == pytest.approx(sum(float(value) for value in u.ravel()))
    assert mean_of(u, mask) == pytest.approx(np.mean([float(value) for value in u[mask]]))
    nothing = np.zeros_like(mask)
    assert total_of(u, nothing) == 0.0
    assert math.isnan(mean_of(u, nothing))
    assert math.isnan(mean_of_mask_or_all(u, nothing))
    assert mean_of_mask_or_all(u, nothing, fall_back=True) == mean_of(u)
    assert mean_of_mask_or_all(u, nothing, fall_back=True, roi=mask) == mean_of(u, mask)
    assert mean_of_mask_or_all(u, mask, fall_back=True) == mean_of(u, mask)


@pytest.mark.parametrize("size", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("masked", [False, True])
def test_the_worst_window_is_found_among_all_of_them(size, masked):
    u, _, mask = scene(size)
    shown = np.where(mask, u, 0).astype(np.float64) if masked else u.astype(np.float64)
    window = [min(size, length) for length in u.shape]
    corners = itertools.product(*(range(length - w + 1) for length, w in zip(u.shape, window, strict=True)))
    sums = [shown[tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))].sum() for corner in corners]
    found = patch_score(u, size, mask=mask if masked else None)
    assert found == pytest.approx(max(sums), rel=1e-12)
    assert patch_score(u, size, True, mask if masked else None) == pytest.approx(max(sums) / np.prod(window))


def test_a_worst_window_needs_voxels_and_a_size():
    assert math.isnan(patch_score(np.zeros((0, 4, 4), np.float32)))
    assert patch_score(np.zeros((3, 4, 5), np.float32)) == 0.0
    with pytest.raises(ValueError, match="window"):
        patch_score(np.zeros((3, 4, 5)), 0)
    with pytest.raises(ValueError, match="z, y, x"):
        patch_score(np.zeros((3, 4)))


def test_the_mean_above_a_threshold_is_zero_above_the_maximum_and_nan_nowhere():
    u, _, mask = scene()
    assert mean_above(u, 0.6) == pytest.approx(u[u >= 0.6].mean(dtype=float))
    assert mean_above(u, 0.6, mask) == pytest.approx(u[(u >= 0.6) & mask].mean(dtype=float))
    assert mean_above(np.full((2, 2, 2), 0.5), 0.5) == 0.5
    assert mean_above(u, 1.5) == mean_above(u, 1.5, mask) == 0.0
    assert math.isnan(mean_above(u, 0.1, np.zeros_like(mask)))


def test_the_threshold_leaves_as_many_voxels_as_are_foreground():
    u, label, _ = scene(4)
    share = np.mean(label > 0)
    threshold = foreground_threshold(ValueCounts.of(u, None, 1.0), share)
    assert np.mean(u >= threshold) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("width", [2, 4, 6])
def test_the_band_is_grown_from_the_voxels_that_touch_another_label(width):
    _, label, _ = scene()
    expected = distances_by_hand(label, (1.0, 1.0, 1.0)) <= (width - 2) / 2 + 1e-6
    assert np.array_equal(boundary_band(label, width), expected)
    assert boundary_band(np.zeros_like(label)).sum() == boundary_band(np.ones_like(label)).sum() == 0
    with pytest.raises(ValueError, match="even"):
        boundary_band(label, 3)


def test_a_structure_of_one_voxel_is_all_boundary():
    label = np.zeros((7, 7, 7), np.uint8)
    label[3, 3, 3] = 1
    band = boundary_band(label)
    assert band[3, 3, 3]
    assert np.array_equal(band, distances_by_hand(label, (1, 1, 1)) <= 1)


@pytest.mark.parametrize("saturation", [None, 0.5, 3.0, 1000.0])
@pytest.mark.parametrize("masked", [False, True])
def test_far_voxels_weigh_more_up_to_a_limit(saturation, masked):
    u, label, mask = scene(shape=(11, 22, 21))
    label[8] = 0
    limit = 4 * np.prod(SPACING) ** (1 / 3) if saturation is None else saturation
    weight = np.minimum(distances_by_hand(label, SPACING), limit)
    weight = weight * mask if masked else weight
    expected = (weight * u).sum() / weight.sum()
    found = distance_weighted(u, label, SPACING, saturation, mask if masked else None)
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_interfaces_or_far_voxels_the_weighted_mean_is_the_plain_one():
    u, label, mask = scene()
    assert distance_weighted(u, np.zeros_like(label), SPACING, roi=mask) == mean_of(u, mask)
    assert distance_weighted(u, np.ones_like(label), SPACING) == pytest.approx(mean_of(u))
    checkers = (np.indices(u.shape).sum(axis=0) % 2).astype(np.uint8)
    assert distance_weighted(u, checkers, SPACING) == mean_of(u)
    assert math.isnan(distance_weighted(u, label, SPACING, roi=np.zeros_like(mask)))
    with pytest.raises(ValueError, match="saturation"):
        distance_weighted(u, label, SPACING, 0.0)


def test_doubt_for_each_voxel_drawn():
    u, label, mask = scene()
    assert per_volume(u, label) == pytest.approx(u.sum(dtype=float) / (label > 0).sum())
    assert per_volume(u, label, mask) == pytest.approx(u[mask].sum(dtype=float) / ((label > 0) & mask).sum())
    assert math.isnan(per_volume(u, np.zeros_like(label)))


def test_pieces_are_joined_by_corners_and_come_largest_first():
    u, _, mask = scene(7)
    mask &= np.random.default_rng(1).random(mask.shape) > 0.85
    numbered, count = number_pieces(mask, np.ones((3, 3, 3)))
    expected = sorted(
        ((numbered == i).sum(), u[numbered == i].mean(dtype=float), u[numbered == i].max()) for i in range(1, count + 1)
    )[::-1]
    found = components_of_structure(u, mask, 0.002)
    assert count > 3
    assert [piece["volume_ml"] for piece in found] == pytest.approx([0.002 * size for size, _, _ in expected])
    assert [piece["mean"] for piece in found] == pytest.approx([mean for _, mean, _ in expected])
    assert [piece["max"] for piece in found] == pytest.approx([highest for _, _, highest in expected])
    assert components_of_structure(u, mask, 0.002, 2) == found[:2]
    assert components_of_structure(u, np.zeros_like(mask), 0.002) == []
