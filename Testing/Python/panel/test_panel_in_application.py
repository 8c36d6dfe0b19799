"""The panel, opened in the stand-in for Slicer, used as a person uses it; the computation is the fake process."""

import json
import time
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def ct(panel):
    import slicer
    from CalibUncertaintyPanel import testing

    node = testing.addPhantom(slicer.mrmlScene)
    panel.ui.ctSelector.setCurrentNode(node)
    return node


@pytest.fixture
def model(panel, tmp_path):
    from CalibUncertaintyPanel import testing

    folder = testing.makeFakeModel(tmp_path)
    panel.ui.modelPathLineEdit.currentPath = str(folder)
    return folder


@pytest.fixture
def behave(panel):
    """Function that chooses how the fake computation behaves."""
    from CalibUncertaintyPanel import testing

    def choose(behaviour):
        panel.logic.command = testing.fakeCommand(behaviour)

    return choose


@pytest.fixture
def finish(panel, slicer_application):
    """Function that lets the application work until the run has ended."""

    def wait(seconds=30):
        slicer_application.waitUntil(lambda: not panel.run.running, seconds=seconds)

    return wait


@pytest.fixture
def finished(panel, ct, model, finish):
    """The panel after a run that went well."""
    panel.ui.runButton.click()
    finish()
    assert panel.overlays is not None, panel.ui.errorLabel.text
    return panel


def composites():
    import slicer

    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def test_the_self_test_of_the_module_passes(panel):
    import slicer

    slicer.selfTests["CalibUncertainty"]()


def test_run_waits_for_a_ct_and_a_model_and_says_for_which(panel, tmp_path):
    import slicer
    from CalibUncertaintyPanel import testing

    assert not panel.ui.runButton.enabled
    assert "Choose a CT" in panel.ui.runButton.toolTip
    panel.ui.ctSelector.setCurrentNode(testing.addPhantom(slicer.mrmlScene))
    assert not panel.ui.runButton.enabled
    assert "nnU-Net" in panel.ui.runButton.toolTip
    panel.ui.modelPathLineEdit.currentPath = str(testing.makeFakeModel(tmp_path))
    assert panel.ui.runButton.enabled
    assert "separate process" in panel.ui.runButton.toolTip


def test_a_single_slice_is_refused_before_anything_is_started(panel, model):
    import slicer
    from CalibUncertaintyPanel import testing

    panel.ui.ctSelector.setCurrentNode(testing.addPhantom(slicer.mrmlScene, "Scout", shape=(1, 32, 32)))
    assert not panel.ui.runButton.enabled
    assert "single slice" in panel.ui.runButton.toolTip


def test_a_folder_that_is_no_model_is_named_in_the_panel(panel, ct, tmp_path):
    panel.ui.modelPathLineEdit.currentPath = str(tmp_path)
    assert str(tmp_path) in panel.ui.modelSummaryLabel.text
    assert not panel.ui.runButton.enabled


def test_the_model_is_described_with_its_structures_folds_and_calibration(panel, model, slicer_application):
    text = panel.ui.modelSummaryLabel.text
    assert "Dataset999_Fake" in text
    assert "Structures (2): Organ, Node" in text
    slicer_application.waitUntil(lambda: "NOT CALIBRATED" in panel.ui.modelSummaryLabel.text, seconds=10)
    assert "no calibration record" in panel.ui.modelSummaryLabel.text
    assert [box.text for box in panel.inputs._foldBoxes] == ["0", "1"]


def test_folds_are_chosen_with_boxes_and_the_last_one_stays(panel, model):
    first, second = panel.inputs._foldBoxes
    assert first.checked
    assert second.checked
    second.click()
    assert panel.parameterNode.folds == "0"
    first.click()
    assert panel.parameterNode.folds == "0"
    assert first.checked
    second.click()
    assert panel.parameterNode.folds == "all"


