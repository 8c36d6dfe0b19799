"""Makes PySide6 behave as PythonQt does inside Slicer, and offers the result as the module ``qt``.

Real Qt, imitated binding. What PythonQt does and PySide6 does not: properties are attributes, surplus attributes are
refused, constructors take no keyword arguments, signals can be connected by their C++ signature, enumerations are
integers, lists come back as tuples. Each of these is tested in Testing/Python/harness/test_pythonqt.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import sys
import types

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools)

# PySide6 asks Python for these while it lays widgets out, and would take the value for an override.
NOT_AS_ATTRIBUTE = {"sizeHint", "minimumSizeHint"}

# Methods that PythonQt answers with a tuple where PySide6 gives a list.
TUPLE_METHODS = {
    QtCore.QObject: ("children", "findChildren", "dynamicPropertyNames"),
    QtWidgets.QListWidget: ("selectedItems", "findItems"),
    QtWidgets.QTableWidget: ("selectedItems", "selectedRanges", "findItems"),
    QtWidgets.QTreeWidget: ("selectedItems", "findItems"),
    QtCore.QItemSelectionModel: ("selectedRows", "selectedColumns"),
}

EMULATED_MARK = "_isEmulatedCppClass"

_setPlainAttribute = shiboken6.Shiboken.Object.__setattr__
_ignoresNewAttributes = False
_connections: dict[tuple, object] = {}


def emulatedCppClass(cls: type) -> type:
    """Class decorator: Python code of the harness that stands for a C++ class (ctk, qMRML, qSlicer).

    Its objects refuse unknown attributes as wrapped C++ objects do; names that start with an underscore are its own.
    """
    setattr(cls, EMULATED_MARK, cls.__name__)
    cls.__setattr__ = _guardedSetAttribute
    if "__init__" in cls.__dict__:
        _refuseKeywords(cls)
    return cls


def cppClassOf(cls: type) -> type | None:
    """The nearest class that stands for C++ code: itself, or the base a Python class derives from."""
    for base in cls.__mro__:
        if EMULATED_MARK in base.__dict__ or base.__module__.startswith("PySide6"):
            return base
    return None


@contextlib.contextmanager
def ignoringNewAttributes():
    """PySide6's QUiLoader hangs every child on its form as an attribute; PythonQt's does not."""
    global _ignoresNewAttributes
    _ignoresNewAttributes = True
    try:
        yield
    finally:
        _ignoresNewAttributes = False


def _lookUp(cls: type, name: str):
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _guardedSetAttribute(self, name: str, value) -> None:
    """PythonQt's rule: a property is set, anything else is refused unless the class was derived in Python."""
    attribute = _lookUp(type(self), name)
    if isinstance(attribute, QtCore.Property):
        if attribute.fset is None:
            raise AttributeError(f"Property '{name}' of type '{type(self).__name__}' is not writable")
        attribute.fset(self, value)
    elif isinstance(attribute, (property, _PropertyAndStaticMethod)):
        attribute.__set__(self, value)
    elif (
        isinstance(attribute, QtCore.Signal)
        or cppClassOf(type(self)) is not type(self)
        or (name.startswith("_") and EMULATED_MARK in type(self).__dict__)
    ):
        _setPlainAttribute(self, name, value)
    elif isinstance(self, QtCore.QObject) and self.property(name) is not None:
        self.setProperty(name, value)
    elif not _ignoresNewAttributes:
        raise AttributeError(
            f"Attribute '{name}' does not exist and creation of new attributes on C++ objects is not allowed"
        )


class _PropertyAndStaticMethod:
    """``QTimer.singleShot(0, f)`` is a static method, ``timer.singleShot`` a property; PythonQt has both."""

    def __init__(self, staticMethod, fget, fset):
        self.staticMethod, self.fget, self.fset = staticMethod, fget, fset

    def __get__(self, instance, owner=None):
        return self.staticMethod if instance is None else self.fget(instance)

    def __set__(self, instance, value):
        self.fset(instance, value)


