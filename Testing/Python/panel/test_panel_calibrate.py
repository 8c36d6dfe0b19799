"""Calibrating a model from the panel, in the background by the fake process, and once by the real one."""

import json
import time
from pathlib import Path

import pytest


def test_calibrate_waits_for_cases_and_says_what_is_wrong_with_them(panel, model, tmp_path):
    assert not panel.ui.calibrateButton.enabled
    assert "CSV or JSON list" in panel.ui.calibrateButton.toolTip
    dataset = tmp_path / "Dataset001"
    dataset.mkdir()
    picture = tmp_path / "ct.nii.gz"
    picture.write_bytes(b"")
    for path, words in (
        (tmp_path / "gone.csv", "does not exist"),
        (picture, "no list of cases"),
        (dataset, "not a raw nnU-Net dataset: there is no dataset.json"),
    ):
        panel.ui.casesPathLineEdit.currentPath = str(path)
        assert not panel.ui.calibrateButton.enabled
        assert words in panel.ui.calibrateButton.toolTip
        assert "\n" not in panel.ui.calibrateButton.toolTip
    (dataset / "dataset.json").write_text("{}")
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir()
    panel.update()
    assert panel.ui.calibrateButton.enabled
    panel.ui.casesPathLineEdit.currentPath = ""
    panel.update()
    assert not panel.ui.calibrateButton.enabled
    assert panel.ui.casesPathLineEdit.currentPath == ""


def test_the_folder_button_chooses_a_dataset(panel, slicer_application, tmp_path):
    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.casesFolderButton.click()
    assert panel.parameterNode.calibrationCases == tmp_path
    slicer_application.dialogs.answer("")  # closed without a choice
    panel.ui.casesFolderButton.click()
    assert panel.parameterNode.calibrationCases == tmp_path


def test_a_model_folder_that_cannot_be_written_to_is_refused(panel, model, cases, monkeypatch):
    import os

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    panel.update()
    assert not panel.ui.calibrateButton.enabled
    assert "cannot be written to" in panel.ui.calibrateButton.toolTip


def test_the_request_of_a_calibration_says_what_was_chosen(panel, model, cases, ended, tmp_path):
    panel.inputs._foldBoxes[1].click()
    panel.ui.mirroringCheckBox.click()
    panel.ui.deviceComboBox.setCurrentIndex(3)
    panel.ui.calibrationWaysComboBox.setCurrentIndex(2)
    panel.ui.calibrationRoiSlider.value = 20.0
    panel.ui.outputPathLineEdit.currentPath = str(tmp_path)
    panel.ui.calibrateButton.click()
    job = panel.calibrate.job
    request = json.loads((job.folder / "request.json").read_text(encoding="utf-8"))
    arguments = request["arguments"]
    assert request["verb"] == "calibrate"
    assert Path(arguments.pop("proof")).parent == tmp_path
    assert arguments == {
        "cases": str(cases),
        "model": str(model),
        "folds": [0],
        "flips": "off",
        "device": "cpu",
        "mode": "auto",
        "method": "temperature",
        "allow_changed_labels": False,
        "roi_mm": 20.0,
    }
    ended()


def test_the_panel_offers_every_method_and_says_what_it_does(panel, model, cases):
    from CalibUncertaintyPanel.parameterNode import CalibrationMethod

    from CalibUncertaintyLib.calibration.methods import METHODS

    assert {method.value for method in CalibrationMethod} == {"auto", *METHODS}
    box = panel.ui.calibrationMethodComboBox
    assert box.count == len(CalibrationMethod)
    for index, method in enumerate(CalibrationMethod):
        box.setCurrentIndex(index)
        assert panel.parameterNode.calibrationMethod is method
        known = METHODS.get(method.value)
        assert (known.description if known else "every method that is installed") in box.toolTip
        assert panel.ui.mayChangeLabelsCheckBox.enabled == (known is not None and known.preserves == "none")
        assert panel.ui.calibrationWaysComboBox.enabled == (method.value in ("temperature", "auto"))


