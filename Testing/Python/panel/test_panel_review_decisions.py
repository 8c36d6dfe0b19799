"""Decisions of a review: shown, counted, stored, taken back, and kept whatever happens to scene and folder."""

import json
from dataclasses import replace

import numpy as np
import pytest
from review_parts import column_of, list_regions, press, stored, titles


def test_decisions_are_shown_counted_stored_and_taken_back(reviewed):
    ui, count = reviewed.ui, len(reviewed.overlays.result.regions)
    assert ui.reviewProgressLabel.text == f"0 of {count} looked at"
    assert not ui.wrongButton.enabled
    ui.nextRegionButton.click()
    ui.reviewerLineEdit.text = "Dr. Grün"
    ui.noteLineEdit.text = "Gefäß, kein Knoten"
    ui.wrongButton.click()
    ui.nextRegionButton.click()
    assert not ui.wrongButton.checked
    assert ui.noteLineEdit.text == ""
    ui.correctButton.click()
    assert (ui.reviewProgressBar.value, ui.reviewProgressBar.maximum) == (2, count)
    assert ui.reviewProgressLabel.text == f"2 of {count} looked at, 1 wrong"
    assert column_of(reviewed, "Seen")[:3] == ["✗", "✓", ""]
    first, second = stored(reviewed)["decisions"]
    assert (first["verdict"], first["note"], first["reviewer"]) == ("wrong", "Gefäß, kein Knoten", "Dr. Grün")
    assert first["time"].endswith("+00:00")
    assert (second["region"], second["verdict"], second["note"]) == (2, "correct", "")
    assert not list(reviewed.resultFolder.glob("*.partial")) + list(reviewed.resultFolder.glob(".*"))
    ui.undoDecisionButton.click()
    ui.undoDecisionButton.click()
    assert ui.reviewProgressLabel.text == f"0 of {count} looked at"
    assert not ui.undoDecisionButton.enabled
    assert [entry["verdict"] for entry in stored(reviewed)["decisions"]] == ["", ""]
    ui.redoDecisionButton.click()
    assert (reviewed.review.table.selected.id, ui.wrongButton.checked) == (1, True)
    assert ui.noteLineEdit.text == "Gefäß, kein Knoten"
    ui.unsureButton.click()
    assert not ui.redoDecisionButton.enabled


def test_a_note_is_kept_when_the_next_place_is_chosen_by_a_key(reviewed):
    reviewed.review.select(0)
    reviewed.ui.noteLineEdit.text = "look again"
    press("Alt+PgDown")
    assert reviewed.review.decisions.of(1).note == "look again"
    assert reviewed.review.decisions.of(2).note == ""
    assert reviewed.review.decisions.counts()["seen"] == 0  # a note alone is no decision
    press("Alt+PgUp")
    assert reviewed.ui.noteLineEdit.text == "look again"


def test_the_same_decision_twice_is_one_step(reviewed):
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    reviewed.ui.wrongButton.click()
    assert reviewed.ui.wrongButton.checked
    reviewed.ui.undoDecisionButton.click()
    assert not reviewed.ui.undoDecisionButton.enabled


def test_with_go_on_a_decision_leads_to_the_next_place(reviewed):
    reviewed.review.select(0)
    reviewed.ui.goOnCheckBox.click()
    reviewed.ui.correctButton.click()
    assert reviewed.review.table.selected.id == 2
    assert not reviewed.ui.correctButton.checked


def test_opening_the_result_again_brings_the_decisions_back(reviewed):
    reviewed.review.select(1)
    reviewed.ui.unsureButton.click()
    reviewed.showResult(reviewed.resultFolder, reviewed.parameterNode.ctVolume)
    assert column_of(reviewed, "Seen")[:2] == ["", "?"]
    assert reviewed.review.table.selected is None
    reviewed.review.select(1)
    assert reviewed.ui.unsureButton.checked