def test_the_request_says_what_was_chosen(panel, ct, model, finish, tmp_path):
    panel.inputs._foldBoxes[1].click()
    panel.ui.deviceComboBox.setCurrentIndex(3)
    panel.ui.calibrationComboBox.setCurrentIndex(1)
    panel.ui.mirroringCheckBox.click()
    panel.ui.roiComputedSlider.value = 9.0
    panel.ui.outputPathLineEdit.currentPath = str(tmp_path)
    panel.ui.runButton.click()
    request = json.loads((panel.run.job.folder / "request.json").read_text())
    arguments = request["arguments"]
    assert request["verb"] == "segment"
    assert arguments["model"] == str(model)
    assert (arguments["folds"], arguments["device"], arguments["calibration"]) == ([0], "cpu", "none")
    assert (arguments["mirroring"], arguments["roi_mm"], arguments["mode"]) == (False, 9.0, "pool_logit")
    assert Path(arguments["out"]).parent == tmp_path
    finish()
    assert not (panel.run.job.folder / "ct.nrrd").exists()
    assert panel.resultFolder == Path(arguments["out"])


def test_a_run_shows_progress_times_and_its_log_and_leaves_the_application_usable(
    panel, ct, model, behave, slicer_application
):
    behave("slow")
    panel.ui.showLogButton.click()
    panel.ui.runButton.click()
    slicer_application.waitUntil(lambda: panel.ui.progressBar.value > 100, seconds=10)
    assert "tile" in panel.ui.stageLabel.text
    assert ":" in panel.ui.timeLabel.text
    assert "tile" in panel.ui.logTextEdit.toPlainText()
    assert panel.run.running
    assert not panel.ui.runButton.enabled
    assert panel.ui.runButton.toolTip == "A run is under way."


def test_cancel_ends_the_run_within_a_second_and_leaves_nothing_in_the_scene(
    panel, ct, model, behave, slicer_application
):
    behave("slow")
    panel.ui.runButton.click()
    slicer_application.waitUntil(lambda: panel.run.job.fraction > 0, seconds=10)
    process = panel.run.job._process
    began = time.monotonic()
    panel.ui.cancelButton.click()
    assert time.monotonic() - began < 1.0
    assert process.poll() is not None
    assert "Cancelled" in panel.ui.stageLabel.text
    assert panel.ui.runButton.enabled
    assert not panel.ui.cancelButton.enabled
    assert panel.overlays is None
    assert not (panel.run.job.folder / "result").exists()


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("fail", "CUDA out of memory"),
        ("refuse", "has no fold 7"),
        ("garbage", "without a result"),
        ("silent", "exit code 0"),
    ],
)
def test_a_failing_run_is_told_in_one_line_and_keeps_the_details(
    panel, ct, model, behave, finish, slicer_application, behaviour, words
):
    import slicer

    behave(behaviour)
    panel.ui.runButton.click()
    finish()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert words in messages[0].text
    assert "\n" not in messages[0].text
    assert "Traceback" not in messages[0].text
    assert words in panel.ui.errorLabel.text
    assert "Log:" in messages[0].details
    assert panel.overlays is None
    assert panel.ui.runButton.enabled
    panel.ui.copyDetailsButton.click()
    assert "Exit code" in slicer.app.clipboard().text()


def test_a_hanging_run_is_noticed_and_can_be_cancelled(panel, ct, model, behave, slicer_application):
    behave("hang")
    panel.ui.runButton.click()
    panel.run.job.stallSeconds = 0.3
    slicer_application.waitUntil(lambda: "No sign of life" in panel.ui.errorLabel.text, seconds=10)
    assert panel.run.running
    folder = panel.run.job.folder
    slicer_application.waitUntil(lambda: list(folder.glob(".result.*")), seconds=10)
    panel.ui.cancelButton.click()
    assert not panel.run.running
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "request.json"]


def test_a_result_is_shown_as_layers_with_a_status_that_says_calibrated(finished, ct):
    overlays = finished.overlays
    for composite in composites():
        assert composite.GetBackgroundVolumeID() == ct.GetID()
        assert composite.GetForegroundVolumeID() == overlays.probabilityNode.GetID()
        assert composite.GetNthLayerVolumeID(3) == overlays.uncertaintyNode.GetID()
    status = finished.ui.statusLabel.text
    assert "Calibrated (temperature 2.03" in status
    assert "0 voxels by pooling, 0 by calibration" in status
    assert "fake model" in status
    assert ct.GetDisplayNode().GetWindow() == 400
    assert ct.GetDisplayNode().GetLevel() == 40


