"""Run a command and watch the memory of its whole process tree from outside (Linux: it reads /proc).

Three figures, because each alone misleads. `rss`: the sum of the resident memory of all processes at one moment; pages that forked
processes share count once in each. `pss`: the same with shared pages divided among those that share them. `hwm`: the largest
high-water mark of any single process, kept by the kernel, so no short peak escapes it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

RSS_EVERY_S, TREE_EVERY_S, PSS_EVERY_S = 0.03, 0.25, 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass
class Watched:
    """How a command went: exit status, wall seconds, peaks in MB (1e6 bytes), what it printed, and whether it was stopped."""

    returncode: int
    wall_s: float
    rss_mb: float
    pss_mb: float
    hwm_mb: float
    processes: int
    output: str
    stopped: str = ""


def run_watched(command: list[str], limit_mb: float | None = None, timeout_s: float | None = None, env=None) -> Watched:
    """Run a command to its end. Above limit_mb of summed resident memory, or after timeout_s, its whole tree is killed."""
    began = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    watch = TreeMemory(child.pid, limit_mb, None if timeout_s is None else began + timeout_s)
    watch.start()
    try:
        output, _ = child.communicate()
    except BaseException:
        kill_group(child.pid)
        child.wait()
        raise
    finally:
        watch.stop()
    wall = time.perf_counter() - began
    return Watched(
        child.returncode, wall, watch.rss / 1e6, watch.pss / 1e6, watch.hwm / 1e6, watch.processes, output, watch.stopped
    )


def kill_group(pid: int) -> None:
    """Kill a process that was started in a session of its own, with all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class TreeMemory(threading.Thread):
    """Samples a process and its descendants until stopped; peaks in bytes in `rss`, `pss`, `hwm`."""

    def __init__(self, pid: int, limit_mb: float | None = None, deadline: float | None = None) -> None:
        super().__init__(daemon=True)
        self.rss = self.pss = self.hwm = 0
        self.processes = 1
        self.stopped = ""
        self._root, self._limit, self._deadline = pid, limit_mb, deadline
        self._ended = threading.Event()

    def stop(self) -> None:
        """No more samples."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        tree, looked, weighed = [self._root], 0.0, 0.0
        while not self._ended.is_set():
            now = time.perf_counter()
            if now - looked >= TREE_EVERY_S:
                tree, looked = descendants(self._root), now
                self.processes = max(self.processes, len(tree))
                self.hwm = max([self.hwm, *(_status_bytes(pid, "VmHWM") for pid in tree)])
            resident = sum(_resident(pid) for pid in tree)
            # weighing costs milliseconds a gigabyte: now and then, more often while the memory rises
            if now - weighed >= (PSS_EVERY_S / 5 if resident > self.rss else PSS_EVERY_S):
                self.pss, weighed = max(self.pss, sum(_proportional(pid) for pid in tree)), time.perf_counter()
            self.rss = max(self.rss, resident)
            self._stop_if_too_much(resident, now)
            self._ended.wait(RSS_EVERY_S)

    def _stop_if_too_much(self, resident: int, now: float) -> None:
        if self.stopped:
            return
        if self._limit is not None and resident > self._limit * 1e6:
            self.stopped = f"stopped at {resident / 1e9:.1f} GB of memory"
        elif self._deadline is not None and now > self._deadline:
            self.stopped = "stopped: it took too long"
        if self.stopped:
            kill_group(self._root)


def descendants(root: int) -> list[int]:
    """A process and all that came from it, children of children too."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            text = _read(f"/proc/{entry}/stat")
            if text:  # "pid (name, which may hold anything) state ppid ..."
                children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def own_peak_mb() -> float:
    """High-water mark of this process so far, MB; unlike ru_maxrss it holds nothing of the process that started it."""
    return _status_bytes(os.getpid(), "VmHWM") / 1e6


def memory_mb(name: str = "MemAvailable") -> float:
    """A line of /proc/meminfo, MB."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(name)


def _resident(pid: int) -> int:
    text = _read(f"/proc/{pid}/statm")
    return int(text.split()[1]) * _PAGE if text else 0


def _proportional(pid: int) -> int:
    return _kilobytes(_read(f"/proc/{pid}/smaps_rollup"), "Pss")


def _status_bytes(pid: int, name: str) -> int:
    return _kilobytes(_read(f"/proc/{pid}/status"), name)


def _kilobytes(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # it ended between two looks
        return ""
