"""What was calibrated, and the warning outside of it: sentences, margins, and how often chance alone raises one."""

import copy
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.calibrated_range import (
    FALSE_ALARMS,
    CalibratedRange,
    TraitRange,
    problem_in_range,
    student_quantile,
)
from CalibUncertaintyLib.workflow.traits import CaseTraits

USUAL = CaseTraits(
    (2.5, 0.9, 0.9), (300.0, 460.0, 460.0), (-120.0, 40.0, 700.0), 0.5, 15.0, 0.12, {"Liver": 0.24}, {"Liver": 1500.0}
)


def of_entropies(values, structures=()) -> CalibratedRange:
    return CalibratedRange.of(
        [replace(USUAL, entropy=value, entropy_of=dict.fromkeys(structures, 0.1), volumes_ml={}) for value in values]
    )


def eight_cases() -> CalibratedRange:
    generator = np.random.default_rng(0)
    cases = []
    for spacing in (2.5, 2.5, 2.5, 3.0, 3.0, 2.5, 3.0, 2.75):
        entropy, volume = generator.normal(0.12, 0.01), generator.normal(1500, 150)
        cases.append(
            replace(USUAL, spacing_mm=(spacing, 0.9, 0.9), entropy=entropy, entropy_of={"Liver": entropy * 2},
                    volumes_ml={"Liver": volume})
        )  # fmt: skip
    return CalibratedRange.of(cases)


# --- sentences -------------------------------------------------------------------------------------------------------


def test_thick_slices_are_named_with_both_numbers_and_what_it_means():
    outside = replace(USUAL, spacing_mm=(5.0, 0.9, 0.9))
    assert eight_cases().warnings_for(outside) == [
        "The CT's slices are 5.0 mm apart; the model was calibrated on 2.5 to 3.0 mm (8 cases): the probabilities may be off"
    ]


def test_a_ct_like_the_calibration_cases_is_passed_without_a_word():
    assert eight_cases().warnings_for(USUAL) == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"spacing_mm": (1.0, 0.9, 0.9)}, "slices are 1.0 mm apart; .* 2.5 to 3.0 mm"),
    ({"spacing_mm": (2.5, 0.45, 0.45)}, "pixels are 0.45 mm (high|wide); .* 0.90 mm"),
    ({"field_of_view_mm": (1700.0, 460.0, 460.0)}, "1700 mm long across its slices; .* 300 mm"),
    ({"field_of_view_mm": (300.0, 200.0, 200.0)}, "slices are 200 mm (high|wide); .* 460 mm"),
    ({"hu": (-120.0, 40.0, 3071.0)}, "brightest tissue .* 3071 HU; .* 700 HU"),
    ({"hu": (24.0, 40.0, 700.0)}, "darkest tissue .* 24 HU; .* -120 HU"),
    ({"hu": (-120.0, 1064.0, 700.0)}, "median .* 1064 HU; .* 40 HU"),
    ({"body_share": 0.97}, "share .* 0.97; .* 0.50"),
    ({"entropy": 0.4}, "mean entropy within 15 mm .* 0.4 nats, so the model is less sure"),
    ({"entropy_of": {"Liver": 0.9}}, "mean entropy inside Liver is 0.9 nats"),
    ({"volumes_ml": {"Liver": 0.0}}, "volume that the model gives Liver is 0.00 mL"),
    ({"volumes_ml": {"Liver": 9000.0}}, "volume that the model gives Liver is 9000.0 mL"),
])  # fmt: skip
def test_each_trait_has_one_plain_sentence(changes, said):
    (sentence,) = eight_cases().warnings_for(replace(USUAL, **changes))
    assert re.search(said, sentence)
    assert re.search(r"; the model was calibrated on .* \(8 cases\): the probabilities may be off$", sentence)
    assert "\n" not in sentence


def test_less_entropy_than_calibrated_is_no_warning():
    assert eight_cases().warnings_for(replace(USUAL, entropy=1e-4, entropy_of={"Liver": 0.0})) == []


def test_a_structures_name_with_braces_is_shown_as_it_is():
    cases = [replace(USUAL, volumes_ml={"a{0}": value}) for value in (10.0, 11.0, 12.0)]
    (sentence,) = CalibratedRange.of(cases).warnings_for(replace(USUAL, volumes_ml={"a{0}": 1e6}))
    assert "a{0} is 1000000.0 mL" in sentence


