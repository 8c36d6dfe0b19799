"""Uncertain regions in the 3D view: off until asked for, saved with the scene, and never of another patient."""

import pytest


@pytest.fixture
def shown(finished, slicer_application):
    def wait():
        slicer_application.waitUntil(lambda: not finished.regions.busy, seconds=20, what="the models")
        return finished.regions.models

    return wait


def test_they_are_off_until_they_are_asked_for_and_are_made_once(finished, shown):
    import slicer

    assert finished.regions.models == (None, None)
    finished.ui.regionsIn3dCheckBox.click()
    regions, ghost = shown()
    assert regions.GetPolyData().GetNumberOfCells() > 100
    finished.ui.regionsIn3dCheckBox.click()
    assert not regions.GetDisplayNode().GetVisibility()
    assert not ghost.GetDisplayNode().GetVisibility()
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLModelNode")
    finished.ui.regionsIn3dCheckBox.click()
    assert shown() == (regions, ghost)
    assert regions.GetDisplayNode().GetVisibility()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLModelNode") == count


def test_a_saved_scene_brings_them_back_in_their_colours(finished, shown, slicer_application, tmp_path):
    import slicer

    finished.ui.regionsIn3dCheckBox.click()
    before = shown()[0].GetDisplayNode().GetScalarRange()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    regions, ghost = shown()
    assert regions.GetDisplayNode().GetVisibility()
    assert ghost.GetDisplayNode().GetVisibility()
    assert regions.GetDisplayNode().GetScalarRange() == pytest.approx(before, rel=1e-5)  # MRML writes six digits
    assert regions.GetPolyData().GetPointData().GetArray("Value") is not None
    assert finished.ui.regionsIn3dCheckBox.checked


def test_deleted_models_stay_deleted(finished, shown, slicer_application):
    import slicer

    finished.ui.regionsIn3dCheckBox.click()
    slicer.mrmlScene.RemoveNode(shown()[0])
    slicer_application.processEvents()
    assert not finished.ui.regionsIn3dCheckBox.checked
    assert not finished.regions.busy


def test_the_models_of_one_patient_are_not_shown_with_another(finished, shown, finish):
    import slicer
    from CalibUncertaintyPanel import testing

    finished.ui.regionsIn3dCheckBox.click()
    old = shown()
    finished.ui.ctSelector.setCurrentNode(
        testing.addPhantom(slicer.mrmlScene, "Other", ijkToRas=testing.obliqueIjkToRas())
    )
    finished.ui.runButton.click()
    finish()
    assert not any(model.GetDisplayNode().GetVisibility() for model in old)
    assert shown()[0] not in old


def test_a_missing_map_is_told_in_one_line(finished, shown, slicer_application):
    (finished.resultFolder / "maps" / "entropy.nrrd").unlink()
    finished.ui.regionsIn3dCheckBox.click()
    slicer_application.waitUntil(lambda: not finished.regions.busy, seconds=20)
    assert "entropy.nrrd" in slicer_application.dialogs.takeMessages("error")[0].text
    assert not finished.ui.regionsIn3dCheckBox.checked
