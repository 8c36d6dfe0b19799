"""The panel's calibration: what is stored with a model, its diagram, and calibrating in the background by the fake process."""

import json
import time
from pathlib import Path

import pytest


@pytest.fixture
def calibrated(model):
    """The model with a stored calibration."""
    from CalibUncertaintyPanel import fakeCalibration

    for fold in (0, 1):  # folds with the same weights would count as one
        (model / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"weights of fold %d" % fold)
    return fakeCalibration.writeRecord(model)


@pytest.fixture
def told(panel, slicer_application):
    """Function that lets the application work until the state of the calibration is known; gives it."""

    def wait():
        slicer_application.waitUntil(lambda: panel.calibration.state is not None, seconds=20, what="the state")
        return panel.calibration.state

    return wait


@pytest.fixture
def cases(panel, tmp_path):
    path = tmp_path / "Fälle 1.csv"
    path.write_text("id,ct,labels\na,a.nii.gz,a_labels.nii.gz\n", encoding="utf-8")
    panel.ui.casesPathLineEdit.currentPath = str(path)
    return path


@pytest.fixture
def ended(panel, slicer_application):
    """Function that lets the application work until the calibration has ended."""

    def wait(seconds=30):
        slicer_application.waitUntil(lambda: not panel.calibrate.running, seconds=seconds)

    return wait


@pytest.fixture
def clean_scene():
    """No diagram of an earlier test is left."""
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram

    yield
    reliabilityDiagram.removeDiagram(slicer.mrmlScene)


def test_without_a_model_the_section_asks_for_one(panel):
    assert "Choose a model" in panel.ui.calibrationStateLabel.text
    for button in (panel.ui.calibrationDetailsButton, panel.ui.reliabilityButton, panel.ui.calibrateButton):
        assert not button.enabled
        assert button.toolTip


def test_a_model_without_a_calibration_says_so_and_why(panel, model, told):
    state = told()
    assert not state.holds
    assert "Not calibrated" in panel.ui.calibrationStateLabel.text
    assert "calibrate the model first" in panel.ui.calibrationStateLabel.text
    assert panel.ui.calibrationDetailsButton.enabled
    assert not panel.ui.reliabilityButton.enabled
    assert "no calibration that holds" in panel.ui.reliabilityButton.toolTip


def test_a_stored_calibration_is_told_with_its_figures(panel, calibrated, told):
    panel.calibration.checkAgain()
    state = told()
    assert state.holds, state.verdict
    text = panel.ui.calibrationStateLabel.text
    assert "Holds for these folds and flips" in text
    assert "Temperature 2.030 (95 % interval 1.83 to 2.23), 3 cases" in text
    assert "NLL 0.4000 → 0.3000 nats" in text
    assert "ECE 12.00 → 1.50 %" in text
    assert state.made in text
    assert len(state.made) == 10
    assert "lower is better" in panel.ui.calibrationStateLabel.toolTip


def test_what_is_looked_at_follows_folds_flips_and_pooling(panel, calibrated, told):
    panel.calibration.checkAgain()
    assert told().holds
    panel.inputs._foldBoxes[1].click()
    assert panel.calibration.state is None  # what was said of other folds is taken away at once
    assert "Looking" in panel.ui.calibrationStateLabel.text
    assert "fold" in told().verdict
    assert not panel.calibration.state.holds
    panel.inputs._foldBoxes[1].click()
    assert told().holds
    panel.ui.mirroringCheckBox.click()
    assert not told().holds
    panel.ui.mirroringCheckBox.click()
    panel.ui.poolingComboBox.setCurrentIndex(1)
    assert not told().holds
    assert "pool_prob" in panel.calibration.state.verdict


def test_a_calibration_for_another_way_of_putting_folds_together_is_one_click_away(panel, calibrated, told):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(calibrated.parent, modes=("shared", "pool_prob"))
    panel.calibration.checkAgain()
    assert not told().holds
    assert (
        "stored for: Average the probabilities (labels may change); Calibrate all"
        in panel.ui.calibrationStateLabel.text
    )
    assert not panel.ui.otherWayButton.isHidden()
    assert "Average the probabilities" in panel.ui.otherWayButton.toolTip
    panel.ui.otherWayButton.click()
    assert panel.parameterNode.pooling.value == "pool_prob"
    assert panel.ui.poolingComboBox.currentIndex == 1
    assert told().holds
    assert panel.ui.otherWayButton.isHidden()


