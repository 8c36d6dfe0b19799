"""Keys of the module: they work on the main window while the module is open, and only then.

Single letters belong to Slicer and to whoever types: every key here has a modifier.
"""

import qt
import slicer


class Shortcuts:
    """Functions with their keys; `connect` when the module is opened, `disconnect` when another one is."""

    def __init__(self):
        self._functions = {}
        self._shortcuts = []

    @property
    def connected(self):
        """Whether the keys work now."""
        return bool(self._shortcuts)

    def add(self, keys, function, whileTyping=True):
        """Have a function called when keys are pressed.

        :param keys: as Qt writes them, with a modifier: "Ctrl+Shift+H".
        :param function: without arguments.
        :param whileTyping: whether also where text is entered, in the panel or anywhere else: with Alt some keyboards write
            letters and move by words.
        :raises ValueError: if the keys have no modifier, or are taken already.
        """
        if "+" not in keys or keys in self._functions:
            raise ValueError(f"{keys} cannot be a shortcut here")
        self._functions[keys] = function if whileTyping else lambda: None if isTyping() else function()

    def connect(self):
        """Make the keys work. A Slicer without main window has none."""
        window = slicer.util.mainWindow()
        if self._shortcuts or window is None:
            return
        for keys, function in self._functions.items():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(keys))
            shortcut.connect("activated()", function)
            self._shortcuts.append(shortcut)

    def disconnect(self):
        """Take the keys off the main window."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)  # it is deleted only when Qt comes back to its loop
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []


def isTyping():
    """Whether the next key would be written into a text."""
    widget = qt.QApplication.focusWidget()
    kinds = ("QLineEdit", "QTextEdit", "QPlainTextEdit", "QAbstractSpinBox")
    return widget is not None and any(widget.inherits(kind) for kind in kinds)
