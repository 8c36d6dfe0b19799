"""Which widget shows which type of parameter: the pairs Slicer's connectors know, tested by the exact class."""

from __future__ import annotations

import enum
import pathlib

import ctk
import qt
import slicer

from .parameter_values import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    SingleStep,
    WithinRange,
    findAnnotation,
    nodeClassesOf,
    splitAnnotations,
)


class Connector:
    """One widget that shows one value: read, write, and tell when a person changed it."""

    def __init__(self, widget, signal, read, write):
        self._widget, self._signal, self.read, self.write = widget, signal, read, write
        self._callback = None

    def widget(self):
        return self._widget

    def onChanged(self, callback):
        if self._callback is not None and self._signal is not None:
            self._signal.disconnect(self._changed)
        self._callback = callback
        if callback is not None and self._signal is not None:
            self._signal.connect(self._changed)

    def _changed(self, *_):
        if self._callback is not None:
            self._callback()


def _setAttribute(widget, name, kind=None):
    return lambda value: setattr(widget, name, kind(value) if kind else value)


def _applyRange(widget, annotations, unbounded) -> None:
    decimals, step = findAnnotation(annotations, Decimals), findAnnotation(annotations, SingleStep)
    if decimals is not None:
        widget.decimals = decimals.value
    if step is not None:
        widget.singleStep = step.value
    within = findAnnotation(annotations, WithinRange)
    minimum = within or findAnnotation(annotations, Minimum)
    maximum = within or findAnnotation(annotations, Maximum)
    slider = type(widget) in (qt.QSlider, ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
    if slider and (minimum is None or maximum is None):
        raise RuntimeError(f"Cannot have a connection to {type(widget).__name__} where the number is unbounded.")
    low, high = unbounded
    widget.setRange(minimum.minimum if minimum else low, maximum.maximum if maximum else high)


def _forBool(widget, bare, annotations):
    if bare is not bool:
        return None
    if type(widget) in (qt.QCheckBox, ctk.ctkCheckBox):
        return Connector(widget, widget.stateChanged, lambda: widget.checked, _setAttribute(widget, "checked"))
    if type(widget) is qt.QPushButton:
        widget.checkable = True
        return Connector(widget, widget.toggled, lambda: widget.checked, _setAttribute(widget, "checked"))
    return None


def _forNumber(widget, bare, annotations):
    if bare is int and type(widget) in (qt.QSlider, qt.QSpinBox):
        _applyRange(widget, annotations, (-(2**31), 2**31 - 1))
        return Connector(widget, widget.valueChanged, lambda: widget.value, _setAttribute(widget, "value"))
    shown = (qt.QDoubleSpinBox, ctk.ctkSliderWidget, slicer.qMRMLSliderWidget, ctk.ctkDoubleSpinBox)
    if bare in (int, float) and type(widget) in shown:
        if bare is int:
            widget.decimals = 0
        _applyRange(widget, annotations, (float("-inf"), float("inf")))
        return Connector(widget, widget.valueChanged, lambda: bare(widget.value), _setAttribute(widget, "value", float))
    return None


def _forCombo(widget, bare, annotations):
    if type(widget) not in (qt.QComboBox, ctk.ctkComboBox):
        return None
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        label = getattr(bare, "label", lambda member: member.name)
        entries = [(label(member), member) for member in bare]
    elif bare in (int, float, str, bool):
        choice = findAnnotation(annotations, Choice)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        entries = [(str(value), value) for value in choice.choices]
    else:
        return None
    widget.clear()
    for text, _ in entries:
        widget.addItem(text)
    values = [value for _, value in entries]

    def write(value):
        widget.currentIndex = values.index(value)

    return Connector(widget, widget.currentIndexChanged, lambda: values[widget.currentIndex], write)


def _forText(widget, bare, annotations):
    if bare is not str:
        return None
    if type(widget) is qt.QLineEdit:

        def write(value):
            if value != widget.text:
                widget.text = value

        return Connector(widget, widget.textChanged, lambda: widget.text, write)
    if type(widget) is qt.QLabel:
        return Connector(widget, None, lambda: widget.text, _setAttribute(widget, "text"))
    if type(widget) is qt.QTextEdit:
        return Connector(widget, widget.textChanged, widget.toPlainText, widget.setPlainText)
    return None


def _forPath(widget, bare, annotations):
    if not (isinstance(bare, type) and issubclass(bare, pathlib.PurePath)):
        return None
    if type(widget) is ctk.ctkPathLineEdit:
        write = _setAttribute(widget, "currentPath", str)
        return Connector(widget, widget.currentPathChanged, lambda: bare(widget.currentPath), write)
    if type(widget) is ctk.ctkDirectoryButton:
        write = _setAttribute(widget, "directory", str)
        return Connector(widget, widget.directoryChanged, lambda: bare(widget.directory), write)
    return None


def createConnector(widget, annotated) -> Connector:
    """The connector for a widget and a parameter's annotated type; RuntimeError for a pair Slicer does not know."""
    bare, annotations = splitAnnotations(annotated)
    if type(widget) is slicer.qMRMLNodeComboBox and nodeClassesOf(annotated):
        widget.nodeTypes = nodeClassesOf(annotated)
        return Connector(widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    for maker in (_forBool, _forNumber, _forCombo, _forText, _forPath):
        connector = maker(widget, bare, annotations)
        if connector is not None:
            return connector
    raise RuntimeError(f"Unable to create GUI connector from datatype '{annotated}' to widget type '{type(widget)}'.")
