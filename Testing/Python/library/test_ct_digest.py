"""The digest of a CT's voxels: the same for the same HU in whatever type, another one for another patient."""

import numpy as np
import pytest

from CalibUncertaintyLib.ct_digest import SAMPLES_PER_AXIS, ct_digest, has_voxels


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1024, 3000, (20, 300, 140)).astype(np.int16)


@pytest.mark.parametrize("kind", [">i2", np.int32, np.float32, np.float64])
def test_the_type_that_holds_the_voxels_does_not_matter(hu, kind):
    assert ct_digest(hu.astype(kind)) == ct_digest(hu)
    assert ct_digest(np.asfortranarray(hu.astype(kind))) == ct_digest(hu)


@pytest.mark.parametrize("slope", [1.0, 0.5, 0.25, 0.2, 0.1])
def test_a_rounding_error_of_the_program_that_read_it_does_not_matter(hu, slope):
    values = hu * slope
    noise = np.random.default_rng(1).uniform(-1e-4, 1e-4, values.shape)
    assert ct_digest(values + noise) == ct_digest(values)


def test_one_hu_in_one_of_the_sampled_voxels_is_seen(hu):
    other = hu.copy()
    other[7, 3 * 5, 2 * 9] += 1
    assert has_voxels(other, ct_digest(hu)) is False
    assert has_voxels(hu, ct_digest(hu)) is True


def test_whatever_is_as_wide_as_the_steps_between_samples_is_seen(hu):
    steps = [-(-n // SAMPLES_PER_AXIS) for n in hu.shape]
    assert steps == [1, 3, 2]
    other = hu.copy()
    other[tuple(slice(n - step - 1, n - 1) for n, step in zip(hu.shape, steps, strict=True))] += 1
    assert ct_digest(other) != ct_digest(hu)


def test_the_same_values_in_another_shape_are_another_ct():
    flat = np.zeros((4, 6, 8), np.int16)
    assert ct_digest(flat) != ct_digest(flat.reshape(8, 6, 4))


def test_values_beyond_whole_numbers_have_a_digest():
    strange = np.array([[[np.nan, np.inf], [-np.inf, 1e300]]])
    assert has_voxels(strange, ct_digest(strange)) is True


@pytest.mark.parametrize("digest", [None, "", "sampled-2:00", "0123"])
def test_a_result_without_a_digest_of_this_kind_says_nothing(hu, digest):
    assert has_voxels(hu, digest) is None
