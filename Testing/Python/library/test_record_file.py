"""One writer of a record at a time, room asked for in one place, and nothing left behind."""

import json
import multiprocessing
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from listening import Listening
from test_member_set import model_folder

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow import record_file
from CalibUncertaintyLib.workflow.record_file import add_to_record, locked
from CalibUncertaintyLib.workflow.room import bytes_on_disk, check_room
from CalibUncertaintyLib.workflow.writing import check_space


def entry_of(members, mode="pool_logit"):
    return CalibrationEntry(
        members=members.as_recorded(), mode=mode, temperature=1.5, roi={"distance_mm": 15.0, "reference": "union"}, cases=["a"]
    )


def store(model, path, fold, begin):
    members = MemberSet.choose(model, [fold])
    begin.wait(timeout=60)
    add_to_record(path, members, [entry_of(members), entry_of(members, "pool_prob")], Progress())


def test_runs_that_end_at_the_same_moment_lose_no_entry(tmp_path):
    model, path = model_folder(tmp_path, folds=tuple(range(6))), tmp_path / "calibration.json"
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(6)
    runs = [context.Process(target=store, args=(model, path, fold, begin)) for fold in range(6)]
    for process in runs:
        process.start()
    for process in runs:
        process.join(timeout=120)
    assert [process.exitcode for process in runs] == [0] * 6
    stored = {(entry.members["folds"][0], entry.mode) for entry in CalibrationRecord.read(path).entries}
    assert stored == {(fold, mode) for fold in range(6) for mode in ("pool_logit", "pool_prob")}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["T__P__3d_fullres", "calibration.json"]


def test_threads_that_read_and_write_take_turns(tmp_path):
    path = tmp_path / "count.json"
    path.write_text("0", encoding="utf-8")

    def add_one():
        with locked(path, Listening()):
            value = json.loads(path.read_text(encoding="utf-8"))
            time.sleep(0.002)
            path.write_text(json.dumps(value + 1), encoding="utf-8")

    threads = [threading.Thread(target=add_one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert path.read_text(encoding="utf-8") == "12"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_does_not_let_go_is_said_after_a_short_wait(tmp_path):
    path = tmp_path / "calibration.json"
    with locked(path, Listening()):
        began = time.monotonic()
        with pytest.raises(CalibUncertaintyError) as caught, locked(path, Listening(), seconds=0.3):
            raise AssertionError("two writers at once")
        assert 0.3 <= time.monotonic() - began < 5
    assert str(path) in str(caught.value)
    assert ".calibration.json.lock" in str(caught.value)
    assert "--out" in str(caught.value)
    with locked(path, Listening(), seconds=0):
        pass


def test_a_lock_file_that_a_killed_run_left_holds_nobody_up(tmp_path):
    (tmp_path / ".calibration.json.lock").touch()
    with locked(tmp_path / "calibration.json", Listening(), seconds=0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_when_the_writing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "r.json", Listening()):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl is of POSIX systems")
def test_a_file_system_without_locks_is_said_and_the_record_is_written(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(record_file, "_lock", fail)
    model, heard = model_folder(tmp_path), Listening()
    members = MemberSet.choose(model, [0])
    add_to_record(tmp_path / "r.json", members, [entry_of(members)], heard)
    assert len(CalibrationRecord.read(tmp_path / "r.json").entries) == 1
    assert "cannot be locked (No locks available)" in heard.warnings[0]


# --- room ----------------------------------------------------------------------------------------------------------------


def test_what_fits_into_memory_asks_for_no_disk(tmp_path):
    for sizes, needed in (([60, 40, 50], 50), ([60, 41, 40, 10], 51), ([10], 0), ([], 0), ([101], 101)):
        assert bytes_on_disk(Scratch(tmp_path, limit_bytes=100), sizes) == needed
    used = Scratch(tmp_path, limit_bytes=100)
    used.array((80,), "u1")
    assert bytes_on_disk(used, [30, 20]) == 30


def test_one_rule_and_one_wording_serve_segment_and_calibrate(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000_000))
    check_room(tmp_path, 20_000_000, "case a", "do this")
    check_space(tmp_path / "out", tmp_path, 20_000_000)
    with pytest.raises(CalibUncertaintyError) as caught:
        check_room(tmp_path, 20_100_000, "case a", "set TMPDIR")
    assert str(caught.value) == f"case a needs up to 20.1 MB in {tmp_path}, whose disk has 20.0 MB free; set TMPDIR"
    with pytest.raises(CalibUncertaintyError, match=r"out needs up to 12\.0 GB in .* has 20\.0 MB free; free space or .*--out"):
        check_space(tmp_path / "out", tmp_path, 12_000_000_000)
