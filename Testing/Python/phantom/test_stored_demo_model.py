"""The stored demo model: small, safe to load, stock nnU-Net loads it, and its seeds are kept apart."""

import json

import numpy as np
import pytest

FOLDS = range(5)


@pytest.mark.parametrize("other", ["calibration", "test", "demo"])
def test_no_phantom_of_the_training_is_used_for_anything_else(demo_model, other):
    seeds = json.loads((demo_model / "phantom_seeds.json").read_text(encoding="utf-8"))
    assert seeds[other]
    assert not set(seeds["training"]) & set(seeds[other])


def test_the_seeds_stored_are_those_of_the_cases_it_was_trained_on(demo_model):
    seeds = json.loads((demo_model / "phantom_seeds.json").read_text(encoding="utf-8"))
    splits = json.loads((demo_model / "splits_final.json").read_text(encoding="utf-8"))
    cases = {case for split in splits for case in (*split["train"], *split["val"])}
    assert cases == {f"phantom_{seed}" for seed in seeds["training"]}


def test_calibration_and_test_phantoms_differ(demo_model):
    seeds = json.loads((demo_model / "phantom_seeds.json").read_text(encoding="utf-8"))
    assert not set(seeds["calibration"]) & set(seeds["test"])


def test_the_whole_demo_model_is_at_most_8_megabytes(demo_model_root):
    size = sum(path.stat().st_size for path in demo_model_root.rglob("*") if path.is_file())
    assert 1e6 < size <= 8e6


@pytest.mark.parametrize("fold", FOLDS)
def test_a_checkpoint_holds_weights_only(demo_model, fold):
    import torch

    checkpoint = torch.load(demo_model / f"fold_{fold}" / "checkpoint_final.pth", map_location="cpu", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"] == {"configuration": "3d_fullres", "fold": fold}
    assert "optimizer_state" not in checkpoint
    weights = checkpoint["network_weights"].values()
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in weights)


def test_the_folds_are_different_networks(demo_model):
    import torch

    first, second = (
        torch.load(demo_model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for fold in (0, 1)
    )
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_stock_nnunet_loads_it_and_finds_organs_in_a_patient_it_has_not_seen(demo_model):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from phantom import make_phantom

    phantom = make_phantom(json.loads((demo_model / "phantom_seeds.json").read_text(encoding="utf-8"))["test"][0])
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False, tile_step_size=1)
    predictor.initialize_from_trained_model_folder(str(demo_model), tuple(FOLDS))
    image = phantom.ct.array[None].astype(np.float32)
    found = predictor.predict_single_npy_array(image, {"spacing": list(phantom.ct.spacing_zyx)}, None, None, False)
    for index, name in phantom.label_names.items():
        a, b = found == index, phantom.labels.array == index
        dice = 2 * (a & b).sum() / (a.sum() + b.sum())
        assert dice > (0.3 if name == "LymphNodes" else 0.85), name