def test_what_the_calibration_does_not_know_is_not_compared():
    known = eight_cases()
    assert known.warnings_for(replace(USUAL, entropy_of={"Spleen": 9.0}, volumes_ml={"Spleen": 9e9})) == []
    assert (
        known.warnings_for(replace(USUAL, entropy=9.0, roi_mm=5.0)) == []
    )  # within another distance it is another mean
    assert len(known.warnings_for(replace(USUAL, entropy=9.0))) == 1
    assert CalibratedRange(3).warnings_for(replace(USUAL, spacing_mm=(99, 99, 99))) == []
    newer = replace(known, traits={"contrast": TraitRange.of([1.0, 2.0])})
    assert newer.bounds("contrast") == (-math.inf, math.inf)


def test_no_calibration_case_warns_of_itself():
    generator = np.random.default_rng(5)
    for n in (1, 2, 4, 9, 60):
        values = generator.lognormal(0, 1, (n, 12))
        cases = [
            CaseTraits(tuple(v[:3]), tuple(v[3:6]), tuple(1000 * v[6:9]), v[9] % 1, 15.0, v[10], {"A": v[11]}, {"A": 9 * v[11]})
            for v in values
        ]  # fmt: skip
        known = CalibratedRange.of(cases)
        assert [known.warnings_for(case) for case in cases] == [[]] * n


def test_margins_are_those_that_are_documented():
    known = eight_cases()
    assert known.bounds("spacing_z_mm") == pytest.approx((2.0, 3.75))
    assert known.bounds("field_of_view_z_mm") == pytest.approx((200.0, 450.0))
    assert known.bounds("hu_high") == (600.0, 800.0)
    assert known.bounds("body_share") == pytest.approx((0.35, 0.65))
    alone = CalibratedRange.of([USUAL])
    assert alone.bounds("spacing_z_mm") == pytest.approx((2.0, 3.125))
    assert alone.bounds("field_of_view_z_mm") == pytest.approx((100.0, 900.0))
    assert alone.bounds("hu_high") == (200.0, 1200.0)
    assert alone.bounds("body_share") == pytest.approx((0.1, 0.9))


def test_limits_between_the_margins_are_prediction_limits():
    """Computed anew with scipy, from the values."""
    highs = np.array([600.0, 700.0, 720.0, 650.0, 820.0, 700.0, 680.0, 760.0, 690.0, 720.0])
    views = np.array([200.0, 300.0, 420.0, 350.0, 280.0, 310.0, 500.0, 260.0, 330.0, 290.0])
    known = CalibratedRange.of([
        replace(USUAL, hu=(-120.0, 40.0, high), field_of_view_mm=(view, 460.0, 460.0))
        for high, view in zip(highs, views, strict=True)
    ])  # fmt: skip

    def limits(values):
        return stats.t.interval(1 - 0.01 / 3, 9, values.mean(), values.std(ddof=1) * math.sqrt(1.1))

    assert known.bounds("hu_high") == pytest.approx(limits(highs))
    assert known.bounds("field_of_view_z_mm") == pytest.approx(np.exp(limits(np.log(views))))


# --- few cases -------------------------------------------------------------------------------------------------------


def test_a_shift_of_hounsfield_units_is_named_however_few_the_cases():
    generator = np.random.default_rng(4)
    for n in (1, 2, 3, 8, 60):
        cases = [
            replace(USUAL, hu=(-120.0, 40.0 + 40 * generator.normal(), 700.0 + 150 * generator.normal()))
            for _ in range(n)
        ]
        shifted = replace(USUAL, hu=(904.0, 1064.0, 1724.0))
        sentences = CalibratedRange.of(cases).warnings_for(shifted)
        assert [sentence.split()[1] for sentence in sentences] == ["darkest", "median", "brightest"]


def test_one_case_bounds_spacing_and_hu_but_no_entropy_and_no_volume():
    known = CalibratedRange.of([USUAL])
    assert known.traits["entropy"].sd is None
    unlike = replace(USUAL, entropy=50.0, entropy_of={"Liver": 50.0}, volumes_ml={"Liver": 0.0})
    assert known.warnings_for(unlike) == []
    (sentence,) = known.warnings_for(replace(USUAL, spacing_mm=(5.0, 0.9, 0.9)))
    assert "calibrated on 2.5 mm (1 case)" in sentence


