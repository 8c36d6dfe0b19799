"""The boxes that matter: what was found and what one member thought it saw far away, nothing lost, and what was left out said."""

import numpy as np
import pytest
import torch
from engine_parts import Told, told_case
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.inference.boxes import MOST_BOXES, Box, _strongest, hull, merged, places
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow.segment import segment

HEADS = Heads(("Liver", "Node"), (1, 2), False)
SIGMOID = Heads(("Whole", "Node"), (1, 2), True)


def logits_with(shape, spots, heads=HEADS, background=12.0):
    """Sure background, and at each (start, stop) of `spots` this foreground probability of the last structure."""
    logits = np.zeros((heads.channels, *shape), np.float32)
    if heads.sigmoid:
        logits[...] = -background
    else:
        logits[0], logits[1] = background, -background
    for (start, stop), p in spots.items():
        where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        odds = np.log(p / (1 - p))
        logits[(-1, *where)] = odds if heads.sigmoid else background + odds
    return logits


def asked(folder, members, case, heads=HEADS, **options):
    with Scratch(folder) as scratch:
        return Opinions.ask(Told(members, heads, portion=2), case, scratch, Progress(), **options)


ORGAN = ((10, 20, 20), (18, 32, 30))
FAR = ((50, 70, 74), (53, 74, 77))


def covers(box, spot, margin=0):
    return all(a <= b - margin or a == 0 for a, b in zip(box.start, spot[0], strict=True)) and all(
        a >= b + margin or a == n for a, b, n in zip(box.stop, spot[1], (64, 80, 80), strict=True)
    )


@pytest.mark.parametrize("heads", [HEADS, SIGMOID])
def test_a_far_structure_that_one_member_half_saw_has_a_box_of_its_own(heads, tmp_path):
    shape, case = (64, 80, 80), told_case((64, 80, 80))
    sees = logits_with(shape, {ORGAN: 0.9, FAR: 0.05}, heads)
    misses = logits_with(shape, {ORGAN: 0.9}, heads)
    opinions = asked(tmp_path, [misses, sees, misses], case, heads)
    boxes, left_out = opinions.boxes(0.01, 6.0)
    assert len(boxes) == 2
    assert boxes[0] == Box((7, 16, 16), (21, 36, 34))  # 6 mm are 3 and 4 voxels
    assert boxes[1] == Box(*FAR)
    assert left_out < 1e-4
    boxes, left_out = opinions.boxes(0.06, 6.0)
    assert len(boxes) == 1
    assert left_out == pytest.approx(0.05, rel=1e-2)


def test_structures_near_each_other_share_a_box(tmp_path):
    near = ((19, 33, 31), (21, 35, 33))
    case = told_case((64, 80, 80))
    boxes, _ = asked(tmp_path, [logits_with((64, 80, 80), {ORGAN: 0.9, near: 0.3})], case).boxes(0.01, 6.0)
    assert len(boxes) == 1
    assert covers(boxes[0], near)
    assert covers(boxes[0], ORGAN, 3)


def test_where_nothing_is_likely_the_least_unlikely_place_stands_for_the_rest(tmp_path):
    spot = ((30, 40, 50), (31, 41, 51))
    case = told_case((64, 80, 80), margin=3)
    boxes, left_out = asked(tmp_path, [logits_with((64, 80, 80), {spot: 0.001})], case).boxes(0.01, 15.0)
    assert boxes == [Box((33, 43, 53), (34, 44, 54))]
    assert left_out < 1e-4


def on_ct(case, logits):
    """Foreground probability on the CT grid as nnU-Net's own resampling makes it."""
    whole = case.grid.whole(np.asarray(logits, np.float16)).astype(np.float64)
    return 1 - np.exp(whole[0] - np.logaddexp.reduce(whole, axis=0))


