"""Dice after correcting the most uncertain voxels, against doing the edit on the arrays."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation.edit_saving import EditCounts, edit_saving
from CalibUncertaintyLib.value_codes import codes_of, values_of

CLASSES = 4


def make_case(seed: int, voxels: int = 2000, ties: bool = False) -> tuple:
    """u, label, reference of a region, and label, reference outside it; class 3 is rare."""
    random = np.random.default_rng(seed)
    reference = random.choice(CLASSES, voxels + 500, p=[0.6, 0.25, 0.13, 0.02])
    wrong = random.random(reference.size) < 0.15
    label = np.where(wrong, random.integers(0, CLASSES, reference.size), reference)
    if ties:
        u = np.floor(random.random(voxels) * 8 + 2 * wrong[:voxels]) / 8
    else:
        u = values_of(20000 + np.argsort(random.permutation(voxels) + 900 * wrong[:voxels]).argsort())
    return u.astype(np.float32), label[:voxels], reference[:voxels], label[voxels:], reference[voxels:]


def counted(u, label, reference, label_outside, reference_outside) -> EditCounts:
    counts = EditCounts(CLASSES)
    counts.add(u, label, reference)
    counts.add_outside(label_outside, reference_outside)
    return counts


def dice_of(label, reference, number: int) -> float:
    return (
        2 * ((label == number) & (reference == number)).sum() / ((label == number).sum() + (reference == number).sum())
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.333, 1.0])
def test_dice_after_the_edit_is_that_of_the_edited_labels(seed, share):
    u, label, reference, *outside = make_case(seed)
    assert np.unique(codes_of(u)).size == u.size
    found = edit_saving(counted(u, label, reference, *outside), share)
    edited = label.copy()
    top = np.argsort(-u)[: math.ceil(round(share * u.size, 6))]
    edited[top] = reference[top]
    all_label, all_edited = np.concatenate([label, outside[0]]), np.concatenate([edited, outside[0]])
    all_reference = np.concatenate([reference, outside[1]])
    before = [dice_of(all_label, all_reference, number) for number in range(1, CLASSES)]
    after = [dice_of(all_edited, all_reference, number) for number in range(1, CLASSES)]
    assert [row["before"] for row in found["classes"].values()] == pytest.approx(before)
    assert [row["after"] for row in found["classes"].values()] == pytest.approx(after)
    assert found["dice_before"] == pytest.approx(np.mean(before))
    assert found["saving"] == pytest.approx(np.mean(after) - np.mean(before))
    assert found["corrected"] == top.size
    assert found["errors_corrected"] == pytest.approx((label[top] != reference[top]).sum())
    best = np.concatenate([reference, outside[0]])
    assert found["dice_all"] == pytest.approx(np.mean([dice_of(best, all_reference, c) for c in range(1, CLASSES)]))


def test_equal_values_are_corrected_by_the_part_of_them_that_fits():
    u, label, reference, *outside = make_case(5, ties=True)
    random = np.random.default_rng(0)
    found = edit_saving(counted(u, label, reference, *outside), 0.05)
    after, corrected = [], []
    for _ in range(400):
        edited = label.copy()
        top = np.lexsort((random.random(u.size), -u))[:100]
        edited[top] = reference[top]
        corrected.append((label[top] != reference[top]).sum())
        labels, references = np.concatenate([edited, outside[0]]), np.concatenate([reference, outside[1]])
        after.append(np.mean([dice_of(labels, references, number) for number in range(1, CLASSES)]))
    assert abs(found["errors_corrected"] - np.mean(corrected)) <= 5 * np.std(corrected) / 20
    # Dice is no straight line in the counts, so beside the chance of the draws a little is allowed
    assert abs(found["dice_after"] - np.mean(after)) <= 5 * np.std(after) / 20 + 1e-4
    flat = edit_saving(counted(np.zeros(u.size), label, reference, *outside), 0.05)
    assert flat["saving"] == pytest.approx(flat["random_saving"])
    assert flat["random_saving"] == pytest.approx(found["random_saving"])
    assert found["random_saving"] < found["saving"] < found["dice_all"] - found["dice_before"]


def test_a_structure_neither_drawn_nor_predicted_is_left_out_of_the_mean():
    counts = EditCounts(3)
    counts.add(np.float32([3, 2, 1]), np.array([1, 0, 0]), np.array([1, 1, 0]))
    found = edit_saving(counts, 0.0)
    assert found["dice_before"] == pytest.approx(2 / 3)
    assert found["classes"]["2"]["status"] == "both_empty"
    nothing = edit_saving(EditCounts(3), 0.05)
    assert math.isnan(nothing["dice_before"])
    assert math.isnan(nothing["saving"])


def test_a_structure_drawn_by_mistake_is_right_once_all_of_it_is_taken_away():
    counts = EditCounts(2)
    counts.add(np.float32([3, 2, 1, 1]), np.array([1, 1, 0, 0]), np.zeros(4, int))
    found = edit_saving(counts, 0.5)
    assert (found["dice_before"], found["dice_after"]) == (0.0, 1.0)


def test_merged_cases_and_chunks_count_as_all_voxels_together(monkeypatch):
    first, second = make_case(1), make_case(2)
    together = counted(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
    monkeypatch.setattr("CalibUncertaintyLib.evaluation.edit_saving.CHUNK_VOXELS", 333)
    merged = counted(*first)
    merged.merge(counted(*second))
    assert edit_saving(merged, 0.07) == edit_saving(together, 0.07)
    with pytest.raises(ValueError):
        merged.merge(EditCounts(2))


def test_wrong_input_is_refused_and_nothing_is_counted():
    counts, fine = EditCounts(2), np.zeros(2, int)
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        counts.add(np.array([math.nan, 1]), fine, fine)
    for wrong in (np.array([0, 2]), np.array([-1, 0])):
        with pytest.raises(CalibUncertaintyError, match="outside 0 to 1"):
            counts.add(np.ones(2), fine, wrong)
    with pytest.raises(ValueError):
        counts.add(np.ones(3), fine, fine)
    with pytest.raises(ValueError):
        EditCounts(1)
    assert counts.voxels.sum() == counts.labelled.sum() == 0


@pytest.mark.parametrize("share", [0.00123, 0.0123, 0.5])
def test_an_order_that_says_nothing_corrects_as_much_as_no_order(share):
    _, label, reference, *outside = make_case(7)
    found = edit_saving(counted(np.full(label.shape, 0.5), label, reference, *outside), share)
    # the budget is rounded up to whole voxels in both
    assert found["corrected"] == math.ceil(share * label.size)
    assert found["saving"] == pytest.approx(found["random_saving"], abs=1e-12)
    assert found["saving"] > 0
