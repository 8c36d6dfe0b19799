"""The last layer of a network: what goes into it, as stock nnU-Net would combine it, and the layer itself as numbers.

The last layer is a convolution of one voxel, a linear map, and everything that nnU-Net does to logits afterwards is linear as
well: the mean over flips, the Gaussian-weighted mean over tiles, the interpolation to the CT grid, all with weights that add
up to one. So the same means of the layer's input (the features), put through a new layer, are the logits that a network with
that layer would give, and one pass over a case is enough to fit it. They differ where nnU-Net itself rounds: in half precision
everywhere, and coarsely in the outermost corners of the grid, where the Gaussian weights are close to half precision's zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.checkpoint import Checkpoint
from ..model.member_set import MemberSet
from .members import MemberPredictor

if TYPE_CHECKING:
    import torch

CHUNK_VOXELS = 65536


@dataclass(frozen=True)
class LastLayer:
    """logits = weight @ features + bias. weight: (C, F) float32; bias: (C,) float32; name: of the layer in the network."""

    weight: np.ndarray
    bias: np.ndarray
    name: str

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(F, ...) features to (C, ...) float32 logits."""
        flat = features.reshape(len(features), -1)
        result = np.empty((len(self.weight), flat.shape[1]), np.float32)
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            result[:, part] = self.weight @ flat[:, part].astype(np.float32) + self.bias[:, np.newaxis]
        return result.reshape(len(self.weight), *features.shape[1:])

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str) -> LastLayer:
        """The layer as a checkpoint has it."""
        weight, bias = checkpoint.weights[f"{name}.weight"], checkpoint.weights.get(f"{name}.bias")
        matrix = weight.detach().float().numpy().reshape(weight.shape[:2]).copy()
        return cls(
            matrix, np.zeros(len(matrix), np.float32) if bias is None else bias.detach().float().numpy().copy(), name
        )

    def put_into(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """The checkpoint's weights with this layer in the place of its own, in its own precision; the others are not copied."""
        import torch

        weights = dict(checkpoint.weights)
        for key, values in ((f"{self.name}.weight", self.weight), (f"{self.name}.bias", self.bias)):
            stored = weights[key]
            weights[key] = torch.tensor(values).reshape(stored.shape).to(stored.dtype)
        return weights


class FeaturePredictor(MemberPredictor):
    """As `MemberPredictor`, of one set of weights, but what comes out are the last layer's features instead of logits.

    `n_classes` is their number. Raises CalibUncertaintyError where the network's last layer is not one that can be fitted.
    """

    def __init__(self, chosen: MemberSet, *arguments, **options) -> None:
        super().__init__(chosen, *arguments, **options)
        if len(self.members) != 1:
            raise ValueError(f"{len(self.members)} members: a last layer belongs to one")
        model = self._models[0]
        source = self.chosen.sources()[0]
        name, layer = _last_convolution(model.network, self.heads.channels, str(self.chosen.path_of(source)))
        self.checkpoint = self._checkpoints[source]
        self.layer = LastLayer.of(_with_weights(self.checkpoint), name)
        self.n_classes = int(layer.in_channels)
        # what a forward hook returns takes the place of the layer's output
        layer.register_forward_hook(lambda _, inputs, output: inputs[0])


def _with_weights(checkpoint: Checkpoint) -> Checkpoint:
    from dataclasses import replace

    return replace(checkpoint, weights=checkpoint.read_weights())


def _last_convolution(network, heads: int, where: str):
    """(name, module) of the segmentation layer of the highest resolution, as nnU-Net's own U-Nets have it."""
    import torch

    layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
    layer = layers[-1] if isinstance(layers, torch.nn.ModuleList) and len(layers) else None
    plain = isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d) and set(layer.kernel_size) == {1} and layer.groups == 1
    if not plain or layer.out_channels != heads or layer.bias is None:
        raise CalibUncertaintyError(
            f"{where}: its network ({type(network).__name__}) does not end in a convolution of one voxel as nnU-Net's U-Nets do;"
            " its last layer cannot be fitted, choose another method"
        )
    return f"decoder.seg_layers.{len(layers) - 1}", layer
