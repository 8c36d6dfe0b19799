"""Looking: values under the mouse, the CT alone for a moment, linked views, and keys that exist only while the module is open."""

import numpy as np
import pytest


def composites():
    import slicer

    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def shortcuts():
    import qt
    import slicer

    found = slicer.util.mainWindow().findChildren(qt.QShortcut)
    return {each.key.toString(): each for each in found}


@pytest.fixture
def crosshair(panel, slicer_application):
    import slicer

    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    slicer_application.leaveModule()
    slicer_application.enterModule("CalibUncertainty")
    return node


def test_the_values_under_the_mouse_are_told_while_the_module_is_open(crosshair, finished, slicer_application):
    result = finished.overlays.result
    where = result.segmentation.ras_from_index(np.argwhere(result.segmentation.array == 1).mean(axis=0))
    crosshair.SetCursorPositionRAS(list(where))
    assert "inside Organ" in finished.ui.cursorLabel.text
    assert "HU" in finished.ui.cursorLabel.text
    crosshair.SetCursorPositionInvalid()
    assert "Move the mouse" in finished.ui.cursorLabel.text
    slicer_application.leaveModule()
    crosshair.SetCursorPositionRAS(list(where))
    assert "Move the mouse" in finished.ui.cursorLabel.text


def test_a_result_folder_that_goes_while_it_is_open_leaves_the_values_that_are_shown(crosshair, finished):
    import shutil

    result = finished.overlays.result
    where = result.segmentation.ras_from_index(np.argwhere(result.segmentation.array == 1).mean(axis=0))
    finished.overlays.maps.clear()  # as in a scene that was just loaded
    vars(result).pop("distance", None)
    shutil.rmtree(result.folder)
    crosshair.SetCursorPositionRAS(list(where))
    assert "% Organ" in finished.ui.cursorLabel.text or "% Node" in finished.ui.cursorLabel.text
    assert "entropy" in finished.ui.cursorLabel.text


def test_while_the_button_is_held_the_ct_is_alone_and_then_all_is_as_before(finished):
    from Harness.views import render_slice

    finished.ui.labelsOpacitySlider.value = 60
    finished.ui.uncertaintyEyeButton.click()  # hidden by the user: stays so
    before, parameters = render_slice("Red", (300, 300)), finished.parameterNode.parameterNode.GetMTime()
    finished.ui.hideOverlaysButton.pressed.emit()
    alone = render_slice("Red", (300, 300))
    assert [c.GetForegroundVolumeID() for c in composites()] == [None] * len(composites())
    assert [c.GetNthLayerVolumeID(3) for c in composites()] == [None] * len(composites())
    assert all(c.GetBackgroundVolumeID() for c in composites())
    assert (alone.max(axis=-1) == alone.min(axis=-1)).all()  # grey everywhere: no outline, no legend bar
    assert not (before.max(axis=-1) == before.min(axis=-1)).all()
    finished.ui.hideOverlaysButton.released.emit()
    assert np.array_equal(render_slice("Red", (300, 300)), before)
    assert finished.parameterNode.parameterNode.GetMTime() == parameters


def test_a_held_key_hides_the_overlays_until_it_repeats_no_more(finished, slicer_application):
    from CalibUncertaintyPanel import compareSection

    key = shortcuts()[compareSection.HIDE_KEYS]
    assert key.autoRepeat
    key.activated.emit()
    assert finished.compare.hidden
    finished.ui.thresholdSlider.value = 0.5  # whatever happens meanwhile does not bring them back
    assert composites()[0].GetForegroundVolumeID() is None
    slicer_application.waitUntil(lambda: not finished.compare.hidden, seconds=10)
    assert composites()[0].GetForegroundVolumeID() == finished.overlays.probabilityNode.GetID()


def test_a_key_swaps_raw_and_calibrated_where_both_can_be_had(finished, slicer_application):
    from CalibUncertaintyPanel import compareSection

    key = shortcuts()[compareSection.RAW_KEYS]
    key.activated.emit()
    slicer_application.waitUntil(lambda: finished.overlays.shownRaw, seconds=10)
    key.activated.emit()
    assert not finished.overlays.shownRaw


def test_keys_have_modifiers_and_go_with_the_module(finished, slicer_application):
    assert shortcuts()
    assert all("+" in keys for keys in shortcuts())
    slicer_application.leaveModule()
    slicer_application.processEvents()
    assert not shortcuts()
    slicer_application.enterModule("CalibUncertainty")
    count = len(shortcuts())
    assert count > 0
    slicer_application.enterModule("CalibUncertainty")
    assert len(shortcuts()) == count


def test_leaving_the_module_brings_hidden_overlays_back(finished, slicer_application):
    finished.compare.hide()
    slicer_application.leaveModule()
    assert composites()[0].GetForegroundVolumeID() == finished.overlays.probabilityNode.GetID()


def test_keys_without_a_modifier_are_refused(panel):
    from CalibUncertaintyPanel.shortcuts import Shortcuts

    for keys in ("H", "Left", ""):
        with pytest.raises(ValueError, match="cannot be a shortcut"):
            Shortcuts().add(keys, print)


def test_views_are_linked_and_the_box_follows_what_slicer_has_changed(finished):
    finished.ui.linkSlicesCheckBox.click()
    assert all(composite.GetLinkedControl() for composite in composites())
    composites()[1].SetLinkedControl(False)
    finished.update()
    assert not finished.ui.linkSlicesCheckBox.checked
    finished.ui.linkSlicesCheckBox.click()
    finished.ui.linkSlicesCheckBox.click()
    assert not any(composite.GetLinkedControl() for composite in composites())


def test_no_key_of_the_panel_is_one_of_slicers_own(panel):
    from Harness.slicer_keys import slicersKeys

    ours = set(panel.shortcuts._functions)
    assert len(ours) >= 9
    assert not ours & slicersKeys()
    assert "Alt+Left" in slicersKeys()