def test_changed_labels_are_allowed_only_for_a_method_that_makes_them(panel, model, cases):
    from CalibUncertaintyPanel import calibrationRuns
    from CalibUncertaintyPanel.parameterNode import CalibrationMethod, CalibrationWays

    panel.parameterNode.calibrationWays = CalibrationWays.ALL
    panel.parameterNode.calibrationMethod = CalibrationMethod.VECTOR
    panel.ui.mayChangeLabelsCheckBox.click()
    for method, ways, allowed in (
        ("VECTOR", "pool_logit", True),
        ("TEMPERATURE", "all", False),
        ("AUTO", "all", False),
    ):
        panel.parameterNode.calibrationMethod = CalibrationMethod[method]
        arguments = calibrationRuns.makeRequest(panel.parameterNode, panel.inputs.summary, Path("run"))["arguments"]
        assert (arguments["mode"], arguments["allow_changed_labels"]) == (ways, allowed)
        assert arguments["method"] == method.lower()


def test_a_dataset_takes_temperatures_only(panel, model, tmp_path):
    from CalibUncertaintyPanel.parameterNode import CalibrationMethod

    dataset = tmp_path / "Dataset001"
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir(parents=True)
    (dataset / "dataset.json").write_text("{}")
    panel.ui.casesPathLineEdit.currentPath = str(dataset)
    assert panel.ui.calibrateButton.enabled
    panel.parameterNode.calibrationMethod = CalibrationMethod.ISOTONIC
    panel.update()
    assert not panel.ui.calibrateButton.enabled
    assert "only temperatures" in panel.ui.calibrateButton.toolTip


def test_the_computation_knows_every_argument_of_the_request(panel, model, cases):
    from CalibUncertaintyPanel import calibrationRuns

    from CalibUncertaintyLib.workflow.calibrate import CalibrateOptions

    arguments = calibrationRuns.makeRequest(panel.parameterNode, panel.inputs.summary, Path("run"))["arguments"]
    assert None not in arguments.values()
    assert set(arguments) - {"cases", "model"} <= set(CalibrateOptions.names())


def test_after_a_calibration_state_diagram_and_proof_are_there(
    panel, model, cases, told, ended, clean_scene, monkeypatch
):
    import qt
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram

    assert not told().holds
    assert not panel.ui.proofButton.enabled
    panel.ui.calibrateButton.click()
    assert panel.calibrate.running
    assert not panel.ui.calibrateButton.enabled
    ended()
    assert panel.ui.calibrationErrorLabel.text == ""
    assert "Stored in" in panel.ui.calibrationStageLabel.text
    assert told().holds
    assert reliabilityDiagram.findChart(slicer.mrmlScene) is not None
    assert not (panel.calibrate.job.folder / "work").exists()
    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: bool(opened.append(url.toLocalFile())) or True)
    assert panel.ui.proofButton.enabled
    panel.ui.proofButton.click()
    assert opened == [str(panel.parameterNode.proofFolder / "report.html")]
    Path(opened[0]).unlink()
    panel.ui.proofButton.click()
    assert len(opened) == 1
    assert not panel.ui.proofButton.enabled


def test_after_a_calibration_the_inputs_say_calibrated_too(panel, model, cases, ended, slicer_application):
    panel.ui.calibrateButton.click()
    ended()
    slicer_application.waitUntil(lambda: "alibrated" in panel.ui.modelSummaryLabel.text, seconds=10)
    assert "Calibrated: temperature 2.03" in panel.ui.modelSummaryLabel.text


def test_the_proof_of_one_model_is_not_offered_for_another(panel, model, cases, ended, tmp_path):
    from CalibUncertaintyPanel import testing

    panel.ui.calibrateButton.click()
    ended()
    assert panel.ui.proofButton.enabled
    other = testing.makeFakeModel(tmp_path / "other")
    panel.ui.modelPathLineEdit.currentPath = str(other)
    assert not panel.ui.proofButton.enabled
    panel.ui.modelPathLineEdit.currentPath = str(model)
    assert panel.ui.proofButton.enabled


