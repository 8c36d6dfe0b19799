"""All measures of uncertainty from running statistics, in one streamed pass, beside plain numpy and torch.

    python Testing/Benchmarks/maps.py             # 512 x 512 x 200, five members, six classes
    python Testing/Benchmarks/maps.py --quick     # the same on 40 planes, a minute

Members' probabilities come plane by plane, as segment's slabs do; making them is not counted. Every way gives the nine measures
of one voxel (conf, margin, entropy, exp_entropy, mi, epkl, rmi, var, varratio) as float32 maps. *numpy* is what the formulas say,
on the slab's whole (M, C, n) array; *torch* the same in torch, with all cores; *ours* sees one member at a time. Each way is a
process of its own, one after the other, in turns; the median of the turns counts. Equality is checked against double precision.
The last line is JSON: `ratio_numpy` and `ratio_torch` (their time to ours) and `extra_memory_mb` (ours, beyond the maps
themselves and the probabilities it is given).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
from figures import aligned

PLANE, SLAB = 512 * 512, 4
MEMBERS, CLASSES = 5, 6
FLOOR = 1e-7
NAMES = ("conf", "margin", "entropy", "exp_entropy", "mi", "epkl", "rmi", "var", "varratio")


def probabilities(voxels: int, seed: int = 0) -> np.ndarray:
    """(M, C, n) float32: a common opinion and each member's own, sure in most voxels."""
    random = np.random.default_rng(seed)
    common = random.normal(0, 4, (1, CLASSES, voxels)).astype(np.float32)
    logits = common + random.normal(0, 1, (MEMBERS, CLASSES, voxels)).astype(np.float32)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return logits / logits.sum(axis=1, keepdims=True)


def ours(p: np.ndarray) -> dict[str, np.ndarray]:
    """What segment does: statistics of the members one by one, then the measures."""
    from CalibUncertaintyLib.uncertainty.disagreement import disagreement_of
    from CalibUncertaintyLib.uncertainty.measures import measures_of
    from CalibUncertaintyLib.uncertainty.member_statistics import EXTRAS, MemberStatistics

    running = MemberStatistics(extras=EXTRAS)
    for member in p:
        running.add(member)
    mean = running.mean
    found = measures_of(mean) | {"exp_entropy": running.expected_entropy}
    return found | disagreement_of(mean, running.expected_entropy, running.extras, running.count)


def plain_numpy(p: np.ndarray) -> dict[str, np.ndarray]:
    """The formulas, written down."""
    mean, log = p.mean(axis=0), np.log(np.maximum(p, FLOOR))
    two = np.sort(mean, axis=0)[-2:]
    entropy = -(mean * np.log(np.maximum(mean, FLOOR))).sum(axis=0)
    expected = -(p * log).sum(axis=1).mean(axis=0)
    mi = np.maximum(entropy - expected, 0)
    m = len(p)
    epkl = m / (m - 1) * ((p * log).mean(axis=0) - mean * log.mean(axis=0)).sum(axis=0)
    votes = (p.argmax(axis=1)[:, None] == np.arange(CLASSES)[None, :, None]).sum(axis=0)
    return {
        "conf": 1 - two[1], "margin": 1 - (two[1] - two[0]), "entropy": entropy, "exp_entropy": expected, "mi": mi, "epkl": epkl,
        "rmi": np.maximum(epkl - mi, 0), "var": p.var(axis=0).mean(axis=0), "varratio": 1 - votes.max(axis=0) / m,
    }  # fmt: skip


def in_torch(p: np.ndarray) -> dict[str, np.ndarray]:
    """The same formulas in torch."""
    import torch

    p = torch.from_numpy(p)
    mean, log = p.mean(0), p.clamp_min(FLOOR).log()
    two = mean.topk(2, dim=0).values
    entropy = -(mean * mean.clamp_min(FLOOR).log()).sum(0)
    expected = -(p * log).sum(1).mean(0)
    mi = (entropy - expected).clamp_min(0)
    m = len(p)
    epkl = m / (m - 1) * ((p * log).mean(0) - mean * log.mean(0)).sum(0)
    votes = torch.nn.functional.one_hot(p.argmax(1), CLASSES).sum(0).amax(-1)
    found = {
        "conf": 1 - two[0], "margin": 1 - (two[0] - two[1]), "entropy": entropy, "exp_entropy": expected, "mi": mi, "epkl": epkl,
        "rmi": (epkl - mi).clamp_min(0), "var": p.var(0, unbiased=False).mean(0), "varratio": 1 - votes / m,
    }  # fmt: skip
    return {name: values.numpy() for name, values in found.items()}


WAYS: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {"ours": ours, "numpy": plain_numpy, "torch": in_torch}


def measured(way: str, planes: int, answers) -> None:
    """In a process of its own: seconds for so many planes, and the memory beyond input and maps, MB."""
    # made in small pieces, so that making them is not the peak
    p = np.empty((MEMBERS, CLASSES, SLAB * PLANE), np.float32)
    for number, start in enumerate(range(0, p.shape[2], PLANE // 16)):
        p[..., start : start + PLANE // 16] = probabilities(PLANE // 16, seed=number)
    small = probabilities(1000, seed=1)
    WAYS[way](small)  # imports, threads
    maps = np.zeros((len(NAMES), SLAB * PLANE), np.float32)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for _ in range(planes // SLAB):
        began = time.perf_counter()
        for into, values in zip(maps, by_name(WAYS[way](p)), strict=True):
            into[:] = values
        seconds += time.perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    answers.put((seconds, memory))


def by_name(found: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The maps in the order of NAMES."""
    return [found[name] for name in NAMES]


def largest_errors() -> dict[str, float]:
    """Of ours, for each measure, against the formulas in double precision."""
    p = probabilities(50000, seed=2)
    exact, found = plain_numpy(p.astype(np.float64)), ours(p)
    return {name: float(np.abs(found[name] - exact[name]).max()) for name in NAMES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 planes in place of 200")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    planes = 40 if chosen.quick else 200
    context = multiprocessing.get_context("spawn")
    seconds, memory = {way: [] for way in WAYS}, {way: [] for way in WAYS}
    for _ in range(chosen.turns):
        for way in WAYS:
            answers = context.Queue()
            process = context.Process(target=measured, args=(way, planes, answers))
            process.start()
            took, extra = answers.get()
            process.join()
            seconds[way].append(took)
            memory[way].append(extra)
    errors = largest_errors()
    rows = [
        [way, f"{took:.1f}", f"{statistics.median(memory[way]):.0f}", f"{took / statistics.median(seconds['ours']):.2f}"]
        for way, took in ((way, statistics.median(seconds[way])) for way in WAYS)
    ]
    print(f"{planes} planes of 512 x 512, {MEMBERS} members, {CLASSES} classes, nine measures; slabs of {SLAB} planes\n")
    print(aligned([["way", "seconds", "extra MB", "of ours"], *rows]))
    print("\nlargest error of ours: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    ours_takes = statistics.median(seconds["ours"])
    headline = {
        "ratio_numpy": statistics.median(seconds["numpy"]) / ours_takes,
        "ratio_torch": statistics.median(seconds["torch"]) / ours_takes,
        "extra_memory_mb": max(memory["ours"]), "largest_error": max(errors.values()),
    }  # fmt: skip
    print(json.dumps(headline))
    return 0 if headline["largest_error"] < 1e-4 else 1


if __name__ == "__main__":
    raise SystemExit(main())
