"""The layers in real slice views: which pixels they cover, where they lie, what threshold, ROI and opacity do."""

import numpy as np
import pytest
import slicer
from CalibUncertaintyPanel import ctVolume, overlayNodes, palettes, sliceLayers, testing
from CalibUncertaintyPanel.overlays import Overlays

OPAQUE = {"probabilityOpacity": 1.0, "uncertaintyOpacity": 1.0}


@pytest.fixture
def shown(scene, view, make_result, ijk_to_ras):
    """A CT, its Result as overlays, and a slice view through the Organ."""
    ct = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    where = np.argwhere(result.segmentation.array == 1).mean(axis=0)
    view.look_at(result.segmentation.ras_from_index(np.rint(where)))
    return ct, result, overlays


def values_at(volume, ras):
    """Trilinear values of a Volume at RAS points; NaN outside it."""
    index = (np.concatenate([ras, np.ones((*ras.shape[:-1], 1))], axis=-1) @ np.linalg.inv(volume.ijk_to_ras).T)[
        ..., 2::-1
    ]
    limit = np.array(volume.array.shape) - 1
    outside = ((index < -1e-6) | (index > limit + 1e-6)).any(axis=-1)
    index = np.clip(index, 0, limit)
    low = np.minimum(np.floor(index).astype(int), np.maximum(limit - 1, 0))
    part = index - low
    total = np.zeros(index.shape[:-1])
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=-1)
        at = np.minimum(low + corner, limit)
        total += weight * volume.array[at[..., 0], at[..., 1], at[..., 2]]
    return np.where(outside, np.nan, total)


def color_of(scale, fraction):
    return np.rint(255 * palettes.colorScale(overlayNodes.CONTROL_POINTS[scale])[np.rint(255 * fraction).astype(int)])


def test_the_probability_covers_the_pixels_where_it_is_high_and_leaves_the_ct_elsewhere(scene, view, shown):
    ct, result, overlays = shown
    sliceLayers.showLayers(
        scene, sliceLayers.LayerView(uncertaintyVisible=False, probabilityVisible=False), ct, None, None
    )
    bare = view.pixels()
    overlays.setProbabilityFloor(0.5)
    layers = sliceLayers.LayerView(uncertaintyVisible=False, **OPAQUE)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    covered = (view.pixels()[..., :3] != bare[..., :3]).any(axis=-1)
    expected = values_at(result.probability("Organ"), view.ras_of_pixels())
    inside = bare[..., 3] > 0
    clear = inside & (np.abs(np.nan_to_num(expected) - 0.5) > 0.01)
    assert (np.nan_to_num(expected) > 0.5)[clear].sum() > 100
    assert np.array_equal(covered[clear], (np.nan_to_num(expected) > 0.5)[clear])


def test_the_colour_of_a_pixel_is_that_of_its_probability_on_a_scale_from_0_to_1(scene, view, shown):
    ct, result, overlays = shown
    layers = sliceLayers.LayerView(uncertaintyVisible=False, **OPAQUE)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    expected = values_at(result.probability("Organ"), view.ras_of_pixels())
    visible = np.nan_to_num(expected) > 0.1
    colors = color_of(overlayNodes.PROBABILITY_SCALE, expected[visible])
    assert (
        np.abs(view.pixels()[visible][:, :3] - colors).max() <= 6
    )  # one step of the 256-colour table, where it is steepest


def test_a_threshold_hides_uncertainty_below_it_to_the_pixel_and_recomputes_nothing(scene, view, shown):
    ct, result, overlays = shown
    layers = sliceLayers.LayerView(probabilityVisible=False, **OPAQUE)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    expected = np.nan_to_num(values_at(result.uncertainty("entropy"), view.ras_of_pixels()))
    voxels = overlays.uncertaintyNode.GetImageData()
    before = voxels.GetMTime()
    overlays.setThreshold(2.0)
    bare = view.pixels()
    for threshold in (0.2, 0.4, 0.6):
        overlays.setThreshold(threshold)
        covered = (view.pixels()[..., :3] != bare[..., :3]).any(axis=-1)
        clear = (bare[..., 3] > 0) & (np.abs(expected - threshold) > 0.005)
        assert (expected > threshold)[clear].any()
        assert np.array_equal(covered[clear], (expected > threshold)[clear])
    assert voxels.GetMTime() == before


def test_ct_probability_and_uncertainty_are_seen_at_once_and_blend_by_their_opacities(scene, view, shown):
    ct, _result, overlays = shown
    overlays.setThreshold(0.3)
    opacities = {"probabilityOpacity": 0.5, "uncertaintyOpacity": 0.25}
    sliceLayers.showLayers(
        scene, sliceLayers.LayerView(**opacities), ct, overlays.probabilityNode, overlays.uncertaintyNode
    )
    all_three = view.pixels()[..., :3].astype(float)
    only = {}
    for name, layers in {
        "ct": sliceLayers.LayerView(probabilityVisible=False, uncertaintyVisible=False),
        "probability": sliceLayers.LayerView(uncertaintyVisible=False, **OPAQUE),
        "uncertainty": sliceLayers.LayerView(probabilityVisible=False, **OPAQUE),
    }.items():
        sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
        only[name] = view.pixels()[..., :3].astype(float)
    both = (only["probability"] != only["ct"]).any(axis=-1) & (only["uncertainty"] != only["ct"]).any(axis=-1)
    assert both.sum() > 10
    expected = 0.75 * (0.5 * only["ct"] + 0.5 * only["probability"]) + 0.25 * only["uncertainty"]
    assert np.abs(all_three - expected)[both].max() <= 3  # rounding to 8 bits, twice


