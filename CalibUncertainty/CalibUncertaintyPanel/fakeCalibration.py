"""What the FAKE of the computation does when it is asked to calibrate: a real record beside the model, of made-up figures."""

import json
import sys
import time
from pathlib import Path

CASES = ("case_1", "case_2", "case_3")
BINS = 20


def calibrate(arguments, behaviour):
    """Behave as the verb does: progress, the record, the proof's page.

    :param arguments: as in a request: model, folds, flips, mode, roi_mm, cases, proof.
    :return: exit code.
    """
    for step in range(60 if behaviour == "slow" else 4):
        time.sleep(0.05 if behaviour == "slow" else 0)
        _say("progress", stage="cases", fraction=0.1 + 0.01 * step, message=f"case case_{step % 3 + 1}")
    if not Path(arguments["cases"]).exists():
        _say("error", message=f"{arguments['cases']} does not exist")
        return 1
    path = writeRecord(arguments["model"], arguments["folds"], arguments["flips"] != "off", _modes(arguments["mode"]))
    proof = Path(arguments["proof"])
    proof.mkdir(parents=True, exist_ok=True)
    (proof / "report.html").write_text("<html><body>Proof of the fake calibration.</body></html>", encoding="utf-8")
    _say("result", folder=str(path))
    return 0


def writeRecord(model, folds="all", mirroring=True, modes=("pool_logit",), temperature=2.03, figures=None, ofCases=None):
    """Store a calibration of a model, as the real computation does.

    :param model: the folder with plans.json.
    :param figures: other figures than the made-up ones.
    :param ofCases: what the cases looked like, "range" of an entry; None where that is not known.
    :return: path of the record.
    """
    library = str(Path(__file__).resolve().parents[2])
    if library not in sys.path:
        sys.path.append(library)
    from CalibUncertaintyLib.model.folder import ModelFolder
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord

    folder = ModelFolder.open(model)
    members = MemberSet.choose(folder, folder.select_folds(folds), flips="mean" if mirroring else "off")
    record = CalibrationRecord.for_model(members.fingerprint(), {"fake": "1"})
    if figures is None:
        figures = {"before": _figures(0.25, 0.12, 0.4), "after": _figures(0.02, 0.015, 0.3)}
    for mode in modes:
        record.put(
            CalibrationEntry(
                members=members.as_recorded(),
                mode=mode,
                temperature=temperature,
                temperature_interval=[0.9 * temperature, 1.1 * temperature],
                member_temperature=temperature,
                roi={"distance_mm": 15.0, "reference": "union"},
                cases=list(CASES),
                figures=figures,
                range=ofCases,
            )
        )
    record.write(folder.record_path)
    return folder.record_path


def _modes(mode):
    return ("pool_logit", "pool_prob") if mode == "all" else ("pool_logit",)


def _figures(gap, ece, nll):
    """Confidence exceeds accuracy by `gap` where the model is least sure, and by nothing where it is surest."""
    bins = []
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        confidence, n = (low + high) / 2, 0 if high <= 0.35 else 200 if high <= 0.45 else 5000
        accuracy = confidence - gap * (1 - confidence)
        known = {"confidence": confidence if n else None, "accuracy": accuracy if n else None}
        bins.append({"lower": low, "upper": high, "n": n, **known})
    values = {"nll": nll, "ece_toplabel": ece, "brier_mean": 0.05, "signed_gap": gap / 10}
    return {"per_case": values, "pooled": values, "cases": {name: values for name in CASES}, "bins": bins}


def _say(kind, **fields):
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()
