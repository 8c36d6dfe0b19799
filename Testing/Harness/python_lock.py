"""Qt's event loop as Slicer's main thread runs it: Python's lock (the GIL) is kept while C++ waits and works.

PySide6 lets go of the lock in ``processEvents``, so that threads run on. Slicer calls neither PythonQt's
``setEnableThreadSupport`` nor ``PyEval_SaveThread``: there a thread runs only while Python code of the main thread lets it.
Here Qt is called past PySide6, through ctypes' ``PyDLL``, which keeps the lock. Where that cannot be done (not Linux), Qt is
called through PySide6, kinder than Slicer.
"""

from __future__ import annotations

import ctypes
import functools
import time
from pathlib import Path

from PySide6 import QtCore

PROCESS_EVENTS = "_ZN16QCoreApplication13processEventsE6QFlagsIN10QEventLoop17ProcessEventsFlagEE"


@functools.lru_cache(maxsize=1)
def _keepingTheLock():
    """(processEvents, usleep) that keep Python's lock, or None."""
    library = Path(QtCore.__file__).parent / "Qt" / "lib" / "libQt6Core.so.6"
    try:
        processQtEvents = getattr(ctypes.PyDLL(str(library)), PROCESS_EVENTS)
        sleep = ctypes.PyDLL(None).usleep
    except (AttributeError, OSError, TypeError):
        return None
    for function, kind in ((processQtEvents, ctypes.c_int), (sleep, ctypes.c_uint)):
        function.argtypes, function.restype = [kind], None
    return processQtEvents, sleep


def processEvents() -> None:
    """Handle the events that have arrived."""
    keeping = _keepingTheLock()
    if keeping is None:
        QtCore.QCoreApplication.processEvents()
    else:
        keeping[0](0)


def wait(seconds: float) -> None:
    """Wait as an idle Slicer does: other threads stand still."""
    keeping = _keepingTheLock()
    if keeping is None:
        time.sleep(seconds)
    else:
        keeping[1](int(seconds * 1e6))
