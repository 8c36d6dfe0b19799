"""How long the panel works when threshold, region of interest or measure are changed on a whole CT, without the rendering.

    python Testing/Benchmarks/panel_speed.py [--quick]      # maps of 512 x 512 x 300 voxels; --quick: a small part of it

The real panel and real MRML on the stand-in for the Slicer application, three slice views, and a Result whose maps cover the whole
CT. What a change does until the views can be drawn is timed (the planes that they show are right by then); what follows in steps
of a few milliseconds is given as the longest step and the sum. `reading` and `counting` are the longest times in which the panel
did not react while maps were read, and their values counted, in a thread; `until counted` is how long the flagged volume of another
region of interest is not known. Medians in ms; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import panel as panel_benchmark  # makes the packages of the repository known, and Qt and VTK work without a screen
from figures import aligned

SHAPE, QUICK_SHAPE = (300, 512, 512), (120, 224, 224)
EVERYWHERE_MM = 900.0
REPEATS = 11
LIMIT_MS = 50.0


def measure(panel, ct_path: Path, result: Path) -> dict[str, float]:
    """Every figure of one case."""
    import slicer

    ct = slicer.util.loadVolume(str(ct_path))
    panel.parameterNode.ctVolume = ct
    panel.showResult(result, ct)
    panel.parameterNode.roiShownMm = 15.0
    slicer.util.resetSliceViews()
    figures = {"reading": wait(lambda: panel.layers.loading.idle and panel.overlays.roi.distanceMm == 15.0)}
    wait(lambda: "counting" not in panel.ui.flaggedLabel.text)
    began = time.perf_counter()
    panel.parameterNode.roiShownMm = 12.0
    wait(lambda: panel.overlays.roi.distanceMm == 12.0)
    figures["counting"] = wait(lambda: "counting" not in panel.ui.flaggedLabel.text)
    figures["until counted"] = 1e3 * (time.perf_counter() - began)

    def roi(index: int) -> None:
        panel.ui.roiShownSlider.value = 5.0 + index % 7
        panel.layers.roi.apply()

    changes: dict[str, Callable[[int], None]] = {
        "threshold": lambda index: setattr(panel.ui.thresholdSlider, "value", 0.1 + 0.02 * index),
        "roi": roi,
        "measure": lambda index: panel.ui.measureComboBox.setCurrentIndex(index % 3),
    }
    for name, change in changes.items():
        figures[name] = median_ms(change)
    panel.threshold.release()  # the counting of the last choice would be measured with it
    steps = []
    while not steps or panel.overlays.fillMore():
        began = time.perf_counter()
        steps.append(began)
    times = 1e3 * np.diff([*steps, time.perf_counter()])
    return {**figures, "longest step": float(times.max()), "all steps": float(times.sum())}


def median_ms(change: Callable[[int], None]) -> float:
    """Median of a change; the first one is not counted."""
    times = []
    for index in range(REPEATS + 1):
        began = time.perf_counter()
        change(index)
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[1:])


def wait(condition: Callable[[], bool], seconds: float = 300.0) -> float:
    """Let the application work until a condition holds; the longest turn of its loop in ms."""
    import slicer

    longest, end = 0.0, time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the panel did not come to rest")
        began = time.perf_counter()
        slicer.app.processEvents()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.002)
    return 1e3 * longest


def main() -> None:
    """Write the case, measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part of the voxels: to see that it works")
    quick = parser.parse_args().quick
    from Harness import start

    application = start()
    import slicer

    with tempfile.TemporaryDirectory() as folder:
        paths = panel_benchmark.write_case(QUICK_SHAPE if quick else SHAPE, Path(folder), EVERYWHERE_MM)
        application.loadModule(panel_benchmark.REPOSITORY / "CalibUncertainty" / "CalibUncertainty.py")
        slicer.util.selectModule("CalibUncertainty")
        figures = measure(slicer.modules.CalibUncertaintyWidget.panel, *paths)
        application.clear()
    limits = {"threshold": LIMIT_MS, "roi": LIMIT_MS, "measure": LIMIT_MS, "longest step": 8.0}
    rows = [[name, f"{value:.1f}", f"{limits[name]:.0f}" if name in limits else ""] for name, value in figures.items()]
    print(aligned([["what", "ms", "limit"], *rows]))
    print(json.dumps({f"{name}_ms": round(figures[name], 2) for name in ("threshold", "roi", "measure")}))


if __name__ == "__main__":
    main()
