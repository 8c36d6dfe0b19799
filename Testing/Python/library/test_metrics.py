"""Proper scores and calibration error against sums written out voxel by voxel."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation.metrics import (
    CHUNK_VOXELS,
    SCALARS,
    CalibrationMetrics,
    RegionMetrics,
    mean_over_cases,
)


def scored(p: np.ndarray, labels: np.ndarray, bins: int = 20) -> dict:
    metrics = CalibrationMetrics(p.shape[0], bins)
    metrics.add(p, labels)
    return metrics.result()


def predictions(classes: int, voxels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident probabilities, many of them saturated to exactly 0 and 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3.0, size=(classes, voxels))
    labels = (logits / 2 + random.gumbel(size=logits.shape)).argmax(axis=0)
    logits[0, : voxels // 4] += 200.0
    p = np.exp(logits - logits.max(axis=0))
    return (p / p.sum(axis=0)).astype(np.float32), labels


def brute_force(p: np.ndarray, labels: np.ndarray, bins: int) -> dict:
    nll = brier = clipped = right = sure = 0.0
    counts, hits, confidences = [0] * bins, [0.0] * bins, [0.0] * bins
    for column, label in zip(p.T.astype(np.float64).tolist(), labels.tolist(), strict=True):
        inside = min(max(column[label], 1e-7), 1 - 1e-7)
        clipped += inside != column[label]
        nll -= math.log(inside)
        brier += sum((value - (index == label)) ** 2 for index, value in enumerate(column))
        confidence = max(column)
        correct = column.index(confidence) == label
        for number in range(bins):
            lower, upper = number / bins, (number + 1) / bins
            if lower < confidence <= upper or (number == 0 and confidence == 0):
                counts[number] += 1
                hits[number] += correct
                confidences[number] += confidence
        right += correct
        sure += confidence
    n = len(labels)
    return {
        "nll": nll / n, "nll_clipped_fraction": clipped / n, "brier_sum": brier / n, "brier_mean": brier / n / len(p),
        "ece_toplabel": sum(abs(hit - sum_) for hit, sum_ in zip(hits, confidences, strict=True)) / n,
        "accuracy": right / n, "mean_confidence": sure / n, "signed_gap": (sure - right) / n,
    }, counts


@pytest.mark.parametrize(("classes", "bins"), [(2, 20), (6, 20), (6, 15), (25, 50)])
def test_every_figure_equals_the_sum_over_single_voxels(classes, bins):
    p, labels = predictions(classes, 3000)
    expected, counts = brute_force(p, labels, bins)
    found = scored(p, labels, bins)
    assert {key: found[key] for key in SCALARS} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert [item["n"] for item in found["bins"]] == counts
    assert found["n"] == 3000
    assert found["status"] == "ok"


def test_an_example_small_enough_for_pencil_and_paper():
    p = np.array([[0.9, 0.6, 0.3], [0.1, 0.4, 0.7]])
    found = scored(p, np.array([0, 1, 1]), bins=10)
    assert found["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.7)) / 3)
    assert found["brier_sum"] == pytest.approx(2 * (0.01 + 0.36 + 0.09) / 3)
    assert found["brier_mean"] == pytest.approx((0.01 + 0.36 + 0.09) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["ece_toplabel"] == pytest.approx((0.1 + 0.6 + 0.3) / 3)
    assert found["signed_gap"] == pytest.approx((0.9 + 0.6 + 0.7) / 3 - 2 / 3)


def test_bins_are_closed_on_the_right():
    confidences = np.array([0.5, 0.50001, 0.75, 1.0])
    found = scored(np.stack([confidences, 1 - confidences]), np.zeros(4, dtype=int), bins=4)
    assert [item["n"] for item in found["bins"]] == [0, 1, 2, 1]
    assert [(item["lower"], item["upper"]) for item in found["bins"]][1] == (0.25, 0.5)
    assert found["bins"][0]["confidence"] is None
    assert found["bins"][3] == {"lower": 0.75, "upper": 1.0, "n": 1, "confidence": 1.0, "accuracy": 1.0}


def test_a_confidence_of_zero_falls_into_the_first_bin():
    found = scored(np.zeros((2, 1)), np.zeros(1, dtype=int))
    assert found["bins"][0]["n"] == 1


def test_perfect_predictions_have_no_calibration_error():
    labels = np.arange(300) % 3
    found = scored(np.eye(3, dtype=np.float32)[:, labels], labels)
    assert (found["ece_toplabel"], found["brier_sum"], found["accuracy"]) == (0.0, 0.0, 1.0)
    assert found["nll"] == pytest.approx(1e-7, rel=1e-3)
    assert found["nll_clipped_fraction"] == 1.0


def test_certain_and_wrong_is_clipped_and_counted():
    found = scored(np.array([[1.0, 0.5], [0.0, 0.5]]), np.array([1, 0]))
    assert found["nll"] == pytest.approx((-math.log(1e-7) + math.log(2)) / 2)
    assert found["nll_clipped_fraction"] == 0.5


def test_honest_probabilities_have_a_calibration_error_near_zero():
    random = np.random.default_rng(1)
    log_odds = random.normal(scale=1.5, size=(4, 400_000))
    labels = (log_odds + random.gumbel(size=log_odds.shape)).argmax(axis=0)
    p = np.exp(log_odds) / np.exp(log_odds).sum(axis=0)
    assert scored(p, labels)["ece_toplabel"] < 0.005
    assert abs(scored(p, labels)["signed_gap"]) < 0.005


def test_chunks_pieces_and_merged_accumulators_give_the_same():
    p, labels = predictions(3, CHUNK_VOXELS + 1000)
    pieces, first, second = (CalibrationMetrics(3) for _ in range(3))
    for part in (slice(0, 7), slice(7, 70), slice(70, None)):
        pieces.add(p[:, part], labels[part])
    first.add(p[:, :500], labels[:500])
    second.add(p[:, 500:], labels[500:])
    first.merge(second)
    whole = scored(p, labels)
    for other in (pieces.result(), first.result()):
        assert {key: other[key] for key in SCALARS} == pytest.approx({key: whole[key] for key in SCALARS}, rel=1e-9)
        assert [item["n"] for item in other["bins"]] == [item["n"] for item in whole["bins"]]


def test_without_a_voxel_every_figure_is_nan_and_the_status_says_why():
    found = scored(np.zeros((3, 0)), np.zeros(0, dtype=int))
    assert found["status"] == "empty_roi"
    assert found["n"] == 0
    assert all(math.isnan(found[key]) for key in SCALARS)


def test_the_mean_over_cases_leaves_empty_cases_out_and_says_so():
    results = [scored(*predictions(3, voxels, seed=voxels)) for voxels in (100, 3000)]
    found = mean_over_cases([*results, scored(np.zeros((3, 0)), np.zeros(0, dtype=int))])
    assert found["nll"] == pytest.approx((results[0]["nll"] + results[1]["nll"]) / 2)
    assert (found["cases_used"], found["cases_total"], found["n"]) == (2, 3, 3100)
    nothing = mean_over_cases([])
    assert nothing["status"] == "empty_roi"
    assert math.isnan(nothing["ece_toplabel"])


def test_what_makes_no_sense_is_refused():
    metrics = CalibrationMetrics(3)
    with pytest.raises(CalibUncertaintyError, match="label"):
        metrics.add(np.full((3, 2), 1 / 3), np.array([0, 3]))
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        metrics.add(np.array([[np.nan], [0.5], [0.5]]), np.array([1]))
    with pytest.raises(ValueError, match="probabilities"):
        metrics.add(np.zeros((2, 5)), np.zeros(5, dtype=int))
    with pytest.raises(ValueError, match="classes"):
        CalibrationMetrics(1)
    with pytest.raises(ValueError, match="merge"):
        metrics.merge(CalibrationMetrics(4))
    assert metrics.result()["n"] == 0


def region_predictions(voxels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident probabilities of three regions, some exactly 0, 0.5 and 1, and where the regions are."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1.0, 3.0, size=(3, voxels))
    truth = random.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    p[:, : voxels // 10] = np.rint(p[:, : voxels // 10] * 2) / 2
    return p, truth


def scored_regions(p: np.ndarray, truth: np.ndarray, **options) -> dict:
    metrics = RegionMetrics(("whole", "core", "enhancing")[: len(p)], **options)
    metrics.add(p, truth)
    return metrics.result()


@pytest.mark.parametrize("bins", [1, 10, 20])
def test_regions_are_scored_each_by_itself_and_averaged(bins):
    p, truth = region_predictions(3000)
    found = scored_regions(p, truth, bins=bins)
    each = [
        brute_force(np.stack([1 - region, region]), inside.astype(int), bins)[0]
        for region, inside in zip(p.astype(np.float64), truth, strict=True)
    ]
    for key in SCALARS:
        assert found[key] == pytest.approx(np.mean([one[key] for one in each]), abs=1e-9), key
        assert [found["regions"][name][key] for name in ("whole", "core", "enhancing")] == pytest.approx(
            [one[key] for one in each], abs=1e-9
        )
    assert (found["n"], found["status"]) == (3000, "ok")
    assert sum(item["n"] for item in found["bins"]) == 9000


def test_figures_of_regions_worked_out_by_hand():
    p = np.array([[0.9, 0.2], [0.5, 0.0]])
    found = scored_regions(p, np.array([[True, True], [True, False]]))
    assert found["nll"] == pytest.approx(((-math.log(0.9) - math.log(0.2)) / 2 + math.log(2) / 2) / 2, abs=1e-6)
    assert found["brier_mean"] == pytest.approx(((0.01 + 0.64) / 2 + (0.25 + 0) / 2) / 2)
    # exactly one half is decided as outside
    assert found["accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["mean_confidence"] == pytest.approx(((0.9 + 0.8) / 2 + (0.5 + 1.0) / 2) / 2)
    assert found["ece_toplabel"] == pytest.approx(((0.1 + 0.8) / 2 + (0.5 + 0.0) / 2) / 2)


def test_regions_in_pieces_and_merged_give_the_same():
    p, truth = region_predictions(CHUNK_VOXELS + 500)
    pieces, first, second = (RegionMetrics(("whole", "core", "enhancing")) for _ in range(3))
    pieces.add(p[:, :7], truth[:, :7])
    pieces.add(p[:, 7:], truth[:, 7:])
    first.add(p[:, :900], truth[:, :900])
    second.add(p[:, 900:], truth[:, 900:])
    first.merge(second)
    whole = scored_regions(p, truth)
    for other in (pieces.result(), first.result()):
        assert {key: other[key] for key in SCALARS} == pytest.approx({key: whole[key] for key in SCALARS}, rel=1e-9)
        assert [item["n"] for item in other["bins"]] == [item["n"] for item in whole["bins"]]
    mean = mean_over_cases([whole, first.result()])
    assert mean["nll"] == pytest.approx(whole["nll"], rel=1e-9)
    assert mean["n"] == 2 * whole["n"]


def test_regions_without_a_voxel_are_nan():
    found = scored_regions(np.zeros((3, 0)), np.zeros((3, 0), bool))
    assert (found["status"], found["n"]) == ("empty_roi", 0)
    assert all(math.isnan(found[key]) for key in SCALARS)
    assert math.isnan(found["regions"]["core"]["nll"])


def test_region_scores_that_make_no_sense_are_refused():
    metrics = RegionMetrics(("whole", "core"))
    with pytest.raises(ValueError, match="booleans"):
        metrics.add(np.full((2, 3), 0.5), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="probabilities"):
        metrics.add(np.full((3, 3), 0.5), np.zeros((3, 3), bool))
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        metrics.add(np.full((2, 1), np.nan), np.ones((2, 1), bool))
    for names in (("whole", "whole"), ()):
        with pytest.raises(ValueError, match="names"):
            RegionMetrics(names)
    with pytest.raises(ValueError, match="other regions"):
        metrics.merge(RegionMetrics(("whole", "rim")))
