"""Statistics over cases against scipy, against everything that could be drawn, and at their edges."""

import itertools
import json
import math
import sys

import numpy as np
import pytest

from CalibUncertaintyLib.evaluation.statistics import (
    mean_interval,
    paired_difference,
    subject_limit,
    subject_shares,
    wilcoxon_signed_rank,
)


def cases(n: int, seed: int = 0) -> np.ndarray:
    """Skewed, as calibration errors of cases are."""
    return np.random.default_rng(seed).gamma(2.0, 0.02, n)


@pytest.mark.parametrize("n", [2, 3, 10, 45])
@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_intervals_equal_scipys_on_the_same_draws(n, method, level):
    stats = pytest.importorskip("scipy.stats")
    values = cases(n, seed=n)
    found = mean_interval(values, draws=2000, level=level, method=method, seed=3)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        confidence_level=level,
        method=method,
        random_state=np.random.default_rng(3),
    ).confidence_interval
    assert found.lower == pytest.approx(expected.low, rel=1e-9)
    assert found.upper == pytest.approx(expected.high, rel=1e-9)
    assert found.mean == pytest.approx(values.mean())


def test_the_percentile_interval_tends_to_that_of_all_possible_draws():
    values = cases(5, seed=2)
    every = np.array([np.mean(drawn) for drawn in itertools.product(values, repeat=5)])
    found = mean_interval(values, draws=200_000, method="percentile")
    # with 5 cases the drawn means are coarse, and each has a weight: an end is a quantile when it lies within that weight;
    # the share of 200,000 draws below an end is known to 0.0004, of which four
    for end, share in ((found.lower, 0.025), (found.upper, 0.975)):
        assert np.mean(every < end - 1e-12) <= share + 0.0016
        assert np.mean(every <= end + 1e-12) >= share - 0.0016


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    held = {"percentile": 0, "bca": 0}
    for seed in range(400):
        values = cases(30, seed=seed)
        for method in held:
            interval = mean_interval(values, draws=500, method=method, seed=seed)
            held[method] += interval.lower <= 0.04 <= interval.upper
    # 400 draws of a coin with 0.92 (bootstrap intervals of 30 skewed values fall a little short of 0.95)
    assert all(0.88 <= count / 400 <= 0.97 for count in held.values()), held


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_shift_and_stretch_with_the_values_and_forget_the_order_of_draws_only_with_the_seed(method):
    values = cases(12)
    one = mean_interval(values, method=method)
    moved = mean_interval(values * 100 + 5, method=method)
    assert (moved.lower, moved.upper) == pytest.approx((one.lower * 100 + 5, one.upper * 100 + 5))
    mirrored = mean_interval(-values, method=method)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-one.upper, -one.lower))
    assert mean_interval(values, method=method) == one
    assert mean_interval(values, method=method, seed=1) != one


def test_many_cases_are_drawn_in_pieces_and_give_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 3000)
    found = mean_interval(values, draws=3000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert found.upper - found.lower == pytest.approx(2 * half, rel=0.05)


def test_cases_without_a_value_are_left_out_and_counted():
    values = [0.1, math.nan, 0.2, None, 0.4, math.inf]
    found = mean_interval(values)
    assert (found.used, found.total, found.status) == (3, 6, "ok")
    kept = mean_interval([0.1, 0.2, 0.4])
    assert (found.mean, found.lower, found.upper) == (kept.mean, kept.lower, kept.upper)


def test_one_case_has_a_mean_and_no_interval_and_no_case_has_neither():
    one, none = mean_interval([0.25, math.nan]), mean_interval([math.nan])
    assert (one.mean, one.used, one.status) == (0.25, 1, "one_case")
    assert math.isnan(one.lower)
    assert math.isnan(one.upper)
    assert (none.used, none.total, none.status) == (0, 1, "no_cases")
    assert math.isnan(none.mean)
    assert mean_interval([]).status == "no_cases"


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_values_give_an_interval_that_is_that_value(method):
    found = mean_interval([0.3, 0.1 + 0.2, 0.3], method=method)
    assert found.status == "all_equal"
    assert found.lower == found.upper == found.mean == pytest.approx(0.3)


def test_differences_are_paired_so_that_what_cases_share_cancels():
    before = cases(20) * 100
    after = before - np.random.default_rng(1).normal(0.5, 0.1, 20)
    found = paired_difference(before, after)
    assert found.mean == pytest.approx((after - before).mean())
    assert found.upper < 0
    assert found.upper - found.lower < 0.2
    assert mean_interval(before).upper - mean_interval(before).lower > 1


def test_a_pair_without_one_half_is_left_out():
    found = paired_difference([1.0, math.nan, 3.0, 4.0], [2.0, 5.0, None, 6.0])
    assert (found.used, found.total) == (2, 4)
    assert found.mean == pytest.approx(1.5)
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).status == "all_equal"
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).lower == 0.0
    assert paired_difference([1.0], [0.5]).status == "one_case"