@pytest.mark.parametrize("keep_folder", [True, False])
def test_a_saved_scene_keeps_the_decisions_even_without_the_folder(reviewed, slicer_application, tmp_path, keep_folder):
    import shutil

    import slicer

    reviewed.review.select(0)
    reviewed.ui.noteLineEdit.text = 'a "note"; with: signs & <tags>'
    reviewed.ui.wrongButton.click()
    reviewed.review.select(1)
    reviewed.ui.correctButton.click()
    rows = reviewed.ui.regionsTable.rowCount
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if keep_folder:
        reviewed.ui.unsureButton.click()  # later than the scene
    else:
        shutil.rmtree(reviewed.resultFolder)
    slicer.mrmlScene.Clear(0)
    assert reviewed.ui.regionsTable.rowCount == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert reviewed.ui.regionsTable.rowCount == rows
    assert column_of(reviewed, "Seen")[:2] == ["✗", "?" if keep_folder else "✓"]
    reviewed.review.select(0)
    assert reviewed.ui.noteLineEdit.text == 'a "note"; with: signs & <tags>'
    reviewed.ui.correctButton.click()
    assert reviewed.review.decisions.of(1).verdict == "correct"
    assert ("gone" in reviewed.ui.reviewProblemLabel.text) != keep_folder
    assert reviewed.ui.saveReportButton.enabled == keep_folder


def test_a_folder_that_cannot_be_written_leaves_the_decisions_in_the_scene_and_says_so(reviewed, monkeypatch):
    from CalibUncertaintyPanel import reviewStore

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reviewStore, "writeAside", refuse)
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    problem = reviewed.ui.reviewProblemLabel.text
    assert "Permission denied" in problem
    assert "in the scene" in problem
    assert "\n" not in problem
    kept = json.loads(reviewed.overlays.segmentationNode.GetAttribute(reviewStore.DECISIONS_ATTRIBUTE))
    assert [entry["verdict"] for entry in kept["decisions"]] == ["wrong"]
    monkeypatch.undo()
    reviewed.ui.correctButton.click()
    assert reviewed.ui.reviewProblemLabel.text == ""
    assert stored(reviewed)["decisions"][0]["verdict"] == "correct"


def test_a_result_folder_that_is_deleted_while_it_is_open_is_not_made_again(reviewed):
    import shutil

    folder = reviewed.resultFolder
    reviewed.review.select(0)
    shutil.rmtree(folder)
    reviewed.ui.wrongButton.click()
    assert "in the scene" in reviewed.ui.reviewProblemLabel.text
    assert not folder.exists()
    assert reviewed.review.decisions.of(1).verdict == "wrong"


def test_the_log_is_off_until_it_is_turned_on_and_then_keeps_times_and_no_names(reviewed, slicer_application):
    import csv

    log = reviewed.resultFolder / "review-log.csv"
    reviewed.review.verdicts.log._clock = iter(range(0, 1000, 3)).__next__
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    reviewed.review.select(1)
    assert not log.exists()
    reviewed.ui.reviewLogCheckBox.click()
    reviewed.ui.reviewerLineEdit.text = "Somebody"
    reviewed.ui.noteLineEdit.text = "secret"
    reviewed.ui.unsureButton.click()
    reviewed.review.select(2)
    slicer_application.leaveModule()
    rows = list(csv.DictReader(log.open(encoding="utf-8")))
    assert [(row["region"], row["verdict"]) for row in rows] == [("2", "unsure"), ("3", "")]
    assert all(float(row["seconds"]) == 3 for row in rows)
    assert "Somebody" not in log.read_text(encoding="utf-8")
    assert "secret" not in log.read_text(encoding="utf-8")
    assert "No name" in reviewed.ui.reviewLogCheckBox.toolTip


def test_what_a_review_leaves_in_the_result_folder_does_not_stop_it_from_being_replaced(reviewed):
    from CalibUncertaintyLib.workflow.writing import check_output

    reviewed.ui.reviewLogCheckBox.click()
    reviewed.review.verdicts.log._clock = iter(range(0, 1000, 3)).__next__
    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    reviewed.review.select(1)
    names = {path.name for path in reviewed.resultFolder.iterdir()}
    assert {"review.json", "review-log.csv"} <= names
    check_output(reviewed.resultFolder, overwrite=True)


