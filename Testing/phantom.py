"""A CT phantom: an upper abdomen with organs, low-contrast lymph nodes that nobody can outline with certainty, and several raters.

    python Testing/phantom.py --seed 7 --out FOLDER [--spacing 3 1 1] [--oblique] [--padding 0]

writes ct.nii.gz, labels.nii.gz (majority of the raters), rater_1.nii.gz ..., node_probability.nii.gz and phantom.json.

The anatomy is analytic, in millimetres (phantom_anatomy.py): the same seed is the same patient on any grid, anisotropic, oblique or
flipped. Needs numpy and SimpleITK only.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from phantom_anatomy import LABELS, LYMPH_NODES, Anatomy, Node, Tissue, draw_anatomy
from phantom_shapes import Shape, SmoothField

from CalibUncertaintyLib.volume import Volume

DEFAULT_SPACING_ZYX = (3.0, 2.5, 2.5)
FIELD_OF_VIEW_ZYX = (192.0, 220.0, 280.0)  # mm, about the middle of the anatomy
HU_RANGE = (-1024, 3071)
_SLAB = 24  # slices sampled at a time, so that a fine grid does not need all its coordinates in memory


@dataclass(frozen=True)
class Phantom:
    """A simulated CT with its truth. All volumes lie on one grid, arrays (z, y, x).

    ct: int16 HU. labels: uint8, the majority of the raters (1..5, see label_names). raters: uint8 each. node_probability: float32,
    the probability in [0, 1] that a rater drawn at random for a patient like this one includes the voxel in a lymph node.
    ambiguous: uint8, 1 where that probability is between 5 and 95 %. nodes: positions and contrasts of the lymph nodes.
    """

    seed: int
    ct: Volume
    labels: Volume
    raters: list[Volume]
    label_names: dict[int, str]
    node_probability: Volume
    ambiguous: Volume
    nodes: list[Node]


def make_phantom(
    seed: int,
    *,
    size_zyx: tuple[int, int, int] | None = None,
    spacing_zyx: tuple[float, float, float] = DEFAULT_SPACING_ZYX,
    direction_lps: np.ndarray | None = None,
    origin_lps: tuple[float, float, float] | None = None,
    raters: int = 5,
    noise_hu: float = 12.0,
    padding_hu: int | None = None,
) -> Phantom:
    """Scan the patient of this seed.

    :param size_zyx: voxels; by default as many as cover 192 x 220 x 280 mm (z, y, x) in any direction.
    :param spacing_zyx: mm.
    :param direction_lps: 3x3, columns are the directions of the x, y and z index axes in LPS; identity by default.
    :param origin_lps: mm, centre of voxel (0, 0, 0); by default the grid is centred on the anatomy.
    :param raters: an odd number, so that the majority is never a tie.
    :param noise_hu: standard deviation of the noise in mid-body.
    :param padding_hu: when given, everything farther than 8 mm from the body gets this value, as scanners and anonymisers
        do; nnU-Net crops zeros away.
    """
    if raters < 1 or raters % 2 == 0:
        raise ValueError(f"raters must be odd, got {raters}")
    direction = np.eye(3) if direction_lps is None else np.asarray(direction_lps, float)
    size = tuple(size_zyx) if size_zyx is not None else _covering_size(spacing_zyx, direction)
    origin = _centred_origin(size, spacing_zyx, direction) if origin_lps is None else tuple(map(float, origin_lps))
    grid = Volume(np.zeros(size, np.uint8), tuple(map(float, spacing_zyx)), origin, direction)

    anatomy = draw_anatomy(seed)
    edges = _true_edges(anatomy, seed)
    offsets = [_RaterOffsets(anatomy, seed, number, edges) for number in range(raters)]
    ct = np.empty(size, np.float32)
    probability = np.empty(size, np.float32)
    rated = np.zeros((raters, *size), np.uint8)
    noise = correlated_noise(size, spacing_zyx, np.random.default_rng([seed, 202])) * np.float32(noise_hu)
    for first in range(0, size[0], _SLAB):
        part = slice(first, min(first + _SLAB, size[0]))
        shape = (part.stop - part.start, *size[1:])
        points = _lps_points(grid, part)
        hu, chance, label = _sample(anatomy, points, spacing_zyx, offsets)
        hu += noise[part].ravel() * _noise_strength(points)
        if padding_hu is not None:
            hu[anatomy.tissues[0].shape.depth(points) < -8] = padding_hu
        ct[part], probability[part] = hu.reshape(shape), chance.reshape(shape)
        rated[:, part] = label.reshape(raters, *shape)
    ct16 = np.rint(np.clip(ct, *HU_RANGE)).astype(np.int16)
    return Phantom(
        seed=seed,
        ct=grid.with_array(ct16),
        labels=grid.with_array(majority(rated)),
        raters=[grid.with_array(array) for array in rated],
        label_names=dict(LABELS),
        node_probability=grid.with_array(probability),
        ambiguous=grid.with_array(((probability > 0.05) & (probability < 0.95)).astype(np.uint8)),
        nodes=anatomy.nodes,
    )


def oblique_direction(degrees_zyx: tuple[float, float, float] = (12.0, -9.0, 17.0), flip_x: bool = False) -> np.ndarray:
    """A rotation matrix (columns are the index axes in LPS) by these angles about z, y and x; flip_x mirrors the first axis."""
    matrix = np.eye(3)
    for axis, angle in zip((2, 1, 0), np.radians(degrees_zyx), strict=True):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix @ np.diag([-1.0 if flip_x else 1.0, 1.0, 1.0])


def majority(labels: np.ndarray) -> np.ndarray:
    """The most frequent label per voxel of (raters, z, y, x); the lowest index wins a tie between several structures."""
    best, most = np.zeros(labels.shape[1:], np.uint8), np.count_nonzero(labels == 0, axis=0)
    for index in LABELS:
        votes = np.count_nonzero(labels == index, axis=0)
        best[votes > most] = index
        most = np.maximum(most, votes)
    return best


def correlated_noise(size_zyx: tuple[int, ...], spacing_zyx: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """Noise with the look of CT, unit variance, (z, y, x) float32.

    In the plane the noise power spectrum is a band, as filtered back-projection leaves it: a ramp f times a soft kernel
    exp(-(f / 0.09 per mm)^2). Through the planes it is weakly correlated (Gaussian, standard deviation 1 mm). Our definition.
    """
    fz, fy = (np.fft.fftfreq(n, d) for n, d in zip(size_zyx[:2], spacing_zyx[:2], strict=True))
    fx = np.fft.rfftfreq(size_zyx[2], spacing_zyx[2])
    f = np.sqrt(fy[:, None] ** 2 + fx[None, :] ** 2)
    in_plane = np.sqrt(f * np.exp(-((f / 0.09) ** 2)))
    through = np.exp(-2 * (np.pi * fz * 1.0) ** 2)
    noise = random.standard_normal(size_zyx, dtype=np.float32)
    spectrum = np.fft.rfftn(noise)
    spectrum *= through[:, None, None] * in_plane[None]
    noise = np.fft.irfftn(spectrum, s=size_zyx, axes=(0, 1, 2)).astype(np.float32)
    return noise / max(float(noise.std()), 1e-12)


def _covering_size(spacing_zyx: tuple[float, ...], direction: np.ndarray) -> tuple[int, int, int]:
    extent_xyz = np.abs(direction).T @ np.array(FIELD_OF_VIEW_ZYX[::-1])
    return tuple(math.ceil(e / s - 1e-6) for e, s in zip(extent_xyz[::-1], spacing_zyx, strict=True))


def _centred_origin(size_zyx, spacing_zyx, direction: np.ndarray) -> tuple[float, float, float]:
    half_xyz = np.array([(n - 1) / 2 * s for n, s in zip(size_zyx, spacing_zyx, strict=True)][::-1])
    return tuple(float(v) for v in -(direction @ half_xyz))


def _lps_points(grid: Volume, part: slice) -> np.ndarray:
    """Positions (3, N) in LPS mm of the voxel centres of some slices, in array order."""
    size = grid.array.shape
    axes = [np.arange(part.start, part.stop), np.arange(size[1]), np.arange(size[2])]
    z, y, x = (a * s for a, s in zip(axes, grid.spacing_zyx, strict=True))
    columns = np.asarray(grid.direction_lps, float)
    points = np.empty((3, len(z), len(y), len(x)), np.float32)
    for row in range(3):
        points[row] = (
            grid.origin_lps[row]
            + columns[row, 2] * z[:, None, None]
            + columns[row, 1] * y[None, :, None]
            + columns[row, 0] * x[None, None, :]
        )
    return points.reshape(3, -1)


def _near(shape: Shape, points: np.ndarray, margin: float) -> np.ndarray | slice:
    """Which points can lie within `margin` mm of the shape: indices, or everything."""
    centre, radius = shape.sphere()
    if not math.isfinite(radius):
        return slice(None)
    offset = points - np.asarray(centre, np.float32)[:, None]
    return np.flatnonzero(np.einsum("ij,ij->j", offset, offset) < (radius + margin) ** 2)


def _true_edges(anatomy: Anatomy, seed: int) -> list[float]:
    """Where the true border lies about each tissue's surface (mm): one draw a patient, which the image does not show."""
    random = np.random.default_rng([seed, 303])
    return [float(random.normal(0, tissue.edge_spread_mm)) for tissue in anatomy.tissues]


