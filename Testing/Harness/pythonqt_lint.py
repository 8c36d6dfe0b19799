"""Finds in Slicer-facing code what real PythonQt, Slicer or the Extensions Index breaks and the stand-in cannot show.

Reads the syntax tree only. Run: ``python -m Harness.pythonqt_lint FILE_OR_FOLDER...`` in ``Testing``.
A line ending in ``# pythonqt: ok`` with a reason is left alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Properties that are methods in C++ and in PySide6, and plain attributes in PythonQt: calling them fails in Slicer.
PROPERTIES = {
    *("text", "title", "windowTitle", "toolTip", "statusTip", "placeholderText", "plainText", "html"),
    *("value", "minimum", "maximum", "singleStep", "decimals", "suffix", "prefix", "tracking"),
    *("checked", "checkable", "enabled", "visible", "collapsed", "readOnly", "editable", "default", "autoDefault"),
    *("currentIndex", "currentText", "currentData", "currentRow", "currentPath", "rowCount", "columnCount"),
    *("width", "height", "geometry", "pos", "size", "font", "palette", "styleSheet", "sizeHint", "minimumSizeHint"),
    *("objectName", "modal", "spacing", "icon", "flat", "down", "alignment", "wordWrap", "nodeTypes", "interval"),
    *("currentNodeID", "noneEnabled", "addEnabled", "removeEnabled", "isEntered", "temporaryPath", "slicerHome"),
}
# Methods of these names that are methods in PythonQt too: the receiver decides, so only Qt-like receivers are looked at.
NOT_QT_RECEIVERS = {"self", "cls", "np", "numpy", "shutil", "os", "vtk", "json", "Path", "path", "math"}

GONE = {
    "QRegExp": "QRegExp is not in Qt 6: use Python's re, or QRegularExpression",
    "QTextCodec": "QTextCodec is not in Qt 6: use Python's codecs",
    "QDesktopWidget": "QDesktopWidget is not in Qt 6: use QScreen",
    "QSignalMapper": "use a lambda, or idClicked of QButtonGroup",
    "Signal": "PythonQt has no Signal: a Qt class derived in Python cannot declare one",
    "Slot": "PythonQt has no Slot decorator",
    "Property": "PythonQt has no Property: derive no Qt class for that",
}
GONE_METHODS = {
    "setMargin": "setMargin is not in Qt 6: use setContentsMargins(left, top, right, bottom)",
    "exec": "PythonQt calls it exec_()",
    "true_property": "a PySide6 name",
    "buttonClicked_int": "use idClicked",
}
STANDARD_IN_SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "SimpleITK", "sitkUtils", "numpy", "scipy"}
OWN = {"CalibUncertainty", "CalibUncertaintyLib", "CalibUncertaintyPanel"}
QUESTIONS = ("confirmOkCancelDisplay", "confirmYesNoDisplay", "pip_ensure", "question", "confirm")
INSTALLS = ("pip_install", "pip_uninstall")
THREADS = ("threading.Thread", "threading.Timer", "ThreadPoolExecutor", "qt.QThread")


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


def _dotted(node: ast.AST) -> str:
    """``a.b.c`` of an attribute chain, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def _isQtName(dotted: str) -> bool:
    return dotted.startswith(("qt.", "ctk.", "slicer.qMRML", "slicer.qSlicer"))


def _looksLikeWidget(receiver: ast.AST) -> bool:
    """``self.ui.x``, ``self._button``, ``label``: names people give to widgets; not modules, not arrays."""
    dotted = _dotted(receiver)
    words = (
        "ui.",
        "button",
        "label",
        "slider",
        "box",
        "combo",
        "widget",
        "edit",
        "table",
        "spin",
        "selector",
        "layout",
    )
    words += ("dialog", "progressbar", "parent", "action", "timer")
    if not dotted or dotted.split(".")[0] in NOT_QT_RECEIVERS - {"self"}:
        return False
    last = dotted.lower().rpartition(".")[2]
    return ".ui." in f".{dotted.lower()}." or any(word in last for word in words if word != "ui.")


