"""Input that is wrong, odd, or goes away under the panel: one clear line, nothing crashes, nothing is lost."""

import json
import shutil

import pytest

ODD_NAMES = {1: "Drüse / links <b>", 2: '腎臓 & "Knoten"'}


def messages(application):
    return [message.text for message in application.dialogs.takeMessages("error")]


def one_line(application):
    told = messages(application)
    assert len(told) == 1
    assert "\n" not in told[0]
    return told[0]


def layers(panel):
    return [*panel.overlays.nodes]


@pytest.fixture
def result_of_odd_names(panel, ct, tmp_path, monkeypatch):
    """A Result folder whose structures have names with umlauts, slashes, markup and quotes, on such a path."""
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    folder = tmp_path / "Größe & Maß (1)"
    folder.mkdir()
    ctVolume.writeCt(ct, folder / "CT für Müller.nrrd")
    monkeypatch.setattr(fakeProcess, "STRUCTURES", ODD_NAMES)
    arguments = {"ct": str(folder / "CT für Müller.nrrd"), "out": str(folder / "Ergebnis #1"), "model": "fake"}
    return fakeProcess.writeResult({**arguments, "roi_mm": 15.0})


# Geometry ------------------------------------------------------------------------------------------------------------------


def test_a_ct_of_the_same_size_at_another_place_is_not_drawn_below_the_layers(finished):
    import slicer
    from CalibUncertaintyPanel import testing

    folder = finished.resultFolder
    slicer.mrmlScene.Clear(0)
    elsewhere = testing.addPhantom(slicer.mrmlScene, "Verschoben", ijkToRas=testing.obliqueIjkToRas())
    finished.ui.ctSelector.setCurrentNode(elsewhere)
    finished.showResult(folder)
    assert finished.shownCt() is None
    assert "Verschoben" in finished.ui.errorLabel.text
    assert "another place" in finished.ui.errorLabel.text
    assert "\n" not in finished.ui.errorLabel.text
    backgrounds = {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert elsewhere.GetID() not in backgrounds


def test_choosing_another_ct_leaves_the_layers_over_their_own(finished):
    import slicer
    from CalibUncertaintyPanel import testing

    own = finished.parameterNode.ctVolume
    other = testing.addPhantom(slicer.mrmlScene, "Next patient", shape=(12, 30, 40))
    finished.ui.ctSelector.setCurrentNode(other)
    finished.ui.thresholdSlider.value = 0.4
    backgrounds = {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert backgrounds == {own.GetID()}
    assert finished.ui.runButton.enabled
    finished.ui.ctSelector.setCurrentNode(own)
    assert finished.shownCt() is own


# A Result of another version, or a damaged one --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["button", "drop"])
def test_a_result_of_a_newer_version_is_refused_with_both_versions_and_what_to_do(
    opened, slicer_application, tmp_path, how
):
    before = opened.overlays
    newer = tmp_path / "newer"
    shutil.copytree(opened.resultFolder, newer)
    content = json.loads((newer / "result.json").read_text(encoding="utf-8"))
    (newer / "result.json").write_text(json.dumps({**content, "schema_version": 2}), encoding="utf-8")
    if how == "drop":
        opened.onDropped([str(newer)])
    else:
        slicer_application.dialogs.answer(str(newer))
        opened.ui.openResultButton.click()
    text = one_line(slicer_application)
    assert str(newer) in text
    assert "version 2" in text
    assert "version 1" in text
    assert "update" in text.lower()
    assert opened.overlays is before


@pytest.mark.parametrize("damage", ["", "[]", '{"schema": "calib-uncertainty/result", "schema_version": 1}', "\0\0"])
def test_a_damaged_result_is_refused_in_one_line_and_what_is_shown_stays(opened, slicer_application, tmp_path, damage):
    import slicer

    before, nodes = opened.overlays, slicer.mrmlScene.GetNumberOfNodes()
    broken = tmp_path / "broken"
    shutil.copytree(opened.resultFolder, broken)
    (broken / "result.json").write_text(damage, encoding="utf-8")
    opened.showResult(broken)
    assert str(broken) in one_line(slicer_application)
    assert opened.overlays is before
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.mark.parametrize(
    "name", ["maps/probability_1.nrrd", "maps/entropy.nrrd", "maps/distance.nrrd", "segmentation.nii.gz"]
)
def test_a_result_with_a_file_missing_or_cut_short_names_it(opened, slicer_application, tmp_path, name):
    import slicer

    before, nodes = opened.overlays, slicer.mrmlScene.GetNumberOfNodes()
    broken = tmp_path / "broken"
    shutil.copytree(opened.resultFolder, broken)
    path = broken / name
    path.write_bytes(path.read_bytes()[:100])
    opened.showResult(broken)
    if opened.overlays is before:
        assert path.name in one_line(slicer_application)
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    else:  # the distance is read when it is needed
        opened.ui.roiShownSlider.value = 4.0
        slicer_application.waitUntil(lambda: opened.parameterNode.roiShownMm == 15.0, seconds=5)
        assert path.name in one_line(slicer_application)


# Gone while it is in use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 2])
def test_any_layer_can_be_deleted_and_the_result_opened_again(opened, slicer_application, index):
    import slicer

    folder = opened.resultFolder
    slicer.mrmlScene.RemoveNode(layers(opened)[index])
    slicer_application.processEvents()
    assert opened.overlays is None
    assert "deleted" in opened.ui.errorLabel.text
    opened.ui.thresholdSlider.value = 0.4
    opened.showResult(folder)
    assert opened.overlays is not None
    assert messages(slicer_application) == []


def test_the_ct_below_the_layers_can_be_deleted_and_the_review_goes_on(opened, slicer_application):
    import slicer

    slicer.mrmlScene.RemoveNode(opened.parameterNode.ctVolume)
    slicer_application.processEvents()
    assert opened.overlays is not None
    assert not opened.ui.runButton.enabled
    assert "Choose" in opened.ui.runButton.toolTip
    assert "CT" in opened.ui.runButton.toolTip
    opened.review.select(0)
    opened.ui.correctButton.click()
    assert not opened.ui.editRegionButton.enabled
    assert "CT" in opened.ui.editRegionButton.toolTip
    assert opened.review.decisions.counts()["seen"] == 1
    opened.ui.uncertainSliceButton.click()
    assert messages(slicer_application) == []


def test_a_ct_deleted_during_its_run_loses_nothing_and_says_where_the_result_is(
    panel, ct, model, behave, finish, slicer_application
):
    import slicer

    behave("slow")
    panel.ui.runButton.click()
    slicer_application.waitUntil(lambda: panel.run.job.fraction > 0, seconds=10)
    slicer.mrmlScene.RemoveNode(ct)
    finish()
    assert panel.overlays is None
    assert str(panel.run.job.folder / "result") in panel.ui.errorLabel.text
    assert (panel.run.job.folder / "result" / "result.json").is_file()


def test_colour_scales_deleted_by_hand_come_back_when_the_result_is_opened_again(
    opened, slicer_application, slicer_watch
):
    import slicer

    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute("CalibUncertainty.ColorScale"):
            slicer.mrmlScene.RemoveNode(node)
    opened.ui.thresholdSlider.value = 0.4
    opened.ui.structureComboBox.setCurrentIndex(1)
    opened.showResult(opened.resultFolder)
    slicer_application.processEvents()
    problems = slicer_watch.problems()
    assert all("No color node is set" in problem for problem in problems), (
        problems
    )  # Slicer's own word on a legend without
    slicer_watch.forget()
    assert opened.overlays.probabilityNode.GetDisplayNode().GetColorNode() is not None
    assert messages(slicer_application) == []


def test_a_result_folder_that_goes_before_its_scene_is_loaded_leaves_the_layers(opened, slicer_application, tmp_path):
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    shutil.rmtree(opened.resultFolder)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert opened.overlays is not None
    assert not opened.ui.structureComboBox.enabled
    assert not opened.ui.saveReportButton.enabled
    opened.ui.thresholdSlider.value = 0.5
    assert messages(slicer_application) == []


def test_a_model_folder_that_goes_is_told_when_run_is_pressed_and_run_works_when_it_is_back(
    panel, ct, model, finish, slicer_application, tmp_path
):
    away = tmp_path / "away"
    shutil.move(model, away)
    assert panel.ui.runButton.enabled  # a network drive is not asked again and again
    panel.ui.runButton.click()
    text = one_line(slicer_application)
    assert str(model) in text
    assert "network" in text
    assert not panel.run.running
    shutil.move(away, model)
    panel.ui.runButton.click()
    finish()
    assert panel.overlays is not None


def test_a_model_folder_that_goes_fails_in_the_queue_and_the_next_one_runs(
    panel, ct, model, finish, slicer_application, tmp_path
):
    from CalibUncertaintyPanel import runQueue, testing

    panel.ui.addToQueueButton.click()
    other = testing.makeFakeModel(tmp_path / "other")
    panel.ui.modelPathLineEdit.currentPath = str(other)
    panel.ui.addToQueueButton.click()
    shutil.rmtree(model)
    items = panel.queue.queue.items
    slicer_application.waitUntil(
        lambda: all(item.state in (runQueue.DONE, runQueue.FAILED) for item in items), seconds=30
    )
    assert [item.state for item in items] == [runQueue.FAILED, runQueue.DONE]
    assert str(model) in items[0].message
    assert messages(slicer_application) == []
    panel.ui.queueCancelAllButton.click()


def test_a_model_folder_that_goes_is_told_before_a_calibration_too(panel, model, cases, slicer_application):
    assert panel.ui.calibrateButton.enabled
    shutil.rmtree(model)
    panel.calibrate.onCalibrate()
    assert "not there any more" in one_line(slicer_application)
    assert not panel.calibrate.running


def test_a_model_that_was_not_there_is_looked_at_again_when_the_module_is_opened(
    panel, model, slicer_application, tmp_path
):
    away = tmp_path / "away"
    shutil.move(model, away)
    panel.ui.modelPathLineEdit.currentPath = ""
    panel.ui.modelPathLineEdit.currentPath = str(model)
    assert panel.inputs.summary.problem
    shutil.move(away, model)
    slicer_application.leaveModule()
    slicer_application.enterModule("CalibUncertainty")
    assert panel.inputs.summary.problem == ""
    assert panel.inputs._foldBoxes


# Odd names and paths ------------------------------------------------------------------------------------------------------


def test_names_with_umlauts_slashes_and_markup_are_shown_as_they_are(
    panel, ct, result_of_odd_names, slicer_application
):
    panel.showResult(result_of_odd_names, ct)
    assert panel.overlays.structures == list(ODD_NAMES.values())
    for index, name in enumerate(ODD_NAMES.values()):
        panel.ui.structureComboBox.setCurrentIndex(index)
        assert panel.overlays.probabilityNode.GetName() == f"Probability of {name} (calibrated)"
    panel.parameterNode.measure = "entropy_k"
    segments = panel.overlays.segmentationNode.GetSegmentation()
    assert [segments.GetNthSegment(i).GetName() for i in range(segments.GetNumberOfSegments())] == list(
        ODD_NAMES.values()
    )
    listed = {panel.ui.regionsTable.item(row, column).text() for row in range(panel.ui.regionsTable.rowCount)
              for column in range(panel.ui.regionsTable.columnCount)}  # fmt: skip
    assert listed & set(ODD_NAMES.values())
    assert messages(slicer_application) == []


def test_contours_summary_and_report_take_such_names(panel, ct, result_of_odd_names, slicer_application, tmp_path):
    panel.showResult(result_of_odd_names, ct)
    panel.parameterNode.contoursVisible = True
    panel.ui.contoursOfAllCheckBox.checked = True
    slicer_application.waitUntil(lambda: panel.contours.node is not None, seconds=20, what="the contours")
    panel.ui.summaryCollapsibleButton.collapsed = False
    slicer_application.waitUntil(lambda: panel.summary.summary is not None, seconds=20, what="the summary")
    names = {panel.ui.summaryTable.item(row, 0).text() for row in range(panel.ui.summaryTable.rowCount)}
    assert set(ODD_NAMES.values()) <= names
    page = tmp_path / "Bericht für Größe & Maß.html"
    panel.review.report.save(str(page))
    slicer_application.waitUntil(lambda: not panel.review.report.running, seconds=30, what="the report")
    text = page.read_text(encoding="utf-8")
    assert "Drüse / links &lt;b&gt;" in text
    assert "links <b>" not in text
    panel.ui.summaryCollapsibleButton.collapsed = True
    assert messages(slicer_application) == []


def test_such_names_come_back_with_a_saved_scene(panel, ct, result_of_odd_names, slicer_application, tmp_path):
    import slicer

    panel.showResult(result_of_odd_names, ct)
    panel.ui.structureComboBox.setCurrentIndex(1)
    scene = tmp_path / "Szene für Müller.mrb"
    assert slicer.util.saveScene(str(scene))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(scene))
    slicer_application.processEvents()
    assert panel.overlays.shownStructure == ODD_NAMES[2]
    assert panel.overlays.structures == list(ODD_NAMES.values())
    assert panel.resultFolder == result_of_odd_names


def test_a_whole_run_on_paths_with_spaces_and_umlauts(panel, finish, slicer_application, tmp_path):
    import slicer
    from CalibUncertaintyPanel import testing

    folder = tmp_path / "Müller & Söhne (2. Versuch)"
    model = testing.makeFakeModel(folder / "Modelle für 'Köpfe'")
    ct = testing.addPhantom(slicer.mrmlScene, "CT: Hals/Kopf äöü")
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.ui.modelPathLineEdit.currentPath = str(model)
    panel.ui.outputPathLineEdit.currentPath = str(folder / "Ergebnisse #1")
    panel.ui.runButton.click()
    finish()
    assert messages(slicer_application) == []
    assert panel.resultFolder.parent == folder / "Ergebnisse #1"
    assert "Hals_Kopf äöü" in panel.resultFolder.name
    assert panel.shownCt() is ct


# Twice at once ---------------------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_while_one_is_under_way_and_the_first_goes_on(
    panel, ct, model, behave, slicer_application
):
    behave("slow")
    panel.ui.runButton.click()
    first = panel.run.job
    assert not panel.ui.runButton.enabled
    panel.run.onRun()  # what a script or a queued click does
    panel.inputs.onSample()
    assert panel.run.job is first
    assert first.running
    panel.ui.cancelButton.click()
    assert messages(slicer_application) == []
