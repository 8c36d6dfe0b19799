"""From what the members say to the maps of a Result, slab by slab inside the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..calibration.decisions import changed_labels
from ..inference.boxes import Box, hull
from ..inference.opinions import Opinions, Slab
from ..inference.scratch import Blocks, Scratch
from ..model.heads import Heads, first_argmax
from ..progress import Progress
from ..uncertainty.disagreement import disagreement_of
from ..uncertainty.measures import expected_error, measures_of
from .applied import AppliedCalibration
from .chosen_measures import extras_of, measure_names

# Probabilities and measures are stored to this step: far below what calibration can promise, and it lets the noise of
# millions of near-zero voxels be compressed away.
STORED_STEP = 2.0**-20
FOREGROUND, EXPECTED_ERROR = "foreground", "expected error"
ALWAYS = ("conf", "entropy")  # measures that a run looks at itself, written down or not


class Fields:
    """Named float32 arrays over one box, written window by window and read one at a time; in a file where they are large."""

    def __init__(self, names: Sequence[str], box: Box, scratch: Scratch) -> None:
        self.names, self._shape = list(names), box.shape
        depth, rows, columns = box.shape
        self._rows: Blocks = scratch.blocks((columns,), np.float32, len(self.names) * depth * rows)

    def put(self, name: str, window: Sequence[slice], values: np.ndarray) -> None:
        """Write (n, rows, columns) values at a window of the box."""
        depth, rows, columns = self._shape
        z, y, x = window
        part = (x.start, x.stop) != (0, columns)
        for plane, of_plane in zip(range(z.start, z.stop), values, strict=True):
            at = (self.names.index(name) * depth + plane) * rows + y.start
            if part:
                whole = self._rows.read(at, at + len(of_plane)).copy()
                whole[:, x] = of_plane
                of_plane = whole
            self._rows.write(at, of_plane)

    def read(self, name: str) -> np.ndarray:
        """One array over the whole box."""
        size = self._shape[0] * self._shape[1]
        at = self.names.index(name) * size
        return self._rows.read(at, at + size).reshape(self._shape)


@dataclass
class Maps:
    """Maps over the box around all boxes, in the network's axis order. Outside the boxes, and outside nnU-Net's crop, they are
    background.

    fields: every measure by its name, those of ALWAYS among them, every structure's calibrated probability by
    `structure(index)`, the calibrated probability of any structure as FOREGROUND, and of regions that may overlap EXPECTED_ERROR.
    likeliest: the structure that is most probable, were it not background. measures: those that are written down.
    """

    boxes: list[Box]
    box: Box
    label: np.ndarray  # (box) uint8 or uint16
    likeliest: np.ndarray  # (box) as label
    fields: Fields
    measures: list[str]
    changed_by_pooling: int = 0
    changed_by_temperature: int = 0


def structure(index: int) -> str:
    """The field of the structure at one place of `Heads.names`."""
    return f"probability {index}"


def make_maps(
    opinions: Opinions,
    boxes: list[Box],
    calibration: AppliedCalibration,
    heads: Heads,
    scratch: Scratch,
    progress: Progress,
    image: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    later: Sequence[str] = (),
) -> Maps:
    """Calibrated probabilities, labels and measures of one case.

    image: the CT in the network's axis order, HU. names: of the measures, as `measure_names` gives them; all that need nothing
    more of the members, unless given. What they need has to have been asked for (`extras_of`). The fields hold those of ALWAYS in
    any case, and have room for those that are put there `later`.
    """
    around, n_members = hull(boxes), len(opinions.members)
    names = [name for name in measure_names(n_members) if not extras_of([name])] if names is None else list(names)
    held = list(dict.fromkeys([*names, *ALWAYS]))
    label_type = np.uint8 if max(heads.values) <= 255 else np.uint16
    # of a softmax it is the measure conf
    extra = [FOREGROUND, EXPECTED_ERROR] if heads.sigmoid else [FOREGROUND]
    fields = Fields([*(structure(i) for i in range(len(heads.names))), *held, *later, *extra], around, scratch)
    maps = Maps(
        boxes, around, np.zeros(around.shape, label_type), np.zeros(around.shape, label_type), fields, [*names, *later]
    )
    total, done = sum(box.voxels for box in boxes), 0
    for window, slab in _windows(opinions, boxes, around):
        mean = slab.means.probability[-1] if slab.means is not None else None
        p, label, changed = calibration.probabilities(slab.pooled, mean, with_surroundings(calibration, slab, image))
        maps.changed_by_temperature += changed
        if calibration.mode != "pool_logit":
            maps.changed_by_pooling += changed_labels(label, heads.label_of_logits(slab.pooled))
        maps.label[window] = label
        structures = heads.structures(p)
        for index, of_structure in enumerate(structures):
            fields.put(structure(index), window, stored(of_structure))
        fields.put(FOREGROUND, window, heads.foreground(p))
        if heads.sigmoid:
            fields.put(EXPECTED_ERROR, window, expected_error(p, sigmoid=True))
        maps.likeliest[window] = np.asarray(heads.values, label_type)[first_argmax(structures)]
        of_members = () if slab.means is None else (slab.means.probability[0], slab.means.entropy, slab.means.extras)
        values = measure_values(p, heads, n_members, *of_members)
        for name in held:
            fields.put(name, window, stored(values[name]))
        done += int(np.prod(label.shape))
        progress.report(done / total)
    return maps


def with_surroundings(calibration: AppliedCalibration, slab: Slab, image: np.ndarray | None) -> np.ndarray | None:
    """The calibrated probabilities (C, ...) of a slab by a calibrator that looks at each voxel's neighbours; None for others."""
    if calibration.halo is None:
        return None
    pooled, box, inside = slab.around(calibration.halo)
    around = None if image is None else np.ascontiguousarray(image[box.slices], np.float32)
    return calibration.calibrator.transform(pooled, around)[(slice(None), *inside)]


