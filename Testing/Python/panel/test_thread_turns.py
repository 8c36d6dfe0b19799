"""Threads come to an end although Slicer's main thread keeps Python's lock while it waits for events."""

import time

LETTING_GO = 300  # as often a thread lets go of the lock that reads a checkpoint of 150 MB piece by piece


def _lettingGo():
    for _ in range(LETTING_GO):
        time.sleep(0)
    return "done"


def _passesUntil(condition):
    from Harness import python_lock

    passes = 0
    while not condition() and passes < 3 * LETTING_GO:
        python_lock.processEvents()
        python_lock.wait(0.005)
        passes += 1
    return passes


def test_an_answer_needs_few_turns_of_the_main_thread(panel):
    from CalibUncertaintyPanel.backgroundAnswer import BackgroundAnswer

    answers, question = [], BackgroundAnswer("test")
    question.start(_lettingGo)
    passes = _passesUntil(lambda: answers or answers.extend(filter(None, [question.poll()])) or answers)
    assert answers[0].value == "done"
    assert passes < LETTING_GO / 4


def test_turns_end_with_the_last_thread(panel):
    from CalibUncertaintyPanel.backgroundAnswer import BackgroundAnswer
    from CalibUncertaintyPanel.threadTurns import TURNS

    question = BackgroundAnswer("test")
    question.start(_lettingGo)
    assert TURNS._timer.isActive()
    _passesUntil(lambda: not TURNS._timer.isActive())
    assert not TURNS._timer.isActive()
    assert question.poll().value == "done"


def test_the_output_of_a_talkative_process_is_there_with_few_polls(panel, run_job, tmp_path):
    from Harness import python_lock

    job = run_job("garbage")
    polls = 0
    while not job.finished and polls < 400:
        job.poll()
        python_lock.processEvents()
        python_lock.wait(0.02)
        polls += 1
    assert job.finished
    assert "not json" in job.logPath.read_text(encoding="utf-8")


def test_what_is_to_happen_soon_happens_once_and_its_timer_goes(panel, monkeypatch, slicer_application):
    import qt
    from CalibUncertaintyPanel import slicerCompat

    gone, happened, made = [], [], qt.QTimer

    def timer():
        one = made()
        one.connect("destroyed()", lambda: gone.append("timer"))
        return one

    monkeypatch.setattr(qt, "QTimer", timer)
    for name in ("first", "second"):
        slicerCompat.soon(lambda name=name: happened.append(name))
    assert happened == []
    slicer_application.waitUntil(lambda: len(gone) == 2, seconds=10, what="the timers' end")
    assert happened == ["first", "second"]
