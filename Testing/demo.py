"""The main job on an embedded default: segment a CT phantom that the demo model has not seen, and draw what was found.

    python Testing/demo.py [--out demo-output] [--seed 7]

Leaves the phantom, a Result folder and a picture, and prints where they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from phantom import make_phantom, write_phantom

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.progress import TerminalProgress
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.workflow.picture import montage
from CalibUncertaintyLib.workflow.segment import segment

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL_FOLDER = REPOSITORY / "Resources" / "DemoModel" / "Dataset900_Phantom" / "nnUNetTrainer__nnUNetPlans__3d_fullres"


def findings(result: Result) -> list[str]:
    """What was found, in plain lines for a terminal."""
    provenance = result.provenance
    labels = result.segmentation.array
    volumes = [
        f"{name} {(labels == index).sum() * result.segmentation.voxel_volume_ml:.1f} mL"
        for index, name in result.labels.items()
    ]
    changed = provenance["changed_labels"]
    threshold, roi = provenance["threshold"], provenance["roi"]
    folds = ", ".join(str(fold) for fold in sorted({str(member["fold"]) for member in provenance["members"]}))
    uncertain = [region for region in result.regions if region.kind != "possible_miss"]
    missed = len(result.regions) - len(uncertain)
    first = f"; look first at {result.regions[0].structure or 'the background'}" if result.regions else ""
    return [
        f"Volumes:       {', '.join(volumes)}",
        f"Members:       fold {folds} of {provenance['model']['name']}, on {provenance['device']}",
        f"Probability:   {provenance['calibration']['summary']}",
        f"Labels that differ from stock nnU-Net's: {changed['by_pooling']} voxels by pooling,"
        f" {changed['by_temperature']} by calibration",
        f"Uncertainty:   {threshold['measure']} from {threshold['value']:.3g} {threshold['unit']} up ({threshold['source']}),"
        f" within {roi['distance_mm']:g} mm of a structure",
        f"To look at:    {len(uncertain)} uncertain region{'' if len(uncertain) == 1 else 's'},"
        f" {missed} possible miss{'' if missed == 1 else 'es'}{first}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line: phantom, segment, picture."""
    parser = argparse.ArgumentParser(description="Segment a CT phantom with the demo model and draw the result.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "demo-output", help="folder for phantom, Result and picture")
    parser.add_argument("--seed", type=int, default=7, help="which phantom; the model was trained on 1000 to 1029")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    try:
        folder = write_phantom(make_phantom(options.seed), options.out / "phantom")
        ct = folder / "ct.nii.gz"
        result = segment(ct, model=MODEL_FOLDER, out=options.out / "result", overwrite=True, progress=TerminalProgress())
        picture = montage(result.folder, ct, options.out / "montage.png")
    except CalibUncertaintyError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    print()
    for line in findings(result):
        print(line)
    print()
    print(f"Picture:       {picture}")
    print(f"Result folder: {result.folder}")
    print(f"Phantom:       {ct} (the true labels are beside it: labels.nii.gz)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
