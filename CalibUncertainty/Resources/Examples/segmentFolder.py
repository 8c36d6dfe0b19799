"""Segment several CTs in Slicer without its window, one after the other, and keep each as a scene.

    Slicer --no-main-window --python-script segmentFolder.py --model MODEL --out FOLDER CT.nrrd CT2.nii.gz ...

Each CT gets a Result folder, a scene (.mrb) with CT, layers, confidence contours and the uncertain regions in 3D, and a report
(.html, with tables as .csv): volumes with their intervals, and a picture of every place that wants a look. A CT that fails is
named, and the others go on; the exit code is then 1. PyTorch and nnU-Net must have been installed before (the panel asks for
them): nothing is installed here.

For research; not a medical device.
"""

import argparse
import sys
from pathlib import Path

import slicer


def main(arguments, logic=None):
    """Segment what the command line names.

    :param logic: `CalibUncertaintyLogic`, for tests.
    :return: exit code.
    """
    parser = argparse.ArgumentParser(prog="segmentFolder.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a trained nnU-Net v2 model")
    parser.add_argument("--out", required=True, type=Path, help="folder for Result folders and scenes")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    parser.add_argument("ct", nargs="+", type=Path, help="CTs: files that Slicer can load as volumes")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if logic is None:
        from CalibUncertainty import CalibUncertaintyLogic

        logic = CalibUncertaintyLogic()
    failed = [path for path in options.ct if not segmentOne(logic, path, options)]
    print(f"{len(options.ct) - len(failed)} of {len(options.ct)} CTs segmented, in {options.out}")
    return 1 if failed else 0


def segmentOne(logic, path, options):
    """One CT, from file to scene; whether it went well."""
    slicer.mrmlScene.Clear(0)
    try:
        ctNode = slicer.util.loadVolume(str(path))
        overlays = logic.segment(
            slicer.mrmlScene, ctNode, options.model, options.out, device=options.device, onEvent=tell
        )
        logic.addContours(slicer.mrmlScene, overlays)
        logic.addRegionModels(slicer.mrmlScene, overlays)
        folder = overlays.result.folder
        logic.saveReport(overlays, folder.with_name(folder.name + ".html"), ctNode)
        if not slicer.util.saveScene(str(folder.with_name(folder.name + ".mrb"))):
            raise OSError(f"the scene could not be written beside {folder}")
    except Exception as error:  # whatever is wrong with this CT, the others are worth trying
        print(f"{path}: {error}", file=sys.stderr)
        return False
    calibration = overlays.result.provenance["calibration"]["summary"]
    print(f"{path}: {len(overlays.result.regions)} places to review; {calibration}; {folder}")
    return True


def tell(event):
    """Print warnings, and let Slicer live meanwhile."""
    if event is None:
        slicer.app.processEvents()
    elif event.kind == "warning":
        print(f"  warning: {event.message}")


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1:]))
