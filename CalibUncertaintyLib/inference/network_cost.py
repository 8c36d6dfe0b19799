"""What one forward pass of a network costs, read from its plans: weights, feature maps that live at once, multiplications."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkCost:
    """Of one tile: `weights` (numbers), `live` (numbers in feature maps at the worst moment, the input included), `macs`
    (multiplications with addition in its convolutions)."""

    weights: int
    live: int
    macs: int


@dataclass
class _Tape:
    """Feature maps made and dropped in the order in which PyTorch makes and drops them without gradients."""

    weights: int = 0
    macs: int = 0
    live: int = 0
    peak: int = 0
    bias: bool = True

    def make(self, channels: int, shape: Sequence[int]) -> int:
        size = channels * math.prod(shape)
        self.live += size
        self.peak = max(self.peak, self.live)
        return size

    def drop(self, size: int) -> None:
        self.live -= size

    def conv(self, before: int, after: int, kernel: Sequence[int], shape: Sequence[int]) -> int:
        """A convolution whose output has this shape; its input stays."""
        self.weights += before * after * math.prod(kernel)
        self.macs += before * after * math.prod(kernel) * math.prod(shape)
        return self.make(after, shape)

    def normalised(self, before: int, after: int, kernel: Sequence[int], shape: Sequence[int]) -> int:
        """Convolution and instance norm; the activation works in place."""
        raw = self.conv(before, after, kernel, shape)
        self.weights += (
            3 if self.bias and math.prod(kernel) > 1 else 2
        ) * after  # the norm's two; a shortcut has no bias
        out = self.make(after, shape)
        self.drop(raw)
        return out

    def stacked(self, count: int, before: int, after: int, kernel: Sequence[int], shape: Sequence[int]) -> int:
        """Several convolutions one behind the other; the stage's input is held by whoever called it."""
        out = self.normalised(before, after, kernel, shape)
        for _ in range(count - 1):
            previous, out = out, self.normalised(after, after, kernel, shape)
            self.drop(previous)
        return out

    def residual(
        self, before: int, after: int, kernel: Sequence[int], inside: Sequence[int], shape: Sequence[int]
    ) -> int:
        """nnU-Net's basic residual block, from shape `inside` to `shape`."""
        side = 0
        if inside != shape:
            side = self.make(before, shape)
        if before != after:
            pooled, side = side, self.normalised(before, after, (1,), shape)
            self.drop(pooled)
        first = self.normalised(before, after, kernel, shape)
        out = self.normalised(after, after, kernel, shape)
        self.drop(first + side)
        return out


def network_cost(settings: dict, channels: int, heads: int, patch: Sequence[int] | None = None) -> NetworkCost | None:
    """Cost of one tile of the plans' network, or None for an architecture that is not one of nnU-Net's U-Nets.

    settings: a configuration of plans.json with what it inherits. channels: of the input; heads: of the output. patch: voxels of
    a tile, the plans' own unless given. Counted as the modules of dynamic-network-architectures run without gradients: a stage
    holds its input, each block its own input, the skips of all stages wait for the decoder, which joins two maps into a third.
    """
    architecture = _architecture(settings)
    if architecture is None:
        return None
    kind, keys = architecture
    try:
        return _walk(kind, keys, channels, heads, tuple(patch or settings["patch_size"]))
    except (KeyError, TypeError, IndexError, ValueError):
        return None  # plans by hand, or of a later nnU-Net


def _architecture(settings: dict) -> tuple[str, dict] | None:
    """Class name without its module, and its arguments; plans from before nnU-Net 2.3 in the words of today's."""
    if isinstance(settings.get("architecture"), dict):
        found = settings["architecture"]
        kind, keys = str(found.get("network_class_name", "")).rpartition(".")[2], found.get("arch_kwargs")
    elif "UNet_class_name" in settings:
        kind, counts = settings["UNet_class_name"], settings.get("n_conv_per_stage_encoder") or []
        base, most = settings.get("UNet_base_num_features", 32), settings.get("unet_max_num_features", 320)
        keys = {
            "n_stages": len(counts), "features_per_stage": [min(base * 2**i, most) for i in range(len(counts))],
            "kernel_sizes": settings.get("conv_kernel_sizes"), "strides": settings.get("pool_op_kernel_sizes"),
            "n_conv_per_stage": counts, "n_blocks_per_stage": counts,
            "n_conv_per_stage_decoder": settings.get("n_conv_per_stage_decoder"),
        }  # fmt: skip
    else:
        return None
    return (kind, keys) if kind in ("PlainConvUNet", "ResidualEncoderUNet") and isinstance(keys, dict) else None


def _walk(kind: str, keys: dict, channels: int, heads: int, patch: tuple[int, ...]) -> NetworkCost:
    stages, tape = int(keys["n_stages"]), _Tape(bias=bool(keys.get("conv_bias", True)))
    features = _each(keys["features_per_stage"], stages)
    kernels = [_axes(kernel, len(patch)) for kernel in _each(keys["kernel_sizes"], stages)]
    strides = [_axes(stride, len(patch)) for stride in _each(keys["strides"], stages)]
    residual = kind == "ResidualEncoderUNet"
    blocks = _each(keys["n_blocks_per_stage" if residual else "n_conv_per_stage"], stages)
    decoder = _each(keys["n_conv_per_stage_decoder"], stages - 1)

    tape.make(channels, patch)
    shapes, skips, before, shape = [], [], channels, patch
    stem = 0
    if residual:
        stem = tape.normalised(before, features[0], kernels[0], shape)
        before = features[0]
    for stage in range(stages):
        inside, shape = shape, tuple(-(-n // step) for n, step in zip(shape, strides[stage], strict=True))
        if residual:
            out = tape.residual(before, features[stage], kernels[stage], inside, shape)
            for _ in range(blocks[stage] - 1):
                previous, out = out, tape.residual(features[stage], features[stage], kernels[stage], shape, shape)
                tape.drop(previous)
            tape.drop(stem)
            stem = 0
        else:
            out = tape.stacked(blocks[stage], before, features[stage], kernels[stage], shape)
        shapes.append(shape)
        skips.append(out)
        before = features[stage]

    below = 0  # the bottleneck is one of the skips, which are kept to the end
    for step in range(stages - 1):
        level = stages - 2 - step
        shape, width = shapes[level], features[level]
        tape.weights += features[level + 1] * width * math.prod(strides[level + 1]) + width
        tape.macs += features[level + 1] * width * math.prod(shape)
        raised = tape.make(width, shape)
        joined = tape.make(2 * width, shape)
        tape.drop(raised)
        out = tape.stacked(decoder[step], 2 * width, width, kernels[level], shape)
        tape.drop(joined + below)
        tape.weights += width * heads + heads  # deep supervision's heads are built at every level
        below = out
    tape.macs += features[0] * heads * math.prod(shapes[0])
    tape.make(heads, patch)
    return NetworkCost(tape.weights, tape.peak, tape.macs)


def _each(value: int | Sequence, count: int) -> list:
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) < count:
        raise ValueError(f"{len(values)} values for {count} stages")
    return values


def _axes(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(int(n) for n in value)
