"""Threshold by value, volume or share, with the flagged volume; region of interest by distance, structure and side."""

import shutil

import numpy as np
import pytest
from panel_parts import choose


def shown_values(panel):
    """What is drawn: the voxels of the layer that are above the threshold of its display."""
    from CalibUncertaintyPanel import testing

    values = testing.arrayOf(panel.overlays.uncertaintyNode)
    return values[values >= panel.overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold()]


def ml_of(panel, voxels):
    return voxels * panel.overlays.result.uncertainty("entropy").voxel_volume_ml


def roi_voxels(panel, limit=15.0):
    return int((panel.overlays.result.distance.array <= limit).sum())


def test_the_line_gives_the_volume_that_is_drawn_and_follows_the_slider_at_once(counted):
    from CalibUncertaintyPanel import flaggedText

    for threshold in (0.125, 0.25, 0.5):
        counted.ui.thresholdSlider.value = threshold
        drawn = shown_values(counted).size
        text = counted.ui.flaggedLabel.text
        assert f"Above the threshold: {flaggedText.volume(ml_of(counted, drawn))}" in text
        assert flaggedText.share(drawn / roi_voxels(counted)) in text
        assert flaggedText.volume(ml_of(counted, roi_voxels(counted))) in text


@pytest.mark.parametrize("ml", [0.5, 2.0, 5.0])
def test_a_volume_is_never_exceeded_and_nearly_used(counted, ml):
    choose(counted.ui.thresholdByComboBox, "Volume to look at")
    counted.ui.budgetMlSpinBox.value = ml
    drawn = ml_of(counted, shown_values(counted).size)
    assert 0.95 * ml <= drawn <= ml
    assert counted.ui.thresholdSlider.value == pytest.approx(counted.parameterNode.threshold, abs=1e-5)
    assert counted.ui.budgetMlSpinBox.isVisibleTo(counted.widget)
    assert not counted.ui.budgetPercentSpinBox.isVisibleTo(counted.widget)


def test_a_share_follows_measure_and_region_until_the_slider_is_moved(counted):
    from CalibUncertaintyPanel.parameterNode import ThresholdBy

    choose(counted.ui.thresholdByComboBox, "Share to look at")
    counted.ui.budgetPercentSpinBox.value = 4.0
    names = [info.id for info in counted.layers._measures]
    for measure, limit in (("entropy", 15.0), ("conf", 15.0), ("conf", 6.0)):
        counted.ui.measureComboBox.setCurrentIndex(names.index(measure))
        counted.ui.roiShownSlider.value = limit
        counted.wait()
        assert counted.overlays.shownChoice[0] == (measure, None)
        share = shown_values(counted).size / roi_voxels(counted, limit)
        assert 0.035 <= share <= 0.04, (measure, limit)
    counted.ui.thresholdSlider.value = 0.1
    assert counted.parameterNode.thresholdBy is ThresholdBy.VALUE
    assert counted.parameterNode.threshold == pytest.approx(0.1)


def test_the_stored_value_ends_a_budget(counted):
    from CalibUncertaintyPanel.parameterNode import ThresholdBy

    choose(counted.ui.thresholdByComboBox, "Volume to look at")
    counted.ui.budgetMlSpinBox.value = 1.0
    counted.ui.storedThresholdButton.click()
    assert counted.parameterNode.thresholdBy is ThresholdBy.VALUE
    assert counted.parameterNode.threshold == pytest.approx(counted.overlays.measure("entropy").threshold)


def test_budgets_at_their_ends(counted):
    choose(counted.ui.thresholdByComboBox, "Volume to look at")
    counted.ui.budgetMlSpinBox.value = 0.0
    assert shown_values(counted).size == 0
    assert "Above the threshold: 0.0 mL" in counted.ui.flaggedLabel.text
    counted.ui.budgetMlSpinBox.value = 10000.0  # more than the whole region
    assert "all that is uncertain" in counted.ui.flaggedLabel.text
    choose(counted.ui.thresholdByComboBox, "Share to look at")
    counted.ui.budgetPercentSpinBox.value = 100.0
    from CalibUncertaintyPanel import testing

    values = testing.arrayOf(counted.overlays.uncertaintyNode)
    assert shown_values(counted).size >= (values >= 2e-5).sum() > 0
    counted.ui.budgetPercentSpinBox.value = 0.0
    assert shown_values(counted).size == 0


def test_voxels_that_all_share_the_highest_value_are_not_shown_in_part(counted, slicer_application):
    volume = counted.overlays.maps.get(("margin", None))
    volume.array[...] = np.where(volume.array > 0.2, 1.0, 0.0)
    counted.ui.measureComboBox.setCurrentIndex([info.id for info in counted.layers._measures].index("margin"))
    choose(counted.ui.thresholdByComboBox, "Volume to look at")
    counted.ui.budgetMlSpinBox.value = 0.5
    assert "More voxels share the highest value" in counted.wait()
    assert shown_values(counted).size == 0
    counted.ui.budgetMlSpinBox.value = 10000.0
    assert shown_values(counted).size == (volume.array[counted.overlays.result.distance.array <= 15] == 1).sum()


