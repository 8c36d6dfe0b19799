"""Imitations of the ctk widgets that hold a file or a folder."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Property, QSettings, Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QSizePolicy, QToolButton, QWidget

from .pythonqt import emulatedCppClass

MOST_PATHS = 5  # CTK's history


@emulatedCppClass
class ctkPathLineEdit(QWidget):
    """A line edit with a browse button. ``browse()`` here takes the next answer instead of opening a dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    # ctkPathLineEdit::Filter
    Dirs, Files, Drives, NoDotAndDotDot = 0x001, 0x002, 0x004, 0x6000
    Readable, Writable, Executable, Hidden = 0x010, 0x020, 0x040, 0x100

    def __init__(self, parent=None):
        super().__init__(parent)
        self._edit = QComboBox(self)
        self._edit.setEditable(True)
        self._edit.setInsertPolicy(QComboBox.NoInsert)
        self._edit.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._edit.setMinimumContentsLength(7)
        self._button = QToolButton(self)
        self._button.setText("...")
        self._button.setSizePolicy(QSizePolicy.Fixed, QSizePolicy.Ignored)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)
        layout.addWidget(self._edit, 1)
        layout.addWidget(self._button)
        self._filters, self._nameFilters, self._settingKey, self._label = 0x6007, (), "", ""
        self._validInput = False
        self._edit.editTextChanged.connect(self._onEdited)
        self._button.clicked.connect(lambda *_: self.browse())

    def _onEdited(self, text):
        """A path is reported only when it is acceptable (the pattern of the real one is ``.+``)."""
        if text:
            self.currentPathChanged.emit(text)
        if self._validInput != bool(text):
            self._validInput = bool(text)
            self.validInputChanged.emit(self._validInput)

    def browse(self):
        if self._filters & self.Files:
            chosen = QFileDialog.getOpenFileName(self, self._label, self._edit.currentText)
        else:
            chosen = QFileDialog.getExistingDirectory(self, self._label, self._edit.currentText)
        if chosen:
            self._setCurrentPath(chosen)

    def _setCurrentPath(self, path):
        if not isinstance(path, str):
            raise TypeError(f"currentPath: a str is wanted, not {type(path).__name__}")
        self._edit.setEditText(path)

    def addCurrentPathToHistory(self):
        """Bring the path to the top of the list; like the real one, not without reporting a neighbour's path on the way."""
        path = self._edit.currentText
        if not path:
            return
        history = [path, *(each for each in self._history() if each != path)]
        QSettings().setValue(self._historyKey, history)
        index = self._edit.findText(path)
        if index >= 0:
            self._edit.setCurrentIndex(index)
            self._edit.removeItem(index)
        self._edit.insertItem(0, path)
        self._edit.setCurrentIndex(0)

    @property
    def _historyKey(self):
        return f"ctkPathLineEdit/{self._settingKey or self.objectName}"

    def _history(self):
        kept = QSettings().value(self._historyKey) or ()
        return [kept] if isinstance(kept, str) else list(kept)

    def _setSettingKey(self, key):
        """As in CTK the path that was used last is there at once, where there is none yet."""
        self._settingKey, path = key, self._edit.currentText
        self._edit.clear()
        self._edit.addItems(self._history()[:MOST_PATHS])
        self._edit.setEditText(path or self._edit.itemText(0))

    def _setNameFilters(self, value):
        self._nameFilters = tuple(value)

    def _hold(name):  # noqa: N805 - makes a getter and a setter while the class body runs
        return (lambda self: getattr(self, name)), (lambda self, value: setattr(self, name, value))

    currentPath = Property(str, lambda self: self._edit.currentText, _setCurrentPath)
    filters = Property(int, _hold("_filters")[0], lambda self, value: setattr(self, "_filters", int(value)))
    nameFilters = Property("QStringList", lambda self: self._nameFilters, _setNameFilters)
    settingKey = Property(str, lambda self: self._settingKey, _setSettingKey)
    label = Property(str, *_hold("_label"))
    showBrowseButton = Property(
        bool, lambda self: not self._button.isHidden(), lambda self, value: self._button.setVisible(value)
    )
    showHistoryButton = Property(bool, lambda self: True, lambda self, value: None)
    isValid = Property(bool, lambda self: Path(self._edit.currentText).exists())
    setCurrentPath = _setCurrentPath

    def comboBox(self):
        return self._edit


@emulatedCppClass
class ctkDirectoryButton(QPushButton):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, *args):
        super().__init__(*args)
        self._directory = str(Path(".").absolute())

    def _setDirectory(self, directory):
        directory = str(Path(directory).absolute())
        if directory != self._directory:
            self._directory = directory
            self.setText(directory)
            self.directoryChanged.emit(directory)

    directory = Property(str, lambda self: self._directory, _setDirectory)
