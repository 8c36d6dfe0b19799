"""Imitations of the ctk widgets that panels use: names, properties, methods and signals as in CTK; drawing by Qt."""

from __future__ import annotations

import sys
import types

from PySide6.QtCore import Property, QSize, Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSlider,
    QToolButton,
    QWidget,
)

from .ctk_paths import ctkDirectoryButton, ctkPathLineEdit
from .pythonqt import emulatedCppClass


@emulatedCppClass
class ctkCollapsibleButton(QWidget):
    """A header with an arrow; collapsing hides what the layout below holds."""

    contentsCollapsed = Signal(bool)
    toggled = Signal(bool)
    clicked = Signal(bool)

    def __init__(self, *args):
        text = args[0] if args and isinstance(args[0], str) else ""
        super().__init__(args[-1] if args and isinstance(args[-1], QWidget) else None)
        self._header = QToolButton(self)
        self._header.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self._header.setAutoRaise(True)
        self._header.setText(text)
        self._header.clicked.connect(lambda *_: self._onClicked())
        self._collapsed = False
        self._hiddenByCollapse = []
        self._place()

    def _place(self):
        self._header.setArrowType(Qt.RightArrow if self._collapsed else Qt.DownArrow)
        height = self._header.sizeHint().height()
        self._header.setGeometry(0, 0, max(self.width, 20), height)
        self.setContentsMargins(0, height, 0, 0)
        self.setMinimumHeight(height)
        self.setMaximumHeight(height if self._collapsed else 16777215)

    def resizeEvent(self, event):
        self._place()
        super().resizeEvent(event)

    def minimumSizeHint(self):
        return QSize(60, self._header.sizeHint().height())

    def _contents(self):
        return [c for c in self.children() if isinstance(c, QWidget) and c is not self._header]

    def _onClicked(self):
        self._setCollapsed(not self._collapsed)
        self.clicked.emit(not self._collapsed)

    def _setCollapsed(self, collapsed):
        collapsed = bool(collapsed)
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            self._hiddenByCollapse = [c for c in self._contents() if not c.isHidden()]
        for child in self._hiddenByCollapse:
            child.setVisible(not collapsed)
        self._place()
        self.contentsCollapsed.emit(collapsed)
        self.toggled.emit(not collapsed)

    def _setText(self, text):
        self._header.setText(text)

    def click(self):
        self._onClicked()

    collapsed = Property(bool, lambda self: self._collapsed, _setCollapsed)
    checked = Property(bool, lambda self: not self._collapsed, lambda self, value: self._setCollapsed(not value))
    text = Property(str, lambda self: self._header.text, _setText)
    contentsFrameShape = Property(int, lambda self: 0, lambda self, value: None)
    setCollapsed = _setCollapsed
    setText = _setText


