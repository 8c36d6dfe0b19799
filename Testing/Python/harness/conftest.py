"""The stand-in for the Slicer application, tested by itself."""

import sys
from pathlib import Path

import pytest

TESTING = Path(__file__).resolve().parents[2]
if str(TESTING) not in sys.path:
    sys.path.insert(0, str(TESTING))

from Harness.fixtures import *  # noqa: E402, F403


@pytest.fixture
def example_module(slicer_application):
    """A module written as Slicer's template writes one; unloaded after the test."""
    slicer_application.loadModule(Path(__file__).parent / "ExampleModule" / "ExampleModule.py")
    import slicer

    slicer.util.selectModule("ExampleModule")
    yield slicer.modules.ExampleModuleWidget
    slicer_application.leaveModule()
    slicer.app.moduleManager().unload("ExampleModule")
