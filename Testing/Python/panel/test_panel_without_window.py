"""A Slicer without main window, as ctest starts one for the generic tests of every module: the panel is made and goes again."""

import pytest


@pytest.fixture
def without_window(panel, monkeypatch):
    import slicer

    monkeypatch.setattr(slicer.util, "mainWindow", lambda *ignored: None)
    monkeypatch.setattr(type(slicer.app), "layoutManager", lambda self: None)


def test_the_panel_opens_shows_a_result_and_goes(opened, without_window, slicer_application):
    import slicer
    from CalibUncertaintyPanel import layouts
    from CalibUncertaintyPanel.panel import Panel

    layouts.register()
    uiWidget = slicer.util.loadUI(slicer.modules.CalibUncertaintyWidget.resourcePath("UI/CalibUncertainty.ui"))
    another = Panel(uiWidget, opened.logic, slicer.modules.CalibUncertaintyWidget.resourcePath)
    another.setParameterNode(opened.parameterNode)
    another.enter()
    slicer_application.processEvents()
    assert another.overlays is not None
    assert not another.shortcuts.connected
    another.ui.sideBySideButton.click()
    another.ui.nextRegionButton.click()
    slicer_application.processEvents()
    assert not another.ui.sideBySideButton.checked
    another.leave()
    another.release()
