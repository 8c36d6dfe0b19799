"""What people do to a panel without meaning to: odd names, many structures, nodes deleted in any order, keys in a note, drops."""

import itertools
import json
import logging
import shutil
from dataclasses import replace

import pytest
from review_parts import column_of, least_width, list_regions, press

ODD = {1: "<b>Leber</b>/links", 2: "Rückenmark ☃ \\ " + "sehr " * 60}


@pytest.fixture
def open_with(panel, ct, tmp_path, monkeypatch):
    """Function that opens a Result whose labels have these names; the first two occur in the CT."""
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    def open_(names):
        monkeypatch.setattr(fakeProcess, "STRUCTURES", dict(enumerate(names, start=1)))
        path = tmp_path / "ct.nrrd"
        ctVolume.writeCt(ct, path)
        out = tmp_path / "result"
        fakeProcess.writeResult({"ct": str(path), "out": str(out), "model": "fake", "roi_mm": 15.0})
        panel.showResult(out, ct)
        assert panel.overlays is not None, panel.ui.errorLabel.text
        return panel

    return open_


def messages(application):
    return [message.text for message in application.dialogs.takeMessages("error")]


def rewrite(folder, change):
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")


# Names and numbers -----------------------------------------------------------------------------------------------------------


def test_odd_and_very_long_names_leave_the_panel_as_narrow_as_it_is_and_are_shown_as_they_are(open_with):
    panel = open_with(ODD.values())
    assert set(column_of(panel, "Structure")) <= set(ODD.values())
    assert panel.ui.structureComboBox.itemText(0) == ODD[1]
    panel.ui.structureComboBox.setCurrentIndex(1)
    panel.review.select(0)
    panel.ui.reviewStructureComboBox.setCurrentIndex(1)
    assert least_width(panel) <= 400


def test_a_line_of_error_is_no_markup(panel):
    from qt import Qt

    panel.run.showError("<b>x</b>")
    for label in (panel.ui.errorLabel, panel.ui.evaluationErrorLabel, panel.ui.calibrationErrorLabel):
        assert label.textFormat == Qt.PlainText


def test_sixty_structures_are_offered_and_the_last_one_can_be_shown(open_with, slicer_application):
    names = ["Organ", "Node", *(f"Structure {number}" for number in range(3, 61))]
    panel = open_with(names)
    assert panel.ui.structureComboBox.count == 60
    panel.ui.structureComboBox.setCurrentIndex(59)
    slicer_application.waitUntil(lambda: panel.overlays.shownStructure == "Structure 60", seconds=60)
    panel.ui.summaryCollapsibleButton.collapsed = False
    slicer_application.waitUntil(lambda: panel.ui.summaryTable.rowCount == 60, seconds=60)
    assert least_width(panel) <= 400


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_region(opened, count):
    folder = opened.resultFolder
    rewrite(folder, lambda content: content.update(regions=content["regions"][:count]))
    opened.showResult(folder, opened.parameterNode.ctVolume)
    assert opened.ui.regionsTable.rowCount == count
    for button in (opened.ui.nextRegionButton, opened.ui.previousRegionButton, opened.ui.uncertainSliceButton):
        button.click()
    opened.review.onNext()
    opened.ui.correctButton.click()
    assert opened.review.decisions.counts()["seen"] == (1 if count and opened.review.table.selected else 0)


def test_five_thousand_regions_are_listed_filtered_sorted_and_decided_on(reviewed):
    base = reviewed.overlays.result.regions[0]
    kinds = ("boundary", "non_boundary")
    list_regions(
        reviewed,
        [replace(base, id=i, kind=kinds[i % 2], chance=(i % 100) / 100, volume_ml=i / 10) for i in range(1, 5001)],
    )
    assert reviewed.ui.regionsTable.rowCount == 5000
    reviewed.ui.reviewLeastChanceSpinBox.value = 50
    reviewed.ui.reviewKindComboBox.setCurrentIndex(1)
    assert reviewed.ui.regionsTable.rowCount == 1250
    assert "3750 of 5000 hidden" in reviewed.ui.reviewHiddenLabel.text
    reviewed.review.onNext()
    reviewed.ui.wrongButton.click()
    reviewed.ui.showAllPlacesButton.click()
    assert reviewed.ui.reviewProgressLabel.text.startswith("1 of 5000 looked at")


