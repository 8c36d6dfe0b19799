"""What the benchmarks compute on: a phantom of bright structures in a body, and nnU-Net folders whose networks find them.

The networks are real ones built from real plans, untrained but for a few channels set by hand: the CT's intensity is carried past
the deep layers, and the last convolution and the head turn it into the first `PRESENT` structures by tents over bands of intensity.
So the answer is localised as a trained network's is (a few per cent of the CT, sharp rims, members that disagree at the rims), and
any number of further classes takes part that this patient does not have. All other channels are random and cost what they cost.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))
from tiny_model import plans

PRESENT = 5
TENTS = 1.2 * np.arange(PRESENT + 1)  # where each class is surest, in units of HU_PER_UNIT; background at 0
HU_PER_UNIT = 200.0
SHARE = 0.07  # of the CT's voxels that are structure
_CARRIED = 1.2  # keeps the carried intensity on the straight side of the nonlinearity
_EPS = 400.0  # far above any channel's variance: instance norm then takes off a tile's mean and hardly rescales it

# features a stage, convolutions a stage, kernel of the first stage, patch. `medium` was chosen to take about 0.4 s for a tile of
# 96 x 96 x 96 on two cores; the benchmark prints what it took. `tiny` is small so that all the rest shows.
NETWORKS = {
    "tiny": ([6, 8], 1, 1, 96),
    "medium": ([8, 16, 32, 64, 64], 2, 3, 96),
    "full": ([32, 64, 128, 256, 320, 320], 2, 3, 128),
}
GRID_MM = 1.5


def write_ct(path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int = 0) -> float:
    """Write a phantom CT (z, y, x), mm: an elliptic body in air with 24 ellipsoids of five intensities. Returns their share."""
    random = np.random.default_rng(seed)
    array = np.full(shape, -1000, np.int16)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape[1:])
    body = (y[:, None] / 0.72) ** 2 + (x[None, :] / 0.9) ** 2 < 1
    tissue = random.integers(-25, 26, (8, *shape[1:]), dtype=np.int16)  # noise of a soft-tissue level, repeated every 8 slices
    for index in range(shape[0]):
        array[index][body] = tissue[index % 8][body]
    size = np.array(shape)
    count = 24
    radius = (3 / (4 * np.pi) * SHARE / count * np.prod(size)) ** (1 / 3)
    for number in range(count):
        stretch = random.uniform(0.8, 1.25, 3)
        # in proportion to the volume, so that a thin CT has flat structures, not cut ones
        radii = radius * stretch / np.prod(stretch) ** (1 / 3) * size / np.prod(size) ** (1 / 3)
        centre = size * (0.5 + random.uniform(-1, 1, 3) * (0.38, 0.24, 0.3))
        level = TENTS[1 + number % PRESENT] * HU_PER_UNIT
        low = np.maximum(np.floor(centre - radii).astype(int), 0)
        high = np.minimum(np.ceil(centre + radii).astype(int) + 1, size)
        axes = [((np.arange(a, b) - c) / r) ** 2 for a, b, c, r in zip(low, high, centre, radii, strict=True)]
        inside = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] < 1
        part = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        part[inside] = (level + random.normal(0, 12, int(inside.sum()))).astype(np.int16)
    share = float(np.count_nonzero(array > 100) / array.size)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((-120.0, -115.0, 40.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    return share


def make_plans(network: str) -> dict:
    """Plans of one of NETWORKS, with the demo phantom's way of scaling HU."""
    features, convolutions, kernel, patch = NETWORKS[network]
    content = plans(spacing=(GRID_MM,) * 3, patch=(patch,) * 3)
    stages = len(features)
    content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=list(features),
        kernel_sizes=[[kernel] * 3] + [[3] * 3] * (stages - 1),
        strides=[[1] * 3] + [[2] * 3] * (stages - 1),
        n_conv_per_stage=[convolutions] * stages,
        n_conv_per_stage_decoder=[convolutions] * (stages - 1),
        norm_op_kwargs={"eps": _EPS, "affine": True},
    )
    content["foreground_intensity_properties_per_channel"]["0"].update(
        mean=0.0, std=HU_PER_UNIT, percentile_00_5=-100.0, percentile_99_5=1500.0
    )
    return content