def _windows(opinions: Opinions, boxes: list[Box], around: Box) -> Iterator[tuple[tuple[slice, ...], object]]:
    """Every slab of every box, and where it lies in the box around them all."""
    for box in boxes:
        for slab in opinions.slabs(box):
            shifted = zip(slab.inside, box.start, around.start, strict=True)
            yield tuple(slice(s.start + a - o, s.stop + a - o) for s, a, o in shifted), slab


def measure_values(
    p: np.ndarray,
    heads: Heads,
    n_members: int,
    mean: np.ndarray | None = None,
    expected_entropy: np.ndarray | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Every measure that these members, and what is known of them, can give, (...) float32 each.

    p: (C, ...) calibrated pooled probability. mean (C, ...), expected_entropy (...) and extras: the members' mean probability,
    mean entropy and what `disagreement_of` takes beside, at the temperature they share; None for a single member, which is the
    pool itself and takes the pool's.
    """
    values = measures_of(p, heads.sigmoid)
    values["exp_entropy"] = values["entropy"] if expected_entropy is None else expected_entropy
    if n_members > 1:
        values |= disagreement_of(mean, expected_entropy, extras or {}, n_members, heads.sigmoid)
    return values


def temperatures_of(calibration: AppliedCalibration, n_members: int) -> list:
    """The temperatures at which the members' probabilities are averaged: the one they share first, the pool's own last."""
    if n_members < 2:
        return []
    shared = calibration.temperatures_of_members()
    return [shared, 1.0] if calibration.mode == "pool_prob" and np.any(np.asarray(shared) != 1.0) else [shared]


def stored(values: np.ndarray) -> np.ndarray:
    """Values in the steps in which they are written down."""
    # downwards: nothing may exceed the largest value its measure can take
    return np.floor(values * np.float32(1 / STORED_STEP)) * np.float32(STORED_STEP)
