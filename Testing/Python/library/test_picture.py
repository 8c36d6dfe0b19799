"""The montage of a Result: right side out, right scale, honest about calibration, and able to show that there is nothing."""

import json
import math

import numpy as np
import pytest

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.measures import MEASURES, entropy
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.picture import _open_scene, montage
from CalibUncertaintyLib.workflow.picture_planes import Frame, Layer, Plane, choose_planes

LABELS = {1: "Liver", 2: "Node"}
SUMMARY = "NOT CALIBRATED: the model has no calibration record"


def scanned(direction=None, spacing=(3.0, 2.0, 2.0), shape=(20, 30, 40), structures=True):
    """A CT with a bright block (patient's right, front, head end) and a blurred block around it, and its labels and softness."""
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    half = (np.array(shape[::-1]) - 1) / 2 * np.array(spacing[::-1])
    origin = tuple(-(direction @ half))
    grid = Volume(np.zeros(shape, np.int16), spacing, origin, direction)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(grid.lps_from_index(index), -1, 0)
    depth = 10 - np.sqrt((x + 14) ** 2 + (y + 10) ** 2 + (z - 12) ** 2)  # a ball at the right, front, head side
    ct = np.where(depth > 0, 120, -20).astype(np.int16)
    inside = 1 / (1 + np.exp(-depth)) if structures else np.zeros(shape)
    return grid.with_array(ct), inside.astype(np.float32)


