"""From the members' logits to the maps of a Result, slab by slab inside the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..calibration.decisions import changed_labels
from ..calibration.softmax import softmax
from ..inference.opinions import Box, Opinions
from ..inference.scratch import Scratch
from ..progress import Progress
from ..uncertainty.measures import MEASURES, MemberStatistics, confidence_complement, entropy, margin
from .applied import AppliedCalibration, mean_probability

# Probabilities and measures are stored to this step: far below what calibration can promise, and it lets the noise of
# millions of near-zero voxels be compressed away.
STORED_STEP = 2.0**-20


@dataclass
class Maps:
    """Arrays over one box, in the network's axis order. Outside nnU-Net's crop they are pure background."""

    box: Box
    label: np.ndarray  # (box) uint8 or uint16
    probability: np.ndarray  # (C - 1, box) float32, foreground classes 1, 2, ...
    measures: dict[str, np.ndarray]  # (box) float32 each
    foreground: np.ndarray  # (box) float32, calibrated probability of any structure
    likeliest: np.ndarray  # (box) as label: the structure that is most probable, were it not background
    changed_by_pooling: int = 0
    changed_by_temperature: int = 0


def measure_names(n_members: int) -> list[str]:
    """The measures that are stored, and can be had from this many members (entropy_k is derived when read)."""
    return [name for name, measure in MEASURES.items() if name != "entropy_k" and measure.status(n_members) == "ok"]


def make_maps(
    opinions: Opinions, box: Box, calibration: AppliedCalibration, n_classes: int, scratch: Scratch, progress: Progress
) -> Maps:
    """Calibrated probabilities, labels and every measure of one case."""
    names = measure_names(len(opinions.members))
    label_type = np.uint8 if n_classes <= 256 else np.uint16
    maps = Maps(
        box,
        scratch.array(box.shape, label_type),
        scratch.array((n_classes - 1, *box.shape), np.float32),
        {name: scratch.array(box.shape, np.float32) for name in names},
        scratch.array(box.shape, np.float32),
        scratch.array(box.shape, label_type),
    )
    for slab in opinions.slabs(box):
        inside = slab.inside
        mean = mean_probability(slab.members) if calibration.mode == "pool_prob" else None
        p, label, changed = calibration.probabilities(slab.pooled, mean)
        maps.changed_by_temperature += changed
        if calibration.mode != "pool_logit":
            maps.changed_by_pooling += changed_labels(label, slab.pooled.argmax(axis=0))
        maps.label[inside] = label
        maps.probability[(slice(None), *inside)] = _stored(p[1:])
        maps.foreground[inside] = 1.0 - p[0]
        maps.likeliest[inside] = p[1:].argmax(axis=0) + 1
        for name, values in measure_values(p, slab.members, calibration).items():
            maps.measures[name][inside] = _stored(values)
        progress.report(inside[0].stop / box.shape[0])
    return maps


def measure_values(
    p: np.ndarray, members: Sequence[np.ndarray], calibration: AppliedCalibration
) -> dict[str, np.ndarray]:
    """Every measure that these members can give, (...) float32 each.

    p: (C, ...) calibrated pooled probability; members: logits (C, ...) each. What compares the members looks at each at the
    temperature they share; a single member is the pool itself, so it takes the pool's.
    """
    values = {"conf": confidence_complement(p), "margin": margin(p), "entropy": entropy(p)}
    statistics = MemberStatistics()
    for logits in members:
        statistics.add(softmax(logits, calibration.member_temperature if len(members) > 1 else calibration.temperature))
    values["exp_entropy"] = statistics.expected_entropy
    if len(members) > 1:
        values["mi"] = statistics.mutual_information
    return values


def _stored(values: np.ndarray) -> np.ndarray:
    return np.rint(values * np.float32(1 / STORED_STEP)) * np.float32(STORED_STEP)


def what_matters(calibration: AppliedCalibration):
    """For `Opinions.foreground_box`: the largest foreground probability any map shows, and where a label can be.

    Looked at are the calibrated pool, and each member at temperature 1 and at the one the members share. Where probabilities
    are pooled a voxel can be labelled only if some member gives the foreground one half, which bounds it between grid points
    as well; where logits are pooled, only where background is not their argmax.
    """

    def look(pooled: np.ndarray, members: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mean = mean_probability(members) if calibration.mode == "pool_prob" else None
        highest = 1.0 - calibration.probabilities(pooled, mean)[0][0]
        labelled = pooled.argmax(axis=0) != 0
        for logits in members:
            foreground = 1.0 - softmax(logits)[0]
            if calibration.mode != "pool_logit":
                labelled |= foreground >= 0.5
            np.maximum(highest, foreground, out=highest)
            if calibration.member_temperature != 1.0:
                np.maximum(highest, 1.0 - softmax(logits, calibration.member_temperature)[0], out=highest)
        return highest, labelled

    return look
