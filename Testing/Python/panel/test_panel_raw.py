"""The layer of probability, raw and calibrated: what is shown is said everywhere, and the voxels are those of the library."""

import json
import time

import numpy as np
import pytest


def layer(panel):
    from CalibUncertaintyPanel import testing

    return testing.arrayOf(panel.overlays.probabilityNode)


def legend_title(panel):
    node = panel.overlays.probabilityNode
    nodes = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    (legend,) = [one for one in nodes if one.IsA("vtkMRMLColorLegendDisplayNode")]
    return legend.GetTitleText()


@pytest.fixture
def show_raw(finished, slicer_application):
    """Function that shows the raw probability and waits until it is there."""

    def show():
        finished.ui.rawCheckBox.click()
        slicer_application.waitUntil(lambda: finished.overlays.shownRaw, seconds=20, what="the raw probability")

    return show


def test_the_box_swaps_the_voxels_and_says_which_are_shown(finished, show_raw):
    overlays, result = finished.overlays, finished.overlays.result
    node, before = overlays.probabilityNode, layer(finished)
    scale = node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()
    count = node.GetScene().GetNumberOfNodes()
    show_raw()
    assert np.array_equal(layer(finished), result.raw_probability("Organ").array)
    assert np.abs(layer(finished) - before).max() > 0.05
    assert (overlays.probabilityNode, node.GetScene().GetNumberOfNodes()) == (node, count)
    assert (node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()) == scale
    assert legend_title(finished) == "Probability\nOrgan\nRAW"
    assert "RAW, NOT CALIBRATED" in node.GetName()
    assert finished.ui.probabilityLayerLabel.text == "Raw probability"
    assert "RAW PROBABILITY SHOWN" in finished.ui.statusLabel.text
    finished.ui.rawCheckBox.click()
    assert np.array_equal(layer(finished), before)
    assert legend_title(finished) == "Probability\nOrgan\ncalibrated"
    assert finished.ui.probabilityLayerLabel.text == "Calibrated probability"
    assert "RAW" not in finished.ui.statusLabel.text


def test_another_structure_is_raw_too_and_the_uncertainty_stays(finished, show_raw):
    from CalibUncertaintyPanel import testing

    uncertainty = testing.arrayOf(finished.overlays.uncertaintyNode)
    show_raw()
    finished.ui.structureComboBox.setCurrentIndex(1)
    assert finished.overlays.shownStructure == "Node"
    assert np.array_equal(layer(finished), finished.overlays.result.raw_probability("Node").array)
    assert np.array_equal(testing.arrayOf(finished.overlays.uncertaintyNode), uncertainty)


def test_the_panel_stays_usable_while_the_raw_probability_is_computed(finished, slicer_application, monkeypatch):
    result, seconds = finished.overlays.result, 0.6
    read = type(result).raw_probability
    monkeypatch.setattr(
        type(result), "raw_probability", lambda self, label: (time.sleep(seconds), read(self, label))[1]
    )
    calibrated, began = layer(finished), time.monotonic()
    finished.ui.rawCheckBox.click()
    finished.ui.thresholdSlider.value = 0.5
    assert time.monotonic() - began < seconds
    assert np.array_equal(layer(finished), calibrated)
    assert not finished.overlays.shownRaw
    finished.ui.rawCheckBox.click()  # given up
    until = time.monotonic() + 2 * seconds
    slicer_application.waitUntil(lambda: time.monotonic() > until, seconds=10)
    assert not finished.overlays.shownRaw


def test_a_result_that_is_not_calibrated_cannot_be_shown_raw_and_says_so(panel, ct, model, behave, finish):
    behave("uncalibrated")
    panel.ui.runButton.click()
    finish()
    assert not panel.ui.rawCheckBox.enabled
    assert "raw already" in panel.ui.rawCheckBox.toolTip
    panel.parameterNode.rawShown = True
    assert not panel.overlays.shownRaw


def test_a_calibration_that_cannot_be_taken_back_disables_the_box_with_its_reason(finished):
    folder = finished.resultFolder
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["calibration"].update(mode="member", temperature=None)
    (folder / "result.json").write_text(json.dumps(content))
    finished.showResult(folder, finished.parameterNode.ctVolume)
    assert not finished.ui.rawCheckBox.enabled
    assert "before they were averaged (mode member)" in finished.ui.rawCheckBox.toolTip


def test_another_result_begins_calibrated(finished, show_raw):
    show_raw()
    finished.showResult(finished.resultFolder, finished.parameterNode.ctVolume)
    assert not finished.parameterNode.rawShown
    assert not finished.ui.rawCheckBox.checked
    assert not finished.overlays.shownRaw
    assert "RAW" not in finished.ui.statusLabel.text


def test_a_map_that_is_missing_ends_in_one_message_and_the_calibrated_layer(finished, slicer_application):
    before = layer(finished)
    (finished.resultFolder / "maps" / "probability_2.nrrd").unlink()
    finished.ui.rawCheckBox.click()
    slicer_application.waitUntil(lambda: slicer_application.dialogs.messages, seconds=10)
    (message,) = slicer_application.dialogs.takeMessages("error")
    assert "probability_2.nrrd is missing" in message.text
    assert not finished.ui.rawCheckBox.checked
    assert np.array_equal(layer(finished), before)


@pytest.mark.parametrize("keep_folder", [True, False])
def test_a_saved_scene_comes_back_raw_and_says_so(finished, show_raw, slicer_application, tmp_path, keep_folder):
    import shutil

    import slicer

    show_raw()
    voxels, folder = layer(finished), finished.resultFolder
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if not keep_folder:
        shutil.rmtree(folder)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert finished.overlays.shownRaw
    assert finished.parameterNode.rawShown
    assert np.array_equal(layer(finished), voxels)
    assert legend_title(finished) == "Probability\nOrgan\nRAW"
    assert "RAW PROBABILITY SHOWN" in finished.ui.statusLabel.text
    assert finished.ui.rawCheckBox.enabled == keep_folder
    if keep_folder:
        finished.ui.rawCheckBox.click()
        assert not finished.overlays.shownRaw
        assert np.array_equal(layer(finished), finished.overlays.result.probability("Organ").array)
    else:
        assert "not there any more" in finished.ui.rawCheckBox.toolTip


def test_a_scene_of_an_earlier_version_begins_as_it_is(finished, slicer_application, tmp_path):
    import slicer

    finished.overlays.probabilityNode.RemoveAttribute("CalibUncertainty.Raw")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert not finished.overlays.shownRaw
    assert not finished.ui.rawCheckBox.checked
