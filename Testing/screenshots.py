"""Pictures of the real panel over real slice views, made in the stand-in for the Slicer application.

    python Testing/screenshots.py [--result FOLDER --ct FILE] [--out Resources/Screenshots] [--region 1]

Without a Result the fake computation of the tests runs on its small phantom, through the panel, as a person would run it.
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
SLICE_SIZE = (560, 560)


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


def settle() -> None:
    """Let delayed work of the panel happen."""
    import slicer

    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        slicer.app.processEvents()


def pictures(panel, out: Path, region: int) -> list[Path]:
    """Panel with the three slice views through one region, and the views alone."""
    from Harness.pictures import compose, grab, save

    if panel.overlays.result.regions:
        panel.review.select(min(region, len(panel.overlays.result.regions)) - 1)
    wait(
        lambda: (
            panel.inputs.summary is None or panel.inputs.summary.problem or panel.inputs.summary.calibrated is not None
        )
    )
    settle()
    slices = draw_views()
    panel.widget.setParent(None)  # out of the window, whose height would squeeze it; Slicer's panel scrolls
    height = max(panel.widget.heightForWidth(PANEL_WIDTH), 2 * SLICE_SIZE[1])
    image = grab(panel.widget, (PANEL_WIDTH, height))
    paths = [out / "panel-and-slices.png", out / "axial.png"]
    compose(image, *slices, path=paths[0])
    save(slices[0], paths[1])
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Make the pictures and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--result", type=Path, help="a Result folder; without it, the fake computation on a small phantom"
    )
    parser.add_argument("--ct", type=Path, help="the CT of that Result, if its own path has gone")
    parser.add_argument("--model", type=Path, help="the model folder to show in the panel")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "Resources" / "Screenshots")
    parser.add_argument("--region", type=int, default=1, help="number of the region to go to")
    options = parser.parse_args(arguments)

    from Harness import start

    application = start()
    panel = open_panel(application)
    if options.result is None:
        run_fake(panel, application.folder / "model")
    else:
        open_result(panel, options.result, options.ct, options.model)
    if panel.overlays is None:
        print(f"screenshots: {panel.ui.errorLabel.text}", file=sys.stderr)
        return 1
    for path in pictures(panel, options.out, options.region):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
