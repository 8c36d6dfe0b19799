"""All summaries of a map at once: the right ones in the right place, and an answer where there is nothing."""

import json
import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.aggregation import MOST_PIECES, aggregate
from CalibUncertaintyLib.uncertainty.aggregation_scores import boundary_band, distance_weighted, patch_score

SPACING = (2.0, 1.0, 1.5)
NAMES = {1: "Parotid", 2: "Brainstem", 3: "Chiasm"}


def scene(seed=0, shape=(12, 15, 16)):
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[1:9, 2:10, 3:11] = 1
    label[10, 12, 13] = 2
    label[3:5, 12:14, 1:3] = 1
    roi = np.zeros(shape, bool)
    roi[:, 1:14, :] = True
    return random.random(shape, np.float32), label, roi


def test_every_figure_of_a_case_is_of_the_voxels_it_names():
    u, label, _ = scene()
    found = aggregate(u, label, SPACING, NAMES, threshold=0.7)
    band, case = boundary_band(label), found["case"]
    assert found["status"] == "ok"
    assert case["voxels"] == u.size
    assert case["sum"] == pytest.approx(u.sum(dtype=float))
    assert case["mean"] == pytest.approx(u.mean(dtype=float))
    assert case["patch"] == pytest.approx(patch_score(u))
    assert case["patch_mean"] == pytest.approx(patch_score(u, mean=True))
    assert case["thresh"] == pytest.approx(u[u >= 0.7].mean(dtype=float))
    assert case["fg"] == pytest.approx(u[(label > 0) & ~band].mean(dtype=float))
    assert case["boundary"] == pytest.approx(u[band].mean(dtype=float))
    assert case["bg"] == pytest.approx(u[(label == 0) & ~band].mean(dtype=float))
    assert case["per_volume"] == pytest.approx(u.sum(dtype=float) / (label > 0).sum())
    assert case["dist_weighted"] == pytest.approx(distance_weighted(u, label, SPACING))
    assert case["pairwise_dice"] is None


def test_a_region_of_interest_limits_every_figure():
    u, label, roi = scene()
    found = aggregate(u, label, SPACING, NAMES, roi, 0.7)
    hidden = np.where(roi, u, 0).astype(np.float32)
    case, band = found["case"], boundary_band(label)
    assert case["voxels"] == roi.sum()
    assert case["mean"] == pytest.approx(u[roi].mean(dtype=float))
    assert case["patch"] == pytest.approx(patch_score(hidden))
    assert case["boundary"] == pytest.approx(u[roi & band].mean(dtype=float))
    changed = np.where(roi, u, u + 5).astype(np.float32)
    again = aggregate(changed, label, SPACING, NAMES, roi, 0.7)
    assert again["structures"] == found["structures"]
    assert {key: again["case"][key] for key in ("sum", "patch", "thresh", "fg", "bg")} == {
        key: found["case"][key] for key in ("sum", "patch", "thresh", "fg", "bg")
    }


def test_a_region_of_interest_that_cuts_a_structure_limits_its_pieces_and_its_entropy():
    u, label, roi = scene()
    roi[:, :, :5] = False  # the small piece is left out, the large one cut
    entropy = np.random.default_rng(9).random(u.shape, np.float32)
    found = aggregate(u, label, SPACING, NAMES, roi, entropy_of=lambda k: entropy)["structures"]["1"]
    inside = (label == 1) & roi
    assert (found["voxels"], found["component_count"]) == (inside.sum(), 1)
    (piece,) = found["components"]
    assert piece["volume_ml"] == pytest.approx(inside.sum() * 0.003)
    assert (piece["mean"], piece["max"]) == pytest.approx((u[inside].mean(dtype=float), u[inside].max()))
    assert found["seg_entropy_k"] == pytest.approx(entropy[inside].mean(dtype=float))


def test_the_worst_window_of_a_thin_image_is_as_thick_as_the_image():
    u, label, _ = scene()
    found = aggregate(u[:4], label[:4], SPACING, NAMES)["case"]
    assert found["patch"] == pytest.approx(patch_score(u[:4]))
    assert found["patch_mean"] == pytest.approx(patch_score(u[:4], mean=True)) == pytest.approx(found["patch"] / 400)


def test_every_figure_of_a_structure_is_of_its_voxels():
    u, label, _ = scene()
    entropy = np.random.default_rng(9).random(u.shape, np.float32)
    found = aggregate(u, label, SPACING, NAMES, entropy_of=lambda k: entropy * k)["structures"]
    parotid, band = found["1"], boundary_band(label == 1)
    assert (parotid["name"], parotid["status"]) == ("Parotid", "ok")
    assert parotid["voxels"] == (label == 1).sum()
    assert parotid["volume_ml"] == pytest.approx((label == 1).sum() * 0.003)
    assert parotid["mean"] == pytest.approx(u[label == 1].mean(dtype=float))
    assert parotid["sum"] == pytest.approx(u[label == 1].sum(dtype=float))
    assert parotid["max"] == pytest.approx(u[label == 1].max())
    assert parotid["fg"] == pytest.approx(u[(label == 1) & ~band].mean(dtype=float))
    assert parotid["boundary"] == pytest.approx(u[band].mean(dtype=float))
    assert parotid["seg_entropy_k"] == pytest.approx(entropy[label == 1].mean(dtype=float))
    assert [piece["volume_ml"] for piece in parotid["components"]] == pytest.approx([512 * 0.003, 8 * 0.003])
    assert parotid["component_count"] == 2
    assert found["2"]["seg_entropy_k"] == pytest.approx(2 * entropy[10, 12, 13])


