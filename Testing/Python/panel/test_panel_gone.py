"""What goes away while it is in use: a Result folder, a map of it, the CT; and a CT that is not the Result's."""

import shutil

import pytest


def messages(application):
    return [message.text for message in application.dialogs.takeMessages("error")]


def test_a_result_folder_deleted_while_it_is_open_is_told_once_and_what_is_shown_stays(finished, slicer_application):
    shown = finished.overlays.shownStructure
    other = next(name for name in finished.overlays.structures if name != shown)
    finished.overlays.maps.clear()
    shutil.rmtree(finished.resultFolder)
    finished.ui.structureComboBox.setCurrentIndex(finished.layers._structures.index(other))
    told = messages(slicer_application)
    assert len(told) == 1
    assert "missing from the Result folder" in told[0]
    finished.ui.thresholdSlider.value = 0.5  # nothing is told again with every move of a slider
    finished.ui.uncertaintyOpacitySlider.value = 30
    assert messages(slicer_application) == []
    assert finished.overlays.shownStructure == shown
    assert finished.parameterNode.structure == shown
    assert finished.ui.structureComboBox.currentText == shown
    assert finished.overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.5)


def test_a_measure_whose_map_is_missing_leaves_the_one_that_is_shown(finished, slicer_application):
    names = [info.id for info in finished.layers._measures]
    (finished.resultFolder / "maps" / "mi.nrrd").unlink()
    finished.ui.measureComboBox.setCurrentIndex(names.index("mi"))
    told = messages(slicer_application)
    assert len(told) == 1
    assert "mi.nrrd" in told[0]
    assert finished.overlays.shownMeasure == finished.parameterNode.measure == "entropy"
    info = finished.overlays.measure("entropy")
    assert finished.parameterNode.threshold == pytest.approx(info.threshold)
    assert finished.overlays.uncertaintyNode.GetName().startswith("Entropy")
    finished.ui.roiShownSlider.value = 5.0
    assert messages(slicer_application) == []


def test_a_chosen_ct_of_another_grid_is_named_with_both_sizes_and_what_to_do(finished, slicer_application):
    import slicer
    from CalibUncertaintyPanel import testing

    folder = finished.resultFolder
    slicer.mrmlScene.Clear(0)
    other = testing.addPhantom(slicer.mrmlScene, "Schädel", shape=(12, 30, 40))
    finished.ui.ctSelector.setCurrentNode(other)
    finished.showResult(folder)
    text = finished.ui.errorLabel.text
    assert "Schädel" in text
    assert "40 x 30 x 12" in text
    assert "48 x 48 x 24" in text
    assert "\n" not in text
    assert finished.shownCt() is None


def test_a_map_that_goes_before_another_distance_is_shown_is_told_once_and_the_slider_goes_back(
    finished, slicer_application
):
    finished.overlays.maps.clear()
    shutil.rmtree(finished.resultFolder)
    finished.ui.roiShownSlider.value = 4.0
    slicer_application.waitUntil(lambda: finished.parameterNode.roiShownMm == 15.0, seconds=5)
    assert len(messages(slicer_application)) == 1
    assert finished.ui.roiShownSlider.value == 15.0
    finished.ui.thresholdSlider.value = 0.4
    slicer_application.processEvents()
    assert messages(slicer_application) == []
