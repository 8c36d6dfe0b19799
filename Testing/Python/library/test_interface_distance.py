"""Distances from interfaces are those of a search over all voxels, whatever the orientation, the names and the voxels' size."""

import numpy as np
import pytest

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.distance_bands import BANDS, EDGES_MM, bands_of, refuse_nan
from CalibUncertaintyLib.uncertainty.interface_distance import distance_to_interfaces, signed_distance


def searched(label, spacing):
    """The definition, by loops over voxels, their six neighbours, and all pairs."""
    surface = []
    for index in np.ndindex(label.shape):
        for axis in range(3):
            for step in (-1, 1):
                other = list(index)
                other[axis] += step
                if 0 <= other[axis] < label.shape[axis] and label[tuple(other)] != label[index]:
                    surface.append(index)
    result = np.full(label.shape, np.inf)
    for index in np.ndindex(label.shape):
        for on in surface:
            gap = sum(((a - b) * s) ** 2 for a, b, s in zip(index, on, spacing, strict=True)) ** 0.5
            result[index] = min(result[index], gap)
    return result


def blobs(seed, shape=(6, 7, 8)):
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for value in (1, 2):
        corner = [random.integers(0, n - 2) for n in shape]
        label[tuple(slice(c, c + 2) for c in corner)] = value
    return label


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.7), (0.5, 3.0, 1.1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_distances_are_those_of_a_search_over_all_pairs_of_voxels(seed, spacing):
    label = blobs(seed)
    expected = searched(label, spacing)
    found = distance_to_interfaces(label, spacing)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    assert signed_distance(label, spacing) == pytest.approx(np.where(label > 0, -expected, expected), abs=1e-5)


def test_the_surface_is_zero_on_both_sides_and_its_sign_bit_tells_them_apart():
    label = np.zeros((1, 1, 8), np.uint8)
    label[..., 3:] = 1
    found = signed_distance(label, (1.0, 1.0, 2.0))[0, 0]
    assert found.tolist() == [4.0, 2.0, 0.0, 0.0, -2.0, -4.0, -6.0, -8.0]
    assert np.signbit(found).tolist() == [False] * 3 + [True] * 5


def test_two_structures_that_touch_have_an_interface_between_them():
    label = np.ones((3, 3, 9), np.uint8)
    label[..., 4:] = 2
    assert distance_to_interfaces(label, (1.0, 1.0, 1.0))[1, 1].tolist() == [3, 2, 1, 0, 0, 1, 2, 3, 4]


def test_the_border_of_the_volume_and_an_edge_that_touches_are_no_interface():
    label = np.zeros((3, 5, 5), np.uint8)
    label[1, 2, 2] = 1
    found = distance_to_interfaces(label, (1.0, 1.0, 1.0))
    assert (found == 0).sum() == 7, "one voxel and its six neighbours"
    assert found[1, 1, 1] == 1.0
    assert found[0, 0, 0] == pytest.approx(np.sqrt(6))  # from (1, 1, 2)


def test_one_slice_looks_only_within_itself():
    label = np.zeros((1, 6, 7), np.uint8)
    label[0, 2:4, 3] = 1
    spacing = (99.0, 1.0, 2.0)
    assert distance_to_interfaces(label, spacing) == pytest.approx(searched(label, spacing), abs=1e-5)


@pytest.mark.parametrize("value", [0, 4])
def test_without_an_interface_everything_is_infinitely_far(value):
    label = np.full((3, 4, 5), value, np.uint8)
    assert np.isposinf(distance_to_interfaces(label, (1.0, 1.0, 1.0))).all()
    assert (signed_distance(label, (1.0, 1.0, 1.0)) == (-np.inf if value else np.inf)).all()


def test_mirrored_and_renamed_labels_give_the_same_distances():
    label, spacing = blobs(3), (2.0, 1.0, 0.7)
    expected = signed_distance(label, spacing)
    for axis in range(3):
        assert np.flip(signed_distance(np.flip(label, axis), spacing), axis) == pytest.approx(expected, abs=1e-6)
    renamed = np.array([0, 7, 300])[label]
    assert np.array_equal(signed_distance(renamed, spacing), expected)
    turned = signed_distance(label.transpose(2, 0, 1), (0.7, 2.0, 1.0)).transpose(1, 2, 0)
    assert turned == pytest.approx(expected, abs=1e-6)


def test_arrays_and_spacings_that_make_no_sense_are_refused():
    for label, spacing in (
        (np.zeros((3, 4)), (1, 1, 1)),
        (np.zeros((2, 3, 4)), (1, 0, 1)),
        (np.zeros((2, 3, 4)), (1, 1)),
    ):
        with pytest.raises(ValueError, match="spacing"):
            distance_to_interfaces(label.astype(np.uint8), spacing)


def test_bands_lie_between_the_edges_and_an_edge_belongs_to_the_farther_one():
    assert BANDS == 8
    assert tuple(sorted(-edge for edge in EDGES_MM)) == EDGES_MM
    distances = np.array([0.0, 0.99, 1.0, 1.5, 2.0, 3.0, 4.9, 5.0, 7.0, 9.99, 10.0, 15.0, 400.0, np.inf])
    assert bands_of(distances).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 7]
    assert bands_of(-distances).tolist() == bands_of(distances).tolist()
    # three steps of 0.7 mm and the like come out a little beside the edge
    assert bands_of(np.array([np.float32(2.9999998), np.sqrt(np.float32(25.0)) - 1e-6])).tolist() == [3, 4]
    with pytest.raises(ValueError, match="NaN"):
        bands_of(np.array([1.0, np.nan]))


def test_a_map_with_nan_is_refused_by_the_name_of_its_case():
    refuse_nan(np.array([0.0, 1.0]))
    with pytest.raises(CalibUncertaintyError, match=r"^case P7: .*NaN; predict the case again$"):
        refuse_nan(np.array([0.0, np.nan]), "P7")