@pytest.mark.parametrize(("side", "rule"), [("Only inside", "inside"), ("Only around", "outside")])
def test_one_structure_and_one_side(counted, side, rule):
    from CalibUncertaintyPanel import testing

    from CalibUncertaintyLib.uncertainty.roi import roi_of

    counted.ui.structureComboBox.setCurrentIndex(1)
    choose(counted.ui.roiOfComboBox, "The chosen structure")
    choose(counted.ui.roiSideComboBox, side)
    counted.ui.roiShownSlider.value = 5.0
    counted.wait()
    result = counted.overlays.result
    entropy = result.uncertainty("entropy")
    (x, y, z), (nx, ny, nz) = (result.provenance["box"][key] for key in ("start_xyz", "size_xyz"))
    label = result.segmentation.array[z : z + nz, y : y + ny, x : x + nx]
    mask = roi_of(label, entropy.spacing_zyx, 5.0, [2], rule).mask
    assert np.array_equal(testing.arrayOf(counted.overlays.uncertaintyNode), np.where(mask, entropy.array, 0))
    assert counted.ui.roiShownSlider.enabled == (rule == "outside")


def test_a_structure_that_was_not_predicted_says_so(counted):
    labels = counted.overlays.result.segmentation.array
    labels[labels == 2] = 0
    counted.ui.structureComboBox.setCurrentIndex(1)
    choose(counted.ui.roiOfComboBox, "The chosen structure")
    choose(counted.ui.thresholdByComboBox, "Share to look at")
    text = counted.wait()
    assert "The region of interest is empty: Node was not predicted" in text
    assert shown_values(counted).size == 0


def test_without_any_structure_the_whole_map_is_counted(counted):
    result, folder = counted.overlays.result, counted.resultFolder
    import json

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["maps"]["distance"]["file"] = None
    (folder / "result.json").write_text(json.dumps(content))
    counted.showResult(folder, counted.parameterNode.ctVolume)
    text = counted.wait()
    assert "no structure was found" in text
    assert not counted.ui.roiShownSlider.enabled
    assert not counted.ui.roiSideComboBox.enabled
    assert counted.ui.roiOfComboBox.enabled  # the body needs no structure
    assert "found no structure" in counted.ui.roiShownSlider.toolTip
    assert shown_values(counted).size == (result.uncertainty("entropy").array >= counted.parameterNode.threshold).sum()


@pytest.mark.parametrize("keep_folder", [True, False])
def test_the_choices_come_back_with_a_scene(counted, slicer_application, tmp_path, keep_folder):
    import slicer
    from CalibUncertaintyPanel.parameterNode import RoiOf, RoiSide, ThresholdBy

    counted.ui.structureComboBox.setCurrentIndex(1)
    choose(counted.ui.roiOfComboBox, "The chosen structure")
    choose(counted.ui.roiSideComboBox, "Only around")
    choose(counted.ui.thresholdByComboBox, "Volume to look at")
    counted.ui.budgetMlSpinBox.value = 1.5
    counted.wait()
    drawn, threshold = shown_values(counted).size, counted.parameterNode.threshold
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if not keep_folder:
        shutil.rmtree(counted.resultFolder)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    if keep_folder:
        counted.wait()
    slicer_application.processEvents()
    parameterNode = counted.parameterNode
    assert (parameterNode.roiOf, parameterNode.roiSide) == (RoiOf.CHOSEN, RoiSide.OUTSIDE)
    assert parameterNode.thresholdBy is ThresholdBy.VOLUME
    assert parameterNode.budgetMl == 1.5
    assert parameterNode.threshold == pytest.approx(threshold, abs=1e-5)
    assert shown_values(counted).size == drawn
    assert counted.ui.thresholdByComboBox.enabled == keep_folder
    assert counted.ui.roiOfComboBox.enabled == keep_folder
    assert bool(counted.ui.flaggedLabel.text) == keep_folder


def test_values_that_cannot_be_counted_are_said_once(counted, slicer_application):
    volume = counted.overlays.maps.get(("mi", None))
    volume.array[:] = np.nan
    counted.ui.measureComboBox.setCurrentIndex([info.id for info in counted.layers._measures].index("mi"))
    assert "NaN" in counted.wait()
    counted.ui.thresholdSlider.value = 0.2
    assert "NaN" in counted.wait()
    counted.ui.measureComboBox.setCurrentIndex([info.id for info in counted.layers._measures].index("conf"))
    assert "Above the threshold" in counted.wait()


def test_a_map_that_goes_before_it_is_counted_is_said_in_its_place(counted):
    counted.overlays.maps.clear()
    shutil.rmtree(counted.resultFolder)
    counted.threshold.onNewOverlays()
    counted.threshold.update()
    assert "missing from the Result folder" in counted.wait()