def test_an_uncalibrated_result_says_so_in_status_layers_and_names(panel, ct, model, behave, finish):
    behave("uncalibrated")
    panel.ui.runButton.click()
    finish()
    assert "NOT CALIBRATED: calibration was switched off" in panel.ui.statusLabel.text
    assert "f5b700" in panel.ui.statusLabel.styleSheet
    assert panel.ui.probabilityLayerLabel.text == "Probability (NOT CALIBRATED)"
    assert panel.overlays.probabilityNode.GetName().endswith("(NOT CALIBRATED)")


def test_the_sliders_and_eyes_move_display_properties_only(finished):
    overlays, ui = finished.overlays, finished.ui
    voxels = [node.GetImageData().GetMTime() for node in overlays.nodes[:2]]
    ui.thresholdSlider.value = 0.6
    ui.probabilityFloorSlider.value = 30
    ui.uncertaintyOpacitySlider.value = 25
    ui.labelsOpacitySlider.value = 50
    ui.probabilityEyeButton.click()
    assert overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.6)
    assert overlays.probabilityNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.3)
    assert overlays.segmentationNode.GetDisplayNode().GetOpacity() == pytest.approx(0.5)
    for composite in composites():
        assert composite.GetForegroundVolumeID() is None
        assert composite.GetNthLayerOpacity(3) == pytest.approx(0.25)
    assert [node.GetImageData().GetMTime() for node in overlays.nodes[:2]] == voxels
    ui.probabilityEyeButton.click()
    assert composites()[0].GetForegroundVolumeID() == overlays.probabilityNode.GetID()


def test_choosing_a_measure_brings_its_sentence_unit_range_and_stored_threshold(finished):
    ui, names = finished.ui, [info.id for info in finished.layers._measures]
    ui.thresholdSlider.value = 1.0  # beyond the range of the next measure
    ui.measureComboBox.setCurrentIndex(names.index("mi"))
    info = finished.overlays.measure("mi")
    assert finished.overlays.shownMeasure == "mi"
    assert info.sentence in ui.measureSentenceLabel.text
    assert ui.thresholdSlider.suffix == " nats"
    assert ui.thresholdSlider.maximum == pytest.approx(info.upper, abs=0.001)
    assert ui.thresholdSlider.value == pytest.approx(0.05)
    assert not ui.storedThresholdButton.enabled
    ui.thresholdSlider.value = 0.2
    assert ui.storedThresholdButton.enabled
    ui.storedThresholdButton.click()
    assert finished.parameterNode.threshold == pytest.approx(0.05)


def test_the_entropy_of_one_structure_follows_the_structure(finished):
    from CalibUncertaintyPanel import testing

    ui, names = finished.ui, [info.id for info in finished.layers._measures]
    ui.measureComboBox.setCurrentIndex(names.index("entropy_k"))
    ui.structureComboBox.setCurrentIndex(1)
    result = finished.overlays.result
    expected = np.where(result.distance.array <= 15, result.uncertainty("entropy_k", "Node").array, 0)
    assert np.array_equal(testing.arrayOf(finished.overlays.uncertaintyNode), expected)
    assert finished.overlays.shownStructure == "Node"


def test_the_roi_slider_masks_the_uncertainty(finished, slicer_application):
    from CalibUncertaintyPanel import testing

    finished.ui.roiShownSlider.value = 3.0
    result = finished.overlays.result
    expected = np.where(result.distance.array <= 3.0, result.uncertainty("entropy").array, 0)
    slicer_application.waitUntil(
        lambda: np.array_equal(testing.arrayOf(finished.overlays.uncertaintyNode), expected), seconds=5
    )
    assert finished.ui.roiShownSlider.maximum == 15.0


