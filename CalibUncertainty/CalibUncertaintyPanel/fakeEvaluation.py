"""What the FAKE of the computation does when it is asked to evaluate: a report in the true format, of made-up figures."""

import json
import sys
import time
from pathlib import Path

CASES = ("P1", "P2", "P3")
MEASURES = {"entropy": ("Entropy", 0.5), "mi": ("Mutual information", 0.4)}


def evaluate(arguments, behaviour):
    """Behave as the verb does: progress, a case that fails, the report.

    :param arguments: as in a request: cases, model, out, and perhaps configurations.
    :return: exit code.
    """
    steps = 60 if behaviour == "slow" else 4
    for step in range(steps):
        time.sleep(0.05 if behaviour == "slow" else 0)
        _say(
            "progress",
            stage="cases",
            fraction=0.02 + 0.9 * step / steps,
            message=f"P{step % 3 + 1}, calibrated: predict",
        )
    if not Path(arguments["cases"]).exists():
        _say("error", message=f"{arguments['cases']} does not exist")
        return 1
    given = arguments.get("configurations") or ({"name": "uncalibrated"}, {"name": "calibrated"})
    given = json.loads(Path(given).read_text(encoding="utf-8")) if isinstance(given, str) else given
    names = [item["name"] for item in given]
    out = Path(arguments["out"])
    (out / "cases").mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(content(names)), encoding="utf-8")
    (out / "report.html").write_text("<html><body>Report of the fake evaluation.</body></html>", encoding="utf-8")
    _say("warning", message="P3, calibrated: its labels are empty (skipped)")
    _say("result", folder=str(out / "report.html"))
    return 0


def content(names=("uncalibrated", "calibrated")):
    """evaluation.json of three cases, one of which failed.

    :param names: of the configurations; one called "uncalibrated" is worse than the others.
    """
    return {
        "schema": "calib-uncertainty/evaluation",
        "schema_version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "model": "Dataset999_Fake",
        "options": {"roi_mm": 15.0, "roi_reference": "pred", "measures": "standard"},
        "cases": list(CASES),
        "failed": [
            {"configuration": name, "case": "P3", "reason": "its labels are empty", "log": None} for name in names
        ],
        "configurations": {name: _configuration(name == "uncalibrated") for name in names},
        "comparisons": [],
    }


def _configuration(raw):
    figures = {"nll": _mean(0.41 if raw else 0.30), "ece_toplabel": _mean(0.12 if raw else 0.015)}
    domain = {"figures": figures, "missed_structure": 0}
    return {
        "members": "folds 0 and 1",
        "mode": "pool_logit",
        "calibration_asked": "none" if raw else "auto",
        "applied": {"calibrated": not raw, "summary": "NOT CALIBRATED" if raw else "Calibrated (temperature 2.03)"},
        "cases_used": 2,
        "cases_total": 3,
        "seconds": 1.0,
        "fitted_on": [],
        "dice": {"mean": _mean(0.84), "Organ": _mean(0.9), "Node": _mean(0.78)},
        "calibration": {"union": domain, "pred": domain, "box": domain},
        "errors": {"pred": {"errors": 100, "voxels": 10000, "cases_without_errors": 0}},
        "measures": {name: _measure(title, best, raw) for name, (title, best) in MEASURES.items()}
        | {"epkl": {"title": "Pairwise divergence", "unit": "nats", "status": "not_computed", "domains": {}}},
        "by_case": {"P1": {}, "P2": {}},
    }


def _measure(title, best, raw):
    scale = 0.8 if raw else 1.0
    figures = {
        "at_thresholds.stored.error_dice": _mean(best * scale),
        "at_thresholds.stored.recall": _mean(0.6 * scale),
        "at_thresholds.stored.precision": _mean(0.45 * scale),
        "budget.area": _mean(0.3 * scale) if best > 0.45 else {"mean": None, "used": 0, "total": 2},
    }
    share = [0.001 * step for step in range(1, 51)]
    curve = {
        "share": share,
        "overlap": {"mean": [min(best * scale, 12 * scale * part) for part in share]},
        "ideal": {"mean": [min(1.0, 30 * part) for part in share]},
        "random": {"mean": [0.02 * part / 0.05 for part in share]},
    }
    domain = {"cases": 2, "figures": figures, "budget": curve}
    return {
        "title": title,
        "unit": "nats",
        "status": "ok",
        "threshold": 0.4,
        "domains": {"pred": domain, "union": domain},
    }


def _mean(value):
    return {"mean": value, "lower": 0.9 * value, "upper": min(1.1 * value, 1.0), "used": 2, "total": 2}


def _say(kind, **fields):
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()
