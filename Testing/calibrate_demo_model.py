"""Fit the demo model's calibration record on phantoms it has not seen, and say what it does on others.

    python Testing/calibrate_demo_model.py [--folds 0 1 2 3 4]

Phantoms of the seeds kept for calibration make the record beside the model (it is rewritten); those kept for test give the
figures, which are printed and written to Testing/Benchmarks/results/temperature_demo_model.json.
"""

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path

from demo import MODEL_FOLDER, REPOSITORY
from phantom import make_phantom, write_phantom

from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.plain_json import plain
from CalibUncertaintyLib.progress import TerminalProgress
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.calibrate import calibrate, collect_cases
from CalibUncertaintyLib.workflow.fit import Reference, figures
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.report import versions

RESULTS = REPOSITORY / "Testing" / "Benchmarks" / "results" / "temperature_demo_model.json"


def phantom_case(seed: int, folder: Path) -> LabelledCase:
    """A phantom written to disk as a labelled case; the reference is the raters' majority."""
    place = write_phantom(make_phantom(seed), folder / str(seed))
    return LabelledCase(f"phantom_{seed}", place / "ct.nii.gz", place / "labels.nii.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", nargs="+", default=["all"])
    chosen = parser.parse_args()
    model = ModelFolder.open(MODEL_FOLDER)
    folds = model.select_folds("all" if chosen.folds == ["all"] else [int(fold) for fold in chosen.folds])
    seeds = json.loads((MODEL_FOLDER / "phantom_seeds.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        cases = {split: [phantom_case(seed, Path(folder)) for seed in seeds[split]] for split in ("calibration", "test")}
        path, entry = calibrate(cases["calibration"], model, folds=folds, progress=TerminalProgress())
        predictor = MemberPredictor(MemberSet.choose(model, folds))
        voxels = collect_cases(cases["test"], model, predictor, 15.0, Path(folder), TerminalProgress())
        reference = Reference.of(model)
        before = figures(voxels, AppliedCalibration("pool_logit"), reference)
        after = figures(voxels, AppliedCalibration("pool_logit", entry.temperature, calibrated=True), reference)
    print(f"{path}: T {entry.temperature:.3f} {entry.temperature_interval}, changed labels {after['changed_by_temperature']}")
    for key in ("nll", "ece_toplabel"):
        first, second = before["per_case"][key], after["per_case"][key]
        print(f"  {key} on the test phantoms: {first:.4f} -> {second:.4f} ({100 * (second / first - 1):+.0f} %)")
    content = {
        "date": date.today().isoformat(), "model": model.name, "folds": folds, "temperature": entry.temperature,
        "temperature_interval": entry.temperature_interval, "test_before": before, "test_after": after, "versions": versions(),
    }  # fmt: skip
    if folds == model.folds:
        RESULTS.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
