"""Imitations of the qMRML widgets that panels use, on a real MRML scene, and the loader that puts them into .ui files."""

from __future__ import annotations

import functools
import operator
import xml.etree.ElementTree as ElementTree

import shiboken6
import slicer
from PySide6.QtCore import Property, QBuffer, QByteArray, QIODevice, Signal
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QMainWindow, QSizePolicy, QWidget

from . import ctk_widgets
from .ctk_widgets import _SpinAndSlider
from .pythonqt import connectBySignature, emulatedCppClass, hasSignal, ignoringNewAttributes


class _HasScene(QWidget):
    mrmlSceneChanged = Signal(object)
    _signatures = ("mrmlSceneChanged(vtkMRMLScene*)",)

    def __init__(self, *args):
        super().__init__(*args)
        self._scene = None

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self._onScene(scene)
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    def _onScene(self, scene):
        pass


@emulatedCppClass
class qMRMLWidget(_HasScene):
    pass


@emulatedCppClass
class qSlicerWidget(_HasScene):
    pass


@emulatedCppClass
class qMRMLNodeComboBox(_HasScene):
    """Lists the nodes of some classes. Entries carry the node ID; the scene is observed."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    _signatures = (
        "currentNodeChanged(vtkMRMLNode*)",
        "currentNodeChanged(bool)",
        "nodeActivated(vtkMRMLNode*)",
        "nodeAdded(vtkMRMLNode*)",
        "nodeAddedByUser(vtkMRMLNode*)",
        "nodeAboutToBeRemoved(vtkMRMLNode*)",
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._combo = QComboBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Fixed)
        self._combo.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Expanding)
        self._nodeTypes, self._attributes, self._tags, self._busy, self._heldID = (), [], [], False, ""
        self._options = {"noneEnabled": False, "addEnabled": True, "removeEnabled": True, "renameEnabled": False}
        self._options |= {"editEnabled": False, "selectNodeUponCreation": True, "showChildNodeTypes": True}
        self._options |= {"showHidden": False, "hideChildNodeTypes": (), "noneDisplay": "None", "baseName": ""}
        self._combo.currentIndexChanged.connect(lambda index: self._onIndex())

    def _onScene(self, scene):
        self._stopObserving()
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent, scene.EndCloseEvent)
            self._tags = [(scene, scene.AddObserver(event, self._onSceneEvent)) for event in events]
        self._refill()

    def _stopObserving(self):
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []

    def _onSceneEvent(self, caller, event):
        if not shiboken6.isValid(self):  # the widget was deleted; a C++ widget would have stopped to listen
            self._stopObserving()
        elif not caller.IsBatchProcessing():
            self._refill()

    def _isListed(self, node) -> bool:
        if node.GetHideFromEditors() and not self._options["showHidden"]:
            return False
        if any(node.IsA(hidden) for hidden in self._options["hideChildNodeTypes"]):
            return False
        ofClass = node.IsA if self._options["showChildNodeTypes"] else (lambda name: node.GetClassName() == name)
        for nodeType in self._nodeTypes:
            if ofClass(nodeType):
                wanted = [(name, value) for forType, name, value in self._attributes if forType == nodeType]
                return all(
                    node.GetAttribute(name) is not None
                    and (value in (None, "") or node.GetAttribute(name) == str(value))
                    for name, value in wanted
                )
        return False

    def _nodes(self):
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in nodes if self._isListed(node)]

    def _refill(self):
        """List the nodes anew. As in Slicer, nothing is chosen by itself, but a removed node gives way to its neighbour."""
        self._busy = True
        row = self._combo.currentIndex
        self._combo.clear()
        if self._options["noneEnabled"]:
            self._combo.addItem(self._options["noneDisplay"], "")
        for node in self._nodes():
            self._combo.addItem(node.GetName(), node.GetID())
        found = self._combo.findData(self._heldID) if self._heldID else (0 if self._options["noneEnabled"] else -1)
        gone = self._heldID and found < 0
        self._combo.setCurrentIndex(min(row, self._combo.count - 1) if gone else found)
        self._busy = False
        self._onIndex()

    def _onIndex(self):
        if self._busy:
            return
        nodeID = self._combo.currentData or ""
        if nodeID != self._heldID:
            self._heldID = nodeID
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(nodeID)

    def currentNode(self):
        return self._scene.GetNodeByID(self._heldID) if self._scene is not None and self._heldID else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, nodeID):
        index = self._combo.findData(nodeID) if nodeID else -1
        self._combo.setCurrentIndex(0 if index < 0 and self._options["noneEnabled"] else index)
        self._onIndex()

    def addNode(self, nodeType=None):
        node = self._scene.AddNewNodeByClass(nodeType or self._nodeTypes[0], self._options["baseName"])
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def nodeCount(self):
        return len(self._nodes())

    def nodeFromIndex(self, index):
        return self._nodes()[index]

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.append((nodeType, name, value))
        self._refill()

    def removeAttribute(self, nodeType, name):
        self._attributes = [a for a in self._attributes if a[:2] != (nodeType, name)]
        self._refill()

    def _setNodeTypes(self, value):
        self._nodeTypes = tuple(value)
        self._refill()

    def _option(name, kind=bool):  # noqa: N805 - makes a property while the class body runs
        def write(self, value):
            self._options[name] = tuple(value) if isinstance(value, list) else value
            self._refill()

        return Property(kind, lambda self: self._options[name], write)

    nodeTypes = Property("QStringList", lambda self: self._nodeTypes, _setNodeTypes)
    hideChildNodeTypes = _option("hideChildNodeTypes", "QStringList")
    noneEnabled, addEnabled, removeEnabled = _option("noneEnabled"), _option("addEnabled"), _option("removeEnabled")
    renameEnabled, editEnabled, showHidden = _option("renameEnabled"), _option("editEnabled"), _option("showHidden")
    showChildNodeTypes, selectNodeUponCreation = _option("showChildNodeTypes"), _option("selectNodeUponCreation")
    noneDisplay, baseName = _option("noneDisplay", str), _option("baseName", str)
    currentNodeID = Property(str, lambda self: self._heldID, setCurrentNodeID)


@emulatedCppClass
class qMRMLSubjectHierarchyComboBox(_HasScene):
    """Light: one item is current; nothing is drawn but its name."""

    currentItemChanged = Signal(object)
    _signatures = ("currentItemChanged(vtkIdType)",)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._item = 0

    def currentItem(self):
        return self._item

    def setCurrentItem(self, item):
        if item != self._item:
            self._item = item
            self.currentItemChanged.emit(item)


@emulatedCppClass
class qMRMLColorTableComboBox(qMRMLNodeComboBox):
    def __init__(self, parent=None):
        super().__init__(parent)
        self._nodeTypes = ("vtkMRMLColorNode",)
        self._options["showHidden"] = True


@emulatedCppClass
class qMRMLSliderWidget(_SpinAndSlider):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._quantity = ""

    def setMRMLScene(self, scene):
        self._scene = scene

    def mrmlScene(self):
        return self._scene

    quantity = Property(str, lambda self: self._quantity, lambda self, value: setattr(self, "_quantity", value))


@emulatedCppClass
class qMRMLRangeWidget(ctk_widgets.ctkRangeWidget):
    pass


@emulatedCppClass
class qMRMLSpinBox(ctk_widgets.ctkDoubleSpinBox):
    pass


@emulatedCppClass
class qSlicerModuleSelectorToolBar(QWidget):
    moduleSelected = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._selected = ""

    def selectModule(self, name):
        from .application import application

        application().enterModule(name)
        self._selected = name
        self.moduleSelected.emit(name)

    selectedModule = Property(str, lambda self: self._selected)


@emulatedCppClass
class qSlicerMainWindow(QMainWindow):
    def __init__(self, parent=None):
        super().__init__(parent)
        self.setObjectName("qSlicerMainWindow")
        self._selector = qSlicerModuleSelectorToolBar(self)

    def moduleSelector(self):
        return self._selector


EMULATED_IN_SLICER = {
    cls.__name__: cls
    for cls in (
        qMRMLWidget,
        qSlicerWidget,
        qMRMLNodeComboBox,
        qMRMLSubjectHierarchyComboBox,
        qMRMLColorTableComboBox,
        qMRMLSliderWidget,
        qMRMLRangeWidget,
        qMRMLSpinBox,
        qSlicerMainWindow,
    )
}

EMULATED_WIDGETS = EMULATED_IN_SLICER | {
    name: cls for name, cls in vars(ctk_widgets).items() if name.startswith("ctk") and isinstance(cls, type)
}


class UiLoader(QUiLoader):
    """QUiLoader that knows the emulated classes and wires connections whose arguments are VTK objects."""

    def createWidget(self, className, parent=None, name=""):
        cls = EMULATED_WIDGETS.get(className)
        if cls is None:
            if className.startswith(("ctk", "qMRML", "qSlicer")):
                raise NotImplementedError(f"the stand-in has no {className}: add it to Testing/Harness")
            return super().createWidget(className, parent, name)
        widget = cls(parent)
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        if not device.isOpen() and not device.open(QIODevice.ReadOnly):
            return None
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        connections = [
            {part.tag: part.text for part in connection} for connection in root.findall("./connections/connection")
        ]
        mine = [c for c in connections if "vtk" in c["signal"] + c["slot"]]
        for parent_, connection in [(p, c) for p in root.iter("connections") for c in list(p)]:
            if "vtk" in connection.findtext("signal") + connection.findtext("slot"):
                parent_.remove(connection)
        enumerations = self._takeEnumerations(root)
        buffer = QBuffer()
        buffer.setData(QByteArray(ElementTree.tostring(root)))
        buffer.open(QIODevice.ReadOnly)
        with ignoringNewAttributes():
            widget = super().load(buffer, parent)
        if widget is None:
            return None
        self._checkProperties(root, widget)
        for owner, name, value in enumerations:
            setattr(self._named(widget, owner), name, value)
        for connection in mine:
            self._connect(widget, connection)
        return widget

    @staticmethod
    def _named(widget, name):
        found = widget if widget.objectName == name else widget.findChild(QWidget, name)
        if found is None:
            raise ValueError(f"the .ui connects {name}, which it does not contain")
        return found

    @staticmethod
    def _takeEnumerations(root):
        """Enumerations of the emulated classes, which Qt does not know: (widget, property, value), taken out of the .ui."""
        taken = []
        for element in root.iter("widget"):
            cls = EMULATED_WIDGETS.get(element.get("class"))
            for setting in list(element.findall("property")) if cls else ():
                text = setting.findtext("set") or setting.findtext("enum") or ""
                if text.startswith(element.get("class") + "::"):
                    flags = [getattr(cls, flag.rpartition("::")[2]) for flag in text.split("|")]
                    taken.append((element.get("name"), setting.get("name"), functools.reduce(operator.or_, flags)))
                    element.remove(setting)
        return taken

    def _connect(self, widget, connection):
        sender, receiver = (self._named(widget, connection[end]) for end in ("sender", "receiver"))
        slot = connection["slot"].partition("(")[0]
        if not hasSignal(sender, connection["signal"]) or not hasattr(receiver, slot):
            raise ValueError(f"the .ui connects what the stand-in lacks: {connection}")
        connectBySignature(sender, connection["signal"], getattr(receiver, slot))

    def _checkProperties(self, root, widget):
        """A property name that the class lacks becomes a silent dynamic property; say so instead."""
        for element in root.iter("widget"):
            if element.get("class") not in EMULATED_WIDGETS:
                continue
            made = self._named(widget, element.get("name"))
            for setting in element.findall("property"):
                name = setting.get("name")
                if setting.get("stdset") != "0" and made.metaObject().indexOfProperty(name) < 0:
                    raise AttributeError(f"{element.get('class')} {element.get('name')} has no property {name}")


def install() -> None:
    """Put the emulated classes where Slicer code looks for them."""
    import qt

    qt.QUiLoader = UiLoader
    for name, cls in EMULATED_IN_SLICER.items():
        setattr(slicer, name, cls)