def write_result(folder, ct, inside, calibrated=False, box=None):
    """A Result folder as `segment` leaves it, maps cropped to box = (start, shape) in z, y, x."""
    p = np.stack([1 - inside, inside * 0.9, inside * 0.1]).astype(np.float32)
    label = np.where(p[0] > 0.5, 0, 1).astype(np.uint8)
    start, shape = box or ((0, 0, 0), ct.array.shape)
    (folder / "maps").mkdir(parents=True)
    found = bool(label.any())
    distance = distance_to_structures(label, ct.spacing_zyx).astype(np.float32)
    maps = {"probability_1": p[1], "probability_2": p[2], "entropy": entropy(p), "distance": distance}
    for name, array in maps.items():
        ct.with_array(array).crop(start, shape).write(folder / "maps" / f"{name}.nrrd")
    ct.with_array(label).write(folder / "segmentation.nii.gz")
    measure = MEASURES["entropy"]
    content = {
        "schema": "calib-uncertainty/result", "schema_version": 1, "status": "complete",
        "geometry": {
            "size_xyz": list(ct.array.shape[::-1]), "spacing_xyz_mm": list(ct.spacing_zyx[::-1]),
            "origin_lps_mm": list(ct.origin_lps), "direction_lps": ct.direction_lps.ravel().tolist(),
        },
        "box": {"start_xyz": [int(n) for n in start[::-1]], "size_xyz": [int(n) for n in shape[::-1]]},
        "model": {"name": "Dataset900_Test", "configuration": "3d_fullres", "labels": [
            {"index": index, "name": name} for index, name in LABELS.items()]},
        "members": [{"index": 0, "fold": 0}],
        "calibration": {"calibrated": calibrated, "summary": "Calibrated: temperature 1.70" if calibrated else SUMMARY},
        "segmentation": {"file": "segmentation.nii.gz"},
        "maps": {
            "probability": [{"label": i, "name": n, "file": f"maps/probability_{i}.nrrd"} for i, n in LABELS.items()],
            "uncertainty": [{
                "measure": "entropy", "title": measure.title, "file": "maps/entropy.nrrd", "unit": "nats",
                "range": [0, math.log(3)], "threshold": 0.35,
            }],
            "distance": {"file": "maps/distance.nrrd" if found else None, "unit": "mm"},
        },
        "roi": {"distance_mm": 15.0}, "threshold": {"measure": "entropy", "value": 0.35, "unit": "nats"}, "regions": [],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def case(tmp_path):
    """A CT file and the Result of it."""
    ct, inside = scanned()
    ct.write(tmp_path / "ct.nii.gz")
    return write_result(tmp_path / "result", ct, inside, box=((8, 4, 2), (12, 20, 24))), tmp_path / "ct.nii.gz"


TURNED = {
    "identity": np.eye(3),
    "flipped in x and y": np.diag([-1.0, -1.0, 1.0]),
    "feet first": np.diag([1.0, 1.0, -1.0]),
    "sagittal slices": np.array([[0, 0, 1.0], [1.0, 0, 0], [0, -1.0, 0]]),
}


@pytest.mark.parametrize("name", TURNED)
def test_the_patients_right_is_on_the_left_the_front_on_top_and_the_head_last_whatever_the_grid(name):
    ct, _ = scanned(TURNED[name], shape=(36, 36, 36), spacing=(2.0, 2.0, 2.0))
    turned = Frame(ct).turn(ct.array)
    bright = np.argwhere(turned > 0).mean(axis=0) / np.array(turned.shape)
    assert bright[0] > 0.55  # towards the head
    assert bright[1] < 0.45  # towards the front
    assert bright[2] < 0.45  # towards the patient's right
    assert [Frame(ct).letters(axis) for axis in range(3)] == [("I", "S"), ("A", "P"), ("R", "L")]


def test_an_oblique_axis_is_labelled_with_two_letters():
    angle = math.radians(25)
    direction = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    ct, _ = scanned(direction)
    assert Frame(ct).letters(2) == ("RA", "LP")
    assert Frame(ct).letters(0) == ("I", "S")


@pytest.mark.parametrize("name", TURNED)
def test_a_cropped_map_lies_where_its_geometry_says(name):
    ct, inside = scanned(TURNED[name])
    frame = Frame(ct)
    whole = frame.turn(inside)
    layer = Layer.of(frame, ct.with_array(inside).crop((5, 6, 7), (8, 9, 10)))
    for axis in (0, 1):
        index = layer.start[axis] + 2
        plane = layer.plane(axis, index)
        shown = np.isfinite(plane)
        assert shown.sum() == np.prod([n for a, n in enumerate(layer.array.shape) if a != axis])
        np.testing.assert_array_equal(plane[shown], np.take(whole, index, axis=axis)[shown])


def test_a_turned_index_points_at_the_same_place_of_the_patient():
    ct, _ = scanned(TURNED["sagittal slices"])
    frame = Frame(ct)
    index = (3, 11, 17)
    ras = frame.centre_ras(index)
    assert frame.index_of(ras * [-1, -1, 1]) == index


def test_the_slices_show_every_structure_and_the_most_uncertain_place():
    ct, _ = scanned(shape=(60, 30, 40))
    frame = Frame(ct)
    label, weight = np.zeros(frame.shape, np.uint8), np.zeros(frame.shape, np.float32)
    label[10:50, 5:25, 5:30] = 1
    label[12:14, 20:22, 33:35] = 2  # small, and far from the uncertain place
    weight[40, 8:12, 8:12] = 1.0
    planes = choose_planes(Layer(frame, weight, (0, 0, 0)), label, frame)
    axial = [plane.index for plane in planes if plane.axis == 0]
    assert len(axial) == 3
    assert axial == sorted(axial, reverse=True)
    assert 40 in axial
    assert {12, 13} & set(axial)
    assert planes[-1].axis == 1
    assert 8 <= planes[-1].index < 12


def test_uncertainty_below_the_threshold_or_far_from_structures_is_not_shown(case):
    from CalibUncertaintyLib.result import Result

    result = Result.open(case[0])
    scene = _open_scene(result, Volume.read(case[1]), None, None)
    shown = np.isfinite(scene.uncertainty.array)
    values = scene.frame.turn(result.uncertainty("entropy").array)
    distance = scene.frame.turn(result.distance.array)
    np.testing.assert_array_equal(shown, (values >= 0.35) & (distance <= 15))
    assert 0 < shown.sum() < shown.size


def pixels(path):
    """RGB in [0, 1] of a PNG."""
    import matplotlib.image

    return matplotlib.image.imread(path)[..., :3]


def alarm_pixels(path):
    """How many pixels have the red of the warning."""
    return int((np.abs(pixels(path) - np.array([255, 77, 77]) / 255).max(axis=-1) < 0.02).sum())


def test_a_picture_of_an_uncalibrated_result_says_so_in_red_and_a_calibrated_one_does_not(case, tmp_path):
    ct, inside = scanned()
    sure = write_result(tmp_path / "calibrated", ct, inside, calibrated=True)
    red = alarm_pixels(montage(case[0], case[1], tmp_path / "a.png"))
    quiet = alarm_pixels(montage(sure, case[1], tmp_path / "b.png"))
    assert red > 500
    assert quiet == 0


def test_overlays_change_the_pixels_of_their_columns_only(case, tmp_path):
    picture = pixels(montage(case[0], case[1], tmp_path / "a.png", slices=[Plane(0, 14)]))
    height, width, _ = picture.shape
    rows = slice(int(height * 0.4), int(height * 0.6))
    coloured = np.ptp(picture[rows], axis=-1) > 0.25
    quarter = [coloured[:, int(width * f) : int(width * (f + 0.2))].sum() for f in (0.07, 0.31, 0.54, 0.77)]
    assert quarter[0] < 200  # the plain CT has only its letters
    assert min(quarter[1:]) > 300


def test_a_result_without_any_structure_still_gives_a_picture_that_says_so(tmp_path):
    ct, inside = scanned(structures=False)
    ct.write(tmp_path / "ct.nii.gz")
    folder = write_result(tmp_path / "result", ct, inside, calibrated=True)
    path = montage(folder, tmp_path / "ct.nii.gz", tmp_path / "nested" / "a.png")
    assert alarm_pixels(path) > 100  # "no structure found"


def test_the_ct_of_another_patient_is_refused_in_one_line(case, tmp_path):
    other, _ = scanned(shape=(20, 30, 41))
    other.write(tmp_path / "other.nii.gz")
    with pytest.raises(CalibUncertaintyError, match="41") as caught:
        montage(case[0], tmp_path / "other.nii.gz", tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_a_ct_of_the_same_size_elsewhere_is_refused(case, tmp_path):
    ct, _ = scanned()
    moved = Volume(ct.array, ct.spacing_zyx, tuple(np.add(ct.origin_lps, (0, 2, 0))), ct.direction_lps)
    moved.write(tmp_path / "moved.nii.gz")
    with pytest.raises(CalibUncertaintyError, match="elsewhere"):
        montage(case[0], tmp_path / "moved.nii.gz", tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_is_refused_in_one_line_and_leaves_nothing(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibUncertaintyError, match="cannot be written"):
        montage(case[0], case[1], tmp_path / "file" / "a.png")
    assert not list(tmp_path.glob("*.part"))
