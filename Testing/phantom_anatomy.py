"""The anatomy of the CT phantom: an upper abdomen after contrast, drawn anew for every seed.

Positions are LPS millimetres (x to the patient's left, y to the back, z to the head) about the middle of the abdomen. The sizes are
those of a small adult; HU values are typical of the portal venous phase. Our own definition, after no patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from phantom_shapes import (
    Ellipsoid,
    EllipticCylinder,
    HalfSpace,
    Repeated,
    Ribs,
    Shape,
    Slab,
    SmoothField,
    Tube,
    Union,
    Within,
)

LABELS = {1: "Liver", 2: "Spleen", 3: "Kidneys", 4: "Aorta", 5: "LymphNodes"}
LYMPH_NODES = 5


@dataclass(frozen=True)
class Tissue:
    """One painted shape. Later tissues cover earlier ones.

    hu: Hounsfield units. edge_mm: width of its own soft border, beyond what the voxels blur. texture: smooth variation added
    inside (HU). label: index in LABELS, 0 where it is not one of the structures. edge_spread_mm: standard deviation of the true
    border about the shape's surface, which the image does not show; rater_bias_mm and rater_bumps_mm: how raters differ.
    """

    name: str
    shape: Shape
    hu: float
    edge_mm: float = 0.0
    texture: SmoothField | None = None
    label: int = 0
    edge_spread_mm: float = 0.0
    rater_bias_mm: float = 0.25
    rater_bumps_mm: float = 0.25


@dataclass(frozen=True)
class Node:
    """A low-contrast lymph node: where it is (LPS mm), its mean diameter (mm) and its contrast to the tissue around it (HU)."""

    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float


@dataclass(frozen=True)
class Anatomy:
    """Tissues in painting order, and the nodes among them."""

    tissues: list[Tissue]
    nodes: list[Node]


class _Draw:
    """Random numbers of one anatomy: jittered positions, sizes and intensities."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 101])
        self.scale = self.random.uniform(0.95, 1.06)

    def place(self, *lps: float, jitter: float = 4.0) -> np.ndarray:
        return np.array(lps, float) * self.scale + self.random.uniform(-jitter, jitter, 3)

    def size(self, *radii: float, spread: float = 0.1) -> np.ndarray:
        return np.array(radii, float) * self.scale * self.random.uniform(1 - spread, 1 + spread, len(radii))

    def around(self, value: float, spread: float) -> float:
        return float(self.random.uniform(value - spread, value + spread))

    def bumps(self, amplitude: float, wavelength: float) -> SmoothField:
        return SmoothField.draw(self.random, amplitude, wavelength)

    def turn(self, most: float = 0.3) -> np.ndarray:
        """A random small rotation matrix (rows are the turned axes), by at most `most` radians about each axis."""
        matrix = np.eye(3)
        for axis, angle in enumerate(self.random.uniform(-most, most, 3)):
            i, j = [k for k in range(3) if k != axis]
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
        return matrix

    def tube(self, points: list[tuple[float, float, float]], radius: float, jitter: float = 3.0) -> Tube:
        """A smooth tube through jittered points (LPS mm)."""
        knots = np.array([self.place(*p, jitter=jitter) for p in points])
        fine = np.linspace(0, len(knots) - 1, 4 * (len(knots) - 1) + 1)
        path = np.stack([np.interp(fine, np.arange(len(knots)), knots[:, i]) for i in range(3)], axis=1)
        path[1:-1] = (path[:-2] + 2 * path[1:-1] + path[2:]) / 4
        return Tube(path, radius * self.around(1.0, 0.1))


def draw_anatomy(seed: int) -> Anatomy:
    """The anatomy of one seed: the same seed gives the same patient, whatever grid it is scanned on."""
    draw = _Draw(seed)
    wall, cavity = _body(draw)
    spine = EllipticCylinder((0.0, 44.0 * draw.scale), (19.0 * draw.scale, 15.0 * draw.scale))
    node_tissues, nodes, haze_hu = _lymph_nodes(draw)
    bowel = _bowel(draw, cavity)
    occupied = Union((
        *(tissue.shape for tissue in bowel if tissue.name == "bowel wall"),
        *(Ellipsoid(node.shape.centre, node.shape.radii + 4) for node in node_tissues),
    ))
    organs = _organs(draw, cavity, spine, occupied)
    tissues = [
        *wall,
        *_mesentery(draw, cavity, node_tissues, haze_hu),
        *_skeleton(draw, spine, wall[0].shape),
        *organs[0],
        *bowel,
        *_vessels(draw),
        *organs[1],
        *node_tissues,
    ]
    return Anatomy(tissues, nodes)


