"""Which map finds errors on real CT: every member set, calibrated and not, every measure, on the test split.

    python Testing/Benchmarks/thesis_study.py --data DATA --group okbp --model MODEL --cyclic MODEL --dropout MODEL --work WORK \
        --out Testing/Benchmarks/results/thesis_okbp.json

Each configuration is calibrated on the calibration split (temperature, thresholds of every measure, context laws, chances of
regions: all of it frozen then) and evaluated on the test split by the verb `evaluate`. Nothing is chosen by looking at the test
split. It can be stopped and started again: what stands in WORK is not computed twice. --cyclic and --dropout are models of
Testing/train_study_models.py; without them these configurations are left out. --only NAMES: some configurations.
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from temperature_study import cases_of

from CalibUncertaintyLib.evaluation.localisation_cases import compare_localisation
from CalibUncertaintyLib.evaluation.statistics import paired_difference, wilcoxon_signed_rank
from CalibUncertaintyLib.plain_json import plain
from CalibUncertaintyLib.progress import TerminalProgress
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.evaluate import evaluate
from CalibUncertaintyLib.workflow.evaluate_case import stored_case

RAW, CALIBRATED = "raw", "calibrated"
OF_CALIBRATION = ("nll", "brier_sum", "ece_toplabel", "ece_class")
# At equal flagged volume measures are compared at this share of the ROI; the thesis' budget curve goes up to it.
BUDGET = "0.05"
OF_LOCALISATION = {
    "error_dice": "at_thresholds.stored.error_dice", "recall": "at_thresholds.stored.recall",
    "precision": "at_thresholds.stored.precision", "auroc": "ranking.auroc", "auprc": "ranking.auprc",
    "ueo_auc": "budget.area", "ueo_auc_of_ideal": "budget.ratio_to_ideal",
    "recall_budget": f"at_budgets.{BUDGET}.recall", "boundary_recall": f"at_budgets.{BUDGET}.boundary_recall",
    "non_boundary_recall": f"at_budgets.{BUDGET}.non_boundary_recall",
    "components_found": f"at_budgets.{BUDGET}.error_components.found_share",
}  # fmt: skip
AGAINST = "entropy"  # of the same configuration: what every other measure is compared with


def configurations(chosen: argparse.Namespace) -> dict[str, dict]:
    """Member sets by name, as options of `calibrate`, with their models."""
    model = [str(path.resolve()) for path in chosen.model]
    first = {"model": model, "folds": [0], "flips": "off"}
    found = {
        "single": first,
        "ensemble": {"model": model, "folds": "all", "flips": "off"},
        "flips": first | {"flips": "members"},
    }
    if chosen.cyclic:
        cyclic = {"model": [str(chosen.cyclic.resolve())], "folds": [0], "checkpoints": chosen.checkpoints}
        found["checkpoints"] = cyclic | {"flips": "off"}
        found["checkpoints with flips"] = cyclic | {"checkpoints": chosen.with_flips, "flips": "members"}
    if chosen.dropout:
        found["dropout"] = {"model": [str(chosen.dropout.resolve())], "folds": [0], "flips": "off", "dropout": chosen.samples}
    return {name: options for name, options in found.items() if not chosen.only or name in chosen.only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--group", required=True, help="okbp or sts")
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--cyclic", type=Path, help="model with cyclic checkpoints")
    parser.add_argument("--checkpoints", nargs="+", default=["checkpoint_cycle*"])
    parser.add_argument("--with-flips", nargs="+", default=["checkpoint_cycle*"], help="those that are flipped, too")
    parser.add_argument("--dropout", type=Path, help="model trained with dropout")
    parser.add_argument("--samples", type=int, default=8, help="of the dropout model")
    parser.add_argument("--only", nargs="+", help="names of configurations")
    parser.add_argument("--raw", nargs="*", help="configurations that are evaluated uncalibrated too (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="records and evaluations; reused")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    listed = []
    for name, options in configurations(chosen).items():
        record = calibrated_record(name, options, chosen)
        kinds = [RAW, CALIBRATED] if chosen.raw is None or name in chosen.raw else [CALIBRATED]
        listed += [
            {"name": f"{name}, {kind}", **options, "calibration": str(record) if kind == CALIBRATED else "none"}
            for kind in kinds
        ]
    report = evaluate(
        cases_of(chosen.data, chosen.group, "test"), None, chosen.work / "evaluation", progress=TerminalProgress(),
        configurations=listed, measures="all",
    )  # fmt: skip
    content = summary(report.folder, report.content, chosen)
    chosen.out.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    print(tables(content))


def calibrated_record(name: str, options: Mapping, chosen: argparse.Namespace) -> Path:
    """The record of a configuration, fitted once on the calibration split."""
    record = (chosen.work / "records" / f"{name.replace(' ', '_')}.json").resolve()
    if not record.is_file():
        record.parent.mkdir(parents=True, exist_ok=True)
        given = {key: value for key, value in options.items() if key != "model"}
        calibrate(
            cases_of(chosen.data, chosen.group, "calibration"), options["model"], record, progress=TerminalProgress(),
            mode="pool_logit", **given,
        )  # fmt: skip
    return record


def summary(folder: Path, content: Mapping, chosen: argparse.Namespace) -> dict:
    """The figures of the tables, with intervals, and paired comparisons over the test cases; no path of this machine."""
    cases = list(content["cases"])
    results = {name: case_figures(folder, name, cases) for name in content["configurations"]}
    found = {name: of_configuration(of_cases) for name, of_cases in results.items()}
    for name in found:
        raw = name.replace(CALIBRATED, RAW)
        if name != raw and raw in results:
            found[name]["against_raw"] = of_calibration_tests(results[raw], results[name])
    return {
        "date": date.today().isoformat(), "machine": f"{os.cpu_count()} CPU cores ({platform.machine()})", "group": chosen.group,
        "cases": cases, "roi": "15 mm around the prediction (errors), around prediction or reference (calibration)",
        "budget": float(BUDGET), "configurations": found,
    }  # fmt: skip


def case_figures(folder: Path, name: str, cases) -> dict[str, dict]:
    """What `evaluate` stored of every case of a configuration."""
    places = [path for path in (folder / "cases").iterdir() if path.is_dir()]
    found = {}
    for place in places:
        for path in place.glob("*.json"):
            stored = stored_case(path)
            if stored is not None and stored["configuration"] == name:
                found[stored["case"]] = stored["figures"]
    return {case: found[case] for case in cases if case in found}


def of_configuration(of_cases: Mapping[str, Mapping]) -> dict:
    """Means over cases with intervals: calibration, Dice, and every measure's error localisation, each against entropy."""
    from CalibUncertaintyLib.evaluation.localisation_cases import localisation_of_cases
    from CalibUncertaintyLib.evaluation.statistics import mean_interval
    from CalibUncertaintyLib.workflow.evaluate_summary import known_numbers, mean_dice

    calibration = {
        key: mean_interval([of["calibration"]["union"][key] for of in of_cases.values()]).to_json() for key in OF_CALIBRATION
    }
    measures, entropy = {}, None
    for measure in dict.fromkeys(name for of in of_cases.values() for name in of["measures"]):
        results = {
            case: known_numbers(of["measures"][measure]["domains"]["pred"])
            for case, of in of_cases.items()
            if "pred" in of["measures"][measure]["domains"]
        }
        if not results:
            continue
        figures = localisation_of_cases(results)["figures"]
        measures[measure] = {short: figures[name] for short, name in OF_LOCALISATION.items() if name in figures}
        entropy = results if measure == AGAINST else entropy
        if entropy is not None and measure != AGAINST:
            wanted = [OF_LOCALISATION[key] for key in ("ueo_auc", "recall_budget", "non_boundary_recall")]
            measures[measure]["against_entropy"] = compare_localisation(entropy, results, wanted)["figures"]
    return {
        "dice": mean_interval([mean_dice(of) for of in of_cases.values()]).to_json(),
        "calibration": calibration, "measures": measures,
        "regions": region_shares(of_cases),
    }  # fmt: skip


