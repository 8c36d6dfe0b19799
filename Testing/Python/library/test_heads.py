"""What the channels of a network mean, held against nnU-Net's own LabelManager."""

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.heads import CHUNK_VOXELS, Heads, first_argmax, region_truth

PLAIN = {"background": 0, "liver": 1, "tumour": 2}
NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def heads_of(labels: dict, order=None, path="model/dataset.json") -> Heads:
    return Heads.of(labels, order, path)


def stock(labels: dict, order=None):
    """nnU-Net's own reading of the same dataset.json."""
    manager = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling").LabelManager
    return manager(labels, order)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (PLAIN, None),
        (PLAIN | {"ignore": 3}, None),
        ({"background": 0, "tumour": 2, "liver": 1}, None),
        ({"background": 0, "liver": [1], "tumour": "2"}, None),  # lists of one number alone do not make regions
        (NESTED, [1, 2, 3]),
        (NESTED | {"ignore": 4}, [1, 2, 3]),
        ({"background": 0, "whole": [1, 2], "rim": [1], "core": 2}, (3, 1, 2)),  # but beside a region they are ones
        ({"background": 0, "nothing": [0, 0], "whole": [1, 2]}, [1]),
        ({"background": 0, "odd": [1, 1], "other": 2}, [2, 1]),
        ({"background": 0, "first": [1, 3], "second": [3, 7]}, [300, 5]),
    ],
)
def test_channels_and_segmentation_are_stock_nnunets(labels, order):
    heads, theirs = heads_of(labels, order), stock(labels, order)
    assert heads.sigmoid == theirs.has_regions
    assert heads.channels == theirs.num_segmentation_heads
    logits = np.random.default_rng(0).normal(size=(heads.channels, 3, 50, 130)).astype(np.float32)
    assert logits[0].size > CHUNK_VOXELS
    p = np.asarray(theirs.apply_inference_nonlin(logits))
    expected = theirs.convert_probabilities_to_segmentation(p)
    assert np.array_equal(heads.label_of(p), expected)
    assert np.array_equal(heads.label_of_logits(logits), expected)
    assert np.array_equal(heads.label_of_logits(logits.astype(np.float16)), heads.label_of(logits.astype(np.float16))) or (
        heads.sigmoid  # whose half is at 0 in one and at 0.5 in the other
    )
    assert heads.label_of(p).dtype == (np.uint16 if 300 in heads.values else np.uint8)


def test_names_and_numbers_follow_the_labels():
    assert heads_of({"background": 0, "tumour": 2, "ignore": 3, "liver": 1}) == Heads(("liver", "tumour"), (1, 2), False)
    regions = heads_of({"core": [2, 3], "background": 0, "whole": [1, 2, 3], "ignore": 4}, [1, 2])
    assert regions == Heads(("core", "whole"), (1, 2), True)
    assert (regions.channels, heads_of(PLAIN).channels) == (2, 3)


def test_later_regions_overwrite_earlier_ones_and_one_half_is_outside():
    heads = heads_of(NESTED, [3, 1, 2])
    p = np.array([[0.9, 0.9, 0.9, 0.5, 0.2], [0.4, 0.6, 0.6, 0.5, 0.51], [0.1, 0.2, 0.7, 0.5, 0.1]])
    assert heads.label_of(p).tolist() == [3, 1, 2, 0, 1]
    assert heads.label_of_logits(np.log(p) - np.log1p(-p)).tolist() == [3, 1, 2, 0, 1]


def test_foreground_and_structures():
    p = np.array([[0.7, 0.1], [0.2, 0.3], [0.1, 0.6]], np.float32)
    plain, regions = heads_of(PLAIN), heads_of(NESTED, [1, 2, 3])
    assert plain.foreground(p) == pytest.approx([0.3, 0.9])
    assert regions.foreground(p) == pytest.approx([0.7, 0.6])
    assert np.array_equal(plain.structures(p), p[1:])
    assert np.array_equal(regions.structures(p), p)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [2, 25, 300])
def test_the_first_of_equal_scores_is_taken(dtype, channels):
    scores = np.random.default_rng(1).integers(0, 9, size=(channels, CHUNK_VOXELS + 77)).astype(dtype)
    found = first_argmax(scores)
    assert np.array_equal(found, scores.argmax(axis=0))
    assert found.dtype == (np.uint8 if channels <= 256 else np.uint16)


def test_doubles_are_not_rounded_before_they_are_compared():
    assert first_argmax(np.array([[1.0], [1.0 + 1e-12]])).tolist() == [1]
    assert heads_of(NESTED, [1, 2, 3]).label_of(np.full((3, 1), 0.5 + 1e-12)).tolist() == [3]


def test_scores_of_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        heads_of(NESTED, [1, 2, 3]).label_of(np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (None, "regions_class_order"),
        ([1, 2], "2 entries for 3 regions"),
        ([1, 2, 3, 4], "4 entries for 3 regions"),
        ([], "0 entries"),
        ([1, 2, 2], "number 2 to several"),
        ([0, 1, 2], "whole numbers from 1"),
        ([1, 2, 3.5], "whole numbers from 1"),
        ([1, 2, 70000], "whole numbers from 1"),
        ("123", "whole numbers from 1"),
        ({"whole": 1}, "whole numbers from 1"),
    ],
)
def test_an_order_that_does_not_fit_the_regions_is_refused(order, said):
    with pytest.raises(CalibUncertaintyError, match=said) as caught:
        heads_of(NESTED, order)
    assert str(caught.value).startswith("model/dataset.json: ")
    assert "copy" in str(caught.value) or "give" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"whole": [1, 2], "core": 2}, "no background"),
        ({"background": [0], "whole": [1, 2]}, "no background"),
        ({"background": 0, "whole": [1, "x"]}, "whole the value"),
        ({"background": 0, "whole": [1, 2], "core": []}, "core the value"),
        ({"background": 0, "whole": [1, 2], "core": -1}, "core the value"),
        ({"background": 0, "whole": [1, 2], "ignore": 2}, "after the highest label"),
        ({"background": 0, "whole": [1, 2], "ignore": [3]}, "after the highest label"),
        ({"background": 0}, "no structure"),
    ],
)
def test_labels_that_nnunet_could_not_read_are_refused(labels, said):
    with pytest.raises(CalibUncertaintyError, match=said) as caught:
        heads_of(labels, [1])
    assert str(caught.value).startswith("model/dataset.json")


def test_the_truth_of_a_region_is_every_label_it_lists():
    labels = np.array([[0, 1], [2, 3]])
    truth = region_truth(labels, NESTED | {"ignore": 4})
    assert truth.dtype == bool
    assert truth.tolist() == [
        [[False, True], [True, True]],
        [[False, False], [True, True]],
        [[False, False], [False, True]],
    ]
