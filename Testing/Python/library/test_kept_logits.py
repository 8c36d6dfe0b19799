"""Members' logits in scratch files: when they are kept, what is read back, and what is averaged over them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_parts import Told, predictor_of, prepared, told_case
from test_running_statistics import KEPT, SUMMED_UP, WAKES_AT, Expected, ask, brute_force, faint_members
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.inference import kept_logits
from CalibUncertaintyLib.inference.kept_logits import KeptLogits
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import MEMORY_LIMIT_BYTES, Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress


def test_each_set_of_weights_has_the_temperature_of_its_own_when_kept(tmp_path):
    case, heads = told_case((12, 20, 24)), Heads(("Liver", "Node"), (1, 2), False)
    members = faint_members((12, 20, 24), count=2) - 12.0 * np.eye(3)[0][:, None, None, None]
    predictor = Told(members, heads)
    predictor.members = [replace(member, fold=member.index) for member in predictor.members]
    _, (means,), _, _, _ = ask(predictor, case, tmp_path, [((1.0,), (5.0,))], kept_bytes=KEPT)
    one = [Expected(None, [case.grid.whole(np.asarray(logits, np.float16))], False) for logits in members]
    expected = (one[0].probability(1.0) + one[1].probability(5.0)) / 2
    assert np.abs(means - expected).max() < WAKES_AT
    assert np.abs(means - (one[0].probability(5.0) + one[1].probability(1.0)) / 2).max() > 0.05, "the comparison is empty"


@pytest.mark.parametrize("missing", [1, 0])
def test_logits_are_kept_where_the_disk_has_room_and_summed_up_where_not(missing, tmp_path):
    case, predictor = told_case((8, 20, 24)), Told(faint_members((8, 20, 24)), Heads(("Liver", "Node"), (1, 2), False))
    needed = 4 * 3 * 2 * 8 * 20 * 24
    found = ask(predictor, case, tmp_path, [1.0], kept_bytes=needed - missing)
    assert (found[3] is None) == (not missing)


def test_a_disk_that_is_nearly_full_is_not_filled_with_logits(tmp_path, monkeypatch):
    case, predictor = told_case((8, 20, 24)), Told(faint_members((8, 20, 24)), Heads(("Liver", "Node"), (1, 2), False))
    needed, found = 4 * 3 * 2 * 8 * 20 * 24, []
    for free in (4 * needed, 4 * needed - 4):
        monkeypatch.setattr(kept_logits.shutil, "disk_usage", lambda _folder, free=free: SimpleNamespace(free=free))
        found.append(ask(predictor, case, tmp_path, [1.0], kept_bytes=None)[3])
    assert found[0] is None
    assert found[1] is not None


@pytest.mark.parametrize("limit", [0, MEMORY_LIMIT_BYTES])
def test_kept_logits_are_read_back_by_window_and_by_plane(limit, tmp_path):
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 9, (3, 7, 11, 13)).astype(np.float16))
    with Scratch(tmp_path, limit) as scratch:
        kept = KeptLogits(3, (7, 11, 13), scratch)
        for first in (0, 4):
            kept.write(first, values[:, first : first + 4].permute(1, 0, 2, 3))
        for window in ((0, 7), (0, 11), (0, 13)), ((2, 5), (3, 4), (12, 13)), ((6, 7), (0, 11), (1, 9)):
            z, y, x = (slice(*ends) for ends in window)
            assert torch.equal(kept.read((z, y, x)), values[:, z, y, x])
        assert torch.equal(kept.planes(3, 2), values[:, 3:5].permute(1, 0, 2, 3))
        kept.discard()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", [SUMMED_UP, KEPT])
def test_slabs_that_several_threads_make_are_those_of_one(way, tmp_path):
    case, predictor = told_case((40, 60, 70)), Told(faint_members((40, 60, 70)), Heads(("Liver", "Node"), (1, 2), False))
    with Scratch(tmp_path, 0) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), [2.0, 1.0], kept_bytes=way)
        alone = list(opinions.slabs(opinions.whole()))
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda piece: piece(), list(opinions.pieces(opinions.whole())) * 3))
    assert len(alone) > 4
    for ours, theirs in zip(together, alone * 3, strict=True):
        assert ours.inside == theirs.inside
        np.testing.assert_array_equal(ours.pooled, theirs.pooled)
        np.testing.assert_array_equal(ours.means.entropy, theirs.means.entropy)
        np.testing.assert_array_equal(ours.means.probability, theirs.means.probability)


def test_kept_members_are_each_members_logits(tmp_path):
    model = write_model(tmp_path, plans(), folds=(0, 1))
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", shape=(34, 30, 28)))
    expected = brute_force(predictor, case)
    with Scratch(tmp_path, 0) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), keep_members=True)
        for slab in opinions.slabs(opinions.whole()):
            for ours, theirs in zip(slab.members, expected.members, strict=True):
                np.testing.assert_array_equal(ours, theirs[(slice(None), *slab.inside)])
