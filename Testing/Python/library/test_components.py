"""What is said of connected components, against loops over their voxels."""

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.components import components_of


def scattered(seed, share=0.12):
    return np.random.default_rng(seed).random((9, 14, 15)) < share


def voxels_of(found):
    """Of each component the positions of its voxels in the list."""
    return [np.flatnonzero(found.component == number).tolist() for number in range(found.count)]


@pytest.mark.parametrize("share", [0.002, 0.02, 0.1])
def test_sums_and_the_first_of_the_least_are_those_of_a_loop(share):
    for seed in range(6):
        found = components_of(scattered(seed, share), 0)
        random = np.random.default_rng(seed)
        key = random.integers(0, 3, found.voxel.size)  # many equal ones
        groups = voxels_of(found)
        assert found.sum(key) == pytest.approx([key[group].sum() for group in groups])
        if found.count:
            assert found.first_by(key).tolist() == [min(group, key=lambda at: (key[at], at)) for group in groups]


def test_of_equal_keys_the_first_voxel_also_in_large_components():
    mask = np.zeros((20, 20, 41), bool)
    mask[:, :, :20] = mask[:, :, 21:] = True
    found = components_of(mask, 0)
    key = np.random.default_rng(0).integers(5, 7, found.voxel.size)
    expected = [min(group, key=lambda at: (key[at], at)) for group in voxels_of(found)]
    assert found.first_by(key).tolist() == expected


@pytest.mark.parametrize("lowest", [0, 1, 3])
def test_the_most_frequent_label_above_0_is_found_and_of_equal_ones_the_lowest(lowest):
    """With and without voxels of label 0, and with numbers as large as regions have."""
    choices = np.array([0, 1, 2, 3, 700, 65535])
    choices = choices[choices >= lowest]
    for seed in range(8):
        found = components_of(scattered(seed, 0.06), 0)
        labels = np.random.default_rng(seed).choice(choices, found.voxel.size)
        expected = []
        for group in voxels_of(found):
            counted = {label: (labels[group] == label).sum() for label in choices.tolist() if label}
            best = max(counted, key=lambda label: (counted[label], -label))
            expected.append(best if counted[best] else 0)
        assert found.majority(labels).tolist() == expected


def test_components_that_share_a_single_voxel_with_others_are_left_out_and_the_rest_is_numbered_anew():
    for seed in range(8):
        mask, other = scattered(seed, 0.06), scattered(seed + 100, 0.15)
        found = components_of(mask, 0)
        kept = found.apart_from(components_of(other, 0))
        touched = other.reshape(-1)[found.voxel]
        expected = [found.voxel[group].tolist() for group in voxels_of(found) if not touched[group].any()]
        assert 0 < len(expected) < found.count
        assert kept.count == len(expected)
        assert [kept.voxel[group].tolist() for group in voxels_of(kept)] == expected


def test_components_of_the_least_size_stay_and_smaller_ones_are_counted():
    mask = np.zeros((3, 3, 20), bool)
    mask[1, 1, [1, 4, 5, 8, 9, 10, 13, 14, 15, 16]] = True
    found = components_of(mask, 3)
    assert (found.count, found.dropped, found.voxel.size) == (2, 2, 7)
    assert components_of(mask, 5).count == 0
    assert components_of(mask, 5).dropped == 4
