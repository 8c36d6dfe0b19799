"""What the stand-in gives for slicer.app, slicer.modules and the scene around the panel."""

import sys


def test_settings_live_in_a_temporary_folder(slicer_application):
    import qt
    import slicer

    qt.QSettings().setValue("CalibUncertainty/model", "/a")
    assert slicer.util.settingsValue("CalibUncertainty/model", "") == "/a"
    assert slicer.app.settings().fileName().startswith(str(slicer_application.folder))
    assert slicer.app.temporaryPath.startswith(str(slicer_application.folder))


def test_developer_mode_is_off(slicer_application):
    import slicer

    assert slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool) is False


def test_volumes_get_an_item_in_the_subject_hierarchy(slicer_scene):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer_scene)
    node = slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Result")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), folder)
    assert slicer.util.getSubjectHierarchyItemChildren(folder) == [hierarchy.GetItemByDataNode(node)]


def test_segments_are_written_and_read_through_the_real_logics(slicer_scene):
    import numpy as np
    import slicer

    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1:3, 2:5, 1:4] = 1
    ct = slicer.util.addVolumeFromArray(labels.astype(np.int16), name="ct")
    segmentation = slicer_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segment = segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    slicer.util.updateSegmentBinaryLabelmapFromArray(labels, segmentation, segment, ct)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, ct), labels)


def test_a_volume_is_saved_and_loaded_through_the_real_storage(slicer_scene, tmp_path):
    import numpy as np
    import slicer

    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    node = slicer.util.addVolumeFromArray(array, name="map")
    assert slicer.util.saveNode(node, str(tmp_path / "map.nrrd"))
    loaded = slicer.util.loadVolume(str(tmp_path / "map.nrrd"), {"name": "again"})
    assert loaded.GetName() == "again"
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), array)


def test_a_process_runs_while_the_event_loop_turns(slicer_application):
    import slicer

    lines, codes = [], []
    command = [sys.executable, "-c", "print('half'); print('whole')"]
    slicer.util.launchConsoleProcess(command, blocking=False, logCallback=lines.append, completedCallback=codes.append)
    slicer_application.waitUntil(lambda: codes, seconds=20, what="the end of the process")
    assert (lines, codes) == (["half", "whole"], [0])


def test_the_scene_is_empty_at_the_start_of_a_test(slicer_scene):
    assert slicer_scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert slicer_scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 0


def test_an_application_event_can_be_connected(slicer_application):
    import slicer

    heard = []
    assert slicer.app.connect("startupCompleted()", lambda: heard.append(1)) is True
    slicer.app.startupCompleted.emit()
    assert heard == [1]