def test_other_weights_than_those_calibrated_are_named(panel, calibrated, model, told):
    (model / "fold_1" / "checkpoint_final.pth").write_bytes(b"other weights")
    panel.calibration.checkAgain()
    assert not told().holds
    assert "fold 1" in panel.calibration.state.verdict


def test_a_record_that_was_edited_by_hand_does_not_hold(panel, calibrated, told):
    content = json.loads(calibrated.read_text(encoding="utf-8"))
    content["entries"][0]["temperature"] = 1.0
    calibrated.write_text(json.dumps(content))
    panel.calibration.checkAgain()
    assert not told().holds
    assert "changed" in panel.calibration.state.verdict


def test_the_details_are_all_that_the_check_says(panel, calibrated, told):
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.workflow.check import check_model

    panel.calibration.checkAgain()
    told()
    panel.ui.calibrationDetailsButton.click()
    shown = panel.calibration.detailsEdit.plainText
    report = check_model(MemberSet.choose(calibrated.parent, "all"), "pool_logit")
    assert shown == "\n".join(report.lines())
    assert shown.startswith("HOLDS")
    assert panel.calibration.detailsEdit.readOnly
    panel.ui.calibrationDetailsButton.click()  # again: the same window


def test_looking_at_large_checkpoints_does_not_hold_the_panel_up(panel, model, told, monkeypatch):
    from CalibUncertaintyPanel import calibrationState

    read = calibrationState.readState
    monkeypatch.setattr(calibrationState, "readState", lambda *choice: (time.sleep(0.5), read(*choice))[1])
    began = time.monotonic()
    panel.calibration.checkAgain()
    panel.update()
    assert time.monotonic() - began < 0.4
    assert "Looking" in panel.ui.calibrationStateLabel.text
    assert not told().holds


def test_the_button_draws_the_diagram_and_brings_a_plot_view_into_the_layout(panel, calibrated, told, clean_scene):
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram

    panel.calibration.checkAgain()
    told()
    layout = slicer.app.layoutManager().layout
    panel.ui.reliabilityButton.click()
    chart = reliabilityDiagram.findChart(slicer.mrmlScene)
    assert "Dataset999_Fake, folds 0 and 1" in chart.GetTitle()
    assert slicer.app.layoutManager().layout == slicer.modules.plots.logic().GetLayoutWithPlot(layout) != layout
    assert slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID() == chart.GetID()
    slicer.app.layoutManager().setLayout(layout)


def test_without_a_layout_the_diagram_is_made_and_nothing_is_shown(panel, calibrated, told, clean_scene, monkeypatch):
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram, slicerCompat

    panel.calibration.checkAgain()
    told()
    layout = slicer.app.layoutManager().layout
    monkeypatch.setattr(type(slicer.app), "layoutManager", lambda self: None)
    panel.ui.reliabilityButton.click()
    chart = reliabilityDiagram.findChart(slicer.mrmlScene)
    assert chart is not None
    assert slicerCompat.showChart(chart) is False
    monkeypatch.undo()
    assert slicer.app.layoutManager().layout == layout


def test_a_calibration_without_bins_disables_the_diagram_and_says_why(panel, model, told):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(model, figures={"before": {}, "after": {}})
    panel.calibration.checkAgain()
    assert told().holds
    assert not panel.ui.reliabilityButton.enabled
    assert "no bins" in panel.ui.reliabilityButton.toolTip
    assert "NLL" not in panel.ui.calibrationStateLabel.text


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
        "roi_mm": 20.0,
    }
    ended()


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
    slicer_application.waitUntil(lambda: "Calibrated: temperature 2.03" in panel.ui.modelSummaryLabel.text, seconds=10)


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
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.ui.casesPathLineEdit.currentPath = ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    parameterNode = panel.parameterNode
    assert parameterNode.calibrationCases == cases
    assert (parameterNode.calibrationWays.value, parameterNode.calibrationRoiMm) == ("all", 9.0)
    assert panel.ui.casesPathLineEdit.currentPath == str(cases)


def test_packages_are_asked_for_before_a_calibration_too(panel, model, cases, monkeypatch):
    from CalibUncertaintyPanel import install

    monkeypatch.setattr(install, "ensure", lambda confirm: "packages are missing")
    panel.logic.command = None
    panel.ui.calibrateButton.click()
    assert "packages are missing" in panel.ui.calibrationErrorLabel.text
    assert not panel.calibrate.running
