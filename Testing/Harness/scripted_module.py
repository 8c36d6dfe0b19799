"""Scripted modules: the base classes a module derives from, and the C++ side that loads, shows and reloads them.

Written for these tests after the behaviour of Slicer's ScriptedLoadableModule.py, qSlicerScriptedLoadableModule and
qSlicerScriptedLoadableModuleWidget. ``i18n`` here returns its text untranslated.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import types
import unittest
from pathlib import Path

import qt
import slicer
import slicer.util
from PySide6.QtCore import Property, QObject, Signal

from .pythonqt import emulatedCppClass
from .qmrml_widgets import qMRMLWidget


class ScriptedLoadableModule:
    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        for suffix in (".svg", ".png"):
            icon = Path(parent.path).parent / "Resources" / "Icons" / (self.moduleName + suffix)
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        return f'<p>See <a href="{slicer.app.moduleDocumentationUrl(self.moduleName)}">the documentation</a>.</p>'

    def runTest(self, msec=100, **kwargs):
        testClass = getattr(sys.modules[type(self).__module__], self.moduleName + "Test")
        test = testClass()
        test.messageDelay = msec
        test.runTest(**kwargs)


def _withoutSuffix(name: str, suffix: str) -> str:
    return name[: -len(suffix)] if name.endswith(suffix) else name


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = _withoutSuffix(type(self).__name__, "Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if parent:
            self.parent = parent
        else:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        if self.developerMode:
            self.reloadButton = qt.QPushButton("Reload")
            self.reloadButton.connect("clicked()", self.onReload)
            self.layout.addWidget(self.reloadButton)

    def cleanup(self):
        pass

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = _withoutSuffix(type(self).__name__, "Logic")
        self.isSingletonParameterNode = True

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node:
                if node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene removes it
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            nodes = self.getAllParameterNodes()
            if nodes:
                return nodes[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.enableScreenshots = False
        self.messageDelay = 0

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        logging.info(message)
        slicer.app.processEvents()

    def takeScreenshot(self, name, description, type=-1):
        pass

    def runTest(self):
        """Module tests override this; the base runs every method whose name starts with ``test``."""
        for name in [n for n in dir(self) if n.startswith("test") and callable(getattr(self, n))]:
            self.setUp()
            getattr(self, name)()
            self.tearDown()


def _plain(name, kind, empty):
    def write(self, value):
        self._values[name] = tuple(value) if isinstance(value, list) else value

    return Property(kind, lambda self: self._values.get(name, empty), write)


@emulatedCppClass
class qSlicerScriptedLoadableModule(QObject):
    """The ``parent`` a module's constructor fills in, and ``slicer.modules.<name>``."""

    title, helpText, acknowledgementText = _plain("title", str, ""), _plain("helpText", str, ""), _plain("ack", str, "")
    categories, contributors = _plain("categories", "QVariantList", ()), _plain("contributors", "QVariantList", ())
    dependencies, associatedNodeTypes = _plain("depends", "QVariantList", ()), _plain("types", "QVariantList", ())
    icon, index, hidden = _plain("icon", "QVariant", None), _plain("index", int, -1), _plain("hidden", bool, False)
    widgetRepresentationCreationEnabled = _plain("widgetEnabled", bool, True)

    def __init__(self, name: str, path: Path):
        super().__init__()
        self.setObjectName(name)
        self._values, self._path, self._widget, self._instance = {}, path, None, None

    path = Property(str, lambda self: str(self._path))
    name = Property(str, lambda self: self.objectName)

    def logic(self):
        return None

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self):
        widget = qSlicerScriptedLoadableModuleWidget()
        widget._source(self.objectName, self._path)
        widget.setMRMLScene(slicer.mrmlScene)
        widget.setup()
        return widget


