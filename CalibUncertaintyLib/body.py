"""The patient's body in a CT: with its lungs and its gas, without the air around it and without the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .errors import CalibUncertaintyError
from .reading import check_is_ct
from .volume import Volume

BODY_HU = -300.0  # denser is tissue; fat has about -100, inflated lung -700 and less
LUNG_HU = -900.0  # hardly any of a lung is less dense; of air, foam and gas much is
LUNG_CM2, LUNG_SHARE = 10.0, 0.1
THIN_CM2 = (
    3.0  # of a slice: what is thin and larger is a table or a blanket, what is smaller an ear or the wall of an airway
)
THIN_MM = 3.0  # what a square of this half width does not fit into hangs on thinly: a table's shell, a blanket
OTHER_PIECE = 0.5  # of the largest piece's voxels: what another has at least to be of the patient, as the second leg
_SAMPLED_VOXELS = 500_000
_SHIFTED_HU, _MASKED_SHARE = 600.0, 0.05


def body_mask(ct_hu: np.ndarray, spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0), slice_axis: int = 0) -> np.ndarray:
    """The voxels of the patient.

    1. Dense is what exceeds -300 HU, and in each slice every piece of the rest (joined by faces) that looks like lung: 10 cm2 or
    more, of which less than a tenth lies below -900 HU; also where a CT is cropped so that it reaches the border.
    2. The core of a slice is where a square of 3 mm to each side, at least one voxel, is dense; beyond the border all is dense.
    3. The largest piece of the core (joined by faces, through all slices) is kept, and any other at least half as large.
    4. In each slice it grows by dense face neighbours, twice as many steps as the square is wide to one side, and by the dense
    pieces of up to 3 cm2 that then touch it: skin, ears and thin walls come back; of a table that the skin touches a few mm do.
    5. What is enclosed in a slice is filled. Where nothing has a core, step 2 is left out.

    Air that is open to the outside within its slice is outside, as that of an open mouth; pads and masks as dense and thick as
    tissue that touch the skin are body, and so is foam as dense as lung at the border of a CT that is cropped.

    :param ct_hu: (z, y, x) Hounsfield units; what is no number counts as air.
    :param spacing_zyx: mm, in the order of the array's axes.
    :param slice_axis: the axis of the array along the patient's length.
    :returns: (z, y, x) bool; all False where nothing is dense, all True where a CT is cropped inside the body.
    :raises ValueError: when the array is not three-dimensional or a spacing is not above 0.
    Source: our definition; one slice and its labels are in memory at a time beside the result.
    """
    ct_hu = np.asarray(ct_hu)
    if ct_hu.ndim != 3 or len(spacing_zyx) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing_zyx):
        raise ValueError(f"expected a (z, y, x) CT and spacings above 0 mm, got {ct_hu.shape} and {tuple(spacing_zyx)}")
    in_plane = [float(step) for axis, step in enumerate(spacing_zyx) if axis != slice_axis % 3]
    reach = tuple(max(1, round(THIN_MM / step)) for step in in_plane)
    pixel_cm2 = in_plane[0] * in_plane[1] / 100.0
    mask = np.empty(ct_hu.shape, bool)
    slices = np.moveaxis(mask, slice_axis, 0)
    for plane, hu in zip(slices, np.moveaxis(ct_hu, slice_axis, 0), strict=True):
        plane[...] = _dense(np.ascontiguousarray(hu), LUNG_CM2 / pixel_cm2)
    for sides in (reach, (0, 0)):
        pieces = _Pieces()
        for plane in slices:
            pieces.add(_core(plane, sides))
        if pieces.any:
            break
    for index, plane in enumerate(slices):
        kept = pieces.kept(index)
        if kept.any():
            found = _grown(kept[_labelled(_core(plane, sides))], plane, sum(sides))
            plane[...] = _filled(_with_thin_parts(found, plane, THIN_CM2 / pixel_cm2))
        else:
            plane[...] = False
    return mask


def body_of(volume: Volume, name: str = "the CT") -> np.ndarray:
    """The voxels of the patient in a CT, (z, y, x) bool; see `body_mask`. name: of the CT, for messages.

    Raises CalibUncertaintyError, one line, for values that are no Hounsfield units and for a CT without any body.
    """
    if not np.any(volume.array > BODY_HU):
        raise CalibUncertaintyError(
            f"{name} shows no body: no voxel exceeds {BODY_HU:g} HU; take a distance from the structures as the ROI instead"
        )
    _refuse_other_units(volume, name)
    return body_mask(volume.array, volume.spacing_zyx, slice_axis_of(volume))


def slice_axis_of(volume: Volume) -> int:
    """The axis of the array that lies nearest to the patient's length; 0 for axial slices."""
    return 2 - int(np.argmax(np.abs(np.asarray(volume.direction_lps, float)[2])))


def _refuse_other_units(volume: Volume, name: str) -> None:
    """Refuse what is no CT, and where nothing looks like air, what looks like other units than HU; our rules."""
    check_is_ct(volume, name)
    step = max(1, int((volume.array.size / _SAMPLED_VOXELS) ** (1 / 3)))
    sample = np.sort(volume.array[::step, ::step, ::step], axis=None)
    if sample[0] <= BODY_HU:
        return
    low, high = float(sample[0]), float(sample[-1])
    masked = np.searchsorted(sample, sample[0], side="right") > _MASKED_SHARE * sample.size
    shifted = low >= 0 and (masked or sample[int(0.99 * (sample.size - 1))] > _SHIFTED_HU)
    if shifted or high < 50:
        raise CalibUncertaintyError(
            f"{name} has values from {low:g} to {high:g}, which are no Hounsfield units or are masked; the body cannot be told from"
            " air: export the CT in HU, or take a distance from the structures as the ROI"
        )