def test_a_calibration_shows_progress_and_no_run_starts_meanwhile(panel, ct, model, cases, behave, slicer_application):
    behave("slow")
    assert panel.ui.runButton.enabled
    panel.ui.calibrateButton.click()
    slicer_application.waitUntil(lambda: panel.ui.calibrationProgressBar.value > 100, seconds=10)
    assert "case_" in panel.ui.calibrationStageLabel.text
    assert not panel.ui.runButton.enabled
    assert "A calibration is under way" in panel.ui.runButton.toolTip
    began = time.monotonic()
    panel.ui.cancelCalibrationButton.click()
    assert time.monotonic() - began < 1.0
    assert "Cancelled" in panel.ui.calibrationStageLabel.text
    assert panel.ui.runButton.enabled
    assert panel.ui.calibrateButton.enabled
    assert not (model / "calibration.json").exists()


def test_no_calibration_starts_during_a_run(panel, ct, model, cases, behave, slicer_application):
    behave("slow")
    panel.ui.runButton.click()
    assert not panel.ui.calibrateButton.enabled
    assert "A run is under way" in panel.ui.calibrateButton.toolTip
    panel.ui.cancelButton.click()
    assert panel.ui.calibrateButton.enabled


def test_cancelling_leaves_no_logits_behind(panel, model, cases, behave, slicer_application):
    behave("hang")
    panel.ui.calibrateButton.click()
    work = panel.calibrate.job.folder / "work"
    slicer_application.waitUntil(lambda: (work / "logits.scratch").exists(), seconds=10)
    panel.ui.cancelCalibrationButton.click()
    assert not work.exists()


@pytest.mark.parametrize(("behaviour", "words"), [("fail", "CUDA out of memory"), ("garbage", "without a result")])
def test_a_failing_calibration_is_told_in_one_line_in_its_own_place(
    panel, model, cases, behave, ended, slicer_application, behaviour, words
):
    behave(behaviour)
    panel.ui.calibrateButton.click()
    ended()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert words in messages[0].text
    assert "\n" not in messages[0].text
    assert "Log:" in messages[0].details
    assert words in panel.ui.calibrationErrorLabel.text
    assert panel.ui.errorLabel.text == ""
    assert panel.ui.calibrateButton.enabled
    panel.ui.calibrateButton.click()
    assert panel.ui.calibrationErrorLabel.text == ""
    ended()
    slicer_application.dialogs.takeMessages("error")


def test_reloading_the_module_stops_a_calibration(panel, model, cases, behave, slicer_application):
    import slicer

    behave("hang")
    panel.ui.calibrateButton.click()
    process = panel.calibrate.job._process
    slicer.util.reloadScriptedModule("CalibUncertainty")
    slicer_application.processEvents()
    assert process.poll() is not None


def test_closing_the_scene_during_a_calibration_stores_it_all_the_same(
    panel, model, cases, behave, ended, slicer_application
):
    import slicer

    behave("slow")
    panel.ui.calibrateButton.click()
    slicer_application.waitUntil(lambda: panel.calibrate.job.fraction > 0.1, seconds=10)
    slicer.mrmlScene.Clear(0)
    ended()
    assert (model / "calibration.json").is_file()
    assert panel.ui.calibrationErrorLabel.text == ""


def test_the_choices_of_a_calibration_come_back_with_a_saved_scene(panel, model, cases, slicer_application, tmp_path):
    import slicer

    panel.ui.calibrationWaysComboBox.setCurrentIndex(1)
    panel.ui.calibrationRoiSlider.value = 9.0
    panel.ui.calibrationMethodComboBox.setCurrentIndex(4)
    panel.ui.mayChangeLabelsCheckBox.click()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.ui.casesPathLineEdit.currentPath = ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    parameterNode = panel.parameterNode
    assert parameterNode.calibrationCases == cases
    assert (parameterNode.calibrationWays.value, parameterNode.calibrationRoiMm) == ("all", 9.0)
    assert (parameterNode.calibrationMethod.value, parameterNode.calibrationMayChangeLabels) == ("vector", True)
    assert panel.ui.casesPathLineEdit.currentPath == str(cases)


