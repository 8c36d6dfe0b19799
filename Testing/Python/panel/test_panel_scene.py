"""The panel and the scene: another patient, another module, saved scenes, deleted nodes, and what must stay as it was left."""

import json

import pytest


def composites():
    import slicer

    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def legends(volume_node):
    nodes = [volume_node.GetNthDisplayNode(i) for i in range(volume_node.GetNumberOfDisplayNodes())]
    return [node for node in nodes if node.IsA("vtkMRMLColorLegendDisplayNode")]


def run_on_another_patient(panel, finish):
    import slicer
    from CalibUncertaintyPanel import testing

    other = testing.addPhantom(slicer.mrmlScene, "Other patient", ijkToRas=testing.obliqueIjkToRas())
    panel.ui.ctSelector.setCurrentNode(other)
    panel.ui.runButton.click()
    finish()
    return other


def test_nothing_of_the_first_result_is_drawn_over_another_patient(finished, finish):
    old = list(finished.overlays.nodes)
    assert all(legends(node)[0].GetVisibility() for node in old[:2])
    assert old[2].GetDisplayNode().GetVisibility()
    other = run_on_another_patient(finished, finish)
    new = finished.overlays.nodes
    assert not set(old) & set(new)
    assert not any(legends(node)[0].GetVisibility() for node in old[:2])
    assert not old[2].GetDisplayNode().GetVisibility()
    assert all(legends(node)[0].GetVisibility() for node in new[:2])
    assert new[2].GetDisplayNode().GetVisibility()
    assert {composite.GetBackgroundVolumeID() for composite in composites()} == {other.GetID()}


def test_a_result_with_a_region_of_interest_of_any_size_can_be_opened(finished):
    folder = finished.resultFolder
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["roi"]["distance_mm"] = 400.0
    (folder / "result.json").write_text(json.dumps(content))
    finished.showResult(folder, finished.parameterNode.ctVolume)
    assert finished.parameterNode.roiShownMm == 400.0
    assert finished.ui.roiShownSlider.maximum == 400.0


@pytest.mark.parametrize("where", ["folder", "parameters"])
def test_a_result_that_breaks_half_way_leaves_nothing_in_the_scene(finished, slicer_application, monkeypatch, where):
    import slicer
    from CalibUncertaintyPanel import overlayNodes

    def children():
        import vtk

        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        items = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
        return items.GetNumberOfIds()

    def fail(*_):
        raise RuntimeError("half way")

    before = slicer.mrmlScene.GetNumberOfNodes(), children()
    shown = finished.overlays
    if where == "folder":
        monkeypatch.setattr(overlayNodes, "groupInFolder", fail)
    else:
        monkeypatch.setattr(finished.logic, "_noteLayers", fail)
    finished.showResult(finished.resultFolder, finished.parameterNode.ctVolume)
    assert "half way" in slicer_application.dialogs.takeMessages("error")[0].text
    assert (slicer.mrmlScene.GetNumberOfNodes(), children()) == before
    assert finished.overlays is shown


def test_nothing_is_done_while_half_a_scene_is_there(finished):
    import slicer

    scene, display = slicer.mrmlScene, finished.overlays.uncertaintyNode.GetDisplayNode()
    before = display.GetLowerThreshold()
    scene.StartState(scene.BatchProcessState)
    finished.parameterNode.threshold = 0.61
    scene.RemoveNode(finished.overlays.segmentationNode)
    assert display.GetLowerThreshold() == before
    assert finished.overlays is not None
    scene.EndState(scene.BatchProcessState)
    assert finished.overlays is None
    assert "deleted" in finished.ui.errorLabel.text


def test_a_choice_made_in_a_batch_is_shown_at_its_end(finished):
    import slicer

    scene, display = slicer.mrmlScene, finished.overlays.uncertaintyNode.GetDisplayNode()
    scene.StartState(scene.BatchProcessState)
    finished.parameterNode.threshold = 0.61
    scene.EndState(scene.BatchProcessState)
    assert display.GetLowerThreshold() == pytest.approx(0.61)


