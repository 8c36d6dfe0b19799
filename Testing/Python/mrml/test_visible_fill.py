"""Voxels written in steps: what the slice views show is right at once, and in the end everything is."""

import zipfile
from urllib.parse import unquote

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from CalibUncertaintyPanel import sliceLayers, testing, visibleFill
from CalibUncertaintyPanel.mrmlTools import matrixFromArray
from CalibUncertaintyPanel.overlays import Overlays
from CalibUncertaintyPanel.roiChoice import RoiChoice
from CalibUncertaintyPanel.visiblePlanes import visiblePlanes


@pytest.fixture
def views(application, scene, view, other_views):
    """Axial, coronal and sagittal view."""
    green, yellow = other_views
    green.node.SetOrientationToCoronal()
    yellow.node.SetOrientationToSagittal()
    return [view, green, yellow]


@pytest.fixture
def in_steps(monkeypatch):
    """However small a volume is, it is written in steps."""
    monkeypatch.setattr(visibleFill, "AT_ONCE_VOXELS", 0)


def shown(scene, views, make_result, ijk_to_ras=None):
    """A result over its CT, all three views through the Organ, steps switched on."""
    ct = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    overlays.writeInSteps()
    where = np.rint(np.argwhere(result.segmentation.array == 1).mean(axis=0))
    for each in views:
        each.node.JumpSliceByOffsetting(*(float(v) for v in result.segmentation.ras_from_index(where)))
    layers = sliceLayers.LayerView(probabilityVisible=False, uncertaintyOpacity=1.0)
    sliceLayers.showLayers(scene, layers, ct, overlays.probabilityNode, overlays.uncertaintyNode)
    overlays.setThreshold(0.0)
    return overlays


def fill_of(overlays):
    return overlays._fills[overlays.uncertaintyNode]


def direct(overlays):
    """What the node shall hold, computed in one go."""
    (measure, structure), roi = overlays.shownChoice
    values = overlays.result.uncertainty(measure, structure).array
    return np.where(overlays.result.distance.array <= roi.distanceMm, values, 0)


@pytest.mark.parametrize("change", ["measure", "structure", "roi"])
def test_what_three_views_show_is_right_before_the_rest_is_written(scene, views, make_result, in_steps, change):
    overlays = shown(scene, views, make_result)
    before = testing.arrayOf(overlays.uncertaintyNode)
    if change == "roi":
        overlays.setRoi(RoiChoice(1.5))
    else:
        overlays.showUncertainty(*{"measure": ("conf", "Organ"), "structure": ("entropy_k", "Organ")}[change])
    pictures = [each.pixels() for each in views]
    assert fill_of(overlays).pending
    now = testing.arrayOf(overlays.uncertaintyNode)
    assert not np.array_equal(now, direct(overlays))  # the rest is still to be written
    assert not np.array_equal(now, before)
    overlays.completeFill()
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))
    for each, picture in zip(views, pictures, strict=True):
        assert (picture[..., :3] != each.pixels()[..., :3]).sum() == 0


def test_the_steps_end_with_exactly_the_map_and_tell_so_once_at_the_end(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    overlays.showUncertainty("mi", "Organ")
    told = []
    tag = overlays.uncertaintyNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: told.append(1))
    while overlays.fillMore():
        assert told == []
    overlays.uncertaintyNode.RemoveObserver(tag)
    assert len(told) == 1
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))
    assert not fill_of(overlays).pending
    assert not overlays.fillMore()


def test_a_step_without_time_leaves_the_rest_for_the_next(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    overlays.showUncertainty("margin", "Organ")
    fill = fill_of(overlays)
    left = len(fill._left)
    assert left == overlays.result.distance.array.shape[0]
    assert fill.step(0.0)
    assert len(fill._left) == left
    assert not fill.step(60.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_newer_request_replaces_an_unfinished_one(scene, views, make_result, in_steps, seed):
    overlays, random = shown(scene, views, make_result), np.random.default_rng(seed)
    for _ in range(12):
        kind = random.integers(3)
        if kind == 0:
            overlays.showUncertainty(str(random.choice(["conf", "mi", "entropy", "margin"])), "Organ")
        elif kind == 1:
            overlays.setRoi(RoiChoice(float(random.integers(1, 15))))
        else:
            views[random.integers(3)].node.SetSliceOffset(float(random.uniform(20, 50)))
        for _ in range(random.integers(4)):
            if fill_of(overlays)._left:
                fill_of(overlays)._source.writeInto(
                    slicer.util.arrayFromVolume(overlays.uncertaintyNode), fill_of(overlays)._left.pop()
                )
        pictures = [each.pixels()[..., :3] for each in views]
        part = testing.arrayOf(overlays.uncertaintyNode)
        expected = direct(overlays)
        for axis, first, last in visiblePlanes(scene, overlays.uncertaintyNode):
            index = (slice(None),) * axis + (slice(first, last + 1),)
            assert np.array_equal(part[index], expected[index])
        assert all(picture.any() for picture in pictures)
    while overlays.fillMore():
        pass
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))