GRIDS = {
    "the CT's": dict(grid_shape=(40, 48, 48)),
    "finer CT": dict(grid_shape=(24, 30, 28), ct_shape=(50, 61, 55), spacing=(0.96, 0.74, 0.76)),
    "coarser CT": dict(grid_shape=(48, 48, 48), ct_shape=(37, 33, 39), spacing=(2.6, 2.2, 1.8)),
    "slices of 10 mm": dict(grid_shape=(80, 30, 30), ct_shape=(16, 30, 30), spacing=(10.0, 1.5, 1.5)),
    "slices of 10 mm, several layers of cells": dict(grid_shape=(200, 16, 16), ct_shape=(40, 16, 16), spacing=(10.0, 1.5, 1.5)),
    "slices of 1 mm": dict(grid_shape=(20, 30, 30), ct_shape=(40, 30, 30), spacing=(1.0, 1.5, 1.5)),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_nothing_likely_is_outside_the_boxes_and_what_was_left_out_is_the_largest(grid, tmp_path):
    """Random opinions, compared voxel by voxel with every member's probability on the whole CT grid."""
    case = told_case(**GRIDS[grid])
    shape = tuple(case.data.shape[1:])
    generator = np.random.default_rng(4)
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    members = np.zeros((2, 3, *shape), np.float32)
    members[:, 0], members[:, 1], members[:, 2] = 9.0, -9.0, -2.0
    for height in (2.0, 4.0, 6.0, 8.0, 10.0, 13.0):
        centre = (generator.random(3) * shape)[:, None, None, None]
        spot = np.exp(-((at - centre) ** 2).sum(axis=0) / 8)
        members[:, 2] += spot * (height + generator.normal(0, 0.5, 2)[:, None, None, None])
    opinions = asked(tmp_path, members, case, temperatures=[1.0])
    seen = np.max([on_ct(case, logits) for logits in members], axis=0)
    labelled = case.grid.whole(np.mean(members, axis=0).astype(np.float16)).argmax(axis=0) > 0
    exercised = 0
    for at_least in (0.01, 0.1, 0.3):
        boxes, left_out = opinions.boxes(at_least, 0.0)
        outside = np.ones(case.full_shape, bool)
        for box in boxes:
            outside[box.slices] = False
        assert not labelled[outside].any()
        if outside.any():
            exercised += 1
            largest = seen[outside].max()
            assert largest <= at_least + 1e-3
            assert largest <= left_out * 1.001 + 1e-6, "more was left out than was said"
            assert left_out <= at_least + 1e-3
            if grid == "the CT's":
                assert left_out == pytest.approx(largest, rel=2e-3)
    assert exercised, "the comparison is empty: nothing was left out"


def test_slices_far_apart_do_not_hide_what_was_left_out(tmp_path):
    """Most planes of a fine grid reach no slice of a coarse CT: they are no excuse for the ones that do."""
    case = told_case((100, 20, 20), (10, 20, 20), (20.0, 1.5, 1.5))
    low = case.grid.maps[0].low
    seen = ((int(low[2]), 3, 3), (int(low[2]) + 1, 6, 6))
    faint = ((int(low[8]), 12, 12), (int(low[8]) + 1, 15, 15))
    unseen = ((int(low[5]) + 4, 3, 12), (int(low[5]) + 5, 6, 15))
    opinions = asked(tmp_path, [logits_with((100, 20, 20), {seen: 0.9, faint: 0.006, unseen: 0.9})], case)
    boxes, left_out = opinions.boxes(0.01, 0.0)
    assert boxes == [Box((2, 3, 3), (3, 6, 6))]
    assert left_out == pytest.approx(on_ct(case, logits_with((100, 20, 20), {faint: 0.006})).max(), rel=0.01)


def blobs(monkeypatch, spots):
    """The network's answer is replaced: two far structures and faint noise that differs between members."""

    def predict(self, case, progress):
        shape = tuple(case.data.shape[1:])
        for member in self.members:
            noise = np.random.default_rng(member.index).normal(0, 0.3, (3, *shape)).astype(np.float32)
            logits = torch.from_numpy(logits_with(shape, spots, background=6.0) + noise).half().permute(1, 0, 2, 3)
            progress.report((member.index + 1) / len(self.members), "told")
            yield member, (planes for planes in [(0, logits)])

    monkeypatch.setattr(MemberPredictor, "predict", predict)


@pytest.mark.parametrize("mode", ["pool_logit", "pool_prob"])
def test_every_box_holds_what_the_full_volume_holds_there(mode, tmp_path, monkeypatch):
    model = write_model(tmp_path, plans(), folds=(0, 1))
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(70, 60, 64), spacing=(1.0, 1.0, 1.3))
    blobs(monkeypatch, {((4, 5, 5), (9, 12, 12)): 0.95, ((36, 30, 32), (39, 34, 35)): 0.2})
    options = dict(mode=mode, mirroring=False, calibration="none", roi_mm=4.0, box_probability=0.03)
    boxed = segment(ct, model, tmp_path / "boxed", **options)
    full = segment(ct, model, tmp_path / "full", full_volume=True, **options)
    assert len(boxed.provenance["boxes"]) == 2
    assert full.provenance["left_out"]["largest_foreground_probability"] == 0.0
    assert full.provenance["boxes"] == [{"start_xyz": [0, 0, 0], "size_xyz": [64, 60, 70]}]
    np.testing.assert_array_equal(boxed.segmentation.array, full.segmentation.array)
    inside = np.zeros(full.segmentation.array.shape, bool)
    for box in boxed.provenance["boxes"]:
        start, size = box["start_xyz"][::-1], box["size_xyz"][::-1]
        inside[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    assert 0 < inside.mean() < 0.5
    names = [*boxed.labels, *(item["measure"] for item in boxed.provenance["maps"]["uncertainty"] if item["file"])]
    assert {"entropy", "mi"} <= set(names)
    largest = 0.0
    for name in names:
        whole = full.probability(name) if name in full.labels else full.uncertainty(name)
        part = boxed.probability(name) if name in full.labels else boxed.uncertainty(name)
        spread = part.embed_in(full.segmentation).array
        np.testing.assert_allclose(spread[inside], whole.array[inside], atol=2.0**-20)
        assert (spread[~inside] == 0).all()
        largest = max(largest, float(whole.array[~inside].max()) if name in full.labels else 0.0)
    said = boxed.provenance["left_out"]["largest_foreground_probability"]
    assert largest <= said + 1e-3 <= 0.04


def test_boxes_share_no_voxel_and_lose_none():
    generator = np.random.default_rng(0)
    for _ in range(30):
        starts = generator.integers(0, 60, (generator.integers(1, 40), 3))
        stops = starts + generator.integers(1, 12, starts.shape)
        boxes = [Box(tuple(a), tuple(b)) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        found = merged(boxes)
        assert len(found) <= MOST_BOXES
        assert all(any(box.within(other) == box for other in found) for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
        assert hull(found) == hull(boxes)


def test_two_small_boxes_far_apart_stay_two_and_halves_of_one_become_one():
    far = [Box((0, 0, 0), (5, 5, 5)), Box((50, 50, 50), (55, 55, 55))]
    assert merged(far) == far
    assert merged([Box((0, 0, 0), (5, 5, 5)), Box((5, 0, 0), (9, 5, 5))]) == [Box((0, 0, 0), (9, 5, 5))]


@pytest.mark.parametrize("density", [0.0, 1e-5, 1e-3, 0.05, 1.0])
def test_every_voxel_of_a_mask_has_a_place_and_places_are_tight(density):
    mask = np.random.default_rng(1).random((41, 70, 90)) < density
    found = places(mask)
    held = np.zeros(mask.shape, bool)
    for box in found:
        part = mask[box.slices]
        held[box.slices] = True
        for axis in range(3):
            ends = part.any(axis=tuple(a for a in range(3) if a != axis))
            assert ends[0]
            assert ends[-1]
    assert not (mask & ~held).any()
    assert (density == 0) == (found == [])


def test_ten_thousand_specks_are_few_boxes():
    mask = np.zeros((128, 160, 160), bool)
    mask[::8, ::16, ::16] = True
    mask[2::16, 4::16, 9::16] = True
    found = places(mask)
    assert 1 <= len(found) <= 60
    assert sum(int(np.count_nonzero(mask[box.slices])) for box in found) >= np.count_nonzero(mask)


def test_boxes_that_only_touch_share_no_voxel():
    box = Box((4, 4, 4), (8, 8, 8))
    assert not box.overlaps(Box((8, 4, 4), (12, 8, 8)))
    assert box.overlaps(Box((7, 4, 4), (12, 8, 8)))
    # a corner touches: the box around both would be twice as large as they are
    apart = [box, Box((8, 8, 8), (14, 14, 14))]
    assert merged(apart) == apart


def test_where_boxes_are_too_many_those_that_cost_least_become_one():
    boxes = [Box((0, 0, 40 * n), (2, 2, 40 * n + 2)) for n in range(MOST_BOXES)]
    near = Box((0, 0, 40 * 7 + 9), (2, 2, 40 * 7 + 11))
    expected = sorted([*boxes[:7], hull((boxes[7], near)), *boxes[8:]], key=lambda box: box.start)
    assert merged([*boxes, near]) == expected


def test_of_too_many_places_the_smallest_are_taken_together_and_none_is_lost():
    # along a diagonal, the larger the nearer to its beginning
    places_of = [tuple(slice(20 * n, 20 * n + 1 + (100 - n) // 7) for _ in range(3)) for n in range(100)]
    found = _strongest(places_of)
    assert len(found) == 60
    assert found[:59] == places_of[:59]
    assert found[59] == tuple(slice(places_of[59][0].start, places_of[99][0].stop) for _ in range(3))