def test_a_structure_of_one_voxel_has_no_inside_and_one_that_is_not_predicted_has_no_figure():
    u, label, _ = scene()
    found = aggregate(u, label, SPACING, NAMES)["structures"]
    one, none = found["2"], found["3"]
    assert (one["voxels"], one["fg"], one["component_count"]) == (1, None, 1)
    assert one["mean"] == one["max"] == pytest.approx(float(u[10, 12, 13]))
    assert (none["status"], none["voxels"], none["volume_ml"]) == ("not_predicted", 0, 0.0)
    assert [none[key] for key in ("mean", "max", "sum", "fg", "boundary", "seg_entropy_k")] == [None] * 6
    assert none["components"] == []
    assert set(none) == set(one)


def test_agreement_of_members_is_told_for_the_case_and_each_structure():
    u, label, _ = scene()
    other = label.copy()
    other[1] = 0
    found = aggregate(u, label, SPACING, NAMES, members=[label, other])
    overlap = 2 * 456 / (520 + 456)
    assert found["structures"]["1"]["pairwise_dice"] == pytest.approx(overlap)
    assert found["structures"]["1"]["vol_cv"] == pytest.approx(32 / 488)
    assert (found["structures"]["3"]["pairwise_dice"], found["structures"]["3"]["vol_cv"]) == (1.0, None)
    assert found["case"]["pairwise_dice"] == pytest.approx((overlap + 1.0) / 2)
    assert 0 < found["case"]["pairwise_dice_generalised"] <= 1
    alone = aggregate(u, label, SPACING, NAMES, members=[label])
    assert alone["case"]["pairwise_dice"] is None
    assert alone["structures"]["1"]["vol_cv"] is None


def test_where_nothing_is_predicted_the_image_is_summed_and_the_rest_is_unknown():
    u, label, _ = scene()
    found = aggregate(u, np.zeros_like(label), SPACING, NAMES, threshold=2.0)
    case = found["case"]
    assert found["status"] == "no_structure"
    assert case["bg"] == case["mean"] == case["dist_weighted"]
    assert (case["fg"], case["boundary"], case["per_volume"], case["thresh"]) == (None, None, None, 0.0)
    assert {figures["status"] for figures in found["structures"].values()} == {"not_predicted"}
    fallen_back = aggregate(u, np.zeros_like(label), SPACING, NAMES, fall_back=True)["case"]
    assert fallen_back["fg"] == fallen_back["boundary"] == fallen_back["mean"]
    roi = np.arange(u.size).reshape(u.shape) % 3 == 0
    inside = aggregate(u, np.zeros_like(label), SPACING, NAMES, roi, fall_back=True)["case"]
    assert inside["fg"] == inside["boundary"] == inside["mean"] == pytest.approx(u[roi].mean(dtype=float))


def test_an_empty_region_of_interest_has_no_figure_at_all():
    u, label, roi = scene()
    found = aggregate(u, label, SPACING, NAMES, np.zeros_like(roi), 0.5, members=[label, label])
    assert found["status"] == "empty_roi"
    figures = dict(found["case"])
    assert figures.pop("voxels") == 0
    assert {figures.pop(f"pairwise_dice{which}") for which in ("", "_min", "_generalised")} == {1.0}
    assert set(figures.values()) == {None}
    assert found["structures"]["1"]["voxels"] == 0


def test_the_answer_is_plain_json_and_short():
    random = np.random.default_rng(2)
    label = (random.random((24, 24, 24)) < 0.03).astype(np.uint16)
    found = aggregate(random.random(label.shape, np.float32), label, SPACING, {1: "Nodes"})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["structures"]["1"]["components"]) == MOST_PIECES < found["structures"]["1"]["component_count"]


def test_what_makes_no_sense_is_refused():
    u, label, roi = scene()
    with pytest.raises(ValueError, match="one shape"):
        aggregate(u[1:], label, SPACING, NAMES)
    with pytest.raises(ValueError, match="one shape"):
        aggregate(u, label, SPACING, NAMES, roi[1:])
    with pytest.raises(ValueError, match="spacing"):
        aggregate(u, label, (1.0, math.nan, 1.0), NAMES)
    broken = u.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        aggregate(broken, label, SPACING, NAMES)
    assert aggregate(broken, label, SPACING, NAMES, roi)["status"] == "ok"
