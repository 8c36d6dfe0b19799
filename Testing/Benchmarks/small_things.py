"""Distances, connected components and measures: the libraries that could do them, side by side, with what each gets wrong.

    python Testing/Benchmarks/small_things.py [--quick]      # 512 x 512 x 300, two minutes of it scipy; --quick: a fraction of it

Each entry is the best of its repeats, on one CT-sized label map of ellipsoids (material.py's) and on random probabilities. The
error is against scipy's answer (distances, mm), the number of components, or the whole-array numpy answer (measures, nats). The
chosen one is marked with the reason. Only what is installed is tried; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import aligned

SPACING = (2.5, 0.9, 0.9)
MEMBERS, CLASSES = 5, 6
USED = {
    ("distance", "edt"): "fastest, and equal to scipy's to rounding",
    ("components", "cc3d"): "fastest, 26-connected",
    ("measures", "numpy in chunks"): "as fast as torch, and needs no torch where maps are only read",
}


@dataclass
class Entry:
    """One library's time for one task, seconds, and how far its answer is from the task's reference."""

    task: str
    name: str
    seconds: float | None
    error: float | None
    note: str = ""


def best_of(work: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    """The shortest of some runs, and the answer."""
    times, answer = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - began)
    return min(times), answer


def label_map(shape: tuple[int, int, int], count: int = 60, seed: int = 0) -> np.ndarray:
    """Ellipsoids of random size (z, y, x), True inside."""
    random, mask = np.random.default_rng(seed), np.zeros(shape, bool)
    for _ in range(count):
        centre = random.uniform(0.1, 0.9, 3) * shape
        radii = random.uniform(0.01, 0.08, 3) * shape + 1
        low = np.maximum((centre - radii).astype(int), 0)
        high = np.minimum((centre + radii).astype(int) + 2, shape)
        axes = [((np.arange(a, b) - c) / r) ** 2 for a, b, c, r in zip(low, high, centre, radii, strict=True)]
        inside = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] < 1
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside
    return mask


def tried(task: str, ways: dict[str, Callable], repeats: int, error_of: Callable) -> list[Entry]:
    """Time each way; the first one's answer is the reference. A library that is not installed is said to be so."""
    entries, reference = [], None
    for number, (name, work) in enumerate(ways.items()):
        try:
            seconds, answer = best_of(work, 1 if number == 0 else repeats)
        except ImportError as missing:
            entries.append(Entry(task, name, None, None, f"not installed: {missing.name}"))
            continue
        reference = answer if reference is None else reference
        entries.append(Entry(task, name, seconds, error_of(answer, reference), USED.get((task, name), "")))
    return entries


def distances(mask: np.ndarray, repeats: int) -> list[Entry]:
    """Distance in mm from every voxel outside the structures to the nearest one."""

    def scipy_way():
        from scipy import ndimage

        return ndimage.distance_transform_edt(~mask, sampling=SPACING)

    def sitk_way():
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))

    def edt_way(threads: int):
        import edt

        return edt.edt(~mask, anisotropy=SPACING, black_border=False, parallel=threads)

    ways = {
        "scipy": scipy_way, "SimpleITK SignedMaurer": sitk_way, "edt": lambda: edt_way(1),
        f"edt, {os.cpu_count()} threads": lambda: edt_way(os.cpu_count()),
    }  # fmt: skip
    return tried("distance", ways, repeats, lambda a, b: float(np.abs(a[~mask] - b[~mask]).max()))


def components(mask: np.ndarray, repeats: int) -> list[Entry]:
    """26-connected components, numbered."""

    def scipy_way():
        from scipy import ndimage

        return ndimage.label(mask, structure=np.ones((3, 3, 3)))[0]

    def sitk_way():
        import SimpleITK as sitk

        return sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))

    def cc3d_way():
        import cc3d

        return cc3d.connected_components(mask, connectivity=26)

    ways = {"scipy": scipy_way, "SimpleITK": sitk_way, "cc3d": cc3d_way}
    return tried("components", ways, repeats, lambda a, b: float(abs(int(a.max()) - int(b.max()))))


def measures(voxels: int, repeats: int) -> list[Entry]:
    """Entropy of the mean, expected entropy and mutual information (nats) of M members of C classes: (3, n)."""
    random = np.random.default_rng(0)
    p = np.empty((MEMBERS, CLASSES, voxels), np.float32)
    for member in p:
        random.standard_exponential(dtype=np.float32, out=member)
        member /= member.sum(axis=0)

    def whole_array():
        mean = p.mean(axis=0)
        total = -(mean * np.log(np.maximum(mean, 1e-30))).sum(axis=0)
        expected = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1).mean(axis=0)
        return np.stack([total, expected, total - expected])

    def ours():
        from CalibUncertaintyLib.uncertainty.measures import CHUNK_VOXELS, MemberStatistics, entropy

        found = np.empty((3, voxels), np.float32)
        for begin in range(0, voxels, 16 * CHUNK_VOXELS):  # a slab at a time, as the maps are made
            part = slice(begin, begin + 16 * CHUNK_VOXELS)
            statistics = MemberStatistics()
            for member in p:
                statistics.add(member[:, part])
            found[0, part] = entropy(p[:, :, part].mean(axis=0))
            found[1, part] = statistics.expected_entropy
            found[2, part] = statistics.mutual_information
        return found

    def torch_way():
        import torch

        found, tensor = torch.empty((3, voxels)), torch.from_numpy(p)
        for begin in range(0, voxels, 1 << 16):
            part = tensor[:, :, begin : begin + (1 << 16)]
            mean = part.mean(dim=0)
            total, expected = torch.special.entr(mean).sum(dim=0), torch.special.entr(part).sum(dim=1).mean(dim=0)
            found[:, begin : begin + (1 << 16)] = torch.stack([total, expected, total - expected])
        return found.numpy()

    ways = {"numpy on whole arrays": whole_array, "numpy in chunks": ours, "torch in chunks": torch_way}
    return tried("measures", ways, repeats, lambda a, b: float(np.abs(a - b).max()))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 x 256 x 100 voxels")
    parser.add_argument("--size", type=int, nargs=3, metavar=("Z", "Y", "X"), help="another size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    chosen = parser.parse_args(arguments)
    shape = tuple(chosen.size or ((100, 256, 256) if chosen.quick else (300, 512, 512)))
    mask, plane = label_map(shape), shape[1] * shape[2]
    entries = [
        *distances(mask, chosen.repeats),
        *components(mask, chosen.repeats),
        *measures(min(25, shape[0]) * plane, chosen.repeats),
    ]
    print(f"{' x '.join(map(str, shape))} voxels (z, y, x); measures on {min(25, shape[0])} slices, M={MEMBERS}, C={CLASSES}\n")
    lines = [["task", "library", "seconds", "error", "used by the library because"]]
    for entry in entries:
        figures = ["" if value is None else pattern.format(value) for pattern, value in
                   (("{:.3f}", entry.seconds), ("{:.2g}", entry.error))]  # fmt: skip
        lines.append([entry.task, entry.name, *figures, entry.note])
    print(aligned(lines), end="\n\n")
    told = {"shape_zyx": shape, **{f"{e.task}: {e.name}": e.seconds for e in entries}}
    if chosen.json:
        chosen.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
