"""One convolution on the logits: each class's logit becomes a weighted sum of its neighbours', plus a bias.

Rousseau et al. put a single 5 x 5 kernel and a bias, 26 numbers, on the one logit of a binary network. For softmax each class
has a kernel and a bias of its own and acts on its own logits only (depth-wise), 26 numbers a class: for two classes this is
their method, and with a kernel of one voxel it is vector scaling. Kernels between all pairs of classes would be 25 C^2
numbers, as many as matrix scaling has times 25, for which a handful of held-out cases is too little. The logits are first made
shift-invariant (less their mean over classes): a constant added to all of a voxel's logits must change nothing. For sigmoid
heads each region has its own kernel. Labels can change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from ..progress import Progress
from .linear_fit import fit_linear
from .softmax import sigmoid, softmax
from .volumes import Triple, VolumeStore, clean_logits, mean_nll, slab_windows, with_halo, without_halo

KERNEL = 5
# The fit looks at this many float32 numbers at most (voxels x classes x kernel)
SAMPLE_VALUES = 32_000_000
PULL = 1e-3


@dataclass(frozen=True)
class AuxiliaryConvolution:
    """softmax (or sigmoid) of u_c(x) = sum_d kernel_c(d) v_c(x + d) + bias_c, v the logits less their mean over classes.

    kernels: (C, k_z, k_y, k_x) float32, odd sizes; bias: (C,) float32; regions: whether the heads are sigmoid (v is then the
    logit itself). Where the volume ends its outermost voxels are repeated.
    :raises ValueError: when shapes do not fit or a number is not finite.
    Source: Rousseau et al. 2021, section 2.2 "Auxiliary network"; one kernel for each class is our definition.
    """

    kernels: np.ndarray
    bias: np.ndarray
    regions: bool = False
    method = "auxiliary_convolution"
    preserves = "none"
    spatial = True

    def __post_init__(self) -> None:
        kernels, bias = np.asarray(self.kernels, np.float32), np.asarray(self.bias, np.float32)
        if kernels.ndim != 4 or bias.shape != kernels.shape[:1] or not all(n % 2 for n in kernels.shape[1:]):
            raise ValueError(f"kernels {kernels.shape} and bias {bias.shape} do not fit: (C, odd, odd, odd) and (C,)")
        if not (np.isfinite(kernels).all() and np.isfinite(bias).all()):
            raise ValueError("kernels and bias must be finite numbers")
        object.__setattr__(self, "kernels", kernels)
        object.__setattr__(self, "bias", bias)

    @classmethod
    def identity(cls, channels: int, size: Triple = (1, KERNEL, KERNEL), regions: bool = False) -> AuxiliaryConvolution:
        """The one that changes nothing."""
        kernels = np.zeros((channels, *size), np.float32)
        kernels[(slice(None), *(n // 2 for n in size))] = 1
        return cls(kernels, np.zeros(channels, np.float32), regions)

    @property
    def halo(self) -> Triple:
        """Voxels of context in (z, y, x)."""
        return tuple(n // 2 for n in self.kernels.shape[1:])

    def transform(self, logits: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
        """(C, Z, Y, X) logits to (C, Z, Y, X) float32 probabilities; the image is not looked at.

        :raises CalibUncertaintyError: when logits are NaN or +inf.
        :raises ValueError: when the shape does not fit.
        """
        logits = np.asarray(logits)
        if logits.ndim != 4 or len(logits) != len(self.kernels):
            raise ValueError(f"expected logits ({len(self.kernels)}, Z, Y, X), got {logits.shape}")
        result = np.empty(logits.shape, np.float32)
        for window in slab_windows(logits.shape[1:]):
            scores = self.scores(clean_logits(with_halo(logits, window, self.halo), self.regions))
            result[(slice(None), *window)] = sigmoid(scores) if self.regions else softmax(scores)
        return result

    def scores(self, centred: np.ndarray) -> np.ndarray:
        """The new logits u, (C, z, y, x) float32, of `clean_logits` that carry the halo."""
        result = np.empty(without_halo(centred, self.halo).shape, np.float32)
        for channel, kernel, bias, total in zip(centred, self.kernels, self.bias, result, strict=True):
            for plane in range(total.shape[0]):  # a plane at a time stays in the processor's cache
                total[plane] = bias
                for dz, dy, dx in np.argwhere(kernel):
                    part = channel[plane + dz, dy : dy + total.shape[1], dx : dx + total.shape[2]]
                    total[plane] += kernel[dz, dy, dx] * part
        return result

    def to_json(self) -> dict:
        """{"method", "regions", "kernels": nested lists (C, k_z, k_y, k_x), "bias": [C]}."""
        return {
            "method": self.method, "regions": self.regions, "kernels": self.kernels.tolist(), "bias": self.bias.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict) -> AuxiliaryConvolution:
        """The calibrator that `to_json` described."""
        if document.get("method") != cls.method:
            raise ValueError(f"not an auxiliary convolution: method {document.get('method')!r}")
        kernels, bias = np.array(document["kernels"], np.float32), np.array(document["bias"], np.float32)
        return cls(kernels, bias, bool(document["regions"]))


@dataclass(frozen=True)
class FittedAuxiliaryConvolution:
    """What a fit found.

    `status` is "ok", "separable" (every voxel right: only the pull towards identity bounds the kernels) or "empty_roi" (no
    voxel: figures NaN, no calibrator). `nll_before` and `nll_after` are means over all kept ROI voxels, in nats (sigmoid: the
    mean over regions); `voxels` counts these, `sampled` those that the fit looked at. `history` holds one dict a stage.
    """

    convolution: AuxiliaryConvolution | None
    status: str
    nll_before: float
    nll_after: float
    cases: tuple[str, ...]
    voxels: int
    sampled: int
    warnings: tuple[str, ...] = ()
    history: tuple[dict, ...] = ()

    def calibrator(self) -> AuxiliaryConvolution:
        """The calibrator with these kernels. Raises CalibUncertaintyError where there was no voxel to fit on."""
        if self.convolution is None:
            raise CalibUncertaintyError(
                "no voxel lies in the region of interest of any case; there is no convolution to use"
            )
        return self.convolution


class AuxiliaryConvolutionFit:
    """Accumulator that finds the kernels with the least NLL over the ROI voxels of the added cases.

    The NLL is convex in kernels and bias. It is minimised over a sample of voxels drawn by chance from a seed, each case in
    proportion to its ROI, from the identity and pulled back to it.

    :param regions: names of the regions of a model with sigmoid heads; () for softmax.
    :param dimensions: 2 for kernels in plane, 5 x 5; 3 for 5 x 5 x 5.
    :param seed: of the sample.
    """

    def __init__(self, regions: Sequence[str] = (), dimensions: int = 2, seed: int = 0) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"a convolution has 2 or 3 dimensions, got {dimensions}")
        self._size: Triple = (KERNEL if dimensions == 3 else 1, KERNEL, KERNEL)
        self._regions, self._seed = tuple(regions), seed
        self._store = VolumeStore(tuple(n // 2 for n in self._size), bool(regions), seed=seed)

    def add_volume(
        self, case_id: str, logits: np.ndarray, labels: np.ndarray, roi: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Add a whole case; see `VolumeStore.add` for shapes, what is kept and what is refused. The image is not kept."""
        self._store.add(case_id, logits, labels, roi)

    def fit(
        self, pull: float = PULL, max_passes: int = 200, progress: Progress | None = None
    ) -> FittedAuxiliaryConvolution:
        """The kernels of least NLL.

        :param pull: strength of the pull to identity: pull / 2 times the squared change is added to the mean NLL.
        :param max_passes: over the sample; 0 gives the identity.
        :param progress: told of every pass; may cancel.
        """
        blocks = self._store.blocks
        if not blocks:
            return FittedAuxiliaryConvolution(None, "empty_roi", math.nan, math.nan, (), 0, 0)
        start = AuxiliaryConvolution.identity(self._store.channels, self._size, bool(self._regions))
        before, right = self._figures(start)
        voxels = sum(block.voxels for block in blocks)
        fitted, sampled, passes = start, 0, 0
        if max_passes > 0:
            inputs, truth = self._sample(voxels)
            flat = np.concatenate([start.kernels.reshape(len(start.kernels), -1), start.bias[:, np.newaxis]], axis=1)
            found = fit_linear(inputs, truth, flat, bool(self._regions), pull, None, progress, max_passes)
            kernels = found.weights[:, :-1].reshape(start.kernels.shape)
            fitted = AuxiliaryConvolution(kernels, found.weights[:, -1], bool(self._regions))
            sampled, passes = inputs.shape[-1], found.passes
        after, _ = self._figures(fitted)
        history = ({"passes": 0, "nll": before}, {"passes": passes, "nll": after})
        warnings = self._store.warnings
        if after > before:  # the sample was too small to stand for the rest
            fitted, after = start, before
            warnings = (*warnings, "the fitted convolution is worse than none; the identity is kept")
        return FittedAuxiliaryConvolution(
            fitted, "separable" if right else "ok", before, after, self._store.cases, voxels, sampled,
            (*warnings, *self._one_sided()), history,
        )  # fmt: skip

    def _figures(self, convolution: AuxiliaryConvolution) -> tuple[float, bool]:
        """Mean NLL over all kept voxels, and whether every one of them is right."""
        right = True

        def scores_of(block):
            nonlocal right
            scores = convolution.scores(clean_logits(block.logits, self._store.sigmoid))
            if right:
                label = scores > 0 if self._store.sigmoid else scores.argmax(axis=0)
                right = bool((label == block.truth)[..., block.roi].all())
            return scores

        return mean_nll(self._store.blocks, self._store.sigmoid, scores_of), right

    def _one_sided(self) -> tuple[str, ...]:
        """What is missing in the reference."""
        truths = [block.truth[..., block.roi] for block in self._store.blocks]
        if not self._regions:
            alone = len({value for truth in truths for value in np.unique(truth).tolist()}) < 2
            return ("only one class occurs in the reference labels inside the region of interest",) if alone else ()
        held = np.sum([truth.sum(axis=1) for truth in truths], axis=0)
        total = sum(truth.shape[1] for truth in truths)
        return tuple(
            f"{name} is everywhere or nowhere in the reference labels inside the region of interest"
            for name, count in zip(self._regions, held, strict=True)
            if count in (0, total)
        )

    def _sample(self, voxels: int) -> tuple[np.ndarray, np.ndarray]:
        """Neighbourhoods (C, K + 1, N) float32 with a last row of ones, and the truth, of voxels drawn by chance."""
        taps, channels = math.prod(self._size), self._store.channels
        share = min(1.0, SAMPLE_VALUES / (channels * (taps + 1)) / voxels)
        random = np.random.default_rng(self._seed)
        chosen = [_drawn(random, np.flatnonzero(block.roi), share) for block in self._store.blocks]
        inputs = np.ones((channels, taps + 1, sum(map(len, chosen))), np.float32)
        truth, done = [], 0
        for block, voxels_of_block in zip(self._store.blocks, chosen, strict=True):
            centred = clean_logits(block.logits, self._store.sigmoid)
            at = np.unravel_index(voxels_of_block, block.roi.shape)
            for tap, (dz, dy, dx) in enumerate(np.ndindex(self._size)):
                inputs[:, tap, done : done + len(voxels_of_block)] = centred[:, at[0] + dz, at[1] + dy, at[2] + dx]
            truth.append(block.truth[(..., *at)])
            done += len(voxels_of_block)
        return inputs, np.concatenate(truth, axis=-1)


def _drawn(random: np.random.Generator, voxels: np.ndarray, share: float) -> np.ndarray:
    """This share of voxels, at least one, in order."""
    if share >= 1:
        return voxels
    return np.sort(random.choice(voxels, max(1, round(share * len(voxels))), replace=False))
