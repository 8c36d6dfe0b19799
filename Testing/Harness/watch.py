"""Errors that Slicer prints and forgets: VTK's output window and exceptions inside Qt slots and VTK observers."""

from __future__ import annotations

import logging
import sys
import traceback

import vtk


class Watch:
    """Collects VTK errors and swallowed Python exceptions from ``start`` to ``stop``."""

    def start(self) -> None:
        self.exceptions: list[str] = []
        self._output = vtk.vtkStringOutputWindow()
        self._before = vtk.vtkOutputWindow.GetInstance()
        vtk.vtkOutputWindow.SetInstance(self._output)
        self._hook = sys.excepthook
        self._unraisable = sys.unraisablehook
        sys.excepthook = self._onException
        sys.unraisablehook = lambda info: self._onException(info.exc_type, info.exc_value, info.exc_traceback)

    def _onException(self, kind, value, trace) -> None:
        text = "".join(traceback.format_exception(kind, value, trace))
        self.exceptions.append(text)
        logging.error("exception in a Qt slot or VTK observer:\n%s", text)

    @property
    def vtkOutput(self) -> str:
        return self._output.GetOutput() or ""

    def vtkErrors(self) -> list[str]:
        """The errors VTK printed; warnings are left out."""
        blocks = self.vtkOutput.replace("\r", "").split("\n\n")
        return [block.strip() for block in blocks if "ERROR:" in block or "ERR|" in block]

    def forget(self) -> None:
        """For a test that provokes an error on purpose and has looked at it."""
        self.exceptions = []
        self._output = vtk.vtkStringOutputWindow()
        vtk.vtkOutputWindow.SetInstance(self._output)

    def stop(self) -> None:
        sys.excepthook = self._hook
        sys.unraisablehook = self._unraisable
        vtk.vtkOutputWindow.SetInstance(self._before)

    def problems(self) -> list[str]:
        return self.vtkErrors() + self.exceptions
