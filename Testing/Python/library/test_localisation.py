"""Error localisation from counts against scikit-learn, sets of voxels and every order of equal values."""

import itertools
import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation import budget, ranking
from CalibUncertaintyLib.evaluation.localisation import LocalisationCounts, boundary_mm, near_boundary
from CalibUncertaintyLib.value_codes import codes_of, values_of


def make_voxels(seed: int, voxels: int = 3000, error_rate: float = 0.1, levels: int | None = None) -> tuple:
    """u (higher, on the whole, where wrong; with few `levels` full of ties), error, predicted positive, near a surface."""
    random = np.random.default_rng(seed)
    error = random.random(voxels) < error_rate
    u = np.clip(random.beta(1.0, 8.0, voxels) + error * random.beta(3.0, 6.0, voxels), 0, 1)
    if levels is not None:
        u = np.floor(u * levels) / levels
    u = values_of(codes_of(u)) * np.float32(random.choice([1.0, 3.5]))
    return values_of(codes_of(u)), error, random.random(voxels) < 0.4, random.random(voxels) < 0.6


def counted(u, error, positive, near) -> LocalisationCounts:
    counts = LocalisationCounts()
    counts.add(u, error, positive, near)
    return counts


def set_figures(flagged: np.ndarray, error, positive, near) -> dict:
    """By sets of voxel numbers."""

    def voxels(mask):
        return set(np.flatnonzero(mask).tolist())

    U, E = voxels(flagged), voxels(error)
    both = len(U & E)

    def share(part, of):
        return len(part) / len(of) if of else math.nan

    false_positives, false_negatives = voxels(error & positive), voxels(error & ~positive)
    true_positives = voxels(positive & ~error)
    removed = len(true_positives - U), len(false_positives - U), len(false_negatives) + len(true_positives & U)

    def dice(tp, fp, fn):
        return 2 * tp / (2 * tp + fp + fn)

    before = dice(len(true_positives), len(false_positives), len(false_negatives))
    return {
        "flagged": len(U),
        "flagged_share": len(U) / error.size,
        "error_dice": 2 * both / (len(U) + len(E)) if U or E else 1.0,
        "recall": both / len(E) if E else (math.nan if U else 1.0),
        "precision": both / len(U) if U else (math.nan if E else 1.0),
        "boundary_recall": share(voxels(error & near) & U, voxels(error & near)),
        "non_boundary_recall": share(voxels(error & ~near) & U, voxels(error & ~near)),
        "fp_recall": share(false_positives & U, false_positives),
        "fn_recall": share(false_negatives & U, false_negatives),
        "removing_helps": dice(*removed) > before,
    }


CASES = [make_voxels(0), make_voxels(1, levels=12), make_voxels(2, 400, 0.4, levels=3), make_voxels(3, 900, 0.01)]


