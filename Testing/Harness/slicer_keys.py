"""Keys of Slicer's main window, of every module: a second shortcut with one of them makes both do nothing.

As in Slicer's sources of August 2026: main window, module selector tool bar, and Qt's standard keys that they name.
"""

from __future__ import annotations

from PySide6.QtGui import QKeySequence

WITH_CTRL = "023456`BCFHOSVWXYZ"
OTHERS = ("Ctrl+Left", "Ctrl+Right")
STANDARD = ("Back", "Forward", "Undo", "Redo", "Cut", "Copy", "Paste", "Print")
ON_LINUX_AND_WINDOWS = ("Alt+Left", "Alt+Right")  # what Back and Forward are there, wherever this runs


def slicersKeys() -> set[str]:
    """All of them, as Qt writes them."""
    standard = (QKeySequence.keyBindings(getattr(QKeySequence, name)) for name in STANDARD)
    found = {each.toString() for bindings in standard for each in bindings}
    return found | {f"Ctrl+{key}" for key in WITH_CTRL} | {*OTHERS, *ON_LINUX_AND_WINDOWS}
