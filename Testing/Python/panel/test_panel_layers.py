"""The panel used as a person uses it: layers, review, and what a saved scene brings back; the computation is the fake process."""

import numpy as np
import pytest
from review_parts import least_width


def composites():
    import slicer

    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def test_a_result_is_shown_as_layers_with_a_status_that_says_calibrated(finished, ct):
    overlays = finished.overlays
    for composite in composites():
        assert composite.GetBackgroundVolumeID() == ct.GetID()
        assert composite.GetForegroundVolumeID() == overlays.probabilityNode.GetID()
        assert composite.GetNthLayerVolumeID(3) == overlays.uncertaintyNode.GetID()
    status = finished.ui.statusLabel.text
    assert "Calibrated (temperature 2.03" in status
    assert "0 voxels by pooling, 0 by calibration" in status
    assert "fake model" in status
    assert ct.GetDisplayNode().GetWindow() == 400
    assert ct.GetDisplayNode().GetLevel() == 40


def test_an_uncalibrated_result_says_so_in_status_layers_and_names(panel, ct, model, behave, finish):
    behave("uncalibrated")
    panel.ui.runButton.click()
    finish()
    assert "NOT CALIBRATED: calibration was switched off" in panel.ui.statusLabel.text
    assert "f5b700" in panel.ui.statusLabel.styleSheet
    assert panel.ui.probabilityLayerLabel.text == "Probability (NOT CALIBRATED)"
    assert panel.overlays.probabilityNode.GetName().endswith("(NOT CALIBRATED)")


def test_the_sliders_and_eyes_move_display_properties_only(finished):
    overlays, ui = finished.overlays, finished.ui
    voxels = [node.GetImageData().GetMTime() for node in overlays.nodes[:2]]
    ui.thresholdSlider.value = 0.6
    ui.probabilityFloorSlider.value = 30
    ui.uncertaintyOpacitySlider.value = 25
    ui.labelsOpacitySlider.value = 50
    ui.probabilityEyeButton.click()
    assert overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.6)
    assert overlays.probabilityNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.3)
    assert overlays.segmentationNode.GetDisplayNode().GetOpacity() == pytest.approx(0.5)
    for composite in composites():
        assert composite.GetForegroundVolumeID() is None
        assert composite.GetNthLayerOpacity(3) == pytest.approx(0.25)
    assert [node.GetImageData().GetMTime() for node in overlays.nodes[:2]] == voxels
    ui.probabilityEyeButton.click()
    assert composites()[0].GetForegroundVolumeID() == overlays.probabilityNode.GetID()


def test_choosing_a_measure_brings_its_sentence_unit_range_and_stored_threshold(finished):
    ui, names = finished.ui, [info.id for info in finished.layers._measures]
    ui.thresholdSlider.value = 1.0  # beyond the range of the next measure
    ui.measureComboBox.setCurrentIndex(names.index("mi"))
    info = finished.overlays.measure("mi")
    assert finished.overlays.shownMeasure == "mi"
    assert info.sentence in ui.measureSentenceLabel.text
    assert ui.thresholdSlider.suffix == " nats"
    assert ui.thresholdSlider.maximum == pytest.approx(info.scaleEnd, abs=0.001)
    assert ui.thresholdSlider.value == pytest.approx(0.05)
    assert not ui.storedThresholdButton.enabled
    ui.thresholdSlider.value = 0.2
    assert ui.storedThresholdButton.enabled
    ui.storedThresholdButton.click()
    assert finished.parameterNode.threshold == pytest.approx(0.05)


def test_the_entropy_of_one_structure_follows_the_structure(finished):
    from CalibUncertaintyPanel import testing

    ui, names = finished.ui, [info.id for info in finished.layers._measures]
    ui.measureComboBox.setCurrentIndex(names.index("entropy_k"))
    ui.structureComboBox.setCurrentIndex(1)
    result = finished.overlays.result
    expected = np.where(result.distance.array <= 15, result.uncertainty("entropy_k", "Node").array, 0)
    assert np.array_equal(testing.arrayOf(finished.overlays.uncertaintyNode), expected)
    assert finished.overlays.shownStructure == "Node"


def test_the_roi_slider_masks_the_uncertainty(finished, slicer_application):
    from CalibUncertaintyPanel import testing

    finished.ui.roiShownSlider.value = 3.0
    result = finished.overlays.result
    expected = np.where(result.distance.array <= 3.0, result.uncertainty("entropy").array, 0)
    slicer_application.waitUntil(
        lambda: np.array_equal(testing.arrayOf(finished.overlays.uncertaintyNode), expected), seconds=5
    )
    assert finished.ui.roiShownSlider.maximum == 15.0


