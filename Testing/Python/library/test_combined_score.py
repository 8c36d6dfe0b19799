"""One score from several, and where it stands among calibration cases: by hand, and by chance over many made-up cohorts."""

import itertools
import json
import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.combined_score import OF_CASE, OF_STRUCTURE, CaseScores, ScoreReference

SIGNS = {"mean": 1, "pairwise_dice": -1, "boundary": 1}


def cohort(seed, n):
    random = np.random.default_rng(seed)
    return [
        {"mean": a, "pairwise_dice": 0.9 - 0.1 * b, "boundary": c} for a, b, c in random.normal(size=(n, 3)).tolist()
    ]


def z_by_hand(value, values, sign):
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return sign * (value - mean) / sd


def test_the_combined_score_is_the_mean_of_signed_z_scores():
    cases = cohort(0, 6)
    new = {"mean": 1.5, "pairwise_dice": 0.7, "boundary": -0.3, "something else": 9.0}
    found = ScoreReference.of(cases, SIGNS).place(new)
    wanted = {name: z_by_hand(new[name], [case[name] for case in cases], sign) for name, sign in SIGNS.items()}
    assert found.scores == pytest.approx(wanted)
    assert wanted["pairwise_dice"] > 0  # networks that agree less are more uncertain
    assert found.combined == pytest.approx(sum(wanted.values()) / 3)
    assert (found.status, found.cases) == ("ok", 6)


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_is_among_all_cases_together_the_new_one_like_any_other(seed):
    cases, (new,) = cohort(seed, 7), cohort(100 + seed, 1)
    found = ScoreReference.of(cases, SIGNS).place(new)
    everybody = [*cases, new]
    total = [
        sum(z_by_hand(one[name], [case[name] for case in everybody], sign) for name, sign in SIGNS.items())
        for one in everybody
    ]
    assert found.higher == sum(other > total[-1] for other in total[:-1])
    assert found.equal == 0
    assert found.chance == pytest.approx((1 + found.higher) / 8)


def test_a_case_like_the_others_comes_first_no_more_often_than_one_in_n_plus_one():
    first = [
        ScoreReference.of(cases := cohort(seed, 5)[:4], SIGNS).place(cohort(seed, 5)[4]).higher == 0
        for seed in range(1500)
    ]
    assert len(cases) == 4
    assert np.mean(first) == pytest.approx(1 / 5, abs=4 * math.sqrt(0.2 * 0.8 / 1500))


def test_with_one_score_the_order_is_that_of_the_score():
    cases = [{"mean": value} for value in (0.0, 0.1, 1.0)]
    reference = ScoreReference.of(cases, {"mean": 1})
    assert [reference.place({"mean": value}).higher for value in (2.0, 0.5, 0.05, -1.0)] == [0, 1, 2, 3]
    turned = ScoreReference.of(cases, {"mean": -1})
    assert [turned.place({"mean": value}).higher for value in (2.0, 0.5, 0.05, -1.0)] == [3, 2, 1, 0]


def test_ties_are_counted_as_ties():
    reference = ScoreReference.of([{"mean": value} for value in (0.1, 0.3, 0.3, 0.5)], {"mean": 1})
    found = reference.place({"mean": 0.3})
    assert (found.higher, found.equal) == (1, 2)
    assert found.chance == pytest.approx(4 / 5)
    assert found.combined == pytest.approx(0.0, abs=1e-12)


def test_a_score_without_spread_does_not_count():
    cases = [{"mean": value, "pairwise_dice": 0.1 + 0.2} for value in (1.0, 2.0, 3.0)]
    cases[1]["pairwise_dice"] = 0.3  # the same but for rounding
    found = ScoreReference.of(cases, SIGNS).place({"mean": 4.0, "pairwise_dice": 0.9, "boundary": 1.0})
    assert set(found.scores) == {"mean"}
    assert found.combined == pytest.approx(2.0)
    nothing = ScoreReference.of([{"mean": 0.0}] * 3, SIGNS).place({"mean": 1.0})
    assert (nothing.status, nothing.combined, nothing.cases, nothing.chance) == ("no_score", None, 0, None)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_what_is_unknown_is_left_out(unknown):
    cases = cohort(3, 6)
    new = {"mean": 0.4, "pairwise_dice": unknown, "boundary": 0.1}
    found = ScoreReference.of(cases, SIGNS).place(new)
    assert found.scores.keys() == {"mean", "boundary"}
    without = ScoreReference.of(cases, {"mean": 1, "boundary": 1}).place(new)
    assert (found.combined, found.higher, found.chance) == (without.combined, without.higher, without.chance)
    # unknown in calibration cases: their mean is over the others, and those alone are ranked
    some = [case | {"boundary": unknown} if index < 2 else case for index, case in enumerate(cases)]
    found = ScoreReference.of(some, SIGNS).place(cases[0])
    assert found.cases == 4
    assert found.scores["boundary"] == pytest.approx(
        z_by_hand(cases[0]["boundary"], [c["boundary"] for c in cases[2:]], 1)
    )
    few = [case | {"boundary": unknown} if index < 4 else case for index, case in enumerate(cases)]
    assert "boundary" not in ScoreReference.of(few, SIGNS).place(cases[0]).scores


