"""The separate process: progress, failure, hang, garbage and cancel, with real processes."""

import json
import os
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.usefixtures("slicer_application")  # what a job says is translated


@pytest.fixture
def ct_file(tmp_path):
    from CalibUncertaintyPanel import testing

    image = sitk.GetImageFromArray(testing.phantomArray())
    image.SetSpacing((1.5, 1.5, 3.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    return tmp_path / "ct.nrrd"


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_reports_rising_progress_and_ends_with_a_folder_that_holds_a_result(run_job, ct_file):
    job = run_job("ok", ct_file)
    events = run_job.finish(job)
    fractions = [event.fraction for event in events if event.kind == "progress"]
    assert len(fractions) > 3
    assert np.all(np.diff(fractions) >= 0)
    assert [event.kind for event in events].count("result") == 1
    assert events[-1].kind == "result"
    assert json.loads((job.folder / "result" / "result.json").read_text(encoding="utf-8"))["status"] == "complete"
    assert any(event.kind == "warning" and "fake" in event.message for event in events)


def test_polling_never_waits_for_the_process(run_job, ct_file):
    job = run_job("slow", ct_file)
    longest = 0.0
    for _ in range(50):
        began = time.perf_counter()
        job.poll()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.01)
    assert job.running
    assert longest < 0.1


def test_a_crash_gives_one_line_with_the_last_words_and_the_log_keeps_the_rest(run_job):
    job = run_job("fail")
    event = run_job.finish(job)[-1]
    assert event.kind == "error"
    assert "\n" not in event.message
    assert "exit code 1" in event.message
    assert "CUDA out of memory" in event.message
    assert "Traceback" in job.logPath.read_text(encoding="utf-8")
    assert "CUDA out of memory" in job.details()


def test_a_refusal_is_shown_in_the_words_of_the_computation(run_job):
    event = run_job.finish(run_job("refuse"))[-1]
    assert (event.kind, event.message) == ("error", "fake has no fold 7; choose one of 0, 1")


def test_garbage_on_stdout_is_kept_in_the_log_and_ends_in_an_error(run_job):
    job = run_job("garbage")
    events = run_job.finish(job)
    assert events[-1].kind == "error"
    assert "without a result" in events[-1].message
    assert "not json" in job.logPath.read_text(encoding="utf-8")
    assert all(len(line) <= 500 for line in job.tail)


def test_an_exit_without_a_word_is_an_error(run_job):
    event = run_job.finish(run_job("silent"))[-1]
    assert event.kind == "error"
    assert "exit code 0" in event.message


def test_a_hang_is_reported_once_and_can_still_be_cancelled(run_job):
    job = run_job("hang", stallSeconds=0.3)
    deadline, stalls = time.monotonic() + 20, []
    while time.monotonic() < deadline and "about to hang" not in job.details():  # starting may take longer than the stall
        job.poll()
        time.sleep(0.02)
    while time.monotonic() < deadline and len(stalls) < 1:
        stalls += [event for event in job.poll() if event.kind == "stalled"]
        time.sleep(0.02)
    assert "No sign of life" in stalls[0].message
    time.sleep(0.6)
    assert not [event for event in job.poll() if event.kind == "stalled"]
    assert job.running
    job.cancel()
    assert job.finished
    assert "about to hang" in job.details()


@pytest.mark.skipif(sys.platform == "win32", reason="the process table is read from /proc")
def test_cancel_ends_the_child_of_the_child_within_a_second(run_job):
    job = run_job("tree")
    pids_file = job.folder / "pids.json"
    deadline = time.monotonic() + 10
    while not pids_file.exists() or not pids_file.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = [job._process.pid, *json.loads(pids_file.read_text(encoding="utf-8"))]
    assert all(is_alive(pid) for pid in pids)
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 1.0
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() - began < 1.0, [pid for pid in pids if is_alive(pid)]
    assert job.finished
    assert job.poll() == []


def test_a_program_that_is_not_there_is_refused_at_the_start(tmp_path):
    from CalibUncertaintyPanel.job import Job

    job = Job([str(tmp_path / "no-python")], {}, tmp_path, tmp_path)
    with pytest.raises(OSError, match="no-python"):
        job.start()
    assert not job.running


def test_the_environment_of_the_application_is_left_alone(run_job, ct_file):
    before = dict(os.environ)
    run_job.finish(run_job("ok", ct_file))
    assert dict(os.environ) == before


LAUNCHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
if child.wait() < 0:
    print("error: [/opt/slicer/bin/python-real] exit abnormally - Report the problem.", file=sys.stderr, flush=True)
    sys.exit(1)
"""
NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def launched(tmp_path, child, text=""):
    """A job whose program is only a launcher, as PythonSlicer is, of `child`."""
    from CalibUncertaintyPanel.job import Job

    job = Job([sys.executable, "-c", LAUNCHER, child], {"arguments": {"out": text}}, tmp_path, tmp_path)
    job.start()
    return job


@NEEDS_POSIX
def test_cancel_lets_the_child_of_a_launcher_clean_up(tmp_path):
    half_written = tmp_path / "half"
    child = (
        "import pathlib, signal, sys, time\n"
        f"half = pathlib.Path({str(half_written)!r})\n"
        "def end(*_):\n    time.sleep(0.15); half.unlink(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "half.touch()\n"
        "time.sleep(600)\n"
    )
    job = launched(tmp_path, child)
    deadline = time.monotonic() + 10
    while not half_written.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 1.0
    assert not half_written.exists()


@NEEDS_POSIX
@pytest.mark.parametrize(("signal_name", "memory"), [("SIGKILL", True), ("SIGSEGV", False)])
def test_a_crash_under_a_launcher_is_told_in_the_last_words_of_the_computation(run_job, tmp_path, signal_name, memory):
    child = (
        "import os, signal, sys; print('fold 3 of 5', file=sys.stderr, flush=True); "
        f"os.kill(os.getpid(), signal.{signal_name})"
    )
    event = run_job.finish(launched(tmp_path, child))[-1]
    assert event.kind == "error"
    assert "crashed or was killed" in event.message
    assert "Report the problem" not in event.message
    assert ("memory ran out" in event.message) == memory
    if memory:
        assert "fold 3 of 5" in event.message


def test_a_process_that_one_may_not_signal_counts_as_gone(monkeypatch):
    from CalibUncertaintyPanel import processTree

    def refuse(pid, number):
        raise PermissionError(1, "Operation not permitted")

    assert processTree._signal(refuse, 4711, 9) is False


def test_a_file_that_windows_still_holds_does_not_break_the_end_of_a_run(run_job, ct_file, monkeypatch):
    from pathlib import Path

    from CalibUncertaintyPanel import runs

    job = run_job("ok", ct_file)
    run_job.finish(job)

    def hold(self, missing_ok=False):
        raise PermissionError(32, "used by another process", str(self))

    copied = job.folder / runs.CT_FILE
    copied.write_bytes(b"a CT")
    out = Path(job.request["arguments"]["out"])
    halfWritten = out.parent / f".{out.name}.aside"
    halfWritten.mkdir()
    monkeypatch.setattr(Path, "unlink", hold)
    runs.tidyUp(job)
    assert copied.is_file()
    assert not halfWritten.exists()  # what can be tidied is
