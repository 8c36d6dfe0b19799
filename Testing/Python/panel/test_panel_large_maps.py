"""Maps so large that they are read in a thread and written in steps; here every map counts as one."""

import shutil

import numpy as np
import pytest


@pytest.fixture
def large(monkeypatch, panel):
    """Every map is large from now on."""
    from CalibUncertaintyPanel import resultMaps, visibleFill

    monkeypatch.setattr(resultMaps, "AT_ONCE_VOXELS", 10)
    monkeypatch.setattr(visibleFill, "AT_ONCE_VOXELS", 10)


@pytest.fixture
def no_room(monkeypatch, panel):
    """Nothing is read ahead."""
    from CalibUncertaintyPanel.resultMaps import ResultMaps

    monkeypatch.setattr(ResultMaps, "worthPrefetching", lambda self, measures: [])


@pytest.fixture
def rest(slicer_application, opened_large):
    """Function that lets the application work until nothing is read or written any more."""

    def is_at_rest():
        overlays, layers = opened_large.overlays, opened_large.layers
        pending = any(fill.pending for fill in overlays._fills.values())
        return layers.loading.idle and overlays.roi == layers.roi.choice and not pending

    def wait():
        slicer_application.processEvents()
        slicer_application.waitUntil(is_at_rest, seconds=20)

    return wait


@pytest.fixture
def opened_large(large, opened):
    return opened


def measure(panel, name):
    panel.ui.measureComboBox.setCurrentIndex([info.id for info in panel.layers._measures].index(name))


def expected(panel, name, structure=None, limit=15.0):
    result = panel.overlays.result
    return np.where(result.distance.array <= limit, result.uncertainty(name, structure).array, 0)


def voxels(panel):
    from CalibUncertaintyPanel import testing

    return testing.arrayOf(panel.overlays.uncertaintyNode)


def test_measures_are_read_ahead_so_that_choosing_one_waits_for_nothing(opened_large, rest):
    rest()
    assert all(opened_large.overlays.maps.isReady((name, None)) for name in ("entropy", "conf", "margin", "mi"))
    for name in ("mi", "conf", "margin"):
        measure(opened_large, name)
        assert opened_large.overlays.shownMeasure == name
        assert not opened_large.layers.loading.busy
    rest()
    assert np.array_equal(voxels(opened_large), expected(opened_large, "margin"))


def test_what_is_not_in_memory_is_read_while_the_old_map_stays_with_its_threshold(no_room, opened_large, rest):
    rest()
    opened_large.ui.thresholdSlider.value = 0.5
    display = opened_large.overlays.uncertaintyNode.GetDisplayNode()
    measure(opened_large, "mi")
    assert opened_large.overlays.shownMeasure == "entropy"
    assert display.GetLowerThreshold() == pytest.approx(0.5)
    assert opened_large.ui.loadingLabel.text == "Reading mutual information..."
    assert opened_large.ui.loadingLabel.isVisibleTo(opened_large.widget)
    rest()
    assert opened_large.overlays.shownMeasure == "mi"
    assert display.GetLowerThreshold() == pytest.approx(opened_large.overlays.measure("mi").threshold)
    assert not opened_large.ui.loadingLabel.isVisibleTo(opened_large.widget)
    assert np.array_equal(voxels(opened_large), expected(opened_large, "mi"))


def test_the_last_of_several_wishes_is_shown(no_room, opened_large, rest):
    for name in ("mi", "conf", "entropy", "margin"):
        measure(opened_large, name)
        opened_large.ui.roiShownSlider.value = 4.0 + len(name)
    opened_large.ui.structureComboBox.setCurrentIndex(1)
    rest()
    assert opened_large.overlays.shownMeasure == "margin"
    assert opened_large.overlays.shownStructure == "Node"
    assert np.array_equal(voxels(opened_large), expected(opened_large, "margin", limit=10.0))


def test_a_wish_that_is_taken_back_is_not_shown(no_room, opened_large, rest):
    measure(opened_large, "mi")
    measure(opened_large, "entropy")
    assert not opened_large.layers.loading.busy
    rest()
    assert opened_large.overlays.shownMeasure == "entropy"
    assert np.array_equal(voxels(opened_large), expected(opened_large, "entropy"))


def test_the_distance_from_one_structure_is_measured_in_the_background(opened_large, rest, slicer_application):
    rest()
    opened_large.ui.roiOfComboBox.setCurrentIndex(1)
    slicer_application.waitUntil(lambda: opened_large.layers.loading.busy, seconds=5)
    assert opened_large.ui.loadingLabel.text == "Reading the distance from Organ..."
    rest()
    distance = opened_large.overlays.maps.get(("distance", "Organ")).array
    entropy = opened_large.overlays.result.uncertainty("entropy").array
    assert np.array_equal(voxels(opened_large), np.where(distance <= 15.0001, entropy, 0))
    opened_large.ui.roiOfComboBox.setCurrentIndex(0)
    rest()
    assert np.array_equal(voxels(opened_large), expected(opened_large, "entropy"))


def test_a_map_that_cannot_be_read_is_told_once_and_everything_goes_back(
    no_room, opened_large, rest, slicer_application
):
    rest()
    shutil.rmtree(opened_large.resultFolder)
    measure(opened_large, "mi")
    rest()
    told = [message.text for message in slicer_application.dialogs.takeMessages("error")]
    assert len(told) == 1
    assert "mi.nrrd" in told[0]
    assert opened_large.parameterNode.measure == opened_large.overlays.shownMeasure == "entropy"
    assert not opened_large.ui.loadingLabel.isVisibleTo(opened_large.widget)
    opened_large.ui.thresholdSlider.value = 0.5
    opened_large.ui.roiShownSlider.value = 3.0  # what is in memory can still be shown
    rest()
    assert slicer_application.dialogs.takeMessages("error") == []
    assert opened_large.overlays.roi.distanceMm == 3.0


def test_a_map_that_cannot_be_read_ahead_bothers_nobody(large, panel, ct, tmp_path, slicer_application):
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    ctVolume.writeCt(ct, tmp_path / "ct.nrrd")
    out = tmp_path / "result"
    fakeProcess.writeResult({"ct": str(tmp_path / "ct.nrrd"), "out": str(out), "model": "fake", "roi_mm": 15.0})
    (out / "maps" / "conf.nrrd").unlink()
    panel.showResult(out, ct)
    slicer_application.waitUntil(lambda: panel.layers.loading.idle, seconds=20)
    assert panel.overlays.maps.isReady(("mi", None))
    assert not panel.overlays.maps.isReady(("conf", None))


def test_another_result_while_a_map_is_read_gets_its_own_maps(no_room, opened_large, rest, slicer_application):
    measure(opened_large, "mi")
    opened_large.showResult(opened_large.resultFolder, opened_large.parameterNode.ctVolume)
    rest()
    assert np.array_equal(voxels(opened_large), expected(opened_large, opened_large.overlays.shownMeasure))
    measure(opened_large, "conf")
    import slicer

    slicer.mrmlScene.Clear(0)
    slicer_application.processEvents()
    assert opened_large.overlays is None
    assert opened_large.layers.loading.idle


def test_the_slice_with_most_uncertainty_is_looked_for_in_all_voxels(opened_large, rest):
    rest()
    measure(opened_large, "conf")
    opened_large.ui.uncertainSliceButton.click()
    assert np.array_equal(voxels(opened_large), expected(opened_large, "conf"))