class _SpinAndSlider(QWidget):
    """What ctkSliderWidget and qMRMLSliderWidget share: a slider and a spin box that hold one bounded float."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QSlider(Qt.Horizontal, self)
        self._spin = QDoubleSpinBox(self)
        self._spin.setRange(0.0, 99.0)
        self._spin.setSingleStep(1.0)
        self._spin.setDecimals(2)
        self._slider.setRange(0, 10000)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._busy = False
        self._tracking = True
        self._held = 0.0
        self._spin.valueChanged.connect(lambda value: self._onSpin(value))
        self._slider.valueChanged.connect(lambda position: self._onSlider(position))
        self._slider.sliderReleased.connect(lambda: self._announce())

    def _span(self):
        return self._spin.maximum - self._spin.minimum

    def _placeSlider(self):
        self._busy = True
        span = self._span()
        self._slider.setValue(round(10000 * (self._spin.value - self._spin.minimum) / span) if span > 0 else 0)
        self._busy = False

    def _onSpin(self, value):
        self._placeSlider()
        if self._tracking or not self._slider.isSliderDown():
            self._announce()
        else:
            self.valueIsChanging.emit(value)

    def _announce(self):
        value = self._spin.value
        if value != self._held:
            self._held = value
            self.valueChanged.emit(value)

    def _onSlider(self, position):
        if self._busy:
            return
        step = self._spin.singleStep or 1.0
        value = self._spin.minimum + self._span() * position / 10000
        self._spin.setValue(self._spin.minimum + round((value - self._spin.minimum) / step) * step)

    def _setValue(self, value):
        if not isinstance(value, (int, float)):
            raise TypeError(f"value: a number is wanted, not {type(value).__name__}")
        self._spin.setValue(value)

    def _setMinimum(self, value):
        self._setRange(value, max(value, self._spin.maximum))

    def _setMaximum(self, value):
        self._setRange(min(value, self._spin.minimum), value)

    def _setRange(self, minimum, maximum):
        self._spin.setRange(minimum, maximum)
        self._placeSlider()
        self.rangeChanged.emit(minimum, maximum)

    def _setDecimals(self, value):
        self._spin.setDecimals(value)

    def _setSingleStep(self, value):
        self._spin.setSingleStep(value)

    def _setTracking(self, value):
        self._tracking = bool(value)

    value = Property(float, lambda self: self._spin.value, _setValue)
    minimum = Property(float, lambda self: self._spin.minimum, _setMinimum)
    maximum = Property(float, lambda self: self._spin.maximum, _setMaximum)
    singleStep = Property(float, lambda self: self._spin.singleStep, _setSingleStep)
    pageStep = Property(float, lambda self: 10 * self._spin.singleStep, lambda self, value: None)
    decimals = Property(int, lambda self: self._spin.decimals, _setDecimals)
    suffix = Property(str, lambda self: self._spin.suffix, lambda self, value: self._spin.setSuffix(value))
    prefix = Property(str, lambda self: self._spin.prefix, lambda self, value: self._spin.setPrefix(value))
    tracking = Property(bool, lambda self: self._tracking, _setTracking)
    spinBoxVisible = Property(
        bool, lambda self: not self._spin.isHidden(), lambda self, value: self._spin.setVisible(value)
    )
    setValue = _setValue
    setRange = _setRange
    setMinimum = _setMinimum
    setMaximum = _setMaximum
    setDecimals = _setDecimals
    setSingleStep = _setSingleStep

    def spinBox(self):
        return self._spin

    def slider(self):
        return self._slider


@emulatedCppClass
class ctkSliderWidget(_SpinAndSlider):
    def __init__(self, parent=None):
        super().__init__(parent)


@emulatedCppClass
class ctkRangeWidget(QWidget):
    """Two bounded floats, the lower never above the upper."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._low, self._high = QDoubleSpinBox(self), QDoubleSpinBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for spin in (self._low, self._high):
            spin.setRange(0.0, 99.0)
            layout.addWidget(spin)
        self._high.setValue(99.0)
        self._last = (0.0, 99.0)
        self._low.valueChanged.connect(lambda value: self._onEdited(self._low))
        self._high.valueChanged.connect(lambda value: self._onEdited(self._high))

    def _onEdited(self, edited):
        if self._low.value > self._high.value:
            (self._high if edited is self._low else self._low).setValue(edited.value)
        values = (self._low.value, self._high.value)
        if values != self._last:
            before, self._last = self._last, values
            if before[0] != values[0]:
                self.minimumValueChanged.emit(values[0])
            if before[1] != values[1]:
                self.maximumValueChanged.emit(values[1])
            self.valuesChanged.emit(*values)

    def setValues(self, low, high):
        self._high.setValue(max(high, self._low.value))
        self._low.setValue(low)
        self._high.setValue(high)

    def setRange(self, minimum, maximum):
        for spin in (self._low, self._high):
            spin.setRange(minimum, maximum)

    def _forBoth(name):  # noqa: N805 - makes a setter while the class body runs
        def write(self, value):
            for spin in (self._low, self._high):
                setattr(spin, name, value)

        return write

    minimumValue = Property(float, lambda self: self._low.value, lambda self, value: self._low.setValue(value))
    maximumValue = Property(float, lambda self: self._high.value, lambda self, value: self._high.setValue(value))
    minimum = Property(float, lambda self: self._low.minimum, lambda self, v: self.setRange(v, self._low.maximum))
    maximum = Property(float, lambda self: self._low.maximum, lambda self, v: self.setRange(self._low.minimum, v))
    singleStep = Property(float, lambda self: self._low.singleStep, _forBoth("singleStep"))
    decimals = Property(int, lambda self: self._low.decimals, _forBoth("decimals"))
    suffix = Property(str, lambda self: self._low.suffix, _forBoth("suffix"))


@emulatedCppClass
class ctkComboBox(QComboBox):
    """Shows a default text while nothing is chosen."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._defaultText, self._scrollWheelEnabled = "", True

    def _setDefaultText(self, text):
        self._defaultText = text
        self.setPlaceholderText(text)

    defaultText = Property(str, lambda self: self._defaultText, _setDefaultText)
    scrollWheelEnabled = Property(
        bool, lambda self: self._scrollWheelEnabled, lambda self, value: setattr(self, "_scrollWheelEnabled", value)
    )


@emulatedCppClass
class ctkCheckBox(QCheckBox):
    pass


@emulatedCppClass
class ctkDoubleSpinBox(QDoubleSpinBox):
    pass


@emulatedCppClass
class ctkSearchBox(QLineEdit):
    pass


@emulatedCppClass
class ctkExpandableWidget(QWidget):
    pass


@emulatedCppClass
class ctkCollapsibleGroupBox(ctkCollapsibleButton):
    title = Property(str, lambda self: self._header.text, lambda self, text: self._header.setText(text))


@emulatedCppClass
class ctkColorPickerButton(QPushButton):
    colorChanged = Signal(QColor)

    def __init__(self, *args):
        super().__init__(*args)
        self._color = QColor()

    def _setColor(self, color):
        if color != self._color:
            self._color = color
            self.colorChanged.emit(color)

    color = Property(QColor, lambda self: self._color, _setColor)


@emulatedCppClass
class ctkMessageBox(QMessageBox):
    dontShowAgain = Property(bool, lambda self: False, lambda self, value: None)
    dontShowAgainVisible = Property(bool, lambda self: False, lambda self, value: None)
    dontShowAgainSettingsKey = Property(str, lambda self: "", lambda self, value: None)


__all__ = ["createCtkModule", "ctkDirectoryButton", "ctkPathLineEdit"]


def createCtkModule() -> types.ModuleType:
    """The module that Slicer code imports as ``ctk``."""
    if "ctk" not in sys.modules:
        module = types.ModuleType("ctk", "ctk widgets (stand-in, imitated with Qt)")
        for name, value in list(globals().items()):
            if name.startswith("ctk"):
                setattr(module, name, value)
        sys.modules["ctk"] = module
    return sys.modules["ctk"]
