"""The numbers of other programs, with their faults, against those programs' rules written out again, or torch's own."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation.compat import RULES, CompatErrors, compat_errors, curvas_probabilities
from CalibUncertaintyLib.evaluation.metrics import CalibrationMetrics
from CalibUncertaintyLib.evaluation.uncertainty_error import PlattSigmoid, fit_platt, uncertainty_error


def saturated(voxels: int = 20000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(3, N) float32, half of it exactly 0 and 1, some on tenths; and labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(3, voxels))
    labels = (logits / 2 + random.gumbel(size=logits.shape)).argmax(axis=0)
    logits[0, : voxels // 2] += 300.0
    p = np.exp(logits - logits.max(axis=0))
    p = (p / p.sum(axis=0)).astype(np.float32)
    p[:, -1000:] = np.array([[0.6], [0.3], [0.1]], dtype=np.float32)
    return p, labels


def errors_by_edges(values, hits, lower_edges) -> dict:
    """Bins closed on the left, the last one without an end, voxel by voxel."""
    found: dict[int, list[float]] = {}
    for value, hit in zip(values.tolist(), hits.tolist(), strict=True):
        number = max(index for index, edge in enumerate(lower_edges) if value >= edge)
        of_bin = found.setdefault(number, [0, 0.0, 0.0])
        of_bin[0] += 1
        of_bin[1] += value
        of_bin[2] += hit
    gaps = {number: abs(p - right) / n for number, (n, p, right) in found.items()}
    return {
        "ece": sum(found[number][0] * gap for number, gap in gaps.items()) / len(values),
        "ace": sum(gaps.values()) / len(gaps),
        "mce": max(gaps.values()),
    }


@pytest.mark.parametrize("bins", [5, 15, 20, 50])
def test_torchmetrics_edges_are_torchs_own(bins):
    torch = pytest.importorskip("torch")
    p, labels = saturated()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float32).numpy().astype(np.float64).tolist()
    on_edges = np.array(edges, dtype=np.float32)
    top, hits = p.max(axis=0), p.argmax(axis=0) == labels
    values = np.concatenate([top.astype(np.float32), on_edges, np.nextafter(on_edges, np.float32(0))[1:]])
    hits = np.concatenate([hits, np.arange(values.size - hits.size) % 2 == 0])
    errors = CompatErrors("torchmetrics", bins)
    errors.add(values, hits)
    expected = errors_by_edges(values, hits, edges)
    for key, value in expected.items():
        assert errors.result()[key] == pytest.approx(value, abs=1e-9), key


def test_confidence_of_exactly_one_has_a_bin_of_its_own_in_torchmetrics_only():
    confidence = np.array([1.0, 1.0, 0.99, 0.99], dtype=np.float32)
    right = np.array([True, True, False, False])
    theirs = CompatErrors("torchmetrics")
    theirs.add(confidence, right)
    assert theirs.result()["ece"] == pytest.approx(0.99 / 2)
    ours = CalibrationMetrics(2, 15)
    ours.add(np.stack([confidence, 1 - confidence]), (~right).astype(np.uint8))
    assert ours.result()["ece_toplabel"] == pytest.approx(0.995 - 0.5)


def test_rousseau_compares_the_frequency_of_positives_and_the_paper_the_predicted_class():
    p, labels = saturated()
    foreground, positive = p[1], labels == 1
    errors = CompatErrors("rousseau")
    errors.add(foreground, positive)
    expected = errors_by_edges(foreground, positive, np.linspace(0, 0.95, 20).tolist())
    for key, value in expected.items():
        assert errors.result()[key] == pytest.approx(value, abs=1e-9), key
    binary = CalibrationMetrics(2)
    binary.add(np.stack([1 - foreground, foreground]), positive.astype(np.uint8))
    of_predicted_class = binary.result()["ece_toplabel"]
    assert abs(errors.result()["ece"] - of_predicted_class) > 1e-3
    assert errors.result()["l1"] == pytest.approx(
        errors.result()["ace"] * len(np.unique(np.minimum(foreground * 20 // 1, 19)))
    )


def test_rousseau_takes_a_maximum_above_one_point_one_for_logits():
    _, labels = saturated(200)
    labels = np.minimum(labels, 1)
    logits = np.random.default_rng(0).normal(scale=3.0, size=(2, 200))
    assert compat_errors(logits, labels, "rousseau")["taken_for_logits"]
    inside = np.clip(logits, 0.0, 1.0)
    assert not compat_errors(inside, labels, "rousseau")["taken_for_logits"]
    by_hand = CompatErrors("rousseau")
    by_hand.add(1 / (1 + np.exp(-logits[1])), labels == 1)
    assert compat_errors(logits, labels, "rousseau")["classes"][1] == by_hand.result()


def test_a_tiny_negative_background_makes_the_2024_code_apply_softmax():
    p, labels = saturated()
    # ten foreground classes whose sum passes 1 by rounding
    foreground = np.concatenate([p[1:], np.full((1, p.shape[1]), 1e-7, np.float32)])
    foreground[0, :100], foreground[1:, :100] = 1.0, 1e-7
    broken = compat_errors(curvas_probabilities(foreground, repair=False), labels, "curvas24")
    repaired = curvas_probabilities(foreground)
    assert broken["taken_for_logits"]
    assert repaired.min() >= 0
    assert repaired.sum(axis=0) == pytest.approx(1.0, abs=1e-6)
    sound = compat_errors(repaired, labels, "curvas24")
    assert not sound["taken_for_logits"]
    # softmax of probabilities is never sure of anything
    assert abs(broken["toplabel"]["ece"] - sound["toplabel"]["ece"]) > 0.1


def test_values_takes_a_case_with_every_voxel_right_for_wrong():
    uncertainty = np.full(1000, 0.02)
    right = np.ones(1000, bool)
    sigmoid = PlattSigmoid(slope=-200.0, intercept=-10.0)  # near certain of these
    confidence = sigmoid.confidence(uncertainty)
    ours = uncertainty_error(uncertainty, right, sigmoid)
    theirs = uncertainty_error(uncertainty, right, sigmoid, compat="values")
    assert ours["ace_unc"] == pytest.approx(1 - confidence[0])
    assert theirs["ace_unc"] == pytest.approx(confidence[0])
    right[0] = False
    assert uncertainty_error(uncertainty, right, sigmoid, compat="values")["ace_unc"] == pytest.approx(
        abs(0.999 - confidence[0])
    )


def test_the_fault_of_values_is_that_of_scikit_learns_label_binarize():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    every_voxel_right = np.ones(5, int)
    assert (
        preprocessing.label_binarize(every_voxel_right, classes=np.unique(every_voxel_right))[:, 0].tolist() == [0] * 5
    )


def test_without_the_fault_values_differs_from_ours_by_the_closed_side_only():
    random = np.random.default_rng(2)
    uncertainty = random.random(5000)
    right = random.random(5000) > uncertainty * 0.5
    sigmoid = PlattSigmoid(-4.0, -3.0)
    ours = uncertainty_error(uncertainty, right, sigmoid)
    theirs = uncertainty_error(uncertainty, right, sigmoid, compat="values")
    assert ours["ace_unc"] == pytest.approx(theirs["ace_unc"], abs=1e-6)
    assert ours["ece_unc"] == pytest.approx(
        errors_by_edges(sigmoid.confidence(uncertainty), right, (np.arange(20) / 20).tolist())["ece"], abs=1e-9
    )
    assert math.isnan(uncertainty_error(np.zeros(0), np.zeros(0, bool), sigmoid)["ace_unc"])


def test_the_sigmoid_is_scikit_learns():
    calibration = pytest.importorskip("sklearn.calibration")
    random = np.random.default_rng(4)
    uncertainty = random.random(20000) * 0.69
    right = random.random(20000) < 1 / (1 + np.exp(-(3.0 - 6.0 * uncertainty)))
    found = fit_platt(uncertainty, right)
    theirs = calibration._SigmoidCalibration().fit(-uncertainty, right.astype(int))
    assert (found.slope, found.intercept) == pytest.approx((theirs.a_, theirs.b_), rel=1e-3)
    assert found.slope == pytest.approx(-6.0, rel=0.05)
    assert found.intercept == pytest.approx(-3.0, rel=0.05)


def test_the_sigmoid_stays_finite_where_all_voxels_are_right_and_where_uncertainty_says_nothing():
    everything_right = fit_platt(np.linspace(0, 1, 100), np.ones(100, bool))
    assert np.isfinite([everything_right.slope, everything_right.intercept]).all()
    assert everything_right.confidence(np.array([0.5]))[0] > 0.95
    constant = fit_platt(np.zeros(100), np.arange(100) < 80)
    assert constant.confidence(np.zeros(1))[0] == pytest.approx(81 / 82 * 0.8 + 0.2 / 22, abs=1e-9)


@pytest.mark.parametrize("compat", list(RULES))
def test_accumulators_of_other_programs_merge_and_know_the_empty_case(compat):
    p, labels = saturated()
    whole, first, second = (CompatErrors(compat) for _ in range(3))
    whole.add(p[1], labels == 1)
    first.add(p[1, :700], labels[:700] == 1)
    second.add(p[1, 700:], labels[700:] == 1)
    first.merge(second)
    for key in ("ece", "ace", "mce"):
        assert first.result()[key] == pytest.approx(whole.result()[key], rel=1e-9)
    nothing = CompatErrors(compat).result()
    assert nothing["status"] == "empty_roi"
    assert math.isnan(nothing["ece"])


def test_unknown_names_and_values_outside_the_range_are_refused():
    with pytest.raises(ValueError, match="torchmetrics, curvas24, rousseau, values"):
        CompatErrors("netcal")
    with pytest.raises(ValueError, match="another rule"):
        CompatErrors("values").merge(CompatErrors("rousseau"))
    with pytest.raises(CalibUncertaintyError, match="outside 0 to 1"):
        CompatErrors("values").add(np.array([0.5, np.nan]), np.array([True, True]))
    with pytest.raises(ValueError, match="not known here"):
        uncertainty_error(np.zeros(2), np.zeros(2, bool), PlattSigmoid(1, 1), compat="rousseau")