@pytest.mark.parametrize("n", [2, 4, 8])
def test_equal_cases_have_no_spread_and_still_leave_a_tenth(n):
    known = CalibratedRange.of([USUAL] * n)
    assert known.bounds("entropy") == pytest.approx((-math.inf, 1.1 * 0.12))
    assert known.bounds("volume_ml:Liver") == pytest.approx((750, 3000))
    zero = CalibratedRange.of([replace(USUAL, entropy=0.0, volumes_ml={"Liver": 0.0})] * n)
    assert zero.warnings_for(replace(USUAL, entropy=0.0, volumes_ml={"Liver": 0.05})) == []


def test_the_fewer_cases_the_wider_the_limit_of_the_entropy():
    limits = [of_entropies(np.tile([0.10, 0.14], n)).bounds("entropy")[1] for n in (1, 2, 4, 8, 30)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 1  # two cases: next to nothing is bounded
    assert limits[-1] < 0.18


def test_it_is_said_how_little_few_cases_bound():
    assert "With one calibration case it can hardly be told" in CalibratedRange.of([USUAL]).caution()
    assert "1 in 5 lies above their largest value by chance" in CalibratedRange.of([USUAL] * 4).caution()
    assert CalibratedRange.of([USUAL] * 9).caution() == ""


# --- false alarms ----------------------------------------------------------------------------------------------------

DRAWS = 4000


def share_of_warnings(case_of, n: int, seed: int, draws: int = DRAWS) -> float:
    """Of new cases from the same distribution as n calibration cases, how many raise a warning."""
    generator = np.random.default_rng(seed)
    warned = 0
    for _ in range(draws):
        known = CalibratedRange.of([case_of(generator) for _ in range(n)])
        warned += bool(known.warnings_for(case_of(generator)))
    return warned / draws


def above(expected: float, draws: int = DRAWS) -> float:
    """What a share with this expectation exceeds once in 30,000 times."""
    return float(stats.binom.ppf(1 - 3e-5, draws, expected) / draws)


@pytest.mark.parametrize("n", [1, 4, 8])
@pytest.mark.parametrize("skew", [0.5, 1.5])
def test_chance_raises_an_entropy_warning_no_oftener_than_ranks_allow(n, skew):
    share = share_of_warnings(lambda g: replace(USUAL, entropy=float(g.lognormal(-2, skew))), n, seed=n)
    assert share <= above(1 / (n + 1))
    if n == 1:
        assert share == 0


@pytest.mark.parametrize("n", [4, 8])
def test_of_a_normal_entropy_one_new_case_in_a_hundred_warns(n):
    share = share_of_warnings(lambda g: replace(USUAL, entropy=float(g.normal(1.0, 0.3))), n, seed=10 + n)
    assert 0.003 < share <= above(FALSE_ALARMS)


def test_a_hundredth_is_shared_by_all_structures_together():
    names = [f"s{k}" for k in range(10)]

    def case(generator):
        return replace(USUAL, entropy_of=dict(zip(names, generator.normal(1.0, 0.3, 10).tolist(), strict=True)))

    assert 0.002 < share_of_warnings(case, 8, seed=3, draws=2000) <= above(FALSE_ALARMS, 2000)


@pytest.mark.parametrize("n", [4, 8])
def test_volumes_that_vary_tenfold_from_patient_to_patient_raise_few_warnings(n):
    share = share_of_warnings(
        lambda g: replace(USUAL, volumes_ml={"Liver": float(g.lognormal(4, 1.2))}), n, seed=20 + n
    )
    assert 0.002 < share <= above(FALSE_ALARMS)


@pytest.mark.parametrize("n", [1, 4, 8])
def test_traits_of_a_ct_warn_of_a_hundredth_for_each_kind(n):
    """HU, field of view and share of body together, where patients vary as normal and lognormal variables do."""

    def case(generator):
        hu = generator.normal((-150, 40, 700), (20, 15, 120))
        view = generator.lognormal((5.7, 6.1, 6.1), 0.15)
        return replace(USUAL, hu=tuple(hu), field_of_view_mm=tuple(view), body_share=float(generator.normal(0.5, 0.04)))

    share = share_of_warnings(case, n, seed=30 + n, draws=2000)
    assert share <= above(3 * FALSE_ALARMS, 2000)


def test_a_setting_of_the_scanner_warns_no_oftener_than_ranks_allow():
    share = share_of_warnings(lambda g: replace(USUAL, spacing_mm=(float(g.lognormal(1, 0.5)), 0.9, 0.9)), 8, seed=40)
    assert 0.02 < share <= above(2 / 9)


@pytest.mark.parametrize("n", [4, 8, 20])
def test_the_bare_largest_value_is_exceeded_as_often_as_the_documentation_says(n):
    values = np.random.default_rng(n).lognormal(0, 1, (20_000, n + 1))
    share = np.mean(values[:, -1] > values[:, :-1].max(axis=1))
    assert share == pytest.approx(1 / (n + 1), abs=4 * math.sqrt(0.25 / (n + 1) / 20_000) * 2)


def test_gross_differences_are_caught_from_eight_cases_on():
    generator = np.random.default_rng(9)
    caught = [
        bool(of_entropies(generator.normal(0.12, 0.02, 8)).warnings_for(replace(USUAL, entropy=0.36, entropy_of={}, volumes_ml={})))
        for _ in range(200)
    ]  # fmt: skip
    assert np.mean(caught) > 0.99


@pytest.mark.parametrize("p", [0.5, 0.75, 0.95, 0.99, 0.9995])
def test_quantiles_of_student_are_scipys(p):
    for freedom in (1, 2, 3, 4, 5, 7, 8, 19, 30, 99, 100, 1000):
        assert student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-8, abs=1e-10)
    assert student_quantile(p, 10**7) == student_quantile(p, 1000)
    for wrong in ((p, 0), (1.0, 3), (0.2, 3)):
        with pytest.raises(ValueError):
            student_quantile(*wrong)


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 50, 51])
def test_a_range_holds_what_numpy_computes_and_every_value_up_to_fifty(n):
    values = np.random.default_rng(n).normal(5, 2, n)
    known = TraitRange.of(values)
    assert (known.n, known.minimum, known.maximum) == (n, values.min(), values.max())
    assert known.mean == pytest.approx(values.mean())
    assert known.sd == (pytest.approx(values.std(ddof=1)) if n > 1 else None)
    assert known.values == (tuple(values) if n <= 50 else None)