def _body(draw: _Draw) -> tuple[list[Tissue], Shape]:
    """Skin, fat under it, the muscle wall; and the cavity inside."""
    body_xy = tuple(float(r) for r in draw.size(120, 88, spread=0.03))
    body = EllipticCylinder((0.0, 0.0), body_xy, draw.bumps(1.5, 140))
    fat = draw.around(15, 4)
    muscle_xy = (body_xy[0] - fat, body_xy[1] - fat * 0.8)
    muscle = EllipticCylinder((0.0, 0.0), muscle_xy)
    cavity = EllipticCylinder((0.0, -5.0), (muscle_xy[0] - 9, muscle_xy[1] - 13), draw.bumps(1.0, 120))
    under_skin = EllipticCylinder((0.0, 0.0), (body_xy[0] - 2, body_xy[1] - 2), body.bumps)
    return [
        Tissue("skin", body, 35),
        Tissue("fat", under_skin, draw.around(-102, 5), texture=draw.bumps(5, 25)),
        Tissue("muscle", muscle, draw.around(58, 5), texture=draw.bumps(4, 20)),
    ], cavity


def _mesentery(draw: _Draw, cavity: Shape, nodes: list[Tissue], haze_hu: float) -> list[Tissue]:
    """The fat inside the cavity, and the hazy soft tissue in which the nodes lie."""
    haze = Union(tuple(Ellipsoid(node.shape.centre, node.shape.radii + 11, bumps=draw.bumps(2.5, 25)) for node in nodes))
    middle = Ellipsoid(draw.place(4, 2, -20), draw.size(36, 22, 60), bumps=draw.bumps(4, 45))
    return [
        Tissue("visceral fat", cavity, draw.around(-95, 5), texture=draw.bumps(12, 30)),
        Tissue("hazy mesentery", Within(middle, inside=((cavity, 3.0),)), haze_hu, edge_mm=6, texture=draw.bumps(4, 18)),
        Tissue("haze about nodes", haze, haze_hu, edge_mm=4, texture=draw.bumps(3, 18)),
    ]


def _skeleton(draw: _Draw, spine: EllipticCylinder, body: Shape) -> list[Tissue]:
    """Vertebrae with cortex and marrow, discs, canal, ribs, and the muscles beside the spine."""
    y, scale = spine.centre_xy[1], draw.scale
    shift = draw.around(0, 12)
    rx, ry = spine.radii_xy
    arch = Union((
        EllipticCylinder((0.0, y + 20 * scale), (15 * scale, 9 * scale)),
        EllipticCylinder((0.0, y + 30 * scale), (4 * scale, 10 * scale)),
    ))
    marrow = Within(EllipticCylinder((0.0, y), (rx - 2.5, ry - 2.5)), inside=((Repeated(Slab(12.0), 31.0, shift), 0.0),))
    bone = Within(spine, inside=((Repeated(Slab(13.5), 31.0, shift), 0.0),))
    muscles = [
        Tissue("paraspinal muscle", EllipticCylinder((side * 27 * scale, y + 16), (19 * scale, 15 * scale)), 60)
        for side in (-1, 1)
    ]
    psoas = [
        Tissue("psoas", Ellipsoid(draw.place(side * 28, 42, -75), draw.size(11, 13, 62)), 60) for side in (-1, 1)
    ]
    ribs = Ribs(body, draw.around(17, 1.5), 29.0 * scale, 0.35, draw.around(-45, 15), (4.5, 6.5))
    rib_marrow = Ribs(body, ribs.depth_mm, ribs.step, ribs.slope, ribs.lowest + 2, (2.4, 4.2))
    return [
        *muscles,
        *psoas,
        Tissue("disc", spine, 85),
        Tissue("cortex", bone, draw.around(620, 80)),
        Tissue("marrow", marrow, draw.around(210, 40), texture=draw.bumps(25, 12)),
        Tissue("arch", arch, draw.around(420, 60)),
        Tissue("spinal canal", EllipticCylinder((0.0, y + 18.5 * scale), (8 * scale, 6.5 * scale)), 32),
        Tissue("rib cortex", ribs, draw.around(520, 80)),
        Tissue("rib marrow", rib_marrow, draw.around(160, 30)),
    ]


