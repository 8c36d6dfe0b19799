"""Several CTs one after the other: each with the choices it was put in with, and nothing about one stops the others."""

import pytest


@pytest.fixture
def add(panel, model):
    """Function that puts a new CT into the queue."""
    import slicer
    from CalibUncertaintyPanel import testing

    panel.queue.queue.items.clear()  # the panel is one for all tests

    def put(name, **options):
        node = testing.addPhantom(slicer.mrmlScene, name, **options)
        panel.ui.ctSelector.setCurrentNode(node)
        panel.ui.addToQueueButton.click()
        return node

    return put


@pytest.fixture
def ended(panel, slicer_application):
    def wait(seconds=60):
        slicer_application.waitUntil(
            lambda: not panel.run.running and not panel.queue.queue.waiting, seconds=seconds, what="the queue"
        )
        return [item.state for item in panel.queue.queue.items]

    return wait


def rows(panel):
    return [panel.ui.queueListWidget.item(row).text() for row in range(panel.ui.queueListWidget.count)]


def test_the_list_is_not_there_until_something_is_in_it(panel, ct, model):
    assert not panel.ui.queueWidget.isVisibleTo(panel.widget)
    assert panel.ui.addToQueueButton.enabled


def test_cts_run_in_their_order_and_the_first_result_is_shown_and_stays(panel, add, ended, behave):
    behave("slow")
    first, second = add("Erste CT"), add("Zweite/CT")
    assert ended() == ["done", "done"]
    assert rows(panel) == ["Erste CT – done", "Zweite/CT – done"]
    assert panel.shownCt() is first  # whoever reads it is not taken to the next patient
    panel.ui.queueListWidget.setCurrentRow(1)
    assert panel.ui.queueShowButton.enabled
    panel.ui.queueShowButton.click()
    assert panel.shownCt() is second
    assert str(panel.overlays.result.folder) == panel.queue.queue.items[1].folder


def test_each_ct_runs_with_the_choices_it_was_put_in_with(panel, add, ended, tmp_path, monkeypatch):
    from CalibUncertaintyPanel import runs

    requests = []
    original = runs.makeRequest

    def remember(*arguments):
        requests.append(original(*arguments)["arguments"])
        return original(*arguments)

    monkeypatch.setattr(runs, "makeRequest", remember)
    panel.parameterNode.roiComputedMm = 7.0
    panel.parameterNode.mirroring = False
    panel.parameterNode.outputFolder = tmp_path
    add("A")
    panel.parameterNode.roiComputedMm = 9.0
    panel.parameterNode.mirroring = True
    panel.parameterNode.outputFolder = tmp_path / "b"
    (tmp_path / "b").mkdir()
    add("B")
    panel.parameterNode.roiComputedMm = 11.0
    assert ended() == ["done", "done"]
    assert [(r["roi_mm"], r["mirroring"]) for r in requests] == [(7.0, False), (9.0, True)]
    assert [item.folder.split("/")[-2] for item in panel.queue.queue.items] == [tmp_path.name, "b"]


def test_one_that_fails_is_told_in_the_list_without_a_box_to_click_away_and_the_next_one_runs(
    panel, add, ended, behave
):
    behave("refuse")
    add("A")
    panel.queue._startNext()
    behave("ok")
    add("B")
    assert ended() == ["failed", "done"]
    assert "has no fold 7" in rows(panel)[0]
    assert panel.ui.copyDetailsButton.enabled


def test_a_ct_that_was_deleted_while_it_waited_fails_and_no_other_takes_its_place(panel, add, ended, behave):
    import slicer

    behave("slow")
    add("A")
    gone = add("B")
    add("C")
    slicer.mrmlScene.RemoveNode(gone)
    behave("ok")
    assert ended() == ["done", "failed", "done"]
    assert "not in the scene" in rows(panel)[1]


def test_cancelling_the_one_that_runs_goes_on_with_the_next(panel, add, ended, behave, slicer_application):
    behave("hang")
    add("A")
    slicer_application.waitUntil(lambda: panel.run.running, seconds=10)
    behave("ok")
    add("B")
    panel.ui.queueListWidget.setCurrentRow(0)
    panel.ui.queueCancelButton.click()
    assert ended() == ["cancelled", "done"]
    assert panel.ui.queueCancelButton.text == "Remove"
    panel.ui.queueCancelButton.click()
    assert rows(panel) == ["B – done"]