@pytest.mark.parametrize("n", [1, 8, 60])
def test_json_there_and_back_is_the_same(n):
    generator = np.random.default_rng(n)
    known = CalibratedRange.of([replace(USUAL, entropy=float(generator.random())) for _ in range(n)])
    content = json.loads(json.dumps(known.to_json(), allow_nan=False))
    assert CalibratedRange.from_json(content) == known
    assert problem_in_range(content) == ""


def test_a_structure_that_some_cases_lack_has_a_range_of_the_others():
    known = CalibratedRange.of([USUAL, replace(USUAL, entropy_of={}, entropy=None), USUAL])
    assert known.cases == 3
    assert known.traits["entropy"].n == known.traits["entropy:Liver"].n == 2
    assert known.traits["volume_ml:Liver"].n == 3


@pytest.mark.parametrize(("change", "said"), [
    (lambda c: c.pop("traits"), "must be an object with"),
    (lambda c: c.update(cases=0), r"range\.cases must be a whole number"),
    (lambda c: c.update(cases=True), r"range\.cases must be a whole number"),
    (lambda c: c.update(roi_mm=-1), r"range\.roi_mm must be"),
    (lambda c: c["traits"].update(hu_low=3), r"range\.traits\.hu_low\.n must be"),
    (lambda c: c["traits"]["hu_low"].update(min="-120"), r"range\.traits\.hu_low must have the numbers"),
    (lambda c: c["traits"]["hu_low"].update(min=500), r"range\.traits\.hu_low\.min must not be above max"),
    (lambda c: c["traits"]["hu_low"].update(sd=-1), r"range\.traits\.hu_low\.sd must be"),
    (lambda c: c["traits"]["hu_low"].update(sd=None), r"range\.traits\.hu_low\.sd must be"),
    (lambda c: c["traits"]["hu_low"].pop("sd"), r"range\.traits\.hu_low\.sd must be"),
    (lambda c: c["traits"]["hu_low"]["values"].pop(), r"range\.traits\.hu_low\.values must be 8 numbers"),
    (lambda c: c["traits"]["hu_low"].update(max=math.inf), "must have the numbers"),
])  # fmt: skip
def test_a_damaged_range_is_refused_by_field(change, said):
    content = copy.deepcopy(eight_cases().to_json())
    change(content)
    with pytest.raises(CalibUncertaintyError, match=said) as caught:
        CalibratedRange.from_json(content)
    assert "\n" not in str(caught.value)


def test_no_case_no_number_and_two_distances_are_mistakes():
    for wrong in (lambda: CalibratedRange.of([]), lambda: TraitRange.of([]), lambda: TraitRange.of([math.nan]),
                  lambda: CalibratedRange.of([USUAL, replace(USUAL, roi_mm=5.0)])):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()
