"""Writing down an evaluation: evaluation.json, two CSV tables and one HTML page that needs no other file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..evaluation.statistics import DRAWS, LEVEL
from ..plain_json import plain
from ..progress import Progress
from .evaluate_case import written_whole
from .evaluate_comparisons import comparisons_of
from .evaluate_options import Configuration, EvaluateOptions
from .evaluate_page import page
from .evaluate_pictures import draw
from .evaluate_summary import summary_of
from .report import versions

SCHEMA, SCHEMA_VERSION = "calib-uncertainty/evaluation", 1


def write_report(
    out: Path, configurations: Sequence[Configuration], cases: Sequence[str], tasks: Sequence[Mapping],
    found: Mapping[tuple[str, str], Mapping], outcomes: Mapping[tuple[str, str], Mapping],
    fitted: Mapping[str, Sequence[str]], options: EvaluateOptions, progress: Progress | None = None,
) -> dict:  # fmt: skip
    """Write the report of everything that was found; returns evaluation.json's content with NaN where a figure is unknown.

    found: by (configuration, case) what `evaluate_case` stored. outcomes: how each ended. fitted: by configuration the cases that
    its calibration was fitted on. progress: hears what is being computed, as the last of its stages.
    """
    progress = progress or Progress()
    files = {(task["configuration"], task["case"]["id"]): Path(task["file"]) for task in tasks}
    summaries = {}
    for number, item in enumerate(configurations):
        progress.report(0.6 * number / len(configurations), item.name)
        mine = {case: found[item.name, case] for case in cases if (item.name, case) in found}
        if mine:
            summaries[item.name] = summary_of(mine, {case: files[item.name, case] for case in mine})
    progress.report(0.6, "comparisons")
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "model": _name_of(configurations[0]),
        "options": {
            "roi_mm": options.roi_mm, "roi_reference": options.place, "measures": options.measures, "split": options.split,
            "resample_labels": options.resample_labels, "step_size": options.step_size, "precision": options.precision,
        },
        "bootstrap": {"draws": DRAWS, "level": LEVEL, "method": "bca", "seed": 0},
        "cases": list(cases),
        "failed": [
            {"configuration": name, "case": case, "reason": of["reason"], "log": of["log"]}
            for (name, case), of in outcomes.items() if of["status"] == "failed"
        ],
        "configurations": {
            item.name: _about(item, found, len(cases)) | {"fitted_on": list(fitted[item.name])} | summaries.get(item.name, {})
            for item in configurations
        },
        "comparisons": comparisons_of(summaries, options.place),
    }  # fmt: skip
    progress.report(0.8, "pictures")
    shown = pictures_of_cases(summaries, files, options.place)
    contents = {
        "evaluation.json": json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "cases.csv": case_table(content),
        "summary.csv": summary_table(content),
        "report.html": page(content, draw(content), shown),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CalibUncertaintyError(f"{out} cannot be made ({error.strerror}); choose another --out") from error
    for name, text in contents.items():
        written_whole(out / name, text.encode("utf-8"))
    return content


def _name_of(item: Configuration) -> str:
    return item.members().models[0].name


def _about(item: Configuration, found: Mapping[tuple[str, str], Mapping], total: int) -> dict:
    """What was asked, in words: members, mode, and which calibration was applied."""
    mine = [content for (name, _), content in found.items() if name == item.name]
    first = mine[0] if mine else {}
    return {
        "members": item.members().describe(),
        "n_members": first.get("members"),
        "mode": item.options["mode"],
        "calibration_asked": item.calibration if item.calibration in ("auto", "none") else "record file",
        "applied": first.get("calibration") or {},
        "cases_used": len(mine),
        "cases_total": total,
        "seconds": sum(content["seconds"] for content in mine),
    }


def pictures_of_cases(summaries: Mapping, files: Mapping, domain: str) -> list[dict]:
    """The best and the worst case of the last configuration, by error-Dice of the entropy (or first measure) at its threshold.

    Each {"configuration", "case", "which", "error_dice", "measure", "png"}; empty where there are no pictures.
    """
    for name in reversed(list(summaries)):
        there = [measure for measure, of in summaries[name]["measures"].items() if of["domains"]]
        if not there:
            continue
        measure = "entropy" if "entropy" in there else there[0]
        scored = []
        for case, of in summaries[name]["by_case"].items():
            value = of["measures"].get(measure, {}).get(domain, {}).get("at_thresholds.stored.error_dice", math.nan)
            picture = files[name, case].with_suffix(".png")
            if not math.isnan(value) and of["errors"][domain]["errors"] and picture.is_file():
                scored.append((value, case, picture))
        scored.sort()
        chosen = (
            [("worst", scored[0]), ("best", scored[-1])] if len(scored) > 1 else [("only", item) for item in scored]
        )
        if chosen:
            return [
                {
                    "configuration": name,
                    "case": case,
                    "which": which,
                    "error_dice": value,
                    "measure": measure,
                    "png": path.read_bytes(),
                }
                for which, (value, case, path) in chosen
            ]
    return []


def case_table(content: Mapping) -> str:
    """One row for each case, configuration, measure and domain; figures under their dotted names, empty where unknown."""
    rows = []
    for name, of in content["configurations"].items():
        for case, numbers in (of.get("by_case") or {}).items():
            common = {"case": case, "configuration": name, "dice_mean": numbers["dice"]["mean"]}
            common |= {
                f"{key}_union": numbers["calibration"]["union"].get(key) for key in ("nll", "brier_sum", "ece_toplabel")
            }
            for measure, domains in numbers["measures"].items():
                for domain, figures in domains.items():
                    errors = numbers["errors"][domain]
                    where = {
                        "measure": measure,
                        "domain": errors["domain"],
                        "voxels": errors["voxels"],
                        "errors": errors["errors"],
                    }
                    rows.append({**common, **where, **figures})
    return _csv(rows)


def summary_table(content: Mapping) -> str:
    """One row for each configuration, measure (empty: of the probabilities), domain and figure, with mean, interval and cases."""
    rows = []
    for name, of in content["configurations"].items():
        for structure, interval in (of.get("dice") or {}).items():
            rows.append(_interval_row(name, "", "whole CT", f"dice.{structure}", interval))
        for found in (of.get("calibration") or {}).values():
            rows += [
                _interval_row(name, "", found["domain"], key, interval) for key, interval in found["figures"].items()
            ]
        for measure, about in (of.get("measures") or {}).items():
            for domain, found in about["domains"].items():
                where = of["errors"][domain]["domain"]
                rows += [
                    _interval_row(name, measure, where, key, interval) for key, interval in found["figures"].items()
                ]
    return _csv(rows)


def _interval_row(configuration: str, measure: str, domain: str, figure: str, interval: Mapping) -> dict:
    values = {key: interval[key] for key in ("mean", "lower", "upper", "used", "total", "status")}
    return {"configuration": configuration, "measure": measure, "domain": domain, "figure": figure, **values}


def _csv(rows: Sequence[Mapping]) -> str:
    stream = io.StringIO()
    heads = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    for row in rows:
        writer.writerow([_cell(row.get(key)) for key in heads])
    return stream.getvalue()


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else value
