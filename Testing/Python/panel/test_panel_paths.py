"""Path lines of CTK: they come with the path that was used last, and that is no choice of this scene."""

import pytest

KEYS = ("ModelFolder", "OutputFolder", "CalibrationCases", "TestCases", "EvaluationFolder")


@pytest.fixture
def used_before(panel):
    """Paths that were used in an earlier session."""
    import qt

    for key in KEYS:
        qt.QSettings().setValue(f"ctkPathLineEdit/CalibUncertainty/{key}", [f"/used before/{key}"])
    yield
    qt.QSettings().remove("ctkPathLineEdit")


def test_a_path_of_an_earlier_session_is_offered_and_not_chosen(panel, used_before):
    import slicer
    from CalibUncertaintyPanel.panel import Panel

    uiWidget = slicer.util.loadUI(slicer.modules.CalibUncertaintyWidget.resourcePath("UI/CalibUncertainty.ui"))
    fresh = slicer.util.childWidgetVariables(uiWidget)
    lines = (
        fresh.modelPathLineEdit,
        fresh.outputPathLineEdit,
        fresh.casesPathLineEdit,
        fresh.testCasesPathLineEdit,
        fresh.evaluationFolderLineEdit,
    )
    assert [line.currentPath for line in lines] == [f"/used before/{key}" for key in KEYS]
    another = Panel(uiWidget, panel.logic, slicer.modules.CalibUncertaintyWidget.resourcePath)
    another.setParameterNode(panel.parameterNode)
    try:
        assert [line.currentPath for line in lines] == [""] * len(lines)
        assert not another.ui.runButton.enabled
        assert another.inputs.summary is None
        assert [line.comboBox().itemText(0) for line in lines] == [f"/used before/{key}" for key in KEYS]
    finally:
        another.release()