def region_shares(of_cases: Mapping[str, Mapping]) -> dict:
    """Of the listed regions, how many held a real error, and whether the stated chances came true."""
    from CalibUncertaintyLib.workflow.evaluate_summary import regions_together

    return regions_together([region for of in of_cases.values() for region in of["regions"]])


def of_calibration_tests(raw: Mapping, calibrated: Mapping) -> dict:
    """Paired over cases: calibrated less raw, with interval and Wilcoxon's p."""
    shared = [case for case in raw if case in calibrated]
    found = {}
    for key in ("nll", "ece_toplabel"):
        before, after = ([of[case]["calibration"]["union"][key] for case in shared] for of in (raw, calibrated))
        found[key] = {
            "difference": paired_difference(before, after).to_json(),
            "wilcoxon": wilcoxon_signed_rank(before, after).to_json(),
        }
    return found


def tables(content: Mapping) -> str:
    """Markdown of the four tables."""
    lines = ["| members | Dice | NLL | Brier | ECE | class ECE |", "|---" * 6 + "|"]
    for name, of in content["configurations"].items():
        figures = " | ".join(f"{of['calibration'][key]['mean']:.4f}" for key in OF_CALIBRATION)
        lines.append(f"| {name} | {of['dice']['mean']:.4f} | {figures} |")
    for name, of in content["configurations"].items():
        head = " | ".join(["measure", *OF_LOCALISATION])
        lines += ["", f"**{name}**", "", f"| {head} |", "|---" * (len(OF_LOCALISATION) + 1) + "|"]
        for measure, figures in of["measures"].items():
            shown = " | ".join(_number(figures.get(key)) for key in OF_LOCALISATION)
            lines.append(f"| {measure} | {shown} |")
    return "\n".join(lines)


def _number(figure: Mapping | None) -> str:
    return "" if figure is None or figure.get("mean") is None else f"{figure['mean']:.3f}"


if __name__ == "__main__":
    main()
