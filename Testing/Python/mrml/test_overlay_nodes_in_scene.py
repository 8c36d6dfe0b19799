"""The nodes themselves: names, attributes, folder, outlines, legends, and what a saved scene brings back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
from CalibUncertaintyPanel import ctVolume, overlayNodes, palettes, testing
from CalibUncertaintyPanel.mrmlTools import nodesOfClass
from CalibUncertaintyPanel.overlays import Overlays
from vtk.util.numpy_support import vtk_to_numpy

from CalibUncertaintyLib.result import Result


@pytest.fixture
def ct(scene):
    return testing.addPhantom(scene, "CT of the thorax")


def legend_of(volume_node):
    return next(
        volume_node.GetNthDisplayNode(i)
        for i in range(volume_node.GetNumberOfDisplayNodes())
        if volume_node.GetNthDisplayNode(i).IsA("vtkMRMLColorLegendDisplayNode")
    )


def test_the_labels_are_a_segmentation_with_the_models_names_as_outlines_of_distinct_colours(scene, ct, make_result):
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    segmentation = overlays.segmentationNode.GetSegmentation()
    segments = [segmentation.GetNthSegment(i) for i in range(segmentation.GetNumberOfSegments())]
    assert [segment.GetName() for segment in segments] == ["Organ", "Node"]
    assert segments[0].GetColor() != segments[1].GetColor()
    display = overlays.segmentationNode.GetDisplayNode()
    assert not display.GetVisibility2DFill()
    assert display.GetVisibility2DOutline()


def test_each_segment_has_the_voxels_of_its_label_at_their_place(scene, ijk_to_ras, make_result):
    ct = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    for value, name in result.labels.items():
        segment = overlays.segmentationNode.GetSegmentation().GetSegment(f"label_{value}")
        image = segment.GetRepresentation("Binary labelmap")
        extent = image.GetExtent()
        shape = tuple(extent[2 * i + 1] - extent[2 * i] + 1 for i in (2, 1, 0))
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        mine = np.argwhere(voxels == segment.GetLabelValue()) + np.array(extent[4::-2])
        assert np.array_equal(mine, np.argwhere(result.segmentation.array == value)), name
        matrix = slicer.vtkMRMLSliceNode().GetXYToRAS()
        image.GetImageToWorldMatrix(matrix)
        assert np.allclose(ctVolume.arrayFromMatrix(matrix), ctVolume.worldIjkToRas(ct), atol=1e-3)


def test_a_structure_that_was_not_found_gets_no_segment(scene, ct, make_result):
    slicer.util.arrayFromVolume(ct)[:, :, 24:] = 40
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    assert overlays.segmentationNode.GetSegmentation().GetNumberOfSegments() == 1
    assert overlays.structures == ["Organ", "Node"]


def test_a_ct_in_which_nothing_was_found_is_shown_without_distance_and_without_outlines(scene, ct, make_result):
    folder = make_result(ct).folder
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["maps"]["distance"]["file"] = None
    content["regions"] = []
    (folder / "result.json").write_text(json.dumps(content))
    segmentation = Result.open(folder).segmentation
    segmentation.with_array(np.zeros_like(segmentation.array)).write(folder / "segmentation.nii.gz")
    result = Result.open(folder)
    overlays = Overlays.create(scene, result, ct)
    overlays.setRoiDistance(2.0)
    assert overlays.segmentationNode.GetSegmentation().GetNumberOfSegments() == 0
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), result.uncertainty("entropy").array)


def test_a_measure_that_one_member_cannot_give_is_not_offered(scene, ct, make_result):
    folder = make_result(ct).folder
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    mutual = next(entry for entry in content["maps"]["uncertainty"] if entry["measure"] == "mi")
    mutual.update(file=None, status="single_member", range=[0.0, 0.0])
    (folder / "result.json").write_text(json.dumps(content))
    overlays = Overlays.create(scene, Result.open(folder), ct, measure="mi")
    assert overlays.shownMeasure != "mi"
    assert {info.id for info in overlays.measures if info.available} == {
        "conf",
        "margin",
        "entropy",
        "exp_entropy",
        "entropy_k",
    }


def test_a_result_without_colour_scales_is_drawn_over_the_whole_range_and_sliders_end_where_a_threshold_needs_it(
    scene, ct, make_result
):
    folder = make_result(ct).folder
    newer = Overlays.create(scene, Result.open(folder), ct).measure("mi")
    assert newer.scaleEnd == pytest.approx(0.4)
    assert newer.sliderEnd(0.05) == newer.scaleEnd
    assert newer.sliderEnd(0.5) == newer.upper
    assert replace(newer, threshold=0.6).sliderEnd(0.1) == newer.upper
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for entry in content["maps"]["uncertainty"]:
        del entry["scale"]
    (folder / "result.json").write_text(json.dumps(content))
    overlays = Overlays.create(scene, Result.open(folder), ct, measure="mi")
    older = overlays.measure("mi")
    assert older.scaleEnd == older.upper == newer.upper
    display = overlays.uncertaintyNode.GetScalarVolumeDisplayNode()
    assert display.GetWindowLevelMax() == pytest.approx(older.upper)


def test_a_measure_that_was_not_computed_is_not_offered(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct), ct)
    assert not overlays.measure("epkl").available
    assert "epkl" not in {info.id for info in overlays.measures if info.available}


def test_attributes_say_model_calibration_measure_structure_and_folder(scene, ct, make_result):
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct, structure="Node", measure="mi")
    for node in overlays.nodes:
        assert node.GetAttribute("CalibUncertainty.Model") == "Dataset999_Fake"
        assert node.GetAttribute("CalibUncertainty.Calibrated") == "true"
        assert "temperature 2.03" in node.GetAttribute("CalibUncertainty.Calibration")
        assert node.GetAttribute("CalibUncertainty.ResultFolder") == str(result.folder)
    assert overlays.uncertaintyNode.GetAttribute("CalibUncertainty.Measure") == "mi"
    assert overlays.probabilityNode.GetAttribute("CalibUncertainty.Structure") == "Node"


def test_the_nodes_lie_in_a_folder_named_after_ct_and_model(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct), ct)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in overlays.nodes}
    assert len(parents) == 1
    assert hierarchy.GetItemName(parents.pop()) == "CT of the thorax, Dataset999_Fake"


def test_an_uncalibrated_result_says_so_in_every_name_in_the_legends_and_in_the_folder(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct, calibrated=False), ct)
    assert not overlays.calibrated
    for node in (overlays.probabilityNode, overlays.uncertaintyNode):
        assert node.GetName().endswith("(NOT CALIBRATED)")
        assert legend_of(node).GetTitleText().endswith("NOT CALIBRATED")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(overlays.probabilityNode))
    assert hierarchy.GetItemName(folder).endswith("(NOT CALIBRATED)")


def test_legends_name_the_measure_with_its_unit_and_stay_two(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct), ct)
    assert legend_of(overlays.uncertaintyNode).GetTitleText() == "Entropy\n(nats)\ncalibrated"
    overlays.showUncertainty("conf", "Organ")
    assert "(probability)" in legend_of(overlays.uncertaintyNode).GetTitleText()
    assert len(nodesOfClass(scene, "vtkMRMLColorLegendDisplayNode")) == 2


def test_the_legend_of_the_uncertainty_stays_true_when_its_window_is_dragged(scene, ct, make_result):
    overlays = Overlays.create(scene, make_result(ct), ct)
    shown = legend_of(overlays.uncertaintyNode).GetPrimaryDisplayNode()
    assert shown.GetScalarRange() == pytest.approx((0, np.log(3)))
    overlays.uncertaintyNode.GetScalarVolumeDisplayNode().SetWindowLevelMinMax(0.1, 0.5)
    assert shown.GetScalarRange() == pytest.approx((0.1, 0.5))


@pytest.mark.parametrize("scale", [overlayNodes.PROBABILITY_SCALE, overlayNodes.UNCERTAINTY_SCALE])
def test_the_colour_scales_grow_brighter_from_end_to_end(scale):
    colors = palettes.colorScale(overlayNodes.CONTROL_POINTS[scale])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) > 0)


def test_thirty_structures_get_thirty_different_outlines():
    colors = np.array([palettes.outlineColor(i) for i in range(30)])
    apart = np.abs(colors[:, None] - colors[None]).sum(axis=-1) + 9 * np.eye(30)
    assert apart.min() > 0.1


@pytest.mark.parametrize("kind", [".mrb", ".mrml"])
def test_a_saved_scene_brings_back_layers_thresholds_colours_and_attributes(
    application, scene, ct, make_result, tmp_path, kind
):
    overlays = Overlays.create(scene, make_result(ct, calibrated=False), ct, measure="margin")
    overlays.setThreshold(0.37)
    voxels = testing.arrayOf(overlays.uncertaintyNode)
    save(application, scene, tmp_path / f"scene{kind}")
    scene.Clear(0)
    scene.SetURL(str(tmp_path / f"scene{kind}"))
    if kind == ".mrb":
        assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    else:
        assert scene.Import()
    by_kind = {node.GetAttribute("CalibUncertainty.Kind"): node for node in all_nodes(scene)}
    back = Overlays.restore(scene, by_kind["probability"], by_kind["uncertainty"], by_kind["labels"])
    display = back.uncertaintyNode.GetScalarVolumeDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.37)
    assert display.GetApplyThreshold()
    assert np.array_equal(testing.arrayOf(back.uncertaintyNode), voxels)
    assert not back.calibrated
    assert (back.shownMeasure, back.shownStructure) == ("margin", "Organ")
    info = back.measures[0]
    assert (info.unit, info.upper) == ("probability", 1.0)
    colour = [0.0] * 4
    display.GetColorNode().GetColor(255, colour)
    assert np.allclose(colour[:3], palettes.colorScale(palettes.INFERNO_FROM_A_QUARTER)[-1], atol=0.01)
    assert legend_of(back.uncertaintyNode).GetPrimaryDisplayNode() is not display
    names = [back.segmentationNode.GetSegmentation().GetNthSegment(i).GetName() for i in range(2)]
    assert names == ["Organ", "Node"]


def all_nodes(scene):
    return [
        scene.GetNthNode(i)
        for i in range(scene.GetNumberOfNodes())
        if scene.GetNthNode(i).GetAttribute("CalibUncertainty.Kind")
    ]


def save(application, scene, path):
    """Save as Slicer's dialog does: every storable node to its file, then the scene; or everything into one archive."""
    if path.suffix == ".mrb":
        assert scene.WriteToMRB(str(path), None)
        return
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and node.GetModifiedSinceRead():
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            if storage is not None:
                storage.SetFileName(str(path.parent / f"{node.GetID()}.{storage.GetDefaultWriteFileExtension()}"))
                assert storage.WriteData(node)
    scene.SetURL(str(path))
    assert scene.Commit()
