"""Several maps in short: each figure against one that is taken voxel by voxel, whichever way the image lies."""

import json
import math
import weakref

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.aggregation import aggregate
from CalibUncertaintyLib.uncertainty.aggregation_of_maps import aggregate_maps
from CalibUncertaintyLib.uncertainty.interface_distance import distance_to_interfaces, signed_distance

SPACING = (3.0, 0.9, 1.2)
NAMES = {7: "Parotid", 2: "Brainstem", 300: "Chiasm", 4: "Lens"}


def scene(seed=0, shape=(13, 17, 15)):
    """300 has one voxel, 4 none, 9 has no name; 7 and 2 touch, 7 has a second piece."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    label[1:9, 2:11, 3:9] = 7
    label[2:8, 3:10, 9:13] = 2
    label[11, 14, 2] = 300
    label[10:12, 2:4, 2:4] = 7
    label[10:12, 8:11, 10:13] = 9
    maps = {"entropy": random.random(shape, np.float32), "residual": random.normal(size=shape).astype(np.float32)}
    probabilities = {number: random.random(shape, np.float32) for number in (7, 2, 4)}
    return maps, label, probabilities, random.random(shape) > 0.25


def summary(maps, label, spacing=SPACING, names=NAMES, probabilities=None, roi=None):
    return aggregate_maps(maps, label, distance_to_interfaces(label, spacing), spacing, names, probabilities, roi)


def neighbours(index, shape):
    for axis in range(3):
        for step in (-1, 1):
            beside = tuple(n + step * (axis == along) for along, n in enumerate(index))
            if all(0 <= n < size for n, size in zip(beside, shape, strict=True)):
                yield beside


def band_by_hand(label):
    surface = {v for v in np.ndindex(label.shape) if any(label[n] != label[v] for n in neighbours(v, label.shape))}
    return surface | {n for v in surface for n in neighbours(v, label.shape)}


def mean(values):
    return sum(values) / len(values) if values else None


def worst_window(u, roi, size=10):
    """The largest sum over any window inside the image, of the voxels in the ROI."""
    shown, sums = np.where(roi, u, 0).astype(np.float64), []
    window = [min(size, length) for length in u.shape]
    for corner in np.ndindex(*(length - w + 1 for length, w in zip(u.shape, window, strict=True))):
        sums.append(shown[tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))].sum())
    return max(sums)


def by_hand(maps, label, roi):
    """({measure: case figures}, {(label, measure): structure figures}) voxel by voxel."""
    band, case, structures = band_by_hand(label), {}, {}
    for measure, u in maps.items():
        own = {number: [] for number in NAMES}
        edge = {number: [] for number in NAMES}
        everything = []
        for voxel in np.ndindex(label.shape):
            if not roi[voxel]:
                continue
            everything.append(float(u[voxel]))
            number = int(label[voxel])
            if number in own:
                own[number].append(float(u[voxel]))
                if voxel in band:
                    edge[number].append(float(u[voxel]))
        case[measure] = {
            "mean_roi": mean(everything),
            "sum_roi": math.fsum(everything),
            "patch": worst_window(u, roi),
            "max": max(everything),
        }
        for number in NAMES:
            structures[number, measure] = {
                "mean_inside": mean(own[number]),
                "mean_boundary": mean(edge[number]),
                "max": max(own[number], default=None),
            }
    return case, structures


@pytest.mark.parametrize("region", ["everywhere", "speckled", "thin"])
def test_every_figure_is_that_of_the_voxels_it_names(region):
    maps, label, _, speckled = scene()
    thin = np.zeros_like(speckled)
    thin[4:6, 1:16, 12:14] = True
    roi = {"everywhere": np.ones_like(speckled), "speckled": speckled, "thin": thin}[region]
    found = summary(maps, label, roi=None if region == "everywhere" else roi)
    case, structures = by_hand(maps, label, roi)
    assert set(found["case"]) == set(maps)
    for measure in maps:
        assert_alike(found["case"][measure], case[measure])
        for number, name in NAMES.items():
            assert_alike(found["structures"][name]["measures"][measure], structures[number, measure])


def test_a_map_below_0_everywhere_has_its_worst_window_where_the_whole_image_has_it():
    maps, label, _, roi = scene()
    below = -maps["entropy"] - 0.1
    for region in (roi, np.indices(roi.shape)[2] > 12, np.indices(roi.shape)[0] == 0):
        found = summary({"residual": below}, label, roi=region)["case"]["residual"]["patch"]
        assert found == pytest.approx(worst_window(below, region), abs=1e-9)


def test_volumes_are_of_the_whole_image_and_entropy_of_the_voxels_in_the_region():
    maps, label, p, roi = scene()
    found = summary(maps, label, probabilities=p, roi=roi)["structures"]
    ml = 3.0 * 0.9 * 1.2 / 1000
    for number, name in NAMES.items():
        assert found[name]["volume_ml"] == pytest.approx(np.sum(label == number) * ml)
    for number in (7, 2):
        q = p[number][(label == number) & roi].astype(float)
        assert found[NAMES[number]]["mean_entropy_k"] == pytest.approx(
            -np.mean(q * np.log(q) + (1 - q) * np.log(1 - q)), rel=1e-5
        )
    for number in (7, 2, 4):
        assert found[NAMES[number]]["expected_volume_ml"] == pytest.approx(p[number].sum(dtype=float) * ml)
    assert found["Lens"]["mean_entropy_k"] is None
    assert found["Chiasm"]["expected_volume_ml"] is found["Chiasm"]["mean_entropy_k"] is None
    without = summary(maps, label, roi=roi)["structures"]["Parotid"]
    assert without["expected_volume_ml"] is None
    assert "mean_entropy_k" not in without


def test_it_agrees_with_the_long_summary_of_one_map():
    maps, label, p, roi = scene(3)
    short = summary(maps, label, probabilities=p, roi=roi)
    long = aggregate(maps["entropy"], label, SPACING, NAMES, roi)
    of_case = short["case"]["entropy"]
    assert [of_case[k] for k in ("mean_roi", "sum_roi", "patch")] == pytest.approx(
        [long["case"][k] for k in ("mean", "sum", "patch")]
    )
    for number, name in NAMES.items():
        figures, other = short["structures"][name]["measures"]["entropy"], long["structures"][str(number)]
        assert [figures["mean_inside"], figures["max"]] == pytest.approx([other["mean"], other["max"]])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_image_has_the_same_figures(axis):
    maps, label, p, roi = scene(4)

    def mirrored(arrays):
        return {key: np.flip(array, axis) for key, array in arrays.items()}

    found = summary(mirrored(maps), np.flip(label, axis), probabilities=mirrored(p), roi=np.flip(roi, axis))
    assert_alike(found, summary(maps, label, probabilities=p, roi=roi))


def test_other_numbers_for_the_same_structures_change_nothing():
    maps, label, p, roi = scene(5)
    new = {7: 1, 2: 60000, 300: 2, 4: 3, 9: 4}
    renumbered = np.zeros_like(label)
    for old, number in new.items():
        renumbered[label == old] = number
    names = {new[old]: name for old, name in NAMES.items()}
    found = summary(maps, renumbered, names=names, probabilities={new[k]: v for k, v in p.items()}, roi=roi)
    assert_alike(found, summary(maps, label, probabilities=p, roi=roi))


def test_larger_voxels_change_volumes_only():
    maps, label, p, roi = scene(6)
    small, large = (summary(maps, label, spacing, NAMES, p, roi) for spacing in (SPACING, (6.0, 0.9, 2.4)))
    assert small["case"] == large["case"]
    for name in NAMES.values():
        for volume in ("volume_ml", "expected_volume_ml"):
            before, after = small["structures"][name].pop(volume), large["structures"][name].pop(volume)
            assert (before, after) == (None, None) or after == pytest.approx(4 * before)
    assert small["structures"] == large["structures"]


def assert_alike(a, b):
    """The same but for the rounding of sums."""
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in b:
            assert_alike(a[key], b[key])
    else:
        assert a == (b if b is None else pytest.approx(b, rel=1e-9))


def test_one_map_is_held_at_a_time():
    maps, label, _, _ = scene()
    seen = []

    def one_by_one():
        for name, u in maps.items():
            assert all(earlier() is None for earlier in seen)
            copy = u.copy()
            seen.append(weakref.ref(copy))
            yielded = (name, copy)
            del copy
            yield yielded
            del yielded

    assert summary(one_by_one(), label) == summary(maps, label)
    assert len(seen) == 2


def test_signed_distances_and_views_that_are_not_contiguous_do_as_well():
    maps, label, p, roi = scene()
    expected = summary(maps, label, probabilities=p, roi=roi)
    assert aggregate_maps(maps, label, signed_distance(label, SPACING), SPACING, NAMES, p, roi) == expected
    swapped = {name: np.asfortranarray(u) for name, u in maps.items()}
    assert_alike(summary(swapped, np.asfortranarray(label), probabilities=p, roi=roi), expected)


def test_without_structures_the_case_is_still_summed_up():
    maps, label, p, _ = scene()
    found = summary(maps, np.zeros_like(label), probabilities=p)
    assert found["case"]["entropy"]["mean_roi"] == pytest.approx(maps["entropy"].mean(dtype=float))
    assert found["structures"]["Parotid"] == {
        "volume_ml": 0.0,
        "expected_volume_ml": pytest.approx(p[7].sum(dtype=float) * 3.24e-3),
        "measures": {measure: dict.fromkeys(("mean_inside", "mean_boundary", "max")) for measure in maps},
        "mean_entropy_k": None,
    }
    assert summary(maps, label, names={}) == {"structures": {}, "case": summary(maps, label)["case"]}
    assert summary({}, label)["case"] == {}


def test_an_empty_region_has_volumes_and_no_other_figure():
    maps, label, p, roi = scene()
    found = summary(maps, label, probabilities=p, roi=np.zeros_like(roi))
    assert found["case"] == {measure: dict.fromkeys(("mean_roi", "sum_roi", "patch", "max")) for measure in maps}
    assert found["structures"]["Parotid"]["volume_ml"] > 0
    assert set(found["structures"]["Parotid"]["measures"]["entropy"].values()) == {None}


def test_a_structure_of_one_voxel_is_all_boundary():
    maps, label, _, _ = scene()
    value = float(maps["entropy"][11, 14, 2])
    assert summary(maps, label)["structures"]["Chiasm"]["measures"]["entropy"] == {
        "mean_inside": value,
        "mean_boundary": value,
        "max": value,
    }
    single = np.full((1, 1, 1), 0.25, np.float32)
    found = summary({"entropy": single}, np.ones((1, 1, 1), np.uint8), names={1: "Lens"})
    assert found["case"]["entropy"] == {"mean_roi": 0.25, "sum_roi": 0.25, "patch": 0.25, "max": 0.25}
    # a structure that fills the image has no surface
    assert found["structures"]["Lens"]["measures"]["entropy"] == {
        "mean_inside": 0.25,
        "mean_boundary": None,
        "max": 0.25,
    }


def test_the_answer_is_plain_json():
    maps, label, p, roi = scene()
    found = summary(maps, label, probabilities=p, roi=roi)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_makes_no_sense_is_refused():
    maps, label, p, roi = scene()
    with pytest.raises(ValueError, match="entropy has shape"):
        summary({"entropy": maps["entropy"][1:]}, label)
    with pytest.raises(ValueError, match="roi has shape"):
        summary(maps, label, roi=roi[1:])
    with pytest.raises(ValueError, match="distance_to_interfaces has shape"):
        aggregate_maps(maps, label, np.zeros((2, 2, 2)), SPACING, NAMES)
    with pytest.raises(ValueError, match="probability has shape"):
        summary(maps, label, probabilities={7: p[7][:, 1:]})
    with pytest.raises(ValueError, match="above 0"):
        summary(maps, label, names={0: "Background"})
    with pytest.raises(ValueError, match="name of its own"):
        summary(maps, label, names={2: "Lens", 4: "Lens"})
    with pytest.raises(ValueError, match="spacing"):
        aggregate_maps(maps, label, np.zeros(label.shape), (1.0, 0.0, 1.0), NAMES)
    broken = maps["entropy"].copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(CalibUncertaintyError, match="map of entropy holds NaN"):
        summary({"entropy": broken}, label)
    roi[0, 0, 0] = False
    assert summary({"entropy": broken}, label, roi=roi)["case"]["entropy"]["mean_roi"] > 0
