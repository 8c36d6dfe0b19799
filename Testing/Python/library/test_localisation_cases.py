"""The result of one case as plain values, means over cases, and one measure against another."""

import json
import math

import numpy as np
import pytest

from CalibUncertaintyLib.evaluation.edit_saving import EditCounts, edit_saving
from CalibUncertaintyLib.evaluation.error_components import error_components, found_share
from CalibUncertaintyLib.evaluation.localisation import LocalisationCounts
from CalibUncertaintyLib.evaluation.localisation_cases import (
    compare_localisation,
    localisation_of_cases,
    scalar_figures,
)
from CalibUncertaintyLib.evaluation.localisation_result import PLOT_SHARES, localisation_result
from CalibUncertaintyLib.evaluation.statistics import mean_interval, paired_difference, wilcoxon_signed_rank
from CalibUncertaintyLib.plain_json import plain

SHAPE = (6, 20, 20)
SPACING = (2.0, 1.0, 1.0)


def make_parts(seed: int, sharpness: float, error_rate: float = 0.1) -> tuple:
    """Counts, components and edits of one case; the larger the sharpness, the better u finds the errors."""
    random = np.random.default_rng(seed)
    reference = random.integers(0, 3, SHAPE)
    wrong = random.random(SHAPE) < error_rate
    label = np.where(wrong, (reference + 1) % 3, reference)
    u = (random.random(SHAPE) + sharpness * wrong).astype(np.float32)
    near = random.random(SHAPE) < 0.5
    counts, edits = LocalisationCounts(), EditCounts(3)
    counts.add(u.ravel(), wrong.ravel(), label.ravel() > 0, near.ravel())
    edits.add(u.ravel(), label.ravel(), reference.ravel())
    return counts, error_components(wrong, u, near, SPACING), edits


def make_result(seed: int, sharpness: float = 0.5, error_rate: float = 0.1) -> dict:
    counts, components, edits = make_parts(seed, sharpness, error_rate)
    return localisation_result(counts, {"frozen": 0.75}, components=components, edits=edits)


def test_a_result_holds_what_the_parts_say_and_goes_through_json():
    counts, components, edits = make_parts(0, 0.5)
    result = localisation_result(
        counts, {"frozen": 0.75, "none": math.inf}, (0.02,), components=components, edits=edits
    )
    assert (result["n"], result["errors"]) == (2400, counts.errors)
    assert result["error_rate"] == pytest.approx(counts.errors / 2400)
    assert result["ranking"] == counts.ranking()
    frozen = dict(result["at_thresholds"]["frozen"])
    assert frozen.pop("error_components") == found_share(components, 0.75)
    assert frozen == counts.at_threshold(0.75)
    assert result["at_thresholds"]["none"]["error_components"]["found"] == 0
    budget = result["at_budgets"]["0.02"]
    assert budget["edit"] == edit_saving(edits, 0.02)
    assert budget["error_components"] == found_share(components, budget["threshold"])
    assert result["budget"]["area"] == counts.budget_curve().area
    assert len(result["budget"]["curve"]["overlap"]) == 50
    assert json.loads(json.dumps(plain(result), allow_nan=False))["ranking"]["auroc"] == result["ranking"]["auroc"]


def test_plots_get_sixty_four_points_at_most_with_both_ends():
    counts, *_ = make_parts(1, 0.5)
    curves = localisation_result(counts, {})["curves"]
    whole = counts.error_dice_curve()
    assert {len(values) for values in curves["by_threshold"].values()} == {64}
    for name, values in curves["by_threshold"].items():
        assert (values[0], values[-1]) == (whole[name][0], whole[name][-1])
    assert curves["by_share"]["share"] == PLOT_SHARES.tolist()
    assert curves["by_share"]["recall"][-1] == 1.0
    few = LocalisationCounts()
    few.add(np.float32([1, 2]), [False, True], [True, True], [True, True])
    assert localisation_result(few, {})["curves"]["by_threshold"]["threshold"] == [1.0, 2.0]


