"""Merging across gaps gives the same regions as distances between all pairs of voxels, dense or sparse, for short gaps and long."""

import numpy as np
import pytest
from scipy.ndimage import label as number_pieces
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from CalibUncertaintyLib.uncertainty.components import components_of


def by_hand(mask, spacing, gap):
    """Of every voxel of the mask, in the order of the array, the number of its region, from 0 in order of the first voxel."""
    numbered, _ = number_pieces(mask, np.ones((3, 3, 3)))
    piece = numbered[mask]
    places = np.argwhere(mask) * np.array(spacing)
    near = (cdist(places, places) <= gap + 1e-6) | (piece[:, None] == piece[None, :])
    region = connected_components(near, directed=False)[1]
    first = {}
    return [first.setdefault(number, len(first)) for number in region.tolist()]


@pytest.mark.parametrize("seed", range(40))
def test_every_voxel_is_in_the_region_that_all_distances_say(seed):
    random = np.random.default_rng(seed)
    mask = random.random(tuple(random.integers(3, 13, 3))) > random.choice([0.75, 0.9, 0.98])
    mask[1, 1, 1] = True
    spacing, gap = tuple(random.uniform(0.5, 3.0, 3)), random.choice([0.0, 1.0, 2.0, 4.0, 9.0, 50.0])
    found = components_of(mask, 0, spacing, gap)
    assert found.voxel.tolist() == np.flatnonzero(mask).tolist()
    first = {}
    assert [first.setdefault(number, len(first)) for number in found.component.tolist()] == by_hand(mask, spacing, gap)
    assert found.count == len(first)


def test_large_pieces_among_small_ones_are_merged_alike():
    random = np.random.default_rng(8)
    mask = np.zeros((14, 24, 24), bool)
    mask[2:8, 2:9, 2:9] = mask[4:9, 14:20, 13:22] = True
    mask |= random.random(mask.shape) > 0.992
    for gap in (1.5, 2.5, 3.5, 5.0, 8.0):
        found = components_of(mask, 0, (2.0, 1.0, 1.0), gap)
        first = {}
        regions = [first.setdefault(number, len(first)) for number in found.component.tolist()]
        assert regions == by_hand(mask, (2.0, 1.0, 1.0), gap)


def test_a_gap_of_exactly_so_many_millimetres_is_bridged_and_one_a_little_longer_is_not():
    mask = np.zeros((1, 1, 30), bool)
    mask[0, 0, [3, 10]] = True
    assert components_of(mask, 0, (1.0, 1.0, 0.3), 2.1).count == 1
    assert components_of(mask, 0, (1.0, 1.0, 0.3), 2.09).count == 2
    assert components_of(~mask & False, 0, (1.0, 1.0, 0.3), 2.0).count == 0
    assert components_of(np.ones((3, 3, 3), bool), 0, (1.0, 1.0, 1.0), 2.0).count == 1


def test_a_gap_of_whole_voxels_is_merged_whatever_the_rounding():
    mask = np.zeros((3, 3, 12), bool)
    mask[1, 1, [2, 5]] = True
    assert 0.3 / 0.1 < 3  # in floating point
    assert components_of(mask, 0, (1.0, 1.0, 0.1), 0.3).count == 1
    assert components_of(mask, 0, (1.0, 1.0, 0.1), 0.29).count == 2
