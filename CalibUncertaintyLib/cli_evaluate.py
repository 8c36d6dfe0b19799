"""The verb `evaluate` for a terminal: its options, and what it answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TextIO

from .cli_roi import add_roi
from .errors import Cancelled
from .progress import JsonProgress, Progress


def add_evaluate(verbs: argparse._SubParsersAction, parents: Sequence[argparse.ArgumentParser], verb: Callable) -> None:
    """The verb's options. verbs: of the parser. parents: parsers with the options it shares. verb: what runs it."""
    evaluate = verbs.add_parser(
        "evaluate",
        parents=list(parents),
        help="labelled test cases to figures, plots and a report",
        epilog="Exit status: 0 a report was written (cases that failed are listed in it and warned of), 1 no"
        " case worked or something is wrong with the input, 2 wrong usage, 130 stopped. Run again with"
        " the same --out it goes on from where it was: only cases whose files, model, calibration or"
        " options changed are computed anew.",
    )
    evaluate.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="trained nnU-Net v2 folder; give it again for more that are asked together. Not needed where"
        " every configuration names its own",
    )
    evaluate.add_argument(
        "--cases",
        required=True,
        metavar="LIST",
        help="CSV with the columns id, ct, labels and perhaps split (paths relative to the CSV), or a JSON"
        " list; cases that trained the model are refused",
    )
    evaluate.add_argument(
        "--out", required=True, metavar="DIR", help="folder for evaluation.json, cases.csv, summary.csv and report.html"
    )
    evaluate.add_argument(
        "--split", metavar="NAME", help="rows of a list with a column split that are taken (default: test)"
    )
    evaluate.add_argument(
        "--resample-labels", action="store_true", help="bring label maps of another grid to their CT's (nearest)"
    )
    _add_figures(evaluate)
    _add_work(evaluate)
    evaluate.set_defaults(verb=verb)


def _add_figures(evaluate: argparse.ArgumentParser) -> None:
    """What is compared, and by which figures."""
    evaluate.add_argument(
        "--configurations",
        metavar="FILE",
        help='JSON list of what is compared: [{"name": "five folds", "folds": "all", "calibration": "auto"},'
        " ...], each with what differs of model, folds, checkpoints, flips, dropout, seed,"
        " insert_dropout, previous, mode, calibration (default: the given members, uncalibrated and"
        " calibrated)",
    )
    evaluate.add_argument(
        "--calibration",
        default="auto",
        metavar="FILE",
        help="auto (default): calibration.json in the model folder; none: the network's own probabilities; or a record file",
    )
    add_roi(
        evaluate,
        "only voxels no farther from a structure than this count, mm (default 15); or body: errors are looked for in all of the"
        " patient first, with the regions that segment --roi body lists, and within the distance as well",
    )
    evaluate.add_argument(
        "--roi-reference",
        choices=["pred", "union"],
        default="pred",
        help="errors are looked for near what was predicted, as a new patient has it (pred, default), or near"
        " prediction and reference (union); the report has both, this one first",
    )
    evaluate.add_argument(
        "--measures",
        nargs="+",
        default=["standard"],
        metavar="NAME",
        help="standard (default), all, or names of measures",
    )


def _add_work(evaluate: argparse.ArgumentParser) -> None:
    """Where the cases are computed, and what of them is kept."""
    evaluate.add_argument(
        "--keep-results", action="store_true", help="keep the Result folder of every case, with all its maps (large)"
    )
    evaluate.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="cases computed at the same time on this machine, by Dask (default 1: one after the other,"
        " without Dask); each needs the memory of one run of segment",
    )
    evaluate.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster, such as tcp://host:8786, in place of this machine. Its workers need this"
        " package, and must see models, cases and --out under the same paths",
    )
    evaluate.add_argument("--overwrite", action="store_true", help="compute every case anew")


def run_evaluate(options: argparse.Namespace, progress: Progress, _: TextIO) -> None:
    """Run it, and say the headline figures of every configuration."""
    from .workflow.evaluate import evaluate
    from .workflow.evaluate_options import EvaluateOptions

    chosen = {name: getattr(options, name) for name in EvaluateOptions.names() if hasattr(options, name)}
    if chosen.get("measures") in (["standard"], ["all"]):
        chosen["measures"] = chosen["measures"][0]
    try:
        report = evaluate(options.cases, options.model, options.out, progress=progress, **chosen)
    except (KeyboardInterrupt, Cancelled) as error:
        raise Cancelled(
            f"stopped on request; finished cases are kept in {options.out}, and the same command goes on from there"
        ) from error
    if report.failed:
        cases = len({case for _, case, _ in report.failed})
        progress.warn(
            f"{cases} of {len(report.content['cases'])} cases failed and {'is' if cases == 1 else 'are'} left out"
        )
    if not isinstance(progress, JsonProgress):
        for name, of in report.content["configurations"].items():
            progress.done(_headline(name, of, report.content["options"]["roi_reference"]))
        progress.done(f"Computed {report.count('ok')}, kept {report.count('kept')}, failed {report.count('failed')}")
    progress.done(str(report.folder / "report.html"))


def _headline(name: str, of: dict, domain: str) -> str:
    """One configuration's means over cases, in a line."""
    if not of.get("by_case"):
        return f"{name}: no case worked"
    figures = of["calibration"]["union"]["figures"]
    text = (
        f"{name} ({of['cases_used']} of {of['cases_total']} cases): Dice {of['dice']['mean']['mean']:.3f},"
        f" NLL {figures['nll']['mean']:.4f}, ECE {figures['ece_toplabel']['mean']:.4f}"
    )
    found = of["measures"].get("entropy", {}).get("domains", {}).get(domain)
    if found and "at_thresholds.stored.error_dice" in found["figures"]:
        text += f"; entropy: error Dice {found['figures']['at_thresholds.stored.error_dice']['mean']:.3f}"
    return text
