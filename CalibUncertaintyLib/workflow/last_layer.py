"""Fine-tuning of a model's last layer with cross-entropy on held-out cases, into a copy of the model folder.

Rousseau et al. freeze all but the last learnable layer and go on training it with cross-entropy. That layer is linear, so this
is a multinomial logistic regression: convex, started at the trained weights and pulled back to them. Labels can change; how
many do, and what that makes of Dice, is said before anything is stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..calibration.linear_fit import fit_linear, nll_sum
from ..errors import CalibUncertaintyError
from ..inference.devices import out_of_memory_in_words
from ..inference.last_layer import FeaturePredictor, LastLayer
from ..inference.opinions import Opinions
from ..inference.scratch import Scratch
from ..model.folder import ModelFolder
from ..progress import Progress
from ..uncertainty.roi import distance_to_structures, roi_mask
from .cascade import run_previous_stage
from .fit import Reference
from .labelled import LabelledCase, read_cases, read_images, read_reference, refuse_doubtful_cases
from .last_layer_folder import FittedLastLayer, FoldFit
from .options import MemberOptions, is_number
from .room import check_room

# The fit looks at this many float32 numbers at most (voxels x features)
SAMPLE_VALUES = 32_000_000
PULL = 1e-4


@dataclass(frozen=True)
class LastLayerOptions(MemberOptions):
    """Everything one may choose; see `MemberOptions`. Flips are averaged or off, and there is no dropout.

    checkpoints: the one to start from, checkpoint_final.pth where None. roi_mm: fit within this distance of prediction or
    reference, mm. pull: pull / 2 times the squared change of the weights is added to the mean NLL.
    """

    roi_mm: float = 15.0
    pull: float = PULL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flips == "members" or self.dropout:
            raise CalibUncertaintyError(
                "a last layer belongs to one set of weights; leave flips as members and dropout out"
            )
        if not is_number(self.roi_mm, 0, 1000) or self.roi_mm == 0:
            raise CalibUncertaintyError(f"the ROI distance must lie above 0 and up to 1000 mm, got {self.roi_mm}")
        if not is_number(self.pull, 0, 1e6) or self.pull == 0:
            raise CalibUncertaintyError(f"the pull to the trained weights must lie above 0, got {self.pull}")


@out_of_memory_in_words()
def fit_last_layer(
    cases: str | Path | Sequence[LabelledCase], model: str | Path | ModelFolder, *,
    test_cases: str | Path | Sequence[LabelledCase] | None = None, progress: Progress | None = None, **options,
) -> FittedLastLayer:  # fmt: skip
    """Fit the last layer of every fold on held-out labelled cases, each fold by itself. Nothing is written.

    test_cases: to measure on; of a list with splits those of split test. Without them the figures are those of the cases that
    were fitted on, and too good.
    options: see `LastLayerOptions`. Features of the cases are kept in a temporary folder while a fold is fitted.
    Raises CalibUncertaintyError, one line, for anything that is wrong with a case or the model.
    Source: Rousseau et al. 2021, section 2.2 "Fine-tuning".
    """
    chosen, progress = LastLayerOptions(**options), progress or Progress()
    progress.begin()
    folder = model if isinstance(model, ModelFolder) else ModelFolder.open(model)
    folder.refuse_unsupported()
    listed = read_cases(cases) if isinstance(cases, str | Path) else list(cases)
    apart = read_cases(test_cases, default_split="test") if isinstance(test_cases, str | Path) else list(test_cases or ())
    both = sorted({case.id for case in listed} & {case.id for case in apart})
    if both:
        raise CalibUncertaintyError(f"the case {both[0]} is listed for fitting and for testing; list it once")
    numbers = folder.select_folds(chosen.folds)
    fits = []
    for index, fold in enumerate(numbers):
        part = (index / len(numbers), (index + 1) / len(numbers))
        fits.append(_fit_fold(listed, apart, folder, replace(chosen, folds=[fold]), progress, part))
    progress.finish()
    fitted_on = tuple(case.id for case in listed)
    measured_on = tuple(case.id for case in apart) or fitted_on
    return FittedLastLayer(folder, tuple(fits), fitted_on, measured_on, float(chosen.roi_mm), float(chosen.pull))


def _fit_fold(
    listed: Sequence[LabelledCase], apart: Sequence[LabelledCase], folder: ModelFolder, chosen: LastLayerOptions,
    progress: Progress, part: tuple[float, float],
) -> FoldFit:  # fmt: skip
    members = chosen.members_of(folder)
    if len(members.sources()) != 1:
        raise CalibUncertaintyError(f"a last layer belongs to one checkpoint; name one, not {len(members.sources())}")
    refuse_doubtful_cases([*listed, *apart], members, progress)
    predictor = FeaturePredictor(
        members, chosen.device, chosen.step_size, chosen.trust_checkpoint, chosen.precision, chosen.trainers
    )
    for message in predictor.warnings:
        progress.warn(message)
    reference, trained, fold = Reference.of(folder), predictor.layer, members.folds[0][0]
    limit = max(1, SAMPLE_VALUES // (predictor.n_classes + 1) // len(listed))
    place = tempfile.TemporaryDirectory(prefix="calib-uncertainty-", ignore_cleanup_errors=True)
    with place as kept, Scratch(Path(kept)) as scratch:
        asked = []
        for index, case in enumerate([*listed, *apart]):
            begin, end = (part[0] + (part[1] - part[0]) * 0.9 * (index + i) / len([*listed, *apart]) for i in (0, 1))
            with progress.stage("cases", begin, end, f"fold {fold}, case {case.id}"):
                asked.append(_Asked.of(case, folder, predictor, reference, chosen, scratch, progress))
        with progress.stage("fit", end, part[1], f"fold {fold}: fitting the last layer"):
            layer, sampled = _fitted(asked[: len(listed)], trained, limit, chosen, progress)
        measured = [case.compare(trained, layer) for case in (asked[len(listed) :] or asked)]
        asked.clear()  # they may be mapped to files, which cannot be removed everywhere as long as they are
    counts = np.sum([(m.nll[0], m.nll[1], m.near, m.changed, m.voxels) for m in measured], axis=0)
    near = max(counts[2], 1)
    return FoldFit(
        fold, layer, predictor.checkpoint, (float(counts[0] / near), float(counts[1] / near)), int(counts[3]), int(counts[4]),
        _mean_dice(measured, reference), sampled,
    )  # fmt: skip


def _fitted(
    asked: Sequence[_Asked], trained: LastLayer, limit: int, chosen, progress: Progress
) -> tuple[LastLayer, int]:
    random = np.random.default_rng(chosen.seed)
    drawn = [case.draw(random, limit) for case in asked]
    features = np.concatenate([each[0] for each in drawn], axis=1)
    if not features.shape[1]:
        raise CalibUncertaintyError("no structure was predicted or drawn in any case; there is nothing to fit on")
    truth = np.concatenate([each[1] for each in drawn], axis=-1)
    weights = np.concatenate([np.full(each[0].shape[1], each[2]) for each in drawn])
    start = np.concatenate([trained.weight, trained.bias[:, np.newaxis]], axis=1)
    rows = np.concatenate([features, np.ones((1, features.shape[1]), np.float32)])
    found = fit_linear(rows, truth, start, asked[0].reference.heads.sigmoid, chosen.pull, weights, progress)
    new = found.weights.astype(np.float32)
    return LastLayer(np.ascontiguousarray(new[:, :-1]), new[:, -1].copy(), trained.name), features.shape[1]


@dataclass(frozen=True)
class _Measured:
    """Of one case: NLL summed over its ROI voxels before and after; for each head (predicted, both, drawn) before and after."""

    nll: tuple[float, float]
    near: int
    changed: int
    voxels: int
    overlap: np.ndarray  # (2, heads, 3)


@dataclass(frozen=True)
class _Asked:
    """One case with its features at hand; near: ROI; truth: reference, -1 to be ignored; both in the network's axis order."""

    opinions: Opinions
    near: np.ndarray
    truth: np.ndarray
    reference: Reference

    @classmethod
    def of(cls, case, folder, predictor, reference, chosen, scratch: Scratch, progress: Progress) -> _Asked:
        """Run the network on the case once; its ROI is that of `calibrate`."""
        volumes = read_images(case, folder, progress)
        labels = read_reference(case, volumes[0], folder)
        stage = run_previous_stage(predictor.chosen, volumes, chosen, progress, scratch.folder)
        prepared = predictor.prepare(volumes, stage.labels if stage else None)
        size = predictor.n_classes * 2 * int(np.prod(prepared.data.shape[1:], dtype=np.int64))
        check_room(scratch.folder, scratch.takes_from_disk(size), f"case {case.id}", "set TMPDIR to another disk")
        opinions = Opinions.ask(predictor, prepared, scratch, progress)
        truth = scratch.array(prepared.full_shape, np.int16)
        truth[...] = prepared.frame.to_network(labels)
        predicted = np.zeros(truth.shape, bool)
        for slab in opinions.slabs(opinions.whole()):
            predicted[slab.inside] = predictor.heads.label_of_logits(predictor.layer.logits(slab.pooled)) > 0
        drawn = reference.truth(truth).any(axis=0) if reference.heads.sigmoid else truth > 0
        near = scratch.array(truth.shape, bool)
        near[...] = roi_mask(distance_to_structures(predicted | drawn, prepared.spacing), chosen.roi_mm)
        near &= truth >= 0
        return cls(opinions, near, truth, reference)

    def _pieces(self):
        """(features (F, n), truth (n,), near (n,)) of the whole CT but for the background that nnU-Net crops away."""
        for slab in self.opinions.slabs(self.opinions.whole()):
            flat = slab.pooled.reshape(len(slab.pooled), -1)
            yield flat, self.truth[slab.inside].reshape(-1), self.near[slab.inside].reshape(-1)

    def draw(self, random: np.random.Generator, limit: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(features (F, n) float32, truth, voxels each stands for) of at most about `limit` ROI voxels drawn by chance."""
        count = sum(int(np.count_nonzero(near)) for _, _, near in self._pieces())
        chance = min(1.0, limit / max(count, 1))
        features, truths = [np.zeros((self.opinions.n_classes, 0), np.float32)], []
        for flat, truth, near in self._pieces():
            taken = np.flatnonzero(near)
            if chance < 1:
                taken = taken[random.random(len(taken)) < chance]
            features.append(flat[:, taken].astype(np.float32))
            truths.append(truth[taken].astype(np.intp))
        numbers = np.concatenate(truths) if truths else np.zeros(0, np.intp)
        return np.concatenate(features, axis=1), self.reference.truth(numbers), 1.0 / chance

    def compare(self, before: LastLayer, after: LastLayer) -> _Measured:
        """What the new layer does to this case."""
        heads, nll, near_count, changed = self.reference.heads, np.zeros(2), 0, 0
        overlap = np.zeros((2, len(heads.names), 3))
        for flat, truth, near in self._pieces():
            scores, known = [layer.logits(flat) for layer in (before, after)], truth >= 0
            labels = [heads.label_of_logits(each) for each in scores]
            changed += int(np.count_nonzero(labels[0] != labels[1]))
            near_count += int(np.count_nonzero(near))
            drawn = self._structures(truth)
            for which, each in enumerate(scores):
                nll[which] += nll_sum(each[:, near], self.reference.truth(truth[near].astype(np.intp)), heads.sigmoid)
                predicted = each > 0 if heads.sigmoid else self._structures(labels[which])
                overlap[which, :, 0] += (predicted & known).sum(axis=1)
                overlap[which, :, 1] += (predicted & drawn).sum(axis=1)
        # what is drawn in the background that nnU-Net crops away is missed by every layer
        overlap[:, :, 2] = [np.count_nonzero(structure) for structure in self._structures(self.truth)]
        return _Measured((float(nll[0]), float(nll[1])), near_count, changed, int(self.truth.size), overlap)

    def _structures(self, numbers: np.ndarray) -> np.ndarray:
        """Where each structure is, (heads, ...) bool, of labels."""
        if self.reference.heads.sigmoid:
            return self.reference.truth(numbers)
        return np.stack([numbers == value for value in self.reference.heads.values])


def _mean_dice(measured: Sequence[_Measured], reference: Reference) -> dict[str, tuple[float, float]]:
    """Dice 2 |A and B| / (|A| + |B|) of each structure before and after, the mean over cases that have it or predict it."""
    found = {}
    for index, name in enumerate(reference.heads.names):
        pairs = []
        for which in (0, 1):
            sizes = [case.overlap[which, index] for case in measured]
            each = [2 * both / (predicted + drawn) for predicted, both, drawn in sizes if predicted + drawn]
            pairs.append(float(np.mean(each)) if each else float("nan"))
        found[name] = tuple(pairs)
    return found
