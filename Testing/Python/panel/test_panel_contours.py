"""Confidence contours in the panel: shown on request, at the right pixels, with the chosen structure, and saved with the scene."""

import numpy as np
import pytest


@pytest.fixture
def shown(finished, slicer_application):
    """Function that lets the application work until no contour is being computed; gives the names of those there are."""

    def wait():
        slicer_application.waitUntil(lambda: not finished.contours.busy, seconds=20, what="the contours")
        segmentation = finished.contours.node.GetSegmentation()
        return {segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())}

    return wait


def render():
    from Harness.views import render_slice

    return render_slice("Red", (400, 400)).astype(int)


def probability_at_pixels(panel):
    """Trilinear probability of the shown structure at each pixel of the red view, rows from the top; 0 outside the map."""
    import slicer
    from scipy.ndimage import map_coordinates

    node = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    matrix = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    columns, rows = np.meshgrid(np.arange(400), np.arange(400))
    ras = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], axis=-1) @ matrix.T
    volume = panel.overlays.result.probability(panel.parameterNode.structure)
    ijk = (ras @ np.linalg.inv(volume.ijk_to_ras).T)[..., 2::-1]
    return map_coordinates(volume.array, np.moveaxis(ijk, -1, 0), order=1, cval=0.0)[::-1]


def test_contours_are_off_until_they_are_asked_for(finished):
    assert finished.contours.node is None
    assert not finished.ui.contourInnerSpinBox.enabled


def test_the_lines_run_where_the_probability_crosses_the_two_levels_and_nowhere_else(finished, shown):
    finished.parameterNode.structure = "Organ"
    finished.parameterNode.probabilityVisible = finished.parameterNode.uncertaintyVisible = False
    finished.parameterNode.labelsVisible = False
    finished.review.select(1)
    bare = render()
    finished.ui.contoursEyeButton.click()
    assert shown() == {"Organ, at least 5 %", "Organ, at least 95 %"}
    drawn = (np.abs(render() - bare) > 30).any(axis=-1)
    assert drawn.sum() > 200
    probability = probability_at_pixels(finished)
    rows, columns = np.nonzero(drawn)
    near = [probability[r - 3 : r + 4, c - 3 : c + 4] for r, c in zip(rows, columns, strict=True)]
    crosses = [any(part.min() < level <= part.max() for level in (0.05, 0.95)) for part in near]
    assert all(crosses)
    levels = {level for part in near for level in (0.05, 0.95) if part.min() < level <= part.max()}
    assert levels == {0.05, 0.95}
    finished.ui.contoursEyeButton.click()
    assert np.array_equal(render(), bare)


def test_contours_follow_the_structure_the_levels_and_the_choice_of_all(finished, shown):
    finished.ui.structureComboBox.setCurrentIndex(0)
    finished.ui.contoursEyeButton.click()
    shown()
    finished.ui.structureComboBox.setCurrentIndex(1)
    assert shown() == {"Node, at least 5 %", "Node, at least 95 %"}
    finished.ui.contourOuterSpinBox.value = 20
    finished.ui.contourInnerSpinBox.value = 80
    assert shown() == {"Node, at least 20 %", "Node, at least 80 %"}
    finished.ui.contoursOfAllCheckBox.click()
    assert shown() == {f"{name}, at least {level} %" for name in ("Organ", "Node") for level in (20, 80)}


def test_a_saved_scene_brings_the_contours_back_and_does_not_compute_them_again(
    finished, shown, slicer_application, tmp_path
):
    import slicer

    finished.ui.contoursEyeButton.click()
    before = shown()
    surface = finished.contours.node.GetSegmentation().GetNthSegment(0).GetRepresentation("Closed surface")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert not finished.contours.busy
    assert shown() == before
    node = finished.contours.node
    again = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Closed surface")
    assert again.GetNumberOfCells() == surface.GetNumberOfCells()
    assert again.GetBounds() == pytest.approx(surface.GetBounds(), abs=1e-3)
    assert node.GetDisplayNode().GetVisibility()
    assert node.GetDisplayNode().GetSliceIntersectionThickness() == 1


def test_deleted_contours_stay_deleted_until_they_are_asked_for_again(finished, shown, slicer_application):
    import slicer

    finished.ui.contoursEyeButton.click()
    shown()
    slicer.mrmlScene.RemoveNode(finished.contours.node)
    slicer_application.processEvents()
    assert finished.contours.node is None
    assert not finished.contours.busy
    assert not finished.ui.contoursEyeButton.checked
    finished.ui.contoursEyeButton.click()
    assert len(shown()) == 2


def test_contours_of_one_patient_are_not_drawn_over_another(finished, shown, finish):
    import slicer
    from CalibUncertaintyPanel import testing

    finished.ui.contoursEyeButton.click()
    shown()
    old = finished.contours.node
    other = testing.addPhantom(slicer.mrmlScene, "Other", ijkToRas=testing.obliqueIjkToRas())
    finished.ui.ctSelector.setCurrentNode(other)
    finished.ui.runButton.click()
    finish()
    assert not old.GetDisplayNode().GetVisibility()
    assert len(shown()) == 2
    assert finished.contours.node is not old


def test_a_map_that_has_gone_is_told_once_and_switches_the_contours_off(finished, shown, slicer_application):
    (finished.resultFolder / "maps" / "probability_1.nrrd").unlink()
    finished.overlays.maps.clear()
    finished.parameterNode.contoursOfAll = True
    finished.ui.contoursEyeButton.click()
    slicer_application.waitUntil(lambda: not finished.contours.busy, seconds=20)
    messages = slicer_application.dialogs.takeMessages("error")
    assert len(messages) == 1
    assert "probability_1.nrrd" in messages[0].text
    assert not finished.ui.contoursEyeButton.checked
