"""How far the members agree, and where a case stands among calibration cases, in words that promise no more than n cases can."""

import pytest

CASE = {"status": "ok", "combined": 1.25, "cases": 8, "higher": 2, "equal": 1}


@pytest.fixture
def words(slicer_application):
    from CalibUncertaintyPanel import standingWords

    return standingWords


def compared(words, **changes):
    facts = dict(
        words.standingFacts({"case": {}, "combined": {"status": "ok", "cases": 8, "case": {**CASE, **changes}}})
    )
    return facts.get("Compared with calibration cases")


def test_agreement_is_told_with_its_worst_pair_and_the_number_of_members(words):
    aggregates = {
        "agreement": {"status": "ok", "members": 5}, "case": {"pairwise_dice": 0.8754, "pairwise_dice_min": 0.7496},
    }  # fmt: skip
    assert words.standingFacts(aggregates) == [
        (
            "Agreement of the 5 members",
            "Dice of pairs 0.875 in the mean, 0.750 for the pair and structure that differ most",
        )
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [("single_member", "only one member"), ("too_many_members", "many members"), ("too_many_regions", "many regions")],
)
def test_why_agreement_is_not_known_is_said(words, status, said):
    ((name, text),) = words.standingFacts(
        {"agreement": {"status": status, "members": 1}, "case": {"pairwise_dice": None}}
    )
    assert name == "Agreement of the members"
    assert said in text


def test_the_rank_is_told_with_the_number_of_cases_and_what_chance_does(words):
    assert compared(words) == (
        "+1.2 standard deviations; more uncertain than 5 of 8; as high by chance in 4 of 9 cases like them"
    )
    assert "more uncertain than all 8; as high by chance in 1 of 9" in compared(words, higher=0, equal=0)
    assert "less uncertain than all 8; as high by chance in 9 of 9" in compared(words, higher=8, equal=0, combined=-2.0)
    assert "more uncertain than 0 of 8" in compared(words, higher=0, equal=8)
    assert compared(words, combined=-2.0).startswith("-2.0 ")


def test_no_rank_is_told_of_too_few_cases(words):
    assert compared(words, cases=2, higher=None, equal=None) == (
        "+1.2 standard deviations; too few of them have the same scores for a rank"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [("not_calibrated", "not calibrated"), ("no_scores", "3 cases"), ("other_roi", "another distance")],
)
def test_why_a_case_is_not_compared_is_said(words, status, said):
    ((name, text),) = words.standingFacts({"case": {}, "combined": {"status": status, "case": None}})
    assert name == "Compared with calibration cases"
    assert text.startswith("not compared: ")
    assert said in text


def test_a_case_without_any_score_is_not_compared(words):
    assert "no score" in compared(words, status="no_score", combined=None, cases=0, higher=None, equal=None)


@pytest.mark.parametrize(
    "aggregates",
    [
        None, {}, [], 7, {"case": None}, {"case": {"pairwise_dice": None}}, {"case": {"pairwise_dice": "much"}, "agreement": 3},
        {"combined": []}, {"combined": {"status": ["ok"], "case": 1}}, {"combined": {"status": "ok", "case": {"combined": True}}},
    ],
)  # fmt: skip
def test_older_and_damaged_results_say_nothing(words, aggregates):
    assert words.standingFacts(aggregates) == []
    assert words.structureStanding(aggregates, "1") is None


def test_statuses_that_a_run_gives_all_have_their_words(words):
    from CalibUncertaintyLib.model.heads import Heads
    from CalibUncertaintyLib.workflow.agreement import agreement_status
    from CalibUncertaintyLib.workflow.case_scores import combined

    heads = Heads(("Organ",), (1,), False)
    regions = Heads(tuple(map(str, range(40))), tuple(range(1, 41)), True)
    for status in (agreement_status(1, heads), agreement_status(10_000, heads), agreement_status(2, regions)):
        assert words.standingFacts({"agreement": {"status": status}, "case": {}})
    for given in ((None, False, 15.0), (None, True, 15.0)):
        assert words.standingFacts({"case": {}, "combined": combined({}, *given)})
