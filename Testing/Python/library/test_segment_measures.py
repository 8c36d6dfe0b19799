"""Which measures `segment` computes and writes down, and that measures of disagreement are those of its members."""

import numpy as np
import pytest
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.interface_distance import signed_distance
from CalibUncertaintyLib.uncertainty.measures import MEASURES
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), folds=(0, 1, 2))


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz", direction=rotation(12), empty_border=3)


@pytest.fixture(scope="module")
def result(model, ct, tmp_path_factory):
    return segment(ct, model, tmp_path_factory.mktemp("out") / "result", mirroring=False)


@pytest.fixture(scope="module")
def everything(model, ct, tmp_path_factory):
    return segment(ct, model, tmp_path_factory.mktemp("all") / "result", measures="all", mirroring=False)


def _window(whole: Volume, part: Volume):
    return tuple(np.rint(whole.index_from_lps(part.origin_lps)).astype(int)), part.array.shape


def _computed(result):
    """Entries of what was computed, of the measures that look at one voxel at a time."""
    entries = result.provenance["maps"]["uncertainty"]
    return [item for item in entries if item["file"] is not None and MEASURES[item["measure"]].stage == "voxel"]


def test_what_is_not_asked_for_is_listed_and_says_how_to_get_it(result):
    assert [item["measure"] for item in _computed(result)] == ["conf", "margin", "entropy", "exp_entropy", "mi", "var"]
    for name in ("epkl", "rmi", "varratio"):
        entry = next(item for item in result.provenance["maps"]["uncertainty"] if item["measure"] == name)
        assert (entry["file"], entry["status"]) == (None, "not_computed")
        with pytest.raises(CalibUncertaintyError, match=f"{name} was not computed .* --measures all"):
            result.uncertainty(name)


def test_every_measure_of_disagreement_is_that_of_the_single_members(everything, result, model, ct, tmp_path):
    alone = [
        segment(ct, model, tmp_path / str(fold), folds=[fold], mirroring=False, full_volume=True) for fold in (0, 1, 2)
    ]
    box = _window(alone[0].distance, everything.distance)
    members = []
    for single in alone:
        p = np.stack([single.probability(label).crop(*box).array for label in single.labels]).astype(float)
        members.append(np.concatenate([1 - p.sum(axis=0, keepdims=True), p]).clip(1e-7, 1))
    members, mi = np.stack(members), everything.uncertainty("mi").array
    pairs = [(a * np.log(a / b)).sum(axis=0) for i, a in enumerate(members) for j, b in enumerate(members) if i != j]
    # probabilities are stored rounded down to multiples of 2^-20: below 1e-5 their logarithms say little
    clear = (members > 1e-4).all(axis=(0, 1))
    assert clear.mean() > 0.3
    epkl = everything.uncertainty("epkl").array
    assert np.quantile(np.abs(epkl - np.mean(pairs, axis=0))[clear], 0.999) < 0.02
    np.testing.assert_allclose(everything.uncertainty("rmi").array, epkl - mi, atol=1e-5)
    np.testing.assert_allclose(everything.uncertainty("var").array, members.var(axis=0).mean(axis=0), atol=1e-3)
    labels = members.argmax(axis=1)
    votes = np.max([(labels == label).sum(axis=0) for label in range(members.shape[1])], axis=0)
    first, second = np.sort(members, axis=1)[:, -1], np.sort(members, axis=1)[:, -2]
    sure = (first - second > 1e-2).all(axis=0)
    np.testing.assert_allclose(everything.uncertainty("varratio").array[sure], 1 - votes[sure] / 3, atol=1e-5)
    assert (votes[sure] == 2).any()
    for name in ("entropy", "mi", "var"):
        np.testing.assert_array_equal(everything.uncertainty(name).array, result.uncertainty(name).array)


def test_ranges_and_colour_scales_of_all_measures(everything):
    assert len(_computed(everything)) == 9
    for item in _computed(everything):
        values = everything.uncertainty(item["measure"]).array
        assert 0 <= values.min() < values.max() <= item["range"][1] + 1e-5
        assert 0 < item["threshold"] < item["scale"][1] <= item["range"][1]
        assert item["status"] == "ok"
    scales = {item["measure"]: item["scale"][1] for item in _computed(everything)}
    assert (scales["epkl"], scales["mi"], scales["entropy"]) == (1.0, 0.4, pytest.approx(np.log(3)))


def test_measures_may_be_named_and_that_of_the_regions_is_always_computed(model, ct, result, tmp_path):
    few = segment(ct, model, tmp_path / "out", measures=["rmi"], measure="varratio", mirroring=False, folds=[0, 1])
    assert [item["measure"] for item in _computed(few)] == ["rmi", "varratio"]
    assert few.provenance["threshold"]["measure"] == "varratio"
    assert few.provenance["threshold"]["unit"] == "of the networks"
    assert all(region.peak == pytest.approx(0.5, abs=1e-5) for region in few.regions if region.kind != "possible_miss")


@pytest.mark.parametrize("measures", ["epkl", "some", ["mi", "mutual"], ["entropy_k"], 3, [1]])
def test_measures_that_there_are_not_are_refused_in_one_line(measures, model, ct, tmp_path):
    with pytest.raises(
        CalibUncertaintyError, match=r"^measures .* is unknown; choose standard, all, or a list of"
    ) as refusal:
        segment(ct, model, tmp_path / "out", measures=measures)
    assert "\n" not in str(refusal.value)


def test_a_single_member_is_refused_by_name_and_listed_as_such_otherwise(model, ct, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="epkl compares several members and only one is used"):
        segment(ct, model, tmp_path / "asked", folds=[0], mirroring=False, measures=["entropy", "epkl"])
    everything = segment(ct, model, tmp_path / "all", folds=[0], mirroring=False, measures="all")
    assert [item["measure"] for item in _computed(everything)] == ["conf", "margin", "entropy", "exp_entropy"]
    statuses = {item["measure"]: item["status"] for item in everything.provenance["maps"]["uncertainty"]}
    assert {statuses[name] for name in ("mi", "epkl", "rmi", "var", "varratio")} == {"single_member"}


def test_thin_structures_are_warned_of_where_distance_aware_entropy_is_written(result, model, ct, tmp_path):
    label = result.segmentation
    distance = np.abs(signed_distance(label.array, label.spacing_zyx))[label.array > 0]
    assert (distance < 3.0).mean() >= 0.95  # so small is everything in the tiny model's CT
    warned = [warning for warning in result.provenance["warnings"] if "structures are thin" in warning]
    assert len(warned) == 1
    assert f"{int(100 * (distance < 3.0).mean())} % of their voxels" in warned[0]
    without = segment(ct, model, tmp_path / "without", measures=["conf"], mirroring=False)
    assert not [warning for warning in without.provenance["warnings"] if "structures are thin" in warning]
