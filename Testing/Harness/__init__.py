"""A stand-in for the Slicer application, for tests without Slicer. README.md says what is real and what is imitated."""

from __future__ import annotations

import os

# All three are read once, when Qt, PySide6 and VTK are first imported.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x06")  # enumerations are integers and have their short names
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def start():
    """Install qt, ctk and the missing parts of slicer, once per process; returns the ``Application``."""
    from . import application

    return application.start()
