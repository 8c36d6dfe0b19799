"""What the terminal says at the end of a verb, and what its help says: every option explained, and the command that comes next."""

import argparse
import re
import shlex
from types import SimpleNamespace

import pytest

from CalibUncertaintyLib.calibration.methods import METHODS
from CalibUncertaintyLib.cli import parser
from CalibUncertaintyLib.cli_answers import (
    answers_of_calibration,
    answers_of_segment,
    calibrate_command,
    in_slicer_words,
)
from CalibUncertaintyLib.uncertainty.measures import MEASURES

VERBS = ("segment", "calibrate", "evaluate", "info", "check", "proof", "picture", "last-layer", "run")


def verbs():
    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return found.choices


def parsed(*words):
    return parser().parse_args([str(word) for word in words])


def test_every_option_of_every_verb_is_explained():
    assert set(verbs()) == set(VERBS)
    bare = [(name, action.dest) for name, verb in verbs().items() for action in verb._actions if not action.help]
    assert bare == []


def test_every_value_has_its_default_named():
    unsaid = []
    for name, verb in verbs().items():
        for action in verb._actions:
            takes_a_value = action.option_strings and action.nargs != 0 and not action.required
            if takes_a_value and action.default not in (None, []) and "default" not in action.help:
                unsaid.append((name, action.option_strings))
    assert unsaid == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_usage_line_is_short_and_the_examples_are_valid(verb):
    text = verbs()[verb].format_help()
    assert len(text.splitlines()[0]) < 100
    examples = re.findall(r"^  calib-uncertainty (.*)$", text, re.MULTILINE)
    assert examples or verb == "run"
    for example in examples:
        assert parser().parse_args(shlex.split(example)).verb is not None


def test_the_examples_of_the_program_are_valid():
    examples = re.findall(r"^  calib-uncertainty (.*)$", parser().format_help(), re.MULTILINE)
    assert len(examples) == 4
    for example in examples:
        parser().parse_args(shlex.split(example))


def test_the_help_names_every_measure_and_every_calibrator():
    said = {
        action.dest: set(re.findall(r"[a-z_]+", action.help))
        for name in ("segment", "calibrate")
        for action in verbs()[name]._actions
    }
    assert set(MEASURES) - {"entropy_k"} <= said["measures"]  # that one is always there
    assert set(METHODS) <= said["method"]


@pytest.mark.parametrize(
    ("place", "words"),
    [((12.4, 34.6, 180.0), "R 12, A 35, S 180 mm"), ((-246.1, -277.3, -0.6), "L 246, P 277, I 1 mm")],
)
def test_a_place_is_said_as_slicer_says_it(place, words):
    assert in_slicer_words(place) == words


MEMBERS = [
    "--folds",
    "0",
    "1",
    "--flips",
    "members",
    "--dropout",
    "3",
    "--checkpoints",
    "checkpoint_cycle*",
    "--step-size",
    "0.7",
]


def test_the_command_that_comes_next_asks_for_the_same_members():
    asked = parsed("segment", "ct.nii.gz", "--model", "my model", "--out", "out", *MEMBERS)
    said = calibrate_command(asked)
    again = parser().parse_args(shlex.split(said)[1:])
    names = (
        "model",
        "folds",
        "flips",
        "mirroring",
        "dropout",
        "checkpoints",
        "seed",
        "step_size",
        "precision",
        "insert_dropout",
    )
    for name in names:
        assert getattr(again, name) == getattr(asked, name), name
    assert "--seed" not in said


def test_mirroring_switched_off_is_said_as_flips_off():
    asked = parsed("info", "MODEL", "--no-mirroring")
    assert calibrate_command(asked) == "calib-uncertainty calibrate --model MODEL --flips off --cases cases.csv"


def result(regions=(), calibrated=False):
    summary = "Calibrated: temperature 2.00" if calibrated else "NOT CALIBRATED: the model has no calibration record"
    provenance = {
        "segmentation": {"volumes_ml": {"Liver": 1234.56}},
        "calibration": {"summary": summary, "calibrated": calibrated},
        "changed_labels": {"by_pooling": 0, "by_temperature": 1200},
    }
    return SimpleNamespace(provenance=provenance, regions=list(regions), folder="out")


def region(number):
    return SimpleNamespace(id=number, peak_ras_mm=(1.0, 2.0, 3.0), reason=f"reason {number}.")


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "Places to look at: none"), (2, "Places to look at: 2"), (9, "Places to look at: 9; the first 3")],
)
def test_the_first_places_are_listed_with_where_they_lie(count, said):
    options = parsed("segment", "ct.nii.gz", "--model", "MODEL", "--out", "out")
    lines = list(answers_of_segment(result([region(n + 1) for n in range(count)]), options))
    assert said in lines
    listed = [line for line in lines if line.startswith("  ")]
    assert listed == [f"  {n + 1}. R 1, A 2, S 3 mm: reason {n + 1}." for n in range(min(count, 3))]
    assert "Liver: 1234.6 mL" in lines
    assert "Labels that differ from stock nnU-Net's: 0 voxels by pooling, 1,200 by calibration" in lines


def test_what_to_do_about_a_missing_calibration_is_said_where_it_was_not_switched_off():
    words = ("segment", "ct.nii.gz", "--model", "MODEL", "--out", "out")
    hint = "To calibrate: calib-uncertainty calibrate --model MODEL --cases cases.csv"
    assert hint in list(answers_of_segment(result(), parsed(*words)))
    assert hint not in list(answers_of_segment(result(), parsed(*words, "--calibration", "none")))
    assert hint not in list(answers_of_segment(result(calibrated=True), parsed(*words)))


def entry(mode):
    figures = {
        when: {"per_case": {"nll": nll, "ece_toplabel": 0.03}} for when, nll in (("before", 0.3), ("after", 0.2))
    }
    return SimpleNamespace(
        mode=mode, method="temperature", temperature=2.0, temperature_interval=[1.9, 2.1], member_temperatures=None,
        cases=["a", "b"], figures=figures, compared=[],
    )  # fmt: skip


def test_a_calibration_says_what_else_was_stored_and_how_to_use_it(tmp_path):
    options = parsed("calibrate", "--model", "MODEL", "--cases", "cases.csv", "--folds", "0", "1")
    lines = list(
        answers_of_calibration(tmp_path / "calibration.json", [entry("pool_logit"), entry("pool_prob")], options)
    )
    assert lines[0] == "Temperature 2.000 (95 % interval 1.90 to 2.10) (pool_logit), from 2 cases"
    assert "NLL, nats, mean over these cases: 0.3000 before, 0.2000 after" in lines
    assert any(line.startswith("Stored as well: Temperature 2.000") and "--mode pool_prob" in line for line in lines)
    assert "To see how well it fits: calib-uncertainty proof MODEL --folds 0 1 --out REPORT" in lines
    assert lines[-1].endswith("calib-uncertainty segment CT --model MODEL --folds 0 1 --out RESULT")


def test_a_record_elsewhere_and_a_mode_that_is_not_the_default_are_in_the_command(tmp_path):
    record = tmp_path / "record.json"
    options = parsed("calibrate", "--model", "MODEL", "--cases", "cases.csv", "--out", record, "--proof", "REPORT")
    lines = list(answers_of_calibration(record, [entry("pool_prob")], options))
    assert lines[-1].endswith(f"segment CT --model MODEL --mode pool_prob --calibration {record} --out RESULT")
    assert "Proof: REPORT/report.html" in lines
