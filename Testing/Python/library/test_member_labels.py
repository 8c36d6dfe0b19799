"""What each member by itself would draw, kept cell by cell: counted at the end it is Dice of whole label maps, pair by pair."""

import itertools

import numpy as np
import pytest
import torch
from engine_parts import Told, told_case

from CalibUncertaintyLib.inference.member_labels import MOST_REGIONS, MemberLabels
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow.agreement import MOST_COUNTS, agreement_of, agreement_status, counts_of_members

THREE = Heads(("Liver", "Node", "Lung"), (1, 2, 3), False)
REGIONS = Heads(("Whole", "Core"), (2, 1), True)
GRID = (20, 70, 40)


def blobs(members, heads, shape=GRID, seed=0):
    """Logits (C, grid) of each: background almost everywhere, one blob of each structure, moved and grown from member to member.

    The last structure is drawn by the last member only, far from the others: its cells wake last.
    """
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    found = []
    for member in range(members):
        logits = np.full((heads.channels, *shape), -9.0, np.float32)
        if not heads.sigmoid:
            logits[0] = 9.0
        for index, channel in enumerate(range(0 if heads.sigmoid else 1, heads.channels)):
            only_last = index == len(heads.names) - 1 and index > 1
            if only_last and member < members - 1:
                continue
            centre = np.array([9, 58, 8] if only_last else [8, 14 + 8 * index, 20]) + random.normal(0, 1.0, 3)
            radius = random.uniform(5.0, 8.0)
            far = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
            logits[channel] = np.clip(3.0 * (radius - far), -25, 25)
        found.append(logits + random.normal(0, 0.3, logits.shape).astype(np.float32))
    return found


def counted(heads, case, logits, tmp_path, kept_bytes=0):
    """(agreement, bytes of the file of labels, None where logits are kept) of members that say this."""
    counts = counts_of_members(len(logits), heads)
    with Scratch(tmp_path) as scratch:
        opinions = Opinions.ask(
            Told(logits, heads), case, scratch, Progress(), [1.5], keep_labels=True, kept_bytes=kept_bytes
        )
        for slab in opinions.slabs(opinions.whole()):
            if slab.codes is not None:
                counts.add(slab.codes.reshape(len(logits), -1))
        labels = opinions.member_labels
        return agreement_of(labels, counts), None if labels is None else labels._end


def drawn(case, logits, heads, exact):
    """[(structures, CT grid) bool of each member], each member's logits brought back whole."""
    grid = case.cases[0].grid
    window = tuple(slice(0, n) for n in grid.ct_shape)
    found = []
    for of_member in logits:
        on_ct = (
            grid.sample(torch.from_numpy(of_member).half(), window, exact).numpy()
            if grid.separable
            else grid.whole(of_member.astype(np.float16))
        )
        on_ct = on_ct.astype(np.float32)
        found.append(on_ct > 0 if heads.sigmoid else np.stack([on_ct.argmax(0) == k for k in heads.values]))
    return found


def dice(a, b):
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


