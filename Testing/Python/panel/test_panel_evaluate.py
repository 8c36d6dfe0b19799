"""Evaluating a model from the panel, in the background by the fake process, and once by the real one."""

import json
import time
from pathlib import Path

import pytest


@pytest.fixture
def report(panel, model, listed_cases, evaluated, tmp_path):
    """The panel with the figures of the fake's evaluation; the folder."""
    panel.ui.evaluationFolderLineEdit.currentPath = str(tmp_path / "report")
    panel.ui.evaluateButton.click()
    evaluated()
    assert panel.ui.evaluationErrorLabel.text == ""
    return tmp_path / "report"


@pytest.fixture(autouse=True)
def no_chart(panel):
    import slicer
    from CalibUncertaintyPanel import budgetDiagram

    yield
    budgetDiagram.removeBudget(slicer.mrmlScene)
    panel.ui.testCasesPathLineEdit.currentPath = ""
    panel.ui.evaluationFolderLineEdit.currentPath = ""


def rows_of(table):
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_evaluate_waits_for_cases_and_says_what_is_wrong_with_them(panel, model, tmp_path):
    assert not panel.ui.evaluateButton.enabled
    assert "CSV or JSON list" in panel.ui.evaluateButton.toolTip
    picture = tmp_path / "ct.nii.gz"
    picture.write_bytes(b"")
    for path, words in ((tmp_path / "gone.csv", "is no file"), (tmp_path, "is no file"), (picture, "no list of cases")):
        panel.ui.testCasesPathLineEdit.currentPath = str(path)
        assert not panel.ui.evaluateButton.enabled
        assert words in panel.ui.evaluateButton.toolTip
        assert "\n" not in panel.ui.evaluateButton.toolTip


@pytest.mark.parametrize("name", ["cases.tsv", "cases.txt", "CASES.CSV", "cases.json"])
def test_every_list_that_calibrates_also_evaluates(panel, model, tmp_path, name):
    (tmp_path / name).write_text("")
    for line, button in (
        (panel.ui.casesPathLineEdit, panel.ui.calibrateButton),
        (panel.ui.testCasesPathLineEdit, panel.ui.evaluateButton),
    ):
        line.currentPath = str(tmp_path / name)
        assert button.enabled, button.toolTip
    panel.ui.casesPathLineEdit.currentPath = ""


def test_a_report_folder_with_other_files_is_refused_before_anything_runs(panel, model, listed_cases, tmp_path):
    assert panel.ui.evaluateButton.enabled
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.docx").write_bytes(b"")
    panel.ui.evaluationFolderLineEdit.currentPath = str(full)
    assert not panel.ui.evaluateButton.enabled
    assert "thesis.docx" in panel.ui.evaluateButton.toolTip
    (full / "thesis.docx").rename(full / "evaluation.json")  # that of an earlier evaluation: it goes on
    panel.update()
    assert panel.ui.evaluateButton.enabled
    panel.ui.evaluationFolderLineEdit.currentPath = str(listed_cases)
    assert "no folder" in panel.ui.evaluateButton.toolTip
    panel.ui.evaluationFolderLineEdit.currentPath = str(tmp_path / "new")
    assert panel.ui.evaluateButton.enabled


def test_the_request_of_an_evaluation_says_what_was_chosen(panel, model, listed_cases, evaluated, tmp_path):
    panel.inputs._foldBoxes[1].click()
    panel.ui.mirroringCheckBox.click()
    panel.ui.deviceComboBox.setCurrentIndex(3)
    panel.ui.calibrationComboBox.setCurrentIndex(1)
    panel.parameterNode.roiComputedMm = 20.0
    panel.ui.evaluationKindComboBox.setCurrentIndex(1)
    panel.ui.outputPathLineEdit.currentPath = str(tmp_path)
    panel.ui.evaluateButton.click()
    request = json.loads((panel.evaluate.job.folder / "request.json").read_text(encoding="utf-8"))
    arguments = request["arguments"]
    assert request["verb"] == "evaluate"
    out = Path(arguments.pop("out"))
    assert out.parent == tmp_path
    assert out.name.startswith("Evaluation of ")
    assert arguments == {
        "cases": str(listed_cases),
        "model": str(model),
        "folds": [0],
        "flips": "off",
        "device": "cpu",
        "mode": "pool_logit",
        "roi_mm": 20.0,
        "measures": "standard",
        "roi": "structures",
        "configurations": [{"name": "uncalibrated", "calibration": "none"}],
    }
    evaluated()
    assert [row[0] for row in rows_of(panel.ui.evaluationTable)] == ["uncalibrated"]


