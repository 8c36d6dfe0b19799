"""Every kind of member: folds, checkpoints, flips, dropout samples and several model folders, against stock nnU-Net."""

import json
import shutil

import numpy as np
import pytest
import torch
from engine_parts import few_slices, member_logits, on_ct_grid, predictor_of, prepared, stock_logits
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.inference.sliding_window import SlidingWindow, mirrored_axes
from CalibUncertaintyLib.model.folder import FINAL_CHECKPOINT
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.segment import segment

# Of logits up to 16: each member's were rounded to half precision, stock rounds the mean of the flips once. It holds where the
# tiles have weight: at the corners of a volume half precision has hardly a digit left for stock either
HALF, WEIGHTY = 0.02, 0.05


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), folds=(0, 1))


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz", shape=(18, 20, 22))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout")
    return write_model(folder, plans(), folds=(0,), trainer="nnUNetTrainerDropout")


def set_axes(model, folds, axes):
    for fold in folds:
        path = model / f"fold_{fold}" / FINAL_CHECKPOINT
        content = torch.load(path, weights_only=True)
        torch.save({**content, "inference_allowed_mirroring_axes": axes}, path)
    return model


def tile_weights(predictor, case):
    """The sum of the tiles' Gaussian weights at every voxel of the network's grid."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    window = SlidingWindow(case.data, predictor._models[0].configuration.patch_size, 0.5)
    total = torch.zeros(window.padding.shape)
    patch = window._patch
    weights = compute_gaussian(patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")).float()
    for row in window.rows:
        for y, x in row.corners:
            total[row.start : row.stop, y : y + patch[-2], x : x + patch[-1]] += weights
    return total[window.padding.inside]


def copy_of(model, folder):
    return shutil.copytree(model, folder / model.parent.name / model.name)


# --- flips -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_plans", "axes"),
    [({}, (0, 1, 2)), ({}, (0, 2)), ({}, (1,)), ({"spacing": (1.5, 1.5), "patch": (16, 16)}, (0, 1)),
     ({"transpose": (2, 0, 1)}, (0, 1))],
)  # fmt: skip
def test_the_mean_of_the_flips_is_stocks_mirroring(of_plans, axes, tmp_path):
    model = set_axes(write_model(tmp_path, plans(**of_plans), folds=(0,)), (0,), axes)
    predictor = predictor_of(model, flips="members")
    assert [member.flip for member in predictor.members] == mirrored_axes(axes)
    assert len({member.flip for member in predictor.members}) == 2 ** len(axes)
    case = prepared(predictor, few_slices(tmp_path / "ct.nii.gz", (18, 21, 23)))
    logits = member_logits(predictor, case)
    expected = stock_logits(model, case.data, mirroring=True).float()
    mean = torch.stack(logits).float().mean(dim=0)
    weighty = tile_weights(predictor, case) > WEIGHTY
    assert float(weighty.float().mean()) > 0.3
    assert float((mean - expected).abs()[:, weighty].max()) < HALF
    plain = stock_logits(model, case.data, mirroring=False)
    assert torch.equal(logits[0], plain)
    assert float((mean - plain.float()).abs().max()) > 0.5, "the comparison is empty: flips change nothing"
    for i, one in enumerate(logits):
        assert not any(torch.equal(one, other) for other in logits[:i])


def test_each_flip_is_the_network_asked_about_the_flipped_tile(model, ct):
    predictor = predictor_of(model, folds=[0], flips="members")
    case = prepared(predictor, ct)
    tile = case.data[None, :, :8, :16, :16].contiguous()
    network = predictor._models[0].network
    for member in predictor.members:
        found = predictor._forward(predictor._models[0], member, tile, 0)
        with torch.inference_mode():
            expected = torch.flip(network(torch.flip(tile, [a + 2 for a in member.flip])), [a + 2 for a in member.flip])
        assert torch.equal(found, expected)


def test_flips_are_refused_for_a_model_trained_without_mirroring(model, ct, tmp_path):
    for axes in ((), None):
        plain = set_axes(copy_of(model, tmp_path / str(axes)), (0, 1), axes)
        with pytest.raises(CalibUncertaintyError, match=r"trained without mirroring.*--flips off"):
            segment(ct, plain, tmp_path / "out", flips="members")
        predictor = predictor_of(plain, flips="mean")  # nnU-Net would not flip either
        assert not predictor.mirroring
        case = prepared(predictor, ct)
        assert torch.equal(member_logits(predictor, case)[0], stock_logits(plain, case.data))


def test_folds_that_allow_different_flips_are_refused_and_named(model, ct, tmp_path):
    mixed = set_axes(copy_of(model, tmp_path), (1,), (0,))
    with pytest.raises(CalibUncertaintyError, match=r"fold_1.*mirroring of axis 0") as refusal:
        predictor_of(mixed, flips="mean")
    assert "\n" not in str(refusal.value)


def test_an_axis_that_the_network_does_not_have_is_refused(tmp_path):
    flat = write_model(tmp_path, plans(spacing=(1.5, 1.5), patch=(16, 16)), folds=(0,))
    with pytest.raises(CalibUncertaintyError, match="axis 2"):
        predictor_of(set_axes(flat, (0,), (0, 1, 2)), flips="mean")


# --- dropout -----------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_samples_to_the_last_bit_and_another_seed_others(dropping, ct):
    def samples(seed):
        predictor = predictor_of(dropping, flips="off", dropout=3, seed=seed)
        torch.manual_seed(len(seed_of) and 7)  # what happened before must not matter
        seed_of.append(seed)
        return member_logits(predictor, prepared(predictor, ct))

    seed_of = []
    first, again, other = samples(4), samples(4), samples(5)
    for i, (a, b, c) in enumerate(zip(first, again, other, strict=True)):
        assert torch.equal(a, b)
        assert float((a - c).abs().float().mean()) > 0.1
        for before in first[:i]:
            assert float((a - before).abs().float().mean()) > 0.1


def test_sample_number_two_is_the_same_whether_three_or_five_are_asked_for(dropping, ct):
    few, many = (predictor_of(dropping, flips="off", dropout=count, seed=1) for count in (3, 5))
    logits = [member_logits(predictor, prepared(predictor, ct)) for predictor in (few, many)]
    for a, b in zip(*logits, strict=False):
        assert torch.equal(a, b)


def test_dropout_does_not_depend_on_how_many_tiles_a_forward_takes(dropping, ct):
    predictor = predictor_of(dropping, flips="mean", dropout=1, seed=3)
    case = prepared(predictor, ct)
    (one,) = member_logits(predictor, case)
    predictor._models[0].tiles_per_forward = 4
    (several,) = member_logits(predictor, case)
    assert float((one.float() - several.float()).abs().max()) < HALF


def test_tiles_and_flips_are_dropped_each_in_their_own_way(dropping, ct):
    """One mask for all would correlate the tiles of a sample."""
    predictor = predictor_of(dropping, flips="members", dropout=1)
    case = prepared(predictor, ct)
    tile, model = case.data[None, :, :8, :16, :16].contiguous(), predictor._models[0]
    at = [predictor._forward(model, predictor.members[0], tile, number) for number in (0, 1, 0)]
    assert torch.equal(at[0], at[2])
    assert not torch.equal(at[0], at[1])


def test_the_mean_of_many_samples_nears_the_network_without_dropout(dropping, ct):
    """Dropout scales what it keeps, so that the expectation of each layer stays; a deterministic bug would not average out."""
    predictor = predictor_of(dropping, flips="off", dropout=16)
    case = prepared(predictor, ct)
    samples = torch.stack(member_logits(predictor, case)).float()
    (plain,) = member_logits(predictor_of(dropping, flips="off"), case)
    plain = plain.float()
    near = float((samples.mean(dim=0) - plain).pow(2).mean())
    single = float((samples - plain).pow(2).mean())
    assert near < 0.7 * single
    assert float(torch.corrcoef(torch.stack([samples.mean(dim=0).flatten(), plain.flatten()]))[0, 1]) > 0.5


def test_a_network_with_dropout_is_asked_without_it_where_no_samples_are_wanted(dropping, ct, tmp_path):
    predictor = predictor_of(dropping, flips="off")
    case = prepared(predictor, ct)
    plain = copy_of(dropping, tmp_path)
    path = plain / "fold_0" / FINAL_CHECKPOINT
    torch.save({**torch.load(path, weights_only=True), "trainer_name": "nnUNetTrainer"}, path)
    assert torch.equal(member_logits(predictor, case)[0], stock_logits(plain, case.data))


def test_dropout_for_a_network_without_it_is_refused_with_the_reason_and_the_flag(model, ct, tmp_path):
    with pytest.raises(CalibUncertaintyError, match=r"less calibrated.*Rousseau.*--insert-dropout") as refusal:
        segment(ct, model, tmp_path / "out", dropout=5)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_inserted_dropout_works_and_is_warned_about(model, ct, tmp_path):
    result = segment(ct, model, tmp_path / "out", folds=[0], flips="off", dropout=3, insert_dropout=0.3, seed=2)
    assert any("trained without" in warning and "0.3" in warning for warning in result.provenance["warnings"])
    members = result.provenance["members"]
    assert [(m["index"], m["fold"], m["flip"], m["sample"]) for m in members] == [(0, 0, None, 0), (1, 0, None, 1), (2, 0, None, 2)]
    assert result.uncertainty("mi").array.max() > 0.01
    assert 1 < result.provenance["effective_members"] <= 3
    again = segment(ct, model, tmp_path / "again", folds=[0], flips="off", dropout=3, insert_dropout=0.3, seed=2)
    np.testing.assert_array_equal(result.uncertainty("mi").array, again.uncertainty("mi").array)


def test_a_rate_for_a_network_that_has_dropout_is_not_used_and_that_is_said(dropping):
    predictor = predictor_of(dropping, dropout=2, insert_dropout=0.3)
    assert any("none was inserted" in warning for warning in predictor.warnings)


# --- folds, checkpoints, combinations ----------------------------------------------------------------------------------------


def second_checkpoint(model, name="checkpoint_cycle_1.pth", change=0.2):
    for fold in model.glob("fold_*"):
        content = torch.load(fold / FINAL_CHECKPOINT, weights_only=True)
        weights = {key: value * (1 + change) for key, value in content["network_weights"].items()}
        torch.save({**content, "network_weights": weights}, fold / name)
    return model


def test_checkpoints_are_members_and_each_is_stocks(model, ct, tmp_path):
    own = second_checkpoint(copy_of(model, tmp_path))
    predictor = predictor_of(own, checkpoints="all", flips="off")
    assert [(m.fold, m.checkpoint) for m in predictor.members] == [
        (fold, name) for fold in (0, 1) for name in ("checkpoint_final.pth", "checkpoint_cycle_1.pth")
    ]
    case = prepared(predictor, ct)
    for member, logits in zip(predictor.members, member_logits(predictor, case), strict=True):
        assert torch.equal(logits, stock_logits(own, case.data, (member.fold,), checkpoint=member.checkpoint))


def test_every_combination_is_a_member_once_with_an_index(dropping, ct, tmp_path):
    own = second_checkpoint(copy_of(dropping, tmp_path))
    predictor = predictor_of(own, checkpoints="all", flips="members", dropout=2)
    assert [member.index for member in predictor.members] == list(range(2 * 8 * 2))
    assert len({(m.checkpoint, m.flip, m.sample) for m in predictor.members}) == 32
    assert all(json.dumps(member.to_json()) for member in predictor.members)
    result = segment(ct, own, tmp_path / "out", checkpoints="all", flips="members", dropout=2)
    assert [m["index"] for m in result.provenance["members"]] == list(range(32))
    assert result.provenance["members"][-1]["flip"] == [0, 1, 2]


@pytest.mark.parametrize("other_file", [False, True])
def test_a_checkpoint_with_the_weights_of_another_counts_once_and_is_said(other_file, model, ct, tmp_path):
    own = copy_of(model, tmp_path)
    for fold in (0, 1):
        content = torch.load(own / f"fold_{fold}" / FINAL_CHECKPOINT, weights_only=True)
        if other_file:  # as the last checkpoint of a cycle: equal weights, another history
            content["current_epoch"] = 999
        torch.save(content, own / f"fold_{fold}" / "checkpoint_cycle_1.pth")
    predictor = predictor_of(own, checkpoints="all", flips="off")
    assert [(m.fold, m.checkpoint) for m in predictor.members] == [(0, FINAL_CHECKPOINT), (1, FINAL_CHECKPOINT)]
    said = [warning for warning in predictor.warnings if "same weights" in warning]
    assert len(said) == 2
    assert "fold_0/checkpoint_cycle_1.pth" in said[0]
    result = segment(ct, own, tmp_path / "out", checkpoints="all", mirroring=False)
    assert len(result.provenance["members"]) == 2
    assert sum("same weights" in warning for warning in result.provenance["warnings"]) == 2


# --- several models ----------------------------------------------------------------------------------------------------------


def pooled_on_ct(predictor, case, folder):
    with Scratch(folder) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress())
        whole = np.zeros((predictor.n_classes, *case.full_shape), np.float32)
        for slab in opinions.slabs(opinions.whole()):
            whole[(slice(None), *slab.inside)] = slab.pooled
        return whole


def test_models_of_one_plan_and_other_seeds_pool_like_folds_of_one_model(model, ct, tmp_path):
    """Two folders of two folds each: the pool is the mean of stock's four."""
    other = write_model(tmp_path, plans(), folds=(0, 1), seed=30)
    predictor = predictor_of([model, other], flips="off")
    case = prepared(predictor, ct)
    assert [(m.model, m.fold) for m in predictor.members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    singles = [
        on_ct_grid(predictor, case, stock_logits(folder, case.data, (fold,)), index).astype(np.float32)
        for index, folder in enumerate((model, other))
        for fold in (0, 1)
    ]
    expected = np.mean(singles, axis=0)
    assert np.abs(pooled_on_ct(predictor, case, tmp_path) - expected).max() < HALF
    assert np.abs(expected - np.mean(singles[:2], axis=0)).max() > 1


def test_models_with_other_spacings_pool_on_the_ct_grid_each_weighing_its_members(model, ct, tmp_path):
    """One of the three members has a plan of its own: stock's resampled logits, one third each."""
    coarse = write_model(tmp_path, plans(spacing=(3.0, 2.0, 2.5)), folds=(0,), seed=30)
    predictor = predictor_of([model, coarse], flips="off", folds="all")
    case = prepared(predictor, ct)
    assert case.cases[0].data.shape != case.cases[1].data.shape
    both = on_ct_grid(predictor, case, stock_logits(model, case.cases[0].data, (0, 1)), 0).astype(np.float32)
    alone = on_ct_grid(predictor, case, stock_logits(coarse, case.cases[1].data, (0,)), 1).astype(np.float32)
    assert np.abs(pooled_on_ct(predictor, case, tmp_path) - (2 * both + alone) / 3).max() < HALF
    assert np.abs(both - alone).max() > 1


def test_a_result_of_several_models_names_each_members_model(model, ct, tmp_path):
    coarse = write_model(tmp_path / "b", plans(spacing=(3.0, 2.0, 2.5)), folds=(0,), seed=30)
    result = segment(ct, [model, coarse], tmp_path / "out", flips="off")
    assert [(m["model"], m["fold"]) for m in result.provenance["members"]] == [(0, 0), (0, 1), (1, 0)]
    assert len(result.provenance["member_set"]["models"]) == 2
    assert result.uncertainty("mi").array.max() > 0.01


def test_models_that_turn_the_axes_differently_are_refused_by_name(model, ct, tmp_path):
    turned = write_model(tmp_path / "b", plans(transpose=(1, 0, 2)), folds=(0, 1), seed=30)
    with pytest.raises(CalibUncertaintyError, match="turns the axes of a CT otherwise") as refusal:
        predictor_of([model, turned]).prepare([Volume.read(ct)])
    assert str(turned) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_models_with_other_structures_are_refused(model, ct, tmp_path):
    other = write_model(tmp_path / "b", plans(), labels={"background": 0, "Liver": 1, "Spleen": 2})
    with pytest.raises(CalibUncertaintyError, match="cannot be asked together"):
        segment(ct, [model, other], tmp_path / "out")