def test_packages_are_asked_for_before_a_calibration_too(panel, model, cases, monkeypatch):
    from CalibUncertaintyPanel import install

    asked = []
    monkeypatch.setattr(install, "ensure", lambda confirm, names: asked.extend(names) or "packages are missing")
    panel.logic.command = None
    panel.ui.calibrateButton.click()
    assert "packages are missing" in panel.ui.calibrationErrorLabel.text
    assert {"nnunetv2", "matplotlib"} <= set(asked)
    assert not panel.calibrate.running


@pytest.mark.parametrize("way", ["pool_logit", "auto"])
def test_the_real_computation_calibrates_a_tiny_model_from_the_panel(panel, told, slicer_application, tmp_path, way):
    """Untrained networks on noise: the figures mean nothing, but request, record, diagram and proof are the real ones."""
    pytest.importorskip("torch")
    import numpy as np
    import SimpleITK as sitk
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram, runs
    from CalibUncertaintyPanel.parameterNode import CalibrationWays
    from tiny_model import plans, write_ct, write_model

    model = write_model(tmp_path, plans(), sharpness=12.0)
    lines = ["id,ct,labels"]
    for number in range(2):
        image = sitk.ReadImage(str(write_ct(tmp_path / f"ct_{number}.nii.gz", seed=number)))
        labels = np.random.default_rng(number).integers(0, 3, image.GetSize()[::-1], dtype=np.uint8)
        reference = sitk.GetImageFromArray(labels)
        reference.CopyInformation(image)
        sitk.WriteImage(reference, str(tmp_path / f"labels_{number}.nii.gz"))
        lines.append(f"case_{number},ct_{number}.nii.gz,labels_{number}.nii.gz")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    panel.logic.command = runs.libraryCommand()
    panel.ui.modelPathLineEdit.currentPath = str(model)
    panel.ui.casesPathLineEdit.currentPath = str(tmp_path / "cases.csv")
    panel.ui.mirroringCheckBox.click()
    panel.parameterNode.calibrationWays = CalibrationWays(way)
    panel.parameterNode.outputFolder = tmp_path / "out"
    panel.ui.calibrateButton.click()
    slicer_application.waitUntil(lambda: not panel.calibrate.running, seconds=240)
    assert panel.ui.calibrationErrorLabel.text == "", panel.calibrate.job.details()
    state = told()
    if not state.holds:
        assert state.otherWays, state.verdict
        panel.ui.otherWayButton.click()
        state = told()
    assert state.holds, state.verdict
    assert state.cases == 2
    assert "2 cases" in panel.ui.calibrationStateLabel.text
    assert state.nll[1] <= state.nll[0]
    assert panel.ui.proofButton.enabled
    assert panel.parameterNode.proofFolder.parent == tmp_path / "out"
    panel.ui.reliabilityButton.click()
    assert "Dataset999_Tiny" in reliabilityDiagram.findChart(slicer.mrmlScene).GetTitle()
    reliabilityDiagram.removeDiagram(slicer.mrmlScene)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)


def test_what_was_stored_before_a_calibration_ended_badly_is_told(
    panel, calibrated, cases, told, behave, slicer_application
):
    """The record is written before the proof, and a full disk may come between."""
    from CalibUncertaintyPanel import fakeCalibration

    calibrated.unlink()
    panel.calibration.checkAgain()
    assert not told().holds
    behave("hang")
    panel.ui.calibrateButton.click()
    fakeCalibration.writeRecord(calibrated.parent)
    panel.ui.cancelCalibrationButton.click()
    assert told().holds
    slicer_application.waitUntil(lambda: "Calibrated:" in panel.ui.modelSummaryLabel.text, seconds=10)
