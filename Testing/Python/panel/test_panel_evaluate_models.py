"""Evaluating several models against each other, or what a file lists, from the panel."""

import json
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def empty_lines(panel):
    """The lines keep their paths from one test to the next."""
    yield
    panel.ui.testCasesPathLineEdit.currentPath = ""
    panel.ui.evaluationConfigurationsLineEdit.currentPath = ""


def rows_of(table):
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def another_model(panel, folder, name="Dataset998_Other"):
    """A second trained model; its folder with plans.json."""
    import shutil

    from CalibUncertaintyPanel import testing

    made = Path(testing.makeFakeModel(folder))
    moved = made.parent.with_name(name) / made.name
    moved.parent.mkdir(parents=True)
    shutil.move(made, moved)
    return moved


def choose_kind(panel, text):
    panel.ui.evaluationKindComboBox.setCurrentIndex(panel.ui.evaluationKindComboBox.findText(text))


def test_only_the_rows_that_the_comparison_needs_are_shown(panel, model):
    ui = panel.ui
    rows = (ui.evaluationModelsWidget, ui.evaluationConfigurationsLineEdit)
    seen = {}
    for text in ("Calibrated against uncalibrated", "This model against others", "What a file lists"):
        choose_kind(panel, text)
        seen[text] = [not row.isHidden() for row in rows]
    assert list(seen.values()) == [[False, False], [True, False], [False, True]]


def test_a_model_is_compared_with_others(panel, model, listed_cases, evaluated, slicer_application, tmp_path):
    other = another_model(panel, tmp_path / "elsewhere")
    choose_kind(panel, "This model against others")
    assert "another model" in panel.ui.evaluateButton.toolTip
    slicer_application.dialogs.answer(str(other))
    panel.ui.addEvaluationModelButton.click()
    assert panel.ui.evaluationErrorLabel.text == ""
    assert [panel.ui.evaluationModelsListWidget.item(0).text()] == [str(other)]
    panel.inputs._foldBoxes[1].click()
    panel.ui.evaluateButton.click()
    arguments = panel.evaluate.job.request["arguments"]
    names = [item["name"] for item in arguments["configurations"]]
    assert len(set(names)) == 2
    assert any("Dataset998_Other" in name for name in names)
    assert arguments["folds"] == [0]
    assert arguments["configurations"][1] == {
        "name": names[1], "model": str(other), "folds": "all", "calibration": "auto"
    }  # fmt: skip
    evaluated()
    assert [row[0] for row in rows_of(panel.ui.evaluationTable)] == names


def test_what_is_no_other_model_is_not_added_and_one_can_be_taken_off(panel, model, slicer_application, tmp_path):
    other = another_model(panel, tmp_path / "elsewhere")
    choose_kind(panel, "This model against others")
    told = []
    for folder in (tmp_path / "elsewhere", model, other, other):
        slicer_application.dialogs.answer(str(folder))
        panel.ui.addEvaluationModelButton.click()
        told.append(panel.ui.evaluationErrorLabel.text)
    assert all("\n" not in text for text in told)
    assert told[0]
    assert "compared anyway" in told[1]
    assert told[2] == ""
    assert "already" in told[3]
    assert panel.ui.evaluationModelsListWidget.count == 1
    assert panel.ui.removeEvaluationModelButton.enabled
    panel.ui.removeEvaluationModelButton.click()
    assert list(panel.parameterNode.evaluationModels) == []
    assert not panel.ui.removeEvaluationModelButton.enabled


def test_a_file_says_what_is_compared(panel, model, listed_cases, evaluated, tmp_path):
    choose_kind(panel, "What a file lists")
    assert "JSON file" in panel.ui.evaluateButton.toolTip
    path = tmp_path / "Vergleich.json"
    panel.ui.evaluationConfigurationsLineEdit.currentPath = str(path)
    assert "is no file" in panel.ui.evaluateButton.toolTip
    path.write_text(json.dumps([{"name": "one fold", "folds": [0]}, {"name": "all folds"}]), encoding="utf-8")
    panel.update()
    assert panel.ui.evaluateButton.enabled, panel.ui.evaluateButton.toolTip
    panel.ui.evaluateButton.click()
    assert panel.evaluate.job.request["arguments"]["configurations"] == str(path)
    evaluated()
    assert [row[0] for row in rows_of(panel.ui.evaluationTable)] == ["one fold", "all folds"]


def test_names_of_models_tell_them_apart(panel):
    from CalibUncertaintyPanel.evaluationRuns import namesOf

    same = [Path("/a/Dataset1/t__p__3d"), Path("/a/Dataset2/t__p__3d")]
    assert namesOf(same) == ["Dataset1/t__p__3d", "Dataset2/t__p__3d"]
    assert namesOf([Path("/a/one"), Path("/b/two")]) == ["one", "two"]
    assert len(set(namesOf([Path("/a/b/c/d/e/f"), Path("/x/b/c/d/e/f")]))) == 2


def test_the_computation_understands_models_and_files(panel, model, listed_cases, tmp_path):
    from CalibUncertaintyPanel import evaluationRuns
    from CalibUncertaintyPanel.parameterNode import EvaluationKind

    from CalibUncertaintyLib.workflow.evaluate_options import EvaluateOptions, configurations_of

    other = another_model(panel, tmp_path / "elsewhere")
    path = tmp_path / "compared.json"
    path.write_text('[{"name": "one"}]', encoding="utf-8")
    panel.parameterNode.evaluationModels = [other]
    panel.parameterNode.evaluationConfigurations = path
    for kind, count in ((EvaluationKind.MODELS, 2), (EvaluationKind.FILE, 1)):
        panel.parameterNode.evaluationKind = kind
        arguments = evaluationRuns.makeRequest(panel.parameterNode, panel.inputs.summary, Path("run"))["arguments"]
        options = {k: v for k, v in arguments.items() if k not in ("cases", "model", "out")}
        assert len(configurations_of(arguments["model"], EvaluateOptions(**options))) == count
