"""What calibration stores of whole cases is what a run says of them, and a Result says where it stands among them."""

import itertools
import json
import math

import numpy as np
import pytest
from test_calibrate_ways import cases, logits_of_members, trained  # noqa: F401 (fixtures: two folds, and cases with errors)
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.uncertainty.combined_score import OF_CASE, OF_STRUCTURE
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.segment import segment

OPTIONS = {"flips": "off", "roi_mm": 6.0}


@pytest.fixture(scope="module")
def record(trained, cases, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("record") / "record.json"
    calibrate(cases, trained, path, bootstrap=0, mode="pool_logit", **OPTIONS)
    return path


@pytest.fixture(scope="module")
def stored(record):
    (entry,) = CalibrationRecord.read(record).entries
    return entry.case_scores


@pytest.fixture(scope="module")
def result(trained, cases, record, tmp_path_factory):  # noqa: F811
    """Of the second of the calibration cases, which a run must find as calibration did."""
    return segment(cases[1].ct, trained, tmp_path_factory.mktemp("out") / "result", calibration=record, **OPTIONS)


def test_a_run_gives_the_scores_that_calibration_stored_of_the_same_case(result, stored, cases):  # noqa: F811
    assert stored["cases"] == [case.id for case in cases]
    assert (stored["measure"], stored["roi_mm"]) == ("entropy", 6.0)
    found = result.provenance["aggregates"]
    for name in OF_CASE:
        assert found["case"][name] == pytest.approx(stored["case"]["values"][name][1], rel=1e-3), name
    for value, of_structure in found["structures"].items():
        for name in OF_STRUCTURE:
            assert of_structure[name] == pytest.approx(stored["structures"][value]["values"][name][1], rel=1e-3), name
    assert set(stored["case"]["values"]) == set(OF_CASE)
    assert stored["structures"].keys() == {"1", "2"}


def test_the_record_holds_mean_and_deviation_of_every_score(stored):
    for scores, signs in ((stored["case"], OF_CASE), (stored["structures"]["2"], OF_STRUCTURE)):
        for name, moments in scores["moments"].items():
            values = scores["values"][name]
            assert moments["mean"] == pytest.approx(np.mean(values))
            assert moments["sd"] == pytest.approx(np.std(values, ddof=1))
            assert (moments["n"], moments["sign"]) == (3, signs[name])


def test_members_agreement_in_record_and_result_is_that_of_their_own_labels(result, stored, trained, cases):  # noqa: F811
    members, _ = logits_of_members(trained, cases[1].ct)
    labels = members.argmax(axis=1)
    agreement = result.provenance["aggregates"]["agreement"]
    assert agreement == {"status": "ok", "members": 2}
    dice = {}
    for value in (1, 2):
        drawn = labels == value
        pairs = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in itertools.combinations(drawn, 2)]
        volumes = drawn.sum(axis=(1, 2, 3))
        dice[value] = np.mean(pairs)
        of_structure = result.provenance["aggregates"]["structures"][str(value)]
        for found in (of_structure, {name: of[1] for name, of in stored["structures"][str(value)]["values"].items()}):
            assert found["pairwise_dice"] == pytest.approx(dice[value], abs=2e-3)
            assert found["vol_cv"] == pytest.approx(volumes.std() / volumes.mean(), abs=2e-3)
        assert of_structure["pairwise_dice_min"] == pytest.approx(min(pairs), abs=2e-3)
    case = result.provenance["aggregates"]["case"]
    assert case["pairwise_dice"] == pytest.approx(np.mean(list(dice.values())), abs=2e-3)
    assert case["pairwise_dice_min"] == pytest.approx(min(dice.values()), abs=2e-3)
    assert 0 < case["pairwise_dice_generalised"] < 1


def test_the_result_says_how_it_stands_among_the_calibration_cases(result, stored):
    found = result.provenance["aggregates"]["combined"]
    assert (found["status"], found["measure"], found["cases"]) == ("ok", "entropy", 3)
    for scores, of in ((stored["case"], found["case"]), (stored["structures"]["1"], found["structures"]["1"])):
        z = {
            name: m["sign"] * (scores["values"][name][1] - m["mean"]) / m["sd"] for name, m in scores["moments"].items()
        }
        assert of["scores"] == pytest.approx(z, abs=0.01)
        assert of["combined"] == pytest.approx(np.mean(list(z.values())), abs=0.01)
        assert of["cases"] == 3
        # the same case is among them, but for what rounding does to it
        assert of["chance"] == pytest.approx((1 + of["higher"] + of["equal"]) / 4)


