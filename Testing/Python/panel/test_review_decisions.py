"""Decisions as plain data, and what keeps them: two programs at once, damaged files, other regions, clocks put back."""

import itertools
import json
import random
from types import SimpleNamespace

import pytest


@pytest.fixture
def regions():
    return [
        SimpleNamespace(id=i, kind="uncertain", structure=f"S{i}", peak_lps_mm=(float(i), 0.0, 0.0))
        for i in range(1, 6)
    ]


@pytest.fixture
def make(slicer_application, regions):
    """Function that makes decisions on the regions with a clock of their own."""
    from CalibUncertaintyPanel.reviewDecisions import ReviewDecisions

    ticks = itertools.count()

    def decisions():
        return ReviewDecisions(regions, lambda: f"2026-01-01T00:00:{next(ticks):02d}.000000+00:00")

    return decisions


@pytest.fixture
def node(slicer_scene):
    return slicer_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")


def store_of(decisions, folder, node=None):
    from CalibUncertaintyPanel.reviewStore import ReviewStore

    store = ReviewStore(decisions, node, folder)
    store.load()
    return store


@pytest.mark.parametrize("seed", range(5))
def test_undo_and_redo_walk_through_any_history(slicer_application, regions, seed):
    from CalibUncertaintyPanel.reviewDecisions import ReviewDecisions

    choose = random.Random(seed)
    decisions = ReviewDecisions(regions)

    def state():
        return [(d.verdict, d.note) for d in (decisions.of(region.id) for region in regions)]

    history = [state()]
    for _ in range(30):
        changed = decisions.change(
            choose.randint(1, 5), verdict=choose.choice(["correct", "wrong", "unsure", ""]), note=choose.choice("ab")
        )
        assert changed == (state() != history[-1])
        if changed:
            history.append(state())
    for expected in reversed(history[:-1]):
        assert decisions.undo() is not None
        assert state() == expected
    assert decisions.undo() is None
    for expected in history[1:]:
        decisions.redo()
        assert state() == expected
    assert not decisions.canRedo


def test_a_new_decision_ends_what_could_be_redone(make):
    decisions = make()
    decisions.change(1, verdict="wrong")
    decisions.undo()
    decisions.change(2, verdict="correct")
    assert not decisions.canRedo
    assert decisions.counts() == {"regions": 5, "seen": 1, "edited": 0, "correct": 1, "wrong": 0, "unsure": 0}


def test_a_clock_that_is_put_back_does_not_bring_old_decisions_back(slicer_application, regions, tmp_path):
    from CalibUncertaintyPanel.reviewDecisions import ReviewDecisions

    times = iter(["2026-01-02T00:00:00.000000+00:00", "2026-01-01T00:00:00.000000+00:00"])
    decisions = ReviewDecisions(regions, lambda: next(times))
    store = store_of(decisions, tmp_path)
    decisions.change(1, verdict="wrong")
    store.save()
    decisions.change(1, verdict="correct")
    store.save()
    again = ReviewDecisions(regions)
    store_of(again, tmp_path)
    assert again.of(1).verdict == "correct"


def test_what_two_readers_decide_at_the_same_time_is_all_kept(make, tmp_path):
    mine, theirs = make(), make()
    my_store, their_store = store_of(mine, tmp_path), store_of(theirs, tmp_path)
    mine.change(1, verdict="wrong")
    my_store.save()
    theirs.change(2, verdict="correct")
    their_store.save()
    theirs.change(1, verdict="unsure")  # later than mine
    their_store.save()
    mine.change(3, verdict="unsure")
    my_store.save()
    read = make()
    store_of(read, tmp_path)
    assert [read.of(i).verdict for i in range(1, 5)] == ["unsure", "correct", "unsure", ""]


def test_an_undo_outlives_the_older_copy_in_the_scene(make, tmp_path, node):
    decisions = make()
    store = store_of(decisions, tmp_path, node)
    decisions.change(1, verdict="wrong")
    store.save()
    before = node.GetAttribute("CalibUncertainty.Review")
    decisions.undo()
    store.save()
    node.SetAttribute("CalibUncertainty.Review", before)  # a scene that was saved in between
    again = make()
    store_of(again, tmp_path, node)
    assert again.of(1).verdict == ""


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"schema": "calib-uncertainty/review", "schema_version": 2, "decisions": []}',
        '{"schema": "calib-uncertainty/review", "schema_version": 1, "decisions": [{"region": 1}, {"verdict": "maybe"}]}',
        '{"schema": "calib-uncertainty/review", "schema_version": 1, "decisions": [{"region": 1, "verdict": 3}]}',
        '{"schema": "calib-uncertainty/review", "schema_version": 1, "decisions": 7}',
    ],
)
def test_a_file_that_is_not_understood_is_left_alone_and_named(make, tmp_path, node, text):
    (tmp_path / "review.json").write_text(text)
    decisions = make()
    store = store_of(decisions, tmp_path, node)
    assert "review.json" in store.problem
    decisions.change(1, verdict="wrong")
    assert not store.save()
    assert "review.json" in store.problem
    assert (tmp_path / "review.json").read_text(encoding="utf-8") == text
    assert json.loads(node.GetAttribute("CalibUncertainty.Review"))["decisions"][0]["verdict"] == "wrong"
    (tmp_path / "review.json").unlink()
    assert store.save()
    assert store.problem == ""


def test_decisions_are_not_taken_for_other_regions(make, regions, tmp_path):
    from CalibUncertaintyPanel.reviewDecisions import ReviewDecisions

    decisions = make()
    store = store_of(decisions, tmp_path)
    for number in (1, 2, 3):
        decisions.change(number, verdict="wrong")
    store.save()
    moved = [SimpleNamespace(**vars(region)) for region in regions]
    moved[0].peak_lps_mm = (1.0, 0.0, 40.0)  # another threshold: the same number, another place
    moved[1].kind = "possible_miss"
    other = ReviewDecisions(moved)
    store_of(other, tmp_path)
    assert [other.of(i).verdict for i in (1, 2, 3)] == ["", "", "wrong"]


def test_a_failed_write_leaves_the_earlier_file_and_nothing_half_written(tmp_path, monkeypatch, slicer_application):
    from CalibUncertaintyPanel import reviewStore

    path = tmp_path / "review.json"
    path.write_text("before")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reviewStore.os, "replace", fail)
    with pytest.raises(OSError):
        reviewStore.writeAside(path, "after")
    assert path.read_text(encoding="utf-8") == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["review.json"]