def every_sign(differences: np.ndarray) -> float:
    """The exact p: all 2^n ways of signs, for absolute differences without ties."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    of_all = sum(ranks)
    observed = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    signs = itertools.product((0, 1), repeat=len(ranks))
    return float(np.mean([min(s := np.dot(sign, ranks), of_all - s) <= observed for sign in signs]))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_wilcoxon_p_equals_counting_every_way_of_signs(n):
    pytest.importorskip("scipy")
    random = np.random.default_rng(n)
    before = random.normal(size=n)
    after = before + random.normal(0.4, 1.0, n)
    found = wilcoxon_signed_rank(before, after)
    assert found.p == pytest.approx(every_sign(after - before), abs=1e-12)
    assert (found.used, found.different, found.status) == (n, n, "ok")
    assert wilcoxon_signed_rank(after, before).p == pytest.approx(found.p)


def test_wilcoxon_leaves_out_equal_pairs_and_missing_ones():
    pytest.importorskip("scipy")
    before, after = [1.0, 2.0, 3.0, 4.0, 5.0, math.nan], [0.5, 1.2, 2.9, 4.0, 5.0 * (1 + 1e-15), 7.0]
    found = wilcoxon_signed_rank(before, after)
    assert (found.used, found.different, found.total) == (5, 3, 6)
    assert found.p == pytest.approx(0.25)  # all three went down: 2 of 2^3


def test_wilcoxon_of_equal_pairs_is_one_and_of_none_unknown():
    assert wilcoxon_signed_rank([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert wilcoxon_signed_rank([1.0, 2.0], [1.0, 2.0]).status == "no_difference"
    assert wilcoxon_signed_rank([math.nan], [1.0]).status == "no_cases"
    assert math.isnan(wilcoxon_signed_rank([], []).p)


def test_without_scipy_the_test_says_so_instead_of_failing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    found = wilcoxon_signed_rank([1.0, 2.0], [0.0, 0.0])
    assert (found.status, found.used) == ("no_scipy", 2)
    assert math.isnan(found.p)


def test_subjects_beyond_the_limit_on_either_side_are_counted_and_those_on_it_are_calibrated():
    shares = subject_shares([0.05, -0.05, 0.02, -0.021, 0.3, math.nan, None], limit=0.05)
    assert (shares.over, shares.under, shares.calibrated, shares.used, shares.total) == (1, 0, 4, 5, 7)
    assert shares.to_json()["share_over"] == pytest.approx(0.2)
    # turned about: over becomes under
    turned = subject_shares([-0.05, 0.05, -0.02, 0.021, -0.3], limit=0.05)
    assert (turned.over, turned.under) == (0, 1)


def test_the_limit_is_the_90th_percentile_of_the_absolute_gaps():
    assert subject_limit([0.04, -0.01]) == pytest.approx(0.01 + 0.9 * 0.03)
    assert subject_limit([-0.04, 0.01, math.nan, None]) == pytest.approx(subject_limit([0.04, 0.01]))
    assert subject_limit([0.02]) == pytest.approx(0.02)
    assert math.isnan(subject_limit([math.nan]))
    unknown = subject_shares([0.1], limit=math.nan)
    assert (unknown.used, unknown.total) == (0, 1)
    assert math.isnan(unknown.to_json()["share_over"])


def test_results_are_plain_values():
    for result in (mean_interval(cases(4)), wilcoxon_signed_rank([1, 2], [1, 2]), subject_shares([0.1, 0.2], 0.1)):
        assert json.loads(json.dumps(result.to_json(), allow_nan=False)) == result.to_json()


@pytest.mark.parametrize(
    "options", [{"draws": 0}, {"level": 1.0}, {"level": 0.0}, {"level": math.nan}, {"method": "studentized"}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError):
        mean_interval([1.0, 2.0], **options)


def test_halves_of_pairs_of_other_lengths_and_negative_limits_are_refused():
    with pytest.raises(ValueError):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError):
        wilcoxon_signed_rank([1.0], [])
    with pytest.raises(ValueError):
        subject_shares([0.1], -0.1)