class _Visitor(ast.NodeVisitor):
    def __init__(self, path: str, source: str, stdlib: frozenset[str]):
        self.path, self.lines, self.stdlib = path, source.splitlines(), stdlib
        self.findings: list[Finding] = []
        self.functions: list[ast.AST] = []
        self.allFunctions: list[ast.AST] = []

    def report(self, node: ast.AST, rule: str, message: str) -> None:
        if not any("# pythonqt: ok" in line for line in self.lines[node.lineno - 1 : node.end_lineno]):
            self.findings.append(Finding(self.path, node.lineno, rule, message))

    # imports -----------------------------------------------------------------------------------------------------------
    def _checkImport(self, node: ast.AST, module: str) -> None:
        top = module.split(".")[0]
        if top in ("PySide6", "PySide2", "PyQt5", "PyQt6"):
            self.report(node, "import", f"{top} is not in Slicer: import qt")
        elif top in ("imp", "distutils"):
            self.report(node, "import", f"{top} is not in Python 3.12: use importlib, packaging or shutil")
        elif not self.functions and top not in self.stdlib | STANDARD_IN_SLICER | OWN:
            self.report(
                node, "import", f"third-party {top} imported at file scope: the module would not load without it"
            )

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._checkImport(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module:
            self._checkImport(node, node.module)

    def visit_If(self, node: ast.If) -> None:
        if _dotted(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    # classes and functions ---------------------------------------------------------------------------------------------
    def _visitFunction(self, node) -> None:
        self.functions.append(node)
        self.generic_visit(node)
        self.functions.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visitFunction

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if _isQtName(_dotted(base)):
                message = f"{node.name} derives {_dotted(base)}: parameter-node connectors and .ui files want the class itself"
                self.report(node, "subclass", message)
        self.generic_visit(node)

    # uses --------------------------------------------------------------------------------------------------------------
    def visit_Attribute(self, node: ast.Attribute) -> None:
        if _dotted(node).startswith(("qt.", "QtCore.")) and node.attr in GONE:
            self.report(node, "gone", GONE[node.attr])
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _dotted(node.func)
        if name in ("isinstance", "issubclass") and len(node.args) == 2:
            kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
            for kind in kinds:
                if _isQtName(_dotted(kind)):
                    message = f"{name}(…, {_dotted(kind)}) is False for derived classes: use inherits('{kind.attr}')"
                    self.report(node, "isinstance", message)
        if _isQtName(name) and name.rpartition(".")[2][:1] in "Qcq" and name.count(".") <= 2 and node.keywords:
            last = name.rpartition(".")[2]
            if last.startswith(("Q", "ctk", "qMRML", "qSlicer")):
                self.report(node, "keywords", f"{name}() takes no keyword arguments in PythonQt")
        if isinstance(node.func, ast.Attribute):
            self._checkMethod(node, node.func)
        if name.endswith(INSTALLS) and not self._asksFirst():
            self.report(node, "install", "installs a package, and not every way here asks the person first")
        if name.endswith(THREADS):
            message = "a thread stands still in Slicer unless the main thread waits for it: use BackgroundAnswer"
            self.report(node, "thread", message)
        self._checkShortcut(node, name)
        self.generic_visit(node)

    def _checkMethod(self, node: ast.Call, func: ast.Attribute) -> None:
        if func.attr in GONE_METHODS and (func.attr != "exec" or _looksLikeWidget(func.value)):
            self.report(node, "gone", GONE_METHODS[func.attr])
        if func.attr in PROPERTIES and not node.args and not node.keywords and _looksLikeWidget(func.value):
            self.report(node, "property", f".{func.attr} is a property in PythonQt: '{func.attr}()' is a TypeError")

    def _checkShortcut(self, node: ast.Call, name: str) -> None:
        if not name.endswith(("QShortcut", "QKeySequence", "setShortcut")):
            return
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and len(argument.value) == 1:
                self.report(node, "shortcut", f"single-letter shortcut {argument.value!r} takes the key from Slicer")

    def _asksFirst(self) -> bool:
        """Whether the outermost function around here asks, or every function of the file that leads to it does."""
        return bool(self.functions) and self._leadsToQuestion(self.functions[0], set())

    def _leadsToQuestion(self, function: ast.AST, seen: set[ast.AST]) -> bool:
        called = {_dotted(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
        if any(name.rpartition(".")[2] in QUESTIONS for name in called):
            return True
        seen = seen | {function}
        callers = [other for other in self.allFunctions if other not in seen and _calls(other, function)]
        return bool(callers) and all(self._leadsToQuestion(caller, seen) for caller in callers)


def _calls(caller: ast.AST, function: ast.AST) -> bool:
    name = getattr(function, "name", None)
    calls = (n for n in ast.walk(caller) if isinstance(n, ast.Call))
    return name is not None and any(_dotted(n.func).rpartition(".")[2] == name for n in calls)


def lintSource(source: str, path: str = "<source>") -> list[Finding]:
    """Findings in one file's text, in the order of its lines."""
    visitor = _Visitor(path, source, frozenset(sys.stdlib_module_names))
    tree = ast.parse(source, path)
    visitor.allFunctions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    visitor.visit(tree)
    return sorted(visitor.findings, key=lambda finding: finding.line)


def pythonFiles(*places: Path | str) -> Iterator[Path]:
    """The .py files named, and those in the folders named."""
    for place in map(Path, places):
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place]


def lint(*places: Path | str) -> list[Finding]:
    """Findings in files and folders."""
    return [f for path in pythonFiles(*places) for f in lintSource(path.read_text(encoding="utf-8"), str(path))]


if __name__ == "__main__":
    found = lint(*sys.argv[1:])
    print("\n".join(map(str, found)) or "nothing found")
    sys.exit(1 if found else 0)
