"""Connected components of a mask as one flat list of voxels, and sums over each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .roi import box_around


@dataclass(frozen=True)
class Components:
    """Connected components as one flat list of voxels, and sums over each."""

    shape: tuple[int, int, int]
    voxel: np.ndarray  # (n,) flat index into the array, ascending
    component: np.ndarray  # (n,) 0 .. count-1
    count: int
    dropped: int

    def sum(self, values: np.ndarray) -> np.ndarray:
        """(count,) float64 sums of one value a voxel."""
        return np.bincount(self.component, weights=values, minlength=self.count)

    def first_by(self, key: np.ndarray) -> np.ndarray:
        """For each component the position in `voxel` of its least key; of equal keys the first voxel."""
        if self.count == 1:
            return np.array([key.argmin()])
        order = np.argsort(self.component, kind="stable")
        component, sorted_key = self.component[order], key[order]
        least = np.minimum.reduceat(sorted_key, np.searchsorted(component, np.arange(self.count)))
        places = np.flatnonzero(sorted_key == least[component])
        return order[places[np.searchsorted(component[places], np.arange(self.count))]]

    def apart_from(self, other: "Components") -> "Components":
        """Those that share no voxel with any component of another mask of the same array."""
        shared = np.isin(self.voxel, other.voxel, assume_unique=True)
        kept = np.bincount(self.component[shared], minlength=self.count) == 0
        stays = kept[self.component]
        renumbered = np.cumsum(kept) - 1
        return replace(
            self, voxel=self.voxel[stays], component=renumbered[self.component[stays]], count=int(kept.sum())
        )

    def majority(self, labels: np.ndarray) -> np.ndarray:
        """(count,) most frequent label above 0 in each component, 0 when there is none; of equal ones the lowest."""
        # counted by place among those present: regions may have numbers up to 65535
        occurs = np.bincount(labels, minlength=1)
        occurs[0] = 1
        present = np.flatnonzero(occurs)
        place = np.zeros(present[-1] + 1, np.int64)
        place[present] = np.arange(present.size)
        counts = np.bincount(self.component * present.size + place[labels], minlength=self.count * present.size)
        counts = counts.reshape(self.count, present.size)
        counts[:, 0] = 0
        return present[counts.argmax(axis=1)]


def components_of(
    mask: np.ndarray, least_voxels: float, spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0), merge_gap_mm: float = 0.0
) -> Components:
    """26-connected components of a (z, y, x) mask that have at least `least_voxels` voxels.

    :param merge_gap_mm: components with voxels whose centres are no farther than this from each other are one; 0 merges nothing.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if not mask.any():
        return Components(mask.shape, nothing, nothing, 0, 0)
    import cc3d

    numbered, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26, return_N=True)
    voxel = np.flatnonzero(mask)
    component = numbered.reshape(-1)[voxel].astype(np.int64) - 1
    if len(_offsets(spacing_zyx, merge_gap_mm)):
        new = _merged(numbered, int(count), spacing_zyx, merge_gap_mm)
        component, count = new[component], int(new.max()) + 1
    kept = np.bincount(component, minlength=count) >= least_voxels
    renumbered = np.cumsum(kept) - 1
    stays = kept[component]
    kept_count = int(kept.sum())
    return Components(mask.shape, voxel[stays], renumbered[component[stays]], kept_count, int(count) - kept_count)


def _merged(numbered: np.ndarray, count: int, spacing_zyx: Sequence[float], gap_mm: float) -> np.ndarray:
    """(count,) the new component, from 0, of each, after those with voxels no farther than the gap from each other became one.

    Only voxels at the surface of their component can be the nearest to another one. Steps are tried from short to long, and only
    from voxels outside the component that is largest by then: dense scenes have soon become one, sparse ones have few voxels.
    """
    offsets = _offsets(spacing_zyx, gap_mm)
    box = box_around(numbered > 0)
    padded = np.pad(numbered[box], [(n, n) for n in np.maximum(np.abs(offsets).max(axis=0), 1).tolist()])
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    voxel = _surface(padded.reshape(-1), strides)
    own = padded.reshape(-1)[voxel].astype(np.int64) - 1
    # from here on 0 is no surface voxel, others are one more than the component that they belong to by now
    flat, new = np.zeros(padded.size, np.int32), np.arange(count)
    flat[voxel] = own + 1
    done, steps = 0, 8
    while done < len(offsets) and new.any():
        apart = voxel[flat[voxel] != np.bincount(flat[voxel]).argmax()]
        ahead = offsets[done : done + steps] @ strides
        # from few voxels forth and back, or from all of them forth
        few = 2 * apart.size < voxel.size
        pairs = (
            _pairs_of(flat, apart, np.concatenate([ahead, -ahead]), count)
            if few
            else _pairs_of(flat, voxel, ahead, count)
        )
        if pairs.size:
            joined = _joined(pairs, int(new.max()) + 1, count)
            new = joined[new]
            flat[voxel] = new[own] + 1
        done, steps = done + steps, 2 * steps
    return new


def _surface(flat: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Flat indices of the voxels above 0 of a padded array that have a face neighbour of 0."""
    voxel = np.flatnonzero(flat)
    open_side = np.zeros(voxel.size, bool)
    for step in (*strides.tolist(), *(-strides).tolist()):
        open_side |= flat[voxel + step] == 0
    return voxel[open_side]


def _pairs_of(flat: np.ndarray, voxel: np.ndarray, steps: np.ndarray, count: int) -> np.ndarray:
    """Every two components that one of the steps leads from one to the other of: first * count + second."""
    own, pairs = flat[voxel], [np.zeros(0, np.int64)]
    for step in steps.tolist():
        other = flat[voxel + step]
        joined = np.flatnonzero((other > 0) & (other != own))
        pairs.append(np.unique((own[joined].astype(np.int64) - 1) * count + other[joined] - 1))
    return np.unique(np.concatenate(pairs))


def _joined(pairs: np.ndarray, nodes: int, count: int) -> np.ndarray:
    """(nodes,) the new number, from 0, of each component when all pairs are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.divmod(pairs, count)
    graph = coo_array((np.ones(first.size, bool), (first, second)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _offsets(spacing_zyx: Sequence[float], gap_mm: float) -> np.ndarray:
    """(K, 3) steps to voxels within the gap, of each pair of opposite ones the first, shortest first; no direct neighbours."""
    spacing = np.array([float(step) for step in spacing_zyx])
    reach = np.floor(gap_mm / spacing + 1e-6).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.sqrt(((steps * spacing) ** 2).sum(axis=1))
    ahead = np.arange(len(steps)) > len(steps) // 2  # the middle one is no step at all
    far = (np.abs(steps) > 1).any(axis=1)
    chosen = np.flatnonzero((length <= gap_mm + 1e-6) & ahead & far)
    return steps[chosen[np.argsort(length[chosen], kind="stable")]]
