"""What the terminal says when a verb has ended: what was found, and the command that comes next."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model.record import CalibrationEntry
    from .result import Result
    from .result_regions import Region

COMMAND = "calib-uncertainty"
REGIONS_SHOWN = 3


def answers_of_segment(result: Result, options: argparse.Namespace) -> Iterator[str]:
    """A line each: volumes (mL), the calibration, changed labels, the first places to look at, and what to do next."""
    found = result.provenance
    calibration, changed = found["calibration"], found["changed_labels"]
    yield from (f"{name}: {volume:.1f} mL" for name, volume in found["segmentation"]["volumes_ml"].items())
    yield calibration["summary"]
    yield (
        f"Labels that differ from stock nnU-Net's: {changed['by_pooling']:,} voxels by pooling,"
        f" {changed['by_temperature']:,} by calibration"
    )
    yield from _regions(result.regions)
    yield f"Result: {result.folder}"
    ct = options.ct if isinstance(options.ct, str) else options.ct[0]
    yield f"To see it: {_command('picture', result.folder, '--ct', ct)} (or open the folder in Slicer)"
    if not calibration["calibrated"] and getattr(options, "calibration", "auto") == "auto":
        yield f"To calibrate: {calibrate_command(options)}"


def _regions(regions: list[Region]) -> Iterator[str]:
    if not regions:
        yield "Places to look at: none"
        return
    yield f"Places to look at: {len(regions)}{f'; the first {REGIONS_SHOWN}' if len(regions) > REGIONS_SHOWN else ''}"
    for region in regions[:REGIONS_SHOWN]:
        yield f"  {region.id}. {in_slicer_words(region.peak_ras_mm)}: {region.reason}"


def in_slicer_words(ras_mm: tuple[float, float, float]) -> str:
    """A place as Slicer and radiologists write it, "R 12, A 34, S 180 mm". ras_mm: right, anterior, superior positive, mm."""
    words = (
        f"{letters[0] if value >= 0 else letters[1]} {abs(value):.0f}"
        for value, letters in zip(ras_mm, ("RL", "AP", "SI"), strict=True)
    )
    return f"{', '.join(words)} mm"


def answers_of_calibration(path: Path, entries: list[CalibrationEntry], options: argparse.Namespace) -> Iterator[str]:
    """A line each: what was fitted, how it did on its own cases, what else was compared, and what to do next.

    entries: what was stored now, the first of them the one that `segment` takes by default.
    """
    from .workflow.info import temperature_in_words

    entry, count = entries[0], len(entries[0].cases)
    before, after = entry.figures["before"]["per_case"], entry.figures["after"]["per_case"]
    yield f"{temperature_in_words(entry)} ({entry.mode}), from {count} case{'' if count == 1 else 's'}"
    for key, title in (("nll", "NLL, nats"), ("ece_toplabel", "ECE of the top label, 0 to 1")):
        yield f"{title}, mean over these cases: {before[key]:.4f} before, {after[key]:.4f} after"
    for other in entries[1:]:
        yield f"Stored as well: {temperature_in_words(other)} ({other.mode}; segment --mode {other.mode})"
    for row in entry.compared:
        yield (
            f"Compared: {row['method']}, {row['mode']}: NLL {row['nll_cv']:.4f}, ECE {row['ece_cv']:.4f} on cases not fitted on,"
            f" {row['changed_labels']:,} labels changed{', chosen' if row['chosen'] else ''}"
        )
    yield f"Record: {path}"
    proof = getattr(options, "proof", None)
    if proof:
        yield f"Proof: {Path(proof) / 'report.html'}"
    asked = "" if entry.mode == "pool_logit" else f" --mode {entry.mode}"
    asked += f" --calibration {shlex.quote(str(path))}" if getattr(options, "out", None) else ""
    models, members = _models(options), _members(options)
    if not proof:
        yield f"To see how well it fits: {' '.join([COMMAND, 'proof', *models, *members])}{asked} --out REPORT"
    yield f"It holds for these members only. To use it: {_with_models('segment CT', options)}{asked} --out RESULT"


def calibrate_command(options: argparse.Namespace) -> str:
    """The command that calibrates the members that were asked for."""
    return f"{_with_models('calibrate', options)} --cases cases.csv"


def _with_models(start: str, options: argparse.Namespace) -> str:
    models = [word for model in _models(options) for word in ("--model", model)]
    return " ".join([COMMAND, start, *models, *_members(options)])


def _models(options: argparse.Namespace) -> list[str]:
    models = [options.model] if isinstance(options.model, str) else options.model
    return [shlex.quote(str(model)) for model in models]


def _members(options: argparse.Namespace) -> list[str]:
    """The options of the members that are not the defaults, as they are written in a shell."""
    said = []
    for name, default in (
        ("folds", "all"),
        ("checkpoints", None),
        ("dropout", 0),
        ("seed", 0),
        ("insert_dropout", None),
    ):
        value = getattr(options, name, default)
        if value not in (default, None):
            values = value if isinstance(value, list) else [value]
            said += [f"--{name.replace('_', '-')}", *(shlex.quote(str(item)) for item in values)]
    flips = getattr(options, "flips", "mean") if getattr(options, "mirroring", True) else "off"
    said += [] if flips == "mean" else ["--flips", flips]
    for name, default in (("precision", "stock"), ("step_size", 0.5)):
        value = getattr(options, name, default)
        said += [] if value == default else [f"--{name.replace('_', '-')}", str(value)]
    return said


def _command(*words: object) -> str:
    return " ".join([COMMAND, *(shlex.quote(str(word)) for word in words)])
