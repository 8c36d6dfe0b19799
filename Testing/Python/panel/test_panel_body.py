"""The body as the region of interest, chosen in the panel."""

import json
import shutil

import numpy as np
import pytest
from panel_parts import choose


def body_in_box(panel, ct):
    from CalibUncertaintyPanel import ctVolume

    from CalibUncertaintyLib.body import body_mask

    volume, box = ctVolume.libraryVolume(ct), panel.overlays.result.provenance["box"]
    (x, y, z), (nx, ny, nz) = box["start_xyz"], box["size_xyz"]
    body = body_mask(volume.array, volume.spacing_zyx)
    return body[z : z + nz, y : y + ny, x : x + nx], body.sum()


def shown(panel):
    from CalibUncertaintyPanel import testing

    panel.overlays.completeFill()
    return testing.arrayOf(panel.overlays.uncertaintyNode)


def test_the_body_is_shown_and_counted_and_comes_back(counted, ct):
    from CalibUncertaintyPanel import flaggedText

    entropy = counted.overlays.result.uncertainty("entropy").array
    nearby = shown(counted)
    choose(counted.ui.roiOfComboBox, "The body")
    text = counted.wait()
    body, total = body_in_box(counted, ct)
    assert np.array_equal(shown(counted), np.where(body, entropy, 0))
    voxelMl = counted.overlays.result.segmentation.voxel_volume_ml
    assert f"of the body ({flaggedText.volume(body.sum() * voxelMl)})" in text
    assert f"The maps hold {flaggedText.share(body.sum() / total)} of the body" in text
    assert "no structure is more than 0.0 % likely" in text
    assert not counted.ui.roiShownSlider.enabled
    assert "no distance counts" in counted.ui.roiShownSlider.toolTip
    assert counted.ui.roiSideComboBox.enabled
    choose(counted.ui.roiSideComboBox, "Only around")
    counted.wait()
    label = counted.overlays.result.segmentation.crop(
        *(counted.overlays.result.provenance["box"][key][::-1] for key in ("start_xyz", "size_xyz"))
    ).array
    assert np.array_equal(shown(counted), np.where(body & (label == 0), entropy, 0))
    choose(counted.ui.roiSideComboBox, "Inside and around")
    choose(counted.ui.roiOfComboBox, "All structures")
    assert "region of interest" in counted.wait()
    assert np.array_equal(shown(counted), nearby)


def test_the_mask_is_made_once(counted, monkeypatch):
    from CalibUncertaintyLib import body

    choose(counted.ui.roiOfComboBox, "The body")
    counted.wait()
    monkeypatch.setattr(body, "body_mask", lambda *_: pytest.fail("made again"))
    for text in ("All structures", "The body"):
        choose(counted.ui.roiOfComboBox, text)
        counted.wait()
    counted.ui.measureComboBox.setCurrentIndex(1)
    counted.wait()
    assert counted.overlays.roi.ofBody


def test_without_any_structure_the_body_limits_the_map(counted, ct):
    folder = counted.resultFolder
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["maps"]["distance"]["file"] = None
    (folder / "result.json").write_text(json.dumps(content))
    counted.showResult(folder, ct)
    counted.wait()
    choose(counted.ui.roiOfComboBox, "The body")
    assert "of the body" in counted.wait()
    body, _total = body_in_box(counted, ct)
    assert np.array_equal(shown(counted), np.where(body, counted.overlays.result.uncertainty("entropy").array, 0))


def test_a_threshold_that_was_fitted_elsewhere_is_said(counted):
    provenance = counted.overlays.result.provenance
    for entry in provenance["maps"]["uncertainty"]:
        entry["threshold_source"] = "stored"
    assert "was fitted" not in counted.wait()
    choose(counted.ui.roiOfComboBox, "The body")
    assert "The stored threshold was fitted near the structures, not in the body." in counted.wait()
    counted.ui.thresholdSlider.value = 0.1
    assert "was fitted" not in counted.wait()
    counted.ui.storedThresholdButton.click()
    provenance["calibration"]["roi"] = "in the patient's body"
    counted.update()
    assert "was fitted" not in counted.wait()
    choose(counted.ui.roiOfComboBox, "All structures")
    assert "The stored threshold was fitted in the body, not near the structures." in counted.wait()


def test_without_its_ct_the_choice_goes_back_and_says_why(counted, slicer_application, ct):
    import slicer

    nearby = shown(counted)
    slicer.mrmlScene.RemoveNode(ct)
    slicer_application.processEvents()
    choose(counted.ui.roiOfComboBox, "The body")
    slicer_application.waitUntil(lambda: slicer_application.dialogs.messages, seconds=20, what="an error")
    (told,) = slicer_application.dialogs.takeMessages("error")
    assert "load it and choose it above as CT" in told.text
    assert counted.parameterNode.roiOf.value == "all"
    assert np.array_equal(shown(counted), nearby)
    slicer_application.processEvents()
    assert slicer_application.dialogs.takeMessages("error") == []  # told once


def test_the_body_of_a_large_ct_is_found_in_the_background(opened, ct, monkeypatch, slicer_application):
    from CalibUncertaintyPanel import resultMaps

    monkeypatch.setattr(resultMaps, "AT_ONCE_VOXELS", 10)
    before = shown(opened)
    choose(opened.ui.roiOfComboBox, "The body")
    slicer_application.waitUntil(lambda: opened.layers.loading.busy, seconds=5)
    assert opened.ui.loadingLabel.text == "Reading the body..."
    assert np.array_equal(shown(opened), before)  # what was shown stays until then
    slicer_application.waitUntil(lambda: opened.overlays.roi.ofBody, seconds=20)
    body, _total = body_in_box(opened, ct)
    assert np.array_equal(shown(opened), np.where(body, opened.overlays.result.uncertainty("entropy").array, 0))
    assert opened.overlays.maps.ct is None  # the CT's voxels are let go


def test_the_choice_comes_back_with_a_scene(counted, tmp_path, slicer_application):
    import slicer

    choose(counted.ui.roiOfComboBox, "The body")
    counted.wait()
    drawn = shown(counted)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    counted.wait()
    assert counted.parameterNode.roiOf.value == "body"
    assert counted.overlays.roi.ofBody
    assert np.array_equal(shown(counted), drawn)


def test_a_run_lists_anywhere_in_the_body_where_that_is_asked_for(panel, ct, model, tmp_path):
    from CalibUncertaintyPanel import runs

    asked = [runs.makeRequest(panel.parameterNode, model, tmp_path, "CT")["arguments"]["roi"]]
    panel.ui.listedInBodyCheckBox.click()
    asked.append(runs.makeRequest(panel.parameterNode, model, tmp_path, "CT")["arguments"]["roi"])
    assert asked == ["structures", "body"]


def test_a_result_of_the_body_is_shown_as_one_and_its_list_says_so(counted, ct, tmp_path):
    body, _total = body_in_box(counted, ct)
    folder = shutil.copytree(counted.resultFolder, tmp_path / "of body")
    counted.overlays.result.uncertainty("entropy").with_array(body.astype(np.uint8)).write(folder / "maps" / "body.nrrd")
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["maps"]["body"] = {"file": "maps/body.nrrd"}
    content["roi"]["reference"] = "body"
    (folder / "result.json").write_text(json.dumps(content))
    counted.showResult(folder, ct)
    text = counted.wait()
    assert counted.parameterNode.roiOf.value == "body"
    assert "of the body" in text
    assert "The maps hold" not in text  # all of it
    assert "anywhere in the body" in counted.ui.reviewLabel.text
