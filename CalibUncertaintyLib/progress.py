"""Progress of a run: one object that the verbs report to, shown as a bar, as JSON lines, or handed to a callback."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import Cancelled

# The stages that are long, and whose reports are so alike that the time left of them can be told
TIMED_STAGES = ("predict", "previous stage")
REPORTS_BEFORE_TELLING = 3
SILENT_AT_MOST_S = 10.0  # a file or pipe gets a line at least this often, as long as there is something to report
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Progress:
    """What a verb reports to. This one says nothing; the others show it.

    A job is cut into stages, each a part [start, stop] of the whole. `fraction` is of the whole job and never goes back.
    `cancelled` is asked at every report; once it answers True the run ends with `Cancelled`. `remaining_s` is the time that
    is left of the present stage, in seconds, None where it is not known.

    `stages` holds for each stage that has ended {"s": wall seconds, "peak_mb": largest resident memory of this process in MB}
    (peak_mb None where the system does not tell). Linux keeps that mark and lets it be set back, so it is the stage's own;
    elsewhere `peak_is_of_stage` is False and the mark is the largest since the process began. Setting it back means that the
    system's own figure (ru_maxrss, VmHWM) no longer tells the peak of the whole run: `peak_mb` does.
    """

    def __init__(self, cancelled: Callable[[], bool] | None = None) -> None:
        self.fraction = 0.0
        self.stage_name = ""
        self.remaining_s: float | None = None
        self.timings: dict[str, float] = {}
        self.stages: dict[str, dict[str, float | None]] = {}
        self._memory = _PeakMemory()
        self._running: list[tuple[str, float]] = []  # stages that have not ended, and when they began
        self._cancelled = cancelled
        self._start, self._stop = 0.0, 1.0
        self._subject = ""  # what the present stage is about, such as a case; said with each of its reports
        self._reports: list[
            tuple[float, float]
        ] = []  # (seconds, fraction of the stage), the first and the last of them
        self._report_count = 0

    @property
    def peak_is_of_stage(self) -> bool:
        """Whether `peak_mb` of a stage is its own; else it is the largest since the process began."""
        return self._memory.can_reset

    @property
    def peak_mb(self) -> float | None:
        """Largest resident memory since `begin` (since the process began, where `peak_is_of_stage` is False), MB."""
        return self._memory.highest()

    def stages_so_far(self) -> dict[str, dict[str, float | None]]:
        """`stages`, and those that have not ended as far as they have come: what the last stage itself writes down."""
        found = {name: dict(stage) for name, stage in self.stages.items()}
        for (name, began), peak in zip(self._running, self._memory.of_open_stages(), strict=True):
            _add_stage(found, name, time.perf_counter() - began, peak)
        return found

    @contextmanager
    def stage(self, name: str, start: float, stop: float, message: str = "") -> Iterator[Progress]:
        """A named part of the job; its wall time is added to `timings` in seconds, and with its peak memory to `stages`.

        Stages may lie within one another; what happens in the inner one counts for both.
        """
        outer = (
            self.stage_name, self._start, self._stop, self._reports, self._report_count, self.remaining_s, self._subject,
        )  # fmt: skip
        nested = self._memory.enter()
        self.stage_name, self._start, self._stop, self._subject = name, start, stop, message
        self._reports, self._report_count, self.remaining_s = [], 0, None
        self._running.append((name, time.perf_counter()))
        try:
            self.report(0.0)
            yield self
        finally:
            seconds, peak = time.perf_counter() - self._running.pop()[1], self._memory.leave()
            _add_stage(self.stages, name, seconds, peak)
            self.timings[name] = self.stages[name]["s"]
            self.remaining_s, self._subject = None, ""
            if nested:
                (
                    self.stage_name, self._start, self._stop, self._reports, self._report_count, self.remaining_s, self._subject,
                ) = outer  # fmt: skip

    def report(self, fraction_of_stage: float, message: str = "") -> None:
        """Say how far the current stage is, 0 to 1, and what is done; what the stage is about is said before it."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("stopped on request; nothing was written")
        part = min(max(fraction_of_stage, 0.0), 1.0)
        self.fraction = max(self.fraction, self._start + part * (self._stop - self._start))
        self._time(part)
        self.show(": ".join(dict.fromkeys(part for part in (self._subject, message) if part)))

    def _time(self, part: float) -> None:
        """The rate since the first report, which takes longer than the others, goes on to the end of the stage."""
        if self.stage_name not in TIMED_STAGES or part <= (self._reports[-1][1] if self._reports else 0.0):
            return
        self._reports = [*self._reports[:1], (time.perf_counter(), part)]
        self._report_count += 1
        if self._report_count < REPORTS_BEFORE_TELLING:
            return
        (first_at, first), (last_at, last) = self._reports
        self.remaining_s = (last_at - first_at) / (last - first) * (1.0 - part)

    def begin(self) -> None:
        """A new job: what an earlier one left is forgotten."""
        self.fraction, self.remaining_s = 0.0, None
        self.timings.clear()
        self.stages.clear()
        self._memory = _PeakMemory()
        self._memory.begin()

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
    """A bar on one line of a terminal; plain lines, one a stage, tenth or ten seconds, where the output is a file."""

    def __init__(self, stream: TextIO | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        super().__init__(cancelled)
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last_stage, self._drawn, self._written = "", 0.0, 0.0

    def show(self, message: str) -> None:
        now, text = time.perf_counter(), f"{message or self.stage_name}{self._left()}"
        if self._live:
            if now - self._drawn < 0.1 and self.fraction < 1:
                return
            self._drawn = now
            filled = round(24 * self.fraction)
            bar = f"[{'#' * filled}{'.' * (24 - filled)}]"
            self._stream.write("\r\x1b[K" + f"{bar} {100 * self.fraction:3.0f}% {text}"[:160])
        elif (
            self.stage_name != self._last_stage
            or self.fraction >= self._drawn + 0.1
            or now >= self._written + SILENT_AT_MOST_S
        ):
            self._drawn, self._written = self.fraction, now
            self._stream.write(f"{100 * self.fraction:3.0f}% {text}\n")
        self._last_stage = self.stage_name
        self._stream.flush()

    def _left(self) -> str:
        if self.remaining_s is None or self.remaining_s < 1.0:
            return ""
        left = f"{self.remaining_s / 60:.0f} min" if self.remaining_s >= 300 else f"{self.remaining_s:.0f} s"
        return f", about {left} left of this step"

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
    """One JSON object a line: `progress` (stage, fraction of the whole, message), `warning`, `result` (folder), `error`.

    `progress` has `remaining_s` as well, the seconds that are left of the present stage, as soon as that can be told.
    """

    def __init__(self, stream: TextIO, cancelled: Callable[[], bool] | None = None) -> None:
        super().__init__(cancelled)
        self._stream = stream

    def emit(self, kind: str, **fields) -> None:
        """Write one line; non-finite numbers never appear."""
        self._stream.write(json.dumps({"type": kind, **fields}, allow_nan=False) + "\n")
        self._stream.flush()

    def show(self, message: str) -> None:
        left = {} if self.remaining_s is None else {"remaining_s": round(self.remaining_s, 1)}
        self.emit("progress", stage=self.stage_name, fraction=round(self.fraction, 4), message=message, **left)

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def done(self, message: str) -> None:
        self.emit("result", folder=message)


def _add_stage(stages: dict, name: str, seconds: float, peak: float | None) -> None:
    known = stages.setdefault(name, {"s": 0.0, "peak_mb": None})
    known["s"] += seconds
    known["peak_mb"] = max((mb for mb in (known["peak_mb"], peak) if mb is not None), default=None)


class _PeakMemory:
    """The high-water mark of this process's resident memory, for each of several stages that may lie within one another."""

    def __init__(self) -> None:
        self._open: list[float | None] = []
        self._seen: float | None = None
        self.can_reset = False

    def begin(self) -> None:
        """Forget what was before, where the system can."""
        self.can_reset = _reset_mark()

    def enter(self) -> bool:
        """A stage begins; whether it lies within another."""
        self._take()
        self._open.append(None)
        return len(self._open) > 1

    def leave(self) -> float | None:
        """The peak of the stage that ends, MB."""
        self._take()
        return self._open.pop()

    def of_open_stages(self) -> list[float | None]:
        """The peaks so far of the stages that have not ended, the outermost first, MB."""
        self._take()
        return list(self._open)

    def highest(self) -> float | None:
        """The peak of everything so far, MB."""
        self._take()
        return self._seen

    def _take(self) -> None:
        """Let the mark count for every stage that is open, and set it back."""
        mark = _mark_mb()
        if mark is None:
            return
        self._open = [mark if peak is None else max(peak, mark) for peak in self._open]
        self._seen = mark if self._seen is None else max(self._seen, mark)
        self.can_reset = _reset_mark()


def _reset_mark() -> bool:
    """Set Linux's mark back to what is resident now; False where that cannot be done."""
    try:
        handle = os.open(_CLEAR, os.O_WRONLY)
    except OSError:  # not Linux, or not allowed
        return False
    try:
        os.write(handle, b"5")
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _mark_mb() -> float | None:
    """High-water mark of resident memory, MB (1e6 bytes); None where the system does not tell (Windows)."""
    try:
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError, IndexError):
        pass  # not Linux, or a /proc that says it otherwise (some containers): the next way tells nearly the same
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
