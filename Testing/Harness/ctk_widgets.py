"""Imitations of the ctk widgets that panels use: names, properties, methods and signals as in CTK; drawing by Qt."""

from __future__ import annotations

import sys
import types

from PySide6.QtCore import Property, QEvent, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOption,
    QStyleOptionButton,
    QStylePainter,
    QWidget,
)

from .ctk_paths import ctkDirectoryButton, ctkPathLineEdit
from .pythonqt import emulatedCppClass

_TO_PARENT = "visibilityToParent"  # CTK's name of what a child of a collapsible button is when it is not collapsed


@emulatedCppClass
class ctkCollapsibleButton(QAbstractButton):
    """A wide button with an arrow; unchecking it (collapsing) hides what its layout holds."""

    contentsCollapsed = Signal(bool)
    _COLLAPSED_EXTRA = 10  # CTK's collapsedHeight

    def __init__(self, *args):
        super().__init__(args[-1] if args and isinstance(args[-1], QWidget) else None)
        self.setCheckable(True)
        self.setChecked(True)
        self._forcing = False
        self.setSizePolicy(QSizePolicy.Minimum, QSizePolicy.Preferred)
        self.setContentsMargins(0, self._headerSize().height(), 0, 0)
        if args and isinstance(args[0], str):
            self.setText(args[0])
        self.toggled.connect(lambda checked: self._onToggled(checked))

    def _headerSize(self):
        text = self.fontMetrics().size(Qt.TextShowMnemonic, self.text or "XXXX")
        return QSize(text.width() + 40, text.height() + 10)

    def minimumSizeHint(self):
        header = self._headerSize()
        if not self.isChecked():
            return header + QSize(0, self._COLLAPSED_EXTRA)
        return header if self.layout() is None else self.layout().totalMinimumSize().expandedTo(header)

    def sizeHint(self):
        header = self._headerSize() + QSize(0, self._COLLAPSED_EXTRA)
        if not self.isChecked() or self.layout() is None:
            return header
        return self.layout().totalSizeHint().expandedTo(header)

    def hitButton(self, position):
        return position.y() < self._headerSize().height()

    def paintEvent(self, event):
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._headerSize().height())
        option.state |= QStyle.State_Raised
        painter = QStylePainter(self)
        painter.drawControl(QStyle.CE_PushButtonBevel, option)
        height = option.rect.height()
        arrow = QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QRect((height - 10) // 2, (height - 10) // 2, 10, 10)
        painter.drawPrimitive(QStyle.PE_IndicatorArrowUp if self.isChecked() else QStyle.PE_IndicatorArrowDown, arrow)
        painter.drawText(QRect(height, 0, self.width - height, height), Qt.AlignVCenter | Qt.AlignLeft, self.text)

    def _onToggled(self, checked):
        for child in [child for child in self.children() if isinstance(child, QWidget)]:
            if child.property(_TO_PARENT) is None:
                child.setProperty(_TO_PARENT, not child.isHidden())
                child.installEventFilter(self)
            self._setChildVisibility(child)
        self.setMaximumHeight(16777215 if checked else self.sizeHint().height())
        self.updateGeometry()
        self.contentsCollapsed.emit(not checked)

    def _setChildVisibility(self, child):
        self._forcing = True
        child.setVisible(self.isChecked() and child.property(_TO_PARENT))
        self._forcing = False

    def eventFilter(self, child, event):
        """As CTK: what is shown while it is collapsed waits; what is hidden then has been hidden already and is not noticed."""
        if not self._forcing and event.type() == QEvent.ShowToParent:
            child.setProperty(_TO_PARENT, True)
            self._setChildVisibility(child)
        elif not self._forcing and event.type() == QEvent.HideToParent:
            child.setProperty(_TO_PARENT, False)
        return False

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))
    contentsFrameShape = Property(int, lambda self: 0, lambda self, value: None)

    def setCollapsed(self, collapsed):
        self.setChecked(not collapsed)


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
        part = (self._spin.value - self._spin.minimum) / span if 0 < span < float("inf") else 0
        self._slider.setValue(round(10000 * part))
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
class ctkDoubleSlider(_SpinAndSlider):
    pass


@emulatedCppClass
class ctkDoubleRangeSlider(ctkRangeWidget):
    pass


@emulatedCppClass
class ctkCheckablePushButton(QPushButton):
    checkBoxControlsButtonToggleState = Property(bool, lambda self: True, lambda self, value: None)


@emulatedCppClass
class ctkSearchBox(QLineEdit):
    pass


@emulatedCppClass
class ctkExpandableWidget(QWidget):
    pass


@emulatedCppClass
class ctkCollapsibleGroupBox(ctkCollapsibleButton):
    title = Property(str, lambda self: self.text, lambda self, text: self.setText(text))


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
