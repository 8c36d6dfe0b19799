"""Agreement of members counted plane by plane is that of every pair of whole label maps."""

import itertools
import math

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.member_agreement import MemberAgreement, agreement_figures

STRUCTURES = (1, 2, 7, 9)


def members(seed, count=4, shape=(5, 8, 9), moved=0.1):
    """Label maps that differ in a tenth of their voxels; 9 is drawn by nobody, 7 by the first member only, 4 is not asked for."""
    random = np.random.default_rng(seed)
    common = random.choice(np.array([0, 1, 2, 4], np.uint8), shape, p=[0.5, 0.3, 0.1, 0.1])
    found = []
    for _ in range(count):
        moves = random.random(shape) < moved
        found.append(np.where(moves, random.integers(0, 3, shape), common).astype(np.uint8))
    found[0][0, 0, :3] = 7
    return found


def dice(a, b):
    both = a.sum() + b.sum()
    return 2.0 * (a & b).sum() / both if both else 1.0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_dice_of_pairs_is_the_mean_over_all_pairs_by_hand(count):
    maps = members(count, count)
    found = MemberAgreement.of(maps, STRUCTURES).pairwise_dice()
    for structure in STRUCTURES:
        pairs = [dice(a == structure, b == structure) for a, b in itertools.combinations(maps, 2)]
        assert found[structure] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found[9] == 1.0


def test_volumes_and_overlaps_are_counts_of_voxels():
    maps = members(1)
    found = MemberAgreement.of(maps, STRUCTURES)
    for k, structure in enumerate(STRUCTURES):
        for a, b in itertools.product(range(4), repeat=2):
            assert found.overlaps[a, b, k] == ((maps[a] == structure) & (maps[b] == structure)).sum()
        assert found.volumes[:, k].tolist() == [(one == structure).sum() for one in maps]


def test_the_spread_of_volumes_is_the_population_deviation_over_the_mean():
    maps = members(2)
    found = MemberAgreement.of(maps, STRUCTURES).volume_cv()
    for structure in (1, 2, 7):
        volumes = [(one == structure).sum() for one in maps]
        mean = sum(volumes) / 4
        assert found[structure] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in volumes) / 4) / mean)
    assert math.isnan(found[9])


def generalised(a, b, structures):
    """As MONAI has it: weights 1 / volume^2 of the reference, the largest where the reference has none."""
    volumes = [float((a == k).sum()) for k in structures]
    finite = [1 / v**2 for v in volumes if v]
    weights = [1 / v**2 if v else max(finite, default=0.0) for v in volumes]
    above = 2 * sum(w * ((a == k) & (b == k)).sum() for w, k in zip(weights, structures, strict=True))
    below = sum(w * ((a == k).sum() + (b == k).sum()) for w, k in zip(weights, structures, strict=True))
    return above / below if below else float(not any((b == k).any() for k in structures))


def test_generalised_dice_weighs_small_structures_as_much_as_large_ones():
    maps = members(3)
    pairs = [generalised(a, b, STRUCTURES) for a, b in itertools.combinations(maps, 2)]
    assert MemberAgreement.of(maps, STRUCTURES).generalised_dice() == pytest.approx(np.mean(pairs))
    nothing, some = np.zeros((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.uint8)
    assert MemberAgreement.of([nothing, nothing], [1, 2]).generalised_dice() == 1.0
    assert MemberAgreement.of([nothing, some], [1, 2]).generalised_dice() == 0.0
    assert MemberAgreement.of([some, nothing], [1, 2]).generalised_dice() == 0.0


def test_a_single_member_has_nobody_to_agree_with():
    alone = MemberAgreement.of(members(4, 1), STRUCTURES)
    for figure in (alone.pairwise_dice, alone.generalised_dice):
        with pytest.raises(ValueError, match="two members"):
            figure()
    assert all(math.isnan(value) for value in alone.volume_cv().values())
    case, structures = agreement_figures(members(4, 1), STRUCTURES)
    assert all(math.isnan(value) for figures in (case, *structures.values()) for value in figures.values())


def test_the_case_is_the_mean_over_structures_that_somebody_drew():
    case, structures = agreement_figures(members(5), STRUCTURES)
    assert case["pairwise_dice"] == pytest.approx(np.mean([structures[k]["pairwise_dice"] for k in (1, 2, 7)]))
    nothing = [np.zeros((2, 3, 4), np.uint8)] * 3
    case, structures = agreement_figures(nothing, [1])
    assert all(math.isnan(value) for value in case.values())
    assert structures[1]["pairwise_dice"] == 1.0
    assert agreement_figures(members(5), [])[1] == {}


def test_label_maps_of_large_numbers_and_other_types_are_counted_alike():
    maps = members(6)
    wide = [np.where(one == 7, np.uint16(65535), one.astype(np.uint16)) for one in maps]
    signed = [one.astype(np.int16) for one in maps]
    expected = MemberAgreement.of(maps, STRUCTURES).pairwise_dice()
    assert MemberAgreement.of(signed, STRUCTURES).pairwise_dice() == expected
    assert MemberAgreement.of(wide, (1, 65535)).pairwise_dice()[65535] == expected[7]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        MemberAgreement.of([], [1])
    with pytest.raises(ValueError, match="one shape"):
        MemberAgreement.of([np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int)], [1])
    with pytest.raises(ValueError, match="above 0"):
        MemberAgreement.of([np.zeros((2, 2, 2), int)], [0, 1])
