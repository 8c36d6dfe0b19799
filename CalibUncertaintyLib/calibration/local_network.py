"""The small network behind the local temperature: three layers of convolutions and one that adds up."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from .volumes import HIGHEST_HU, LOWEST_HU, Triple

if TYPE_CHECKING:
    import torch

# T(x) lies within a factor of 20 of the one temperature
LARGEST_EXPONENT = math.log(20.0)
# (kernel, dilation, width) in (z, y, x). Slices are thicker than pixels are wide: the context grows in plane only, to 15 x 15
# pixels of 3 slices. About 1e4 weights; the same layers with kernels of 3 x 3 x 3 take twice the time.
_LAYERS: tuple[tuple[Triple, Triple, int], ...] = (
    ((3, 3, 3), (1, 1, 1), 16),
    ((1, 3, 3), (1, 2, 2), 16),
    ((1, 3, 3), (1, 4, 4), 24),
    ((1, 1, 1), (1, 1, 1), 0),
)
HALO: Triple = tuple(sum(dilation[axis] * (kernel[axis] // 2) for kernel, dilation, _ in _LAYERS) for axis in range(3))
_LARGEST_INPUT = 5.0  # in units of the scales that were seen; metal and padding must not carry a temperature away


@dataclass(frozen=True)
class LocalNetwork:
    """a(x) of logits and image. weights: a (kernel, bias) pair of float32 arrays a layer, as torch's conv3d takes them.

    channels: of the logits. image_scale: mean and standard deviation in HU; None without image. logit_scale: what a typical
    logit is divided by.
    """

    weights: tuple[tuple[np.ndarray, np.ndarray], ...]
    channels: int
    logit_scale: float
    image_scale: tuple[float, float] | None

    @classmethod
    def fresh(
        cls, channels: int, outputs: int, logit_scale: float, image_scale: tuple[float, float] | None, seed: int
    ) -> LocalNetwork:
        """Random weights (He et al. 2015) but for the last layer, which is zero: a(x) = 0 everywhere."""
        random, below, weights = np.random.default_rng(seed), channels + (image_scale is not None), []
        for kernel, _, width in _LAYERS:
            shape = (width or outputs, below, *kernel)
            spread = math.sqrt(2 / (below * math.prod(kernel))) if width else 0.0
            weights.append(
                ((spread * random.standard_normal(shape)).astype(np.float32), np.zeros(shape[0], np.float32))
            )
            below = shape[0]
        return cls(tuple(weights), channels, logit_scale, image_scale)

    @property
    def with_image(self) -> bool:
        """Whether the image is an input."""
        return self.image_scale is not None

    @property
    def outputs(self) -> int:
        """How many temperatures it gives a voxel."""
        return len(self.weights[-1][1])

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(kernel.size + bias.size for kernel, bias in self.weights)

    @property
    def halo(self) -> Triple:
        """Voxels of context in (z, y, x)."""
        return HALO

    def inputs(self, centred: np.ndarray, image: np.ndarray | None) -> np.ndarray:
        """What the first layer sees, (C or C + 1, z, y, x) float32 in [-5, 5]: logits, and the image where it is one."""
        rows = np.multiply(centred, np.float32(1 / self.logit_scale), dtype=np.float32)
        if self.image_scale is not None:
            mean, deviation = self.image_scale
            scaled = (np.clip(np.asarray(image, np.float32), LOWEST_HU, HIGHEST_HU) - np.float32(mean)) / np.float32(
                deviation
            )
            if np.isnan(scaled).any():
                raise CalibUncertaintyError("the image holds NaN values; export the CT again")
            rows = np.concatenate([rows, scaled[np.newaxis]])
        return np.clip(rows, -_LARGEST_INPUT, _LARGEST_INPUT)

    def exponents(self, centred: np.ndarray, image: np.ndarray | None) -> np.ndarray:
        """ln(T(x) / T), (outputs, z, y, x) float32 without the halo that logits and image carry, in [-ln 20, ln 20]."""
        import torch

        layers = self.tensors("cpu")
        with torch.inference_mode():
            found = exponents_of(layers, torch.from_numpy(self.inputs(centred, image))[None])
        return found[0].numpy()

    def tensors(self, device: str | torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The weights as new tensors on a device."""
        import torch

        return [
            (torch.tensor(kernel, device=device), torch.tensor(bias, device=device)) for kernel, bias in self.weights
        ]

    def with_tensors(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> LocalNetwork:
        """The same network with other weights."""
        arrays = tuple(
            (kernel.detach().cpu().numpy().copy(), bias.detach().cpu().numpy().copy()) for kernel, bias in layers
        )
        return replace(self, weights=arrays)

    def to_json(self) -> dict:
        """Weights as base64 of little-endian float32 with their shape."""
        return {
            "channels": self.channels,
            "logit_scale": self.logit_scale,
            "image_scale": None if self.image_scale is None else list(self.image_scale),
            "layers": [{"kernel": _encoded(kernel), "bias": _encoded(bias)} for kernel, bias in self.weights],
        }

    @classmethod
    def from_json(cls, document: dict) -> LocalNetwork:
        """The network that `to_json` described.

        :raises ValueError: when the weights are not those of such a network.
        """
        weights = tuple((_decoded(layer["kernel"]), _decoded(layer["bias"])) for layer in document["layers"])
        scale = document["image_scale"]
        image_scale = None if scale is None else (float(scale[0]), float(scale[1]))
        network = cls(weights, int(document["channels"]), float(document["logit_scale"]), image_scale)
        wanted = cls.fresh(network.channels, len(weights[-1][1]), 1.0, image_scale, 0).weights
        if [(k.shape, b.shape) for k, b in weights] != [(k.shape, b.shape) for k, b in wanted]:
            raise ValueError("the stored weights are not those of a local temperature's network")
        return network


def exponents_of(layers: Sequence[tuple[torch.Tensor, torch.Tensor]], inputs: torch.Tensor) -> torch.Tensor:
    """ln(T(x) / T), (n, outputs, ...), of inputs (n, channels, ...) with the halo."""
    import torch
    from torch.nn import functional

    values = inputs
    for index, ((kernel, bias), (_, dilation, _)) in enumerate(zip(layers, _LAYERS, strict=True)):
        values = functional.conv3d(values, kernel, bias, dilation=dilation)
        if index < len(_LAYERS) - 1:
            values = functional.leaky_relu(values, 0.1)
    return LARGEST_EXPONENT * torch.tanh(values / LARGEST_EXPONENT)


def _encoded(array: np.ndarray) -> dict:
    return {"shape": list(array.shape), "float32": base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")}


def _decoded(document: dict) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(document["float32"], validate=True), "<f4").astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("a stored weight is not a finite number")
    return array.reshape(document["shape"])