def test_scrolling_brings_planes_that_are_right_at_once(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    overlays.showUncertainty("conf", "Organ")
    for each, offset in zip(views, (41.3, 40.0, -30.2), strict=True):
        each.node.SetSliceOffset(offset)
    assert fill_of(overlays).pending
    pictures = [each.pixels() for each in views]
    overlays.completeFill()
    for each, picture in zip(views, pictures, strict=True):
        assert np.array_equal(picture, each.pixels())


def test_all_of_a_thick_slab_counts_as_visible(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    green = views[1].node
    thin = {axis: last - first for axis, first, last in visiblePlanes(scene, overlays.uncertaintyNode)}
    green.SetSlabReconstructionEnabled(True)
    green.SetSlabReconstructionThickness(15.0)  # ten voxels of 1.5 mm
    thick = {axis: last - first for axis, first, last in visiblePlanes(scene, overlays.uncertaintyNode)}
    green.SetSlabReconstructionEnabled(False)
    assert thick[1] >= thin[1] + 9
    assert (thick[0], thick[2]) == (thin[0], thin[2])


def test_planes_are_those_that_lie_at_the_views_offsets(scene, views, make_result):
    overlays = shown(scene, views, make_result)
    red, green, yellow = (each.node for each in views)
    matrix = np.diag([1.5, 1.5, 3.0, 1.0])
    matrix[:3, 3] = 10.0, 20.0, 30.0
    overlays.uncertaintyNode.SetIJKToRASMatrix(matrixFromArray(matrix))
    red.JumpSliceByOffsetting(0, 0, 30.0 + 3.0 * 7)
    green.JumpSliceByOffsetting(0, 20.0 + 1.5 * 11.5, 0)
    yellow.JumpSliceByOffsetting(10.0 + 1.5 * 4.25, 0, 0)
    assert visiblePlanes(scene, overlays.uncertaintyNode) == {(0, 7, 7), (1, 11, 12), (2, 4, 5)}
    red.JumpSliceByOffsetting(0, 0, 5000.0)  # beside the volume nothing is seen
    assert visiblePlanes(scene, overlays.uncertaintyNode) == {(1, 11, 12), (2, 4, 5)}


def test_a_volume_that_lies_obliquely_is_written_at_once(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result, testing.obliqueIjkToRas())
    assert visiblePlanes(scene, overlays.uncertaintyNode) is None
    overlays.showUncertainty("conf", "Organ")
    assert not fill_of(overlays).pending
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))


def test_a_view_that_is_turned_while_it_is_written_completes_it(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    overlays.showUncertainty("conf", "Organ")
    turn = vtk.vtkTransform()
    turn.RotateX(25)
    views[0].node.GetSliceToRAS().Multiply4x4(
        views[0].node.GetSliceToRAS(), turn.GetMatrix(), views[0].node.GetSliceToRAS()
    )
    views[0].node.UpdateMatrices()
    assert not fill_of(overlays).pending
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))


def test_saving_the_scene_completes_it_first(scene, views, make_result, in_steps, tmp_path):
    overlays = shown(scene, views, make_result)
    for number, measure in enumerate(("conf", "mi", "margin")):  # for the first, the storage node is made
        overlays.showUncertainty(measure, "Organ")
        assert fill_of(overlays).pending
        assert scene.WriteToMRB(str(tmp_path / f"{number}.mrb"), None)
        with zipfile.ZipFile(tmp_path / f"{number}.mrb") as bundle:
            name = next(name for name in bundle.namelist() if overlays.measure(measure).title in unquote(name))
            bundle.extract(name, tmp_path)
        saved = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
        assert np.array_equal(saved, direct(overlays))


def test_layers_that_are_released_or_deleted_leave_nothing_behind(scene, views, make_result, in_steps):
    overlays = shown(scene, views, make_result)
    overlays.showUncertainty("conf", "Organ")
    expected = direct(overlays)
    overlays.release()
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), expected)
    again = Overlays.restore(scene, *overlays.nodes, result=make_result(testing.addPhantom(scene), name="again"))
    again.writeInSteps()
    again.showUncertainty("mi", "Organ")
    assert fill_of(again).pending
    scene.RemoveNode(again.uncertaintyNode)
    views[0].node.SetSliceOffset(33.0)  # nobody listens any more
    assert not again.fillMore()
    assert not fill_of(again).pending


def test_without_a_promise_to_go_on_everything_is_written_at_once(scene, views, make_result, in_steps):
    ct = testing.addPhantom(scene)
    overlays = Overlays.create(scene, make_result(ct), ct)
    overlays.showUncertainty("conf", "Organ")
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), direct(overlays))
