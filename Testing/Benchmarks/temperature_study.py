"""What a temperature does to a real model: fit on the calibration split, report on the test split, both in the 15 mm ROI.

    python Testing/Benchmarks/temperature_study.py --data DATA --group okbp --model MODEL --folds all --out FILE.json

DATA holds `cases.json` (id, files, split) and the files it names. Nothing is chosen by looking at the test split: the
temperature comes from the calibration split alone.
"""

import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.model.record_check import POOL_MODES
from CalibUncertaintyLib.plain_json import plain
from CalibUncertaintyLib.progress import TerminalProgress
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.calibrate import calibrate, collect_cases
from CalibUncertaintyLib.workflow.fit import Reference, figures
from CalibUncertaintyLib.workflow.labelled import LabelledCase, refuse_doubtful_cases
from CalibUncertaintyLib.workflow.options import MemberOptions
from CalibUncertaintyLib.workflow.report import versions


def cases_of(data: Path, group: str, split: str) -> list[LabelledCase]:
    """Cases of one split whose identifier begins with the group's name."""
    listed = json.loads((data / "cases.json").read_text(encoding="utf-8"))["cases"]
    chosen = [case for case in listed if case.get("split") == split and case["id"].startswith(group)]
    if not chosen:
        raise CalibUncertaintyError(f"{data / 'cases.json'} has no case '{group}*' in the split {split}")
    return [
        LabelledCase(c["id"], data / c["files"]["ct"], data / c["files"]["ct"].replace("_ct.", "_seg.")) for c in chosen
    ]


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """What every study of a model on labelled cases asks for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--group", required=True, help="okbp or sts")
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--folds", nargs="+", default=["all"])
    parser.add_argument("--flips", choices=["mean", "off", "members"], default="mean")
    parser.add_argument("--checkpoints", nargs="+", help="as in calibrate")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def member_options(chosen: argparse.Namespace) -> dict:
    """The members that were chosen, as `MemberOptions` takes them."""
    folds = "all" if chosen.folds == ["all"] else [int(fold) for fold in chosen.folds]
    return {"folds": folds, "flips": chosen.flips, "checkpoints": chosen.checkpoints}


def about(chosen: argparse.Namespace, predictor: MemberPredictor) -> dict:
    """What a study's file says of itself: when, where, and with which members."""
    members = predictor.chosen
    return {
        "date": date.today().isoformat(), "machine": f"{platform.machine()}, device {predictor.device}", "group": chosen.group,
        "model": members.models[0].name, "members": members.to_json(), "described": members.describe(),
        "n_members": len(predictor.members), "versions": versions(),
    }  # fmt: skip


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--dropout", type=int, default=0, metavar="N", help="samples of each network")
    parser.add_argument("--record", type=Path, help="use this record if it is there, else fit and write it")
    chosen = parser.parse_args()
    options = member_options(chosen) | {"dropout": chosen.dropout}
    members = MemberOptions(**options).members_of(chosen.model)
    record_path = chosen.record or chosen.out.with_suffix(".record.json")
    if not record_path.exists():
        cases = cases_of(chosen.data, chosen.group, "calibration")
        calibrate(cases, chosen.model, record_path, progress=TerminalProgress(), **options)
    record = CalibrationRecord.read(record_path)
    predictor = MemberPredictor(members)
    members, model = predictor.chosen, members.models[0]
    reference = Reference.of(model)
    test = cases_of(chosen.data, chosen.group, "test")
    refuse_doubtful_cases(test, members, TerminalProgress())
    with tempfile.TemporaryDirectory() as folder:
        voxels = collect_cases(test, model, predictor, 15.0, Path(folder), TerminalProgress())
        answers = {}
        for mode in POOL_MODES:
            entry, reason = record.find(members.fingerprint(), mode, members.mirroring)
            if entry is None:
                raise CalibUncertaintyError(reason)
            before = AppliedCalibration(mode, heads=reference.heads)
            after = AppliedCalibration(mode, entry.temperature, calibrated=True, heads=reference.heads)
            answers[mode] = {
                "temperature": entry.temperature,
                "temperature_interval": entry.temperature_interval,
                "calibration_cases": list(entry.cases),
                "test_before": figures(voxels, before, reference),
                "test_after": figures(voxels, after, reference),
            }
    content = about(chosen, predictor) | {"roi": "15 mm around prediction or reference", "modes": answers}
    chosen.out.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    for mode, answer in answers.items():
        before, after = (answer[key]["per_case"] for key in ("test_before", "test_after"))
        changed = answer["test_after"]["changed_by_temperature"]
        print(f"{mode}: T {answer['temperature']} {answer['temperature_interval']}, changed labels {changed}")
        for key in ("nll", "ece_toplabel"):
            print(f"  {key}: {before[key]:.4f} -> {after[key]:.4f} ({100 * (after[key] / before[key] - 1):+.0f} %)")


if __name__ == "__main__":
    main()