def _organs(draw: _Draw, cavity: Shape, spine: Shape, occupied: Shape) -> tuple[list[Tissue], list[Tissue]]:
    """Lungs, heart and the solid organs, clear of what is `occupied`; then what lies in them (hepatic vessels, renal medulla)."""
    lungs = Union(tuple(
        Ellipsoid(draw.place(side * 50, 2, 108), draw.size(44, 52, 48), bumps=draw.bumps(2, 60)) for side in (-1, 1)
    ))
    lung = Within(lungs, inside=((cavity, 1.0),), outside=((spine, 3.0),))
    kidneys, pelves = [], []
    for side in (-1, 1):
        centre, radii = draw.place(side * 54, 26, -32 + 8 * side), draw.size(23, 18, 43)
        turned = draw.turn(0.2)
        pelvis = Ellipsoid(centre + np.array([-side * (radii[0] - 4), -5, 0]), draw.size(12, 8, 12))
        kidneys.append(Within(
            Ellipsoid(centre, radii, turned, draw.bumps(0.8, 30)),
            inside=((cavity, 2.0),), outside=((pelvis, 0.0), (spine, 4.0)),
        ))
        pelves.append(Ellipsoid(centre, radii * np.array([0.5, 0.45, 0.55]), turned, draw.bumps(1.0, 18)))
    kidney = Union(tuple(kidneys))
    liver_lobes = Union((
        Ellipsoid(draw.place(-46, -10, 22), draw.size(48, 46, 56), draw.turn(), draw.bumps(2.5, 50)),
        Ellipsoid(draw.place(-2, -32, 40), draw.size(40, 22, 30), draw.turn(), draw.bumps(2.0, 40)),
    ))
    great_vessels = EllipticCylinder((0.0, 20.0), (24.0, 13.0))
    clear = ((kidney, 3.0), (lung, 2.5), (spine, 5.0), (great_vessels, 3.0), (occupied, 2.5))
    liver = Within(liver_lobes, inside=((cavity, 2.0),), outside=clear)
    spleen = Within(
        Ellipsoid(draw.place(70, 20, 36), draw.size(22, 28, 36), draw.turn(), draw.bumps(2.0, 40)),
        inside=((cavity, 2.0),), outside=((kidney, 3.0), (lung, 2.5), (occupied, 2.5)),
    )
    liver_hu, kidney_hu = draw.around(108, 8), draw.around(178, 14)
    inside_liver = [
        draw.tube([(-18, -6, 12), (-34, -8, 22), (-52, -16, 26), (-66, -24, 30)], 4.0),
        draw.tube([(-30, -8, 20), (-44, 4, 10), (-56, 14, -2)], 3.2),
        draw.tube([(-12, 6, 62), (-30, -4, 48), (-48, -20, 40)], 3.6),
    ]
    first = [
        Tissue("heart", Within(Ellipsoid(draw.place(12, -14, 112), draw.size(44, 36, 40)), inside=((cavity, 1.0),)), 150),
        Tissue("lungs", lung, draw.around(-840, 25), texture=draw.bumps(25, 20)),
        Tissue("liver", liver, liver_hu, texture=draw.bumps(3, 25), label=1),
        Tissue("spleen", spleen, draw.around(124, 8), texture=draw.bumps(3, 20), label=2),
        Tissue("kidneys", kidney, kidney_hu, texture=draw.bumps(5, 15), label=3),
    ]
    vessel_hu = liver_hu + draw.around(42, 8)
    second = [Tissue("liver vessel", Within(t, inside=((liver, 1.0),)), vessel_hu) for t in inside_liver]
    second += [Tissue("kidney medulla", Within(p, inside=((kidney, 4.0),)), kidney_hu - 42, edge_mm=4) for p in pelves]
    return first, second


