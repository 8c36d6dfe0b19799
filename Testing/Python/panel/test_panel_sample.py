"""A first look with one click, and folders that are dropped onto the panel."""

import numpy as np
import pytest


def drop(widget, *paths, kind="Drop"):
    """Drop files and folders onto a widget, as a file manager does; whether they were accepted."""
    import qt
    from PySide6 import QtCore, QtGui

    mime = QtCore.QMimeData()
    mime.setUrls([QtCore.QUrl.fromLocalFile(str(path)) for path in paths])
    action, button, modifier = QtCore.Qt.CopyAction, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier
    enter = QtGui.QDragEnterEvent(QtCore.QPoint(5, 5), action, mime, button, modifier)
    qt.QApplication.sendEvent(widget, enter)
    dropped = QtGui.QDropEvent(QtCore.QPointF(5, 5), action, mime, button, modifier)
    dropped.setAccepted(False)
    qt.QApplication.sendEvent(widget, dropped)
    return enter.isAccepted(), dropped.isAccepted()


def test_one_click_loads_the_phantom_chooses_the_demo_model_and_runs(panel, finish):
    from CalibUncertaintyPanel import sample

    assert panel.ui.sampleButton.isVisibleTo(panel.widget)
    panel.ui.sampleButton.click()
    assert panel.run.running
    assert not panel.ui.sampleButton.enabled
    finish()
    assert panel.overlays is not None
    assert panel.parameterNode.ctVolume.GetName() == "CT phantom"
    assert panel.parameterNode.modelFolder == sample.modelFolder()
    assert panel.shownCt() is panel.parameterNode.ctVolume
    assert not panel.ui.sampleButton.isVisibleTo(panel.widget)


def test_the_sample_is_not_loaded_twice(panel, finish):
    import slicer

    panel.ui.sampleButton.click()
    finish()
    panel.inputs.onSample()
    finish()
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert len([node for node in volumes if node.GetAttribute("CalibUncertainty.Sample")]) == 1


def test_a_sample_that_is_not_there_is_told_in_one_line(panel, slicer_application, monkeypatch, tmp_path):
    from CalibUncertaintyPanel import sample

    monkeypatch.setattr(sample, "sampleFolder", lambda: tmp_path)
    panel.ui.sampleButton.click()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert "sample cannot be loaded" in messages[0].text
    assert not panel.run.running


def test_the_button_is_not_in_the_way_of_who_has_chosen(panel, ct, model):
    assert not panel.ui.sampleButton.isVisibleTo(panel.widget)


def test_the_phantom_that_is_shipped_is_that_of_the_seed_in_the_readme():
    from CalibUncertaintyPanel import sample
    from phantom import make_phantom

    from CalibUncertaintyLib.volume import Volume

    shipped, made = Volume.read(sample.ctFile()), make_phantom(7, raters=1).ct
    assert np.abs(shipped.array.astype(int) - made.array).max() <= 1  # rounding of another numpy
    assert np.allclose(shipped.ijk_to_ras, made.ijk_to_ras)
    assert sample.ctFile().stat().st_size < 1e6


def test_the_phantom_is_registered_as_sample_data_once_slicer_is_up(panel, slicer_application, monkeypatch):
    import sys
    from types import SimpleNamespace
    from urllib.request import url2pathname

    import slicer

    calls = []
    logic = SimpleNamespace(registerCustomSampleDataSource=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
    slicer.app.startupCompleted.emit()
    assert len(calls) == 1
    assert calls[0]["uris"].startswith("file:")
    from pathlib import Path

    assert Path(url2pathname(calls[0]["uris"].removeprefix("file://"))).is_file()
    assert Path(calls[0]["thumbnailFileName"]).is_file()


def test_a_slicer_without_sample_data_starts_without_a_word(panel, monkeypatch, slicer_application, capfd):
    import sys

    import slicer
    from CalibUncertaintyPanel import layouts

    registered = []
    monkeypatch.setattr(layouts, "register", lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "SampleData", None)
    slicer.app.startupCompleted.emit()
    assert registered  # the slot was called, and what comes before the sample was done
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not slicer_application.dialogs.takeMessages("error")


def test_a_dropped_result_folder_is_opened_and_its_json_file_as_well(finished):
    folder = finished.resultFolder
    for what in (folder, folder / "result.json"):
        shown = finished.overlays
        assert drop(finished.widget, what) == (True, True)
        assert finished.overlays is not shown
        assert finished.resultFolder == folder
    assert not finished.ui.errorLabel.text


def test_a_dropped_model_folder_becomes_the_model(panel, tmp_path):
    from CalibUncertaintyPanel import testing

    model = testing.makeFakeModel(tmp_path / "Modelle für Köln")
    assert drop(panel.widget, model / "plans.json") == (True, True)
    assert panel.parameterNode.modelFolder == model
    assert panel.ui.modelPathLineEdit.currentPath == str(model)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("empty", "neither a Result folder"),
        ("file", "is no folder"),
        ("two", "one folder at a time"),
        ("broken", "plans.json"),
    ],
)
def test_anything_else_gets_one_clear_line_and_changes_nothing(panel, tmp_path, what, words):
    from CalibUncertaintyPanel import testing

    before = panel.parameterNode.modelFolder
    (tmp_path / "empty").mkdir()
    (tmp_path / "scan.dcm").write_bytes(b"")
    broken = testing.makeFakeModel(tmp_path / "b")
    (broken / "plans.json").write_text("{")
    paths = {"empty": ["empty"], "file": ["scan.dcm"], "two": ["empty", "scan.dcm"], "broken": [broken]}[what]
    drop(panel.widget, *[tmp_path / path for path in paths])
    assert words in panel.ui.errorLabel.text
    assert "\n" not in panel.ui.errorLabel.text
    assert panel.parameterNode.modelFolder == before


def test_text_that_is_dragged_over_the_panel_is_left_to_slicer(panel):
    import qt
    from PySide6 import QtCore, QtGui

    mime = QtCore.QMimeData()
    mime.setText("a word")
    enter = QtGui.QDragEnterEvent(
        QtCore.QPoint(5, 5), QtCore.Qt.CopyAction, mime, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier
    )
    enter.setAccepted(False)
    qt.QApplication.sendEvent(panel.widget, enter)
    assert not enter.isAccepted()
