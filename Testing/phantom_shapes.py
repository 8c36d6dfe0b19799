"""Analytic shapes in millimetres: what the CT phantom's anatomy is built of.

Every shape answers one question, at any points: how far inside am I (mm, positive inside, approximate near the surface)? Shapes
know nothing of voxels, so the same anatomy can be sampled on any grid. Points are (3, N) float32 arrays in LPS millimetres:
x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Shape(Protocol):
    """Something with an inside."""

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Depth below the surface at points (3, N) in LPS mm: (N,) float32 in mm, positive inside, negative outside."""
        ...

    def sphere(self) -> tuple[np.ndarray, float]:
        """Centre (3,) in LPS mm and radius in mm of a ball that holds the shape; the radius is infinite for endless shapes."""
        ...


@dataclass(frozen=True)
class SmoothField:
    """A random smooth function of position: a sum of plane waves. Zero mean, standard deviation `amplitude`, same unit."""

    waves: np.ndarray   # (K, 3) angular frequencies, rad / mm
    phases: np.ndarray  # (K,) rad
    amplitude: float

    @classmethod
    def draw(cls, random: np.random.Generator, amplitude: float, wavelength_mm: float, terms: int = 5) -> SmoothField:
        """Draw a field whose bumps are about wavelength_mm long."""
        directions = random.normal(size=(terms, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * random.uniform(0.7, 1.5, size=(terms, 1))
        waves = (2 * np.pi * directions / lengths).astype(np.float32)
        return cls(waves, random.uniform(0, 2 * np.pi, terms).astype(np.float32), float(amplitude))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (N,) float32 at points (3, N) in LPS mm."""
        total = np.zeros(points.shape[1], np.float32)
        for wave, phase in zip(self.waves, self.phases, strict=True):
            total += np.cos(wave @ points + phase)
        return total * np.float32(self.amplitude * np.sqrt(2 / len(self.phases)))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, turned by `axes` (rows are its own axes), its surface moved by an optional smooth bump field (mm)."""

    centre: np.ndarray
    radii: np.ndarray
    axes: np.ndarray | None = None
    bumps: SmoothField | None = None

    def depth(self, points: np.ndarray) -> np.ndarray:
        local = points - np.asarray(self.centre, np.float32)[:, None]
        if self.axes is not None:
            local = np.asarray(self.axes, np.float32) @ local
        scaled = local / np.asarray(self.radii, np.float32)[:, None]
        k0 = np.linalg.norm(scaled, axis=0)
        k1 = np.linalg.norm(scaled / np.asarray(self.radii, np.float32)[:, None], axis=0)
        # First-order distance to an ellipsoid: f / |grad f| with f = k0 (k0 - 1); exact on the surface and for balls. In the
        # centre, where the gradient vanishes, the shortest radius is the depth.
        near_centre = k1 < 1e-6
        depth = np.where(near_centre, np.min(self.radii), k0 * (1 - k0) / np.where(near_centre, 1, k1))
        depth = np.minimum(depth, np.float32(np.min(self.radii))).astype(np.float32)
        return depth if self.bumps is None else depth + self.bumps(points)

    def sphere(self) -> tuple[np.ndarray, float]:
        margin = 0.0 if self.bumps is None else 3 * self.bumps.amplitude
        return np.asarray(self.centre, float), float(np.max(self.radii)) + margin


@dataclass(frozen=True)
class EllipticCylinder:
    """A cylinder along z with an elliptic section, endless in z: body, muscle wall, spine."""

    centre_xy: tuple[float, float]
    radii_xy: tuple[float, float]
    bumps: SmoothField | None = None

    def depth(self, points: np.ndarray) -> np.ndarray:
        flat = points[:2] - np.asarray(self.centre_xy, np.float32)[:, None]
        radii = np.asarray(self.radii_xy, np.float32)[:, None]
        k0 = np.linalg.norm(flat / radii, axis=0)
        k1 = np.linalg.norm(flat / radii**2, axis=0)
        depth = np.where(k1 < 1e-6, np.min(radii), k0 * (1 - k0) / np.where(k1 < 1e-6, 1, k1)).astype(np.float32)
        depth = np.minimum(depth, np.min(radii))
        return depth if self.bumps is None else depth + self.bumps(points)

    def sphere(self) -> tuple[np.ndarray, float]:
        return np.array([*self.centre_xy, 0.0]), float("inf")


@dataclass(frozen=True)
class Tube:
    """A vessel: a ball of `radius` swept along a polyline `path` (K, 3) in LPS mm; draw the path finely for smooth curves."""

    path: np.ndarray
    radius: float

    def depth(self, points: np.ndarray) -> np.ndarray:
        nearest = np.full(points.shape[1], np.inf, np.float32)
        for start, end in zip(self.path[:-1], self.path[1:], strict=True):
            along = (end - start).astype(np.float32)
            offset = points - start.astype(np.float32)[:, None]
            share = np.clip(along @ offset / float(along @ along), 0, 1)
            nearest = np.minimum(nearest, np.sum((offset - along[:, None] * share) ** 2, axis=0))
        return np.float32(self.radius) - np.sqrt(nearest)

    def sphere(self) -> tuple[np.ndarray, float]:
        centre = (self.path.min(axis=0) + self.path.max(axis=0)) / 2
        return centre, float(np.linalg.norm(self.path - centre, axis=1).max() + self.radius)


@dataclass(frozen=True)
class Within:
    """A shape kept inside other shapes and clear of others: organs stay in the cavity and out of the spine.

    Each limit is (shape, margin mm): inside `inside[i]` by at least the margin, outside `outside[i]` by at least the margin.
    """

    shape: Shape
    inside: tuple[tuple[Shape, float], ...] = ()
    outside: tuple[tuple[Shape, float], ...] = ()

    def depth(self, points: np.ndarray) -> np.ndarray:
        depth = self.shape.depth(points)
        for limit, margin in self.inside:
            depth = np.minimum(depth, limit.depth(points) - np.float32(margin))
        for limit, margin in self.outside:
            depth = np.minimum(depth, -limit.depth(points) - np.float32(margin))
        return depth

    def sphere(self) -> tuple[np.ndarray, float]:
        return self.shape.sphere()


@dataclass(frozen=True)
class Ribs:
    """Ribs: rods that run round the body at a constant depth below `wall`, falling towards the front, every `step` mm in z."""

    wall: Shape
    depth_mm: float
    step: float
    slope: float
    lowest: float
    radii: tuple[float, float]  # through the wall, along z

    def depth(self, points: np.ndarray) -> np.ndarray:
        through = (self.wall.depth(points) - np.float32(self.depth_mm)) / np.float32(self.radii[0])
        height = points[2] - np.float32(self.slope) * points[1]
        along = (np.mod(height, np.float32(self.step)) - np.float32(self.step / 2)) / np.float32(self.radii[1])
        depth = (1 - np.sqrt(through**2 + along**2)) * np.float32(min(self.radii))
        # Rods end at the lowest rib, and in front, where cartilage joins the breastbone.
        return np.minimum(depth, np.minimum(points[2] - np.float32(self.lowest), points[1] + 60)).astype(np.float32)

    def sphere(self) -> tuple[np.ndarray, float]:
        return np.zeros(3), float("inf")


@dataclass(frozen=True)
class Union:
    """Everything inside any of the parts."""

    parts: tuple[Shape, ...]

    def depth(self, points: np.ndarray) -> np.ndarray:
        depth = self.parts[0].depth(points)
        for part in self.parts[1:]:
            depth = np.maximum(depth, part.depth(points))
        return depth

    def sphere(self) -> tuple[np.ndarray, float]:
        balls = [part.sphere() for part in self.parts]
        centre = np.mean([c for c, _ in balls], axis=0)
        return centre, max(float(np.linalg.norm(c - centre)) + r for c, r in balls)


@dataclass(frozen=True)
class HalfSpace:
    """Everything in front of the coronal plane at `y` (LPS mm): gas rises to the front of a patient lying on the back."""

    y: float

    def depth(self, points: np.ndarray) -> np.ndarray:
        return np.float32(self.y) - points[1]

    def sphere(self) -> tuple[np.ndarray, float]:
        return np.zeros(3), float("inf")


@dataclass(frozen=True)
class Repeated:
    """A shape that returns every `step` mm along z: vertebrae. The shape itself is drawn about z = 0."""

    shape: Shape
    step: float
    shift: float = 0.0

    def depth(self, points: np.ndarray) -> np.ndarray:
        folded = points.copy()
        folded[2] = np.mod(points[2] - np.float32(self.shift) + np.float32(self.step / 2), np.float32(self.step))
        folded[2] -= np.float32(self.step / 2)
        return self.shape.depth(folded)

    def sphere(self) -> tuple[np.ndarray, float]:
        return np.zeros(3), float("inf")


@dataclass(frozen=True)
class Slab:
    """Everything closer than `half` mm to the plane z = 0."""

    half: float

    def depth(self, points: np.ndarray) -> np.ndarray:
        return np.float32(self.half) - np.abs(points[2])

    def sphere(self) -> tuple[np.ndarray, float]:
        return np.zeros(3), float("inf")
