"""How long a radiologist waits for the panel: from a Result folder to visible layers, and for every change after that.

    python Testing/Benchmarks/panel.py [--quick]       # 512 x 512 x 300 and 512 x 512 x 600; --quick: the smaller one only

The real panel and real slice logics on the stand-in for the Slicer application, axial view of 600 x 600 pixels, software rendering.
The Result is written first: two organs with soft borders, whose boxes take a fifth of the CT. Times are medians in ms and hold the
rendering of the one view; `ms_render` is that of Slicer alone, without a change. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
for folder in (REPOSITORY, REPOSITORY / "CalibUncertainty", REPOSITORY / "Testing"):
    sys.path.insert(0, str(folder))

SPACING_ZYX = (1.5, 0.9, 0.9)
ORGANS = {
    1: ((0.5, 0.5, 0.35), (0.30, 0.22, 0.14)),
    2: ((0.5, 0.5, 0.62), (0.20, 0.12, 0.08)),
}  # centre, radii; parts of the CT
SOFTNESS_MM, ROI_MM = 3.0, 15.0
VIEW = (600, 600)
REPEATS = 15


def write_case(shape: tuple[int, int, int], folder: Path, roi_mm: float = ROI_MM) -> tuple[Path, Path]:
    """A CT and its Result, which holds maps up to a distance in mm; the paths of both."""
    from CalibUncertaintyPanel import fakeProcess

    from CalibUncertaintyLib.uncertainty import measures
    from CalibUncertaintyLib.volume import Volume

    depth = {label: signed_depth(shape, *organ) for label, organ in ORGANS.items()}
    segmentation = np.zeros(shape, np.uint8)
    for label, inside in depth.items():
        segmentation[inside > 0] = label
    distance = np.maximum(-np.maximum(depth[1], depth[2]), 0)
    ct = Volume((40 + 100 * (segmentation > 0)).astype(np.int16), SPACING_ZYX, (0.0, 0.0, 0.0), np.eye(3))
    ct.write(folder / "ct.nrrd")
    start, stop = fakeProcess._box(distance <= roi_mm)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop = ct.crop(start, tuple(np.subtract(stop, start)))
    p = np.stack([1 / (1 + np.exp(-np.clip(depth[label][box] / SOFTNESS_MM, -30, 30))) for label in ORGANS]).astype(
        np.float32
    )
    p = np.concatenate([np.clip(1 - p.sum(axis=0, keepdims=True), 0, 1), p])
    p /= p.sum(axis=0)
    arguments = {"ct": str(folder / "ct.nrrd"), "out": str(folder / "result"), "model": "none", "roi_mm": roi_mm}
    out = folder / "result"
    (out / "maps").mkdir(parents=True)
    ct.with_array(segmentation).write(out / "segmentation.nii.gz")
    maps = {"conf": measures.confidence_complement(p), "margin": measures.margin(p), "entropy": measures.entropy(p)}
    maps |= {"exp_entropy": maps["entropy"], "mi": np.zeros_like(maps["entropy"]), "distance": distance[box]}
    for name, array in {**maps, "probability_1": p[1], "probability_2": p[2]}.items():
        crop.with_array(np.ascontiguousarray(array, dtype=np.float32)).write(out / "maps" / f"{name}.nrrd")
    content = fakeProcess._provenance(
        arguments, ct, crop, start, True, roi_mm, distance, [], measures.MEASURES, set(maps)
    )
    (out / "result.json").write_text(json.dumps(content))
    return folder / "ct.nrrd", out


def signed_depth(shape: tuple[int, int, int], centre: tuple, radii: tuple) -> np.ndarray:
    """How deep (mm) each voxel lies in an ellipsoid, negative outside; exact at its surface, float32 (z, y, x)."""
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    squares = [((axis - c * n) / (r * n)) ** 2 for axis, n, c, r in zip(axes, shape, centre, radii, strict=True)]
    radius = np.sqrt(squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :])
    mean_mm = float(np.prod([r * n * s for n, r, s in zip(shape, radii, SPACING_ZYX, strict=True)])) ** (1 / 3)
    return (1 - radius) * np.float32(mean_mm)


def measure(panel, ct_path: Path, result: Path) -> dict:
    """Everything about one case."""
    import slicer

    ct = slicer.util.loadVolume(str(ct_path))
    panel.parameterNode.ctVolume = ct
    voxels = int(np.prod(ct.GetImageData().GetDimensions()))
    render()
    memory = resident_bytes()
    began = time.perf_counter()
    panel.showResult(result, ct)
    render()
    figures = {"seconds_to_visible": round(time.perf_counter() - began, 2)}
    if panel.overlays is None:
        raise RuntimeError(panel.ui.errorLabel.text)
    figures["bytes_per_voxel"] = round((resident_bytes() - memory) / voxels / len(panel.overlays.nodes), 2)
    while not panel.layers.loading.idle:  # maps are read in a thread meanwhile
        slicer.app.processEvents()
        time.sleep(0.005)
    ui, layers, red = panel.ui, panel.layers, slicer.app.layoutManager().sliceWidget("Red")
    offsets = np.linspace(0.4, 0.6, REPEATS) * ct.GetImageData().GetDimensions()[2] * SPACING_ZYX[0]
    red.setSliceOffsetValue(float(offsets[0]))

    def roi(index: int) -> None:
        panel.parameterNode.roiShownMm = 2.0 + index % 10
        layers.roi.apply()  # without the wait that gathers the moves of a slider

    changes: dict[str, Callable[[int], None]] = {
        "ms_render": lambda index: None,
        "ms_threshold": lambda index: setattr(ui.thresholdSlider, "value", 0.1 + 0.02 * index),
        "ms_roi": roi,
        "ms_measure": lambda index: ui.measureComboBox.setCurrentIndex(index % 3),
        "ms_opacity": lambda index: setattr(ui.uncertaintyOpacitySlider, "value", 30 + index),
        "ms_slice": lambda index: red.setSliceOffsetValue(float(offsets[index])),
    }
    for name, change in changes.items():
        figures[name] = median_ms(change)
    began = time.perf_counter()
    panel.parameterNode.contoursOfAll = True
    panel.parameterNode.contoursVisible = True
    while panel.contours.busy:
        slicer.app.processEvents()
        time.sleep(0.005)
    render()
    figures["seconds_to_contours"] = round(time.perf_counter() - began, 2)
    figures["ms_slice_with_contours"] = median_ms(changes["ms_slice"])
    position = list(ct_centre(ct))
    figures["ms_cursor"] = round(1e3 * cursor_seconds(panel, position), 3)
    return figures


def median_ms(change: Callable[[int], None]) -> float:
    """Median of a change together with the rendering after it; the first, which reads files, is not counted."""
    times = []
    for index in range(REPEATS):
        began = time.perf_counter()
        change(index)
        render()
        times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times[3:]), 1)


def cursor_seconds(panel, position: list[float]) -> float:
    """Of telling the values under the mouse, once."""
    from CalibUncertaintyPanel.cursorText import cursorText

    began = time.perf_counter()
    for _ in range(100):
        cursorText(panel.overlays, panel.shownCt(), position)
    return (time.perf_counter() - began) / 100


def ct_centre(ct) -> np.ndarray:
    """Middle of a volume, RAS in mm."""
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    return np.array(bounds).reshape(3, 2).mean(axis=1)


def render() -> None:
    """Draw the axial view."""
    from Harness.views import render_slice

    render_slice("Red", VIEW)


def resident_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smaller CT only")
    options = parser.parse_args(arguments)

    from Harness import start
    from screenshots import open_panel

    application = start()
    panel, cases = open_panel(application), {}
    for slices in (300,) if options.quick else (300, 600):
        with tempfile.TemporaryDirectory() as folder:
            paths = write_case((slices, 512, 512), Path(folder))
            cases[f"512x512x{slices}"] = measure(panel, *paths)
            application.clear()
        print(
            f"512 x 512 x {slices}: " + ", ".join(f"{key} {value}" for key, value in cases[f"512x512x{slices}"].items())
        )
    worst = list(cases.values())[-1]
    print(json.dumps({"quick": options.quick, **worst, "cases": cases}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
