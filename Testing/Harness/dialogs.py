"""Modal dialogs never open: they are recorded, and answered by what the test prepared."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import qt


@dataclass(frozen=True)
class Message:
    kind: str  # "error", "warning", "information", "question" or "message"
    title: str
    text: str
    details: str = ""


class Dialogs:
    """What was shown and not yet looked at, and what the next dialogs will answer.

    A message with only an OK button answers OK by itself. Any other dialog needs an answer prepared by the test:
    opening one without is an error, because in Slicer the program would wait for a person.
    """

    def __init__(self):
        self.messages: list[Message] = []
        self.answers: deque = deque()

    def answer(self, *values) -> None:
        """Prepare the answers of the next dialogs, e.g. ``qt.QMessageBox.Cancel``, a path, True."""
        self.answers.extend(values)

    def takeMessages(self, kind: str | None = None) -> list[Message]:
        """Return what was shown (of one kind, or all) and forget it; an error nobody takes fails the test."""
        taken = [m for m in self.messages if kind in (None, m.kind)]
        self.messages = [m for m in self.messages if m not in taken]
        return taken

    def clear(self) -> None:
        self.messages, self.answers = [], deque()

    def next(self, what: str):
        if not self.answers:
            raise AssertionError(f"{what} opened and the test prepared no answer: Slicer would wait here")
        return self.answers.popleft()

    def _kindOf(self, icon) -> str:
        kinds = {
            qt.QMessageBox.Critical: "error",
            qt.QMessageBox.Warning: "warning",
            qt.QMessageBox.Information: "information",
            qt.QMessageBox.Question: "question",
        }
        return kinds.get(icon, "message")

    def runMessageBox(self, box):
        kind = self._kindOf(box.icon)
        self.messages.append(Message(kind, box.windowTitle.strip(), box.text, box.detailedText))
        onlyOk = (qt.QMessageBox.NoButton, qt.QMessageBox.Ok)
        if box.standardButtons in onlyOk and not self.answers:
            return qt.QMessageBox.Ok
        return self.next(f"message box {box.text!r}")

    def install(self) -> None:
        """Replace Qt's blocking calls. PythonQt's file dialogs return a string, not PySide6's pair."""

        def runDialog(box):
            if isinstance(box, qt.QMessageBox):
                return self.runMessageBox(box)
            return self.next(f"dialog {type(box).__name__} {box.windowTitle!r}")

        for cls in (qt.QDialog, qt.QMessageBox, qt.QFileDialog, qt.QInputDialog, qt.QProgressDialog):
            cls.exec_ = runDialog
            cls.exec = runDialog
        kinds = {"critical": "error", "warning": "warning", "information": "information", "question": "question"}
        for method, kind in kinds.items():
            setattr(qt.QMessageBox, method, staticmethod(self._staticMessage(kind)))
        for method in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"):
            setattr(qt.QFileDialog, method, staticmethod(self._staticQuestion(f"QFileDialog.{method}")))
        for method in ("getText", "getItem", "getInt", "getDouble"):
            setattr(qt.QInputDialog, method, staticmethod(self._staticQuestion(f"QInputDialog.{method}")))

    def _staticMessage(self, kind: str):
        def show(parent, title, text, buttons=None, default=None):
            self.messages.append(Message(kind, title, text))
            if buttons in (None, qt.QMessageBox.Ok) and kind != "question" and not self.answers:
                return qt.QMessageBox.Ok
            return self.next(f"QMessageBox {text!r}")

        return show

    def _staticQuestion(self, what: str):
        def ask(*args):
            return self.next(f"{what}{args[1:2]}")

        return ask
