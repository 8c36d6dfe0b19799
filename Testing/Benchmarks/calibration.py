"""Time and memory of the temperature fit and of the metrics beside netcal, torch-uncertainty, fiducio and torchmetrics, in one run.

    python Testing/Benchmarks/calibration.py --quick                          # within 5 minutes on two cores
    python Testing/Benchmarks/calibration.py --opponents-python VENV/bin/python [--voxels 20000000] [--classes 6]

Every measured thing is a process of its own with the data in its memory before the clock starts. Opponents are run by
`--opponents-python`, by default this Python; those it has not got are named and left out. Data are made here: float16 logits of
a volume that is mostly sure background, labels drawn at a known temperature.

- fit: ours (TemperatureFit, its intervals left out) and the opponents on the same logits. Only an opponent that comes within
  1 % of the optimum counts, for its time to the optimum.
- metrics: ours computes everything of `full_result`; the opponents only top-label and class-wise ECE and MCE, which all have.
  Their values are compared with ours by `compat`.

Opponents that take longer than the fastest so far are stopped (`--quick`): they cannot be the fastest. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from calibration_opponents import BINS, OPPONENTS, measured

HERE = Path(__file__).resolve().parent
TRUE_TEMPERATURE = 1.7
CHUNK = 1 << 18
GOALS = {"ratio_fit": 20.0, "ratio_metrics": 10.0, "extra_memory_mb": 200.0}
SAME_OPTIMUM = 0.01


def make(folder: Path, classes: int, voxels: int, seed: int = 0) -> None:
    """logits.npy (C, N) float16, p.npy (C, N) float32 (softmax at T = 1) and labels.npy (N,) uint8, a chunk at a time."""
    logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float16, (classes, voxels))
    p = np.lib.format.open_memmap(folder / "p.npy", "w+", np.float32, (classes, voxels))
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.uint8, (voxels,))
    random = np.random.default_rng(seed)
    for start in range(0, voxels, CHUNK):
        part = slice(start, min(start + CHUNK, voxels))
        n = part.stop - part.start
        z = random.normal(size=(classes, n)).astype(np.float32) * 2.5
        z[0] += np.where(random.random(n) < 0.75, 14.0, 2.0)  # far from structures, and near them
        z[random.integers(1, classes, n), np.arange(n)] += 3.0
        z = z.astype(np.float16)
        exact = z.astype(np.float32)
        labels[part] = (exact / TRUE_TEMPERATURE + random.gumbel(size=z.shape)).argmax(axis=0)
        exact = np.exp(exact - exact.max(axis=0))
        logits[:, part], p[:, part] = z, exact / exact.sum(axis=0)


def ours_fit(folder: Path, repeat: int) -> dict:
    """The temperature, its voxels given as `repeat` cases."""
    from CalibUncertaintyLib.calibration.temperature import TemperatureFit

    logits, labels = np.load(folder / "logits.npy"), np.load(folder / "labels.npy")

    def run() -> float:
        fit = TemperatureFit()
        for case in range(repeat):
            fit.add(f"case{case}", logits, labels)
        return fit.fit(bootstrap=0).temperature

    return measured(run)


def ours_metrics(folder: Path, repeat: int) -> dict:
    """Everything that `full_result` says, the voxels given as `repeat` cases."""
    from CalibUncertaintyLib.evaluation.metrics import CalibrationMetrics

    p, labels = np.load(folder / "p.npy"), np.load(folder / "labels.npy")

    def run() -> dict:
        metrics = CalibrationMetrics(len(p), BINS, mce_min_voxels=1)
        for _ in range(repeat):
            metrics.add(p, labels)
        full = metrics.full_result()
        rows = list(full["classes"].values())
        return {
            "ece_toplabel": full["ece_toplabel"], "mce_toplabel": full["mce_toplabel"],
            "ece_classes": [row["ece"] for row in rows], "mce_classes": [row["mce"] for row in rows],
        }  # fmt: skip

    return measured(run)


def check(folder: Path) -> dict:
    """The optimum by Newton steps in double precision, and the figures by the rules of the opponents (`compat`)."""
    from CalibUncertaintyLib.evaluation.compat import CompatErrors

    logits, labels = np.load(folder / "logits.npy"), np.load(folder / "labels.npy")
    beta = 1.0 / TRUE_TEMPERATURE
    for _ in range(5):
        slope = curvature = 0.0
        for start in range(0, labels.size, CHUNK):
            part = slice(start, start + CHUNK)
            z = logits[:, part].astype(np.float64)
            z -= z.max(axis=0)
            q = np.exp(beta * z)
            q /= q.sum(axis=0)
            mean = (q * z).sum(axis=0)
            slope += (mean - z[labels[part], np.arange(z.shape[1])]).sum()
            curvature += ((q * z * z).sum(axis=0) - mean**2).sum()
        beta -= slope / curvature
    p = np.load(folder / "p.npy")
    top = CompatErrors("torchmetrics", BINS)
    each = [CompatErrors("torchmetrics", BINS) for _ in p]
    for start in range(0, labels.size, CHUNK):
        part = slice(start, start + CHUNK)
        top.add(p[:, part].max(axis=0), p[:, part].argmax(axis=0) == labels[part])
        for index, errors in enumerate(each):
            errors.add(p[index, part], labels[part] == index)
    results = [errors.result() for errors in each]
    return {
        "temperature": 1.0 / beta,
        "ece_toplabel": top.result()["ece"], "mce_toplabel": top.result()["mce"],
        "ece_classes": [result["ece"] for result in results], "mce_classes": [result["mce"] for result in results],
    }  # fmt: skip


def in_process(command: list[str], threads: int) -> dict:
    """The figures that a process prints; {"missing": why} when it fails."""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    environment["PYTHONPATH"] = str(HERE.parents[1])
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except OSError as problem:
        return {"missing": str(problem)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"missing": last[:160]}
    return json.loads(lines[-1].removeprefix("FIGURES "))


def ours(task: str, folder: Path, chosen: argparse.Namespace, repeat: int = 1) -> dict:
    """The best of three runs, each in a process of its own; memory is the highest of them."""
    command = [sys.executable, __file__, "--one", task, "--work", str(folder), "--repeat", str(repeat)]
    runs = [in_process(command, chosen.threads) for _ in range(3 if repeat == 1 and task != "check" else 1)]
    if any("missing" in run for run in runs):
        raise SystemExit(f"our own {task} failed: {runs}")
    best = min(runs, key=lambda run: run["s"])
    return best | {"extra_mb": max(run["extra_mb"] for run in runs)}


def opponents(task: str, folder: Path, chosen: argparse.Namespace, counts) -> dict[str, dict]:
    """Each opponent's figures. counts(figures): whether its answer is right, so that its time counts."""
    found, fastest = {}, math.inf
    for name in OPPONENTS[task]:
        limit = fastest if chosen.quick and math.isfinite(fastest) else 0.0
        program = str(HERE / "calibration_opponents.py")
        command = [chosen.opponents_python, program, task, name, str(folder), str(chosen.threads), str(limit)]
        figures = in_process(command, chosen.threads)
        figures["counts"] = "s" in figures and counts(figures["found"])
        if figures["counts"]:
            fastest = min(fastest, figures["s"])
        found[name] = figures
    return found


