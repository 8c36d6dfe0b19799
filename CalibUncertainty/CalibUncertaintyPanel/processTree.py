"""Start a process that can be stopped together with everything it has started, on POSIX and on Windows."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_SECONDS = 0.4  # for the computation to remove what it has half written
POLL_SECONDS = 0.02
WINDOWS_SECONDS = 2.0
ON_WINDOWS = sys.platform == "win32"


def start(command, environment):
    """Start a command in a process group of its own, without a console window.

    :param command: program and arguments, a list of strings.
    :param environment: its whole environment.
    :return: `subprocess.Popen` with pipes for stdout and stderr, in bytes.
    :raises OSError: if the program cannot be started.
    """
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    if ON_WINDOWS:
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["start_new_session"] = True
    return subprocess.Popen(command, **options)


def stop(process):
    """End a process and all its descendants, within a second; they get a moment to end by themselves first.

    :param process: what `start` returned.
    """
    if ON_WINDOWS:
        # taskkill walks the tree by itself; /F because a process without a window cannot be asked to close.
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(process.pid)],
            capture_output=True,
            creationflags=subprocess.CREATE_NO_WINDOW,
            check=False,
        )
        try:
            process.wait(WINDOWS_SECONDS)
        except subprocess.TimeoutExpired:
            logging.warning("CalibUncertainty: process %d has not ended yet", process.pid)
        return
    # Those that left the group (a new session of their own) are found through their parents, before these are gone.
    family = descendants(process.pid)
    _signal(os.killpg, process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    # The first process may be a launcher that dies at once: its children are to have their moment as well.
    while time.monotonic() < deadline and _groupLives(process):
        time.sleep(POLL_SECONDS)
    _signal(os.killpg, process.pid, signal.SIGKILL)
    for pid in family:
        _signal(os.kill, pid, signal.SIGKILL)
    process.wait()


def sweep(process):
    """End what a process that is gone has left running in its group (POSIX; a crashed parent leaves its workers)."""
    if not ON_WINDOWS:
        _signal(os.killpg, process.pid, signal.SIGKILL)


def descendants(pid):
    """Identifiers of all children of a process, their children, and so on (POSIX).

    :return: list, parents before children; empty where the system does not tell.
    """
    parents = _parentsFromProc() or _parentsFromPs()
    found, queue = [], [pid]
    while queue:
        parent = queue.pop(0)
        children = [child for child, itsParent in parents.items() if itsParent == parent and child not in found]
        found += children
        queue += children
    return found


def _groupLives(process):
    process.poll()  # or it would stay in its group as a zombie
    return _signal(os.killpg, process.pid, 0)


def _parentsFromProc():
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (name) state ppid ...": the name may hold spaces and brackets
            parents[int(entry.parent.name)] = int(entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has ended while we looked
    return parents


def _parentsFromPs():
    try:
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=1, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {int(pid): int(parent) for pid, parent in (line.split() for line in listing.stdout.splitlines())}


def _signal(send, pid, number):
    """Send a signal; whether there was anything to send it to."""
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        return False  # already gone, as wanted; macOS says of a zombie that it is not permitted
    return True