# Things that go, in any order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_ct_and_layers_can_be_deleted_in_every_order(opened, ct, slicer_application, first):
    import slicer
    from CalibUncertaintyPanel import testing

    folder = opened.resultFolder
    for order in itertools.permutations(range(4)):
        if order[0] != first:
            continue
        ct = testing.addPhantom(slicer.mrmlScene)
        opened.showResult(folder, ct)
        nodes = [ct, *opened.overlays.nodes]
        for index in order:
            slicer.mrmlScene.RemoveNode(nodes[index])
            opened.ui.thresholdSlider.value = 0.3 + 0.01 * index
            slicer_application.processEvents()
        assert opened.overlays is None
        assert messages(slicer_application) == []


def test_what_hangs_on_the_layers_can_be_deleted_node_by_node(reviewed, slicer_application, caplog):
    import slicer

    reviewed.ui.contoursEyeButton.click()
    reviewed.ui.regionsIn3dCheckBox.click()
    slicer_application.waitUntil(lambda: not reviewed.contours.busy and not reviewed.regions.busy, seconds=20)
    reviewed.review.select(0)
    reviewed.ui.editRegionButton.click()
    slicer_application.enterModule("CalibUncertainty")
    own = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
        if node.GetAttribute("CalibUncertainty.Kind")
    ]
    colours = [
        node for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode") if "scale" in node.GetName().lower()
    ]
    assert len(own) >= 6
    for node in [*colours, *own]:
        if node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(node)
            reviewed.ui.labelsEyeButton.click()
            slicer_application.processEvents()
    assert reviewed.overlays is None
    assert messages(slicer_application) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_folder_that_goes_in_the_middle_of_a_review_loses_no_decision(reviewed, slicer_application):
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    shutil.rmtree(reviewed.resultFolder)
    reviewed.ui.reviewLogCheckBox.checked = True
    reviewed.review.onNext()
    reviewed.ui.unsureButton.click()
    assert reviewed.review.decisions.counts()["seen"] == 2
    assert "kept in the scene" in reviewed.ui.reviewProblemLabel.text
    assert not reviewed.resultFolder.exists()
    assert messages(slicer_application) == []


