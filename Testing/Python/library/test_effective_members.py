"""How many independent members some are worth, against numbers known beforehand."""

import numpy as np
import pytest
import torch

from CalibUncertaintyLib.inference.seen import MemberSample


def as_logits(foreground):
    """(n, Y, X) probabilities to the logits (n, 2, Y, X) of two classes."""
    odds = torch.from_numpy(np.log(foreground / (1 - foreground)))
    return torch.stack([torch.zeros_like(odds), odds], dim=1).half()


@pytest.mark.parametrize(("members", "copies", "expected"), [(5, 1, 5.0), (8, 1, 8.0), (3, 2, None)])
def test_independent_members_count_as_many_and_copies_of_them_as_fewer(members, copies, expected):
    shape = (40, 50, 60)
    sample = MemberSample(members * copies, sigmoid=False)
    for member in range(members):
        values = np.random.default_rng(member).beta(1, 3, shape).astype(np.float32).clip(1e-3, 1 - 1e-3)
        for copy in range(copies):
            for first in range(0, 40, 7):
                sample.add(member * copies + copy, first, as_logits(values[first : first + 7]), shape)
    if expected is None:
        assert members * 0.8 < sample.effective()["number"] < members * 1.05
    else:
        assert sample.effective()["number"] == pytest.approx(expected, rel=0.05)
    beta = np.sqrt(3 / (16 * 5))  # standard deviation of the beta distribution with 1 and 3
    distinct = np.sqrt((members - 1) / members)  # what is left of it beyond the members' own mean
    assert sample.effective()["spread"] == pytest.approx(beta * distinct, rel=0.05)


def test_two_members_always_differ_in_one_way_only_so_their_number_is_not_told():
    sample = MemberSample(2, sigmoid=False)
    for member in range(2):
        sample.add(member, 0, as_logits(np.full((10, 10, 10), 0.2 + 0.2 * member, np.float32)), (10, 10, 10))
    told = sample.effective()
    assert told["number"] is None
    assert told["spread"] == pytest.approx(0.1, abs=1e-3)


def test_too_little_foreground_does_not_tell_how_many_members_count():
    sample = MemberSample(3, sigmoid=False)
    for member in range(3):
        sample.add(member, 0, as_logits(np.full((10, 10, 10), 1e-4 * (member + 1), np.float32)), (10, 10, 10))
    assert sample.effective() == {"number": None, "spread": None}
    assert MemberSample(1, sigmoid=False).effective() == {"number": 1.0, "spread": 0.0}
