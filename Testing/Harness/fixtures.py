"""Pytest fixtures; a test folder's conftest.py imports them: ``from Harness.fixtures import *``."""

from __future__ import annotations

import pytest

from . import start
from .watch import Watch

__all__ = ["slicerApplication", "slicerScene", "slicerWatch"]


@pytest.fixture(scope="session")
def _slicerProcess():
    return start()


@pytest.fixture
def slicerWatch(_slicerProcess):
    """Fails the test on VTK errors, exceptions swallowed in slots, and error messages nobody looked at."""
    watch = Watch()
    watch.start()
    yield watch
    _slicerProcess.processEvents()
    problems = watch.problems()
    watch.stop()
    problems += [f"error message nobody took: {m.text}" for m in _slicerProcess.dialogs.takeMessages("error")]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def slicerApplication(_slicerProcess, slicerWatch):
    """The stand-in application with an empty scene and no messages, before and after the test."""
    _slicerProcess.clear()
    yield _slicerProcess
    _slicerProcess.leaveModule()
    leftover = _slicerProcess.dialogs.takeMessages("error")
    _slicerProcess.clear()
    _slicerProcess.dialogs.messages.extend(leftover)


@pytest.fixture
def slicerScene(slicerApplication):
    """The cleared real MRML scene."""
    return slicerApplication.core.scene