def test_a_log_that_another_program_holds_is_told_and_the_review_goes_on(reviewed, monkeypatch):
    from pathlib import Path

    from CalibUncertaintyPanel import reviewLog

    opened = Path.open

    def locked(self, *args, **kwargs):
        if self.name == reviewLog.LOG_FILE:
            raise PermissionError(13, "held by another program", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", locked)
    monkeypatch.setattr(reviewLog, "LEAST_SECONDS", 0.0)
    reviewed.ui.reviewLogCheckBox.checked = True
    reviewed.review.select(0)
    reviewed.review.onNext()
    assert "held by another program" in reviewed.ui.reviewProblemLabel.text
    reviewed.ui.correctButton.click()
    assert reviewed.review.decisions.counts()["seen"] == 1


# Hands and keys ------------------------------------------------------------------------------------------------------------


def test_a_hundred_clicks_in_a_hurry_leave_everything_in_step(reviewed, slicer_application):
    ui = reviewed.ui
    for turn in range(25):
        ui.nextRegionButton.click()
        (ui.correctButton, ui.wrongButton, ui.unsureButton)[turn % 3].click()
        ui.structureComboBox.setCurrentIndex(turn % ui.structureComboBox.count)
        ui.measureComboBox.setCurrentIndex(turn % ui.measureComboBox.count)
        if turn % 5 == 0:
            ui.undoDecisionButton.click()
            ui.hideOverlaysButton.click()
    slicer_application.waitUntil(lambda: not reviewed.layers.loading.busy, seconds=20)
    slicer_application.processEvents()
    assert reviewed.overlays.shownStructure == reviewed.parameterNode.structure == ui.structureComboBox.currentText
    assert reviewed.overlays.shownMeasure == reviewed.parameterNode.measure
    assert reviewed.review.decisions.counts()["seen"] == sum(bool(mark) for mark in column_of(reviewed, "Seen"))
    assert messages(slicer_application) == []


def test_keys_of_the_review_do_nothing_while_a_note_is_written(reviewed, slicer_application, window, monkeypatch):
    import qt

    ui = reviewed.ui
    reviewed.review.select(1)
    monkeypatch.setattr(qt.QApplication, "focusWidget", lambda *_: ui.noteLineEdit)
    for keys in ("Alt+1", "Alt+2", "Alt+3", "Alt+PgDown", "Alt+PgUp", "Alt+Z", "Alt+Shift+Z"):
        press(keys)
    assert reviewed.review.table.place[0] == 1
    assert reviewed.review.decisions.counts()["seen"] == 0
    monkeypatch.setattr(qt.QApplication, "focusWidget", lambda *_: ui.regionsTable)
    press("Alt+2")
    assert reviewed.review.decisions.counts()["seen"] == 1


def test_after_reopening_nothing_of_an_earlier_sitting_is_taken_back(reviewed):
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    reviewed.showResult(reviewed.resultFolder, reviewed.parameterNode.ctVolume)
    assert not reviewed.ui.undoDecisionButton.enabled
    press("Alt+Z")
    assert reviewed.review.decisions.counts()["wrong"] == 1


@pytest.mark.parametrize(
    "what", ["nothing there", "a file", "two folders", "an empty folder", "half a model", "a scene"]
)
def test_what_is_dropped_by_mistake_is_told_in_one_line_and_what_is_shown_stays(
    opened, what, tmp_path, slicer_application
):
    shown = opened.overlays
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "half").mkdir()
    (folder / "half" / "plans.json").write_text("{", encoding="utf-8")
    (folder / "ct.nii.gz").write_bytes(b"")
    (folder / "scene.mrb").write_bytes(b"")
    (folder / "empty").mkdir()
    paths = {
        "nothing there": ["gone"], "a file": ["ct.nii.gz"], "two folders": ["empty", "half"], "an empty folder": ["empty"],
        "half a model": ["half"], "a scene": ["scene.mrb"],
    }[what]  # fmt: skip
    opened.onDropped([str(folder / name) for name in paths])
    assert opened.ui.errorLabel.text
    assert "\n" not in opened.ui.errorLabel.text
    assert opened.overlays is shown
    assert messages(slicer_application) == []


def test_everything_on_survives_a_saved_scene(reviewed, slicer_application, tmp_path):
    import slicer

    ui = reviewed.ui
    ui.contoursEyeButton.click()
    ui.regionsIn3dCheckBox.click()
    ui.reviewStructureComboBox.setCurrentIndex(1)
    reviewed.review.select(0)
    ui.wrongButton.click()
    ui.noteLineEdit.text = "<i>note</i>"
    reviewed.review.verdicts.takeNote()
    slicer_application.waitUntil(lambda: not reviewed.contours.busy and not reviewed.regions.busy, seconds=20)
    counts, listed = reviewed.review.decisions.counts(), column_of(reviewed, "#")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert reviewed.review.decisions.counts() == counts
    assert column_of(reviewed, "#") == listed
    assert reviewed.contours.node.GetDisplayNode().GetVisibility()
    assert all(model is not None for model in reviewed.regions.models)
    assert reviewed.shownCt() is not None
    assert messages(slicer_application) == []
