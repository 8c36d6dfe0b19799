"""The CT below the layers: one patient's layers are never shown over another's CT without a word."""

import json

import numpy as np
import pytest


@pytest.fixture
def twin(panel):
    """Another patient's CT on the very grid of the first one's."""
    import slicer
    from CalibUncertaintyPanel import testing

    node = testing.addPhantom(slicer.mrmlScene, "Twin")
    array = slicer.util.arrayFromVolume(node)
    slicer.util.updateVolumeFromArray(node, array + np.random.default_rng(0).integers(-9, 10, array.shape, array.dtype))
    return node


@pytest.fixture
def unread(panel):
    """Takes the Result's CT from the disk, and with `digest` False what an older Result does not say about its voxels."""

    def change(digest=True):
        path = panel.resultFolder / "result.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["ct"]["path"] = "gone.nrrd"
        if not digest:
            del content["ct"]["voxels_digest"]
        path.write_text(json.dumps(content), encoding="utf-8")
        return path.parent

    return change


def arrayOf(node):
    import slicer

    return slicer.util.arrayFromVolume(node)


def views():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def backgrounds():
    return {view.GetBackgroundVolumeID() for view in views()}


def covered():
    from CalibUncertaintyPanel import slicerCompat

    return {view.GetForegroundVolumeID() for view in views()} | {slicerCompat.topLayerVolumeId(v) for v in views()}


def remove(node, application):
    import slicer

    slicer.mrmlScene.RemoveNode(node)
    application.processEvents()


def test_the_ct_of_a_run_stays_below_its_layers_whatever_is_chosen_for_the_next_run(finished, ct, twin):
    finished.ui.ctSelector.setCurrentNode(twin)
    assert finished.parameterNode.ctVolume is twin
    assert finished.shownCt() is ct
    assert backgrounds() == {ct.GetID()}
    assert "Twin" not in finished.ui.statusLabel.text


@pytest.mark.parametrize("also", [False, True], ids=["alone", "with a twin"])
def test_layers_are_hidden_and_the_choice_taken_back_when_their_ct_is_removed(
    finished, ct, slicer_application, also, request
):
    twin = request.getfixturevalue("twin") if also else None
    name = ct.GetName()
    remove(ct, slicer_application)
    assert finished.overlays is not None
    assert finished.shownCt() is None
    assert finished.parameterNode.ctVolume is None
    assert covered() == {None}
    assert not finished.overlays.segmentationNode.GetDisplayNode().GetVisibility()
    for label in (finished.ui.errorLabel, finished.ui.statusLabel):
        assert name in label.text
        assert "hidden" in label.text
    finished.ui.thresholdSlider.value = 0.5  # nothing brings them back
    finished.ui.labelsEyeButton.click()
    finished.ui.labelsEyeButton.click()
    finished.review.select(0)
    assert covered() == {None}
    if twin is not None:
        assert twin.GetID() not in backgrounds()


def test_entering_again_puts_no_other_ct_below_the_layers(finished, ct, twin, slicer_application):
    remove(ct, slicer_application)
    slicer_application.leaveModule()
    slicer_application.enterModule("CalibUncertainty")
    slicer_application.processEvents()
    assert finished.parameterNode.ctVolume is None
    assert covered() == {None}


def test_a_ct_that_is_chosen_after_that_is_taken_and_the_status_says_why(finished, ct, twin, slicer_application):
    remove(ct, slicer_application)
    finished.ui.ctSelector.setCurrentNode(twin)
    assert finished.shownCt() is twin
    assert backgrounds() == {twin.GetID()}
    assert finished.overlays.probabilityNode.GetID() in covered()
    assert "Twin" in finished.ui.statusLabel.text
    assert "voxel grid" in finished.ui.statusLabel.text
    assert finished.overlays.segmentationNode.GetDisplayNode().GetVisibility()


def test_a_ct_that_was_recognised_by_its_grid_gives_way_to_the_one_that_is_chosen(panel, opened, ct, twin):
    from CalibUncertaintyPanel import layersCt

    layersCt.tie(panel.overlays.segmentationNode, ct, known=False)
    panel.update()
    assert ct.GetName() in panel.ui.statusLabel.text
    panel.ui.ctSelector.setCurrentNode(twin)
    assert panel.shownCt() is twin
    assert "Twin" in panel.ui.statusLabel.text


def test_another_ct_on_the_same_grid_is_told_when_a_result_is_opened_over_it(
    opened, ct, twin, unread, slicer_application
):
    folder = unread()
    remove(ct, slicer_application)
    opened.ui.ctSelector.setCurrentNode(twin)
    opened.showResult(folder)
    assert opened.shownCt() is twin
    assert "Twin, below the layers, is another CT" in opened.ui.statusLabel.text
    assert "voxels are not" in opened.ui.statusLabel.text


