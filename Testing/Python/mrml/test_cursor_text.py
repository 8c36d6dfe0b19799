"""What is said of the place under the mouse: the right voxels of CT, probability, uncertainty and distance, with their meaning."""

import numpy as np
import pytest
from CalibUncertaintyPanel import ctVolume, cursorText, testing
from CalibUncertaintyPanel.overlays import Overlays


@pytest.fixture
def shown(scene, make_result, ijk_to_ras):
    ct = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    result = make_result(ct)
    return ct, result, Overlays.create(scene, result, ct, structure="Node")


def ras_of(volume, index_zyx):
    return tuple(volume.ras_from_index(np.array(index_zyx, float)))


def test_inside_a_structure_every_part_is_the_nearest_voxels_and_named(shown):
    ct, result, overlays = shown
    probability = result.probability("Node")
    uncertain = np.abs(probability.array - 0.72)
    index = np.unravel_index(uncertain.argmin(), uncertain.shape)
    nudge = np.array([0.3, -0.4, 0.2])  # of a voxel
    ras = ras_of(probability, index + nudge)
    whole = np.rint(np.linalg.solve(ctVolume.worldIjkToRas(ct), [*ras, 1])[2::-1]).astype(int)
    hu = testing.arrayOf(ct)[tuple(whole)]
    entropy = result.uncertainty("entropy").array[index]
    expected = [
        f"CT {hu:.0f} HU",
        f"{100 * probability.array[index]:.0f} % Node, calibrated",
        f"entropy {entropy:.2f} nats",
        "inside Node",
    ]
    assert cursorText.cursorText(overlays, ct, ras).split(" · ") == expected


def test_beside_a_structure_the_distance_is_told_and_uncertainty_even_where_it_is_not_drawn(shown):
    ct, result, overlays = shown
    overlays.setRoiDistance(1.0)
    distance = result.distance.array
    index = np.argwhere((distance > 3) & (result.uncertainty("entropy").array > 0.02))[0]
    text = cursorText.cursorText(overlays, ct, ras_of(result.distance, index))
    assert text.endswith(f"{distance[tuple(index)]:.1f} mm outside")
    assert f"entropy {result.uncertainty('entropy').array[tuple(index)]:.2f} nats" in text


def test_outside_of_the_computed_box_only_the_ct_is_told_and_outside_of_everything_nothing(scene, make_result):
    ct = testing.addPhantom(scene, shape=(40, 96, 96))
    result = make_result(ct, roi_mm=2.0)
    overlays = Overlays.create(scene, result, ct)
    text = cursorText.cursorText(overlays, ct, ras_of(result.segmentation, (1, 2, 3)))
    assert text == f"CT {testing.arrayOf(ct)[1, 2, 3]} HU · far from every structure, not computed"
    assert cursorText.cursorText(overlays, ct, (5000.0, 0.0, 0.0)) == ""


def test_raw_and_uncalibrated_probabilities_are_called_so(scene, ct, make_result):
    result = make_result(ct)
    overlays = Overlays.create(scene, result, ct)
    where = ras_of(result.segmentation, np.argwhere(result.segmentation.array == 1)[0])
    overlays.showProbability("Organ", raw=True)
    assert "% Organ, raw, before calibration" in cursorText.cursorText(overlays, ct, where)
    without = Overlays.create(scene, make_result(ct, calibrated=False, name="raw"), ct)
    assert "% Organ, NOT CALIBRATED" in cursorText.cursorText(without, ct, where)


def test_without_its_result_folder_a_saved_scene_still_tells_what_it_shows(shown):
    ct, result, overlays = shown
    ras = ras_of(result.probability("Node"), (4, 4, 4))
    nodes = overlays.nodes
    overlays.release()
    text = cursorText.cursorText(Overlays.restore(overlays.scene, *nodes), ct, ras)
    assert "% Node, calibrated" in text
    assert "entropy" in text
    assert "mm outside" not in text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0 %"), (0.004, "< 1 %"), (0.01, "1 %"), (0.724, "72 %"), (0.996, "> 99 %"), (1.0, "100 %")],
)
def test_what_is_not_quite_nothing_or_certain_is_not_rounded_to_it(fraction, text):
    assert cursorText._percent(fraction) == text