def test_another_measure_of_regions_changes_nothing_of_it(result, trained, cases, record, tmp_path):  # noqa: F811
    other = segment(cases[1].ct, trained, tmp_path / "out", calibration=record, measure="mi", **OPTIONS)
    found = other.provenance["aggregates"]
    assert found["measure"] == "mi"
    assert found["case"]["mean"] != result.provenance["aggregates"]["case"]["mean"]
    assert found["combined"] == result.provenance["aggregates"]["combined"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"roi_mm": 5.0}, "other_roi"),
        ({"calibration": "none"}, "not_calibrated"),
        ({"calibration": "two cases"}, "no_scores"),
    ],
)
def test_without_anything_to_compare_with_it_is_said_why(trained, cases, record, tmp_path, changes, status):  # noqa: F811
    options = {**OPTIONS, "calibration": record, **changes}
    if options["calibration"] == "two cases":
        options["calibration"] = tmp_path / "record.json"
        _, entry = calibrate(cases[:2], trained, tmp_path / "record.json", bootstrap=0, mode="pool_logit", **OPTIONS)
        assert entry.case_scores is None
        assert "case_scores" not in json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["entries"][0]
    found = segment(cases[0].ct, trained, tmp_path / "out", **options).provenance["aggregates"]["combined"]
    assert found == {"status": status, "measure": "entropy", "cases": 0, "case": None, "structures": {}}


def test_a_single_member_is_ranked_without_agreement_which_says_why_it_is_missing(trained, cases, tmp_path):  # noqa: F811
    path = tmp_path / "record.json"
    calibrate(cases, trained, path, bootstrap=0, mode="pool_logit", folds=[0], **OPTIONS)
    result = segment(cases[0].ct, trained, tmp_path / "out", calibration=path, folds=[0], **OPTIONS)
    found = result.provenance["aggregates"]
    assert found["agreement"] == {"status": "single_member", "members": 1}
    assert {found["case"][name] for name in ("pairwise_dice", "pairwise_dice_min", "pairwise_dice_generalised")} == {
        None
    }
    assert {found["structures"]["1"][name] for name in ("pairwise_dice", "vol_cv")} == {None}
    assert set(found["combined"]["case"]["scores"]) == set(OF_CASE) - {"pairwise_dice"}
    assert math.isfinite(found["combined"]["case"]["combined"])


def test_damaged_scores_in_a_record_are_told_before_the_computing(trained, cases, record, tmp_path):  # noqa: F811
    damaged = CalibrationRecord.read(record)
    damaged.entries[0].case_scores["case"]["values"]["mean"].pop()
    damaged.write(tmp_path / "record.json")
    with pytest.raises(CalibUncertaintyError, match="scores of cases"):
        segment(cases[0].ct, trained, tmp_path / "out", calibration=tmp_path / "record.json", **OPTIONS)


def test_each_region_is_compared_as_a_structure_of_its_own(tmp_path):
    model = write_model(
        tmp_path, plans(), labels={"background": 0, "Whole": [1, 2], "Core": 2}, regions_class_order=(1, 2)
    )
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(18, 22, 20))
    predictor = MemberPredictor(MemberSet.choose(model, flips="off"), "cpu")
    case = predictor.prepare([Volume.read(ct)])
    with Scratch(tmp_path) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), keep_members=True)
        drawn = np.zeros((2, 2, *opinions.whole().shape), bool)
        for slab in opinions.slabs(opinions.whole()):
            for of_member, logits in zip(drawn, slab.members, strict=True):
                of_member[(slice(None), *slab.inside)] = logits > 0
    result = segment(ct, model, tmp_path / "out", calibration="none", flips="off")
    assert (drawn[:, 0] & drawn[:, 1]).any()  # they overlap, which one label map could not hold
    for region, value in enumerate(("1", "2")):
        a, b = drawn[:, region]
        wanted = 2 * (a & b).sum() / (a.sum() + b.sum())
        of_region = result.provenance["aggregates"]["structures"][value]
        assert of_region["pairwise_dice"] == pytest.approx(wanted, abs=2e-3)
        assert of_region["vol_cv"] == pytest.approx(np.std([a.sum(), b.sum()]) / np.mean([a.sum(), b.sum()]), abs=2e-3)
