"""``@parameterNodeWrapper``: typed attributes of a class, held in a real vtkMRMLScriptedModuleNode."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
import typing
import weakref
from pathlib import Path

import slicer
import slicer.util
import vtk

from . import parameter_values as values
from .parameter_widgets import Connector, createConnector

RESERVED = {
    *("allParameters", "default", "dataType", "getValue", "setValue", "isCached"),
    *("connectGui", "connectParametersToGui", "disconnectGui"),
    *("StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified"),
}
OFFERED = (
    *("Validator", "NotNone", "IsInstance", "WithinRange", "Minimum", "Maximum", "Choice", "Exclude"),
    *("Default", "Decimals", "SingleStep", "ObservedList"),
)


class _Parameter:
    def __init__(self, name: str, annotated, classtype):
        self.name, self.annotated = name, annotated
        self.value, annotations = values.valueFor(annotated)
        if name in classtype.__dict__:
            self._default = values.Default(classtype.__dict__[name])
        else:
            self._default = values.findAnnotation(annotations, values.Default)

    def default(self):
        return self._default.value if self._default is not None else self.value.default()


def _attributeFor(parameter: _Parameter) -> property:
    def read(self):
        if not parameter.value.isIn(self.parameterNode, parameter.name):
            write(self, parameter.default())
        if parameter.name in self._cached:
            return self._cached[parameter.name]
        return parameter.value.read(self.parameterNode, parameter.name)

    def write(self, value):
        with slicer.util.NodeModify(self.parameterNode):
            parameter.value.write(self.parameterNode, parameter.name, value)
            if parameter.name in self._cached:
                self._cached[parameter.name] = parameter.value.read(self.parameterNode, parameter.name)

    return property(read, write)


def _initialize(self, parameterNode, prefix=None):
    if prefix:
        raise NotImplementedError("the stand-in's parameter nodes take no prefix")
    self.parameterNode = parameterNode
    self._cached = {}
    self._guis, self._observerTags, self._nextTag, self._updating = {}, {}, 0, False
    for parameter in self.allParameters.values():
        if not parameter.value.isIn(parameterNode, parameter.name):
            parameter.value.write(parameterNode, parameter.name, parameter.default())
    _readIntoCache(self)
    itself = weakref.ref(self)
    parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: _readIntoCache(itself()))


def _readIntoCache(self):
    """As in Slicer, values are read when the node is modified: a node that enters the scene later stays None."""
    if self is not None:
        for name, parameter in self.allParameters.items():
            if not isinstance(parameter.value, values.ListValue) and parameter.value.isIn(self.parameterNode, name):
                self._cached[name] = parameter.value.read(self.parameterNode, name)


def _parameterOf(self, name: str) -> _Parameter:
    try:
        return self.allParameters[name]
    except KeyError:
        raise ValueError(f"Cannot find a param with the given name: {name}") from None


def _getValue(self, name):
    return getattr(self, _parameterOf(self, name).name)


def _setValue(self, name, value):
    setattr(self, _parameterOf(self, name).name, value)


def _updateGui(self):
    if self._updating:
        return
    self._updating = True
    try:
        with slicer.util.NodeModify(self.parameterNode):
            for connectors in self._guis.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
    finally:
        self._updating = False


def _connectParametersToGui(self, mapping):
    connectors = {
        name: gui if isinstance(gui, Connector) else createConnector(gui, _parameterOf(self, name).annotated)
        for name, gui in mapping.items()
    }
    tag, self._nextTag = self._nextTag, self._nextTag + 1
    self._guis[tag] = connectors
    for name, connector in connectors.items():

        def onEdited(name=name, connector=connector):
            if not self._updating:
                with slicer.util.NodeModify(self.parameterNode):
                    self.setValue(name, connector.read())

        connector.write(self.getValue(name))
        connector.onChanged(onEdited)
    self._observerTags[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: _updateGui(self))
    return tag


def _connectGui(self, gui):
    isWidget = hasattr(gui, "isWidgetType") and gui.isWidgetType()
    import qt

    widgets = gui.findChildren(qt.QWidget) if isWidget else gui.__dict__.values()
    named = {widget.property("SlicerParameterName"): widget for widget in widgets}
    named.pop(None, None)
    return self.connectParametersToGui(named)


def _disconnectGui(self, tag):
    for connector in self._guis.pop(tag, {}).values():
        connector.onChanged(None)
    if tag in self._observerTags:
        self.RemoveObserver(self._observerTags.pop(tag))


def parameterNodeWrapper(classtype=None):
    """Class decorator; see the module's docstring."""
    if classtype is None:
        return parameterNodeWrapper
    parameters = {}
    for name, annotated in typing.get_type_hints(classtype, include_extras=True).items():
        if name in RESERVED:
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        parameters[name] = _Parameter(name, annotated, classtype)
    for name, parameter in parameters.items():
        setattr(classtype, name, _attributeFor(parameter))
    classtype.allParameters = parameters
    classtype._is_parameter_node_wrapper = True
    classtype.__init__ = _initialize
    classtype.default = lambda self, name: values.Default(_parameterOf(self, name).default())
    classtype.dataType = classmethod(lambda cls, name: _parameterOf(cls, name).annotated)
    classtype.getValue, classtype.setValue = _getValue, _setValue
    classtype.isCached = lambda self, name: _parameterOf(self, name).name in self._cached
    classtype.connectGui, classtype.disconnectGui = _connectGui, _disconnectGui
    classtype.connectParametersToGui = _connectParametersToGui
    for name in ("StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified"):
        setattr(classtype, name, lambda self, *args, name=name: getattr(self.parameterNode, name)(*args))
    return classtype


def install() -> None:
    """Make ``slicer.parameterNodeWrapper``: this imitation, or Slicer's own from SLICER_PYTHON_SOURCE."""
    source = os.environ.get("SLICER_PYTHON_SOURCE")
    name = "slicer.parameterNodeWrapper"
    if source:
        folder = Path(source) / "slicer" / "parameterNodeWrapper"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    else:
        module = types.ModuleType(name, __doc__)
        module.parameterNodeWrapper = parameterNodeWrapper
        module.isParameterNodeWrapper = lambda thing: getattr(thing, "_is_parameter_node_wrapper", False)
        module.SlicerParameterNamePropertyName = "SlicerParameterName"
        module.GuiConnector = Connector
        for offered in OFFERED:
            setattr(module, offered, getattr(values, offered))
        sys.modules[name] = module
    slicer.parameterNodeWrapper = module