def test_an_empty_region_gives_a_result_that_says_so():
    result = localisation_result(LocalisationCounts(), {"frozen": 0.5}, edits=EditCounts(2))
    assert result["status"] == result["budget"]["status"] == "empty_roi"
    assert all(math.isnan(value) for value in scalar_figures(result).values())
    json.dumps(plain(result), allow_nan=False)


def test_scalar_figures_are_numbers_that_a_mean_makes_sense_of():
    figures = scalar_figures(make_result(0))
    assert {"ranking.auroc", "budget.ratio_to_ideal", "at_budgets.0.05.edit.saving", "best.error_dice"} <= set(figures)
    assert figures["at_thresholds.frozen.removing_helps"] in (0.0, 1.0)
    assert "at_thresholds.frozen.error_components.found_share" in figures
    assert not [name for name in figures if name.endswith(("threshold", "status", ".flagged", ".found", ".components"))]
    assert scalar_figures({"a": None, "b": {"status": "both_empty", "before": 1.0}, "status": "ok"}) == pytest.approx(
        {"a": math.nan}, nan_ok=True
    )


def test_means_over_cases_are_intervals_of_each_figure_and_curves_leave_out_what_is_unknown():
    results = {str(seed): make_result(seed, error_rate=rate) for seed, rate in enumerate([0.1, 0.05, 0.2, 0.0])}
    found = localisation_of_cases(results, draws=300)
    values = [result["ranking"]["auroc"] for result in results.values()]
    assert found["figures"]["ranking.auroc"] == mean_interval(values, draws=300).to_json()
    assert found["figures"]["ranking.auroc"]["used"] == 3
    known = np.array([results[case]["budget"]["curve"]["overlap"] for case in "012"])
    assert found["budget"]["overlap"]["mean"] == pytest.approx(known.mean(axis=0))
    assert set(found["budget"]["overlap"]["used"]) == {3}
    assert found["by_share"]["precision"]["used"] == [4] * 64
    assert found["by_share"]["recall"]["used"] == [3] * 64
    assert found["by_share"]["remaining_risk"]["used"][-1] == 0
    assert localisation_of_cases({}) == {"cases": 0, "figures": {}, "budget": {}, "by_share": {}}


def test_pooling_counts_is_the_result_of_all_voxels_as_one_case():
    (first, *_), (second, *_) = make_parts(0, 0.5), make_parts(1, 0.2)
    pooled = LocalisationCounts()
    pooled.merge(first)
    pooled.merge(second)
    result = localisation_result(pooled, {"frozen": 0.75})
    assert result["n"] == 4800
    one, two = (counts.at_threshold(0.75) for counts in (first, second))
    hits = one["recall"] * first.errors + two["recall"] * second.errors
    assert result["at_thresholds"]["frozen"]["recall"] == pytest.approx(hits / (first.errors + second.errors))


def test_a_sharper_measure_is_told_from_a_blunt_one_by_case():
    blunt = {str(seed): make_result(seed, 0.2) for seed in range(8)}
    sharp = {str(seed): make_result(seed, 0.6) for seed in range(1, 9)}
    found = compare_localisation(blunt, sharp, ["ranking.auroc", "budget.area"], draws=400)
    assert (found["cases"], found["left_out"]) == (7, ["0", "8"])
    assert list(found["figures"]) == ["ranking.auroc", "budget.area"]
    pair = [[side[str(seed)]["ranking"]["auroc"] for seed in range(1, 8)] for side in (blunt, sharp)]
    auroc = found["figures"]["ranking.auroc"]
    assert auroc["difference"] == paired_difference(*pair, draws=400).to_json()
    assert auroc["wilcoxon"] == wilcoxon_signed_rank(*pair).to_json()
    assert auroc["difference"]["lower"] > 0
    assert auroc["wilcoxon"]["p"] == pytest.approx(2 / 2**7)
    every = compare_localisation(blunt, blunt, draws=50)["figures"]
    assert set(every) == set(scalar_figures(blunt["0"]))
    assert {row["wilcoxon"]["status"] for row in every.values()} <= {"no_difference", "no_cases"}


def test_a_figure_that_no_case_has_is_refused():
    results = {"a": make_result(0)}
    with pytest.raises(ValueError, match="nonsense"):
        compare_localisation(results, results, ["nonsense"])