def write_model(folder: Path, network: str, n_classes: int, folds: int, localised: bool = True) -> Path:
    """Write a model folder with this many folds, each with other random channels and slightly other tents."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    content = make_plans(network)
    model = folder / f"Dataset998_{network.title()}{n_classes}" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    model.mkdir(parents=True, exist_ok=True)
    labels = {"background": 0, **{f"Structure {index}": index for index in range(1, n_classes)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (model / "plans.json").write_text(json.dumps(content), encoding="utf-8")
    (model / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    architecture = content["configurations"]["3d_fullres"]["architecture"]
    for fold in range(folds):
        torch.manual_seed(fold)
        built = get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"], 1, n_classes,
            allow_init=True, deep_supervision=False,
        )  # fmt: skip
        if localised:
            make_localised(built, fold)
        else:
            _tame(built)
        (model / f"fold_{fold}").mkdir(exist_ok=True)
        checkpoint = {
            "network_weights": built.state_dict(), "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1, 2),
            "init_args": {"configuration": "3d_fullres"},
        }  # fmt: skip
        torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")
    return model


def _tame(built) -> None:
    """Undo the large epsilon of the norms: what is left is an untrained network with foreground everywhere."""
    import torch

    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, torch.nn.InstanceNorm3d):
                module.weight.fill_(_EPS**0.5)


def make_localised(built, seed: int) -> None:
    """Set the channels that carry the intensity, and the head, by hand (see the top of this file)."""
    import torch

    random = np.random.default_rng([seed, 77])
    _tame(built)
    with torch.no_grad():
        encoder = [block for block in built.encoder.stages[0].modules() if hasattr(block, "norm")]
        decoder = [block for block in built.decoder.stages[-1].modules() if hasattr(block, "norm")]
        skip_at = built.decoder.transpconvs[-1].out_channels  # the skip follows the upsampled channels
        for number, block in enumerate([*encoder, *decoder[:-1]]):
            source = skip_at if number == len(encoder) else 0
            _carry(block, source, [0], [_CARRIED])
        source = skip_at if len(decoder) == 1 else 0
        knots = TENTS + random.normal(0, 0.04, len(TENTS))
        _carry(decoder[-1], source, list(range(len(knots))), [-float(knot) for knot in knots])
        head = built.decoder.seg_layers[-1]
        weight, bias = _head(knots, head.weight.shape[0])
        head.weight.mul_(0.15)
        head.weight[:, : len(knots)] = torch.from_numpy(weight)[:, :, None, None, None]
        head.bias.copy_(torch.from_numpy(bias))


def _carry(block, source: int, targets: list[int], offsets: list[float]) -> None:
    """Make channels of a block the source channel as it is (less the tile's mean), plus an offset each."""
    kernel = block.conv.weight
    middle = tuple(n // 2 for n in kernel.shape[2:])
    for target, offset in zip(targets, offsets, strict=True):
        kernel[target] = 0.0
        kernel[(target, source, *middle)] = 1.0
        block.norm.bias[target] = offset


def _head(knots: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, K) and bias (C,) on ramps max(x - knot, 0): for each class that is there a tent of +6 over -2, else -6."""
    present = min(len(knots), n_classes)
    weight, bias = np.zeros((n_classes, len(knots)), np.float32), np.full(n_classes, -6.0, np.float32)
    for index in range(present):
        height = np.where(np.arange(len(knots)) == index, 6.0, -2.0)
        slopes = np.diff(height) / np.diff(knots)
        weight[index] = np.diff(np.r_[0.0, slopes, 0.0])
        bias[index] = height[0]
    return weight, bias
