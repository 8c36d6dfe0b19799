"""Time, memory and equality of `segment` beside stock nnU-Net, in one run, on one CT and the same checkpoints.

    python Testing/Benchmarks/engine.py --quick          # within 5 minutes on two cores
    python Testing/Benchmarks/engine.py                  # the table of RESULTS.md; --full: every stock run really done, flips too
    python Testing/Benchmarks/engine.py --only whole-body --work FOLDER

Every measured thing is a process of its own. The stock path is nnU-Net's own command nnUNetv2_predict_from_modelfolder, once a
member, with --save_probabilities, and a script that reads the .npz files, averages and computes entropy and mutual information
slice by slice. The fair opponent is stock's predictor in one process without .npz. Ours is `segment`, which also gives five
measures, distances, regions and compressed maps. CT and networks are made here (material.py): no data is needed.

The last line is JSON. Everything goes to Testing/Benchmarks/results/engine_<mode>.json as it is measured. The exit status is 1
where a label differs beyond stock's own margin, a probability by more than 2e-3, or a process failed: a wrong answer's speed is
worth nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import figures
from tree_memory import Watched, memory_mb, run_watched

HERE = Path(__file__).resolve().parent
WORD = "FIGURES "
CTS = {  # (z, y, x) voxels, mm
    "thin": ((64, 256, 200), (2.5, 0.9, 0.9)),  # twelve tiles
    "slim": ((56, 256, 200), (2.5, 0.9, 0.9)),  # one row of tiles
    "usual": ((160, 256, 256), (2.5, 0.9, 0.9)),
    "whole-body": ((600, 512, 512), (1.5, 0.98, 0.98)),
    "dwarf": ((40, 96, 96), (2.5, 2.4, 2.4)),  # to try the program itself
}
GRID_MM = 1.5
MEASURED = ("stock_member", "stock_average", "stock_in_process", "ours")


@dataclass(frozen=True)
class Setup:
    """One CT and one network, and what is measured on them. ours: (members, precision) each; fair: members of the fair opponent."""

    ct: str
    network: str
    classes: int
    ours: tuple[tuple[int, str], ...]
    fair: tuple[int, ...] = ()
    average: tuple[int, ...] = ()
    flips: bool = False
    localised: bool = True
    every_stock_run: bool = False
    read_maps: bool = False  # also time reading what a viewer shows
    role: str = ""  # "time", "memory" or "growth": what of the last line it makes; growth: the memory setup by default
    stock: bool = True

    @property
    def name(self) -> str:
        extra = ("" if self.localised else " random") + (" flips" if self.flips else "")
        return f"{self.ct} {self.network} {self.classes}{extra}"


def quick() -> list[Setup]:
    """A thin CT for time and, of one member, equality; one of usual size for memory beside stock; and what ten members need."""
    return [
        Setup("thin", "medium", 6, ((1, "stock"), (5, "stock"), (5, "bf16")), fair=(1,), average=(5,), role="time"),
        Setup("usual", "tiny", 25, ((1, "stock"),), role="memory"),
        Setup("slim", "tiny", 25, (*((1, "stock"),) * 3, (10, "stock")), stock=False, role="growth"),
    ]


def usual(full: bool) -> list[Setup]:
    """6 and 25 classes, one and five members, with and without flips, and the whole body."""
    exact, both = ((1, "stock"), (5, "stock")), ((1, "stock"), (5, "stock"), (5, "bf16"))
    alone = exact if full else exact[:1]
    many = (1, 5) if full else (1,)
    return [
        Setup("usual", "medium", 6, both, fair=(1, 5), average=(1, 5), every_stock_run=full, role="time"),
        Setup("usual", "medium", 25, both, fair=(1, 5), average=(1, 5), every_stock_run=full),
        Setup("usual", "tiny", 25, (*both, (10, "stock")), fair=(1, 5), average=(1, 5), role="memory"),
        Setup("thin", "medium", 6, exact[:1], fair=(1,), average=(1,), flips=True),
        Setup("usual", "medium", 6, alone, fair=many, average=(1, 5), flips=True),
        Setup("usual", "medium", 25, alone, fair=many, average=(1, 5), flips=True),
        Setup("usual", "tiny", 6, exact, fair=(1,), average=(1,), localised=False),
        Setup("whole-body", "tiny", 6, both, fair=(1,), average=(1, 5)),
        Setup("whole-body", "tiny", 25, ((1, "stock"), (5, "stock")), fair=(1,), average=(1, 5)),
    ]


def dwarf() -> list[Setup]:
    """The whole program in a minute, for its own test; the figures mean nothing."""
    return [
        Setup("dwarf", "tiny", 6, ((2, "stock"), (2, "bf16")), fair=(2,), average=(2,), role="time"),
        Setup("dwarf", "tiny", 25, ((1, "stock"), (10, "stock")), average=(1,), role="memory"),
        Setup("dwarf", "tiny", 6, ((1, "stock"),), localised=False),
    ]


@dataclass
class Bench:
    """Runs setups; keeps rows and comparisons, and writes them down after each."""

    work: Path
    device: str
    save: Path
    about: dict
    rows: list[dict] = field(default_factory=list)
    comparisons: list[dict] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def process(self, **spec) -> tuple[dict, Watched]:
        """One way in a process of its own; its figures ("skipped" where it could not end) and what was seen from outside."""
        path = self.work / "spec.json"
        path.write_text(json.dumps({**spec, "device": self.device, "asked": time.time()}), encoding="utf-8")
        limit = 0.92 * memory_mb("MemAvailable")
        watched = run_watched([sys.executable, str(HERE / "ways.py"), str(path)], limit_mb=limit)
        told = [line for line in watched.output.splitlines() if line.startswith(WORD)]
        if watched.stopped:
            return {"skipped": f"{watched.stopped} of {limit / 1e3:.1f} GB"}, watched
        if watched.returncode or not told:
            words = f"{spec['way']} FAILED, status {watched.returncode}"
            print(f"{words}:\n{watched.output[-3000:]}", file=sys.stderr, flush=True)
            if spec["way"] not in MEASURED:  # nothing that follows would mean anything
                raise SystemExit(words)
            self.failed.append(words)
            return {"skipped": words}, watched
        return json.loads(told[-1][len(WORD) :]), watched

    def measure(self, setup: Setup, way: str, label: str, members: int, precision: str = "stock", note: str = "", **more) -> dict:
        """Run one way, add its row, and say so."""
        spec = {
            "classes": setup.classes, "flips": setup.flips, "members": members, "precision": precision, "note": note,
            "model": str(self.model(setup)), "ct_folder": str(self.ct(setup).parent), "folds": list(range(members)),
            "read_maps": setup.read_maps, **more,
        }  # fmt: skip
        told, watched = self.process(way=way, **spec)
        return self.add(figures.row_of(setup.name, label, spec, told, watched))

    def add(self, row: dict) -> dict:
        """Keep a row, show it and write everything down."""
        self.rows.append(row)
        short = row.get("skipped") or f"{row['wall_s']:.1f} s, {row['peak_mb']:.0f} MB"
        print(f"  {row['setup']}, {row['way']}, M={row['members']}, {row['precision']}: {short}", flush=True)
        self.write()
        return row

    def write(self, headline: dict | None = None) -> None:
        """Everything so far, as JSON."""
        self.save.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.about, "headlines": headline, "rows": self.rows, "comparisons": self.comparisons}
        self.save.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @property
    def material(self) -> Path:
        """Where CTs and models lie: another folder whenever what makes them, or the CTs' sizes, have changed."""
        made_of = (HERE / "material.py").read_bytes() + repr(CTS).encode()
        return self.work / f"material_{hashlib.sha256(made_of).hexdigest()[:8]}"

    def ct(self, setup: Setup) -> Path:
        return self.material / "ct" / setup.ct / "case_0000.nii.gz"

    def model(self, setup: Setup) -> Path:
        dataset = f"Dataset998_{setup.network.title()}{setup.classes}"
        return self.model_folder(setup) / dataset / "nnUNetTrainer__nnUNetPlans__3d_fullres"

    def model_folder(self, setup: Setup) -> Path:
        return self.material / "models" / ("localised" if setup.localised else "random") / f"{setup.network}{setup.classes}"

    def prepare(self, setups: list[Setup]) -> None:
        """Write the CTs and models, in a process of its own so that this one stays small."""
        folds = {}
        for setup in setups:
            key = (str(self.model_folder(setup)), setup.network, setup.classes, setup.localised)
            folds[key] = max([folds.get(key, 1), *(m for m, _ in setup.ours), *setup.fair, *setup.average])
        models = [[key[0], key[1], key[2], count, key[3]] for key, count in folds.items()]
        cts = {str(self.ct(setup)): [str(self.ct(setup)), *CTS[setup.ct]] for setup in setups}
        told, watched = self.process(way="material", cts=list(cts.values()), models=models)
        self.about["cts"] = {Path(path).parent.name: about for path, about in told["cts"].items()}
        print(f"made {len(cts)} CTs and {len(models)} models in {watched.wall_s:.0f} s", flush=True)

    def run(self, setup: Setup) -> None:
        """Everything of one setup: the stock command, averaging, the fair opponent, ours, and the comparison."""
        space = self.work / "now"
        shutil.rmtree(space, ignore_errors=True)
        space.mkdir()
        references = {}
        if setup.stock and self.fits(setup):
            references = self.stock(setup, space)
        for members, precision in setup.ours:
            out = space / f"ours_{members}_{precision}"
            row = self.measure(setup, "ours", figures.OURS, members, precision, out=str(out))
            self.compare(setup, members, precision, row, out, references.get(members))
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(space)

    def fits(self, setup: Setup) -> bool:
        """Whether stock has the memory for it; where it has not, a row with the numbers stands instead."""
        (shape, spacing), grid, voxels = CTS[setup.ct], 1, 1
        for n, step in zip(shape, spacing, strict=True):
            voxels *= n
            grid *= round(n * step / GRID_MM)
        needed, there = figures.stock_needs_mb(voxels, grid, setup.classes), memory_mb("MemAvailable")
        if needed < 0.92 * there:
            return True
        words = f"stock does not fit: it needs about {needed / 1e3:.0f} GB, {there / 1e3:.0f} GB are free"
        spec = {"members": max(setup.average, default=1), "classes": setup.classes, "flips": setup.flips}
        self.add(figures.row_of(setup.name, figures.STOCK, spec, {"skipped": words}))
        return False

    def stock(self, setup: Setup, space: Path) -> dict[int, Path]:
        """Both stock paths; the folders with stock's own answer for 1 and for several members."""
        references: dict[int, Path] = {}
        most, runs, files = max(setup.average, default=1), [], []
        for fold in range(most if setup.every_stock_run else 1):
            out = space / f"stock_{fold}"
            runs.append(self.measure(setup, "stock_member", figures.STOCK, 1, folds=[fold], out=str(out), note=f"fold {fold}"))
            files.append(str(out / "case.npz"))
            if "skipped" in runs[-1]:
                return references
        if not setup.average:
            self.add(figures.several_runs(runs, None, 1))
        for members in setup.average:
            read = files[:members] if len(files) >= members else files[:1] * members
            whole = {"reference": str(space / "reference_1")} if members == 1 and 1 not in setup.fair else {}
            note = "" if len(set(read)) == members else f"one file read {members} times"
            more = {"npz": read, "out": str(space / "average"), "note": note, **whole}
            row = self.measure(setup, "stock_average", figures.AVERAGE, members, **more)
            if whole:
                references[1] = space / "reference_1"
            if "skipped" not in row:
                self.add(figures.several_runs(runs[:members] if len(runs) >= members else runs[:1], row, members))
        for path in files:
            Path(path).unlink()
        for members in setup.fair:
            logits, kept = str(space / "logits"), space / f"reference_{members}"
            row = self.measure(setup, "stock_in_process", figures.FAIR, members, keep_logits=logits, out=str(space / "fair"))
            if "skipped" not in row:
                self.process(
                    way="reference", model=str(self.model(setup)), folds=list(range(members)), flips=setup.flips,
                    ct_folder=str(self.ct(setup).parent), keep_logits=logits, reference=str(kept),
                )  # fmt: skip
                references[members] = kept
            shutil.rmtree(logits, ignore_errors=True)
        return references

    def compare(self, setup: Setup, members: int, precision: str, row: dict, out: Path, reference: Path | None) -> None:
        """Compare one of our results with stock's answer of the same members, where both are there."""
        if "skipped" in row or reference is None:
            return
        told, _ = self.process(way="compare", result=str(out), reference=str(reference))
        entry = {"setup": setup.name, "members": members, "flips": setup.flips, "precision": precision}
        self.comparisons.append({**entry, **told})
        self.write()


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, the goals and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a thin CT and few runs: within 5 minutes on two cores")
    parser.add_argument("--full", action="store_true", help="every stock run really done, five members with flips too: hours")
    parser.add_argument("--dwarf", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="regular expression: only setups whose name it finds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, help="folder for CTs, models and temporary files; kept")
    parser.add_argument("--json", type=Path, help="where everything goes; default results/engine_<mode>.json beside this file")
    chosen = parser.parse_args(arguments)
    mode = "quick" if chosen.quick else "dwarf" if chosen.dwarf else "full" if chosen.full else "usual"
    setups = {"quick": quick, "dwarf": dwarf}.get(mode, lambda: usual(chosen.full))()
    setups = chosen_setups(setups, chosen.only, parser)
    return report(measured(setups, mode, chosen.device, chosen.work, chosen.json), setups)


def chosen_setups(setups: list[Setup], pattern: str, parser: argparse.ArgumentParser) -> list[Setup]:
    """Those whose name the pattern finds; the parser refuses where there is none."""
    found = [setup for setup in setups if re.search(pattern, setup.name)]
    if not found:
        parser.error(f"'{pattern}' finds no setup among: {', '.join(setup.name for setup in setups)}")
    return found


def measured(setups: list[Setup], mode: str, device: str, work: Path | None, save: Path | None) -> Bench:
    """Make what is needed and run the setups."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="calib_bench_") as folder:
        work = work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(work, device, save or HERE / "results" / f"engine_{mode}.json", about_this_machine(mode, device))
        bench.prepare(setups)
        for setup in setups:
            bench.run(setup)
    bench.about["seconds"] = time.perf_counter() - began
    return bench


def report(bench: Bench, setups: list[Setup]) -> int:
    """Tables, goals, and last the JSON line; 1 where an answer is wrong."""
    roles = {setup.role: setup.name for setup in setups if setup.role}
    named = {f"{role}_setup": roles.get(role, "") for role in ("time", "memory", "growth")}
    headline = figures.headlines(bench.rows, bench.comparisons, **named)
    bench.write(headline)
    print(f"\n{bench.about['machine']}, load {bench.about['load']}\n\n{figures.table(bench.rows)}\n")
    print(figures.comparison_table(bench.comparisons), end="\n\n")
    print("\n".join(figures.goal_lines(headline)))
    checked = [item for item in bench.comparisons if item["precision"] == "stock"]
    wrong = [item for item in checked if item["beyond_margin"] or item["max_abs_dp"] > 2e-3]
    for item in wrong:
        print(f"WRONG: {item['setup']}, M={item['members']}: {item['beyond_margin']} labels, dp {item['max_abs_dp']:.1e}")
    print("\n".join(bench.failed), end="\n" if bench.failed else "")
    print(f"everything in {bench.save}; {bench.about['seconds']:.0f} s in all")
    print(json.dumps({key: headline[key] for key in figures.KEYS}))
    return 1 if wrong or bench.failed else 0


def about_this_machine(mode: str, device: str) -> dict:
    """What the figures depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    gigabytes = memory_mb("MemTotal") / 1e3
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {gigabytes:.0f} GB, threads {threads}, device {device}"
    return {"mode": mode, "machine": machine, "load": load, "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(main())
