"""Progress of a run: time and peak memory of each stage, and how much time the long stage still takes."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

import CalibUncertaintyLib.progress as module
from CalibUncertaintyLib.errors import Cancelled
from CalibUncertaintyLib.progress import JsonProgress, Progress, TerminalProgress

MB = 1 << 20
KEEPS_A_MARK = module._reset_mark()
needs_mark = pytest.mark.skipif(
    not KEEPS_A_MARK, reason="PEAK OF A STAGE: this system does not let its mark be set back"
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_every_stage_has_its_seconds_and_timings_stay_the_plain_dictionary(clock):
    progress = Progress()
    progress.begin()
    for name, seconds in (("read", 2.0), ("cases", 3.0), ("cases", 4.0)):
        with progress.stage(name, 0.0, 1.0):
            clock.now += seconds
    assert progress.timings == {"read": 2.0, "cases": 7.0}
    assert {name: stage["s"] for name, stage in progress.stages.items()} == progress.timings


def test_the_stage_that_writes_the_figures_down_is_among_them_as_far_as_it_has_come(clock):
    progress = Progress()
    progress.begin()
    with progress.stage("read", 0.0, 0.5):
        clock.now += 2.0
    with progress.stage("write", 0.5, 1.0):
        clock.now += 3.0
        written = progress.stages_so_far()
        assert list(progress.stages) == ["read"]
        clock.now += 1.0
    assert {name: stage["s"] for name, stage in written.items()} == {"read": 2.0, "write": 3.0}
    assert written["write"]["peak_mb"] is None or written["write"]["peak_mb"] > 10
    assert progress.timings == {"read": 2.0, "write": 4.0}
    assert progress.stages_so_far() == progress.stages


@needs_mark
def test_the_peak_of_a_stage_is_its_own_and_that_of_the_run_is_the_largest():
    progress = Progress()
    progress.begin()
    with progress.stage("small", 0.0, 0.1):
        pass
    with progress.stage("large", 0.1, 0.5):
        held = np.ones(200 * MB, np.uint8)
        del held
    with progress.stage("after", 0.5, 1.0):
        pass
    peaks = {name: stage["peak_mb"] for name, stage in progress.stages.items()}
    assert progress.peak_is_of_stage
    assert peaks["large"] - peaks["small"] == pytest.approx(200 * MB / 1e6, rel=0.1)
    assert peaks["after"] < peaks["large"] - 150
    assert progress.peak_mb == pytest.approx(peaks["large"], rel=0.01)


@needs_mark
def test_what_happens_in_an_inner_stage_counts_for_the_outer_one_too():
    progress = Progress()
    progress.begin()
    with progress.stage("outer", 0.0, 1.0):
        with progress.stage("inner", 0.2, 0.4):
            held = np.ones(100 * MB, np.uint8)
            del held
        assert progress.stage_name == "outer"
        progress.report(0.5)
        assert progress.fraction == pytest.approx(0.5)
        with progress.stage("later", 0.5, 0.6):
            pass
    peaks = {name: stage["peak_mb"] for name, stage in progress.stages.items()}
    assert peaks["outer"] >= peaks["inner"] > peaks["later"] + 50


@needs_mark
def test_a_new_job_forgets_the_peak_of_the_one_before():
    progress = Progress()
    progress.begin()
    with progress.stage("large", 0.0, 1.0):
        held = np.ones(200 * MB, np.uint8)
        del held
    before = progress.peak_mb
    progress.begin()
    assert (progress.stages, progress.timings, progress.remaining_s) == ({}, {}, None)
    assert progress.peak_mb < before - 100


def test_where_the_mark_cannot_be_set_back_it_is_said_to_be_of_the_whole_process(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CLEAR", tmp_path / "missing")
    marks = iter([100.0, 300.0, 300.0, 310.0, 310.0])
    monkeypatch.setattr(module, "_mark_mb", lambda: next(marks))
    progress = Progress()
    progress.begin()
    for name in ("first", "second"):
        with progress.stage(name, 0.0, 1.0):
            pass
    assert [stage["peak_mb"] for stage in progress.stages.values()] == [300.0, 310.0]
    assert not progress.peak_is_of_stage
    assert not (tmp_path / "missing").exists()  # it is not made either


def test_without_linux_the_mark_comes_from_the_resources_the_process_used(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(module, "_STATUS", tmp_path / "missing")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert module._mark_mb() == pytest.approx(used, rel=0.2)


def test_a_system_that_tells_nothing_leaves_the_peak_empty(monkeypatch):
    monkeypatch.setattr(module, "_mark_mb", lambda: None)
    progress = Progress()
    with progress.stage("read", 0.0, 1.0):
        pass
    assert progress.stages["read"]["peak_mb"] is None
    assert progress.peak_mb is None


def test_a_stage_that_fails_or_is_stopped_is_recorded_all_the_same():
    stop = False
    progress = Progress(lambda: stop)
    with pytest.raises(ZeroDivisionError), progress.stage("predict", 0.0, 1.0):
        raise ZeroDivisionError
    stop = True
    with pytest.raises(Cancelled), progress.stage("maps", 0.0, 1.0):
        raise AssertionError("a stopped run must not enter the stage")
    assert set(progress.stages) == {"predict", "maps"}
    assert progress._memory._open == []


def told(progress, clock, fractions, seconds, stage="predict"):
    """What is left after each report; the first one comes later, as a first tile does."""
    found = []
    with progress.stage(stage, 0.1, 0.7):
        clock.now += 30.0
        for fraction in fractions:
            clock.now += seconds
            progress.report(fraction, "tile")
            found.append(progress.remaining_s)
        assert progress.remaining_s is found[-1]
    assert progress.remaining_s is None
    return found


@pytest.mark.parametrize("stage", ["predict", "previous stage"])
def test_the_time_left_is_told_from_the_third_tile_and_does_not_count_the_slow_first_one(clock, stage):
    found = told(Progress(), clock, [0.1, 0.2, 0.3, 0.4, 1.0], 2.0, stage)
    assert found[:2] == [None, None]
    assert found[2:4] == [pytest.approx(14.0), pytest.approx(12.0)]
    assert found[4] == pytest.approx(0.0)


def test_reports_that_say_the_same_again_are_no_new_tiles(clock):
    assert told(Progress(), clock, [0.1, 0.1, 0.1, 0.1], 2.0) == [None] * 4
    assert told(Progress(), clock, [0.0, 0.0, 0.0], 2.0) == [None] * 3
    assert told(Progress(), clock, [0.5, 0.4, 0.6, 0.5, 0.7], 1.0)[-1] == pytest.approx(6.0)  # 0.1 each two seconds


def test_other_stages_promise_no_time(clock):
    progress = Progress()
    with progress.stage("maps", 0.7, 0.9):
        for fraction in (0.2, 0.4, 0.6, 0.8):
            clock.now += 1.0
            progress.report(fraction)
            assert progress.remaining_s is None


def test_json_lines_have_the_time_left_only_where_it_is_known(clock):
    stream = io.StringIO()
    told(JsonProgress(stream), clock, [0.25, 0.5, 0.75], 4.0)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("remaining_s") for line in lines] == [None, None, None, 4.0]
    assert all({"type", "stage", "fraction", "message"} <= set(line) for line in lines)


READ = """
import json, sys, types
# what Slicer translates with; the rest of it is not needed to read a line
sys.modules["slicer"] = types.ModuleType("slicer")
sys.modules["slicer.i18n"] = types.SimpleNamespace(tr=str)
from CalibUncertaintyPanel.job import _parse
events = [_parse(line) for line in sys.stdin]
print(json.dumps([[event.kind, event.stage, event.fraction] for event in events]))
"""


def test_the_panel_reads_lines_with_the_time_left(clock, repository):
    stream = io.StringIO()
    told(JsonProgress(stream), clock, [0.25, 0.5, 0.75], 4.0)
    # in a process of its own: the panel wants the stand-in for Slicer, which this folder's tests do without
    read = subprocess.run(
        [sys.executable, "-c", READ], cwd=repository / "CalibUncertainty", input=stream.getvalue(), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(read.stdout) == [["progress", "predict", fraction] for fraction in (0.1, 0.25, 0.4, 0.55)]


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.0, "about 32 s left of this step"), (200.0, "about 9 min left of this step")]
)
@pytest.mark.parametrize("live", [False, True])
def test_the_terminal_says_the_time_left_in_words(clock, seconds, words, live):
    class Stream(io.StringIO):
        def isatty(self):
            return live

    stream = Stream()
    told(TerminalProgress(stream), clock, [0.125, 0.25, 0.5, 0.625], seconds)
    assert words in stream.getvalue()  # 0.375 in two tiles' time, 0.5 to go
    assert stream.getvalue().count("left of this step") == 2
    assert ("\r" in stream.getvalue()) == live


def lines_of_a_file(clock, seconds, reports, **stage):
    """What a file gets of a stage with so many reports, each so many seconds after the last."""
    stream = io.StringIO()
    progress = TerminalProgress(stream)
    with progress.stage("cases", 0.0, 0.05, **stage):
        for number in range(1, reports + 1):
            clock.now += seconds
            progress.report(number / reports, f"tile {number}")
    return stream.getvalue().splitlines()


def test_a_file_hears_of_a_slow_stage_every_ten_seconds_and_of_a_fast_one_once(clock):
    assert [line.split()[-1] for line in lines_of_a_file(clock, 4.0, 9)] == ["cases", "3", "6", "9"]
    assert lines_of_a_file(clock, 0.1, 9) == ["  0% cases"]


def test_each_report_says_what_its_stage_is_about(clock):
    lines = lines_of_a_file(clock, 20.0, 2, message="case A (1 of 3)")
    assert lines == ["  0% case A (1 of 3)", "  2% case A (1 of 3): tile 1", "  5% case A (1 of 3): tile 2"]
    stream = io.StringIO()
    progress = JsonProgress(stream)
    with progress.stage("outer", 0.0, 1.0, "case A"):
        with progress.stage("inner", 0.0, 0.5, "maps"):
            progress.report(0.5, "maps")
        progress.report(0.6, "tile 1")
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages == ["case A", "maps", "maps", "case A: tile 1"]