def test_cancel_all_ends_what_runs_and_what_waits_and_a_second_click_empties_the_list(
    panel, add, behave, slicer_application
):
    behave("hang")
    add("A")
    add("B")
    slicer_application.waitUntil(lambda: panel.run.running, seconds=10)
    panel.ui.queueCancelAllButton.click()
    assert not panel.run.running
    assert [item.state for item in panel.queue.queue.items] == ["cancelled", "cancelled"]
    slicer_application.processEvents()
    assert not panel.run.running
    panel.ui.queueCancelAllButton.click()
    assert rows(panel) == []
    assert not panel.ui.queueWidget.isVisibleTo(panel.widget)


def test_closing_the_scene_ends_the_queue_without_touching_the_next_patient(
    panel, add, ended, behave, slicer_application
):
    import slicer
    from CalibUncertaintyPanel import testing

    behave("slow")
    add("A")
    add("B")
    slicer_application.waitUntil(lambda: panel.run.running, seconds=10)
    slicer.mrmlScene.Clear(0)
    other = testing.addPhantom(slicer.mrmlScene, "Next patient")
    panel.ui.ctSelector.setCurrentNode(other)
    assert ended() == ["done", "failed"]
    assert panel.overlays is None
    assert "not in the scene any more" in panel.ui.errorLabel.text


def test_reloading_the_module_starts_nothing_of_the_queue_any_more(panel, add, behave, slicer_application):
    import slicer

    behave("hang")
    add("A")
    add("B")
    slicer_application.waitUntil(lambda: panel.run.running, seconds=10)
    job = panel.run.job
    slicer.util.reloadScriptedModule("CalibUncertainty")
    assert job.finished
    slicer_application.processEvents()
    assert panel.run.job is job
    assert [item.state for item in panel.queue.queue.items] == ["running", "cancelled"]


def test_a_refused_install_ends_all_that_wait_with_one_question(panel, add, slicer_application, monkeypatch):
    from CalibUncertaintyPanel import runSection

    asked = []
    monkeypatch.setattr(runSection.install, "ensure", lambda *_: asked.append(1) or "Nothing was installed.")
    panel.logic.command = None
    add("A")
    add("B")
    slicer_application.waitUntil(lambda: not panel.queue.queue.waiting, seconds=10)
    assert [item.state for item in panel.queue.queue.items] == ["failed", "failed"]
    assert len(asked) == 1


def test_a_run_started_with_run_is_not_in_the_list_and_the_queue_waits_for_it(
    panel, add, ended, behave, finish, ct, model
):
    behave("slow")
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.ui.runButton.click()
    add("A")
    assert rows(panel) == ["A – waiting"]
    assert ended() == ["done"]
    assert panel.shownCt() is ct


def test_two_results_of_one_name_and_second_do_not_share_a_folder(panel, ct, model, tmp_path, monkeypatch):
    from CalibUncertaintyPanel import runs

    monkeypatch.setattr(runs.time, "strftime", lambda _: "2030-01-01 10-00-00")
    panel.parameterNode.outputFolder = tmp_path
    first = runs.makeRequest(panel.parameterNode, model, tmp_path, "CT")["arguments"]["out"]
    from pathlib import Path

    Path(first).mkdir()
    second = runs.makeRequest(panel.parameterNode, model, tmp_path, "CT")["arguments"]["out"]
    assert second != first
    assert Path(second).parent == tmp_path


def test_one_that_cannot_be_started_for_a_reason_nobody_foresaw_does_not_hold_up_the_next(
    panel, add, ended, monkeypatch
):
    from CalibUncertaintyPanel import runs

    real, faults = runs.startRun, [ZeroDivisionError("of the test")]

    def start(*choices):
        if faults:
            raise faults.pop()
        return real(*choices)

    monkeypatch.setattr(runs, "startRun", start)
    add("A")
    add("B")
    ended()
    first, second = panel.queue.queue.items
    assert "of the test" in first.message
    assert (first.state, second.state) == ("failed", "done")