@emulatedCppClass
class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The C++ widget that holds the panel and forwards setup, enter and exit to the Python class."""

    def __init__(self, parent=None):
        super().__init__(parent)
        qt.QVBoxLayout(self)
        self._self, self._name, self._path, self._entered = None, "", None, False

    isEntered = Property(bool, lambda self: self._entered)

    def _source(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        widgetClass = getattr(sys.modules[name], name + "Widget")
        self.setObjectName(name + "ModuleWidget")
        self._self = widgetClass(self)
        setattr(slicer.modules, name + "Widget", self._self)

    def setup(self):
        self._self.setup()

    def reload(self):
        self._source(self._name, self._path)
        self.setup()

    def enter(self):
        self._entered = True
        if hasattr(self._self, "enter"):
            self._self.enter()

    def exit(self):
        self._entered = False
        if hasattr(self._self, "exit"):
            self._self.exit()

    def self(self):
        return self._self


class CppModule:
    """``slicer.modules.volumes`` and the like: a real logic, no panel."""

    def __init__(self, name: str, logic):
        self.name = self.title = name
        self.path = ""
        self._logic = logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


@emulatedCppClass
class ModuleManager(QObject):
    moduleAboutToBeUnloaded = Signal(str)
    moduleLoaded = Signal(str)

    def __init__(self, application):
        super().__init__()
        self._application, self._modules = application, {}

    def addCppModule(self, name: str, logic) -> None:
        self._register(name, CppModule(name, logic))

    def _register(self, name: str, module) -> None:
        self._modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.moduleNames, name, name)

    def loadScripted(self, path: Path):
        """Import the file under its own name, with its folder on sys.path, and construct the module class."""
        name = path.stem
        if name in self._modules:
            return self._modules[name]
        folder = str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(name, path)
        pythonModule = importlib.util.module_from_spec(spec)
        sys.modules[name] = pythonModule
        try:
            spec.loader.exec_module(pythonModule)
        except BaseException:
            del sys.modules[name]
            raise
        module = qSlicerScriptedLoadableModule(name, path)
        module._instance = getattr(pythonModule, name)(module)
        if hasattr(module._instance, "setup"):
            module._instance.setup()
        setattr(slicer.modules, name + "Instance", module._instance)
        self._register(name, module)
        self.moduleLoaded.emit(name)
        return module

    def unload(self, name: str) -> None:
        """What happens to one module when Slicer quits: its widget's cleanup() runs and the widget goes."""
        self.moduleAboutToBeUnloaded.emit(name)
        module = self._modules.pop(name)
        if module._widget is not None:
            module._widget.hide()
            module._widget.deleteLater()
        for attribute in (name.lower(), name + "Instance", name + "Widget"):
            if hasattr(slicer.modules, attribute):
                delattr(slicer.modules, attribute)
        slicer.selfTests.pop(name, None)
        slicer.app.processEvents()

    def module(self, name: str):
        return self._modules.get(name)

    def modulesNames(self):
        return tuple(self._modules)

    def factoryManager(self):
        return self

    loadedModuleNames = modulesNames


def _i18n() -> types.ModuleType:
    module = types.ModuleType("slicer.i18n", "stand-in: nothing is translated")
    module.tr = lambda text: text
    module.translate = lambda context, text: text
    module.getContext = lambda path: Path(path).stem
    return module


def install() -> None:
    module = types.ModuleType("slicer.ScriptedLoadableModule", __doc__)
    names = [name for name in globals() if name.startswith("ScriptedLoadable")]
    for name in names:
        setattr(module, name, globals()[name])
    module.__all__ = names
    source = os.environ.get("SLICER_PYTHON_SOURCE")
    sys.modules["slicer.i18n"] = slicer.i18n = _i18n()
    sys.modules["slicer.ScriptedLoadableModule"] = slicer.ScriptedLoadableModule = module
    slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
    if source:
        _installSlicersOwn(Path(source))


def _installSlicersOwn(basePython: Path) -> None:
    """Use the Python layer of a Slicer checkout (its Base/Python folder) instead of this file's imitation."""
    folder = basePython / "slicer"
    if not (folder / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"SLICER_PYTHON_SOURCE: no slicer/ScriptedLoadableModule.py in {basePython}")
    for name in ("i18n", "ScriptedLoadableModule"):
        spec = importlib.util.spec_from_file_location(f"slicer.{name}", folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
        spec.loader.exec_module(module)
