"""Progress of a run: one object that the verbs report to, shown as a bar, as JSON lines, or handed to a callback."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TextIO

from .errors import Cancelled


class Progress:
    """What a verb reports to. This one says nothing; the others show it.

    A job is cut into stages, each a part [start, stop] of the whole. `fraction` is of the whole job and never goes back.
    `cancelled` is asked at every report; once it answers True the run ends with `Cancelled`.
    """

    def __init__(self, cancelled: Callable[[], bool] | None = None) -> None:
        self.fraction = 0.0
        self.stage_name = ""
        self.timings: dict[str, float] = {}
        self._cancelled = cancelled
        self._start, self._stop = 0.0, 1.0

    @contextmanager
    def stage(self, name: str, start: float, stop: float, message: str = ""):
        """A named part of the job; its wall time is added to `timings` in seconds."""
        self.stage_name, self._start, self._stop = name, start, stop
        began = time.perf_counter()
        self.report(0.0, message)
        try:
            yield self
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - began

    def report(self, fraction_of_stage: float, message: str = "") -> None:
        """Say how far the current stage is, 0 to 1."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("stopped on request; nothing was written")
        part = min(max(fraction_of_stage, 0.0), 1.0)
        self.fraction = max(self.fraction, self._start + part * (self._stop - self._start))
        self.show(message)

    def begin(self) -> None:
        """A new job: what an earlier one left is forgotten."""
        self.fraction = 0.0
        self.timings.clear()

    def finish(self) -> None:
        """The whole job is done."""
        self.fraction = 1.0
        self.show("complete")

    def show(self, message: str) -> None:
        """For the ways of showing to override."""

    def warn(self, message: str) -> None:
        """A sentence that the user must see but that does not stop the run."""

    def done(self, message: str) -> None:
        """The job is complete."""


class TerminalProgress(Progress):
    """A bar on one line of a terminal; plain lines, one a stage or tenth, where the output is a file."""

    def __init__(self, stream: TextIO | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        super().__init__(cancelled)
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last_stage, self._began, self._drawn = "", time.perf_counter(), 0.0

    def show(self, message: str) -> None:
        if self._live:
            now = time.perf_counter()
            if now - self._drawn < 0.1 and self.fraction < 1:
                return
            self._drawn = now
            filled = round(24 * self.fraction)
            left = (now - self._began) * (1 / self.fraction - 1) if self.fraction > 0.05 else None
            remaining = f", about {left:.0f} s left" if left is not None else ""
            line = f"[{'#' * filled}{'.' * (24 - filled)}] {100 * self.fraction:3.0f}% {self.stage_name} {message}{remaining}"
            self._stream.write("\r\x1b[K" + line[:160])
        elif self.stage_name != self._last_stage or self.fraction >= self._drawn + 0.1:
            self._drawn = self.fraction
            self._stream.write(f"{100 * self.fraction:3.0f}% {self.stage_name} {message}".rstrip() + "\n")
        self._last_stage = self.stage_name
        self._stream.flush()

    def warn(self, message: str) -> None:
        self._line(f"Warning: {message}")

    def done(self, message: str) -> None:
        self._line(message)

    def _line(self, text: str) -> None:
        self._stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
        self._stream.flush()


class QuietProgress(TerminalProgress):
    """No bar; warnings and answers are shown all the same."""

    def show(self, message: str) -> None:
        """A quiet run says nothing of its way."""


class JsonProgress(Progress):
    """One JSON object a line: `progress` (stage, fraction of the whole, message), `warning`, `result` (folder), `error`."""

    def __init__(self, stream: TextIO, cancelled: Callable[[], bool] | None = None) -> None:
        super().__init__(cancelled)
        self._stream = stream

    def emit(self, kind: str, **fields) -> None:
        """Write one line; non-finite numbers never appear."""
        self._stream.write(json.dumps({"type": kind, **fields}, allow_nan=False) + "\n")
        self._stream.flush()

    def show(self, message: str) -> None:
        self.emit("progress", stage=self.stage_name, fraction=round(self.fraction, 4), message=message)

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def done(self, message: str) -> None:
        self.emit("result", folder=message)
