"""The panel used as a person uses it: inputs, runs and what can go wrong with them; the computation is the fake process."""

import json
import sys
import time
from pathlib import Path

import pytest


def test_the_self_test_of_the_module_passes(panel):
    import slicer

    slicer.selfTests["CalibUncertainty"]()
    assert panel.ui.modelPathLineEdit.comboBox().count == 0  # its temporary model is not in the developer's list


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


def test_the_output_folder_and_the_model_can_be_emptied_again(panel, ct, model, tmp_path):
    from CalibUncertaintyPanel.parameterNode import isChosen

    for line_edit, name in ((panel.ui.outputPathLineEdit, "outputFolder"), (panel.ui.modelPathLineEdit, "modelFolder")):
        line_edit.currentPath = str(tmp_path)
        assert getattr(panel.parameterNode, name) == tmp_path
        line_edit.currentPath = ""
        panel.update()
        assert line_edit.currentPath == ""
        assert not isChosen(getattr(panel.parameterNode, name))
    assert not panel.ui.runButton.enabled


def test_remembering_the_model_chooses_no_other_one(panel, model, tmp_path):
    other = tmp_path / "other"
    for folder in (other, model):
        panel.ui.modelPathLineEdit.currentPath = str(folder)
        panel.inputs.remember()
    reported, taken = [], []
    panel.ui.modelPathLineEdit.comboBox().connect("editTextChanged(QString)", reported.append)
    tag = panel.parameterNode.AddObserver("ModifiedEvent", lambda *_: taken.append(panel.parameterNode.modelFolder))
    panel.inputs.remember()
    panel.parameterNode.RemoveObserver(tag)
    assert str(other) in reported  # the widget's own list went through the neighbour
    assert other not in taken
    assert panel.parameterNode.modelFolder == model
    assert panel.ui.modelPathLineEdit.currentPath == str(model)
    assert panel.inputs._foldBoxes


@pytest.mark.parametrize(
    "damage", [{"labels": {"Organ": {"odd": 1}}}, {"labels": [], "channel_names": 3}, {"channel_names": {"x": "CT"}}]
)
def test_odd_model_files_end_in_one_sentence(panel, ct, model, damage, caplog):
    content = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    (model / "dataset.json").write_text(json.dumps({**content, **damage}))
    panel.ui.modelPathLineEdit.currentPath = ""
    panel.ui.modelPathLineEdit.currentPath = str(model)
    assert not panel.ui.runButton.enabled
    assert "dataset.json" in panel.ui.runButton.toolTip or str(model) in panel.ui.runButton.toolTip
    assert "\n" not in panel.ui.runButton.toolTip


def test_a_check_that_breaks_says_so_instead_of_going_on_for_ever(panel, model, slicer_application, monkeypatch):
    from CalibUncertaintyLib.workflow import applied

    monkeypatch.setattr(applied, "choose_calibration", lambda *_: 1 / 0)
    panel.ui.mirroringCheckBox.click()
    slicer_application.waitUntil(lambda: "division by zero" in panel.ui.modelSummaryLabel.text, seconds=10)


def test_developers_reload_loads_the_panel_anew(panel, monkeypatch):
    import slicer

    before = {name: module for name, module in sys.modules.items() if name.startswith("CalibUncertainty")}
    released = []
    monkeypatch.setattr(panel.run, "release", lambda: released.append(sys.modules.get("CalibUncertaintyPanel.panel")))
    try:
        slicer.modules.CalibUncertaintyWidget.onReload()
        assert sys.modules["CalibUncertaintyPanel.panel"] is not before["CalibUncertaintyPanel.panel"]
        assert slicer.modules.CalibUncertaintyWidget.panel is not panel
        assert panel.parameterNode is None
        assert released == [before["CalibUncertaintyPanel.panel"]]
    finally:
        sys.modules.update(before)  # other tests hold classes of these modules


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
    panel.ui.listedByComboBox.setCurrentIndex(2)
    panel.ui.allMeasuresCheckBox.click()
    panel.ui.outputPathLineEdit.currentPath = str(tmp_path)
    panel.ui.runButton.click()
    request = json.loads((panel.run.job.folder / "request.json").read_text(encoding="utf-8"))
    arguments = request["arguments"]
    assert request["verb"] == "segment"
    assert arguments["model"] == str(model)
    assert (arguments["folds"], arguments["device"], arguments["calibration"]) == ([0], "cpu", "none")
    assert (arguments["mirroring"], arguments["roi_mm"], arguments["mode"]) == (False, 9.0, "pool_logit")
    assert (arguments["measure"], arguments["measures"]) == ("dae", "all")
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


def test_reloading_the_module_stops_a_run(panel, ct, model, behave, slicer_application):
    import slicer

    behave("hang")
    panel.ui.runButton.click()
    process = panel.run.job._process
    assert process.poll() is None
    slicer.util.reloadScriptedModule("CalibUncertainty")
    slicer_application.processEvents()
    assert process.poll() is not None


def test_nothing_is_installed_without_asking(panel, ct, model, slicer_application, monkeypatch):
    import qt
    from CalibUncertaintyPanel import install, slicerCompat

    installed = []
    monkeypatch.setattr(install, "findMissing", lambda *_: install.Missing(torch=False, requirements=("edt>=2.3",)))
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


def test_while_packages_are_installed_a_second_click_starts_nothing(panel, ct, model, slicer_application, monkeypatch):
    from CalibUncertaintyPanel import install, runs

    calls, started = [], []

    def ensure(confirm, names):
        calls.append(panel.ui.runButton.enabled)
        assert panel.ui.stageLabel.text == "Installing packages..."
        assert "installed" in panel.ui.runButton.toolTip
        panel.update()  # what Slicer does on the way must not enable it again
        slicer_application.processEvents()
        panel.ui.runButton.click()
        panel.run.onRun()
        return "cancelled by the test"

    monkeypatch.setattr(install, "ensure", ensure)
    monkeypatch.setattr(runs, "startRun", lambda *_: started.append(1))
    panel.logic.command = None
    panel.ui.runButton.click()
    assert calls == [False]
    assert started == []
    assert panel.ui.runButton.enabled


def test_an_installer_that_raises_leaves_run_enabled(panel, ct, model, monkeypatch):
    from CalibUncertaintyPanel import install

    monkeypatch.setattr(install, "ensure", lambda *_: 1 / 0)
    panel.logic.command = None
    panel.ui.runButton.click()
    assert "division by zero" in panel.ui.errorLabel.text
    assert panel.ui.runButton.enabled


def test_without_the_pytorch_extension_the_panel_says_what_to_install(panel, ct, model, monkeypatch):
    from CalibUncertaintyPanel import install, slicerCompat

    monkeypatch.setattr(install, "findMissing", lambda *_: install.Missing(torch=True, requirements=()))
    monkeypatch.setattr(slicerCompat, "pytorchLogic", lambda: None)
    panel.logic.command = None
    panel.ui.runButton.click()
    assert "PyTorch extension" in panel.ui.errorLabel.text
    assert not panel.run.running


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