@pytest.mark.parametrize("case", CASES)
def test_ranking_figures_are_scikit_learns(case):
    metrics = pytest.importorskip("sklearn.metrics")
    u, error, positive, _ = case
    found = counted(*case).ranking()
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(error, u), abs=1e-12)
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(error, u), abs=1e-12)
    false_rate, true_rate, _ = metrics.roc_curve(error, u, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(false_rate[true_rate >= 0.95][0], abs=1e-12)
    assert found["fp_tp_auroc"] == pytest.approx(metrics.roc_auc_score(error[positive], u[positive]), abs=1e-12)
    assert found["fn_tn_auroc"] == pytest.approx(metrics.roc_auc_score(error[~positive], u[~positive]), abs=1e-12)


def risk_area(error_in_order: np.ndarray) -> float:
    """Mean selective risk, of errors sorted from low to high uncertainty."""
    return float((np.cumsum(error_in_order) / np.arange(1, error_in_order.size + 1)).mean())


def orders_of(u: list[int], error: list[int]) -> list[np.ndarray]:
    """Errors in every order that falling uncertainty allows, each as often as it comes up."""
    groups = [
        [wrong for value, wrong in zip(u, error, strict=True) if value == level] for level in sorted(set(u))[::-1]
    ]
    mixed = itertools.product(*(itertools.permutations(group) for group in groups))
    return [np.array([wrong for group in order for wrong in group]) for order in mixed]


TINY = [
    ([3, 3, 2, 2, 2, 1, 1], [1, 0, 1, 0, 0, 1, 0]),
    ([1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 0]),
    ([5, 4, 3, 2, 1], [0, 1, 0, 1, 1]),
    ([2, 2, 2, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1]),
]


@pytest.mark.parametrize(("u", "error"), TINY)
def test_the_risk_coverage_area_is_the_mean_over_all_orders_of_equal_values(u, error):
    every = [risk_area(order[::-1]) for order in orders_of(u, error)]
    found = counted(np.float32(u), np.array(error), np.ones(len(u)), np.ones(len(u))).ranking()["aurc"]
    assert found == pytest.approx(np.mean(every), abs=1e-12)


def test_the_risk_coverage_area_of_many_distinct_values_is_the_mean_selective_risk():
    random = np.random.default_rng(0)
    wrong = random.random(200_000) < np.linspace(0.4, 0.0, 200_000)
    assert ranking.risk_coverage_area(wrong, ~wrong) == pytest.approx(risk_area(wrong[::-1]), abs=1e-12)


def test_the_risk_coverage_area_of_hundreds_of_millions_of_equal_voxels_is_their_share_of_errors():
    assert ranking.risk_coverage_area(np.array([3e8, 3e8]), np.array([6e8, 6e8])) == pytest.approx(1 / 3, abs=1e-9)
    assert ranking.risk_coverage_area(np.array([0, 0]), np.array([5, 6])) == 0.0
    assert ranking.risk_coverage_area(np.array([5, 6]), np.array([0, 0])) == 1.0


@pytest.mark.parametrize(("u", "error"), TINY)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 1.0])
def test_figures_at_a_budget_are_means_over_all_orders_of_equal_values(u, error, share):
    size = math.ceil(round(share * len(u), 6))
    orders = orders_of(u, error)
    hits = [order[:size].sum() for order in orders]
    found = counted(np.float32(u), np.array(error), np.ones(len(u)), np.ones(len(u))).at_budget(share)
    assert found["flagged"] == size
    assert found["error_dice"] == pytest.approx(np.mean([2 * hit / (size + sum(error)) for hit in hits]))
    assert found["recall"] == found["boundary_recall"] == pytest.approx(np.mean(hits) / sum(error))
    assert found["precision"] == pytest.approx(np.mean(hits) / size)
    assert math.isnan(found["non_boundary_recall"])


