"""Every figure of the one pass against the same figure written out voxel by voxel."""

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation.calibration_errors import (
    adaptive_error,
    average_error,
    brier_decomposition,
    dice,
    expected_error,
    maximum_error,
    signed_gap,
)  # fmt: skip
from CalibUncertaintyLib.evaluation.counts import CHUNK_VALUES, cell_count, count, threads_for
from CalibUncertaintyLib.evaluation.metrics import CalibrationMetrics, RegionMetrics
from CalibUncertaintyLib.evaluation.smooth import smooth_error


def predictions(classes: int, voxels: int, seed: int = 0, dtype=np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident probabilities, a quarter of them saturated, some on the edges of bins, and the true classes."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3.0, size=(classes, voxels))
    labels = (logits / 2 + random.gumbel(size=logits.shape)).argmax(axis=0)
    logits[0, : voxels // 4] += 200.0
    p = np.exp(logits - logits.max(axis=0))
    p /= p.sum(axis=0)
    p[:, -40:] = 0.0
    p[0, -40:] = np.arange(40) % 21 / 20
    p[1, -40:] = 1.0 - p[0, -40:]
    return p.astype(dtype), labels.astype(np.uint8)


def bin_of(value: float, bins: int) -> int:
    for number in range(bins):
        if value <= (number + 1) / bins:
            return number
    return bins - 1


def binned(confidences, hits, bins: int) -> list[tuple[int, float, float]]:
    """(n, mean confidence, accuracy) of the bins that are not empty."""
    found = [[0, 0.0, 0.0] for _ in range(bins)]
    for confidence, hit in zip(confidences.tolist(), hits.tolist(), strict=True):
        of_bin = found[bin_of(confidence, bins)]
        of_bin[0] += 1
        of_bin[1] += confidence
        of_bin[2] += hit
    return [(n, p / n, right / n) for n, p, right in found if n]


def brute(confidences: np.ndarray, hits: np.ndarray, bins: int, min_voxels: int) -> dict:
    confidences = confidences.astype(np.float64)
    table, total = binned(confidences, hits, bins), len(hits)
    rate = hits.mean()
    gaps = [abs(p - right) for _, p, right in table]
    return {
        "ece": sum(n * gap for (n, _, _), gap in zip(table, gaps, strict=True)) / total,
        "ace": sum(gaps) / len(gaps),
        "mce": max((gap for (n, _, _), gap in zip(table, gaps, strict=True) if n >= min_voxels), default=np.nan),
        "signed_gap": confidences.mean() - rate,
        "brier": ((confidences - hits) ** 2).mean(),
        "reliability": sum(n * (p - right) ** 2 for n, p, right in table) / total,
        "resolution": sum(n * (right - rate) ** 2 for n, _, right in table) / total,
        "uncertainty": rate * (1 - rate),
    }


@pytest.mark.parametrize(
    ("classes", "bins", "dtype"),
    [(2, 20, np.float32), (6, 15, np.float64), (6, 50, np.float16), (25, 20, np.float32)],
)
def test_every_class_equals_the_sums_over_single_voxels(classes, bins, dtype):
    p, labels = predictions(classes, 2500, dtype=dtype)
    metrics = CalibrationMetrics(classes, bins, mce_min_voxels=20)
    metrics.add(p, labels)
    found = metrics.full_result()
    expected = [brute(p[index], labels == index, bins, 20) for index in range(classes)]
    for index, each in enumerate(expected):
        row = found["classes"][str(index)]
        for key in ("ece", "ace", "mce", "signed_gap", "brier"):
            assert row[key] == pytest.approx(each[key], abs=1e-12, nan_ok=True), (index, key)
        parts = row["brier_decomposition"]
        for key in ("reliability", "resolution", "uncertainty"):
            assert parts[key] == pytest.approx(each[key], abs=1e-12), (index, key)
        assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["residual"] == pytest.approx(
            row["brier"]
        )
    for key in ("ece", "ace", "mce"):
        known = [each[key] for each in expected if not np.isnan(each[key])]
        assert found[f"{key}_class"] == pytest.approx(np.mean(known), abs=1e-12)
        known = [each[key] for each in expected[1:] if not np.isnan(each[key])]
        assert found[f"{key}_class_foreground"] == pytest.approx(np.mean(known), abs=1e-12)
    top = brute(p.max(axis=0), p.argmax(axis=0) == labels, bins, 20)
    assert found["ece_toplabel"] == pytest.approx(top["ece"], abs=1e-12)
    assert found["mce_toplabel"] == pytest.approx(top["mce"], abs=1e-12)
    assert found["ace_toplabel"] == pytest.approx(top["ace"], abs=1e-12)
    assert found["brier_sum"] == pytest.approx(sum(each["brier"] for each in expected), abs=1e-11)
    foreground = 1.0 - p[0].astype(np.float64)
    assert found["brier_foreground"] == pytest.approx(((foreground - (labels > 0)) ** 2).mean(), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bins", [3, 7, 10, 20, 50])
def test_a_value_on_an_edge_belongs_to_the_bin_below_and_its_neighbours_do_not_move(dtype, bins):
    edges = (np.arange(bins + 1) / bins).astype(dtype)
    values = np.concatenate([edges, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(1))])
    values = np.clip(values, 0, 1)
    p = np.stack([values, np.zeros_like(values)])
    counts = count(p, np.zeros(values.size, np.uint8), bins)
    expected = np.zeros(bins, int)
    for value in values.astype(np.float64).tolist():
        expected[bin_of(value, bins)] += 1
    assert counts.in_bins(counts.cells[0]).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [7, 15, 20, 50])
@pytest.mark.parametrize("zeros", [0, 20000])
def test_edges_of_cells_and_their_neighbours_fall_where_the_edges_say(dtype, bins, zeros):
    """With many zeros the lowest cell is counted by itself, without them each value is sorted in."""
    cells = cell_count(bins)
    edges = np.arange(cells + 1) / cells
    near = edges.astype(dtype)
    near = np.concatenate([near, np.nextafter(near, dtype(0)), np.nextafter(near, dtype(2)), np.zeros(zeros, dtype)])
    values = np.clip(near, 0, 1)
    counts = count(np.stack([values, values]), np.zeros(values.size, np.uint8), bins)
    expected = np.bincount(np.searchsorted(edges[1:-1], values.astype(np.float64)), minlength=cells)
    assert counts.cells[0].tolist() == expected.tolist()
    assert counts.top[0].tolist() == expected.tolist()
    assert counts.cells_positive[0].tolist() == expected.tolist()


def test_what_rounding_puts_beyond_0_and_1_is_taken_and_what_lies_further_out_is_refused():
    near = np.array([[1.00009, -0.00009], [0.0, 1.0]])
    counts = count(near, np.array([0, 1]), 20)
    assert (counts.cells[0, -1], counts.cells[0, 0], counts.top[:, -1].tolist()) == (1, 1, [1, 1])
    for wrong in (1.0002, -0.0002):
        with pytest.raises(CalibUncertaintyError, match="outside 0 to 1"):
            count(np.array([[wrong], [0.5]]), np.array([0]), 20)


def test_hundreds_of_classes_are_told_apart():
    labels = np.array([299, 256, 255, 3])
    p = np.zeros((300, 4))
    p[[280, 256, 255, 3], range(4)] = 1.0
    counts = count(p, labels, 20)
    assert np.flatnonzero(counts.top.sum(axis=1)).tolist() == [3, 255, 256, 280]
    assert np.flatnonzero(counts.top_correct.sum(axis=1)).tolist() == [3, 255, 256]


@pytest.mark.parametrize(("bins", "cells"), [(1, 2000), (15, 1995), (30, 2010), (1500, 1500), (5000, 5000)])
def test_the_cells_of_a_bin_are_a_whole_number_and_one_at_least(bins, cells):
    assert cell_count(bins) == cells


def test_threads_are_those_asked_for_or_as_many_as_are_worth_it(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert [threads_for(10**9, wanted) for wanted in (0, 1, 7)] == [1, 1, 7]
    assert [threads_for(values, None) for values in (0, 999_999, 1_000_000)] == [1, 1, 4]
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert threads_for(10**9, None) == 1


def test_overlap_comes_from_the_same_pass():
    p, labels = predictions(5, 4000, seed=2)
    labels[labels == 3] = 0
    p[3] = 0.0
    metrics = CalibrationMetrics(5, names=("background", "liver", "spleen", "absent", "kidney"))
    metrics.add(p, labels)
    found, predicted = metrics.full_result(), p.argmax(axis=0)
    expected = {}
    for index, name in enumerate(("background", "liver", "spleen", "absent", "kidney")):
        row = found["classes"][name]
        sizes = np.count_nonzero(predicted == index), np.count_nonzero(labels == index)
        assert (row["predicted"], row["labelled"]) == sizes
        if sum(sizes):
            expected[name] = 2 * np.count_nonzero((predicted == index) & (labels == index)) / sum(sizes)
            assert row["dice"] == pytest.approx(expected[name])
    absent = found["classes"]["absent"]
    assert (absent["dice"], absent["dice_status"]) == (1.0, "both_empty")
    assert found["dice"] == pytest.approx(np.mean([expected[name] for name in ("liver", "spleen", "kidney")]))
    assert (found["dice_classes_used"], found["dice_classes_total"]) == (3, 4)


def test_threads_pieces_types_of_labels_and_memory_order_change_nothing():
    p, labels = predictions(4, CHUNK_VALUES, seed=5)
    whole = CalibrationMetrics(4, threads=1)
    whole.add(p, labels)
    expected = whole.full_result()
    pieces = CalibrationMetrics(4, threads=1)
    for part in (slice(0, 1), slice(1, 70000), slice(70000, None)):
        pieces.add(p[:, part], labels[part].astype(np.int64))
    threads = CalibrationMetrics(4, threads=3)
    threads.add(np.asfortranarray(p), labels)
    for other in (pieces, threads):
        found = other.full_result()
        assert found["bins"][-1]["n"] == expected["bins"][-1]["n"]
        assert found["nll"] == pytest.approx(expected["nll"], rel=1e-12)
        for name, row in found["classes"].items():
            for key in ("ece", "ace", "ace_adaptive", "mce", "smooth_ece", "brier", "dice"):
                assert row[key] == pytest.approx(expected["classes"][name][key], rel=1e-9), (name, key)


def test_pooled_raters_are_the_mean_over_raters():
    p, first = predictions(3, 2000, seed=7)
    second = predictions(3, 2000, seed=8)[1]
    each = []
    pooled = CalibrationMetrics(3)
    for labels in (first, second):
        metrics = CalibrationMetrics(3)
        metrics.add(p, labels)
        each.append(metrics.result())
        pooled.merge(metrics)
    for key in ("nll", "brier_sum", "accuracy"):
        assert pooled.result()[key] == pytest.approx(np.mean([result[key] for result in each]))


def adaptive_by_sorting(values: np.ndarray, hits: np.ndarray, bins: int) -> float:
    order = np.argsort(values, kind="stable")
    parts = zip(np.array_split(values[order].astype(np.float64), bins), np.array_split(hits[order], bins), strict=True)
    return sum(abs(part.sum() - right.sum()) for part, right in parts) / len(values)


def test_equal_mass_bins_are_those_of_sorted_voxels():
    random = np.random.default_rng(0)
    values = random.beta(0.7, 0.9, size=200_000)
    hits = random.random(values.size) < values**1.5
    counts = count(np.stack([1 - values, values]), hits.astype(np.uint8), 20)
    found = adaptive_error(counts.cells[1], counts.cells_p[1], counts.cells_positive[1], 20)
    assert found == pytest.approx(adaptive_by_sorting(values, hits, 20), abs=3e-4)


def test_equal_mass_bins_are_exact_where_values_lie_on_few_places():
    values = np.repeat([0.1, 0.3, 0.8, 0.9], 25)
    hits = np.arange(100) % 3 == 0
    counts = count(np.stack([1 - values, values]), hits.astype(np.uint8), 4)
    cells = counts.cells[1], counts.cells_p[1], counts.cells_positive[1]
    assert adaptive_error(*cells, 4) == pytest.approx(adaptive_by_sorting(values, hits, 4), abs=1e-12)


def test_figures_of_each_class_and_of_the_highest_read_the_cells_and_the_least_number_of_voxels():
    p, labels = predictions(4, 600, seed=3, dtype=np.float64)
    metrics = CalibrationMetrics(4, 25, mce_min_voxels=1)
    metrics.add(p, labels)
    found, counts = metrics.full_result(), count(p, labels, 25)
    for index, row in enumerate(found["classes"].values()):
        assert row["ace_adaptive"] == pytest.approx(adaptive_by_sorting(p[index], labels == index, 25), abs=2e-3)
        cells = counts.cells[index], counts.cells_p[index], counts.cells_positive[index]
        assert row["smooth_ece"] == pytest.approx(smooth_error(*cells)[0], abs=1e-12)
    highest, right = p.max(axis=0), p.argmax(axis=0) == labels
    assert found["ace_adaptive_toplabel"] == pytest.approx(adaptive_by_sorting(highest, right, 25), abs=2e-3)
    top = brute(highest, right, 25, 1)["mce"]
    assert found["mce_toplabel"] == pytest.approx(top, abs=1e-12)
    assert top != brute(highest, right, 25, 100)["mce"]
    parts = {
        part: sum(brute(p[index], labels == index, 25, 1)[part] for index in range(4))
        for part in ("reliability", "resolution", "uncertainty")
    }
    residual = found["brier_sum"] - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
    assert found["brier_decomposition"] == pytest.approx(parts | {"residual": residual}, abs=1e-12)
    assert (found["bin_count"], found["mce_min_voxels"]) == (25, 1)
    for item in (*found["bins"], *found["classes"]["2"]["bins"]):
        assert item["gap"] == (item["confidence"] - item["accuracy"] if item["n"] else None)


def smooth_by_brute_force(values: np.ndarray, hits: np.ndarray, width: float, points: int = 20000) -> float:
    """The integral over t with the reflected kernel summed over its images, midpoint rule."""
    t = (np.arange(points) + 0.5) / points
    total = np.zeros(points)
    for value, residual in zip(values, hits - values, strict=True):
        for image in range(-3, 4):
            for place in (2 * image + value, 2 * image - value):
                total += residual * np.exp(-0.5 * ((t - place) / width) ** 2)
    return float(np.abs(total).mean() / (width * np.sqrt(2 * np.pi)) / len(values))


@pytest.mark.parametrize("near_one", [False, True])
def test_the_smooth_error_is_the_fixed_point_of_the_kernel_integral(near_one):
    """Residuals of both signs, so that the width matters; in one case close to 1, so that the reflection does."""
    random = np.random.default_rng(1)
    values = 0.7 + 0.3 * random.random(120) if near_one else random.random(120)
    chance = np.where(values > 0.9, 0.3, 1.0) if near_one else 0.5 + 0.4 * np.sin(9 * values)
    hits = (random.random(120) < chance).astype(float)
    counts = count(np.stack([1 - values, values]), hits.astype(np.uint8), 20)
    error, width = smooth_error(counts.cells[1], counts.cells_p[1], counts.cells_positive[1])
    assert error == pytest.approx(width, abs=1e-9)
    assert 0.02 < width < 0.5
    assert error == pytest.approx(smooth_by_brute_force(values, hits, width), rel=2e-3)
    # it falls as the kernel widens
    assert smooth_by_brute_force(values, hits, width / 2) > error > smooth_by_brute_force(values, hits, width * 2)


def test_calibrated_voxels_have_a_small_smooth_error_and_a_shift_shows_in_full():
    cells = np.full(2000, 1000)
    middle = (np.arange(2000) + 0.5) / 2000
    assert smooth_error(cells, cells * middle, cells * middle)[0] < 1e-6
    shifted = smooth_error(cells, cells * middle, cells * np.clip(middle - 0.1, 0, 1))[0]
    assert shifted == pytest.approx(0.1, abs=0.01)


def test_one_bin_only_and_bins_below_the_least_number_of_voxels():
    n, p, right = np.array([0, 10, 0]), np.array([0.0, 5.0, 0.0]), np.array([0, 2, 0])
    assert expected_error(n, p, right) == average_error(n, p, right) == pytest.approx(0.3)
    assert signed_gap(n, p, right) == pytest.approx(0.3)
    assert maximum_error(n, p, right, min_voxels=10) == pytest.approx(0.3)
    assert np.isnan(maximum_error(n, p, right, min_voxels=11))
    assert maximum_error(np.array([100]), np.array([50.0]), np.array([20])) == pytest.approx(0.3)
    assert np.isnan(maximum_error(np.array([99]), np.array([50.0]), np.array([20])))


def test_nothing_measured_is_nan_never_zero():
    nothing = np.zeros(4, int), np.zeros(4), np.zeros(4, int)
    assert all(np.isnan(measure(*nothing)) for measure in (expected_error, average_error, maximum_error, signed_gap))
    assert np.isnan(maximum_error(*nothing, min_voxels=0))
    assert np.isnan(adaptive_error(*nothing, 2))
    assert all(np.isnan(value) for value in smooth_error(*nothing))
    assert all(np.isnan(value) for value in brier_decomposition(*nothing, np.nan).values())
    assert dice(0, 0, 0) == (1.0, "both_empty")
    assert dice(0, 3, 0) == (0.0, "ok")
    found = CalibrationMetrics(3).full_result()
    assert (found["status"], found["n"]) == ("empty_roi", 0)
    for key, value in found.items():
        if isinstance(value, float):
            assert np.isnan(value), key
    assert all(row["dice_status"] == "empty_roi" and np.isnan(row["dice"]) for row in found["classes"].values())


def test_what_is_refused_leaves_the_accumulator_as_it_was():
    metrics = CalibrationMetrics(2)
    good, labels = predictions(2, 30000)
    metrics.add(good, labels)
    before = metrics.full_result()
    logits = np.stack([np.full(30000, 4.0), np.full(30000, -4.0)])
    with pytest.raises(CalibUncertaintyError, match="not logits"):
        metrics.add(logits, labels)
    late = good.copy()
    late[:, -1] = np.nan
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        metrics.add(late, labels)
    for no_class in (2, -1):
        with pytest.raises(CalibUncertaintyError, match="own labels"):
            metrics.add(good, np.where(np.arange(30000) == 7, no_class, labels.astype(int)))
    assert metrics.full_result() == before
    for names in (("a", "b"), ("a", "b", "b")):
        with pytest.raises(ValueError, match="names"):
            CalibrationMetrics(3, names=names)
    with pytest.raises(ValueError, match="one bin"):
        CalibrationMetrics(3, bins=0)
    with pytest.raises(ValueError, match="merge"):
        metrics.merge(CalibrationMetrics(2, bins=10))
    # both have 2000 cells
    with pytest.raises(ValueError, match="merge"):
        count(good, labels, 40).add(count(good, labels, 50))


def test_regions_compare_the_probability_of_being_inside():
    random = np.random.default_rng(0)
    p = random.random((2, 5000)).astype(np.float32)
    truth = random.random((2, 5000)) < p**2
    metrics = RegionMetrics(("whole", "core"), mce_min_voxels=50)
    metrics.add(p, truth)
    found = metrics.full_result()
    expected = [brute(inside, holds, 20, 50) for inside, holds in zip(p, truth, strict=True)]
    for name, each in zip(("whole", "core"), expected, strict=True):
        keys = ("ece", "ace", "mce", "brier", "signed_gap")
        assert [found["regions"][name][key] for key in keys] == pytest.approx([each[key] for key in keys], abs=1e-12)
    assert found["ece_class"] == pytest.approx(np.mean([each["ece"] for each in expected]))
    assert found["brier_foreground"] == pytest.approx(np.mean([each["brier"] for each in expected]))
    decided = p > 0.5
    assert found["dice"] == pytest.approx((2 * (decided & truth).sum(axis=1) / (decided.sum(axis=1) + truth.sum(axis=1))).mean())
    empty = RegionMetrics(("whole", "core")).full_result()
    assert (empty["status"], empty["regions"]["core"]["dice_status"]) == ("empty_roi", "empty_roi")
    assert np.isnan(empty["ece_class"])


def test_regions_are_averaged_each_by_its_decision_and_by_its_probability(monkeypatch):
    """The third is nowhere, drawn or predicted: it has no part in the mean overlap. In steps of fewer voxels than there are."""
    monkeypatch.setattr("CalibUncertaintyLib.evaluation.metrics.CHUNK_VOXELS", 20)
    random = np.random.default_rng(4)
    p = random.random((3, 900))
    truth = random.random((3, 900)) < p**2
    p[2], truth[2] = 0.1 * p[2], False
    metrics = RegionMetrics(("whole", "core", "nowhere"), 10, mce_min_voxels=50)
    metrics.add(p, truth)
    found = metrics.full_result()
    decided = p > 0.5
    sure, right = np.where(decided, p, 1 - p), decided == truth
    each = [brute(*of_region, 10, 50) for of_region in zip(sure, right, strict=True)]
    for key in ("ece", "ace", "mce"):
        assert found[f"{key}_toplabel"] == pytest.approx(np.mean([one[key] for one in each]), abs=1e-12), key
    adaptive = np.mean([adaptive_by_sorting(*of_region, 10) for of_region in zip(sure, right, strict=True)])
    assert found["ace_adaptive_toplabel"] == pytest.approx(adaptive, abs=2e-3)
    table = [(item["n"], item["confidence"], item["accuracy"]) for item in found["bins"] if item["n"]]
    assert np.array(table) == pytest.approx(np.array(binned(sure.ravel(), right.ravel(), 10)), abs=1e-12)
    overlaps = 2 * (decided & truth)[:2].sum(axis=1) / (decided[:2].sum(axis=1) + truth[:2].sum(axis=1))
    assert found["dice"] == pytest.approx(overlaps.mean())
    counted = [found[key] for key in ("dice_classes_used", "dice_classes_total", "bin_count", "mce_min_voxels")]
    assert counted == [2, 3, 10, 50]