@pytest.mark.parametrize("heads", [THREE, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("ct_shape", [GRID, (33, 90, 51)], ids=["same grid", "resampled"])
@pytest.mark.parametrize("members", [2, 5])
@pytest.mark.parametrize("kept_bytes", [0, 1 << 40], ids=["summed up", "kept"])
def test_agreement_is_that_of_whole_label_maps_pair_by_pair(heads, ct_shape, members, kept_bytes, tmp_path):
    case, logits = told_case(GRID, ct_shape), blobs(members, heads, seed=members)
    found, of_file = counted(heads, case, logits, tmp_path, kept_bytes)
    assert (of_file is None) == (kept_bytes > 0)
    maps = drawn(case, logits, heads, exact=False)
    for k, value in enumerate(heads.values):
        assert found.volumes[:, k].tolist() == [int(of_member[k].sum()) for of_member in maps]
        pairs = [dice(a[k], b[k]) for a, b in itertools.combinations(maps, 2)]
        assert found.pairwise_dice()[value] == pytest.approx(np.mean(pairs), abs=1e-12)
        assert found.lowest_dice()[value] == pytest.approx(min(pairs), abs=1e-12)
    assert 0.1 < found.pairwise_dice()[heads.values[0]] < 0.99


def test_labels_are_the_members_own_but_for_voxels_on_the_edge_between_two_classes(tmp_path):
    case, logits = told_case(GRID, (33, 90, 51)), blobs(3, THREE, seed=8)
    found, _ = counted(THREE, case, logits, tmp_path)
    own = drawn(case, logits, THREE, exact=True)
    volumes = np.array([[of.sum() for of in of_member] for of_member in own])
    assert np.abs(found.volumes - volumes).max() <= 2
    assert volumes.min() == 0 < volumes[-1].min()  # the last member alone draws the last structure


def test_a_plan_that_takes_the_whole_volume_back_is_counted_alike(tmp_path):
    case, logits = told_case(GRID, (16, 60, 36), resampling={"order": 3}), blobs(2, THREE)
    assert not case.cases[0].grid.separable
    found, _ = counted(THREE, case, logits, tmp_path)
    kept, _ = counted(THREE, case, logits, tmp_path, 1 << 40)
    assert kept.overlaps.tolist() == found.overlaps.tolist()
    maps = drawn(case, logits, THREE, exact=False)
    assert found.volumes.tolist() == [[int(of.sum()) for of in of_member] for of_member in maps]
    assert found.overlaps[0, 1].tolist() == [int((a & b).sum()) for a, b in zip(*maps, strict=True)]


def test_cells_of_one_value_take_no_room_in_the_file(tmp_path):
    case = told_case((16, 64, 64))
    everywhere = np.zeros((4, 16, 64, 64), np.float32)
    everywhere[2] = 5.0
    nowhere = np.zeros((4, 16, 64, 64), np.float32)
    nowhere[0] = 3.0  # awake, and background all the same
    found, size = counted(THREE, case, [everywhere, nowhere, everywhere], tmp_path)
    assert size == 0
    assert found.volumes.tolist() == [[0, 16 * 64 * 64, 0], [0, 0, 0], [0, 16 * 64 * 64, 0]]
    assert found.pairwise_dice() == {1: 1.0, 2: pytest.approx(1 / 3), 3: 1.0}
    edge = everywhere.copy()
    edge[0, 0, 0, 0] = 6.0
    assert (
        counted(THREE, case, [edge, nowhere, everywhere], tmp_path)[1] == 8 * 32 * 32
    )  # a byte for each voxel of one cell


def test_labels_beyond_a_byte_are_kept_whole(tmp_path):
    heads = Heads(tuple(f"Part {i}" for i in range(1, 301)), tuple(range(1, 301)), False)
    logits = np.zeros((301, 2, 4, 5), np.float32)
    logits[300, 0], logits[44, 1] = 2.0, 2.0
    found, _ = counted(heads, told_case((2, 4, 5)), [logits, logits], tmp_path)
    assert {k: int(of[0]) for k, of in zip(heads.values, found.volumes.T, strict=True) if of[0]} == {44: 20, 300: 20}
    assert counted(heads, told_case((2, 4, 5)), [logits, logits], tmp_path, 1 << 40)[0].volumes.tolist() == found.volumes.tolist()


def test_of_equal_logits_the_first_channel_is_drawn(tmp_path):
    tied = np.zeros((4, 8, 8, 8), np.float32)
    tied[1:3] = 1.0
    found, _ = counted(THREE, told_case((8, 8, 8)), [tied, tied], tmp_path)
    assert found.volumes[0].tolist() == [512, 0, 0]


def test_what_is_not_asked_for_is_not_kept(tmp_path):
    logits = blobs(2, THREE)
    with Scratch(tmp_path) as scratch:
        for way in (0, 1 << 40):
            opinions = Opinions.ask(Told(logits, THREE), told_case(GRID), scratch, Progress(), [1.0], kept_bytes=way)
            assert opinions.member_labels is None
            assert all(slab.codes is None for slab in opinions.slabs(opinions.whole()))
        alone = Opinions.ask(Told(logits[:1], THREE), told_case(GRID), scratch, Progress(), [1.0], keep_labels=True)
        assert alone.member_labels is None


def test_it_is_said_why_members_are_not_compared(tmp_path):
    many = Heads(tuple(f"Region {i}" for i in range(MOST_REGIONS + 1)), tuple(range(1, MOST_REGIONS + 2)), True)
    assert agreement_status(1, THREE) == "single_member"
    assert agreement_status(2, THREE) == "ok"
    assert agreement_status(2, many) == "too_many_regions"
    most = int((MOST_COUNTS / 3) ** 0.5)
    assert agreement_status(most, THREE) == "ok"
    assert agreement_status(most + 1, THREE) == "too_many_members"
    with pytest.raises(ValueError, match="regions"):
        MemberLabels(2, many, Scratch(tmp_path))