def test_the_review_jumps_every_view_to_the_peak_and_chooses_the_structure(finished):
    import slicer

    ui, regions = finished.ui, finished.overlays.result.regions
    assert ui.regionsTable.rowCount == len(regions) > 1
    assert not ui.previousRegionButton.enabled
    for row, region in enumerate(regions[:3]):
        ui.nextRegionButton.click()
        assert ui.regionsTable.currentRow() == row
        assert region.reason in ui.reasonLabel.text
        assert finished.overlays.shownStructure == region.structure
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            assert (np.linalg.inv(matrix) @ [*region.peak_ras_mm, 1])[2] == pytest.approx(0, abs=1e-6)
    ui.previousRegionButton.click()
    assert ui.regionsTable.currentRow() == 1


def test_the_table_gives_the_share_of_the_structure_in_per_cent(finished):
    from dataclasses import replace
    from types import SimpleNamespace

    table, result = finished.ui.regionsTable, finished.overlays.result
    titles = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    assert all(table.horizontalHeaderItem(column).toolTip() for column in range(table.columnCount))
    column, shares = titles.index("Share"), [region.share for region in result.regions]
    assert shares == sorted(shares, reverse=True)
    assert table.item(0, column).text() == f"{100 * shares[0]:.0f} %"
    regions = [replace(result.regions[0], share=share) for share in (0.004, None)]
    finished.review.fill(SimpleNamespace(regions=regions, provenance=result.provenance))
    assert [table.item(row, column).text() for row in (0, 1)] == ["< 1 %", "–"]


def test_the_table_is_readable_in_a_narrow_panel(finished, slicer_application):
    table = finished.ui.regionsTable
    table.resize(410, 200)
    slicer_application.processEvents()
    header = table.horizontalHeader()
    widths = [header.sectionSize(column) for column in range(table.columnCount)]
    assert sum(widths) <= 410
    assert widths[2] >= table.fontMetrics().horizontalAdvance("Lymph nodes")


def test_a_result_made_elsewhere_finds_its_ct_in_the_scene(panel, finished, slicer_application):
    import slicer

    folder = str(panel.resultFolder)
    ct = panel.parameterNode.ctVolume
    panel.ui.ctSelector.setCurrentNode(None)
    slicer_application.dialogs.answer(folder)
    panel.ui.openResultButton.click()
    assert panel.parameterNode.ctVolume is ct
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2


def test_a_folder_without_a_result_is_refused_in_one_line(panel, slicer_application, tmp_path):
    slicer_application.dialogs.answer(str(tmp_path))
    panel.ui.openResultButton.click()
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert "not a Result folder" in messages[0].text


def test_leaving_and_entering_the_module_keeps_the_choices_and_reacts_again(finished, slicer_application):
    finished.ui.thresholdSlider.value = 0.55
    slicer_application.leaveModule()
    finished.parameterNode.threshold = 0.45
    slicer_application.enterModule("CalibUncertainty")
    assert finished.ui.thresholdSlider.value == pytest.approx(0.45)
    assert finished.ui.thresholdSlider.maximum == pytest.approx(np.log(3), abs=0.001)
    finished.ui.thresholdSlider.value = 0.3
    assert finished.overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.3)


def test_a_deleted_layer_ends_the_display_without_an_exception(finished):
    import slicer

    slicer.mrmlScene.RemoveNode(finished.overlays.uncertaintyNode)
    assert finished.overlays is None
    assert "deleted" in finished.ui.errorLabel.text
    finished.ui.probabilityFloorSlider.value = 12


@pytest.mark.parametrize("keep_folder", [True, False])
def test_a_saved_scene_brings_the_layers_and_choices_back(finished, slicer_application, tmp_path, keep_folder):
    import shutil

    import slicer

    finished.ui.thresholdSlider.value = 0.42
    finished.ui.uncertaintyOpacitySlider.value = 35
    finished.ui.structureComboBox.setCurrentIndex(1)
    folder = finished.resultFolder
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if not keep_folder:
        shutil.rmtree(folder)
    slicer.mrmlScene.Clear(0)
    assert finished.overlays is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    overlays, parameterNode = finished.overlays, finished.parameterNode
    assert overlays is not None
    assert parameterNode.threshold == pytest.approx(0.42)
    assert overlays.uncertaintyNode.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.42)
    assert overlays.shownStructure == "Node"
    for composite in composites():
        assert composite.GetNthLayerVolumeID(3) == overlays.uncertaintyNode.GetID()
        assert composite.GetNthLayerOpacity(3) == pytest.approx(0.35)
    assert "Calibrated" in finished.ui.statusLabel.text
    assert finished.ui.measureComboBox.enabled == keep_folder
    assert finished.ui.regionsTable.rowCount > 0  # the scene keeps the list, so that a review can go on
    if not keep_folder:
        assert "not there any more" in finished.ui.measureComboBox.toolTip


