"""What the context-aware measures are for: usual doubt at borders is no finding, a doubtful place away from them is one."""

import numpy as np
import pytest
from context_scene import LABELS, scene
from sklearn.metrics import average_precision_score

from CalibUncertaintyLib.uncertainty.context_law import ContextLawFit
from CalibUncertaintyLib.uncertainty.distance_aware import FORMS, distance_aware_entropy
from CalibUncertaintyLib.uncertainty.distance_bands import bands_of
from CalibUncertaintyLib.uncertainty.exceedance import ebcu, ebcu_p, ebcu_self, hard_exceedance, soft_exceedance
from CalibUncertaintyLib.uncertainty.pooled_law import PooledLawFit

BOUNDARY_MM = 4.0
PLACE = (28, 28, 50.5)  # 10 mm from the surface of background around the ball
CORRELATED = (0.0, 1.5)


def right_of(patient):
    """Some voxels at borders are wrong, and more doubtful than the right ones there; elsewhere all are right."""
    border = np.abs(patient.signed) < 1
    return ~border | (np.random.default_rng(int(1e6 * patient.u[0, 0, 0])).random(border.shape) > patient.u / 2)


def map_of(patient, law):
    return ebcu(patient.u, patient.label, patient.signed, patient.roi, patient.spacing, law)


@pytest.fixture(scope="module", params=CORRELATED, ids=["independent noise", "noise of 1.5 mm"])
def calibrated(request):
    """How far the noise reaches, and the law of six calibration patients, with that of pooled values."""
    patients = [scene(seed, correlated_mm=request.param) for seed in range(6)]
    fit, pooled = ContextLawFit(LABELS), PooledLawFit()
    for number, patient in enumerate(patients):
        fit.add(f"P{number}", *patient.of_roi(), right_of(patient)[patient.roi])
    law = fit.fit()
    for number, patient in enumerate(patients):
        pooled.add(f"P{number}", map_of(patient, law)[patient.roi], patient.signed[patient.roi])
    return request.param, law.with_pooled(pooled.fit())


def quantile_at(patient, law, where, share):
    """The value that this share of the law lies below at a place: found by asking the law."""
    asked = np.geomspace(1e-5, 1, 20000).astype(np.float32)
    tails = law.tail(asked, np.full(asked.shape, patient.label[where]), np.full(asked.shape, patient.signed[where]))
    return asked[np.argmax(tails <= 1 - share)]


def with_blob(seed, correlated_mm, law, centre=PLACE, radius=4.0, share=0.999):
    """A new patient, wrong within a ball of background 10 mm off the surface, where u is at a high quantile of the law."""
    patient = scene(seed, correlated_mm=correlated_mm)
    blob = patient.ball(centre, radius) & patient.roi & (patient.label == 0)
    for band in np.unique(bands_of(patient.signed[blob])):
        part = blob & (bands_of(patient.signed) == band)
        patient.u[part] = quantile_at(patient, law, tuple(np.argwhere(part)[0]), share)
    return patient, blob


def measures_of(patient, law):
    """Every context-aware measure, within the region of interest."""
    maps = {
        form: distance_aware_entropy(patient.u, patient.signed, form, medians=law.medians)[patient.roi]
        for form in FORMS
    }
    pooled = map_of(patient, law)
    maps["ebcu"] = pooled[patient.roi]
    maps["ebcu_p"] = ebcu_p(pooled, patient.signed, patient.roi, law.pooled)[patient.roi]
    maps["ebcu_self"] = ebcu_self(patient.u, patient.label, patient.signed, patient.roi, patient.spacing)[patient.roi]
    return maps


def recall_of(values, wrong, flagged):
    """The share of wrong voxels among the highest `flagged` ones, ties broken against them."""
    order = np.lexsort((wrong, -values))[:flagged]
    return wrong[order].sum() / wrong.sum()


def test_doubt_drawn_from_the_law_exceeds_as_often_as_tau_says(calibrated):
    """(a): over the region, at the surface alone, and for each class."""
    correlated_mm, law = calibrated
    shares, soft, at_surface, of_class = [], [], [], {label: [] for label in LABELS}
    for seed in range(20, 32):
        patient = scene(seed, correlated_mm=correlated_mm)
        right = right_of(patient)[patient.roi]
        u, label, signed = (array[right] for array in patient.of_roi())
        tail = law.tail(u, label, signed)
        exceeds = hard_exceedance(tail)
        shares.append(exceeds.mean())
        at_surface.append(exceeds[signed == 0].mean())
        for value in LABELS:
            of_class[value].append(exceeds[label == value].mean())
        soft.append(soft_exceedance(tail).mean())
    assert np.mean(soft) == pytest.approx(0.109, abs=0.003)
    assert np.mean(shares) == pytest.approx(0.05, abs=0.005 if correlated_mm else 0.001)
    if not correlated_mm:  # where neighbours repeat each other, a class of a few mL holds few independent voxels
        for found in (at_surface, *of_class.values()):
            assert np.mean(found) == pytest.approx(0.05, abs=0.005)
        assert np.abs(np.array(shares) - 0.05).max() < 0.005