def line(name: str, figures: dict, reference: float, remark: str = "") -> str:
    if "missing" in figures:
        return f"  {name:20s} missing: {figures['missing']}"
    if "slower_than" in figures:
        return f"  {name:20s} stopped after {figures['slower_than']:.1f} s, slower than the fastest"
    spent = f"{figures['s']:8.2f} s ({figures['cpu_s']:.2f} of processor) {figures['extra_mb']:6.0f} MB"
    return f"  {name:18s} {spent} {figures['s'] / reference:6.1f} times ours  {remark}"


def ratio(found: dict[str, dict], reference: float) -> float | None:
    times = [figures["s"] for figures in found.values() if figures["counts"]]
    return min(times) / reference if times else None


def largest_difference(a: dict, b: dict, keys=("ece_toplabel", "ece_classes")) -> float:
    return max(float(np.abs(np.subtract(a[key], b[key])).max()) for key in keys)


def compare(folder: Path, chosen: argparse.Namespace) -> dict:
    """Run everything, print the table, and give the last line's figures."""
    truth = ours("check", folder, chosen)["found"]
    print(f"{chosen.voxels} voxels, {chosen.classes} classes, {chosen.threads} threads")
    fitted = ours("fit", folder, chosen)
    fits = opponents("fit", folder, chosen, lambda t: abs(t / truth["temperature"] - 1.0) < SAME_OPTIMUM)
    print(f"temperature fit: the optimum is {truth['temperature']:.6f}, drawn at {TRUE_TEMPERATURE}")
    print(line("ours", fitted, fitted["s"], f"T = {fitted['found']:.6f}"))
    for name, figures in fits.items():
        remark = f"T = {figures['found']:.6f}" if "found" in figures else ""
        print(
            line(
                name,
                figures,
                fitted["s"],
                remark if figures["counts"] else f"{remark} is not the optimum: does not count",
            )
        )
    scored = ours("metrics", folder, chosen)
    scores = opponents("metrics", folder, chosen, lambda found: largest_difference(found, truth) < 1e-2)
    print("metrics: ours the full set, the others top-label and class-wise ECE and MCE")
    print(line("ours", scored, scored["s"]))
    for name, figures in scores.items():
        remark = ""
        if "found" in figures:
            remark = (f"ECE differs from ours by {largest_difference(figures['found'], scored['found']):.1e}, "
                      f"from compat='torchmetrics' by {largest_difference(figures['found'], truth):.1e}")  # fmt: skip
        print(line(name, figures, scored["s"], remark))
    many = {task: ours(task, folder, chosen, repeat=chosen.repeat) for task in ("fit", "metrics")}
    total = chosen.voxels * chosen.repeat
    for task, figures in many.items():
        print(f"ours on {total} voxels, {task}: {figures['s']:.1f} s, {figures['extra_mb']:.0f} MB more than the data")
    every = [fitted, scored, *many.values()]
    return {
        "ratio_fit": ratio(fits, fitted["s"]),
        "ratio_metrics": ratio(scores, scored["s"]),
        "extra_memory_mb": max(figures["extra_mb"] for figures in every),
        "temperature_error": abs(fitted["found"] / truth["temperature"] - 1.0),
        "temperature_recovery_error": abs(fitted["found"] / TRUE_TEMPERATURE - 1.0),
        "voxels": chosen.voxels, "classes": chosen.classes, "threads": chosen.threads,
        "seconds_fit": fitted["s"], "seconds_metrics": scored["s"],
        "missing": sorted({name for each in (fits, scores) for name, figures in each.items() if "missing" in figures}),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="stop an opponent that cannot be the fastest any more")
    parser.add_argument("--voxels", type=int, default=5_000_000)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--repeat", type=int, help="cases of so many voxels for the memory of many (4 with --quick, else 20)"
    )
    parser.add_argument("--opponents-python", default=sys.executable, help="a Python that has the opponents installed")
    parser.add_argument(
        "--work", type=Path, help="folder for the data (240 MB with 5 million voxels); a temporary one by default"
    )
    parser.add_argument("--one", choices=("fit", "metrics", "check"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        task = {"fit": ours_fit, "metrics": ours_metrics}.get(chosen.one)
        figures = task(chosen.work, chosen.repeat) if task else measured(lambda: check(chosen.work))
        print("FIGURES " + json.dumps(figures))
        return
    chosen.repeat = chosen.repeat or (4 if chosen.quick else 20)
    with tempfile.TemporaryDirectory() as folder:
        work = chosen.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        make(work, chosen.classes, chosen.voxels)
        figures = compare(work, chosen)
    for key, goal in GOALS.items():
        if figures[key] is not None:
            met = figures[key] < goal if key == "extra_memory_mb" else figures[key] >= goal
            print(f"{key}: {figures[key]:.1f}, goal {goal:g}: {'met' if met else 'missed'}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