class _RaterOffsets:
    """How one rater's outlines lie about the surfaces: the true edge, a bias of this rater, and a smooth wandering."""

    def __init__(self, anatomy: Anatomy, seed: int, number: int, true_edges: list[float]) -> None:
        random = np.random.default_rng([seed, 404, number])
        self._bias = [edge + random.normal(0, t.rater_bias_mm) for t, edge in zip(anatomy.tissues, true_edges, strict=True)]
        self._fields = [SmoothField.draw(random, t.rater_bumps_mm, 22.0, terms=4) for t in anatomy.tissues]

    def __call__(self, index: int, points: np.ndarray) -> np.ndarray:
        """Offset (N,) in mm of tissue `index`; positive where the rater draws outside the surface."""
        return np.float32(self._bias[index]) + self._fields[index](points)


def _sample(
    anatomy: Anatomy, points: np.ndarray, spacing_zyx: tuple[float, ...], raters: list[_RaterOffsets]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU (N,), node probability (N,) and each rater's labels (R, N) at points (3, N)."""
    blur = math.sqrt(sum(s * s for s in spacing_zyx) / 3)  # a voxel's mean width: partial volume of a plane edge
    hu = np.full(points.shape[1], -1000, np.float32)
    chance = np.zeros(points.shape[1], np.float32)
    labels = np.zeros((len(raters), points.shape[1]), np.uint8)
    _paint_table(points, hu)
    for index, tissue in enumerate(anatomy.tissues):
        reach = max(blur, tissue.edge_mm) + 4 * (tissue.edge_spread_mm + tissue.rater_bias_mm + tissue.rater_bumps_mm)
        where = _near(tissue.shape, points, reach)
        here = points[:, where]
        if here.shape[1] == 0:
            continue
        depth = tissue.shape.depth(here)
        share = np.clip(0.5 + depth / np.float32(math.hypot(blur, tissue.edge_mm)), 0, 1)
        inside = tissue.hu if tissue.texture is None else np.float32(tissue.hu) + tissue.texture(here)
        hu[where] += share * (inside - hu[where])
        if tissue.label:
            _rate(labels, chance, tissue, index, where, here, depth, raters)
    return hu, chance, labels


def _rate(labels, chance, tissue: Tissue, index: int, where, here: np.ndarray, depth: np.ndarray, raters) -> None:
    """Draw every rater's outline of one tissue into labels (R, N), and the chance of it into chance (N,) for nodes."""
    for number, offset in enumerate(raters):
        row = labels[number]
        row[where] = np.where(depth + offset(index, here) > 0, np.uint8(tissue.label), row[where])
    if tissue.label == LYMPH_NODES:
        spread = math.sqrt(tissue.edge_spread_mm**2 + tissue.rater_bias_mm**2 + tissue.rater_bumps_mm**2)
        chance[where] = np.maximum(chance[where], _normal_cdf(depth / np.float32(spread)))


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    # Abramowitz and Stegun 26.2.17, absolute error below 1e-7: saves scipy for one function.
    t = 1 / (1 + 0.2316419 * np.abs(x))
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) * poly
    return np.where(x >= 0, 1 - upper, upper).astype(np.float32)


