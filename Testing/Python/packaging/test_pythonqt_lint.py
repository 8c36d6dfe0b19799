"""The Slicer-facing code is free of what real PythonQt breaks; and each rule of the lint finds what it is for."""

import pytest
from Harness.pythonqt_lint import lint, lintSource


def test_the_module_has_nothing_that_pythonqt_breaks(repository):
    findings = lint(repository / "CalibUncertainty")
    assert findings == [], "\n" + "\n".join(map(str, findings))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("isinstance", "isinstance(widget, qt.QWidget)"),
        ("isinstance", "isinstance(widget, (str, ctk.ctkSliderWidget))"),
        ("property", "self.ui.statusLabel.text()"),
        ("property", "slider.value()"),
        ("property", "self.ui.outlinesCheckBox.checked()"),
        ("property", "self.widget.sizeHint()"),
        ("property", "combo.currentText()"),
        ("keywords", "qt.QLabel(text='CT')"),
        ("keywords", "button = qt.QPushButton('a', parent=panel)"),
        ("gone", "dialog.exec()"),
        ("gone", "qt.QRegExp('a')"),
        ("gone", "qt.QTextCodec.codecForName('UTF-8')"),
        ("gone", "layout.setMargin(0)"),
        ("gone", "changed = qt.Signal(int)"),
        ("subclass", "class MyBox(qt.QCheckBox):\n    pass"),
        ("subclass", "class MyBox(slicer.qMRMLNodeComboBox):\n    pass"),
        ("shortcut", "qt.QShortcut(qt.QKeySequence('n'), slicer.util.mainWindow())"),
        ("thread", "import threading\nthreading.Thread(target=work).start()"),
        ("import", "import torch"),
        ("import", "from nnunetv2.inference import predict"),
        ("import", "import imp"),
        ("import", "def f():\n    import PySide6"),
        ("install", "def f():\n    slicer.util.pip_install('edt')"),
        ("install", "slicer.util.pip_install('edt')"),
        (
            "install",
            "def ask():\n    confirm('?')\n    f()\ndef rude():\n    f()\ndef f():\n    slicer.util.pip_install('edt')",
        ),
    ],
)
def test_each_rule_finds_what_it_is_for(rule, source):
    assert rule in [finding.rule for finding in lintSource(source)]


@pytest.mark.parametrize(
    "source",
    [
        "text = self.ui.statusLabel.text",
        "slider.value = 3",
        "layout.setContentsMargins(0, 0, 0, 0)",
        "dialog.exec_()",
        "button.setText('x')",
        "node.GetName()",
        "label = qt.QLabel('CT', parent)",
        "qt.QShortcut(qt.QKeySequence('Ctrl+Shift+N'), panel)",
        "import numpy as np\nimport vtk\nfrom CalibUncertaintyLib.result import Result",
        "def f():\n    import torch",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "def f():\n    if slicer.util.confirmOkCancelDisplay('Install edt?'):\n        slicer.util.pip_install('edt')",
        "def ask():\n    if confirm('Install?'):\n        _install()\ndef _install():\n    slicer.util.pip_install('edt')",
        "isinstance(widget, qt.QWidget)  # pythonqt: ok - compared with None before",
        "isinstance(value, str)",
        "array.size()",
    ],
)
def test_good_code_is_left_alone(source):
    assert [str(finding) for finding in lintSource(source)] == []
