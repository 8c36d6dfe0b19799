"""One run of the computation in a process of its own. No Qt here: a timer of the panel calls `poll`.

The process gets a request as a JSON file and answers on stdout, one JSON object a line. Whatever else it or the libraries
in it print is kept in the log. Two threads only read its pipes and put what they find into a queue.
"""

import json
import os
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from . import processTree

TAIL_LINES = 200
LONGEST_LINE = 65536
STALL_SECONDS = 180.0
LAUNCHER_WORDS = "exit abnormally - Report the problem"  # PythonSlicer, when the Python that it launched was killed
READER_PATIENCE_SECONDS = 1.0  # pipes may stay open in a grandchild when the process itself is gone
READER_TURN_SECONDS = (
    0.003  # Slicer's main thread keeps Python's lock, see `threadTurns`: reading needs a turn with each poll
)


@dataclass(frozen=True)
class Event:
    """What `poll` reports. kind: progress, warning, stalled, result, error or cancelled."""

    kind: str
    message: str = ""
    stage: str = ""
    fraction: float = 0.0
    folder: str = ""


class Job:
    """A run: `start`, then `poll` until `finished`; `cancel` at any time."""

    def __init__(self, command, request, folder, libraryFolder, stallSeconds=STALL_SECONDS, environment=None):
        """
        :param command: program and first arguments; the request and `--progress json` are put behind it.
        :param request: what is written to request.json.
        :param folder: an existing folder for request.json and log.txt.
        :param libraryFolder: folder that holds the CalibUncertaintyLib package, for the process's import path.
        :param stallSeconds: silence after which `poll` reports once that nothing comes any more.
        :param environment: further environment variables of the process.
        """
        self.command = list(command)
        self.request = request
        self.folder = Path(folder)
        self.libraryFolder = Path(libraryFolder)
        self.stallSeconds = stallSeconds
        self.environment = dict(environment or {})
        self.tail = deque(maxlen=TAIL_LINES)
        self.fraction = 0.0
        self.finished = False
        self._process = None
        self._readers = []
        self._queue = queue.Queue()
        self._log = None
        self._outcome = None
        self._lastWords = ""
        self._crashed = self._faulted = False
        self._startedAt = self._heardAt = time.monotonic()
        self._endedAt = None
        self._stallReported = False

    @property
    def logPath(self):
        """File with everything the process has printed."""
        return self.folder / "log.txt"

    @property
    def running(self):
        """Whether the process has been started and its outcome is not known yet."""
        return self._process is not None and not self.finished

    @property
    def elapsedSeconds(self):
        """Time from the start to the end, or to now."""
        return (self._endedAt or time.monotonic()) - self._startedAt

    @property
    def remainingSeconds(self):
        """Estimate from the time used so far, or None as long as that would be a guess."""
        if self.fraction < 0.05 or self.elapsedSeconds < 2.0:
            return None
        return self.elapsedSeconds * (1.0 - self.fraction) / self.fraction

    def start(self):
        """Write the request and start the process.

        :raises OSError: if the folder cannot be written or the program not be started.
        """
        requestPath = self.folder / "request.json"
        requestPath.write_text(json.dumps(self.request, indent=1), encoding="utf-8")
        command = [*self.command, "run", str(requestPath), "--progress", "json"]
        self._log = self.logPath.open("w", encoding="utf-8", errors="replace")
        self._startedAt = self._heardAt = time.monotonic()
        try:
            self._process = processTree.start(command, self._environment())
        except OSError:
            self._log.close()
            raise
        self._readers = [
            threading.Thread(  # pythonqt: ok, see `_letRead`
                target=self._read, args=(name,), name=f"CalibUncertainty-{name}", daemon=True
            )
            for name in ("stdout", "stderr")
        ]
        for reader in self._readers:
            reader.start()

    def poll(self):
        """Take what has arrived since the last call; never waits for more than the reading of it.

        :return: list of `Event`; the last one of a run is result, error or cancelled.
        """
        if not self.running:
            return []
        self._letRead()
        events = self._takeLines()
        if self._process.poll() is None:
            return events + self._stallNotice()
        self._endedAt = self._endedAt or time.monotonic()
        if self._outputIsComing():
            return events
        events += self._takeLines()
        events.append(self._end(self._outcome or self._unexpectedEnd()))
        return events

    def cancel(self):
        """Stop the process and all its children, within a second; the run is finished then."""
        if not self.running:
            return
        processTree.stop(self._process)
        self._end(Event("cancelled", _("Cancelled. Nothing was kept.")))

    def details(self):
        """Text for a bug report: command, exit code and the end of the log."""
        lines = [f"Command: {' '.join(self.command)}", f"Log: {self.logPath}"]
        if self._process is not None:
            lines.append(f"Exit code: {self._process.poll()}")
        return "\n".join([*lines, "", *self.tail])

    def _environment(self):
        environment = dict(os.environ)
        paths = [str(self.libraryFolder), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment.update(PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", PYTHONFAULTHANDLER="1")
        environment.update(self.environment)
        return environment

    def _read(self, name):
        stream = getattr(self._process, name)
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            self._queue.put((name, line.decode("utf-8", errors="replace").rstrip("\r\n")))

    def _takeLines(self):
        events = []
        while True:
            try:
                name, line = self._queue.get_nowait()
            except queue.Empty:
                return events
            self._heardAt, self._stallReported = time.monotonic(), False
            event = _parse(line) if name == "stdout" else None
            if event is None:
                self._hear(line)
                self._keep(line)
            elif event.kind in ("result", "error"):
                self._outcome = event
                self._keep(f"{event.kind}: {event.message or event.folder}")
            else:
                self.fraction = max(self.fraction, event.fraction)
                self._keep(f"{event.kind}: {event.stage} {event.message}")
                events.append(event)

    def _hear(self, line):
        if LAUNCHER_WORDS in line:
            self._crashed = True  # the launcher's words; those of the computation are worth more
            return
        self._faulted = self._faulted or line.startswith("Fatal Python error")
        self._lastWords = line.strip() or self._lastWords

    def _keep(self, line):
        if self.tail and self.tail[-1] == line[:500]:
            return  # a stage that reports the same again and again must not push out what matters
        self.tail.append(line[:500])
        self._log.write(line + "\n")
        self._log.flush()

    def _letRead(self):
        reader = next((reader for reader in self._readers if reader.is_alive()), None)
        if reader is not None:
            reader.join(READER_TURN_SECONDS)  # the main thread waits: both of them run

    def _outputIsComing(self):
        reading = any(reader.is_alive() for reader in self._readers)
        return reading and time.monotonic() - self._endedAt < READER_PATIENCE_SECONDS

    def _stallNotice(self):
        silence = time.monotonic() - self._heardAt
        if self._stallReported or silence < self.stallSeconds:
            return []
        self._stallReported = True
        text = _("No sign of life for {seconds:.0f} s. It may still be computing; Cancel stops it.")
        return [Event("stalled", text.format(seconds=silence), fraction=self.fraction)]

    def _unexpectedEnd(self):
        code = self._process.returncode
        how = _("was ended by signal {code}") if code < 0 else _("ended with exit code {code}")
        if self._crashed:
            how = _("crashed or was killed")  # a launcher does not tell the signal
        killed = code == -9 or (self._crashed and not self._faulted)
        hint = _(", which usually means that memory ran out") if killed else ""
        words = self._lastWords[:200] or _("(it printed nothing)")
        text = _("The computation {how} without a result{hint}. Last words: {words}")
        return Event("error", text.format(how=how.format(code=abs(code)), hint=hint, words=words))

    def _end(self, outcome):
        processTree.sweep(self._process)
        self._endedAt = self._endedAt or time.monotonic()
        self.finished = True
        self._log.close()
        return outcome


def _parse(line):
    """An `Event` from a line of the protocol, or None when it is anything else."""
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
        kind = content.get("type")
        if kind not in ("progress", "warning", "result", "error"):
            return None
        if kind == "result" and not content.get("folder"):
            return None
        return Event(
            kind,
            str(content.get("message", "")),
            str(content.get("stage", "")),
            min(max(float(content.get("fraction", 0.0)), 0.0), 1.0),
            str(content.get("folder", "")),
        )
    except (ValueError, TypeError):
        return None
