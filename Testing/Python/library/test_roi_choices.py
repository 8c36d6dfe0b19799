"""The region of interest by structure, side and mask, against distances taken one pair of voxels at a time."""

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.roi import box_around, roi_of

SPACING = (3.0, 1.0, 0.7)


def scene(seed=0):
    random = np.random.default_rng(seed)
    label = np.zeros((7, 14, 17), np.uint8)
    label[1:3, 2:5, 3:6] = 1
    label[4:6, 8:11, 9:13] = 2
    label[2, 5, 6] = 5
    return label, random.random(label.shape) > 0.4


def by_hand(label, spacing, distance_mm, structures, side, mask):
    """Every voxel against every voxel of the structures."""
    chosen = label > 0 if structures is None else np.isin(label, structures)
    places = np.argwhere(chosen) * spacing
    found = np.zeros(label.shape, bool)
    for index in np.ndindex(label.shape):
        apart = np.sqrt(((places - np.array(index) * spacing) ** 2).sum(axis=1))
        near = len(places) > 0 and apart.min() <= distance_mm + 1e-4
        right_side = {"both": True, "inside": chosen[index], "outside": not chosen[index]}[side]
        found[index] = near and right_side and (mask is None or mask[index])
    return found


@pytest.mark.parametrize("side", ["both", "inside", "outside"])
@pytest.mark.parametrize("structures", [None, [1], [2, 5], [1, 2, 5]])
@pytest.mark.parametrize("distance_mm", [0.0, 0.5, 0.7, 1.4, 3.0, 4.2, 500.0])
def test_the_region_is_what_distances_between_all_pairs_say(side, structures, distance_mm):
    label, mask = scene()
    for given in (None, mask):
        expected = by_hand(label, SPACING, distance_mm, structures, side, given)
        found = roi_of(label, SPACING, distance_mm, structures, side, given)
        assert np.array_equal(found.mask, expected)
        assert (found.status == "ok") == expected.any()


def test_a_distance_of_whole_voxels_takes_the_last_of_them_whatever_the_rounding():
    for step, distance_mm in ((0.1, 0.3), (0.3, 15.0), (0.9375, 15.0), (0.7, 14.7)):
        label = np.zeros((1, 1, 120), np.uint8)
        label[0, 0, 50] = 1
        found = roi_of(label, (1.0, 1.0, step), distance_mm).mask
        reach = round(distance_mm / step)
        assert np.flatnonzero(found)[[0, -1]].tolist() == [max(0, 50 - reach), min(119, 50 + reach)]


def test_outside_one_structure_its_neighbours_count_as_outside():
    label, _ = scene()
    found = roi_of(label, SPACING, 500.0, [1], "outside")
    assert found.mask[label == 2].all()
    assert not found.mask[label == 1].any()


def test_a_distance_larger_than_the_scan_takes_all_of_it():
    label, mask = scene()
    assert roi_of(label, SPACING, 1e6).mask.all()
    assert np.array_equal(roi_of(label, SPACING, 1e6, mask=mask).mask, mask)


def test_without_a_limit_the_mask_alone_decides():
    label, mask = scene()
    nothing = np.zeros_like(label)
    assert np.array_equal(roi_of(nothing, SPACING, None, mask=mask).mask, mask)
    assert np.array_equal(roi_of(label, SPACING, None, [2], "outside", mask).mask, mask & (label != 2))
    assert np.array_equal(roi_of(label, SPACING, None, [2], "inside").mask, label == 2)
    assert roi_of(nothing, SPACING, None).mask.all()


def test_a_structure_that_is_not_predicted_leaves_nothing_and_is_named():
    label, mask = scene()
    found = roi_of(label, SPACING, 15.0, [3], mask=mask)
    assert (found.status, found.missing, found.mask.any()) == ("no_structure", (3,), False)
    assert found.sentence({3: "Parotid"}) == "The region of interest is empty: Parotid was not predicted."
    some = roi_of(label, SPACING, 0.0, [3, 1, 4])
    assert (some.status, some.missing) == ("ok", (3, 4))
    assert np.array_equal(some.mask, label == 1)
    assert some.sentence() == "The region of interest has 18 voxels; label 3, label 4 were not predicted."


def test_where_nothing_is_predicted_nothing_is_of_interest():
    label, _ = scene()
    for side in ("both", "inside", "outside"):
        found = roi_of(np.zeros_like(label), SPACING, 15.0, side=side)
        assert (found.status, found.mask.any(), found.missing) == ("no_structure", False, ())
    assert "no structure was predicted" in found.sentence()


def test_an_empty_region_says_why():
    label, _ = scene()
    empty = roi_of(label, SPACING, 5.0, mask=np.zeros(label.shape, bool))
    assert empty.status == "empty_mask"
    apart = roi_of(label, SPACING, 0.0, [1], mask=label == 2)
    ring = roi_of(label, SPACING, 0.0, side="outside")
    assert apart.status == ring.status == "nothing_left"
    assert {found.sentence()[-1] for found in (empty, apart, ring)} == {"."}
    everywhere = roi_of(np.ones_like(label), SPACING, 5.0, side="outside")
    assert everywhere.status == "nothing_left"


def test_the_label_map_and_the_mask_stay_as_they_are():
    label, mask = scene()
    kept = label.copy(), mask.copy()
    roi_of(label, SPACING, 4.0, mask=mask).mask[...] = True
    roi_of(label, SPACING, None, mask=mask).mask[...] = True
    assert np.array_equal(label, kept[0])
    assert np.array_equal(mask, kept[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"side": "left"}, "side"),
        ({"distance_mm": -1.0}, "mm"),
        ({"distance_mm": float("inf")}, "mm"),
        ({"structures": []}, "at least one"),
        ({"structures": [0, 1]}, "above 0"),
        ({"mask": np.ones((2, 2, 2), bool)}, "mask"),
        ({"mask": np.ones((7, 14, 17), np.uint8)}, "boolean"),
        ({"spacing_zyx": (1.0, 0.0, 1.0)}, "spacing"),
    ],
)
def test_what_makes_no_sense_is_refused(change, words):
    label, _ = scene()
    with pytest.raises(ValueError, match=words):
        roi_of(**({"label": label, "spacing_zyx": SPACING, "distance_mm": 5.0} | change))


def test_a_box_holds_all_that_is_marked_and_no_plane_more():
    random = np.random.default_rng(3)
    assert box_around(np.zeros((3, 4, 5), bool)) is None
    for _ in range(20):
        mask = random.random((5, 6, 7)) > 0.96
        if not mask.any():
            continue
        where = np.argwhere(mask)
        for margins in ((0, 0, 0), (1, 0, 3)):
            grown = np.zeros(mask.shape, bool)
            grown[box_around(mask, margins)] = True
            low, high = np.maximum(where.min(axis=0) - margins, 0), where.max(axis=0) + margins
            inside = np.indices(mask.shape).transpose(1, 2, 3, 0)
            assert np.array_equal(grown, ((inside >= low) & (inside <= high)).all(axis=-1))
