"""Pictures of the real panel over real slice views, made in the stand-in for the Slicer application.

    python Testing/screenshots.py [--result FOLDER --ct FILE --model FOLDER] [--out Resources/Screenshots] [--region 1] [--zoom 2]

Without a Result the demo model segments a CT phantom that it has not seen, through the panel, as a person would do it
(minutes); with --fake, the fake computation of the tests does it at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
for folder in (REPOSITORY, REPOSITORY / "CalibUncertainty", REPOSITORY / "Testing"):
    sys.path.insert(0, str(folder))

PANEL_WIDTH = 430
SLICE_SIZE = (600, 420)


def open_panel(application):
    """Load and show the module; returns its panel."""
    import slicer

    application.loadModule(REPOSITORY / "CalibUncertainty" / "CalibUncertainty.py")
    slicer.util.selectModule("CalibUncertainty")
    draw_views()  # a view draws the legends of what enters the scene after it
    return slicer.modules.CalibUncertaintyWidget.panel


def draw_views() -> list:
    """Axial, coronal and sagittal view as RGB arrays."""
    from Harness.views import render_slice

    return [render_slice(view, SLICE_SIZE) for view in ("Red", "Green", "Yellow")]


def run_fake(panel, folder: Path) -> None:
    """Run the fake computation through the panel."""
    import slicer
    from CalibUncertaintyPanel import testing

    node = testing.addPhantom(slicer.mrmlScene, shape=(40, 96, 96))
    panel.logic.command = testing.fakeCommand()
    panel.ui.ctSelector.setCurrentNode(node)
    panel.ui.modelPathLineEdit.currentPath = str(testing.makeFakeModel(folder))
    panel.ui.runButton.click()
    wait(lambda: not panel.run.running)


def run_demo(panel, folder: Path, seed: int) -> None:
    """Run the demo model on a phantom through the panel."""
    import slicer
    from CalibUncertaintyPanel import sample
    from phantom import make_phantom, write_phantom

    node = slicer.util.loadVolume(str(write_phantom(make_phantom(seed), folder) / "ct.nii.gz"))
    node.SetName("CT phantom")
    panel.ui.ctSelector.setCurrentNode(node)
    panel.ui.modelPathLineEdit.currentPath = str(sample.modelFolder())
    panel.ui.runButton.click()
    wait(lambda: not panel.run.running, 1800)


def open_result(panel, result: Path, ct: Path | None, model: Path | None) -> None:
    """Show a Result folder; with its CT and model, so that the inputs are filled as after a run."""
    import slicer

    if ct is not None:
        node = slicer.util.loadVolume(str(ct))
        node.SetName(ct.name.split(".")[0])
        panel.ui.ctSelector.setCurrentNode(node)
    if model is not None:
        panel.ui.modelPathLineEdit.currentPath = str(model)
    panel.showResult(str(result))


def wait(done, seconds: float = 120.0) -> None:
    """Let Qt work until something is true."""
    import slicer

    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {seconds} s")
        slicer.app.processEvents()
        time.sleep(0.02)


def zoom_to(position, factor: float) -> None:
    """Centre every slice view on a point and enlarge it."""
    import slicer

    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / factor, height / factor, depth)
        node.JumpSliceByCentering(*position)


def settle() -> None:
    """Let delayed work of the panel happen."""
    import slicer

    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        slicer.app.processEvents()


def pictures(panel, out: Path, region: int, zoom: float = 1.0) -> list[Path]:
    """Panel with the three slice views through one region, and the axial view alone."""
    from Harness.pictures import compose, grab, save

    regions = panel.overlays.result.regions
    if regions:
        region = min(region, len(regions))
        panel.review.select(region - 1)
        zoom_to(regions[region - 1].peak_ras_mm, zoom)
    wait(
        lambda: (
            panel.inputs.summary is None or panel.inputs.summary.problem or panel.inputs.summary.calibrated is not None
        )
    )
    settle()
    slices = draw_views()
    panel.widget.setParent(None)  # out of the window, whose height would squeeze it; Slicer's panel scrolls
    height = max(panel.widget.heightForWidth(PANEL_WIDTH), 3 * SLICE_SIZE[1])
    image = grab(panel.widget, (PANEL_WIDTH, height))
    paths = [out / "panel.png", out / "axial.png"]
    compose(image, *slices, path=paths[0], columns=1)
    save(slices[0], paths[1])
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Make the pictures and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, help="a Result folder; without it, the demo model runs on a phantom")
    parser.add_argument("--fake", action="store_true", help="run the fake computation of the tests instead")
    parser.add_argument("--seed", type=int, default=7, help="which phantom")
    parser.add_argument("--zoom", type=float, default=1.0, help="enlargement about the region")
    parser.add_argument("--ct", type=Path, help="the CT of that Result, if its own path has gone")
    parser.add_argument("--model", type=Path, help="the model folder to show in the panel")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "Resources" / "Screenshots")
    parser.add_argument("--region", type=int, default=1, help="number of the region to go to")
    options = parser.parse_args(arguments)

    from Harness import start

    application = start()
    panel = open_panel(application)
    if options.result is not None:
        open_result(panel, options.result, options.ct, options.model)
    elif options.fake:
        run_fake(panel, application.folder / "model")
    else:
        run_demo(panel, application.folder / "phantom", options.seed)
    if panel.overlays is None:
        print(f"screenshots: {panel.ui.errorLabel.text}", file=sys.stderr)
        return 1
    for path in pictures(panel, options.out, options.region, options.zoom):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
