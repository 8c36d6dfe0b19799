"""From what the members say to the maps of a Result, slab by slab inside the boxes."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..calibration.decisions import changed_labels
from ..inference.boxes import Box, hull
from ..inference.devices import keeping_memory
from ..inference.opinions import Opinions
from ..inference.scratch import Blocks, Scratch
from ..inference.slabs import Slab
from ..model.heads import Heads, first_argmax
from ..progress import Progress
from ..uncertainty.disagreement import disagreement_of
from ..uncertainty.measures import expected_error, measures_of
from ..uncertainty.member_agreement import AgreementCounts
from .applied import AppliedCalibration
from .chosen_measures import extras_of, measure_names

# Probabilities and measures are stored to this step: far below what calibration can promise, and it lets the noise of
# millions of near-zero voxels be compressed away.
STORED_STEP = 2.0**-20
FOREGROUND, EXPECTED_ERROR = "foreground", "expected error"
ALWAYS = ("conf", "entropy")  # measures that a run looks at itself, written down or not
MOST_THREADS = 8


class Fields:
    """Named float32 arrays over one box, written window by window and read one at a time; in a file where they are large."""

    def __init__(self, names: Sequence[str], box: Box, scratch: Scratch) -> None:
        self.names, self._shape = list(names), box.shape
        depth, rows, columns = box.shape
        self._lock = threading.Lock()  # boxes side by side share rows
        self._rows: Blocks = scratch.blocks((columns,), np.float32, len(self.names) * depth * rows)

    def put(self, name: str, window: Sequence[slice], values: np.ndarray) -> None:
        """Write (n, rows, columns) values at a window of the box."""
        depth, rows, columns = self._shape
        z, y, x = window
        part = (x.start, x.stop) != (0, columns)
        for plane, of_plane in zip(range(z.start, z.stop), values, strict=True):
            at = (self.names.index(name) * depth + plane) * rows + y.start
            if not part:
                self._rows.write(at, of_plane)
                continue
            with self._lock:
                whole = self._rows.read(at, at + len(of_plane)).copy()
                whole[:, x] = of_plane
                self._rows.write(at, whole)

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
    agreement: AgreementCounts | None = None,
) -> Maps:
    """Calibrated probabilities, labels and measures of one case.

    image: the CT in the network's axis order, HU. names: of the measures, as `measure_names` gives them; all that need nothing
    more of the members, unless given. What they need has to have been asked for (`extras_of`). The fields hold those of ALWAYS in
    any case, and have room for those that are put there `later`. agreement: is told what each member draws, where slabs know it.
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
    maker = _SlabMaker(maps, calibration, heads, n_members, held, image)
    total, done = sum(box.voxels for box in boxes), 0
    tasks = (partial(maker.make, box, piece) for box in boxes for piece in opinions.pieces(box))
    for voxels, by_pooling, by_temperature, codes in _by_threads(tasks):
        maps.changed_by_pooling += by_pooling
        maps.changed_by_temperature += by_temperature
        if agreement is not None and codes is not None:
            agreement.add(codes.reshape(n_members, -1))
        done += voxels
        progress.report(done / total)
    return maps


@dataclass(frozen=True)
class _SlabMaker:
    """Makes the maps of one slab; several at the same time, since no two share a voxel.

    held: the measures that have a field. image: as `make_maps` takes it.
    """

    maps: Maps
    calibration: AppliedCalibration
    heads: Heads
    n_members: int
    held: list[str]
    image: np.ndarray | None

    def make(self, box: Box, piece: Callable[[], Slab]) -> tuple[int, int, int, np.ndarray | None]:
        """One slab into the maps: its voxels, labels changed by pooling and by temperature, and what each member draws."""
        slab, calibration, heads = piece(), self.calibration, self.heads
        shifted = zip(slab.inside, box.start, self.maps.box.start, strict=True)
        window = tuple(slice(s.start + a - o, s.stop + a - o) for s, a, o in shifted)
        mean = slab.means.probability[-1] if slab.means is not None else None
        surroundings = with_surroundings(calibration, slab, self.image)
        p, label, by_temperature = calibration.probabilities(slab.pooled, mean, surroundings)
        by_pooling = 0
        if calibration.mode != "pool_logit":
            by_pooling = changed_labels(label, heads.label_of_logits(slab.pooled))
        self._draw(window, p, label)
        of_members = () if slab.means is None else (slab.means.probability[0], slab.means.entropy, slab.means.extras)
        values = measure_values(p, heads, self.n_members, *of_members)
        for name in self.held:
            self.maps.fields.put(name, window, stored(values[name]))
        return label.size, by_pooling, by_temperature, slab.codes

    def _draw(self, window: tuple[slice, slice, slice], p: np.ndarray, label: np.ndarray) -> None:
        """Labels and probabilities."""
        maps, heads = self.maps, self.heads
        maps.label[window] = label
        structures = heads.structures(p)
        for index, of_structure in enumerate(structures):
            maps.fields.put(structure(index), window, stored(of_structure))
        maps.fields.put(FOREGROUND, window, heads.foreground(p))
        if heads.sigmoid:
            maps.fields.put(EXPECTED_ERROR, window, expected_error(p, sigmoid=True))
        maps.likeliest[window] = np.asarray(heads.values, maps.likeliest.dtype)[first_argmax(structures)]


def _by_threads(tasks: Iterable[Callable[[], tuple]]) -> Iterator[tuple]:
    """What the tasks give, in their order, a few of them done at a time: numpy leaves Python alone while it computes."""
    import torch

    threads = torch.get_num_threads()
    workers = max(1, min(threads, os.cpu_count() or 1, MOST_THREADS))
    waiting: deque = deque()
    # torch's own threads would compete with these
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with keeping_memory():  # every slab asks for the same sizes again
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > workers:  # no more slabs in memory than are worked on, and one that waits
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets holds for those that come after it


def with_surroundings(calibration: AppliedCalibration, slab: Slab, image: np.ndarray | None) -> np.ndarray | None:
    """The calibrated probabilities (C, ...) of a slab by a calibrator that looks at each voxel's neighbours; None for others."""
    if calibration.halo is None:
        return None
    pooled, box, inside = slab.around(calibration.halo)
    around = None if image is None else np.ascontiguousarray(image[box.slices], np.float32)
    return calibration.calibrator.transform(pooled, around)[(slice(None), *inside)]


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
