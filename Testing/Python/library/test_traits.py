"""What a CT and a run look like: compared with plain numpy on every voxel."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.heads import first_argmax
from CalibUncertaintyLib.uncertainty.measures import entropy
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures, roi_mask
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.traits import SAMPLED_VOXELS, CaseTraits, lattice, traits_of_ct

NAMES = {1: "Liver", 2: "Node", 5: "Spleen"}


def ct(array, spacing=(3.0, 0.9, 0.8)) -> Volume:
    return Volume(array, spacing, (0.0, 0.0, 0.0), np.eye(3))


@pytest.fixture
def run():
    """Entropy, labels and ROI of a case, (z, y, x), with several parts along the first axis."""
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (4, 9, 150, 120)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    label = np.array([0, 1, 2, 5])[first_argmax(p)] * (generator.random(p.shape[1:]) < 0.001)
    near = roi_mask(distance_to_structures(label, (3.0, 0.9, 0.8)), 5.0)
    assert 0.01 < near.mean() < 0.9
    return entropy(p).astype(np.float32), label.astype(np.uint16), near


def test_small_cts_are_looked_at_voxel_by_voxel():
    array = np.random.default_rng(0).normal(-200, 500, (20, 30, 40)).astype(np.int16)
    traits = traits_of_ct(ct(array))
    body = array[array > -300]
    assert traits.hu == pytest.approx(tuple(np.percentile(body, [0.5, 50, 99.5])))
    assert traits.body_share == body.size / array.size
    assert traits.spacing_mm == (3.0, 0.9, 0.8)
    assert traits.field_of_view_mm == pytest.approx((60.0, 27.0, 32.0))
    assert traits.roi_mm is None
    assert traits.entropy is None


def test_of_a_large_ct_a_sample_gives_nearly_the_same():
    z, y, x = np.ogrid[-1:1:90j, -1:1:300j, -1:1:300j]
    array = np.full((90, 300, 300), -1000, np.int16)
    body = z**2 / 1.5 + y**2 / 0.5 + x**2 / 0.8 < 1
    array[body] = np.random.default_rng(2).normal(40, 120, int(body.sum()))
    assert array.size > 10 * SAMPLED_VOXELS
    traits = traits_of_ct(ct(array))
    whole = array[array > -300]
    ranks = [float(np.mean(whole <= value)) for value in traits.hu]
    assert ranks == pytest.approx([0.005, 0.5, 0.995], abs=0.005)
    assert traits.body_share == pytest.approx(whole.size / array.size, abs=0.005)


@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (600, 512, 512), (2, 512, 512), (5000, 64, 64), (1, 1, 10_000_000), (80, 80, 79)]
)
def test_the_lattice_is_even_and_no_larger_than_allowed(shape):
    slices = lattice(shape)
    taken = [len(range(*part.indices(n))) for part, n in zip(slices, shape, strict=True)]
    assert math.prod(taken) <= SAMPLED_VOXELS
    if math.prod(shape) <= SAMPLED_VOXELS:
        assert tuple(taken) == shape
    else:
        assert math.prod(taken) > SAMPLED_VOXELS / 2
    for part, n in zip(slices, shape, strict=True):
        last = range(*part.indices(n))[-1]
        assert abs((n - 1 - last) - part.start) <= 1  # as much is left out at one end as at the other


def test_a_ct_without_body_is_described_by_all_of_it():
    array = np.linspace(-1000, -400, 1000).reshape(10, 10, 10)
    traits = traits_of_ct(ct(array))
    assert traits.body_share == 0
    assert traits.hu[1] == pytest.approx(-700)


def test_voxels_that_are_no_numbers_are_left_out_and_a_ct_of_nothing_else_is_refused():
    array = np.full((4, 4, 4), np.nan, np.float32)
    with pytest.raises(CalibUncertaintyError, match="no voxel that is a number"):
        traits_of_ct(ct(array))
    array[0, 0, :2] = 10, np.inf
    assert traits_of_ct(ct(array)).hu == (10, 10, 10)


def test_a_run_adds_mean_entropy_and_volumes_as_brute_force_has_them(run):
    values, label, near = run
    before = traits_of_ct(ct(np.zeros((2, 2, 2))))
    traits = before.with_run(values, label, near, NAMES, 0.002, 5.0)
    assert traits.entropy == pytest.approx(values[near].mean(dtype=np.float64), rel=1e-12)
    assert traits.entropy_of == pytest.approx(
        {name: values[label == k].mean(dtype=np.float64) for k, name in NAMES.items()}, rel=1e-12
    )
    assert traits.volumes_ml == pytest.approx({name: (label == k).sum() * 0.002 for k, name in NAMES.items()})
    assert traits.roi_mm == 5.0
    assert (traits.hu, traits.spacing_mm) == (before.hu, before.spacing_mm)


def test_voxels_one_after_the_other_give_what_the_volume_gives(run):
    plain = traits_of_ct(ct(np.zeros((2, 2, 2))))
    whole = plain.with_run(*run, NAMES, 0.002, 5.0).flat()
    listed = plain.with_run(*(array.ravel() for array in run), NAMES, 0.002, 5.0).flat()
    turned = plain.with_run(*(array.transpose(2, 0, 1) for array in run), NAMES, 0.002, 5.0).flat()
    assert listed == pytest.approx(whole, rel=1e-12)
    assert turned == pytest.approx(whole, rel=1e-12)


def test_a_structure_that_was_not_found_has_a_volume_of_nothing_and_no_entropy(run):
    values, label, near = run
    label = np.where(label == 2, 0, label)
    traits = traits_of_ct(ct(np.zeros((2, 2, 2)))).with_run(values, label, near, NAMES, 0.002, 5.0)
    assert traits.volumes_ml["Node"] == 0
    assert "Node" not in traits.entropy_of
    assert "entropy:Node" not in traits.flat()
    nothing = traits.with_run(values, np.zeros_like(label), np.zeros_like(near), NAMES, 0.002, 5.0)
    assert nothing.entropy is None
    assert nothing.entropy_of == {}
    assert "entropy" not in nothing.flat()


def test_a_label_without_a_name_counts_for_the_roi_alone(run):
    values, label, near = run
    plain = traits_of_ct(ct(np.zeros((2, 2, 2))))
    traits = plain.with_run(values, label, near, {1: "Liver"}, 0.002, 5.0)
    assert set(traits.volumes_ml) == {"Liver"}
    assert traits.entropy == plain.with_run(values, label, near, NAMES, 0.002, 5.0).entropy


def test_arrays_of_different_shapes_are_a_mistake(run):
    values, label, near = run
    with pytest.raises(ValueError, match="shapes differ"):
        traits_of_ct(ct(np.zeros((2, 2, 2)))).with_run(values[1:], label, near, NAMES, 0.002, 5.0)


def test_flat_names_every_trait_and_leaves_out_what_is_no_number():
    traits = CaseTraits((1, 2, 3), (4, 5, 6), (-90, 30, math.nan), 0.5, 15.0, 0.2, {"A": 0.1}, {"A": 7.0, "B": 0.0})
    assert traits.flat() == {
        "spacing_z_mm": 1, "spacing_y_mm": 2, "spacing_x_mm": 3, "field_of_view_z_mm": 4, "field_of_view_y_mm": 5,
        "field_of_view_x_mm": 6, "hu_low": -90, "hu_median": 30, "body_share": 0.5, "entropy": 0.2, "entropy:A": 0.1,
        "volume_ml:A": 7.0, "volume_ml:B": 0.0,
    }  # fmt: skip