def test_the_review_jumps_every_view_to_the_peak_and_chooses_the_structure(finished):
    import slicer

    ui, regions = finished.ui, finished.overlays.result.regions
    assert ui.regionsTable.rowCount == len(regions) > 1
    assert not ui.previousRegionButton.enabled
    for row, region in enumerate(regions[:3]):
        ui.nextRegionButton.click()
        assert ui.regionsTable.currentRow() == row
        assert ui.reasonLabel.text == region.reason
        assert finished.overlays.shownStructure == region.structure
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            assert (np.linalg.inv(matrix) @ [*region.peak_ras_mm, 1])[2] == pytest.approx(0, abs=1e-6)
    ui.previousRegionButton.click()
    assert ui.regionsTable.currentRow() == 1


def test_closing_the_scene_during_a_run_never_shows_the_result_over_another_patient(
    panel, ct, model, behave, finish, slicer_application
):
    import slicer
    from CalibUncertaintyPanel import fakeProcess, testing

    behave("slow")
    panel.ui.runButton.click()
    slicer_application.waitUntil(lambda: panel.run.job.fraction > 0, seconds=10)
    slicer.mrmlScene.Clear(0)
    assert panel.run.running
    testing.addPhantom(slicer.mrmlScene, "Another patient")
    finish()
    assert panel.overlays is None
    assert "not in the scene any more" in panel.ui.errorLabel.text
    assert fakeProcess.STRUCTURES
    assert (panel.run.job.folder / "result" / "result.json").exists()


def test_a_result_made_elsewhere_finds_its_ct_in_the_scene(panel, finished, slicer_application):
    import slicer

    folder = str(panel.resultFolder)
    ct = panel.parameterNode.ctVolume
    panel.ui.ctSelector.setCurrentNode(None)
    slicer_application.dialogs.answer(folder)
    panel.ui.openResultButton.click()
    assert panel.parameterNode.ctVolume is ct
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2


def test_a_folder_without_a_result_is_refused_in_one_line(panel, slicer_application, tmp_path):
    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.openResultButton.click()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert "not a Result folder" in messages[0].text


def test_leaving_and_entering_the_module_keeps_the_choices_and_reacts_again(finished, slicer_application):
    finished.ui.thresholdSlider.value = 0.55
    slicer_application.leaveModule()
    finished.parameterNode.threshold = 0.45
    slicer_application.enterModule("CalibUncertainty")
    assert finished.ui.thresholdSlider.value == pytest.approx(0.45)
    assert finished.ui.thresholdSlider.maximum == pytest.approx(np.log(3), abs=0.001)
    finished.ui.thresholdSlider.value = 0.3
    assert finished.overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.3)


def test_a_deleted_layer_ends_the_display_without_an_exception(finished):
    import slicer

    slicer.mrmlScene.RemoveNode(finished.overlays.uncertaintyNode)
    assert finished.overlays is None
    assert "deleted" in finished.ui.errorLabel.text
    finished.ui.probabilityFloorSlider.value = 12


def test_reloading_the_module_stops_a_run(panel, ct, model, behave, slicer_application):
    import slicer

    behave("hang")
    panel.ui.runButton.click()
    process = panel.run.job._process
    assert process.poll() is None
    slicer.util.reloadScriptedModule("CalibUncertainty")
    slicer_application.processEvents()
    assert process.poll() is not None


@pytest.mark.parametrize("keep_folder", [True, False])
def test_a_saved_scene_brings_the_layers_and_choices_back(finished, slicer_application, tmp_path, keep_folder):
    import shutil

    import slicer

    finished.ui.thresholdSlider.value = 0.42
    finished.ui.uncertaintyOpacitySlider.value = 35
    finished.ui.structureComboBox.setCurrentIndex(1)
    folder = finished.resultFolder
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if not keep_folder:
        shutil.rmtree(folder)
    slicer.mrmlScene.Clear(0)
    assert finished.overlays is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    overlays, parameterNode = finished.overlays, finished.parameterNode
    assert overlays is not None
    assert parameterNode.threshold == pytest.approx(0.42)
    assert overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.42)
    assert overlays.shownStructure == "Node"
    for composite in composites():
        assert composite.GetNthLayerVolumeID(3) == overlays.uncertaintyNode.GetID()
        assert composite.GetNthLayerOpacity(3) == pytest.approx(0.35)
    assert "Calibrated" in finished.ui.statusLabel.text
    assert finished.ui.measureComboBox.enabled == keep_folder
    assert (finished.ui.regionsTable.rowCount > 0) == keep_folder
    if not keep_folder:
        assert "not there any more" in finished.ui.measureComboBox.toolTip


