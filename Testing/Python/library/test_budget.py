"""A reader's budget becomes a threshold that never flags more, and counting once answers every question."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.budget import ValueCounts
from CalibUncertaintyLib.value_codes import codes_of, values_of


def scene(seed, shape=(7, 9, 11), ties=False):
    random = np.random.default_rng(seed)
    u = (random.random(shape) ** 3).astype(np.float32)
    if ties:
        u = np.round(u * 4) / 4
    return values_of(codes_of(u)), random.random(shape) > 0.3


@pytest.mark.parametrize("ties", [False, True])
def test_what_lies_above_a_threshold_is_counted_as_by_hand(ties):
    u, roi = scene(0, ties=ties)
    counts = ValueCounts.of(u, roi, 0.25)
    assert counts.voxels == roi.sum()
    for t in [0.0, 1e-9, *u.ravel()[:40].tolist(), 1.0, 5.0, 300.0, math.inf]:
        above = int((u[roi] >= t).sum()) if t >= 2.0**-24 else int(roi.sum())
        assert counts.voxels_above(t) == above
        assert counts.volume_above(t) == above * 0.25
        assert counts.share_above(t) == above / roi.sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_a_budget_is_used_as_far_as_ties_allow_and_never_exceeded(seed, ties):
    u, roi = scene(seed, ties=ties)
    counts, inside = ValueCounts.of(u, roi, 0.002), np.sort(u[roi])[::-1]
    for ml in np.random.default_rng(seed).uniform(0, 0.002 * roi.sum(), 25):
        found = counts.threshold_for_volume(ml)
        assert found.volume_ml <= ml + 1e-9
        assert found.voxels == (u[roi] >= found.value).sum()
        # by hand: of all values that occur (above 0), the lowest whose voxels fit
        fitting = [t for t in np.unique(inside[inside > 0]) if (inside >= t).sum() * 0.002 <= ml + 1e-9]
        assert found.value == (min(fitting) if fitting else math.inf)
        share = counts.threshold_for_share(ml / (0.002 * roi.sum()))
        assert share == found


def test_the_edges_have_defined_answers():
    u = np.array([0, 0, 0.5, 0.5, 0.5, 0.25], np.float32)
    counts = ValueCounts.of(u, None, 1.0)
    assert counts.threshold_for_volume(3).value == 0.5
    assert counts.threshold_for_volume(2).status == "tie"
    assert counts.threshold_for_volume(2).value == math.inf
    larger = counts.threshold_for_volume(100)
    assert (larger.value, larger.voxels, larger.status) == (0.25, 4, "everything")
    assert counts.threshold_for_share(1.0) == larger
    assert counts.threshold_for_volume(0).voxels == 0
    assert counts.threshold_for_volume(0).status == "ok"
    assert counts.volume_above(0.6) == 0
    nothing = ValueCounts.of(u, np.zeros(6, bool), 1.0)
    assert nothing.threshold_for_volume(1).status == "empty_roi"
    assert math.isnan(nothing.threshold_for_share(0.1).value)
    assert math.isnan(nothing.quantile(0.5))
    assert math.isnan(nothing.share_above(0.1))
    sure = ValueCounts.of(np.zeros(5, np.float32), None, 1.0).threshold_for_share(0.5)
    assert (sure.voxels, sure.status) == (0, "everything")
    for found in (larger, nothing.threshold_for_volume(1), counts.threshold_for_volume(2)):
        assert found.sentence().endswith(".")


def test_quantiles_are_the_least_values_that_enough_voxels_do_not_exceed():
    u, roi = scene(3)
    counts, inside = ValueCounts.of(u, roi, 1.0), np.sort(u[roi])
    for q in (0.0, 0.1, 0.5, 0.95, 0.999, 1.0):
        rank = max(1, math.ceil(q * inside.size - 1e-9))
        assert counts.quantile(q) == inside[rank - 1]


def test_pieces_add_up_and_bad_input_is_refused():
    u, roi = scene(5)
    whole, pieces = ValueCounts.of(u, roi, 1.0), ValueCounts(1.0)
    for plane, mask in zip(u, roi, strict=True):
        pieces.add(plane, mask)
    assert pieces.threshold_for_share(0.07) == whole.threshold_for_share(0.07)
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        pieces.add(np.array([np.nan], np.float32))
    pieces.add(np.array([np.nan], np.float32), np.array([False]))
    for wrong in (lambda: ValueCounts(0.0), lambda: whole.threshold_for_share(1.5), lambda: whole.threshold_for_volume(-1),
                  lambda: whole.quantile(2), lambda: whole.voxels_above(math.nan), lambda: whole.add(u, roi[1:])):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()


def test_a_budget_of_whole_voxels_is_used_up_whatever_the_rounding():
    counts = ValueCounts.of(np.float32([0.5, 0.4, 0.3, 0.2, 0.1]), None, 0.1)
    assert 0.3 / 0.1 < 3  # in floating point
    assert counts.threshold_for_volume(0.3).voxels == 3
    assert counts.threshold_for_share(0.6).voxels == 3


def test_voxels_added_after_a_question_count_in_the_next_answer():
    counts = ValueCounts.of(np.float32([0.5, 0.25]), None, 1.0)
    assert (counts.voxels, counts.voxels_above(0.5)) == (2, 1)
    counts.add(np.float32([0.75, 0.5]))
    assert (counts.voxels, counts.voxels_above(0.5)) == (4, 3)
