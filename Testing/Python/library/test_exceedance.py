"""Exceedance and its pooling inside the region of interest equal sums written out, in any orientation and voxel size."""

import numpy as np
import pytest
from context_scene import LABELS, scene

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.context_law import ContextLawFit
from CalibUncertaintyLib.uncertainty.exceedance import (
    ebcu,
    ebcu_p,
    ebcu_self,
    hard_exceedance,
    pooled_within,
    soft_exceedance,
)
from CalibUncertaintyLib.uncertainty.pooled_law import PooledLawFit


def summed(e, roi, spacing, sigma):
    """The definition, one pair of voxels after the other; the Gaussian is cut off at a cube, as far as 4 sigma on each axis."""
    inside = np.argwhere(roi)
    reach = [int(4 * sigma / step + 0.5) for step in spacing]
    result = np.zeros(roi.shape)
    for index in inside:
        steps = inside - index
        near = (np.abs(steps) <= reach).all(axis=1)
        gaps = steps[near] * np.asarray(spacing)
        weights = np.exp(-(gaps**2).sum(axis=1) / (2 * sigma**2))
        result[tuple(index)] = (weights * e[roi][near]).sum() / weights.sum()
    return result


def fitted(*patients, least=2000):
    fit = ContextLawFit(LABELS, least_voxels=least)
    for number, patient in enumerate(patients):
        fit.add(f"P{number}", *patient.of_roi(), np.ones(int(patient.roi.sum()), bool))
    return fit.fit()


def ebcu_of(patient, law, **changes):
    arrays = {"u": patient.u, "label": patient.label, "signed": patient.signed, "roi": patient.roi} | changes
    return ebcu(arrays["u"], arrays["label"], arrays["signed"], arrays["roi"], patient.spacing, law)


@pytest.fixture(scope="module")
def law():
    return fitted(*(scene(seed) for seed in range(4)))


def test_soft_exceedance_counts_decades_and_ends_at_four():
    tails = np.array([1.0, 0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-6, 0.0], np.float32)
    expected = [0.0, 0.25, 0.3252575, 0.5, 0.75, 1.0, 1.0, 1.0]
    found = soft_exceedance(tails)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.dtype == np.float32
    even = soft_exceedance(np.random.default_rng(0).random((200, 1000)))
    assert even.mean() == pytest.approx(0.25 / np.log(10), abs=0.001)  # but for the little beyond 1e-4
    for wrong in ([np.nan], [-0.1], [1.1]):
        with pytest.raises(ValueError, match="tail"):
            soft_exceedance(np.array(wrong))


def test_hard_exceedance_begins_below_tau():
    assert hard_exceedance(np.array([0.2, 0.0501, 0.05, 0.0499, 0.0])).tolist() == [False, False, False, True, True]
    assert hard_exceedance(np.array([0.2]), 0.3).tolist() == [True]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7), (0.5, 2.0, 9.0)])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_pooling_is_the_weighted_mean_written_out(spacing, sigma):
    random = np.random.default_rng(0)
    roi = random.random((6, 12, 11)) > 0.5
    roi[:2], roi[:, :1] = False, False
    e = random.random(roi.shape).astype(np.float32)
    e[~roi] = np.nan  # what lies outside is not looked at
    found = pooled_within(e, roi, spacing, sigma)
    assert found.dtype == np.float32
    assert found == pytest.approx(summed(e, roi, spacing, sigma), abs=2e-6)


def test_pooling_keeps_a_constant_and_the_range():
    roi = np.random.default_rng(1).random((9, 20, 20)) > 0.8
    for value in (0.0, 0.3, 1.0):
        found = pooled_within(np.full(roi.shape, value, np.float32), roi, (2.0, 1.0, 1.0))
        assert found[roi] == pytest.approx(value, abs=1e-6)
        assert not found[~roi].any()
        assert found.max() <= 1.0
    some = np.random.default_rng(2).random(roi.shape).astype(np.float32)
    found = pooled_within(some, roi, (2.0, 1.0, 1.0))
    assert some[roi].min() <= found[roi].min() < found[roi].max() <= some[roi].max()