def test_no_rank_is_told_among_fewer_than_three_cases():
    cases = [
        case | {name: None}
        for case, name in zip(cohort(4, 5), ["mean", "mean", "boundary", "boundary", "other"], strict=True)
    ]
    found = ScoreReference.of(cases, {"mean": 1, "boundary": 1}).place({"mean": 1.0, "boundary": 2.0})
    assert found.combined is not None
    assert (found.cases, found.higher, found.equal, found.chance) == (1, None, None, None)


def figures(seed):
    random = np.random.default_rng(seed)
    case = {name: float(random.random()) for name in OF_CASE}
    structures = {str(k): {"status": "ok", **{name: float(random.random()) for name in OF_STRUCTURE}} for k in (1, 2)}
    return {"case": case, "structures": structures}


def test_scores_of_a_cohort_come_back_from_json_as_they_were():
    cases = {f"case {seed}": figures(seed) for seed in range(5)}
    cases["case 3"]["structures"]["2"] = {"status": "not_predicted", "boundary": None, "pairwise_dice": 1.0, "vol_cv": None}
    scores = CaseScores.of(cases, [1, 2], 15.0)
    document = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    again = CaseScores.from_json(document)
    assert again.to_json() == scores.to_json()
    new = figures(9)
    (case, structures), (case_again, structures_again) = scores.place(new), again.place(new)
    assert case.to_json() == case_again.to_json()
    assert structures.keys() == structures_again.keys() == {1, 2}
    assert (structures[1].cases, structures[2].cases) == (5, 4)  # one case without the second structure
    mean = document["case"]["moments"]["mean"]
    values = [of["case"]["mean"] for of in cases.values()]
    assert mean == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "n": 5,
        "sign": 1,
    }
    assert document["structures"]["2"]["values"]["boundary"][3] is None


def test_a_structure_that_is_not_predicted_has_no_score_though_all_agree_that_it_is_not_there():
    scores = CaseScores.of({f"case {seed}": figures(seed) for seed in range(4)}, [1, 2], 15.0)
    new = figures(9)
    new["structures"]["1"] = {"status": "not_predicted", "pairwise_dice": 1.0}
    del new["structures"]["2"]
    assert [of.status for of in scores.place(new)[1].values()] == ["no_score", "no_score"]


def test_fewer_than_three_cases_are_no_reference():
    assert CaseScores.of({"a": figures(0), "b": figures(1)}, [1], 15.0) is None


def damage(document, path, value):
    *way, last = path
    for step in way:
        document = document[step]
    if value is KeyError:
        del document[last]
    else:
        document[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *itertools.product([("cases",), ("roi_mm",), ("case",), ("structures",), ("case", "values")], [KeyError, None, "x", -1]),
        (("cases",), ["a"]), (("roi_mm",), math.inf), (("structures", "1"), []), (("case", "values", "mean"), [1.0]),
        (("case", "moments", "mean", "sign"), 2), (("case", "moments", "mean"), KeyError),
        (("case", "values", "mean", 0), "much"), (("case", "values", "mean", 0), 10**400), (("roi_mm",), 10**400),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(path, value):
    document = CaseScores.of({f"case {seed}": figures(seed) for seed in range(4)}, [1, 2], 15.0).to_json()
    damage(document, path, value)
    with pytest.raises(CalibUncertaintyError, match=r"scores of cases .* damaged; calibrate the model again"):
        CaseScores.from_json(document)
