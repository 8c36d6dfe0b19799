"""Turns for threads. Slicer's main thread keeps Python's lock while it waits for events: a thread of Python runs only while Python
code of the main thread waits for it. Left alone, it would stand still at every file that it reads."""

import qt

TURN_SECONDS = 0.015  # as long as Slicer does nothing else
INTERVAL_MS = 5  # between two turns, for everything else that Slicer has to do


class ThreadTurns:
    """A timer that runs as long as there are threads that have not ended."""

    def __init__(self):
        self._threads = []
        self._timer = None

    def give(self, thread):
        """Let a thread that has just been started come to its end, as fast as Slicer can be without for it."""
        self._threads.append(thread)
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(INTERVAL_MS)
            self._timer.connect("timeout()", self._onTimer)
        self._timer.start()

    def _onTimer(self):
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if self._threads:
            self._threads[0].join(TURN_SECONDS)  # while the main thread waits, all of them run
        else:
            self._timer.stop()


TURNS = ThreadTurns()