def test_editing_sets_segment_editor_up_hides_the_models_outlines_and_is_noted_on_return(
    reviewed, slicer_application, monkeypatch
):
    import slicer
    from CalibUncertaintyPanel import reviewEditor, slicerCompat

    opened = []

    def open_editor():
        opened.append(True)
        slicer_application.leaveModule()
        return True

    monkeypatch.setattr(slicerCompat, "openSegmentEditor", open_editor)
    assert not reviewed.ui.editRegionButton.enabled
    reviewed.review.select(0)
    region = reviewed.review.table.selected
    reviewed.ui.editInBoxCheckBox.click()
    reviewed.ui.editRegionButton.click()
    assert opened
    editor = reviewEditor.editorNode(slicer.mrmlScene)
    node = editor.GetSegmentationNode()
    assert editor.GetSelectedSegmentID() == f"label_{region.label}"
    assert editor.GetMaskSegmentID() == reviewEditor.BOX_SEGMENT
    assert not reviewed.overlays.segmentationNode.GetDisplayNode().GetVisibility()
    ct = reviewed.parameterNode.ctVolume
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, f"label_{region.label}", ct)
    index = reviewed.overlays.result.segmentation.index_from_lps(region.peak_lps_mm)
    voxel = tuple(np.rint(index).astype(int))
    array[voxel] = not array[voxel]
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, f"label_{region.label}", ct)
    slicer_application.enterModule("CalibUncertainty")
    assert reviewed.review.decisions.of(region.id).edited == 1
    assert column_of(reviewed, "Seen")[0] == "✎"
    assert "1 edited" in reviewed.ui.reviewProgressLabel.text
    assert node.GetSegmentation().GetSegment(reviewEditor.BOX_SEGMENT) is None
    assert stored(reviewed)["decisions"][0]["edited"] == 1
    reviewed.ui.editRegionButton.click()
    slicer_application.enterModule("CalibUncertainty")  # looked at only
    assert reviewed.review.decisions.of(region.id).edited == 1


def test_without_segment_editor_the_button_does_what_it_can(reviewed):
    reviewed.review.select(0)
    reviewed.ui.editRegionButton.click()  # the stand-in has no such module
    assert reviewed.review.editing.sent is not None


def test_a_result_without_regions_says_so_and_offers_nothing(reviewed):
    list_regions(reviewed, [])
    ui = reviewed.ui
    assert "No place to review" in ui.reviewLabel.text
    for button in (
        ui.nextRegionButton,
        ui.previousRegionButton,
        ui.correctButton,
        ui.editRegionButton,
        ui.undoDecisionButton,
    ):
        assert not button.enabled
    press("Alt+PgDown")
    press("Alt+1")
    press("Alt+Z")
    assert ui.reviewProgressLabel.text == "0 of 0 looked at"
    assert not ui.reviewProgressBar.isVisibleTo(ui.reviewProgressBar.parent())


def test_two_thousand_regions_are_listed_sorted_and_decided_on(reviewed):
    base = reviewed.overlays.result.regions[0]
    changes = []
    reviewed.ui.regionsTable.connect("itemChanged(QTableWidgetItem*)", lambda item: changes.append(item))
    list_regions(reviewed, [replace(base, id=i + 1, volume_ml=(i * 7919 % 2000) / 100) for i in range(2000)])
    assert reviewed.ui.regionsTable.rowCount == 2000
    reviewed.ui.regionsTable.horizontalHeader().sectionClicked.emit(titles(reviewed.ui.regionsTable).index("mL"))
    assert changes == []  # no signal for each cell
    volumes = [float(text) for text in column_of(reviewed, "mL")]
    assert volumes == sorted(volumes, reverse=True)
    reviewed.review.select(1999)
    reviewed.ui.wrongButton.click()
    assert reviewed.ui.reviewProgressLabel.text == "1 of 2000 looked at, 1 wrong"


def test_closing_the_scene_during_a_review_ends_it_quietly(reviewed, slicer_application):
    import slicer

    reviewed.review.select(0)
    reviewed.ui.noteLineEdit.text = "half a"
    folder = reviewed.resultFolder
    slicer.mrmlScene.Clear(0)
    slicer_application.processEvents()
    assert reviewed.ui.regionsTable.rowCount == 0
    assert not reviewed.ui.wrongButton.enabled
    assert not reviewed.ui.saveReportButton.enabled
    entries = json.loads((folder / "review.json").read_text(encoding="utf-8"))["decisions"]
    assert entries[0]["note"] == "half a"


def test_reloading_the_module_keeps_the_review_and_its_keys_once(reviewed, slicer_application, window):
    import qt
    import slicer

    reviewed.review.select(0)
    reviewed.ui.wrongButton.click()
    old = slicer.modules.CalibUncertaintyWidget
    old.onReload()
    slicer_application.processEvents()
    panel = slicer.modules.CalibUncertaintyWidget.panel
    assert panel is not reviewed
    assert column_of(panel, "Seen")[0] == "✗"
    found = [s for s in window.findChildren(qt.QShortcut) if s.key.toString() == "Alt+PgDown" and s.isEnabled()]
    assert len(found) == 1
