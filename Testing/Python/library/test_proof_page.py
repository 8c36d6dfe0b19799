"""The page and the pictures of a proof: complete by themselves, safe with any name, and honest about what changes."""

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from proof_parts import NAMES, proof, with_everything

from CalibUncertaintyLib.workflow.proof import write_proof
from CalibUncertaintyLib.workflow.proof_numbers import curve_of, statistics_of
from CalibUncertaintyLib.workflow.proof_page import page
from CalibUncertaintyLib.workflow.proof_pictures import SERIES, draw, drawn_classes

matplotlib = pytest.importorskip("matplotlib")


class Page(HTMLParser):
    """Tags that are open at the end, the tables as lists of texts, all text, and what is loaded."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tables, self.text, self.sources, self.tags = [], [], "", [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href", "action", "data")]
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def row(self, first: str) -> list[str]:
        return next(row for table in self.tables for row in table if row[0] == first)


@pytest.fixture(scope="module")
def full_proof() -> dict:
    full = proof(10)
    full["figures"] = {
        "before": with_everything(full["figures"]["before"]),
        "after": with_everything(full["figures"]["after"], -0.004),
    }
    return full


def shown(given: dict, pictures: dict | None = None) -> Page:
    return Page(page(given, statistics_of(given), pictures or {}))


def without_nbsp(page: Page) -> str:
    return page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_is_well_formed_and_loads_nothing_but_its_own_pictures(full_proof, tmp_path):
    text = write_proof(tmp_path, full_proof)["report.html"].read_text(encoding="utf-8")
    found = Page(text)
    assert found.open == []
    assert not found.tags & {"script", "link", "iframe", "object"}
    assert len(found.sources) == 3
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in found.sources]
    assert pictures == [(tmp_path / name).read_bytes() for name in ("reliability.png", "classes.png", "subjects.png")]
    assert "http" not in text.replace("http-equiv", "")


def test_names_are_shown_as_they_are_and_never_as_markup(full_proof):
    evil = "<script>alert('x')</script>&\"/"
    renamed = full_proof | {
        "title": evil,
        "described": evil,
        "in_words": evil,
        "versions": {evil: evil},
        "cases": [evil],
    }
    renamed["model"] = full_proof["model"] | {"name": evil, "labels": {"1": evil}}
    renamed["members"] = {"checkpoints": [{"fold": evil, "checkpoint": evil, "sha256": evil}]}
    renamed["parameters"] = {evil: evil}
    renamed["compared"] = [{"mode": evil, "method": evil}]
    renamed["roi"] = {evil: evil}
    renamed["figures"] = {
        when: {**found, "cases": {evil: {**found["cases"]["case_0"], "dice_per_class": {evil: 0.5}}, **found["cases"]}}
        for when, found in full_proof["figures"].items()
    }
    found = shown(renamed)
    assert "script" not in found.tags
    assert found.text.count(evil) >= 12
    assert found.row(evil)


def test_names_in_any_script_come_through(full_proof):
    text = shown(full_proof).text
    assert all(name in text for name in NAMES[1:])


def test_the_summary_says_what_the_statistics_say(full_proof):
    found, statistics = shown(full_proof), statistics_of(full_proof)["metrics"]
    ece = statistics["ece_toplabel"]
    row = found.row("ECE (%)")
    assert (
        row[1]
        == f"{100 * ece['before']['mean']:.2f} [{100 * ece['before']['lower']:.2f}, {100 * ece['before']['upper']:.2f}]"
    )
    assert row[3].replace("\N{MINUS SIGN}", "-").startswith(f"{100 * ece['difference']['mean']:.2f} [")
    assert row[5] == f"{ece['wilcoxon']['p']:.3f}"
    assert row[6] == "10 of 10"
    assert found.row(f"Dice, {NAMES[1]}")[1].startswith("0.845")
    said = without_nbsp(found)
    assert f"fell from {100 * ece['before']['mean']:.2f} % to {100 * ece['after']['mean']:.2f} %" in said
    assert "changed the label of 0 of 40,000 voxels" in said


def test_each_case_is_listed_before_and_after_and_once_where_nothing_changed(full_proof):
    row = shown(full_proof).row("case_3")
    values = [full_proof["figures"][when]["cases"]["case_3"] for when in ("before", "after")]
    assert row[1] == "4,000"
    assert row[2] == f"{values[0]['nll']:.3f} → {values[1]['nll']:.3f}"
    assert row[-1] == f"{100 * values[0]['accuracy']:.2f}"


def test_a_calibration_that_changes_labels_is_warned_of_with_dice_before_and_after(full_proof):
    changing = full_proof | {"method": "vector", "preserves": "none"}
    changing["figures"] = full_proof["figures"] | {
        "after": full_proof["figures"]["after"] | {"changed_by_temperature": 1203}
    }
    said = without_nbsp(shown(changing))
    assert "can change the segmentation, and changed the label of 1,203 voxels" in said
    assert "Mean Dice before: 0.845, after: 0.839" in said
    assert "can change the segmentation" not in without_nbsp(shown(full_proof))
    unmeasured = proof(3, preserves="none")
    assert "Dice before and after was not measured" in without_nbsp(shown(unmeasured))


def test_worse_figures_few_cases_limits_and_the_fitted_cases_are_warned_of():
    given = proof(4, evaluated_on="fit", parameters={"temperature": 20.0, "status": "uninformative"})
    given["figures"] = {"before": given["figures"]["after"], "after": given["figures"]["before"]}
    said = without_nbsp(shown(given))
    for warning in (
        "they flatter it", "ran to its limit (uninformative)", "mean NLL is worse", "mean ECE is worse", "Only 4 cases",
        "no Wilcoxon p below 0.05 is possible", "ECE) rose from",
    ):  # fmt: skip
        assert warning in said
    assert said.count("they flatter it") == 1
    quiet = without_nbsp(shown(proof(12)))
    assert "Before you rely on this" not in quiet
    assert "kept out of the fit" in quiet


def test_figures_near_the_prediction_alone_are_shown_where_there_are_any():
    given = proof(4)
    assert "Near the prediction alone" not in without_nbsp(shown(given))
    for when, nll in (("before", 0.5), ("after", 0.3125)):
        given["figures"][when]["domains"] = {
            "dist:15:pred": {"n": 900, "nll": nll, "ece_toplabel": 0.0421, "cases_used": 4}
        }
    text = without_nbsp(shown(given))
    for said in ("Near the prediction alone", "within 15 mm of the predicted structures", "0.500", "0.312", "4.21"):
        assert said in text
    given["figures"]["after"]["domains"] = {}
    assert "Near the prediction alone" not in without_nbsp(shown(given))


def test_a_difference_too_small_to_be_shown_is_no_change_and_no_warning():
    given = proof(12)
    cases = {
        case: {**values, "nll": values["nll"] + 1e-9} for case, values in given["figures"]["before"]["cases"].items()
    }
    given["figures"] = {"before": given["figures"]["before"], "after": given["figures"]["before"] | {"cases": cases}}
    said = without_nbsp(shown(given))
    assert "(NLL) stayed at" in said
    assert "worse" not in said.split("What a calibrated")[0]


def test_what_a_calibrated_probability_means_is_said_plainly(full_proof):
    said = without_nbsp(shown(full_proof))
    assert "of all voxels shown with a probability of about 70 %, about 70 % are right" in said
    assert "It does not mean" in said


def test_everything_that_ties_the_calibration_down_is_on_the_page(full_proof):
    found = shown(
        full_proof
        | {"compared": [{"mode": "member", "method": "vector", "nll_cv": 0.51, "ece_cv": 0.0312, "chosen": True}]}
    )
    said = without_nbsp(found)
    for item in (
        "0a" * 32,
        "f" * 64,
        "within 15 mm of the predicted or the reference",
        "calib-uncertainty 0.1.0",
        "folds 0 and 1",
    ):
        assert item in said
    assert found.row("Parameter: interval")[1] == "1.9 to 2.125"
    assert found.row("vector") == ["vector", "member", "0.510", "3.12", "–", "chosen"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.5, 2.0, 2.5, 3.0], f"{NAMES[0]}: 1.5; {NAMES[1]}: 2; {NAMES[2]}: 2.5; {NAMES[3]}: 3"),
        (np.zeros((4, 5)).tolist(), ": 0, 0, 0, 0, 0"),
        (np.zeros((5, 5)).tolist(), "5 × 5 values, in proof.json"),
        ({"low": 1, "high": 2}, "low: 1; high: 2"),
        ("text", "text"),
    ],
)
def test_parameters_of_any_form_are_written_or_counted(value, text):
    assert text in shown(proof(2, parameters={"p": value})).row("Parameter: p")[1]


def test_without_matplotlib_the_page_is_written_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    paths = write_proof(tmp_path, proof(3))
    assert set(paths) == {"proof.json", "cases.csv", "report.html"}
    assert "pip install matplotlib" in paths["report.html"].read_text(encoding="utf-8")


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def has_colour(image: np.ndarray, colour: str) -> bool:
    wanted = np.array(matplotlib.colors.to_rgb(colour))
    return bool((np.abs(image - wanted).max(axis=-1) < 0.02).sum() > 50)


def test_pictures_show_both_series_in_their_colours_and_stay_readable(full_proof):
    import matplotlib.image  # noqa: F401

    drawn = draw(full_proof, statistics_of(full_proof))
    assert set(drawn) == {"reliability.png", "classes.png", "subjects.png"}
    for png in drawn.values():
        image = pixels(png)
        assert min(image.shape[:2]) > 500
        assert all(has_colour(image, colour) for colour, *_ in SERIES.values())


def test_bins_of_few_voxels_are_grey_and_out_of_the_curve():
    import matplotlib.image

    given = proof(2)  # 8000 voxels: the bins in the middle hold far fewer than 1000
    for when in ("before", "after"):
        found = given["figures"][when]
        for item in found["bins"]:
            item["n"] = min(item["n"], 999)
        found["cases"] = {case: {"accuracy": 0.9} for case in found["cases"]}
    drawn = draw(given, statistics_of(given))
    assert set(drawn) == {"reliability.png"}
    image = pixels(drawn["reliability.png"])
    # the legend's two lines are all that is left of the colours
    for colour, *_ in SERIES.values():
        rows = np.argwhere(np.abs(image - np.array(matplotlib.colors.to_rgb(colour))).max(axis=-1) < 0.02)[:, 0]
        assert rows.max() < 0.15 * image.shape[0]


def test_a_curve_is_interrupted_where_bins_between_are_too_small_to_be_read():
    counts = (5000, 2000, 10, 4000, 3000)
    bins = [
        {"lower": k / 5, "upper": (k + 1) / 5, "n": n, "confidence": k / 5 + 0.1, "accuracy": k / 5}
        for k, n in enumerate(counts)
    ]
    x, y = curve_of(bins)
    np.testing.assert_allclose(x, [10, 30, math.nan, 70, 90])
    np.testing.assert_allclose(y, [0, 20, math.nan, 60, 80])
    assert curve_of(bins[2:3]) == ([], [])


def test_many_structures_are_spread_over_pictures_and_the_worst_are_kept(full_proof):
    names = [f"organ {index}" for index in range(60)]
    many = full_proof | {"classes": names}
    bins = full_proof["figures"]["before"]["bins"]
    classes = {name: {"bins": bins, "ece": index / 1000} for index, name in enumerate(names)}
    many["figures"] = {when: found | {"classes": classes} for when, found in full_proof["figures"].items()}
    assert drawn_classes(many) == names[12:]
    assert "Of 60 structures the 48 with the largest calibration error" in without_nbsp(
        shown(many, {"classes.png": b""})
    )


def test_a_structure_named_like_a_formula_or_at_great_length_is_drawn(full_proof):
    odd = [r"$\frac{", "a$b", "$$", "x" * 300, "new\nline"]
    bins = full_proof["figures"]["before"]["bins"]
    given = full_proof | {"classes": odd}
    classes = {name: {"bins": bins} for name in odd}
    given["figures"] = {when: found | {"classes": classes} for when, found in full_proof["figures"].items()}
    assert "classes.png" in draw(given, statistics_of(given))


def test_regions_are_drawn_as_structures_are(full_proof):
    given = full_proof | {"classes": ["whole", "core"]}
    bins = full_proof["figures"]["before"]["bins"]
    given["figures"] = {
        when: {key: value for key, value in found.items() if key != "classes"}
        | {"regions": {"core": {"bins": bins, "ece": 0.1}, "whole": {"bins": bins}}}
        for when, found in full_proof["figures"].items()
    }
    assert drawn_classes(given) == ["whole", "core"]


def test_every_pattern_of_missing_figures_still_gives_a_page(full_proof):
    for missing in ("bins", "pooled", "per_case", "classes", "changed_by_temperature"):
        given = full_proof | {
            "figures": {
                when: {key: value for key, value in found.items() if key != missing}
                for when, found in full_proof["figures"].items()
            }
        }
        assert shown(given).open == []
    bare = {"figures": {when: {"cases": {"a": {}}} for when in ("before", "after")}}
    assert shown(bare).open == []
    assert re.search("All cases", shown(bare).text)