def _dense(hu: np.ndarray, least: float) -> np.ndarray:
    """What is no air in a slice: tissue, and lungs, of which a piece has at least so many voxels."""
    tissue = hu > BODY_HU
    pieces = _labelled(~tissue)
    counts = np.bincount(pieces.reshape(-1))
    counts[0] = 0
    if counts.max(initial=0) < least:
        return tissue
    thin = np.bincount(pieces[~(hu >= LUNG_HU)], minlength=len(counts))  # with what is no number
    lung = (counts >= least) & (thin < LUNG_SHARE * counts)
    return tissue | lung[pieces] if lung.any() else tissue


def _core(dense: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Where the rectangle of so many voxels to each side is dense; what lies beyond the border counts as dense."""
    for axis, reach in enumerate(sides):
        dense = _all_within(np.moveaxis(dense, axis, 0), reach)
        dense = np.moveaxis(dense, 0, axis)
    return np.ascontiguousarray(dense)


def _all_within(mask: np.ndarray, reach: int) -> np.ndarray:
    """Along the first axis: whether all voxels up to `reach` to both sides are True."""
    edge = np.ones((reach, mask.shape[1]), bool)
    runs, length, wanted = np.concatenate([edge, mask, edge]), 1, 2 * reach + 1
    while length < wanted:
        step = min(length, wanted - length)
        runs = runs[: len(runs) - step] & runs[step:]
        length += step
    return runs


def _grown(seed: np.ndarray, dense: np.ndarray, steps: int) -> np.ndarray:
    """The seed and what is dense around it, so many face neighbours far."""
    for _ in range(steps):
        wider = seed.copy()
        wider[1:] |= seed[:-1]
        wider[:-1] |= seed[1:]
        wider[:, 1:] |= seed[:, :-1]
        wider[:, :-1] |= seed[:, 1:]
        seed = wider & dense
    return seed


def _with_thin_parts(found: np.ndarray, dense: np.ndarray, most: float) -> np.ndarray:
    """With the pieces of what else is dense that touch it and have at most so many voxels."""
    rest = _labelled(dense & ~found)
    wanted = np.zeros(int(rest.max(initial=0)) + 1, bool)
    wanted[rest[_grown(found, dense, 1) & ~found]] = True
    wanted &= np.bincount(rest.reshape(-1), minlength=len(wanted)) <= most
    wanted[0] = False
    return found | wanted[rest]


def _filled(plane: np.ndarray) -> np.ndarray:
    """With what the True voxels enclose; a hole is a piece of the rest (joined by faces) that does not reach the border."""
    rest = _labelled(~plane)
    hole = np.ones(int(rest.max()) + 1, bool)
    for border in (rest[0], rest[-1], rest[:, 0], rest[:, -1]):
        hole[border] = False
    hole[0] = True
    return hole[rest]


def _labelled(plane: np.ndarray) -> np.ndarray:
    """The pieces of a slice, joined by faces, numbered from 1; the same numbers for the same slice."""
    import cc3d

    return cc3d.connected_components(plane, connectivity=4, out_dtype=np.uint32)


class _Pieces:
    """The pieces of a mask that is looked at slice by slice, joined by faces; no more than one slice of numbers is kept."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._starts: list[int] = [0]
        self._before: np.ndarray | None = None

    def add(self, plane: np.ndarray) -> None:
        """The next slice."""
        labels = _labelled(plane)
        start, sizes = self._starts[-1], np.bincount(labels.reshape(-1))[1:]
        self._parents += range(start, start + len(sizes))
        self._sizes += sizes.tolist()
        self._starts.append(start + len(sizes))
        if self._before is not None:
            for above, below in _touching(self._before, labels):
                self._join(self._starts[-3] + above, start + below)
        self._before = labels

    @property
    def any(self) -> bool:
        """Whether there is any voxel at all."""
        return bool(self._sizes)

    def kept(self, index: int) -> np.ndarray:
        """Which of a slice's pieces, by number, belong to a piece that is kept; number 0 does not."""
        roots = self._roots_that_are_kept()
        pieces = range(self._starts[index], self._starts[index + 1])
        return np.array([False, *(self._root(piece) in roots for piece in pieces)])

    def _roots_that_are_kept(self) -> set[int]:
        if not hasattr(self, "_kept"):
            totals: dict[int, int] = {}
            for piece, size in enumerate(self._sizes):
                root = self._root(piece)
                totals[root] = totals.get(root, 0) + size
            largest = max(totals.values(), default=0)
            self._kept = {root for root, total in totals.items() if total >= OTHER_PIECE * largest}
        return self._kept

    def _root(self, piece: int) -> int:
        while self._parents[piece] != piece:
            self._parents[piece] = self._parents[self._parents[piece]]
            piece = self._parents[piece]
        return piece

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)


def _touching(above: np.ndarray, below: np.ndarray) -> Iterator[tuple[int, int]]:
    """Which pieces of two neighbouring slices touch, each pair once, numbered from 0."""
    both = (above > 0) & (below > 0)
    count = int(below.max(initial=0)) + 1
    codes = above[both].astype(np.int64) * count + below[both]
    size = (int(above.max(initial=0)) + 1) * count
    found = np.flatnonzero(np.bincount(codes, minlength=1)) if size < above.size else np.unique(codes)
    return ((int(code) // count - 1, int(code) % count - 1) for code in found)