def test_the_computation_knows_every_argument_of_the_request(panel, model, listed_cases):
    from CalibUncertaintyPanel import evaluationRuns
    from CalibUncertaintyPanel.parameterNode import EvaluationKind

    from CalibUncertaintyLib.workflow.evaluate_options import EvaluateOptions, configurations_of

    for kind, names in ((EvaluationKind.BOTH, ["uncalibrated", "calibrated"]), (EvaluationKind.CHOSEN, ["calibrated"])):
        panel.parameterNode.evaluationKind = kind
        arguments = evaluationRuns.makeRequest(panel.parameterNode, panel.inputs.summary, Path("run"))["arguments"]
        assert None not in arguments.values()
        options = EvaluateOptions(**{name: arguments[name] for name in set(arguments) - {"cases", "model", "out"}})
        assert [item.name for item in configurations_of(arguments["model"], options)] == names


def test_after_an_evaluation_its_figures_are_shown(panel, report):
    assert "Written to" in panel.ui.evaluationStageLabel.text
    assert rows_of(panel.ui.evaluationTable) == [
        ["uncalibrated", "2 / 3", "0.840", "0.4100", "12.00"],
        ["calibrated", "2 / 3", "0.840", "0.3000", "1.50"],
    ]
    assert panel.ui.evaluationConfigurationComboBox.currentText == "calibrated"
    assert rows_of(panel.ui.evaluationMeasuresTable) == [
        ["Entropy", "0.500", "0.600", "0.450", "0.300"],
        ["Mutual information", "0.400", "0.600", "0.450", "–"],
    ]
    panel.ui.evaluationConfigurationComboBox.setCurrentIndex(0)
    assert rows_of(panel.ui.evaluationMeasuresTable) == [
        ["Entropy", "0.400", "0.480", "0.360", "0.240"],
        ["Mutual information", "0.320", "0.480", "0.360", "–"],
    ]
    tip = panel.ui.evaluationTable.item(1, 3).toolTip()
    assert tip == "95 % interval 0.2700 to 0.3300, 2 of 2 cases"
    text = panel.ui.evaluationSummaryLabel.text
    assert "3 test cases, 2 configurations" in text
    assert "Failed: P3 (uncalibrated, calibrated): its labels are empty" in text
    assert text.count("Failed:") == 1
    assert "Only 2 cases" in text


def test_the_report_opens_in_the_browser(panel, report, monkeypatch):
    import qt

    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: bool(opened.append(url.toLocalFile())) or True)
    assert panel.ui.evaluationReportButton.enabled
    panel.ui.evaluationReportButton.click()
    assert opened == [str(report / "report.html")]
    (report / "report.html").unlink()
    panel.ui.evaluationReportButton.click()
    assert len(opened) == 1
    assert not panel.ui.evaluationReportButton.enabled


def test_the_budget_curve_of_the_chosen_measure_is_plotted(panel, report):
    import slicer
    from CalibUncertaintyPanel import budgetDiagram

    combo = panel.ui.budgetMeasureComboBox
    assert [combo.itemText(index) for index in range(combo.count)] == ["Entropy", "Mutual information"]
    panel.ui.budgetButton.click()
    chart = budgetDiagram.findChart(slicer.mrmlScene)
    assert chart.GetTitle() == "Budget curve: Entropy, Dataset999_Fake"
    combo.setCurrentIndex(1)
    panel.ui.budgetButton.click()
    assert chart.GetTitle() == "Budget curve: Mutual information, Dataset999_Fake"
    assert chart.GetNumberOfPlotSeriesNodes() == 4


def test_an_evaluation_shows_progress_and_nothing_else_starts_meanwhile(
    panel, ct, model, listed_cases, cases, behave, slicer_application
):
    behave("slow")
    assert panel.ui.runButton.enabled
    assert panel.ui.calibrateButton.enabled
    panel.ui.evaluateButton.click()
    slicer_application.waitUntil(lambda: panel.ui.evaluationProgressBar.value > 60, seconds=10)
    assert "calibrated: predict" in panel.ui.evaluationStageLabel.text
    for button in (panel.ui.runButton, panel.ui.calibrateButton):
        assert not button.enabled
        assert "An evaluation is under way" in button.toolTip
    began = time.monotonic()
    panel.ui.cancelEvaluationButton.click()
    assert time.monotonic() - began < 1.0
    assert "Finished cases are kept in" in panel.ui.evaluationStageLabel.text
    assert panel.ui.runButton.enabled
    assert panel.ui.evaluateButton.enabled
    assert panel.ui.evaluationTable.isHidden()


def test_no_evaluation_starts_during_a_run(panel, ct, model, listed_cases, behave):
    behave("slow")
    panel.ui.runButton.click()
    assert not panel.ui.evaluateButton.enabled
    assert "A run is under way" in panel.ui.evaluateButton.toolTip
    panel.ui.cancelButton.click()
    assert panel.ui.evaluateButton.enabled