def _qtClasses() -> list[type]:
    found: dict[type, None] = {}
    for module in QT_MODULES:
        for name in dir(module):
            member = getattr(module, name)  # PySide6 creates its classes when they are first looked at
            if isinstance(member, type) and issubclass(member, shiboken6.Shiboken.Object):
                found[member] = None
    return list(found)


def _refuseKeywords(cls: type) -> None:
    original = cls.__dict__["__init__"]

    def construct(self, *args, **kwargs):
        if kwargs and cppClassOf(type(self)) is type(self):
            raise TypeError(f"{cls.__name__}() takes no keyword arguments")
        original(self, *args, **kwargs)

    cls.__init__ = construct


def _firstMethod(cls: type, *names: str):
    for name in names:
        method = _lookUp(cls, name)
        if method is not None and callable(method) and not isinstance(method, staticmethod):
            return method
    return None


def _attributeFor(cls: type, metaProperty: QtCore.QMetaProperty, name: str):
    """A Python property that reads and writes one Qt property through the class's own methods, or the meta object."""
    capital = name[0].upper() + name[1:]
    getter = _firstMethod(cls, f"is{capital}") if name == "singleShot" else _firstMethod(cls, name, f"is{capital}")
    setter = _firstMethod(cls, f"set{capital}") if metaProperty.isWritable() else None

    def read(self):
        value = getter(self) if getter else metaProperty.read(self)
        return tuple(value) if isinstance(value, list) else value

    def write(self, value):
        if setter:
            setter(self, value)
        elif metaProperty.isWritable():
            metaProperty.write(self, value)
        else:
            raise AttributeError(f"Property '{name}' of type '{type(self).__name__}' is not writable")

    if isinstance(cls.__dict__.get(name), staticmethod) or (cls is QtCore.QTimer and name == "singleShot"):
        return _PropertyAndStaticMethod(getattr(cls, name), read, write)
    return property(read, write)


def _installProperties(classes: list[type]) -> int:
    planned = []
    for cls in classes:
        meta = cls.__dict__.get("staticMetaObject")
        if meta is None:
            continue
        for index in range(meta.propertyCount()):
            metaProperty = meta.property(index)
            name = metaProperty.name()
            # An inherited property counts where the class repeats its getter (QBoxLayout.spacing).
            own = index >= meta.propertyOffset() or callable(cls.__dict__.get(name))
            if own and name not in NOT_AS_ATTRIBUTE:
                planned.append((cls, name, _attributeFor(cls, metaProperty, name)))
    for cls, name, attribute in planned:  # after planning: a getter must be the method, not an attribute set here
        setattr(cls, name, attribute)
    return len(planned)


def acceptedArguments(function) -> int | None:
    """How many positional arguments a callable takes; None for any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def callTrimmed(function, arguments: tuple):
    """Call with as many of the arguments as the function takes, as PythonQt's signal receiver does."""
    accepted = acceptedArguments(function)
    return function(*(arguments if accepted is None else arguments[:accepted]))


