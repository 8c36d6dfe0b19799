"""Measures of disagreement against double loops over pairs of members, and against definitions written out a second time."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.catalogue import LOG_CLIP, MEASURES
from CalibUncertaintyLib.uncertainty.chunks import CHUNK_VOXELS
from CalibUncertaintyLib.uncertainty.disagreement import (
    NEEDS,
    disagreement_of,
    expected_pairwise_divergence,
    expected_pairwise_divergence_of,
    reverse_mutual_information,
    variance,
    variance_of,
    variation_ratio,
    variation_ratio_of,
)
from CalibUncertaintyLib.uncertainty.measures import MemberStatistics, expected_entropy, mutual_information
from CalibUncertaintyLib.uncertainty.member_statistics import EXTRAS

FUNCTIONS = {
    "epkl": expected_pairwise_divergence, "rmi": reverse_mutual_information, "var": variance, "varratio": variation_ratio,
}  # fmt: skip
EPS = 1e-7


def softmax_members(members, classes, voxels, seed=0, scale=4.0):
    """(M, C, voxels) float32; a fifth of the voxels one-hot in some members, a fifth the same in all of them."""
    random = np.random.default_rng(seed)
    z = random.normal(0, scale, (members, classes, voxels))
    alike = random.random(voxels) < 0.2
    z[:, :, alike] = z[:1, :, alike]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    sure = (random.random((members, voxels)) < 0.3) & (random.random(voxels) < 0.2)
    one_hot = np.eye(classes)[random.integers(0, classes, (members, voxels))].transpose(0, 2, 1)
    return np.where(sure[:, np.newaxis], one_hot, p).astype(np.float32)


def region_members(members, regions, voxels, seed=0):
    random = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-random.normal(0, 5, (members, regions, voxels))))
    p[random.random(p.shape) < 0.1] = 0.0
    p[random.random(p.shape) < 0.1] = 1.0
    return p.astype(np.float32)


# --- the definitions, one voxel at a time, in double precision -------------------------------------------------------------------


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(max(b, EPS))) for a, b in zip(p, q, strict=True) if a > 0)


def pairwise(p):
    """p: (M, C) of one voxel."""
    pairs = [(m, n) for m in range(len(p)) for n in range(len(p)) if m != n]
    return sum(divergence(p[m], p[n]) for m, n in pairs) / len(pairs)


def information(p):
    """Mean divergence of the members from their mean: mutual information by another formula."""
    mean = [sum(column) / len(p) for column in zip(*p, strict=True)]
    return sum(a * math.log(a / b) for member in p for a, b in zip(member, mean, strict=True) if a > 0) / len(p)


def spread(p):
    """Half the mean squared distance of two members that are drawn with replacement, over the classes."""
    m = len(p)
    return sum((p[i][c] - p[j][c]) ** 2 for i in range(m) for j in range(m) for c in range(len(p[0]))) / (
        2 * m * m * len(p[0])
    )


def dissent(p):
    labels = [max(range(len(member)), key=lambda c: (member[c], -c)) for member in p]
    return 1 - max(labels.count(label) for label in labels) / len(labels)


DEFINITIONS = {
    "epkl": pairwise, "mi": information, "rmi": lambda p: max(0.0, pairwise(p) - information(p)), "var": spread,
    "varratio": dissent,
}  # fmt: skip


def voxel_by_voxel(formula, members, sigmoid=False):
    members = np.asarray(members, np.float64)
    found = []
    for voxel in range(members.shape[2]):
        if sigmoid:
            regions = [[[1 - p, p] for p in members[:, region, voxel]] for region in range(members.shape[1])]
            found.append(np.mean([formula(region) for region in regions]))
        else:
            found.append(formula(members[:, :, voxel].tolist()))
    return np.array(found)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("members", "classes"), [(2, 2), (3, 6), (8, 3), (5, 25)])
def test_softmax_heads_agree_with_loops_over_members_and_pairs(name, members, classes):
    p = softmax_members(members, classes, 150, seed=members)
    expected = voxel_by_voxel(DEFINITIONS[name], p)
    found = FUNCTIONS[name](p)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5 if name in ("epkl", "rmi") else 1e-6)
    assert expected.max() > 0.3 * MEASURES[name].shown(classes, members), "the comparison is empty: the members agree"
    assert (expected < 1e-6).any()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("members", [2, 5])
def test_region_heads_are_the_mean_over_regions_of_their_two_classes(name, members):
    p = region_members(members, 3, 200, seed=members)
    expected = voxel_by_voxel(DEFINITIONS[name], p, sigmoid=True)
    assert FUNCTIONS[name](p, True) == pytest.approx(expected, abs=1e-5 if name in ("epkl", "rmi") else 1e-6)
    alone = np.mean([FUNCTIONS[name](p[:, c : c + 1], True) for c in range(3)], axis=0)
    assert FUNCTIONS[name](p, True) == pytest.approx(alone, abs=2e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_region_is_a_softmax_of_two_classes(name):
    p = region_members(4, 1, 400)
    p = np.where(p == 0.5, np.float32(0.4), p)
    assert FUNCTIONS[name](p, True) == pytest.approx(FUNCTIONS[name](np.concatenate([1 - p, p], axis=1)), abs=1e-5)


def test_pairs_of_a_member_with_itself_scale_the_divergence():
    p = softmax_members(5, 4, 300)
    m = len(p)
    every_pair = voxel_by_voxel(lambda q: sum(divergence(a, b) for a in q for b in q) / m**2, p)
    with_self = expected_pairwise_divergence(p, all_pairs_with_self=True)
    assert with_self == pytest.approx(every_pair, abs=1e-5)
    assert with_self == pytest.approx((m - 1) / m * expected_pairwise_divergence(p), abs=1e-5)


def test_the_definitions_of_values_as_published():
    """ValUES (Kahl et al. 2024): predictive entropy, expected entropy, their difference; no disagreement measure contradicts it.

    Written out from the paper over arrays, not over voxels: PE = H(mean), EE = mean H, MI = PE - EE. With EPKL = cross-entropy of
    pairs less EE (Malinin & Gales 2021) follows EPKL over all pairs with self = cross-entropy of the mean - EE, RMI its rest.
    """
    p = softmax_members(4, 5, 500).astype(np.float64).clip(1e-6)
    p /= p.sum(axis=1, keepdims=True)
    mean = p.mean(axis=0)
    predictive = -(mean * np.log(mean)).sum(axis=0)
    expected = -(p * np.log(p)).sum(axis=1).mean(axis=0)
    crossed = -(mean * np.log(p).mean(axis=0)).sum(axis=0)
    reverse = (mean * (np.log(mean) - np.log(p).mean(axis=0))).sum(axis=0)
    single = p.astype(np.float32)
    assert expected_entropy(single) == pytest.approx(expected, abs=1e-6)
    assert mutual_information(single) == pytest.approx(predictive - expected, abs=3e-6)
    with_self = expected_pairwise_divergence(single, all_pairs_with_self=True)
    assert with_self == pytest.approx(crossed - expected, abs=1e-5)
    # reverse mutual information is mean KL(mean || p_m) where pairs of a member with itself count
    assert with_self - mutual_information(single) == pytest.approx(reverse, abs=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_expected_pairwise_divergence_is_mutual_information_and_its_reverse(sigmoid):
    p = region_members(6, 3, 4000) if sigmoid else softmax_members(6, 5, 4000)
    both = mutual_information(p, sigmoid) + reverse_mutual_information(p, sigmoid)
    assert both == pytest.approx(expected_pairwise_divergence(p, sigmoid), abs=3e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_order_of_members_and_of_classes_does_not_matter(name, sigmoid):
    random = np.random.default_rng(3)
    p = region_members(5, 4, 500) if sigmoid else softmax_members(5, 4, 500, scale=2.0)
    if name == "varratio" and not sigmoid:  # of equal probabilities the first class has the vote
        p = p[:, :, (np.sort(p, axis=1)[:, -1] > np.sort(p, axis=1)[:, -2]).all(axis=0)]
    found = FUNCTIONS[name](p, sigmoid)
    assert FUNCTIONS[name](p[random.permutation(5)], sigmoid) == pytest.approx(found, abs=5e-6)
    assert FUNCTIONS[name](p[:, random.permutation(4)], sigmoid) == pytest.approx(found, abs=5e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_members_that_agree_and_a_single_member_have_nothing_to_disagree_on(name):
    for p, sigmoid in ((softmax_members(1, 4, 300), False), (region_members(1, 3, 300), True)):
        assert not FUNCTIONS[name](p, sigmoid).any()
        assert FUNCTIONS[name](np.concatenate([p] * 3), sigmoid) == pytest.approx(0.0, abs=2e-6)
    assert MEASURES[name].status(1) == "single_member"
    assert MEASURES[name].status(2) == "ok"


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_no_value_leaves_its_range(name, sigmoid):
    for members, classes in ((2, 2), (3, 2), (7, 3), (4, 25)):
        p = region_members(members, classes, 3000) if sigmoid else softmax_members(members, classes, 3000, scale=9.0)
        found = FUNCTIONS[name](p, sigmoid)
        assert found.shape == (3000,)
        assert found.min() >= 0
        assert found.max() <= np.float32(MEASURES[name].upper(classes, members, sigmoid))


@pytest.mark.parametrize(("classes", "members"), [(2, 2), (2, 5), (3, 7), (6, 3), (25, 5), (4, 8)])
def test_certain_members_that_spread_evenly_reach_the_largest_variation_ratio_and_variance(classes, members):
    sure = np.eye(classes, dtype=np.float32)[np.arange(members) % classes][:, :, np.newaxis]
    assert variation_ratio(sure) == pytest.approx(MEASURES["varratio"].upper(classes, members), abs=1e-6)
    reached = variance(sure)[0]
    largest = MEASURES["var"].upper(classes, members)
    assert largest <= 0.25
    assert reached <= np.float32(largest)
    if members <= classes or members % classes == 0:
        assert reached == pytest.approx(largest, abs=1e-6)


def test_two_certain_members_that_contradict_each_other_reach_the_limit_under_the_logarithm():
    sure = np.float32([[1, 0], [0, 1]])[:, :, np.newaxis]
    assert LOG_CLIP == EPS
    assert expected_pairwise_divergence(sure) == pytest.approx(-math.log(EPS), abs=1e-4)
    assert MEASURES["epkl"].upper(2, 2) == pytest.approx(16.118, abs=1e-3)
    assert variance(np.float32([[[0.0]], [[1.0]]]), True) == pytest.approx(0.25)
    assert variation_ratio(np.float32([[[0.0]], [[1.0]]]), True) == pytest.approx(0.5)


def test_numbers_worked_out_by_hand():
    p = np.float32([[0.8, 0.2], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])[:, :, np.newaxis]
    # KL(0.8 || 0.5) = 0.192745, KL(0.5 || 0.8) = 0.223144, KL(0.8 || 0.2) = 0.831777; of 12 ordered pairs 4, 4 and 2
    assert expected_pairwise_divergence(p) == pytest.approx((4 * 0.192745 + 4 * 0.223144 + 2 * 0.831777) / 12, abs=1e-5)
    assert variance(p) == pytest.approx((0.09 + 0 + 0 + 0.09) / 4, abs=1e-6)
    assert variation_ratio(p) == pytest.approx(0.25)  # equal ones go to the first class: three against one


# --- running statistics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [False, True])
def test_members_seen_one_at_a_time_give_what_all_at_once_give(sigmoid):
    p = region_members(6, 3, 240) if sigmoid else softmax_members(6, 4, 240)
    shaped = p.reshape(*p.shape[:2], 4, 6, 10)
    running = MemberStatistics(sigmoid, EXTRAS)
    for member in shaped:
        running.add(member)
    found = disagreement_of(running.mean, running.expected_entropy, running.extras, running.count, sigmoid)
    assert set(found) == {"mi", *FUNCTIONS}
    for name, function in FUNCTIONS.items():
        assert found[name].shape == (4, 6, 10)
        np.testing.assert_array_equal(found[name], function(shaped, sigmoid))
    np.testing.assert_array_equal(found["mi"], mutual_information(shaped, sigmoid))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_what_is_kept_of_the_members_is_the_mean_of_what_its_name_says(sigmoid):
    p = region_members(5, 3, 90) if sigmoid else softmax_members(5, 4, 90)
    kept = MemberStatistics.of(p, sigmoid, EXTRAS).extras
    wide = p.astype(np.float64)
    logs = np.log(np.maximum(np.concatenate([wide, 1 - wide], axis=1) if sigmoid else wide, EPS))
    votes = wide > 0.5 if sigmoid else np.eye(4)[wide.argmax(axis=1)].transpose(0, 2, 1)
    assert kept["squares"] == pytest.approx((wide**2).sum(axis=1).mean(axis=0), abs=1e-6)
    assert kept["log_probabilities"] == pytest.approx(logs.mean(axis=0), abs=1e-5)
    assert kept["votes"] == pytest.approx(votes.mean(axis=0), abs=1e-7)
    assert all(values.dtype == np.float32 for values in kept.values())


def test_only_what_is_asked_for_is_kept():
    p = softmax_members(3, 4, 20)
    assert MemberStatistics.of(p).extras == {}
    assert set(MemberStatistics.of(p, extras=["votes"]).extras) == {"votes"}
    few = MemberStatistics.of(p, extras=["squares"])
    assert set(disagreement_of(few.mean, few.expected_entropy, few.extras, 3)) == {"mi", "var"}
    assert set(NEEDS) == set(FUNCTIONS)
    assert set(NEEDS.values()) == set(EXTRAS)
    with pytest.raises(ValueError, match="extras"):
        MemberStatistics(extras=["cubes"])


def test_chunks_leave_no_seam_and_the_members_are_not_changed():
    p = softmax_members(3, 2, CHUNK_VOXELS + 77)
    original = p.copy()
    for function in FUNCTIONS.values():
        ends = np.concatenate([function(p[..., :500]), function(p[..., 500:])])
        np.testing.assert_array_equal(function(p), ends)
    np.testing.assert_array_equal(p, original)


def test_shapes_that_do_not_fit_are_refused():
    mean, of_voxels = np.full((3, 8), 1 / 3, np.float32), np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="expected entropies"):
        expected_pairwise_divergence_of(mean, of_voxels[:-1], mean, 3)
    with pytest.raises(ValueError, match="mean logarithms"):
        expected_pairwise_divergence_of(mean, of_voxels, mean, 3, sigmoid=True)
    with pytest.raises(ValueError, match="mean squares"):
        variance_of(mean, mean, 3)


def test_vote_shares_give_the_variation_ratio():
    shares = np.float32([[0.5, 1.0, 0.2], [0.25, 0.0, 0.4], [0.25, 0.0, 0.4]])
    assert variation_ratio_of(shares, 20) == pytest.approx([0.5, 0.0, 0.6], abs=1e-6)
    assert variation_ratio_of(shares, 20, sigmoid=True) == pytest.approx([1 / 3, 0.0, 1 / 3], abs=1e-6)


# --- what the catalogue says of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
@pytest.mark.parametrize("sigmoid", [False, True])
def test_colour_scales_end_within_the_range_and_above_the_mark(measure, sigmoid):
    for classes in (2, 6, 25):
        for members in (2, 5, 160):
            shown, upper = measure.shown(classes, members, sigmoid), measure.upper(classes, members, sigmoid)
            assert 0 < measure.default_threshold(classes, sigmoid) < shown <= upper


def test_members_of_10_and_90_percent_reach_the_end_of_the_colour_scales():
    halves = np.float32([[0.1, 0.9], [0.9, 0.1]] * 20)[:, :, np.newaxis]
    for name in ("epkl", "rmi", "var"):
        assert 0.8 < FUNCTIONS[name](halves)[0] / MEASURES[name].shown(2, 40) < 1.05
    assert 0.8 < mutual_information(halves)[0] / MEASURES["mi"].shown(2, 40) < 1.05
    # two of 25 classes share the doubt: the mean over classes is as much smaller as its mark and its scale are
    among = np.zeros((40, 25, 1), np.float32)
    among[:, :2] = halves
    assert variance(among)[0] / MEASURES["var"].shown(25, 40) == pytest.approx(
        variance(halves)[0] / MEASURES["var"].shown(2, 40)
    )
