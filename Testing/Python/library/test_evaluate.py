"""`evaluate` from labelled cases to the report: its numbers, what is kept of an earlier run, and what fails."""

import json
import shutil

import numpy as np
import pytest
from evaluate_parts import calibrated_model, labelled_cases
from listening import Listening

from CalibUncertaintyLib.workflow.evaluate import evaluate


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cases(model, tmp_path_factory):
    return labelled_cases(model, tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def first(model, cases, tmp_path_factory):
    """One run of everything, with the Results kept."""
    return evaluate(cases, model, tmp_path_factory.mktemp("run") / "out", flips="off", keep_results=True)


def test_everything_is_written_for_every_case_and_configuration(first, cases):
    assert {path.name for path in first.folder.iterdir()} == {"cases", "evaluation.json", "cases.csv", "summary.csv", "report.html"}