def _normalized(signature: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()


def hasSignal(sender: QtCore.QObject, signature: str) -> bool:
    """Whether C++ would know this signal; the emulated classes list signatures with VTK types in ``_signatures``."""
    normalized = _normalized(signature)
    if sender.metaObject().indexOfSignal(normalized) >= 0:
        return True
    return any(normalized in base.__dict__.get("_signatures", ()) for base in type(sender).__mro__)


def _connectRaw(sender: QtCore.QObject, signature: str, receive, connect: bool) -> None:
    if sender.metaObject().indexOfSignal(_normalized(signature)) >= 0:
        method = QtCore.QObject.connect if connect else QtCore.QObject.disconnect
        method(sender, QtCore.SIGNAL(_normalized(signature)), receive)
    else:  # an emulated signal whose argument is a VTK object: Qt knows it under another signature
        signal = getattr(sender, signature.partition("(")[0])
        (signal.connect if connect else signal.disconnect)(receive)


def connectBySignature(sender: QtCore.QObject, signature: str, function) -> bool:
    """``button.connect('clicked(bool)', f)``; an unknown signal prints and returns False, as in PythonQt."""
    if not hasSignal(sender, signature):
        print(f"QObject::connect: No such signal {type(sender).__name__}::{signature}", file=sys.stderr)
        return False
    arguments = _normalized(signature).partition("(")[2].rstrip(")")
    count = len([a for a in arguments.split(",") if a])

    def receive(*values):
        callTrimmed(function, values[:count])

    _connectRaw(sender, signature, receive, connect=True)
    _connections.setdefault(_connectionKey(sender, signature), []).append((function, receive))
    return True


def disconnectBySignature(sender: QtCore.QObject, signature: str, function) -> bool:
    made = _connections.get(_connectionKey(sender, signature), [])
    for index, (connected, receive) in enumerate(made):
        if connected == function:
            _connectRaw(sender, signature, receive, connect=False)
            del made[index]
            return True
    return False


def _connectionKey(sender: QtCore.QObject, signature: str) -> tuple:
    return shiboken6.getCppPointer(sender)[0], _normalized(signature)


def _attributeGetter(original):
    """``connect`` and ``disconnect`` by signature; everything else as the class itself finds it (QFile has its own)."""

    def getAttribute(self, name: str):
        bySignature = {"connect": connectBySignature, "disconnect": disconnectBySignature}.get(name)
        if bySignature is None:
            return original(self, name)

        def call(signature, *target):
            if isinstance(signature, str):
                return bySignature(self, signature, _target(target))
            return original(self, name)(signature, *target)  # PySide6's own code, e.g. in QTimer.singleShot

        return call

    return getAttribute


def _target(target: tuple):
    """``connect('a()', f)`` or ``connect('a()', receiver, 'slot()')``."""
    if len(target) == 1:
        return target[0]
    receiver, slot = target
    return getattr(receiver, slot.partition("(")[0])


def _className(self) -> str:
    return cppClassOf(type(self)).__name__


def _asTuple(method):
    def call(self, *args):
        return tuple(method(self, *args))

    return call


def _keepConstantsAlive() -> None:
    """PySide6 6.12 gives back True and False more often than it takes them; before Python 3.12 that ends the process.

    From 3.12 on these objects are immortal; here they get as many references as would be needed for that.
    """
    if sys.version_info < (3, 12):
        for constant in (True, False, None):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def createQtModule() -> types.ModuleType:
    """Patch PySide6 once and return the module that Slicer code imports as ``qt``."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    _keepConstantsAlive()
    classes = _qtClasses()
    _installProperties([c for c in classes if issubclass(c, QtCore.QObject)])
    getters = {cls: _attributeGetter(cls.__getattribute__) for cls in classes if issubclass(cls, QtCore.QObject)}
    for cls in classes:
        if cls in getters:
            cls.__getattribute__ = getters[cls]
        if issubclass(cls, (QtCore.QObject, QtGui.QPaintDevice)):
            cls.__setattr__ = _guardedSetAttribute
        if "__init__" in cls.__dict__:
            _refuseKeywords(cls)
    for cls, names in TUPLE_METHODS.items():
        for name in names:
            setattr(cls, name, _asTuple(cls.__dict__[name]))
    for cls in (QtWidgets.QMenu, QtCore.QEventLoop, QtCore.QCoreApplication):
        cls.exec_ = cls.exec
    QtCore.QObject.className = _className
    QtCore.QObject.name = property(lambda self: self.objectName, lambda self, value: self.setObjectName(value))

    module = types.ModuleType("qt", "Qt as Slicer's Python sees it (stand-in: PySide6 made to behave as PythonQt)")
    for qtModule in QT_MODULES:
        for name in dir(qtModule):
            if name.startswith("Q"):
                setattr(module, name, getattr(qtModule, name))
    sys.modules["qt"] = module
    return module