def test_both_legends_are_drawn_beside_the_patient_and_go_with_their_layer(finished):
    from Harness.views import render_slice

    def bright_pixels():
        picture = render_slice("Red", (600, 420)).max(axis=-1) > 200
        return picture[90:230, :70].sum(), picture[90:230, -70:].sum()

    left, right = bright_pixels()
    assert left > 100
    assert right > 100
    finished.ui.uncertaintyEyeButton.click()
    assert bright_pixels()[0] == left
    assert bright_pixels()[1] < right / 4
    finished.ui.uncertaintyEyeButton.click()
    finished.ui.legendsCheckBox.click()
    assert max(bright_pixels()) < right / 4


def test_zoom_and_position_stay_when_the_ct_was_shown_already(finished):
    import slicer

    node = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    node.SetFieldOfView(30, 30, 1)
    finished.showResult(str(finished.resultFolder), finished.parameterNode.ctVolume)
    assert node.GetFieldOfView()[:2] == (30, 30)


def test_a_slice_view_that_appears_later_gets_the_layers(finished, slicer_application):
    import slicer

    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Slice4")
    composite = slicer.mrmlScene.AddNode(composite)
    try:
        slicer_application.waitUntil(lambda: composite.GetForegroundVolumeID() is not None, seconds=5)
        assert composite.GetNthLayerVolumeID(3) == finished.overlays.uncertaintyNode.GetID()
    finally:
        slicer.mrmlScene.RemoveNode(composite)  # a singleton: closing the scene would leave it to the tests that follow


def test_a_panel_of_400_pixels_shows_everything(finished):
    import ctk

    for section in finished.widget.findChildren(ctk.ctkCollapsibleButton):
        section.collapsed = False
    for kind in type(finished.parameterNode.evaluationKind):
        finished.parameterNode.evaluationKind = kind
        assert least_width(finished) <= 400


@pytest.fixture
def narrow(finished, slicer_application):
    """Function that makes the panel so many pixels wide, laid out as on a screen; back in its module afterwards."""
    least_width(finished)  # forgets what the layouts hold of widgets that were hidden
    module = finished.widget.parent()
    finished.widget.setParent(None)
    finished.widget.show()

    def make(width):
        for _ in range(3):  # layouts settle over a few rounds
            finished.widget.resize(width, finished.widget.heightForWidth(width))
            slicer_application.processEvents()
        assert finished.widget.width == width

    yield make
    module.layout().addWidget(finished.widget)


@pytest.mark.parametrize("width", [400, 430, 460])  # where it is narrow a form puts a long row below its label
def test_a_narrow_panel_cuts_off_no_choice_of_a_region_of_interest(finished, narrow, width):
    from PySide6.QtWidgets import QStyle, QStyleOptionComboBox

    narrow(width)
    for combo in (finished.ui.roiOfComboBox, finished.ui.roiSideComboBox):
        option = QStyleOptionComboBox()
        combo.initStyleOption(option)
        part = QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, combo
        room = combo.style().subControlRect(*part).width()
        texts = [combo.itemText(index) for index in range(combo.count)]
        assert len(texts) == 3
        assert [text for text in texts if option.fontMetrics.horizontalAdvance(text) > room] == []


def test_in_a_narrow_table_details_give_way_to_the_names_of_structures_and_come_back(finished, slicer_application):
    import qt
    from CalibUncertaintyPanel.reviewFilter import ReviewFilter
    from CalibUncertaintyPanel.reviewTable import ReviewTable

    table = qt.QTableWidget()
    shown = ReviewTable(table, lambda: None)
    shown.fill(finished.overlays.result.regions, finished.review.decisions, ReviewFilter())
    table.show()
    for width, hidden in ((360, True), (600, False), (360, True)):
        table.resize(width, 200)
        for _ in range(3):
            slicer_application.processEvents()
        assert [table.isColumnHidden(column) for column in (7, 8)] == [hidden, hidden]
        assert table.columnWidth(2) >= table.fontMetrics().horizontalAdvance("Lymph nodes")
        assert sum(table.columnWidth(column) for column in range(table.columnCount)) <= width
    table.close()