def _paint_table(points: np.ndarray, hu: np.ndarray) -> None:
    """The table under the patient: a shallow trough with a dense skin."""
    below = points[1] - (97 - points[0] ** 2 / 1500)
    hu[(below > 0) & (below < 12)] = -880
    hu[(np.abs(below - 1) < 1.6) | (np.abs(below - 11) < 1.6)] = -250


def _noise_strength(points: np.ndarray) -> np.ndarray:
    """Noise relative to mid-body: photons that crossed more tissue are fewer, so the middle is noisier than the rim."""
    radius2 = points[0] ** 2 + (1.3 * points[1]) ** 2
    return 0.55 + 0.45 * np.exp(-radius2 / 90.0**2)


def write_phantom(phantom: Phantom, folder: str | Path) -> Path:
    """Write the phantom's volumes and phantom.json (seed, geometry, label names, nodes) into a folder, created when missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    phantom.ct.write(folder / "ct.nii.gz")
    phantom.labels.write(folder / "labels.nii.gz")
    phantom.node_probability.write(folder / "node_probability.nii.gz")
    for number, rater in enumerate(phantom.raters, start=1):
        rater.write(folder / f"rater_{number}.nii.gz")
    about = {"seed": phantom.seed, "labels": phantom.label_names, "nodes": [asdict(node) for node in phantom.nodes]}
    (folder / "phantom.json").write_text(json.dumps(about, indent=2) + "\n")
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Command line: make one phantom and write it."""
    parser = argparse.ArgumentParser(description="Make a CT phantom with several raters.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", required=True, help="folder to write into")
    parser.add_argument("--spacing", type=float, nargs=3, default=DEFAULT_SPACING_ZYX, metavar=("Z", "Y", "X"), help="mm")
    parser.add_argument("--oblique", action="store_true", help="turn the grid against the patient")
    parser.add_argument("--raters", type=int, default=5, help="odd number of raters")
    parser.add_argument("--padding", type=int, default=None, help="HU of everything well outside the body, such as 0 or -1024")
    options = parser.parse_args(arguments)
    phantom = make_phantom(
        options.seed,
        spacing_zyx=tuple(options.spacing),
        direction_lps=oblique_direction() if options.oblique else None,
        raters=options.raters,
        padding_hu=options.padding,
    )
    folder = write_phantom(phantom, options.out)
    print(f"phantom {options.seed}: {phantom.ct.array.shape} voxels (z, y, x), {len(phantom.nodes)} lymph nodes, in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