def test_pooling_small_regions():
    one = np.zeros((3, 4, 5), bool)
    assert not pooled_within(one.astype(np.float32), one, (1.0, 1.0, 1.0)).any()
    one[2, 3, 0] = True
    assert pooled_within(np.full(one.shape, 0.7, np.float32), one, (1.0, 1.0, 1.0))[one] == pytest.approx([0.7])
    flat = np.ones((1, 6, 7), bool)
    e = np.random.default_rng(3).random(flat.shape).astype(np.float32)
    assert pooled_within(e, flat, (5.0, 1.0, 1.0)) == pytest.approx(summed(e, flat, (5.0, 1.0, 1.0), 3.0), abs=2e-6)


def test_the_input_is_left_as_it_was():
    roi = np.ones((4, 5, 6), bool)
    e = np.random.default_rng(4).random(roi.shape).astype(np.float32)
    kept = e.copy()
    pooled_within(e, roi, (1.0, 1.0, 1.0))
    assert np.array_equal(e, kept)
    assert roi.all()


def test_pooling_arguments_that_make_no_sense_are_refused():
    roi, e = np.ones((2, 3, 4), bool), np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="sigma"):
        pooled_within(e, roi, (1.0, 1.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="shape"):
        pooled_within(e[:1], roi, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="spacing"):
        pooled_within(e, roi, (1.0, 1.0, -1.0))
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        pooled_within(e * np.nan, roi, (1.0, 1.0, 1.0))


def test_every_map_lies_between_0_and_1_inside_the_region_and_is_0_outside(law):
    patient = scene(9)
    patient.u[~patient.roi] = np.nan
    c = ebcu_of(patient, law)
    ranks = PooledLawFit()
    ranks.add("P", c[patient.roi], patient.signed[patient.roi])
    maps = [c, ebcu_p(c, patient.signed, patient.roi, ranks.fit())]
    maps.append(ebcu_self(patient.u, patient.label, patient.signed, patient.roi, patient.spacing))
    for values in maps:
        assert values.dtype == np.float32
        assert values.shape == patient.roi.shape
        assert not values[~patient.roi].any()
        assert values.min() >= 0
        assert values.max() <= 1
        assert (values[patient.roi] > 0).mean() > 0.99


def test_nan_inside_the_region_is_refused(law):
    patient = scene(0)
    patient.u[tuple(np.argwhere(patient.roi)[0])] = np.nan
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        ebcu_of(patient, law)
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        ebcu_self(patient.u, patient.label, patient.signed, patient.roi, patient.spacing)


def test_mirroring_the_patient_mirrors_the_map(law):
    patient = scene(10, spacing=(2.0, 1.0, 1.0), correlated_mm=2.0, shift=(0.0, 3.0, -2.0))
    expected = ebcu_of(patient, law)
    for axis in range(3):
        turned = {name: np.flip(getattr(patient, name), axis) for name in ("u", "label", "signed", "roi")}
        assert np.flip(ebcu_of(patient, law, **turned), axis) == pytest.approx(expected, abs=2e-6)


def test_renaming_structures_changes_nothing():
    patients = [scene(seed) for seed in range(2)]
    expected = ebcu_of(patients[1], fitted(*patients))
    for patient in patients:
        patient.label = np.array([0, 2, 1], np.uint8)[patient.label]
    assert np.array_equal(ebcu_of(patients[1], fitted(*patients)), expected)


def test_the_same_scene_in_other_voxels_gives_the_same_pooling():
    """A smooth field over a ball, sampled at 1 mm and at 2 x 1 x 0.5 mm."""

    def sampled(spacing):
        patient = scene(spacing=spacing, roi_mm=12.0)
        z, y, x = np.moveaxis(patient.centres, -1, 0)
        field = 0.5 + 0.5 * np.sin(z / 5) * np.cos(y / 6) * np.sin(x / 7)
        return pooled_within(field.astype(np.float32), patient.roi, spacing), patient

    fine, coarse = sampled((1.0, 1.0, 1.0)), sampled((2.0, 1.0, 1.0))
    # voxels of 2 mm lie between two of 1 mm
    between = (fine[0][0::2] + fine[0][1::2]) / 2
    both = fine[1].roi[0::2] & fine[1].roi[1::2] & coarse[1].roi
    assert both.sum() > 10000
    difference = np.abs(between - coarse[0])[both]
    assert difference.max() < 0.03  # at the rim of the region, where its voxels differ
    assert difference.mean() < 0.004


def test_the_same_patients_in_other_voxels_give_the_same_map():
    """Same places, same u, other voxels: a law of its own for each, and the same neighbourhood stands out equally."""

    def found(spacing):
        laws, maps = fitted(*(scene(seed, spacing) for seed in range(3))), []
        patient = scene(7, spacing)
        blob = patient.ball((28, 28, 51), 5.0) & (patient.label == 0)
        patient.u[blob] = 0.9
        values = ebcu_of(patient, laws)
        for centre in ((28, 28, 51), (28, 51, 28), (14, 28, 28), (28, 28, 20)):
            maps.append(float(values[patient.ball(centre, 2.0)].mean()))
        return maps

    fine, coarse = found((1.0, 1.0, 1.0)), found((2.0, 0.8, 1.0))
    assert coarse == pytest.approx(fine, abs=0.06)
    assert min(fine[0], coarse[0]) > 0.4
    assert max(fine[1:] + coarse[1:]) < 0.16


def test_a_patient_without_structures_has_no_region_and_one_of_a_single_voxel_has_one(law):
    patient = scene(0)
    nothing = np.zeros_like(patient.label)
    far = np.full(nothing.shape, np.inf, np.float32)
    assert not ebcu_of(patient, law, label=nothing, signed=far, roi=nothing > 0).any()
    assert not ebcu_self(patient.u, nothing, far, nothing > 0, patient.spacing).any()
    # a region without any interface, as where all of it is shown: everything is as far as can be
    everywhere = ebcu_of(patient, law, label=nothing, signed=far, roi=nothing == 0)
    assert np.isfinite(everywhere).all()
    one = nothing.copy()
    one[5, 5, 5] = 2
    roi = np.zeros(one.shape, bool)
    roi[4:7, 4:7, 4:7] = True
    found = ebcu_self(patient.u, one, np.where(one > 0, -0.0, 0.5), roi, patient.spacing)
    assert found[roi].min() > 0
    assert found[roi].max() < 1


def test_a_single_slice_has_a_map(law):
    patient = scene(3)
    middle = patient.label.shape[0] // 2
    parts = {name: getattr(patient, name)[middle : middle + 1] for name in ("u", "label", "signed", "roi")}
    found = ebcu_of(patient, law, **parts)
    assert found[parts["roi"]].mean() == pytest.approx(0.109, abs=0.02)


def test_with_a_law_of_nothing_the_map_is_empty():
    patient = scene(3)
    assert not ebcu_of(patient, ContextLawFit(LABELS).fit()).any()


def test_shapes_that_differ_are_refused(law):
    patient = scene(3)
    with pytest.raises(ValueError, match="one shape"):
        ebcu_of(patient, law, u=patient.u[:1])


def test_a_patient_who_is_the_only_one_is_ranked_evenly_within_himself():
    patient = scene(5)
    c = ebcu_self(patient.u, patient.label, patient.signed, patient.roi, patient.spacing)
    fit = PooledLawFit()
    fit.add("P", c[patient.roi], patient.signed[patient.roi])
    ranks = ebcu_p(c, patient.signed, patient.roi, fit.fit())[patient.roi]
    for share in (0.5, 0.9, 0.95, 0.99):
        assert (ranks > share).mean() == pytest.approx(1 - share, abs=0.004)
