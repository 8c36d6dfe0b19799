"""The region of interest is measured in mm, exactly."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from CalibUncertaintyLib.uncertainty.roi import distance_to_structures, roi_mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.9), (5.0, 0.7, 1.3), (0.8, 3.0, 0.5)])
def test_distances_equal_scipys_for_any_spacing(spacing):
    random = np.random.default_rng(0)
    label = (random.random((21, 34, 29)) < 0.002).astype(np.uint8) * random.integers(1, 5, (21, 34, 29)).astype(np.uint8)
    expected = distance_transform_edt(label == 0, sampling=spacing)
    found = distance_to_structures(label, spacing)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-4)


def test_distances_run_between_voxel_centres_along_each_axis():
    label = np.zeros((5, 5, 5), dtype=np.int16)
    label[0, 0, 0] = 3
    found = distance_to_structures(label, (4.0, 2.0, 1.0))
    assert [found[2, 0, 0], found[0, 2, 0], found[0, 0, 2]] == pytest.approx([8.0, 4.0, 2.0])
    assert found[1, 2, 3] == pytest.approx(np.sqrt(16 + 16 + 9))


def test_the_border_of_the_array_is_no_structure():
    label = np.zeros((3, 3, 40), dtype=np.uint8)
    label[1, 1, 0] = 1
    assert distance_to_structures(label, (1.0, 1.0, 1.0))[1, 1, 39] == pytest.approx(39.0)


def test_structures_lie_at_zero_and_all_structures_count():
    label = np.zeros((4, 4, 30), dtype=np.uint8)
    label[..., 2] = 1
    label[..., 25] = 7
    found = distance_to_structures(label, (1.0, 1.0, 2.0))
    assert not found[label > 0].any()
    assert found[0, 0, 20] == pytest.approx(10.0)


def test_without_structures_everything_is_infinitely_far_and_outside():
    found = distance_to_structures(np.zeros((3, 4, 5), dtype=np.uint8), (1.0, 1.0, 1.0))
    assert np.isposinf(found).all()
    assert not roi_mask(found, 15.0).any()


def test_structures_everywhere_leave_no_distance():
    assert not distance_to_structures(np.ones((3, 4, 5), dtype=np.uint8), (1.0, 1.0, 1.0)).any()


def test_array_order_in_memory_does_not_matter():
    label = (np.random.default_rng(1).random((9, 12, 15)) < 0.01).astype(np.uint8)
    spacing = (3.0, 0.9, 1.1)
    expected = distance_to_structures(label, spacing)
    assert distance_to_structures(np.asfortranarray(label), spacing) == pytest.approx(expected, abs=1e-5)
    assert distance_to_structures(label[::-1, ::-1], spacing)[::-1, ::-1] == pytest.approx(expected, abs=1e-5)


def test_a_voxel_exactly_at_the_limit_is_inside():
    label = np.zeros((1, 1, 120), dtype=np.uint8)
    label[..., 0] = 1
    for step, last in ((0.3, 50), (0.9375, 16), (0.7, 21)):
        mask = roi_mask(distance_to_structures(label, (1.0, 1.0, step)), 15.0)
        assert np.flatnonzero(mask).max() == last


def test_a_distance_of_zero_leaves_the_structures():
    label = (np.random.default_rng(2).random((6, 7, 8)) < 0.2).astype(np.uint8)
    assert np.array_equal(roi_mask(distance_to_structures(label, (1.0, 0.5, 0.5)), 0.0), label > 0)


@pytest.mark.parametrize("distance_mm", [-1.0, np.nan, np.inf])
def test_a_limit_that_is_no_distance_is_refused(distance_mm):
    with pytest.raises(ValueError, match="mm"):
        roi_mask(np.zeros(3), distance_mm)


def test_arrays_or_spacings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="z, y, x"):
        distance_to_structures(np.zeros((3, 3)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="spacing"):
        distance_to_structures(np.zeros((3, 3, 3)), (1.0, 0.0, 1.0))