def _bowel(draw: _Draw, cavity: Shape) -> list[Tissue]:
    """A stomach and loops of bowel, some with gas above fluid, all with a wall."""
    loops = [
        (draw.place(42, -24, 24), draw.size(26, 24, 24), True),
        (draw.place(-62, -14, -62), draw.size(17, 17, 26), True),
        (draw.place(66, -12, -52), draw.size(15, 16, 30), True),
        (draw.place(-18, -44, -46), draw.size(24, 12, 14), True),
        (draw.place(40, -38, -36), draw.size(14, 11, 16), False),
        (draw.place(-36, -22, -78), draw.size(13, 13, 12), False),
        (draw.place(34, -20, -80), draw.size(16, 12, 12), False),
        (draw.place(2, -42, -74), draw.size(17, 10, 11), False),
    ]
    tissues = []
    for centre, radii, gas in loops:
        turned, bumps = draw.turn(), draw.bumps(1.2, 25)
        outer = Within(Ellipsoid(centre, radii, turned, bumps), inside=((cavity, 1.0),))
        inner = Within(Ellipsoid(centre, radii - 3.0, turned, bumps), inside=((cavity, 4.0),))
        tissues.append(Tissue("bowel wall", outer, draw.around(58, 8)))
        tissues.append(Tissue("bowel fluid", inner, draw.around(18, 8)))
        if gas:
            level = float(centre[1]) + draw.around(0, 6)
            tissues.append(Tissue("bowel gas", Within(inner, inside=((HalfSpace(level), 0.0),)), -980))
    return tissues


def _vessels(draw: _Draw) -> list[Tissue]:
    """The aorta (a structure), the vena cava and branches, filled with contrast."""
    bright, venous = draw.around(178, 14), draw.around(138, 10)
    aorta = draw.tube([(5, 16, 150), (7, 17, 80), (9, 15, 20), (7, 15, -40), (4, 17, -100), (3, 18, -160)], 9.5)
    cava = draw.tube([(-15, 10, 150), (-17, 14, 60), (-15, 17, -20), (-14, 18, -90), (-14, 18, -160)], 9.5)
    branches = [
        draw.tube([(8, 10, 4), (7, -4, -4), (5, -14, -30), (8, -22, -66)], 3.4),
        draw.tube([(10, 14, -24), (22, 17, -26), (36, 22, -26)], 3.0),
        draw.tube([(4, 14, -32), (-14, 24, -36), (-36, 24, -40)], 3.0),
        draw.tube([(8, 8, 18), (24, 2, 26), (46, 10, 34)], 3.0),
    ]
    veins = [draw.tube([(-4, -16, -60), (-6, -14, -24), (-10, -10, 0), (-20, -8, 14)], 5.0)]
    return [
        *[Tissue("vein", tube, venous) for tube in [cava, *veins]],
        *[Tissue("artery", tube, bright) for tube in branches],
        Tissue("aorta", aorta, bright, label=4),
    ]


def _lymph_nodes(draw: _Draw) -> tuple[list[Tissue], list[Node], float]:
    """Two to four lymph nodes: 9 to 14 mm, 14 to 25 HU above what surrounds them, with a border that nobody can see sharply.

    The image fades over 5 mm, and where the true border lies within that fade is drawn at random: no reader can know.
    Also returned: the HU of the tissue around them.
    """
    sites = [(30, -4, -6), (22, -14, -44), (-26, -10, -34), (-8, -26, -12)]
    chosen = draw.random.permutation(len(sites))[: draw.random.integers(2, len(sites) + 1)]
    haze_hu = draw.around(25, 4)
    tissues, nodes = [], []
    for site in sorted(int(i) for i in chosen):
        mean_radius = draw.around(5.9, 1.1)
        radii = mean_radius * draw.random.uniform(0.85, 1.18, 3)
        centre = draw.place(*sites[site], jitter=5.0)
        shape = Ellipsoid(centre, radii, draw.turn(0.8), draw.bumps(0.35, 12))
        contrast = draw.around(19.5, 5.5)
        tissues.append(Tissue(
            "lymph node", shape, haze_hu + contrast, edge_mm=5.0, label=LYMPH_NODES,
            edge_spread_mm=0.8, rater_bias_mm=0.7, rater_bumps_mm=0.5,
        ))
        nodes.append(Node(tuple(float(c) for c in centre), float(2 * np.cbrt(np.prod(radii))), contrast))
    return tissues, nodes, haze_hu
