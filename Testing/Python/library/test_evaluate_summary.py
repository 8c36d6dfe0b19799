"""What cases say together in an evaluation: pooled bins, regions, corrected tests; and cases that say little."""

import json
import math

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.evaluate import evaluate
from CalibUncertaintyLib.workflow.evaluate_comparisons import holm
from CalibUncertaintyLib.workflow.evaluate_summary import pooled_bins, regions_together
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.segment import segment


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.9])[0] == pytest.approx(1.0)
    assert math.isnan(holm([0.5, math.nan, 0.9])[1])
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_stepping_down_rejects(seed):
    p = np.random.default_rng(seed).random(12) ** 4
    level, order = 0.05, np.argsort(p)
    rejected = np.zeros(12, bool)
    for rank, place in enumerate(order):  # as Holm 1979 puts it: stop at the first that is not below level / (m - rank)
        if p[place] > level / (12 - rank):
            break
        rejected[place] = True
    assert np.array_equal(np.array(holm(list(p))) <= level, rejected)


def test_pooled_bins_are_those_of_all_voxels_together():
    random = np.random.default_rng(0)
    voxels = [(random.random(n), random.random(n) < 0.7) for n in (50, 200, 0)]

    def bins_of(p, right):
        found = []
        for low in (0.0, 0.5):
            inside = (p > low) & (p <= low + 0.5)
            n = int(inside.sum())
            found.append(
                {
                    "lower": low,
                    "upper": low + 0.5,
                    "n": n,
                    "confidence": float(p[inside].mean()) if n else None,
                    "accuracy": float(right[inside].mean()) if n else None,
                }
            )
        return found

    together = pooled_bins([bins_of(p, right) for p, right in voxels])
    expected = bins_of(*(np.concatenate(parts) for parts in zip(*voxels, strict=True)))
    for found, wanted in zip(together, expected, strict=True):
        assert found == pytest.approx(wanted)


def test_regions_are_counted_by_kind_and_their_chances_compared_with_what_came_true():
    regions = [{"kind": "boundary", "chance": 0.1 * n, "holds_error": n > 4} for n in range(10)] + [
        {"kind": "possible_miss", "chance": None, "holds_error": True},
        {"kind": "boundary", "chance": 0.5, "holds_error": None},
    ]
    found = regions_together(regions)
    assert (found["regions"], found["known"], found["with_chance"]) == (12, 11, 10)
    assert found["kinds"]["boundary"] == {"regions": 10, "holding_error": 5, "share": 0.5}
    assert [item["n"] for item in found["reliability"]] == [2] * 5
    assert [item["share"] for item in found["reliability"]] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert found["brier"] == pytest.approx(np.mean([(0.1 * n - (n > 4)) ** 2 for n in range(10)]))
    empty = regions_together([])
    assert empty["reliability"] == []
    assert math.isnan(empty["brier"])


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """A model of one fold and cases that say little: no error anywhere, nothing drawn."""
    folder = tmp_path_factory.mktemp("little")
    model = write_model(folder, plans(), folds=(0,))
    ct = write_ct(folder / "ct.nii.gz", shape=(12, 14, 13), seed=3)
    label = segment(ct, model, folder / "result", flips="off").segmentation.array
    found = []
    for name, array in (("right", label), ("empty", np.zeros_like(label))):
        Volume.read(ct).with_array(array.astype(np.uint8)).write(folder / f"{name}.nii.gz")
        found.append(LabelledCase(name, ct, folder / f"{name}.nii.gz"))
    return model, found


def test_one_case_without_any_error_has_a_report_that_says_so(little, tmp_path):
    model, (right, _) = little
    report = evaluate([right], model, tmp_path / "out", flips="off")
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    of = content["configurations"]["uncalibrated"]
    assert of["dice"]["mean"]["mean"] == 1.0
    assert of["dice"]["mean"]["status"] == "one_case"
    entropy = of["by_case"]["right"]["measures"]["entropy"]["pred"]
    assert (entropy["status"], entropy["ranking.auroc"]) == ("no_errors", None)
    assert of["measures"]["mi"]["status"] == "single_member"
    assert report.count("ok") == 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1 case without any error near what was predicted" in page
    assert "calibrated: no calibration was applied" in page
    assert '<td class="text">logits averaged</td>' in page
    assert "nan" not in page.lower().replace("nanog", "")


def test_a_case_with_nothing_drawn_counts_only_where_it_can(little, tmp_path):
    model, cases = little
    evaluate(cases, model, tmp_path / "out", flips="off", calibration="none")
    of = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["configurations"]["uncalibrated"]
    empty = of["by_case"]["empty"]
    assert empty["dice"]["mean"] == 0.0
    assert empty["errors"]["pred"]["status"] == "ok"
    auroc = of["measures"]["entropy"]["domains"]["pred"]["figures"]["ranking.auroc"]
    assert (auroc["used"], auroc["total"]) == (1, 2)


def test_without_matplotlib_the_page_says_what_the_pictures_need(little, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    model, (_, empty) = little
    evaluate([empty], model, tmp_path / "out", flips="off", calibration="none")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    assert "pip install matplotlib" in page
    assert not list((tmp_path / "out").rglob("*.png"))


def test_regions_that_overlap_are_evaluated_each_by_itself(tmp_path):
    labels = {"background": 0, "Whole": [1, 2], "Core": [2]}
    model = write_model(tmp_path, plans(), folds=(0,), labels=labels, regions_class_order=[1, 2])
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(12, 14, 13), seed=4)
    drawn = np.random.default_rng(0).integers(0, 3, (12, 14, 13)).astype(np.uint8)
    Volume.read(ct).with_array(drawn).write(tmp_path / "labels.nii.gz")
    case = LabelledCase("a", ct, tmp_path / "labels.nii.gz")
    options = {"flips": "off", "calibration": "none", "keep_results": True}
    evaluate([case], model, tmp_path / "out", **options)
    of = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["configurations"]["uncalibrated"]
    result = Result.open(tmp_path / "out" / "cases" / "uncalibrated" / "a" / "result")
    inside = {name: result.probability(name).array > 0.5 for name in ("Whole", "Core")}
    for name, truth in (("Whole", drawn > 0), ("Core", drawn == 2)):
        p = np.zeros(drawn.shape, bool)
        start = result.provenance["box"]["start_xyz"][::-1]
        p[tuple(slice(a, a + n) for a, n in zip(start, inside[name].shape, strict=True))] = inside[name]
        assert of["dice"][name]["mean"] == pytest.approx(2 * (p & truth).sum() / (p.sum() + truth.sum()))
    wrong = int(np.count_nonzero(result.segmentation.array != drawn))
    assert of["errors"]["pred"]["errors"] + of["errors"]["pred"]["outside"] == wrong
