"""The local temperature: it follows the image where the truth does, changes no label, and is never worse than one temperature."""

import numpy as np
import pytest
from labelled_volumes import SHAPE, random_local, volume
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.local_temperature import held_out_cases
from CalibUncertaintyLib.calibration.local_temperature_fit import LocalTemperatureFit


@pytest.fixture(scope="module")
def local_fit():
    """A fit on four cases whose true temperature differs by the image."""
    fit = LocalTemperatureFit(seed=1)
    for seed in range(4):
        fit.add_volume(f"case{seed}", *volume(seed))
    return fit, fit.fit(max_steps=24, learning_rate=0.01, device="cpu")


def test_temperatures_that_differ_by_the_image_are_told_apart(local_fit):
    _, found = local_fit
    logits, labels, roi, image = volume(99)
    temperature = found.calibrator().temperature_map(logits, image)
    assert np.median(temperature[image > 100]) > 2.5
    assert np.median(temperature[image < -100]) < 1.3
    assert found.status == "ok"
    assert len(found.held_out) == 1
    assert found.held_out_nll[2] < found.held_out_nll[1] < found.held_out_nll[0]
    assert found.nll_after < found.nll_global
    # on a case that took no part
    nll = {}
    for name, p in {
        "local": found.calibrator().transform(logits, image),
        "global": scipy_softmax(logits.astype(float) / found.local.temperatures[0], axis=0),
    }.items():
        nll[name] = -np.log(np.take_along_axis(p, labels[None], 0)[0][roi]).mean()
    assert nll["local"] < nll["global"]


def test_no_step_leaves_one_temperature_everywhere(local_fit):
    fit, _ = local_fit
    found = fit.fit(max_steps=0)
    logits, _, _, image = volume(1)
    temperature = found.calibrator().temperature_map(logits, image)
    assert np.all(temperature == np.float32(found.local.temperatures[0]))
    assert found.nll_after == pytest.approx(found.nll_global, rel=1e-6)


def test_the_same_seed_gives_the_same_network(local_fit):
    fit, found = local_fit
    again = fit.fit(max_steps=4, device="cpu")
    once_more = fit.fit(max_steps=4, device="cpu")
    assert again.local.to_json() == once_more.local.to_json()
    assert again.held_out == found.held_out


def test_no_label_changes_under_a_local_temperature(local_fit):
    logits, _, _, image = volume(7)
    p = local_fit[1].calibrator().transform(logits, image)
    assert local_fit[1].calibrator().preserves == "order"
    label = logits.argmax(axis=0)
    assert np.all(np.take_along_axis(p, label[None], 0)[0] == p.max(axis=0))
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)


def test_no_region_changes_its_decision_under_a_local_temperature():
    calibrator = random_local(regions=True)
    logits, _, _, image = volume(7)
    p = calibrator.transform(logits, image)
    assert calibrator.preserves == "decisions"
    assert np.all(p[logits > 0] >= 0.5)
    assert np.all(p[logits <= 0] <= 0.5)


def test_regions_get_local_temperatures_of_their_own():
    fit = LocalTemperatureFit(regions=("whole", "core"))
    for seed in range(3):
        logits, _, roi, image = volume(seed, channels=2)
        random = np.random.default_rng(seed)
        true = np.stack([np.full(SHAPE, 0.7), np.where(image > 0, 5.0, 1.0)])
        fit.add_volume(f"case{seed}", logits, random.random(logits.shape) < expit(logits / true), roi, image)
    found = fit.fit(max_steps=24, learning_rate=0.01, device="cpu")
    assert found.local.temperatures[0] == pytest.approx(0.7, rel=0.1)
    temperature = found.local.temperature_map(logits, image)
    assert temperature.shape == (2, *SHAPE)
    assert np.median(temperature[1][image > 100]) > 1.5 * np.median(temperature[1][image < -100])


def test_one_case_keeps_one_temperature_and_says_why():
    fit = LocalTemperatureFit()
    fit.add_volume("a", *volume(0, temperature=2.0))
    found = fit.fit()
    assert found.status == "one_case"
    assert found.local.temperatures[0] == pytest.approx(2.0, rel=0.05)
    assert found.nll_after == found.nll_global < found.nll_before
    assert any("give two cases or more" in warning for warning in found.warnings)


def test_what_is_the_same_everywhere_is_never_made_worse():
    fit = LocalTemperatureFit()
    for seed in range(3):
        fit.add_volume(f"case{seed}", *volume(seed, temperature=2.0))
    found = fit.fit(max_steps=5, learning_rate=0.5, device="cpu")
    assert found.held_out_nll[2] <= found.held_out_nll[1]


def test_a_fit_with_images_asks_for_one():
    logits = volume(0)[0]
    with pytest.raises(CalibUncertaintyError, match="was fitted with the CT and needs it"):
        random_local().transform(logits)
    assert np.isfinite(random_local(with_image=False).transform(logits)).all()


def test_held_out_cases_leave_at_least_one_to_train_on():
    assert held_out_cases(["a"], 0.25, 0) == ()
    for count in (2, 3, 8):
        cases = [f"c{i}" for i in range(count)]
        chosen = held_out_cases(cases, 0.25, 0)
        assert len(chosen) == max(1, count // 4)
        assert set(chosen) < set(cases)
        assert held_out_cases(cases[::-1], 0.25, 0) == chosen
