"""Checkpoints: read with little memory, and agreed on how they may be mirrored."""

import os
import pathlib

import pytest
import torch
from tiny_model import plans, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.checkpoint import agreed_mirroring_axes, load_checkpoint


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path, plans(), folds=(0, 1))


def path_of(folder, fold=0):
    return folder / f"fold_{fold}" / "checkpoint_final.pth"


def rewrite(path, change, **how):
    content = torch.load(path, weights_only=True)
    change(content)
    path.unlink()
    torch.save(content, path, **how)


def test_only_the_weights_of_a_large_checkpoint_are_read(folder):
    """A trained checkpoint is two thirds optimizer; none of it may cost memory."""

    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not pathlib.Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    rewrite(path_of(folder), lambda c: c.update(optimizer_state={"momentum": torch.ones(50_000_000)}))
    load_checkpoint(path_of(folder, 1))
    before = resident()
    checkpoint = load_checkpoint(path_of(folder))
    assert resident() - before < 20e6
    stored = torch.load(path_of(folder), weights_only=True)["network_weights"]
    assert checkpoint.weights.keys() == stored.keys()
    assert all(torch.equal(checkpoint.weights[name], stored[name]) for name in stored)


def test_the_format_before_pytorch_1_6_is_read_too(folder):
    before = load_checkpoint(path_of(folder)).weights
    rewrite(path_of(folder), lambda c: None, _use_new_zipfile_serialization=False)
    after = load_checkpoint(path_of(folder)).weights
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_file_system_that_cannot_map_files_is_read_without(folder, monkeypatch):
    before, asked = load_checkpoint(path_of(folder)).weights, []

    def refuse(path, *_):
        asked.append(path)
        # word for word what PyTorch says of a file in /sys
        raise RuntimeError(f"unable to mmap 64 bytes from file <{path}>: No such device (19)")

    monkeypatch.setattr(torch.UntypedStorage, "from_file", refuse)
    after = load_checkpoint(path_of(folder)).weights
    assert asked
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_weights_are_given_back_from_the_same_file_only(folder):
    light = load_checkpoint(path_of(folder)).without_weights()
    assert light.weights == {}
    assert light.read_weights().keys() == load_checkpoint(path_of(folder)).weights.keys()
    rewrite(path_of(folder), lambda c: c.update(more=torch.zeros(3)))
    with pytest.raises(CalibUncertaintyError, match=r"fold_0/checkpoint_final.pth was changed during the run"):
        light.read_weights()
    path_of(folder).unlink()
    with pytest.raises(CalibUncertaintyError, match=r"fold_0/checkpoint_final.pth was there a moment ago"):
        light.read_weights()


def test_a_trusted_checkpoint_stays_trusted(folder):
    rewrite(path_of(folder), lambda c: c.update(surprise=pathlib.PurePosixPath("/tmp")))
    light = load_checkpoint(path_of(folder), trusted=True).without_weights()
    assert light.read_weights()


@pytest.mark.parametrize(("axes", "expected"), [((0, 1, 2), (0, 1, 2)), ([2, 1], (2, 1)), ((), ()), (None, ())])
def test_members_agree_on_mirroring(folder, axes, expected):
    for fold in (0, 1):
        rewrite(path_of(folder, fold), lambda c: c.update(inference_allowed_mirroring_axes=axes))
    assert agreed_mirroring_axes([load_checkpoint(path_of(folder, fold)) for fold in (0, 1)], 3) == expected


@pytest.mark.parametrize(
    ("axes", "said"),
    [((0, 1), "with mirroring of axes 0, 1 and"), ((2,), "mirroring of axis 2 and"), (None, "with no mirroring and")],
)
def test_members_that_differ_in_mirroring_are_named(folder, axes, said):
    rewrite(path_of(folder, 1), lambda c: c.update(inference_allowed_mirroring_axes=axes))
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        agreed_mirroring_axes([load_checkpoint(path_of(folder, fold)) for fold in (0, 1)], 3)
    assert all(str(path_of(folder, fold)) in str(refusal.value) for fold in (0, 1))
    assert "\n" not in str(refusal.value)


def test_mirroring_of_an_axis_that_is_not_there_is_refused(folder):
    with pytest.raises(CalibUncertaintyError, match="mirroring of axis 2, which its 2D network does not have"):
        agreed_mirroring_axes([load_checkpoint(path_of(folder))], 2)