@pytest.mark.parametrize(("behaviour", "words"), [("fail", "CUDA out of memory"), ("garbage", "without a result")])
def test_a_failing_evaluation_is_told_in_one_line_in_its_own_place(
    panel, model, listed_cases, behave, evaluated, slicer_application, behaviour, words
):
    behave(behaviour)
    panel.ui.evaluateButton.click()
    evaluated()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert words in messages[0].text
    assert words in panel.ui.evaluationErrorLabel.text
    assert panel.ui.errorLabel.text == ""
    assert panel.ui.calibrationErrorLabel.text == ""
    assert panel.ui.evaluateButton.enabled


def test_an_evaluation_made_elsewhere_can_be_opened(panel, slicer_application, tmp_path):
    from CalibUncertaintyPanel import fakeEvaluation

    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.openEvaluationButton.click()
    assert "holds no evaluation" in panel.ui.evaluationErrorLabel.text
    (tmp_path / "evaluation.json").write_text(json.dumps({**fakeEvaluation.content(), "schema_version": 99}))
    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.openEvaluationButton.click()
    assert "version 99" in panel.ui.evaluationErrorLabel.text
    assert panel.ui.evaluationTable.isHidden()
    (tmp_path / "evaluation.json").write_text(json.dumps(fakeEvaluation.content(["<five> folds"])))
    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.openEvaluationButton.click()
    assert panel.ui.evaluationErrorLabel.text == ""
    assert rows_of(panel.ui.evaluationTable)[0][0] == "<five> folds"
    assert "&lt;five&gt; folds" in panel.ui.evaluationSummaryLabel.text


def test_the_choices_and_figures_come_back_with_a_saved_scene(
    panel, report, listed_cases, slicer_application, tmp_path
):
    import slicer

    panel.ui.evaluationKindComboBox.setCurrentIndex(1)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer_application.processEvents()
    assert panel.ui.evaluationTable.isHidden()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert panel.parameterNode.evaluationCases == listed_cases
    assert panel.parameterNode.evaluationKind.value == "chosen"
    assert panel.parameterNode.evaluationShown == report
    assert len(rows_of(panel.ui.evaluationTable)) == 2


def test_reloading_the_module_stops_an_evaluation(panel, model, listed_cases, behave, slicer_application):
    import slicer

    behave("hang")
    panel.ui.evaluateButton.click()
    process = panel.evaluate.job._process
    slicer.util.reloadScriptedModule("CalibUncertainty")
    slicer_application.processEvents()
    assert process.poll() is not None


def test_the_real_computation_evaluates_a_tiny_model_from_the_panel(panel, evaluated, tmp_path):
    """Untrained networks on noise: the figures mean nothing, but request, tables, curve and report are the real ones."""
    pytest.importorskip("torch")
    import slicer
    from CalibUncertaintyPanel import budgetDiagram, evaluationFigures, runs
    from evaluate_parts import labelled_cases, write_calibrated_model, write_list

    model = write_calibrated_model(tmp_path)
    cases = write_list(tmp_path / "cases.json", labelled_cases(model, tmp_path / "cases", seeds=(1,)))
    panel.logic.command = runs.libraryCommand()
    panel.ui.modelPathLineEdit.currentPath = str(model)
    panel.ui.testCasesPathLineEdit.currentPath = str(cases)
    panel.ui.mirroringCheckBox.click()
    panel.ui.evaluationFolderLineEdit.currentPath = str(tmp_path / "out")
    panel.ui.evaluateButton.click()
    evaluated(seconds=240)
    assert panel.ui.evaluationErrorLabel.text == "", panel.evaluate.job.details()
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    calibrated = content["configurations"]["calibrated"]
    rows = rows_of(panel.ui.evaluationTable)
    assert [row[:2] for row in rows] == [["uncalibrated", "1 / 1"], ["calibrated", "1 / 1"]]
    assert rows[1][2] == f"{calibrated['dice']['mean']['mean']:.3f}"
    assert rows[1][3] == f"{calibrated['calibration']['union']['figures']['nll']['mean']:.4f}"
    first = rows_of(panel.ui.evaluationMeasuresTable)[0]
    found = next(of for of in calibrated["measures"].values() if of["title"] == first[0])["domains"]["pred"]["figures"]
    assert first[1] == f"{found['at_thresholds.stored.error_dice']['mean']:.3f}"
    assert evaluationFigures.UNKNOWN not in first
    panel.ui.budgetButton.click()
    assert budgetDiagram.findChart(slicer.mrmlScene).GetXAxisRange() == pytest.approx((0, 5))
    assert panel.ui.evaluationReportButton.enabled
