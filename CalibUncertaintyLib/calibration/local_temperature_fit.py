"""Fitting the local temperature: patches around the structures, cross-entropy, stopped by cases that were held out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..progress import Progress
from .linear_fit import nll_of_scores
from .local_network import HALO, LocalNetwork, exponents_of
from .local_temperature import FittedLocalTemperature, LocalTemperature, held_out_cases
from .regions import RegionTemperatureFit
from .temperature import TemperatureFit
from .volumes import Block, Triple, VolumeStore, clean_logits, without_halo

PATCH: Triple = (16, 48, 48)
PATCHES_A_STEP = 2
STEPS_BETWEEN_LOOKS = 20
PATIENCE = 4  # looks at the held-out cases without a gain
LEAST_GAIN = 1e-3  # of the NLL, that counts as one
# The held-out cases are looked at often; this many of their voxels, spread over all their blocks, tell enough
LOOKED_AT_PATCHES = 16


class LocalTemperatureFit:
    """Accumulator that fits a `LocalTemperature` to the ROI voxels of the added cases.

    :param regions: names of the regions of a model with sigmoid heads; () for softmax.
    :param seed: of first weights, patches and the choice of held-out cases.
    """

    def __init__(self, regions: Sequence[str] = (), seed: int = 0) -> None:
        self._regions, self._seed = tuple(regions), seed
        self._store = VolumeStore(HALO, bool(regions), seed=seed)

    def add_volume(
        self, case_id: str, logits: np.ndarray, labels: np.ndarray, roi: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Add a whole case; see `VolumeStore.add` for shapes, what is kept and what is refused."""
        self._store.add(case_id, logits, labels, roi, image)

    def fit(
        self, max_steps: int = 200, held_out_share: float = 0.25, learning_rate: float = 5e-3, device: str = "auto",
        progress: Progress | None = None,
    ) -> FittedLocalTemperature:  # fmt: skip
        """Train on most cases, keep the state that is best on the others.

        :param max_steps: of Adam (Kingma & Ba 2015); 0 gives one temperature everywhere.
        :param held_out_share: of the cases, to stop by.
        :param device: "auto" (CUDA where there is one), "cpu" or "cuda".
        :param progress: told of every step; may cancel.
        """
        blocks, progress = self._store.blocks, progress or Progress()
        nothing = (math.nan, math.nan, math.nan)
        if not blocks:
            return FittedLocalTemperature(None, "empty_roi", *nothing, nothing, (), (), 0)
        cases = self._store.cases
        held_out = held_out_cases(cases, held_out_share, self._seed)
        train = [block for block in blocks if block.case_id not in held_out]
        test = [block for block in blocks if block.case_id in held_out]
        start, known = self._start(train)
        warnings, history, fitted, status = (*self._store.warnings, *known), (), start, "ok"
        if not held_out:
            status = "one_case"
            warnings = (
                *warnings,
                "one case alone cannot tell when to stop; one temperature is kept, give two cases or more",
            )
        elif max_steps > 0:
            trainer = _Trainer(start, train, test, self._store.sigmoid, learning_rate, device, self._seed)
            fitted, history = trainer.run(max_steps, progress)
        figures = self._figures(start, fitted, train, test)
        if held_out and fitted is not start and figures[1][2] >= figures[1][1]:
            fitted, status = start, "no_gain"  # the voxels looked at while training are only some of them
            figures = self._figures(start, fitted, train, test)
        elif held_out and fitted is start:
            status = "no_gain"
        voxels = sum(block.voxels for block in blocks)
        return FittedLocalTemperature(
            fitted, status, *figures[0], figures[1], cases, held_out, voxels, warnings, history
        )

    def _start(self, train: Sequence[Block]) -> tuple[LocalTemperature, tuple[str, ...]]:
        """One temperature everywhere, fitted on the training cases, and what is doubtful about it."""
        fit = RegionTemperatureFit(self._regions) if self._regions else TemperatureFit()
        squares, values, image = 0.0, 0, np.zeros(3)
        for block in train:
            logits = without_halo(block.logits, HALO)[:, block.roi]
            fit.add(block.case_id, logits, block.truth[..., block.roi])
            centred = clean_logits(logits, self._store.sigmoid)
            squares, values = squares + float((centred.astype(np.float64) ** 2).sum()), values + centred.size
            if block.image is not None:
                hu = without_halo(block.image, HALO)[block.roi].astype(np.float64)
                image += (hu.size, hu.sum(), (hu * hu).sum())
        found = fit.fit(bootstrap=0)
        scale = None
        if self._store.has_image:
            mean = image[1] / image[0]
            scale = (float(mean), max(float(math.sqrt(max(image[2] / image[0] - mean * mean, 0.0))), 1.0))
        temperatures = found.temperature if self._regions else (found.temperature,)
        network = LocalNetwork.fresh(
            self._store.channels, len(temperatures), max(math.sqrt(squares / values), 1e-3), scale, self._seed
        )
        return LocalTemperature(tuple(temperatures), network, bool(self._regions)), found.warnings

    def _figures(self, start: LocalTemperature, fitted: LocalTemperature, train, test) -> tuple:
        """Mean NLL at T = 1, with one temperature and with local ones: over all voxels, and over the held-out ones."""
        one = LocalTemperature((1.0,) * len(start.temperatures), start.network, start.regions)
        sums = {}
        for name, blocks in (("train", train), ("test", test)):
            # a network whose last layer is zero need not be run
            rows = [
                np.array([_nll_sums(block, which, self._store.sigmoid) for which in (one, start)]) for block in blocks
            ]
            local = (
                rows if fitted is start else [[_nll_sums(block, fitted, self._store.sigmoid, True)] for block in blocks]
            )
            voxels = sum(block.voxels for block in blocks)
            sums[name] = (
                (*np.sum(rows, axis=0), float(np.sum([row[-1] for row in local])), voxels) if blocks else (0,) * 4
            )
        total = [
            (a + b) / (sums["train"][3] + sums["test"][3]) for a, b in zip(sums["train"], sums["test"], strict=True)
        ]
        count = sums["test"][3]
        alone = tuple(float(value) / count if count else math.nan for value in sums["test"][:3])
        return tuple(float(value) for value in total[:3]), alone


