"""What GitHub runs: the same as everybody, and Slicer's own tests only where there is a Slicer."""

import os

import pytest
import yaml


@pytest.fixture
def workflow(repository):
    content = yaml.safe_load((repository / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    content["on"] = content.pop(True)  # to YAML 1.1 the word is a truth value; GitHub reads it as a word
    return content


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_push_runs_what_ci_runs_and_nothing_else(workflow, repository):
    assert {"push", "pull_request", "workflow_dispatch"} <= set(workflow["on"])
    suite = workflow["jobs"]["suite"]
    assert commands(suite) == [".ci/run"]
    assert os.access(repository / ".ci" / "run", os.X_OK)
    assert "if" not in suite


def test_the_suite_runs_on_the_python_that_is_pinned_and_keeps_what_pip_fetched(workflow, repository):
    (python,) = [step["with"] for step in workflow["jobs"]["suite"]["steps"] if "setup-python" in step.get("uses", "")]
    assert python["python-version"] == "3.11"  # as text: 3.10 as a number would be 3.1
    assert python["cache"] == "pip"
    assert all((repository / name).is_file() for name in python["cache-dependency-path"].split())


def test_slicers_tests_need_a_slicer_and_fail_where_none_of_them_was_found(workflow):
    job = workflow["jobs"]["slicer"]
    assert workflow["on"]["workflow_dispatch"]["inputs"]["slicer_image"]["default"] == ""
    assert "workflow_dispatch" in job["if"]
    assert "slicer_image != ''" in job["if"]
    assert "ctest" in commands(job)[-1]
    assert "--no-tests=error" in commands(job)[-1]
    assert all("continue-on-error" not in step for step in [job, *job["steps"]])


def test_what_people_type_in_reaches_the_shell_as_a_variable_only(workflow):
    for job in workflow["jobs"].values():
        assert [line for line in commands(job) if "${{" in line] == []
