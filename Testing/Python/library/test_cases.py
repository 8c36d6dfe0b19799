"""From the figures of cases to those of a cohort."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib.evaluation.cases import confidence_of_cases, summarise_cases
from CalibUncertaintyLib.evaluation.metrics import CalibrationMetrics, RegionMetrics, mean_over_cases


def case(voxels: int, seed: int, absent: int | None = None) -> dict:
    random = np.random.default_rng(seed)
    p = random.dirichlet((1.0, 0.5, 0.3), size=voxels).T.reshape(3, voxels)
    labels = p.argmax(axis=0)
    labels[::4] = random.integers(0, 3, labels[::4].size)
    if absent is not None:
        labels[labels == absent] = 0
        p[absent] = 0
    metrics = CalibrationMetrics(3, names=("background", "liver", "spleen"), mce_min_voxels=20)
    metrics.add(p / p.sum(axis=0), labels)
    return metrics.full_result()


def test_the_mean_and_spread_of_every_figure_over_cases():
    results = [case(500, 1), case(3000, 2), case(800, 3)]
    found = summarise_cases(results)
    for key in ("nll", "ece_toplabel", "ace_class", "smooth_ece", "dice"):
        values = [result[key] for result in results]
        assert found[key]["mean"] == pytest.approx(np.mean(values))
        assert found[key]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert (found[key]["min"], found[key]["max"]) == (min(values), max(values))
        assert (found[key]["used"], found[key]["total"]) == (3, 3)
    liver = [result["classes"]["liver"]["brier_decomposition"]["resolution"] for result in results]
    assert found["classes"]["liver"]["brier_decomposition"]["resolution"]["mean"] == pytest.approx(np.mean(liver))
    assert "bins" not in found
    assert "n" not in found
    assert found["nll"]["mean"] == pytest.approx(mean_over_cases(results)["nll"])


def test_empty_cases_and_absent_structures_are_left_out_and_counted():
    results = [case(500, 1), case(0, 2), case(800, 3, absent=2)]
    found = summarise_cases(results)
    assert (found["nll"]["used"], found["nll"]["total"]) == (2, 3)
    spleen = found["classes"]["spleen"]["dice"]
    assert (spleen["mean"], spleen["used"]) == (results[0]["classes"]["spleen"]["dice"], 1)
    assert math.isnan(spleen["sd"])
    assert results[2]["classes"]["spleen"]["dice"] == 1.0, "the case itself keeps its figure"
    nothing = summarise_cases([case(0, 1)])
    assert math.isnan(nothing["nll"]["mean"])
    assert nothing["nll"]["used"] == 0
    assert summarise_cases([]) == {}


def test_regions_are_summarised_by_name():
    results = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        p = random.random((2, 400)).astype(np.float32)
        metrics = RegionMetrics(("whole", "core"))
        metrics.add(p, random.random((2, 400)) < p)
        results.append(metrics.full_result())
    found = summarise_cases(results)
    expected = np.mean([result["regions"]["core"]["ece"] for result in results])
    assert found["regions"]["core"]["ece"]["mean"] == pytest.approx(expected)


def test_cases_beyond_the_ninetieth_percentile_are_over_or_under_confident():
    gaps = {f"case{index}": value for index, value in enumerate([0.01] * 9 + [-0.02] * 9 + [0.30, -0.25])}
    found = confidence_of_cases(gaps | {"empty": math.nan})
    assert found["over"] == ["case18"]
    assert found["under"] == ["case19"]
    assert len(found["calibrated"]) == 18
    assert found["unknown"] == ["empty"]
    assert (found["share_over"], found["share_under"]) == (0.5, 0.5)
    assert found["limit"] == pytest.approx(np.percentile(np.abs(list(gaps.values())), 90))


def test_one_case_is_calibrated_by_this_rule_and_none_is_unknown():
    assert confidence_of_cases({"only": 0.4})["calibrated"] == ["only"]
    nothing = confidence_of_cases({"empty": math.nan})
    assert math.isnan(nothing["limit"])
    assert nothing["unknown"] == ["empty"]
    with pytest.raises(ValueError, match="percentile"):
        confidence_of_cases({"only": 0.4}, 100)
