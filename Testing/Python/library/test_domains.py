"""Where figures are measured: masks against distances and boxes worked out by hand."""

import numpy as np
import pytest

from CalibUncertaintyLib.evaluation.domains import (
    body,
    curvas_2024_box,
    curvas_2025_box,
    dilated_box,
    near_structures,
    whole_volume,
)

SPACING = (5.0, 2.0, 2.0)
SHAPE = (12, 40, 40)


def distance_to(point) -> np.ndarray:
    offsets = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(point)
    return np.sqrt(((offsets * SPACING) ** 2).sum(axis=-1)).astype(np.float32)


def test_the_neighbourhood_by_prediction_by_reference_and_by_either():
    pred, gt = distance_to((6, 10, 10)), distance_to((6, 10, 30))
    by_pred, by_gt, union = (near_structures(pred, gt, reference) for reference in ("pred", "gt", "union"))
    assert by_pred.mask.sum() == (pred <= 15).sum()
    assert (union.mask == (by_pred.mask | by_gt.mask)).all()
    # along y a step is 2 mm: 7 of them are 14 mm, 8 are 16
    assert by_pred.mask[6, 17, 10]
    assert not by_pred.mask[6, 18, 10]
    # 3 slices of 5 mm are exactly 15 mm, and belong to it
    assert by_pred.mask[9, 10, 10]
    assert [domain.id for domain in (by_pred, by_gt, union)] == ["dist:15:pred", "dist:15:gt", "dist:15:union"]
    assert union.status == "ok"
    assert not union.missed_structure


def test_a_missed_structure_empties_the_domain_of_the_prediction_and_is_named():
    nothing, gt = np.full(SHAPE, np.inf, np.float32), distance_to((6, 10, 30))
    by_pred, union = near_structures(nothing, gt, "pred"), near_structures(nothing, gt, "union")
    assert (by_pred.status, by_pred.missed_structure) == ("empty_roi", True)
    assert (union.status, union.missed_structure) == ("ok", True)
    neither = near_structures(nothing, nothing)
    assert (neither.status, neither.missed_structure) == ("empty_roi", False)
    invented = near_structures(gt, nothing, "pred")
    assert not invented.missed_structure


def test_a_domain_is_cut_with_what_is_valid():
    pred = distance_to((6, 10, 10))
    valid = np.zeros(SHAPE, bool)
    valid[:, :10] = True
    cut = near_structures(pred, None, "pred", valid=valid)
    assert (cut.mask == ((pred <= 15) & valid)).all()
    assert near_structures(pred, None, "pred", valid=~valid & (pred > 100)).status == "empty_roi"
    assert whole_volume(valid).mask.sum() == valid.sum()
    assert whole_volume(np.zeros(SHAPE, bool)).status == "empty_roi"


def test_the_box_grows_by_millimetres_in_plane_and_by_slices_through_plane():
    foreground = np.zeros(SHAPE, np.uint8)
    foreground[5:7, 20, 1:30] = 3
    found = dilated_box(foreground, (5.0, 3.0, 2.0))
    expected = np.zeros(SHAPE, bool)
    # 8 mm are 2.7 rows of 3 mm, so 3; and 4 columns of 2 mm, of which the volume has one on the left
    expected[3:9, 17:24, 0:34] = True
    assert (found.mask == expected).all()
    assert found.id == "box:8mm:2"
    assert dilated_box(np.zeros(SHAPE), SPACING).status == "empty_roi"
    sagittal = dilated_box(foreground, (2.0, 2.0, 4.0), through_plane_axis=2)
    assert np.flatnonzero(sagittal.mask.any(axis=(1, 2))).tolist() == list(range(1, 11))


def test_the_body_is_the_largest_piece_with_its_air_but_without_the_table():
    pytest.importorskip("cc3d")
    ct = np.full((6, 60, 60), -1000.0, np.float32)
    ct[:, 10:40, 10:50] = 40.0
    ct[:, 15:30, 15:25] = -850.0  # a lung
    ct[:, 45:47, 5:55] = 200.0  # a table
    ct[2:4, 20, 40] = -950.0  # bowel gas
    found = body(ct)
    expected = np.zeros(ct.shape, bool)
    expected[:, 10:40, 10:50] = True
    assert (found.mask == expected).all()
    open_airway = ct.copy()
    open_airway[0, 10:30, 20] = -900.0  # a gap in one slice: there the lung is outside, in the others not
    holes = body(open_airway).mask
    assert not holes[0, 20, 20]
    assert holes[1, 20, 20]
    assert body(np.full((3, 5, 5), -1000.0)).status == "empty_roi"


def test_pieces_of_the_body_join_by_faces_and_holes_do_not_leak_through_corners():
    pytest.importorskip("cc3d")
    ct = np.full((1, 20, 20), -1000.0, np.float32)
    ct[0, 2:10, 2:10] = 40.0
    ct[0, 10:13, 10:13] = 40.0  # touches by a corner only: clothing
    found = body(ct).mask
    assert found.sum() == 64
    ct[0, 4:6, 4:6] = -900.0
    ct[0, 3, 3] = ct[0, 2, 2] = -900.0  # air that meets the outside by corners only
    assert body(ct).mask[0, 4, 4]


def test_a_distance_that_rounding_put_just_beyond_the_limit_still_belongs():
    distance = np.array([15.0, 15.00002, 15.01], dtype=np.float32).reshape(1, 1, 3)
    assert near_structures(distance, None, "pred").mask.tolist() == [[[True, True, False]]]


def test_boxes_of_the_curvas_challenges():
    ct = np.full(SHAPE, -1000.0)
    ct[4, 5:9, 7:20] = 30.0
    found = curvas_2024_box(ct).mask
    assert found[:, 5:9, 7:20].all()
    assert found.sum() == 12 * 4 * 13
    first, second = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    first[5, 30, 30], second[6, 32, 28] = 1, 2
    sound = curvas_2025_box([first, second], margin=4)
    assert sound.mask.sum() == 10 * 11 * 11
    assert sound.mask[1:11, 26:37, 24:35].all()


def test_a_box_near_the_border_goes_astray_in_the_2025_code_and_is_clamped_in_ours():
    drawn = np.zeros((60, 60, 60), int)
    drawn[30, 10, 30] = 1
    sound = curvas_2025_box([drawn])
    assert sound.mask.sum() == 41 * 31 * 41
    assert sound.mask[30, 10, 30]
    # rows from -10, which Python reads as 50, to 31: none
    assert curvas_2025_box([drawn], compat=True).status == "empty_roi"
    assert curvas_2025_box([np.roll(drawn, 15, axis=1)], compat=True).mask.sum() == 41**3
    assert curvas_2025_box([np.zeros(SHAPE, int)]).status == "empty_roi"


def test_what_makes_no_sense_is_refused():
    pred = distance_to((6, 10, 10))
    with pytest.raises(ValueError, match="pred, gt, union"):
        near_structures(pred, pred, "truth")
    with pytest.raises(ValueError, match="needs its distance map"):
        near_structures(pred, None, "union")
    with pytest.raises(ValueError, match="0 or more"):
        near_structures(pred, pred, distance_mm=-1)
    with pytest.raises(ValueError, match="one shape"):
        near_structures(pred, pred[1:])
    with pytest.raises(ValueError, match="boolean"):
        near_structures(pred, pred, valid=np.ones(SHAPE))
    with pytest.raises(ValueError, match="above 0 mm"):
        dilated_box(np.ones(SHAPE), (1.0, 0.0, 1.0))