def test_a_scene_that_is_loaded_while_another_module_is_open_is_taken_up(finished, slicer_application, tmp_path):
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    old = list(finished.overlays.nodes)
    slicer_application.leaveModule()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))  # added to what is there
    slicer_application.processEvents()
    parameterNode = finished.parameterNode
    named = [parameterNode.probabilityVolume, parameterNode.uncertaintyVolume, parameterNode.segmentation]
    assert finished.overlays.nodes == named
    assert not set(named) & set(old)
    assert not old[2].GetDisplayNode().GetVisibility()


def test_entering_again_makes_no_further_wrapper_of_the_parameter_node(finished, slicer_application):
    import slicer

    wrapper = finished.parameterNode
    slicer_application.leaveModule()
    slicer_application.enterModule("CalibUncertainty")
    assert finished.parameterNode is wrapper
    finished.ui.thresholdSlider.value = 0.31
    assert wrapper.threshold == pytest.approx(0.31)
    slicer.mrmlScene.Clear(0)
    assert finished.parameterNode is not wrapper


def test_a_fade_and_a_volume_of_one_view_survive_the_next_move_of_the_threshold(finished):
    first, second = composites()[:2]
    first.SetForegroundOpacity(0.9)
    second.SetBackgroundVolumeID(None)
    second.SetNthLayerOpacity(3, 0.1)
    finished.ui.thresholdSlider.value = 0.5
    assert first.GetForegroundOpacity() == 0.9
    assert second.GetBackgroundVolumeID() is None
    assert second.GetNthLayerOpacity(3) == pytest.approx(0.1)
    finished.ui.probabilityOpacitySlider.value = 20
    finished.ui.ctEyeButton.click()
    finished.ui.ctEyeButton.click()
    assert first.GetForegroundOpacity() == pytest.approx(0.2)
    assert second.GetBackgroundVolumeID() == finished.parameterNode.ctVolume.GetID()


def test_a_new_result_is_shown_in_every_view_whatever_was_put_there(finished):
    composites()[0].SetForegroundVolumeID(None)
    finished.showResult(finished.resultFolder, finished.parameterNode.ctVolume)
    shown = finished.overlays.probabilityNode.GetID()
    assert [composite.GetForegroundVolumeID() for composite in composites()] == [shown] * len(composites())


def test_a_ct_that_was_put_away_stays_away_and_a_first_one_is_chosen(panel, slicer_application):
    import slicer
    from CalibUncertaintyPanel import testing

    def enter_again():
        slicer_application.leaveModule()
        slicer_application.enterModule("CalibUncertainty")

    node = testing.addPhantom(slicer.mrmlScene)
    enter_again()
    assert panel.parameterNode.ctVolume is node
    panel.ui.ctSelector.setCurrentNode(None)
    enter_again()
    assert panel.parameterNode.ctVolume is None
    panel.ui.ctSelector.setCurrentNode(node)
    slicer.mrmlScene.RemoveNode(node)
    other = testing.addPhantom(slicer.mrmlScene, "Another")
    enter_again()
    assert panel.parameterNode.ctVolume is other


def test_the_window_of_a_saved_scene_stays_until_a_preset_is_chosen(finished, slicer_application, tmp_path):
    import slicer

    finished.parameterNode.ctVolume.GetDisplayNode().SetWindowLevel(1234, 56)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    display = finished.parameterNode.ctVolume.GetDisplayNode()
    assert finished.overlays is not None
    assert (display.GetWindow(), display.GetLevel()) == (1234, 56)
    finished.ui.ctWindowComboBox.setCurrentIndex(3)
    assert (display.GetWindow(), display.GetLevel()) == (2000, 400)


def test_with_the_uncertainty_its_legend_and_what_that_hangs_on_go(finished):
    import slicer

    def count():
        holders = slicer.util.getNodes("Uncertainty colour scale*", useLists=True)
        return sum(map(len, holders.values())), slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode")

    assert count() == (1, 2)
    slicer.mrmlScene.RemoveNode(finished.overlays.uncertaintyNode)
    assert count() == (0, 1)
