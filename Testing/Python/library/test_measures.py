"""Measures of uncertainty against formulas written out a second time, and at the ends of their ranges."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.measures import (
    CHUNK_VOXELS,
    MEASURES,
    MemberStatistics,
    binary_entropy,
    confidence_complement,
    entropy,
    expected_entropy,
    expected_error,
    margin,
    measures_of,
    mutual_information,
    mutual_information_of,
)


def random_probabilities(*shape: int, seed: int = 0, sharpness: float = 3.0) -> np.ndarray:
    """Dirichlet-like probabilities over the class axis (the last but the voxels): some flat, many nearly one-hot."""
    weights = np.random.default_rng(seed).gamma(1.0, size=shape) ** sharpness
    return (weights / weights.sum(axis=-4 if len(shape) > 3 else 0, keepdims=True)).astype(np.float32)


def plain_entropy(p: np.ndarray) -> float:
    return -sum(float(value) * math.log(float(value)) for value in p if value > 0)


@pytest.fixture
def p():
    return random_probabilities(6, 3, 4, 5)


@pytest.fixture
def members_p():
    return random_probabilities(4, 6, 3, 4, 5, seed=1)


def voxel_by_voxel(formula, p: np.ndarray) -> np.ndarray:
    return np.apply_along_axis(formula, 0, p.astype(np.float64))


def test_confidence_complement_is_one_less_the_highest_probability(p):
    assert confidence_complement(p) == pytest.approx(1 - p.max(axis=0), abs=1e-7)


def test_margin_is_one_less_the_gap_between_the_two_highest(p):
    expected = voxel_by_voxel(lambda column: 1 - (sorted(column)[-1] - sorted(column)[-2]), p)
    assert margin(p) == pytest.approx(expected, abs=1e-6)


def test_entropy_is_shannons(p):
    assert entropy(p) == pytest.approx(voxel_by_voxel(plain_entropy, p), abs=1e-6)


def test_expected_entropy_is_the_mean_of_the_members_entropies(members_p):
    expected = np.mean([voxel_by_voxel(plain_entropy, member) for member in members_p], axis=0)
    assert expected_entropy(members_p) == pytest.approx(expected, abs=1e-6)


def test_mutual_information_is_the_mean_divergence_of_members_from_their_mean(members_p):
    # The same quantity by another formula: mean over members of KL(p_m || mean).
    members = members_p.astype(np.float64)
    divergence = members * (np.log(np.maximum(members, 1e-300)) - np.log(members.mean(axis=0)))
    assert mutual_information(members_p) == pytest.approx(divergence.sum(axis=1).mean(axis=0), abs=2e-6)


def test_binary_entropy_is_that_of_one_class_against_the_rest(p):
    expected = voxel_by_voxel(plain_entropy, np.stack([p[2].astype(np.float64), 1 - p[2].astype(np.float64)]))
    assert binary_entropy(p[2]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("probability", [1e-30, 1e-12, 1e-7, 1e-3])
def test_binary_entropy_is_right_for_tiny_probabilities(probability):
    expected = -probability * math.log(probability) - (1 - probability) * math.log1p(-probability)
    assert float(binary_entropy(np.float32([probability]))[0]) == pytest.approx(expected, rel=1e-5)


def test_certainty_is_exactly_zero_in_every_measure():
    sure = np.eye(5, dtype=np.float32)[:, :, np.newaxis]
    for values in (confidence_complement(sure), margin(sure), entropy(sure), binary_entropy(sure[2]),
                   expected_entropy(np.stack([sure, sure])), mutual_information(np.stack([sure, sure]))):
        assert np.array_equal(values, np.zeros_like(values))


@pytest.mark.parametrize("classes", [2, 6, 25])
def test_a_flat_probability_reaches_the_upper_end_of_every_measure(classes):
    flat = np.full((classes, 2), 1 / classes, dtype=np.float32)
    found = {"conf": confidence_complement(flat), "margin": margin(flat), "entropy": entropy(flat),
             "exp_entropy": expected_entropy(np.stack([flat, flat])), "entropy_k": binary_entropy(np.float32([0.5]))}
    for name, values in found.items():
        assert values == pytest.approx(MEASURES[name].upper(classes, 2), abs=1e-6)


@pytest.mark.parametrize(("classes", "members"), [(2, 2), (6, 3), (3, 5)])
def test_members_that_contradict_each_other_with_certainty_reach_the_upper_end(classes, members):
    used = min(classes, members)
    sure = np.eye(classes, dtype=np.float32)[np.arange(used)][:, :, np.newaxis]
    assert mutual_information(sure) == pytest.approx(MEASURES["mi"].upper(classes, used), abs=1e-6)
    assert MEASURES["mi"].upper(classes, members) == pytest.approx(math.log(used))


def test_members_that_agree_have_no_mutual_information(p):
    assert mutual_information(np.stack([p, p, p])) == pytest.approx(0.0, abs=1e-6)


def test_no_value_leaves_its_range(members_p):
    mean = members_p.mean(axis=0)
    found = {"conf": confidence_complement(mean), "margin": margin(mean), "entropy": entropy(mean),
             "exp_entropy": expected_entropy(members_p), "mi": mutual_information(members_p),
             "entropy_k": binary_entropy(mean[1])}
    assert set(found) <= set(MEASURES)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.shape == (3, 4, 5)
        assert values.min() >= 0
        assert values.max() <= np.float32(MEASURES[name].upper(6, 4))


def test_a_single_member_has_no_mutual_information_and_says_so(p):
    statistics = MemberStatistics()
    statistics.add(p)
    assert statistics.status == "single_member"
    assert not statistics.mutual_information.any()
    assert statistics.expected_entropy == pytest.approx(entropy(p))
    assert MEASURES["mi"].status(1) == "single_member"
    assert MEASURES["exp_entropy"].status(1) == "ok"


def test_members_seen_one_at_a_time_give_the_same_as_all_at_once(members_p):
    statistics = MemberStatistics()
    for member in members_p:
        statistics.add(member)
    assert statistics.count == 4
    assert statistics.status == "ok"
    assert statistics.mean == pytest.approx(members_p.mean(axis=0), abs=1e-6)
    assert np.array_equal(statistics.mutual_information, mutual_information(members_p))
    assert np.array_equal(statistics.expected_entropy, expected_entropy(members_p))


def test_the_array_of_a_member_is_not_kept_or_changed(p):
    original = p.copy()
    statistics = MemberStatistics()
    statistics.add(p)
    statistics.add(p)
    assert np.array_equal(p, original)


def test_members_of_another_shape_are_refused(p):
    statistics = MemberStatistics()
    statistics.add(p)
    with pytest.raises(ValueError, match="shape"):
        statistics.add(p[:, :2])


def test_statistics_without_a_member_are_refused():
    with pytest.raises(ValueError, match="no member"):
        _ = MemberStatistics().mean


def test_chunks_leave_no_seam():
    p = random_probabilities(3, CHUNK_VOXELS * 2 + 17, seed=2)
    for measure in (confidence_complement, margin, entropy):
        ends = np.concatenate([measure(p[:, : CHUNK_VOXELS + 5]), measure(p[:, CHUNK_VOXELS + 5 :])])
        assert np.array_equal(measure(p), ends)
    members = np.stack([p, p[::-1]])
    ends = [mutual_information(members[..., :99]), mutual_information(members[..., 99:])]
    assert np.array_equal(mutual_information(members), np.concatenate(ends))


def test_slabs_and_other_dtypes_give_the_same(p):
    slab = p[:, 1:, :, ::2]
    assert np.array_equal(entropy(slab), entropy(np.ascontiguousarray(slab)))
    assert entropy(p.astype(np.float64)) == pytest.approx(entropy(p), abs=1e-6)
    assert margin(p.astype(np.float16)) == pytest.approx(margin(p), abs=2e-3)


def test_the_margin_of_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        margin(np.ones((1, 4), dtype=np.float32))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
def test_every_measure_tells_a_person_what_it_means(measure):
    assert MEASURES[measure.id] is measure
    assert measure.unit in ("nats", "probability", "probability squared") or measure.unit.startswith("of ")
    assert measure.sentence.startswith("Bright: ")
    assert measure.sentence.count(".") == 1
    # of regions no answer holds "all" of the probability: each has its own
    assert measure.sentence_for(False) == measure.sentence
    assert ("one or more structures" in measure.sentence_for(True)) == (measure.id in ("conf", "margin", "entropy"))
    for classes in (2, 6, 25):
        assert 0 < measure.default_threshold(classes) < measure.upper(classes, 5)


def regions_p(*shape: int, seed: int = 7) -> np.ndarray:
    """Probabilities of independent regions, many of them 0 and 1 exactly."""
    random = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-random.normal(scale=6.0, size=shape)))
    p[random.random(shape) < 0.2] = 0.0
    p[random.random(shape) < 0.2] = 1.0
    return p.astype(np.float32)


def over_regions(formula, p: np.ndarray) -> np.ndarray:
    """Mean over regions of a formula of the two classes (1 - p, p), written out voxel by voxel."""
    return np.mean([[formula(np.array([1 - value, value])) for value in region] for region in p.astype(np.float64)], axis=0)


def test_regions_give_the_mean_of_their_two_class_measures():
    p = regions_p(3, 400)
    assert confidence_complement(p, True) == pytest.approx(over_regions(lambda q: 1 - q.max(), p), abs=1e-6)
    assert margin(p, True) == pytest.approx(over_regions(lambda q: 1 - abs(q[1] - q[0]), p), abs=1e-6)
    assert entropy(p, True) == pytest.approx(over_regions(plain_entropy, p), abs=1e-6)
    assert entropy(p, True) == pytest.approx(binary_entropy(p).mean(axis=0), abs=1e-6)
    assert expected_error(p, True) == pytest.approx(np.minimum(p, 1 - p).max(axis=0), abs=1e-6)


def test_one_region_is_measured_as_a_softmax_of_two_classes(p):
    first = p[:1]
    both = np.concatenate([1 - first, first])
    for measure in (confidence_complement, margin, entropy, expected_error):
        assert measure(first, True) == pytest.approx(measure(both), abs=1e-6)
    assert np.array_equal(expected_error(both), confidence_complement(both))


def test_numbers_of_regions_worked_out_by_hand():
    p = np.array([[0.5, 1.0, 0.9], [0.0, 0.0, 0.2]], np.float32)
    assert confidence_complement(p, True) == pytest.approx([0.25, 0, 0.15])
    assert margin(p, True) == pytest.approx([0.5, 0, 0.3])
    assert entropy(p, True) == pytest.approx([math.log(2) / 2, 0, (0.325083 + 0.500402) / 2], abs=1e-6)
    assert expected_error(p, True) == pytest.approx([0.5, 0, 0.2])


def test_members_of_region_heads():
    members = regions_p(4, 3, 5, 40)
    flat = members.reshape(4, 3, -1)
    expected = np.mean([over_regions(plain_entropy, member) for member in flat], axis=0)
    of_mean = over_regions(plain_entropy, flat.mean(axis=0))
    assert expected_entropy(members, True).reshape(-1) == pytest.approx(expected, abs=1e-6)
    assert mutual_information(members, True).reshape(-1) == pytest.approx(of_mean - expected, abs=2e-6)
    # of each region by itself, then averaged: the other order gives the same
    alone = np.mean([mutual_information(members[:, c : c + 1], True) for c in range(3)], axis=0)
    assert mutual_information(members, True) == pytest.approx(alone, abs=2e-6)


def test_regions_reach_the_ends_of_their_ranges():
    halves = np.full((3, 4), 0.5, np.float32)
    opposed = np.stack([np.zeros((3, 4)), np.ones((3, 4))]).astype(np.float32)
    for name, values in measures_of(halves, True).items():
        assert values == pytest.approx(MEASURES[name].upper(3, 2, sigmoid=True), abs=1e-6)
    assert MEASURES["conf"].upper(3, 1, sigmoid=True) == 0.5
    assert mutual_information(opposed, True) == pytest.approx(MEASURES["mi"].upper(3, 2, sigmoid=True), abs=1e-6)
    assert MEASURES["mi"].upper(3, 9, sigmoid=True) == pytest.approx(math.log(2))
    members = regions_p(5, 3, 5000)
    for name, values in {
        "exp_entropy": expected_entropy(members, True), "mi": mutual_information(members, True), **measures_of(members[0], True),
    }.items():
        assert values.min() >= 0
        assert values.max() <= np.float32(MEASURES[name].upper(3, 5, sigmoid=True))


def test_mutual_information_from_running_means_is_that_of_the_members(members_p):
    regions = regions_p(4, 3, 6, 7)
    for members, sigmoid in ((members_p, False), (regions, True)):
        mean, expected = members.mean(axis=0), expected_entropy(members, sigmoid)
        found = mutual_information_of(mean, expected, len(members), sigmoid)
        assert found == pytest.approx(mutual_information(members, sigmoid), abs=1e-6)
        assert found.max() > 0.05
        assert not mutual_information_of(mean, expected, 1, sigmoid).any()
    with pytest.raises(ValueError, match="shape"):
        mutual_information_of(mean, expected[:-1], 4, True)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_pass_gives_what_the_single_measures_give(sigmoid):
    p = regions_p(5, 2, CHUNK_VOXELS) if sigmoid else random_probabilities(5, 2 * CHUNK_VOXELS).reshape(5, 2, -1)
    found = measures_of(p[:, :, 3:], sigmoid)
    assert list(found) == ["conf", "margin", "entropy"]
    for name, measure in (("conf", confidence_complement), ("margin", margin), ("entropy", entropy)):
        assert np.array_equal(found[name], measure(p[:, :, 3:], sigmoid))
        assert found[name].dtype == np.float32
    if not sigmoid:
        with pytest.raises(ValueError, match="two classes"):
            measures_of(p[:1])


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
def test_one_doubtful_region_alone_reaches_the_default_threshold(measure):
    """What marks a voxel of a single region also does when other regions, all certain, are beside it."""
    for regions in (1, 3, 25):
        assert 0 < measure.default_threshold(regions, sigmoid=True) < measure.upper(regions, 5, sigmoid=True)
    if measure.id in ("conf", "margin", "entropy"):
        alone = np.full((1, 1), 0.7, np.float32)
        among = np.concatenate([alone, np.zeros((2, 1), np.float32)])
        value = measures_of(among, True)[measure.id][0] / measure.default_threshold(3, sigmoid=True)
        assert value == pytest.approx(measures_of(alone, True)[measure.id][0] / measure.default_threshold(1, sigmoid=True))
        assert value > 1


def test_probabilities_rounded_beyond_one_leave_no_range_in_one_pass_either():
    p = np.float32([[np.nextafter(np.float32(1), np.float32(2)), 1.0], [0.0, 1e-9]])
    for values in (*measures_of(p).values(), confidence_complement(p), margin(p)):
        assert (values >= 0).all()


@pytest.mark.parametrize("tiny", [1e-20, 1e-12, 1e-9])
def test_entropy_sees_classes_that_are_next_to_impossible(tiny):
    p = np.float32([[1.0], [tiny], [0.0]])
    assert float(entropy(p)[0]) == pytest.approx(-tiny * math.log(tiny), rel=1e-5)


@pytest.mark.parametrize("regions", range(1, 30))
def test_undecided_regions_reach_the_upper_end_and_do_not_pass_it(regions):
    undecided = np.full((regions, 3), 0.5, np.float32)
    assert (entropy(undecided, sigmoid=True) <= np.float32(MEASURES["entropy"].upper(regions, 1, True))).all()
    assert entropy(undecided, sigmoid=True) == pytest.approx(math.log(2), abs=1e-6)