def test_of_two_cts_on_one_grid_that_with_the_voxels_is_taken_whichever_is_chosen(opened, ct, twin, unread):
    folder = unread()
    opened.ui.ctSelector.setCurrentNode(twin)
    opened.showResult(folder)
    assert opened.shownCt() is ct
    assert backgrounds() == {ct.GetID()}
    for said in ("Twin", "another CT", "voxel grid"):
        assert said not in opened.ui.statusLabel.text


def test_the_ct_is_read_from_its_file_when_only_another_one_on_its_grid_is_there(opened, ct, twin, slicer_application):
    array = np.array(arrayOf(ct))
    folder = opened.resultFolder
    remove(ct, slicer_application)
    opened.ui.ctSelector.setCurrentNode(twin)
    opened.showResult(folder)
    assert opened.shownCt() not in (None, twin)
    assert np.array_equal(arrayOf(opened.shownCt()), array)
    assert "Twin" not in opened.ui.statusLabel.text


def test_a_ct_with_other_voxels_gives_way_to_the_one_that_is_loaded_and_chosen(
    opened, ct, twin, unread, slicer_application
):
    import slicer
    from CalibUncertaintyPanel import testing

    folder = unread()
    remove(ct, slicer_application)
    opened.showResult(folder)
    assert opened.shownCt() is twin
    again = testing.addPhantom(slicer.mrmlScene, "Loaded again")
    opened.ui.ctSelector.setCurrentNode(again)
    assert opened.shownCt() is again
    assert "another CT" not in opened.ui.statusLabel.text
    assert "voxel grid" not in opened.ui.statusLabel.text


def test_a_result_that_does_not_know_the_voxels_of_its_ct_opens_as_before(opened, ct, twin, unread):
    folder = unread(digest=False)
    opened.ui.ctSelector.setCurrentNode(twin)
    opened.showResult(folder)
    assert opened.shownCt() is twin
    assert "Only its voxel grid says" in opened.ui.statusLabel.text


def test_a_saved_scene_still_tells_that_its_ct_has_other_voxels(opened, ct, twin, unread, slicer_application, tmp_path):
    import slicer

    folder = unread()
    remove(ct, slicer_application)
    opened.showResult(folder)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert "is another CT" in opened.ui.statusLabel.text


def test_a_volume_that_is_loaded_below_the_layers_is_named_until_it_is_gone(finished, ct, twin, slicer_application):
    views()[0].SetBackgroundVolumeID(twin.GetID())  # as Add Data does with what it has loaded
    slicer_application.processEvents()
    assert "Twin lies below these layers" in finished.ui.statusLabel.text
    views()[0].SetBackgroundVolumeID(ct.GetID())
    slicer_application.processEvents()
    assert "Twin" not in finished.ui.statusLabel.text


def test_a_scene_whose_ct_was_not_saved_opens_with_its_layers_hidden(finished, ct, twin, slicer_application, tmp_path):
    import slicer

    name = ct.GetName()
    ct.SaveWithSceneOff()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert finished.overlays is not None
    assert finished.shownCt() is None
    assert covered() == {None}
    assert name in finished.ui.statusLabel.text


def test_a_saved_scene_knows_its_ct_again(finished, ct, twin, slicer_application, tmp_path):
    import slicer

    name = ct.GetName()
    finished.ui.ctSelector.setCurrentNode(twin)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert finished.shownCt().GetName() == name
    assert finished.parameterNode.ctVolume.GetName() == "Twin"
    assert backgrounds() == {finished.shownCt().GetID()}


def test_two_results_of_one_ct_are_shown_one_at_a_time_over_it(finished, ct, slicer_application):
    first = finished.overlays.nodes
    finished.showResult(finished.resultFolder, ct)
    assert finished.overlays.nodes != first
    assert finished.shownCt() is ct
    assert not first[2].GetDisplayNode().GetVisibility()
    assert not {node.GetID() for node in first[:2]} & covered()
    remove(first[1], slicer_application)  # of the one that is not shown
    assert finished.overlays is not None
    assert finished.ui.errorLabel.text == ""
    remove(ct, slicer_application)
    assert covered() == {None}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_left_of_layers_of_which_one_was_deleted_lies_over_no_other_ct(
    finished, which, twin, slicer_application
):
    left = list(finished.overlays.nodes)
    remove(left.pop(which), slicer_application)
    assert finished.overlays is None
    assert covered() == {None}
    assert not any(node.IsA("vtkMRMLSegmentationNode") and node.GetDisplayNode().GetVisibility() for node in left)
