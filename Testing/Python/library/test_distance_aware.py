"""Distance-aware entropy: the formulas, their limits, and what happens where there is no border."""

import math

import numpy as np
import pytest
from context_scene import LABELS, scene

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.context_law import ContextLawFit
from CalibUncertaintyLib.uncertainty.distance_aware import (
    FORMS,
    distance_aware_entropy,
    surface_status,
    thin_structures_warning,
)
from CalibUncertaintyLib.uncertainty.distance_bands import bands_of
from CalibUncertaintyLib.uncertainty.interface_distance import distance_to_interfaces

MEDIANS = np.linspace(0.8, 0.1, 8)


def by_hand(u, distance, form, scale):
    if form == "dae":
        return u * (1 - math.exp(-(distance**2) / (2 * scale**2)))
    if form == "dae_linear":
        return u * min(abs(distance), scale) / scale
    band = sum(abs(distance) >= edge for edge in (1, 2, 3, 5, 7, 10, 15))
    return max(0.0, u - MEDIANS[band])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [3.0, 1.7])
def test_every_form_is_its_formula_written_out(form, scale):
    random = np.random.default_rng(0)
    u, distance = random.random((5, 6, 7)).astype(np.float32), random.uniform(-20, 20, (5, 6, 7)).astype(np.float32)
    found = distance_aware_entropy(u, distance, form, scale, MEDIANS)
    expected = [by_hand(float(a), float(d), form, scale) for a, d in zip(u.flat, distance.flat, strict=True)]
    assert found.dtype == np.float32
    assert found.reshape(-1) == pytest.approx(expected, abs=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1


def test_doubt_at_a_border_is_nothing_and_far_from_it_all_there_is():
    u = np.float32([1.0, 0.6, 0.3])
    for form in ("dae", "dae_linear"):
        assert not distance_aware_entropy(u, np.zeros(3), form).any()
        assert not distance_aware_entropy(u, -np.zeros(3), form).any()
        assert distance_aware_entropy(u, np.full(3, -40.0), form) == pytest.approx(u)
    # near a border 1 - exp(-x) must not be lost to rounding
    assert distance_aware_entropy(np.float32([1]), np.float32([1e-3]), "dae")[0] == pytest.approx(1e-6 / 18, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_border_the_entropy_stays_and_the_status_says_why(form):
    distance = distance_to_interfaces(np.zeros((2, 3, 4), np.uint8), (1.0, 1.0, 1.0))
    u = np.random.default_rng(1).random((2, 3, 4)).astype(np.float32)
    assert surface_status(distance) == "no_surface"
    assert np.array_equal(distance_aware_entropy(u, distance, form, medians=MEDIANS), u)
    assert np.array_equal(distance_aware_entropy(u, -distance, form, medians=MEDIANS), u)


def test_a_border_anywhere_gives_every_voxel_a_distance():
    label = np.zeros((2, 3, 4), np.uint8)
    label[1, 2, 3] = 1
    assert surface_status(distance_to_interfaces(label, (1.0, 1.0, 1.0))) == "ok"
    assert surface_status(np.zeros(0)) == "no_surface"


def test_the_residue_over_right_voxels_of_a_band_is_zero_for_half_of_them():
    patient = scene(0)
    fit = ContextLawFit(LABELS)
    fit.add("P", *patient.of_roi(), np.ones(int(patient.roi.sum()), bool))
    law = fit.fit()
    found = distance_aware_entropy(patient.u, patient.signed, "dae_resid", medians=law.medians)[patient.roi]
    bands = bands_of(patient.signed[patient.roi])
    for band in range(7):
        # the median's code is cut off to 10 binary digits, so a few more lie above it
        assert (found[bands == band] == 0).mean() == pytest.approx(0.5, abs=0.01)


def test_normalised_entropy_that_is_not_normalised_is_refused():
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        distance_aware_entropy(np.array([1.7]), np.array([3.0]))
    assert distance_aware_entropy(np.array([1 + 1e-6]), np.array([np.inf]))[0] == 1.0
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        distance_aware_entropy(np.array([np.nan]), np.array([3.0]))
    with pytest.raises(ValueError, match="distance is NaN"):
        distance_aware_entropy(np.array([0.5]), np.array([np.nan]))


def test_arguments_that_make_no_sense_are_refused():
    half = np.array([0.5])
    for match, call in {
        "form": {"form": "dea"}, "scale": {"scale_mm": 0.0}, "medians": {"form": "dae_resid"},
        "8 medians": {"form": "dae_resid", "medians": [0.1] * 7},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=match):
            distance_aware_entropy(half, half, **call)
    with pytest.raises(ValueError, match="shape"):
        distance_aware_entropy(half, np.zeros(2))


def test_people_are_warned_of_thin_structures_only():
    label = np.zeros((20, 20, 20), np.uint8)
    label[:, 9:12, 9:12] = 1  # 3 mm thick
    words = thin_structures_warning(label, distance_to_interfaces(label, (1.0, 1.0, 1.0)))
    assert "100 % of their voxels lie within 3 mm of a border" in words
    label[2:18, 2:18, 2:18] = 1
    assert thin_structures_warning(label, distance_to_interfaces(label, (1.0, 1.0, 1.0))) is None
    assert thin_structures_warning(np.zeros_like(label), np.full(label.shape, np.inf)) is None


def test_the_warning_begins_at_95_of_100_voxels():
    label, distance = np.ones(100, np.uint8), np.full(100, -2.9)
    distance[:6] = -3.0
    assert thin_structures_warning(label, distance) is None
    distance[0] = -2.9
    assert thin_structures_warning(label, distance).count(".") == 0