def _nll_sums(block: Block, local: LocalTemperature, sigmoid: bool, run: bool = False) -> float:
    """Sum of the NLL over a block's ROI voxels."""
    centred = clean_logits(block.logits, sigmoid)
    temperature = np.asarray(local.temperatures, np.float32)[:, np.newaxis]
    if run:
        temperature = temperature * np.exp(local.network.exponents(centred, block.image))[:, block.roi]
    scores = without_halo(centred, HALO)[:, block.roi] / temperature
    return float(nll_of_scores(scores, block.truth[..., block.roi], sigmoid)[0].sum(dtype=np.float64))


class _Trainer:
    """Adam on patches of the training cases; the weights that are best on patches of the held-out cases are kept."""

    def __init__(self, start, train, test, sigmoid: bool, learning_rate: float, device: str, seed: int) -> None:
        import torch

        self._device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._start, self._train, self._sigmoid = start, train, sigmoid
        self._random = np.random.default_rng(seed + 1)
        self._places = _Places(train)
        looked_at = _Places(test)
        fixed = np.random.default_rng(seed + 2)
        self._looks = [self._patch(*looked_at.draw(fixed)) for _ in range(LOOKED_AT_PATCHES)]
        self._layers = start.network.tensors(self._device)
        for pair in self._layers:
            for tensor in pair:
                tensor.requires_grad_(True)
        weights = [tensor for pair in self._layers for tensor in pair]
        self._adam = torch.optim.Adam(weights, lr=learning_rate)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self._adam, factor=0.3, patience=1)

    def run(self, max_steps: int, progress: Progress) -> tuple[LocalTemperature, tuple[dict, ...]]:
        """The best state, which is the start itself where nothing was better, and the NLL on the way."""
        import torch

        best, kept, behind, history = self._look(), None, 0, []
        history.append({"step": 0, "train": math.nan, "held_out": best})
        seen: list[float] = []
        # CUDA may choose among algorithms that round otherwise from run to run
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            for step in range(1, max_steps + 1):
                seen.append(self._step())
                progress.report(step / max_steps, f"step {step} of at most {max_steps}, held-out NLL {best:.5f}")
                if step % STEPS_BETWEEN_LOOKS and step != max_steps:
                    continue
                held_out = self._look()
                history.append({"step": step, "train": float(np.mean(seen)), "held_out": held_out})
                seen.clear()
                self._schedule.step(held_out)
                behind = 0 if held_out < best * (1 - LEAST_GAIN) else behind + 1
                if held_out < best:
                    best, kept = held_out, self._start.network.with_tensors(self._layers)
                if behind >= PATIENCE:
                    break
        if kept is None:
            return self._start, tuple(history)
        return LocalTemperature(self._start.temperatures, kept, self._start.regions), tuple(history)

    def _step(self) -> float:
        self._adam.zero_grad(set_to_none=True)
        total = 0.0
        patches = [self._patch(*self._places.draw(self._random)) for _ in range(PATCHES_A_STEP)]
        voxels = sum(int(patch[3].sum()) for patch in patches)
        for patch in patches:
            nll = self._nll(patch)
            (nll / voxels).backward()
            total += float(nll.detach())
        self._adam.step()
        return total / voxels

    def _look(self) -> float:
        import torch

        with torch.inference_mode():
            total = sum(float(self._nll(patch)) for patch in self._looks)
        return total / sum(int(patch[3].sum()) for patch in self._looks)

    def _patch(self, block: Block, window: tuple[slice, ...]) -> tuple:
        """(network inputs with the halo, logits / T, truth, roi) of one window of a block, as tensors on the CPU."""
        import torch

        around = tuple(slice(part.start, part.stop + 2 * reach) for part, reach in zip(window, HALO, strict=True))
        centred = clean_logits(block.logits[(slice(None), *around)], self._sigmoid)
        image = None if block.image is None else block.image[around]
        inputs = self._start.network.inputs(centred, image)
        base = np.asarray(self._start.temperatures, np.float32)[:, None, None, None]
        truth = block.truth[(..., *window)]
        arrays = (
            inputs,
            without_halo(centred, HALO) / base,
            truth if self._sigmoid else truth.astype(np.int64),
            block.roi[window],
        )
        return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)

    def _nll(self, patch: tuple):
        """Sum of the NLL over the ROI voxels of a patch, nats (sigmoid: of the mean over regions)."""
        import torch
        from torch.nn import functional

        inputs, logits, truth, roi = (tensor.to(self._device) for tensor in patch)
        scores = (logits * torch.exp(-exponents_of(self._layers, inputs[None])[0]))[:, roi]
        if self._sigmoid:
            nll = functional.binary_cross_entropy_with_logits(scores, truth[:, roi].to(scores.dtype), reduction="sum")
            return nll / len(scores)
        return functional.cross_entropy(scores.T, truth[roi], reduction="sum")


class _Places:
    """Windows of patches drawn by chance: each ROI voxel is as likely to lie under one, but for the borders."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = list(blocks)
        counts = np.array([block.voxels for block in self._blocks], float)
        self._chance = counts / counts.sum()
        self._voxels = [np.flatnonzero(block.roi).astype(np.int32) for block in self._blocks]

    def draw(self, random: np.random.Generator) -> tuple[Block, tuple[slice, ...]]:
        """A block, and the window of a patch in it (without the halo) that holds at least one ROI voxel."""
        index = int(random.choice(len(self._blocks), p=self._chance))
        block = self._blocks[index]
        voxel = np.unravel_index(int(random.choice(self._voxels[index])), block.roi.shape)
        window = []
        for at, size, patch in zip(voxel, block.roi.shape, PATCH, strict=True):
            size_here = min(patch, size)
            begin = int(np.clip(int(at) - random.integers(size_here), 0, size - size_here))
            window.append(slice(begin, begin + size_here))
        return block, tuple(window)