@pytest.mark.parametrize("case", CASES)
def test_figures_at_a_threshold_are_those_of_sets_of_voxels(case):
    u, *flags = case
    counts = counted(*case)
    for threshold in [0.0, *np.quantile(u, [0.1, 0.5, 0.9, 0.99], method="nearest").tolist(), float(u.max()), math.inf]:
        found = counts.at_threshold(threshold)
        assert found.pop("threshold") == threshold
        assert found == pytest.approx(set_figures(u >= threshold, *flags), nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_the_whole_curve_and_its_best_threshold_are_those_of_every_value(case):
    u, *flags = case
    counts = counted(*case)
    curve = counts.error_dice_curve()
    assert (curve["threshold"] == np.unique(u)).all()
    for name in ("error_dice", "recall", "precision", "flagged_share"):
        naive = [set_figures(u >= t, *flags)[name] for t in np.unique(u)[::7]]
        assert curve[name][::7] == pytest.approx(naive)
    best = counts.best_threshold()
    assert best["error_dice"] == curve["error_dice"].max() == counts.at_threshold(best["threshold"])["error_dice"]


def test_of_equally_good_thresholds_the_lowest_is_the_best():
    counts = counted(np.float32([2, 1, 1, 1]), [True, True, False, False], np.ones(4), np.ones(4))
    assert counts.error_dice_curve()["error_dice"] == pytest.approx([2 / 3, 2 / 3])
    assert counts.best_threshold() == {"threshold": 1.0, "error_dice": pytest.approx(2 / 3)}


def test_a_threshold_between_codes_is_rounded_down_and_says_so():
    u = values_of(np.arange(20000, 20010))
    counts = counted(u, np.arange(10) >= 5, np.ones(10), np.ones(10))
    between = float(u[5]) + (float(u[6]) - float(u[5])) * 0.7
    assert counts.at_threshold(between) == counts.at_threshold(float(u[5]))
    assert counts.at_threshold(between)["threshold"] == u[5]
    with pytest.raises(ValueError):
        counts.at_threshold(math.nan)


def test_the_condition_of_benefit_is_that_removing_the_flagged_voxels_raises_dice():
    told = [counted(*make_voxels(seed, 60, 0.1, 4)).at_threshold(0.3)["removing_helps"] for seed in range(60)]
    for seed, helps in enumerate(told):
        u, *flags = make_voxels(seed, 60, 0.1, 4)
        assert (
            helps is set_figures(u >= np.float32(values_of(codes_of(np.float32([0.3]))))[0], *flags)["removing_helps"]
        )
    assert 5 < sum(told) < 55
    nobody = counted([0.5], [True], [False], [True])
    assert nobody.at_threshold(0.5)["removing_helps"] is False
    assert counted([0.5], [False], [False], [True]).at_threshold(0.5)["removing_helps"] is None


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_auroc_inside_a_budget_is_that_of_its_voxels_where_no_group_is_cut(case, share):
    metrics = pytest.importorskip("sklearn.metrics")
    u, error, positive, near = case
    u = values_of(np.random.default_rng(0).permutation(u.size) + 8 * codes_of(u) // 16)  # hardly any ties
    order = np.argsort(-u, kind="stable")
    size = math.ceil(round(share * u.size, 6))
    if u[order[size - 1]] == u[order[size]]:
        size = 1 + int(np.flatnonzero(u[order] == u[order[size]])[-1])
    inside = np.zeros(u.size, bool)
    inside[order[:size]] = True
    found = counted(u, error, positive, near).at_budget(size / u.size)
    for name, of in (("fp_tp_auroc", positive), ("fn_tn_auroc", ~positive)):
        here = inside & of
        known = 0 < error[here].sum() < here.sum()
        expected = metrics.roc_auc_score(error[here], u[here]) if known else math.nan
        assert found[name] == pytest.approx(expected, nan_ok=True)
    assert found["threshold"] == u[inside].min()


def test_auroc_inside_a_budget_weighs_the_group_that_is_cut_with_the_part_that_fits():
    u, error = np.float32([2, 2, 1, 1, 1, 1]), np.array([True, False, True, False, False, False])
    found = counted(u, error, np.ones(6), np.ones(6)).at_budget(0.5)
    # wrong: 1 at the top, 1/4 below; right: 1 and 3/4. Pairs: 1 * (3/4 + 1/2) + 1/4 * 3/8, of 5/4 * 7/4
    assert found["fp_tp_auroc"] == pytest.approx((1.25 + 0.25 * 0.375) / (1.25 * 1.75))
    assert math.isnan(found["fn_tn_auroc"])
    assert found["threshold"] == 2.0
    assert counted(u, error, np.ones(6), np.ones(6)).at_budget(0.1)["threshold"] == math.inf


@pytest.mark.parametrize("case", CASES)
def test_the_budget_curve_is_the_mean_over_random_orders_of_equal_values(case):
    u, error, *_ = case
    random = np.random.default_rng(5)
    sizes = [-(-point * u.size // 1000) for point in range(1, 51)]
    drawn = []
    for _ in range(300):
        hits = np.cumsum(error[np.lexsort((random.random(u.size), -u))])
        drawn.append([2 * hits[size - 1] / (size + error.sum()) for size in sizes])
    drawn = np.array(drawn)
    curve = counted(*case).budget_curve()
    assert curve.share == pytest.approx(np.arange(1, 51) / 1000)
    allowed = 5 * drawn.std(axis=0) / math.sqrt(len(drawn)) + 1e-12
    assert (np.abs(curve.overlap - drawn.mean(axis=0)) <= allowed).all()
    points = np.concatenate([[0], curve.overlap])
    assert curve.area == pytest.approx(np.sum((points[1:] + points[:-1]) / 2) * 0.001 / 0.05)
    assert curve.ratio_to_ideal == pytest.approx(curve.area / curve.ideal_area)


@pytest.mark.parametrize("seed", range(12))
def test_measured_budget_curves_lie_below_the_ideal_and_no_order_gives_the_random_one(seed):
    u, *flags = make_voxels(seed, 2000, [0.002, 0.03, 0.3, 0.9][seed % 4], [None, 6, 2][seed % 3])
    curve = counted(u, *flags).budget_curve()
    sizes = np.array([-(-point * u.size // 1000) for point in range(1, 51)])
    b, e = sizes / u.size, flags[0].mean()
    assert (curve.overlap <= curve.ideal + 1e-12).all()
    assert curve.ideal == pytest.approx(2 * np.minimum(b, e) / (b + e))
    assert ((curve.overlap >= 0) & (curve.ideal <= 1)).all()
    flat = counted(np.zeros(u.size), *flags).budget_curve()
    assert flat.overlap == pytest.approx(curve.random)
    perfect = counted(flags[0].astype(np.float32), *flags).budget_curve()
    assert perfect.overlap == pytest.approx(curve.ideal)
    assert perfect.ratio_to_ideal == pytest.approx(1.0)


def test_shuffled_uncertainty_gives_the_random_curve_and_half_an_auroc_on_average():
    u, *flags = make_voxels(4, 4000)
    random = np.random.default_rng(0)
    found = [counted(random.permutation(u), *flags) for _ in range(60)]
    areas = [counts.budget_curve().area for counts in found]
    assert np.mean(areas) == pytest.approx(found[0].budget_curve().random_area, abs=5 * np.std(areas) / math.sqrt(60))
    assert np.mean([counts.ranking()["auroc"] for counts in found]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "transform", [lambda u: u * 0.25, lambda u: u * 8, lambda u: np.sqrt(u), lambda u: u**2, np.expm1]
)
def test_a_monotone_change_of_the_measure_changes_no_figure_of_rank(transform):
    u, *flags = make_voxels(6, levels=40)
    one, other = counted(u, *flags), counted(transform(u), *flags)
    assert one.ranking() == other.ranking()
    assert (one.budget_curve().overlap == other.budget_curve().overlap).all()
    for share in (0.01, 0.2):
        first, second = (
            {k: v for k, v in counts.at_budget(share).items() if k != "threshold"} for counts in (one, other)
        )
        assert first == second


def test_codes_change_ranks_of_close_values_only():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(2)
    error = random.random(20000) < 0.1
    u = random.beta(1, 6, 20000) + error * 0.2
    found = counted(u, error, error, error)
    assert found.ranking()["auroc"] == pytest.approx(metrics.roc_auc_score(error, u), abs=1e-4)
    assert found.ranking()["auprc"] == pytest.approx(metrics.average_precision_score(error, u), abs=2e-3)


def test_pieces_and_merged_cases_count_as_all_voxels_together():
    whole = make_voxels(7, 2500)
    pieces = [LocalisationCounts(), LocalisationCounts()]
    for start in range(0, 2500, 400):
        pieces[start // 400 % 2].add(*(part[start : start + 400] for part in whole))
    pieces[0].merge(pieces[1])
    together = counted(*whole)
    assert (pieces[0].table == together.table).all()
    assert (pieces[0].n, pieces[0].errors) == (2500, int(whole[1].sum()))


def test_chunks_are_counted_as_one_pass(monkeypatch):
    whole = make_voxels(8, 2500)
    expected = counted(*whole).table
    monkeypatch.setattr("CalibUncertaintyLib.evaluation.localisation.CHUNK_VOXELS", 300)
    assert (counted(*whole).table == expected).all()


def test_curves_over_the_flagged_share_agree_with_the_figures_at_each_budget():
    case = make_voxels(9, levels=15)
    counts = counted(*case)
    shares = [0.003, 0.05, 0.5, 1.0]
    curves = counts.found_in_top(shares)
    for place, share in enumerate(shares):
        found = counts.at_budget(share)
        for name in ("recall", "precision", "error_dice"):
            assert curves[name][place] == pytest.approx(found[name])
        hits, flagged = found["recall"] * counts.errors, found["flagged"]
        assert curves["false_positive_rate"][place] == pytest.approx((flagged - hits) / (counts.n - counts.errors))
        left = (counts.errors - hits) / (counts.n - flagged) if share < 1 else math.nan
        assert curves["remaining_risk"][place] == pytest.approx(left, nan_ok=True)


def test_a_region_without_voxels_without_errors_or_with_errors_only_has_no_ranking():
    none = np.zeros(30, bool)
    for counts, status in (
        (LocalisationCounts(), "empty_roi"),
        (counted(np.linspace(0, 1, 30), none, ~none, none), "no_errors"),
        (counted(np.linspace(0, 1, 30), ~none, ~none, none), "all_wrong"),
    ):
        assert counts.status == status
        assert all(math.isnan(value) for value in counts.ranking().values())
    counts = counted(np.linspace(0, 1, 30), none, ~none, none)
    nothing, everything = counts.at_threshold(math.inf), counts.at_threshold(0.0)
    assert [nothing[name] for name in ("error_dice", "recall", "precision")] == [1.0, 1.0, 1.0]
    assert [everything[name] for name in ("error_dice", "precision")] == [0.0, 0.0]
    assert math.isnan(everything["recall"])
    assert math.isnan(counts.best_threshold()["threshold"])
    assert np.isnan(counts.error_dice_curve()["recall"]).all()
    empty = LocalisationCounts().at_threshold(0.5)
    assert all(math.isnan(empty[name]) for name in ("error_dice", "recall", "precision", "flagged_share"))
    wrong = counted(np.linspace(0, 1, 30), ~none, ~none, none).at_threshold(math.inf)
    assert (wrong["error_dice"], wrong["recall"]) == (0.0, 0.0)
    assert math.isnan(wrong["precision"])


@pytest.mark.parametrize(
    ("voxels", "errors", "status"), [(0, 0, "empty_roi"), (19, 5, "small_roi"), (20, 0, "no_errors"), (20, 1, "ok")]
)
def test_a_budget_curve_of_too_little_is_nan_and_says_why(voxels, errors, status):
    error = np.arange(voxels) < errors
    curve = counted(np.zeros(voxels), error, error, error).budget_curve()
    assert curve.status == status
    assert np.isnan(curve.overlap).all() == math.isnan(curve.area) == (status != "ok")


def test_shares_are_rounded_up_but_not_for_the_rounding_of_a_product():
    assert [budget.voxels_of_share(n, 0.1) for n in (1, 10, 11, 30, 70)] == [1, 1, 2, 3, 7]
    assert [budget.voxels_of_share(10**9, share) for share in (0.0, 0.05, 1.0)] == [0, 5 * 10**7, 10**9]
    with pytest.raises(ValueError):
        budget.voxels_of_share(10, 1.5)


def test_wrong_input_is_refused_and_nothing_is_counted():
    counts = LocalisationCounts()
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        counts.add(np.array([0.5, math.nan]), [True, False], [True, True], [True, True])
    for shapes in ((3, 3, 2, 3), ((2, 3),) * 4):
        with pytest.raises(ValueError, match=r"four \(N,\) arrays"):
            counts.add(*map(np.zeros, shapes))
    assert counts.n == 0


def test_the_boundary_reaches_a_voxels_diagonal_and_two_millimetres_at_least():
    assert boundary_mm((1.0, 1.0, 1.0)) == 2.0
    assert boundary_mm((3.0, 0.8, 0.8)) == pytest.approx(math.sqrt(9 + 2 * 0.64))
    for wrong in ((1.0, 0.0, 1.0), (1.0, math.inf, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="spacings"):
            boundary_mm(wrong)
    limit = boundary_mm((3.0, 0.8, 0.8))
    near = np.float32([0, limit, -limit, limit + 5e-5, -limit - 5e-5])  # the last two by the rounding of distances
    assert near_boundary(near, limit).all()
    assert not near_boundary(np.float32([limit + 1e-3, -limit - 1e-3, math.inf, -math.inf]), limit).any()


def test_ninety_five_of_a_hundred_wrong_voxels_are_enough_for_the_false_positive_rate():
    # by falling value: 19 of 20 wrong voxels, three right ones, the last wrong one
    assert ranking.false_positive_rate(np.array([19, 0, 1]), np.array([0, 3, 0])) == 0.0
    assert ranking.false_positive_rate(np.array([18, 0, 2]), np.array([0, 3, 0])) == 1.0