@pytest.mark.parametrize("tau", [0.01, 0.05, 0.2])
def test_independent_doubt_exceeds_at_any_tau(tau):
    fit, patients = ContextLawFit(LABELS), [scene(seed) for seed in range(4)]
    for patient in patients:
        fit.add("P", *patient.of_roi(), np.ones(int(patient.roi.sum()), bool))
    assert hard_exceedance(fit.fit().tail(*scene(50).of_roi()), tau).mean() == pytest.approx(tau, abs=0.005)


def test_a_doubtful_place_off_the_surface_is_found_and_plain_entropy_misses_it(calibrated):
    """(b): area under precision and recall, with wrong border voxels there too, and recall at the same marked volume."""
    correlated_mm, law = calibrated
    for seed in (40, 41):
        patient, blob = with_blob(seed, correlated_mm, law)
        assert np.abs(patient.signed[blob]).min() > BOUNDARY_MM
        wrong, u, maps = blob[patient.roi], patient.u[patient.roi], measures_of(patient, law)
        at_border = ~right_of(patient)[patient.roi] & (np.abs(patient.signed[patient.roi]) < BOUNDARY_MM)
        assert at_border.sum() > 500
        for others in (np.ones(wrong.shape, bool), ~at_border):  # border errors among the others, or left out
            plain = average_precision_score(wrong[others], u[others])
            assert plain < 0.03
            found = {name: average_precision_score(wrong[others], values[others]) for name, values in maps.items()}
            assert min(found.values()) > 1.3 * plain, found
            assert min(found["ebcu"], found["ebcu_self"]) > 0.4, found
        volume = int(wrong.sum())
        assert recall_of(u, wrong, volume) == 0
        assert recall_of(maps["ebcu"], wrong, volume) > 0.5
        # that high is nothing that calibration ever saw: as a rank it is 1, which many voxels around it share
        assert np.median(maps["ebcu_p"][wrong]) > 0.998


def test_one_voxel_in_twenty_of_new_patients_ranks_above_95_of_100(calibrated):
    correlated_mm, law = calibrated
    shares = []
    for seed in range(20, 26):
        patient = scene(seed, correlated_mm=correlated_mm)
        ranks = ebcu_p(map_of(patient, law), patient.signed, patient.roi, law.pooled)[patient.roi]
        shares.append((ranks > 0.95).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("radius", [3.0, 5.0])
def test_small_and_large_doubtful_places_are_found(calibrated, radius):
    correlated_mm, law = calibrated
    patient, blob = with_blob(60, correlated_mm, law, radius=radius)
    wrong, values = blob[patient.roi], map_of(patient, law)[patient.roi]
    plain = average_precision_score(wrong, patient.u[patient.roi])
    assert average_precision_score(wrong, values) > 5 * plain


def test_a_single_doubtful_voxel_is_averaged_away_and_a_place_full_of_them_is_not(calibrated):
    """Voxels of one patient at the same quantile: alone they do not reach the mark, together they do."""
    correlated_mm, law = calibrated
    marked = 0.25
    patient, _ = with_blob(70, correlated_mm, law, radius=0.6)
    alone = map_of(patient, law)
    patient, blob = with_blob(70, correlated_mm, law, radius=5.0)
    together = map_of(patient, law)
    centre = patient.ball(PLACE, 1.5)
    assert alone[centre].max() < marked < together[centre].min()
    assert (together >= marked)[blob].mean() > 0.7


def test_doubt_at_the_surface_alone_marks_little(calibrated):
    correlated_mm, law = calibrated
    patient = scene(80, correlated_mm=correlated_mm)
    values = map_of(patient, law)[patient.roi]
    surface = np.abs(patient.signed[patient.roi]) < 1
    u = patient.u[patient.roi]
    assert u[surface].mean() > 4 * u[~surface].mean()
    assert values[surface].mean() < 1.6 * values[~surface].mean()
    assert (values >= 0.25).mean() < 0.02


def test_a_rising_map_of_u_leaves_the_map_as_it_is():
    """(c): with the law fitted on rescaled values, and the case rescaled likewise."""

    def found(rescaled):
        fit = ContextLawFit(LABELS)
        for seed in range(4):
            patient = scene(seed)
            patient.u = rescaled(patient.u)
            fit.add(f"P{seed}", *patient.of_roi(), np.ones(int(patient.roi.sum()), bool))
        law = fit.fit()
        patient = scene(90)
        patient.u[patient.ball(PLACE, 4.0)] = 0.3
        patient.u = rescaled(patient.u)
        return map_of(patient, law), ebcu_self(patient.u, patient.label, patient.signed, patient.roi, patient.spacing)

    plain = found(lambda u: u)
    assert plain[0].max() > 0.3
    for rescaled in (lambda u: u**2, np.sqrt, lambda u: 3 * u / (1 + 2 * u), lambda u: np.log1p(u) * 1.7):
        for values, expected in zip(found(rescaled), plain, strict=True):
            assert np.abs(values - expected).max() < 0.002
    for values, expected in zip(found(lambda u: u / 8), plain, strict=True):
        assert np.array_equal(values, expected), "a power of two keeps every code apart"
    # and it is no trifle that is left as it is: a falling map turns it round
    assert np.abs(found(lambda u: 1 - u)[0] - plain[0]).max() > 0.2
