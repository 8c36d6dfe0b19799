"""Pytest fixtures; a test folder's conftest.py imports them: ``from Harness.fixtures import *``."""

from __future__ import annotations

import pytest

from . import start
from .watch import Watch

__all__ = ["slicer_application", "slicer_scene", "slicer_watch"]


@pytest.fixture
def slicer_watch():
    """Fails the test on VTK errors, exceptions swallowed in slots, and error messages nobody looked at."""
    application = start()  # once per process
    watch = Watch()
    watch.start()
    yield watch
    application.processEvents()
    problems = watch.problems()
    watch.stop()
    problems += [f"error message nobody took: {m.text}" for m in application.dialogs.takeMessages("error")]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def slicer_application(slicer_watch):
    """The stand-in application with an empty scene and no messages, before and after the test."""
    application = start()
    application.clear()
    yield application
    application.leaveModule()
    leftover = application.dialogs.takeMessages("error")
    application.clear()
    application.dialogs.messages.extend(leftover)


@pytest.fixture
def slicer_scene(slicer_application):
    """The cleared real MRML scene."""
    return slicer_application.core.scene
