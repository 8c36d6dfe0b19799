"""Cohorts on Dask: the same numbers as in one process, and a worker that dies takes one case with it."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from evaluate_parts import labelled_cases, write_calibrated_model
from listening import Listening

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.workflow import evaluate_cohort
from CalibUncertaintyLib.workflow.evaluate import evaluate
from CalibUncertaintyLib.workflow.evaluate_case import SCHEMA, SCHEMA_VERSION
from CalibUncertaintyLib.workflow.evaluate_options import EvaluateOptions

distributed = pytest.importorskip("distributed")


def kill_on_request(task, progress=None, asking=None):
    """In place of `evaluate_case`."""
    if task["case"]["id"] == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    stored = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "key": task["key"], "worker": os.getpid()}
    Path(task["file"]).write_text(json.dumps(stored))
    return {"status": "ok", "reason": "", "log": None, "seconds": 0.0}


def kill_together(tasks):
    """In place of `evaluate_together`, on a worker."""
    return [kill_on_request(task) for task in tasks]


def task_of(folder, name, configuration="a"):
    path = folder / f"{name}.json" if configuration == "a" else folder / configuration / f"{name}.json"
    return {
        "case": {"id": name}, "configuration": configuration, "file": str(path), "key": "", "keep_results": False, "asked": "",
    }  # fmt: skip


@pytest.mark.slow
def test_two_workers_give_the_numbers_of_one_process(tmp_path):
    model = write_calibrated_model(tmp_path / "model")
    cases = labelled_cases(model, tmp_path / "cases", seeds=(1, 2))
    options = {"flips": "off", "roi_mm": 4.0, "calibration": "none", "device": "cpu"}
    evaluate(cases, model, tmp_path / "one", **options)
    found = evaluate(cases, model, tmp_path / "two", workers=2, **options)
    assert found.count("ok") == 2
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    for content in (one, two):
        del content["configurations"]["uncalibrated"]["seconds"]
    assert one["configurations"] == two["configurations"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_worker_is_one_failed_case(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_cohort, "evaluate_together", kill_together)
    tasks = [task_of(tmp_path, name) for name in ("1", "2", "deadly", "3", "4")]
    (tmp_path / "deadly").mkdir()  # what is left of its Result
    heard = Listening()
    outcomes = evaluate_cohort.run_tasks(tasks, EvaluateOptions(workers=2), heard)
    assert {case: of["status"] for (_, case), of in outcomes.items()} == {
        "1": "ok", "2": "ok", "deadly": "failed", "3": "ok", "4": "ok",
    }  # fmt: skip
    assert "worker was killed" in outcomes["a", "deadly"]["reason"]
    assert len(heard.warnings) == 1
    assert not (tmp_path / "deadly").exists()
    workers = {json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["worker"] for name in "1234"}
    assert os.getpid() not in workers


def test_a_cluster_that_was_started_elsewhere_is_used_and_an_address_without_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_cohort, "evaluate_together", kill_together)
    task = task_of(tmp_path, "1")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        options = EvaluateOptions(scheduler=cluster.scheduler_address)
        assert evaluate_cohort.run_tasks([task], options, Listening())["a", "1"]["status"] == "ok"
        assert evaluate_cohort.run_tasks([task], options, Listening())["a", "1"]["status"] == "kept"
    (tmp_path / "1.json").unlink()
    monkeypatch.setattr(evaluate_cohort, "CONNECT_TIMEOUT", "1s")
    with pytest.raises(CalibUncertaintyError, match="no Dask scheduler answers at tcp://127"):
        evaluate_cohort.run_tasks([task], EvaluateOptions(scheduler="tcp://127.0.0.1:9"), Listening())


def test_without_dask_one_worker_runs_and_several_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(evaluate_cohort, "evaluate_case", kill_on_request)
    task = task_of(tmp_path, "1")
    assert evaluate_cohort.run_tasks([task], EvaluateOptions(), Listening())["a", "1"]["status"] == "ok"
    assert json.loads((tmp_path / "1.json").read_text(encoding="utf-8"))["worker"] == os.getpid()
    (tmp_path / "1.json").unlink()
    with pytest.raises(CalibUncertaintyError, match="pip install 'distributed"):
        evaluate_cohort.run_tasks([task], EvaluateOptions(workers=2), Listening())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_worker_takes_the_unfinished_configurations_of_its_case_and_leaves_no_logits(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_cohort, "evaluate_together", kill_together)
    tasks = [task_of(tmp_path, "deadly", name) for name in ("b", "c")] + [task_of(tmp_path, "1")]
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
    left = evaluate_cohort.members_folder(Path(tasks[0]["file"]))
    submit = evaluate_cohort._as_they_end

    def with_logits(client, futures, progress):
        left.mkdir()
        return submit(client, futures, progress)

    monkeypatch.setattr(evaluate_cohort, "_as_they_end", with_logits)
    outcomes = evaluate_cohort.run_tasks(tasks, EvaluateOptions(workers=2), Listening())
    assert {name: of["status"] for name, of in outcomes.items()} == {
        ("b", "deadly"): "failed", ("c", "deadly"): "failed", ("a", "1"): "ok",
    }  # fmt: skip
    assert not left.exists()
