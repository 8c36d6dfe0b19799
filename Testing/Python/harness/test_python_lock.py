"""Threads stand still while the application's C++ waits, as in Slicer."""

import sys
import threading
import time

import pytest

LETTING_GO = 200  # times: reading a file, sleeping, a large operation of numpy


def _thread(done):
    def work():
        for _ in range(LETTING_GO):
            time.sleep(0)
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="PySide6 lets go of the lock there")
def test_a_thread_gets_on_only_when_python_code_of_the_main_thread_runs(slicer_application):
    from Harness import python_lock

    done, passes = threading.Event(), 0
    thread = _thread(done)
    while not done.is_set() and passes < 10 * LETTING_GO:
        python_lock.processEvents()
        python_lock.wait(0.006)
        passes += 1
    thread.join()
    # one or two would do if it ran while the application waits; on a busy machine it gets several turns in one go
    assert passes > LETTING_GO / 20


def test_a_thread_that_the_main_thread_waits_for_gets_on(slicer_application):
    done = threading.Event()
    _thread(done).join(10)
    assert done.is_set()