def test_nothing_is_installed_without_asking(panel, ct, model, slicer_application, monkeypatch):
    import qt
    from CalibUncertaintyPanel import install, slicerCompat

    installed = []
    monkeypatch.setattr(install, "findMissing", lambda: install.Missing(torch=False, requirements=("edt>=2.3",)))
    monkeypatch.setattr(install, "_install", installed.append)
    monkeypatch.setattr(slicerCompat, "pytorchLogic", lambda: None)
    panel.logic.command = None
    slicer_application.dialogs.answer(qt.QMessageBox.Cancel)
    panel.ui.runButton.click()
    question = slicer_application.dialogs.takeMessages()[0]
    assert "edt" in question.text
    assert installed == []
    assert not panel.run.running
    assert "not installed" in panel.ui.errorLabel.text


def test_without_the_pytorch_extension_the_panel_says_what_to_install(panel, ct, model, monkeypatch):
    from CalibUncertaintyPanel import install, slicerCompat

    monkeypatch.setattr(install, "findMissing", lambda: install.Missing(torch=True, requirements=()))
    monkeypatch.setattr(slicerCompat, "pytorchLogic", lambda: None)
    panel.logic.command = None
    panel.ui.runButton.click()
    assert "PyTorch extension" in panel.ui.errorLabel.text
    assert not panel.run.running


def test_both_legends_are_drawn_beside_the_patient_and_go_with_their_layer(finished):
    from Harness.views import render_slice

    def bright_pixels():
        picture = render_slice("Red", (600, 420)).max(axis=-1) > 200
        return picture[90:230, :70].sum(), picture[90:230, -70:].sum()

    left, right = bright_pixels()
    assert left > 100
    assert right > 100
    finished.ui.uncertaintyEyeButton.click()
    assert bright_pixels()[0] == left
    assert bright_pixels()[1] < right / 4
    finished.ui.uncertaintyEyeButton.click()
    finished.ui.legendsCheckBox.click()
    assert max(bright_pixels()) < right / 4


def test_zoom_and_position_stay_when_the_ct_was_shown_already(finished):
    import slicer

    node = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    node.SetFieldOfView(30, 30, 1)
    finished.showResult(str(finished.resultFolder), finished.parameterNode.ctVolume)
    assert node.GetFieldOfView()[:2] == (30, 30)


def test_a_slice_view_that_appears_later_gets_the_layers(finished, slicer_application):
    import slicer

    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Slice4")
    composite = slicer.mrmlScene.AddNode(composite)
    slicer_application.waitUntil(lambda: composite.GetForegroundVolumeID() is not None, seconds=5)
    assert composite.GetNthLayerVolumeID(3) == finished.overlays.uncertaintyNode.GetID()


@pytest.mark.slow
def test_the_whole_way_with_the_demo_model_and_the_real_computation(panel, monkeypatch):
    import slicer

    panel.logic.command = None
    monkeypatch.setenv("CALIB_UNCERTAINTY_SLOW_TESTS", "1")
    slicer.selfTests["CalibUncertainty"]()
    assert panel.overlays.result.provenance["model"]["name"] == "Dataset900_Phantom"


def test_every_widget_that_can_be_used_explains_itself(panel):
    import qt

    kinds = (
        "QPushButton",
        "QComboBox",
        "QCheckBox",
        "ctkSliderWidget",
        "ctkPathLineEdit",
        "qMRMLNodeComboBox",
        "QTableWidget",
    )
    silent = [
        name
        for name, widget in vars(panel.ui).items()
        if widget.className() in kinds and not name.startswith("qt_") and not widget.toolTip
    ]
    assert silent == []
    assert qt is not None
