"""What people read in the panel is handed to Slicer's translator: every string shown is wrapped in `_()`.

Names and titles of nodes are not: they are saved with a scene, which is the same in every language.
"""

import ast
import re
from pathlib import Path

import pytest

PANEL = Path(__file__).resolve().parents[3] / "CalibUncertainty"
NOT_FOR_PEOPLE = (
    "fakeProcess.py",
    "fakeCalibration.py",
    "fakeEvaluation.py",
    "testing.py",
    "selfTest.py",
    "segmentFolder.py",
)
SHOWING_CALLS = {
    "setText", "setToolTip", "setPlaceholderText", "setWindowTitle", "setTitle", "addItem", "addItems", "addAction",
    "setHorizontalHeaderLabels", "setItemText", "setPlainText", "showError", "_say", "finish", "cancel",
    "errorDisplay", "warningDisplay", "infoDisplay", "messageBox", "showStatusMessage",
    "confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay",
    "QLabel", "QCheckBox", "QPushButton", "QAction", "QGroupBox", "QMessageBox", "QTableWidgetItem",
    "getExistingDirectory", "getSaveFileName", "getOpenFileName", "getText", "question", "critical", "warning",
    "information",
}  # fmt: skip
SHOWING_ATTRIBUTES = {"text", "toolTip", "title", "windowTitle", "placeholderText", "statusTip", "detailedText"}
NODE_CALLS = {"SetName", "SetTitle", "SetTitleText", "SetAttribute", "AddNewNodeByClass", "addSegmentation", "roleNode"}
WORD = re.compile(r"""[("'\[]*[A-Za-z][a-z']+[)"'\].,:;?!]*|[A-Z]{2,}[.,:;?!]*""")
NAMES = {"CalibUncertainty"}  # the same in every language
FEWEST_WORDS = 4  # of a sentence; fewer may be a key, a path or the name of a node
# Sentences that are no text of the panel's, with the reason.
KNOWN = {
    "Flagged voxels (% of the region of interest)": "title of a plot's axis, saved with the scene",
    "Overlap with the errors (Dice)": "title of a plot's axis, saved with the scene",
    "Mean probability of the chosen label (%)": "title of a plot's axis, saved with the scene",
    "Voxels whose label was right (%)": "title of a plot's axis, saved with the scene",
    "Chance of a real error": "title of a legend, saved with the scene",
    "All structures in 3D": "name of a node",
    "Box of the region (goes when you come back)": "name of a node",
    "Anatomic codes - DICOM master list~^^~^^": "a terminology's own name",
    "a decision holds a value of the wrong kind": "caught and logged",
    "{} cannot be a shortcut here": "for programmers",
    "exit abnormally - Report the problem": "what PythonSlicer prints",
}


def called(node):
    """Name of the function that a call calls, without what lies before the last dot."""
    return getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""


def dotted(node):
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def words(text):
    """Number of words in a text; HTML tags, fields, paths, style sheets and numbers left out."""
    pieces = re.sub(r"<[^>]*>|&\w+;|\{[^}]*\}", " ", text).split()
    return sum(bool(WORD.fullmatch(piece)) for piece in pieces)


def text_of(node):
    """The text of a string or an f-string, its fields as "{}"; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def strings(tree):
    """(node, text, the nodes around it from inside to outside) of every string, the parts of f-strings left out."""

    def walk(node, around):
        text = text_of(node)
        if text is not None:
            yield node, text, around
        if isinstance(node, ast.JoinedStr):  # its own words are told; strings inside its fields are others
            children = [value for part in node.values if isinstance(part, ast.FormattedValue) for value in [part.value]]
        else:
            children = ast.iter_child_nodes(node)
        for child in children:
            yield from walk(child, (node, *around))

    yield from walk(tree, ())


def is_doc_string(around):
    return isinstance(around[0], ast.Expr)


def is_for_programmers(around):
    """Logged, said by the self test, a style sheet, the name of a node, the error of a programmer."""
    for node in around:
        if called(node) in NODE_CALLS | {"setStyleSheet", "delayDisplay"} or dotted(node).startswith("logging."):
            return True
        if isinstance(node, ast.Raise) and called(node.exc) in ("KeyError", "AssertionError", "NotImplementedError"):
            return True
        if isinstance(node, ast.stmt):
            return False
    return False


def is_translated(around):
    return any(called(node) in ("_", "translate") for node in around)


def is_shown(node, around):
    """Whether a string is given to something that shows it: as it is, joined, chosen by a condition, or formatted."""
    for inner, outer in zip((node, *around), around, strict=False):
        if isinstance(
            outer, (ast.IfExp, ast.BoolOp, ast.BinOp, ast.JoinedStr, ast.FormattedValue, ast.Tuple, ast.List)
        ):
            continue
        if called(outer) in ("format", "join", "escape") or isinstance(outer, ast.Attribute):
            continue
        if isinstance(outer, ast.Assign):
            return any(getattr(target, "attr", "") in SHOWING_ATTRIBUTES for target in outer.targets)
        return called(outer) in SHOWING_CALLS and inner is not outer.func
    return False


def findings(source):
    """(line, text) of the strings in a source that people read and that are not translated."""
    for node, text, around in strings(ast.parse(source)):
        if is_doc_string(around) or is_translated(around) or is_for_programmers(around):
            continue
        if text not in KNOWN.keys() | NAMES and (
            words(text) >= FEWEST_WORDS or (words(text) and is_shown(node, around))
        ):
            yield node.lineno, text


def panel_files():
    return sorted(path for path in PANEL.rglob("*.py") if path.name not in NOT_FOR_PEOPLE)


@pytest.mark.parametrize("path", panel_files(), ids=lambda path: path.name)
def test_every_string_that_people_read_is_translated(path):
    assert list(findings(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", panel_files(), ids=lambda path: path.name)
def test_a_text_is_translated_before_its_fields_are_filled(path):
    """The translator finds texts by what stands in the source: no f-string, no variable, no text put together."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if called(node) == "_"]
    assert [node.lineno for node in calls if not isinstance(node.args[0], ast.Constant)] == []


@pytest.mark.parametrize(
    "source",
    [
        "label.setText('Choose it')",
        "label.setText(f'{count} voxels')",
        "label.setText('Yes' if good else _('No'))",
        "label.setText(', '.join(['Organ lies here', name]))",
        "button.toolTip = 'Stop'",
        "button.toolTip = problem or 'Stop'",
        "self.showError('Bad {}'.format(name))",
        "box = qt.QCheckBox('All')",
        "def problem():\n    return 'Choose a CT volume first.'",
        "raise ValueError(f'{name} is no list of cases.')",
    ],
)
def test_an_untranslated_text_is_found(source):
    assert list(findings(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "'A module with a long doc string.'",
        "def f():\n    'What this does in a few words.'",
        "label.setText(_('Choose it'))",
        "label.setText(_('{count} voxels').format(count=3))",
        "label.setText(f'<b>{name}</b> {_(\"Structures\")}')",
        "button.connect('clicked(bool)', f)",
        "logging.warning('CalibUncertainty: this is for the log only %s', error)",
        "widget.setStyleSheet('color: red; font weight bold')",
        "node.SetName('Labels of the whole case here')",
        "key = 'maps/probability'",
    ],
)
def test_other_strings_are_left_alone(source):
    assert list(findings(source)) == []


def test_every_exception_is_still_there():
    found = {text for path in panel_files() for _node, text, _around in strings(ast.parse(path.read_text("utf-8")))}
    assert set(KNOWN) - found == set()