def test_a_hidden_ct_leaves_the_overlays(scene, view, shown):
    ct, _result, overlays = shown
    sliceLayers.showLayers(
        scene, sliceLayers.LayerView(ctVisible=False), ct, overlays.probabilityNode, overlays.uncertaintyNode
    )
    assert view.composite.GetBackgroundVolumeID() is None
    assert view.composite.GetForegroundVolumeID() == overlays.probabilityNode.GetID()


def test_the_roi_distance_hides_uncertainty_further_away(scene, shown):
    _ct, result, overlays = shown
    overlays.setRoiDistance(2.0)
    shown_values = testing.arrayOf(overlays.uncertaintyNode)
    distance, entropy = result.distance.array, result.uncertainty("entropy").array
    assert (entropy[distance > 2.0] > 0).any()
    assert np.array_equal(shown_values, np.where(distance <= 2.0, entropy, 0))
    overlays.setRoiDistance(15.0)
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), np.where(distance <= 15.0, entropy, 0))


def test_another_measure_or_structure_swaps_the_voxels_of_the_same_node(scene, shown):
    _ct, result, overlays = shown
    before = [node.GetID() for node in overlays.nodes]
    count = scene.GetNumberOfNodes()
    overlays.showUncertainty("entropy_k", "Node")
    overlays.showProbability("Node")
    assert [node.GetID() for node in overlays.nodes] == before
    assert scene.GetNumberOfNodes() == count
    inside = result.distance.array <= 15.0
    expected = np.where(inside, result.uncertainty("entropy_k", "Node").array, 0)
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), expected)
    assert np.array_equal(testing.arrayOf(overlays.probabilityNode), result.probability("Node").array)
    assert overlays.uncertaintyNode.GetName() == "Entropy of Node (calibrated)"
    display = overlays.uncertaintyNode.GetScalarVolumeDisplayNode()
    assert display.GetWindowLevelMax() == pytest.approx(np.log(2))


def test_values_beyond_the_colour_scale_are_drawn_in_its_last_colour(scene, view, shown):
    ct, result, overlays = shown
    info = overlays.measure("mi")
    overlays.showUncertainty("mi", "Organ")
    overlays.setThreshold(0.01)
    inside = values_at(result.uncertainty("mi"), view.ras_of_pixels())
    slicer.util.arrayFromVolume(overlays.uncertaintyNode)[:] = 0.6
    slicer.util.arrayFromVolumeModified(overlays.uncertaintyNode)
    layers = sliceLayers.LayerView(probabilityVisible=False, **OPAQUE)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    assert info.scaleEnd < 0.6 < info.upper
    for threshold in (0.02, 0.5):  # moving the threshold hides none of them
        overlays.setThreshold(threshold)
        drawn = view.pixels()[np.isfinite(inside)][:, :3]
        assert len(drawn) > 100
        assert np.abs(drawn - color_of(overlayNodes.UNCERTAINTY_SCALE, np.ones(1))).max() <= 1


def test_the_overlay_of_a_ct_under_a_linear_transform_lies_on_the_transformed_ct(scene, view, make_result):
    ct = testing.addPhantom(scene)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(
        ctVolume.matrixFromArray(testing.obliqueIjkToRas((1, 1, 1), (30, -40, 50), 35))
    )
    ct.SetAndObserveTransformNodeID(transform.GetID())
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    assert ctVolume.belongsTogether(ct, result)
    hu = testing.arrayOf(ct)
    brightest = np.argwhere((hu > 140) & (np.indices(hu.shape)[2] < 24)).mean(axis=0)
    ras = (ctVolume.worldIjkToRas(ct) @ [*brightest[::-1], 1.0])[:3]
    view.look_at(ras)
    layers = sliceLayers.LayerView(uncertaintyVisible=False, **OPAQUE)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    rows, columns = view.pixels().shape[:2]
    colour = view.pixels()[rows // 2, columns // 2, :3]
    assert np.abs(colour - color_of(overlayNodes.PROBABILITY_SCALE, np.array(1.0))).max() <= 12


def test_every_slice_view_gets_the_layers(scene, shown, other_views):
    ct, _result, overlays = shown
    sliceLayers.showLayers(scene, sliceLayers.LayerView(), ct, overlays.probabilityNode, overlays.uncertaintyNode)
    for other in other_views:
        assert other.composite.GetNthLayerVolumeID(3) == overlays.uncertaintyNode.GetID()
        assert other.composite.GetNthLayerOpacity(3) == pytest.approx(0.7)
