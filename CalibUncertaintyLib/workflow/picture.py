"""A montage of a Result: CT, structures, probability and thresholded uncertainty side by side, hung as radiologists hang slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from ..result import Result
from ..result_regions import region_of_interest
from ..uncertainty.regions import POSSIBLE_MISS, Region
from ..volume import Volume
from .picture_file import refuse_other_file, save_picture
from .picture_planes import Frame, Layer, Plane, choose_planes, same_place, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

WINDOW, LEVEL = 400.0, 40.0  # soft tissue, HU
PANEL = 3.5  # inches
GAP = 0.07
LEFT, RIGHT, TOP, BOTTOM = 0.95, 0.25, 1.2, 1.3  # inches around the panels
CIRCLED = 20  # of the places to look at, these first ones are marked with their number
LOWEST_SHOWN_PROBABILITY = 0.02  # fainter than this only veils the CT
# Okabe and Ito's colours, told apart by most colour-blind readers, brightened for a grey background; then more for many classes.
COLOURS = (
    "#E69F00", "#56B4E9", "#00C78C", "#CC79A7", "#F0E442", "#3D8BFF", "#FF7F2A", "#FFFFFF", "#A6E22E", "#FF5C8A",
    "#B39DDB", "#80CBC4",
)  # fmt: skip
BACKGROUND, INK, QUIET, ALARM, SURE = "#000000", "#FFFFFF", "#B8B8B8", "#FF4D4D", "#8BD18B"


@dataclass(frozen=True)
class _Scene:
    """What every panel draws from, on the turned grid (head, back, left)."""

    result: Result
    frame: Frame
    ct: np.ndarray
    label: np.ndarray
    probability: Layer
    probability_title: str
    uncertainty: Layer  # NaN below the threshold and outside the region of interest
    measure: dict
    threshold: float
    view: tuple[slice, slice, slice]

    @property
    def upper(self) -> float:
        """Top of the uncertainty's colour bar: the same for all patients, so that pictures of two of them compare."""
        return max(float(self.measure.get("scale", self.measure["range"])[1]), self.threshold + 1e-3)


def montage(
    result_folder: str | Path,
    ct: str | Path | Volume,
    out_png: str | Path,
    *,
    structure: int | str | None = None,
    measure: str | None = None,
    slices: Sequence[Plane] | None = None,
) -> Path:
    """Draw slices of a Result over its CT into a PNG.

    Each row is one slice; its columns are the CT (window 400, level 40 HU), the structures as outlines, the probability, and
    the uncertainty above the Result's threshold inside its region of interest. Axial slices have the front on top and the
    patient's right on the left of the picture, coronal ones the head on top. Oblique scans are shown in their own planes, with
    letters that say so.

    :param ct: the CT the Result was made from, as a file or read already.
    :param structure: whose probability is shown; by default the highest of all structures at each voxel.
    :param measure: the uncertainty to show; by default the one that the Result's threshold is of.
    :param slices: planes counted from the head-feet low end and from the front; chosen by uncertainty and structures by default.
    :raises CalibUncertaintyError: no matplotlib, a CT that is not the Result's, or a PNG that cannot be written; one line.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CalibUncertaintyError("a picture needs matplotlib: pip install matplotlib") from error
    refuse_other_file(Path(out_png))
    scene = _open_scene(
        Result.open(result_folder), ct if isinstance(ct, Volume) else Volume.read(ct), structure, measure
    )
    planes = list(slices) if slices is not None else _planes_of(scene)
    heights = [PANEL * _aspect(scene, plane) for plane in planes]
    width = LEFT + 4 * PANEL + 3 * GAP + RIGHT
    height = TOP + sum(heights) + GAP * (len(planes) - 1) + BOTTOM
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    top = height - TOP
    for plane, panel_height in zip(planes, heights, strict=True):
        top -= panel_height
        _draw_row(figure, scene, plane, (width, height), top, panel_height)
        top -= GAP
    _draw_titles(figure, scene, (width, height))
    _draw_legends(figure, scene, planes, (width, height))
    return save_picture(figure, Path(out_png), BACKGROUND)


def _open_scene(result: Result, ct: Volume, structure: int | str | None, measure: str | None) -> _Scene:
    if ct.array.shape != result.segmentation.array.shape:
        raise CalibUncertaintyError(
            f"the CT has {ct.array.shape[::-1]} voxels and the Result {result.segmentation.array.shape[::-1]}; give the CT that"
            f" was segmented"
        )
    if not same_place(ct, result.segmentation):
        raise CalibUncertaintyError(
            "the CT lies elsewhere in the patient than the Result; give the CT that was segmented"
        )
    frame = Frame(ct)
    provenance = result.provenance
    threshold = provenance["threshold"]
    name = measure or threshold["measure"]
    entries = {item["measure"]: item for item in provenance["maps"]["uncertainty"]}
    uncertainty = result.uncertainty(name)
    value = float(threshold["value"] if name == threshold["measure"] else entries[name]["threshold"])
    shown = np.full(uncertainty.array.shape, np.nan, np.float32)
    visible = (uncertainty.array >= value) & region_of_interest(result)
    shown[visible] = uncertainty.array[visible]
    if structure is None:
        title = "any structure"
        probability = result.probability(next(iter(result.labels)))
        highest = probability.array.copy()
        for index in list(result.labels)[1:]:
            np.maximum(highest, result.probability(index).array, out=highest)
        probability = probability.with_array(highest)
    else:
        probability = result.probability(structure)
        title = result.labels.get(structure, str(structure)) if isinstance(structure, int) else structure
    layer = Layer.of(frame, uncertainty.with_array(shown))
    return _Scene(
        result, frame, frame.turn(ct.array), frame.turn(result.segmentation.array), Layer.of(frame, probability), title,
        layer, entries[name], value, view_of(frame, layer),
    )  # fmt: skip


def _planes_of(scene: _Scene) -> list[Plane]:
    shown = scene.uncertainty
    weight = Layer(scene.frame, np.nan_to_num(shown.array, nan=0.0), shown.start)
    through = [scene.frame.index_of(region.peak_lps_mm)[0] for region in _gravest(scene)]
    return choose_planes(weight, scene.label, scene.frame, through)


def _gravest(scene: _Scene) -> list[Region]:
    """The listed place that weighs most for its structure: expected wrong volume over the structure's volume; none, or one.

    By volume alone it would always be the rim of the largest organ. Our definition.
    """
    counts = np.bincount(scene.label.ravel(), minlength=max(scene.result.labels, default=0) + 1)
    listed = [
        region for region in scene.result.regions[:CIRCLED] if region.kind != POSSIBLE_MISS and counts[region.label] > 0
    ]
    listed.sort(key=lambda region: region.score / counts[region.label])
    return listed[-1:]


def _aspect(scene: _Scene, plane: Plane) -> float:
    """Height over width of a slice, in millimetres."""
    rows, columns = _extent(scene, plane)
    return min(rows / columns, 1.6)


def _extent(scene: _Scene, plane: Plane) -> tuple[float, float]:
    across = [axis for axis in range(3) if axis != plane.axis]
    return tuple((scene.view[a].stop - scene.view[a].start) * scene.frame.spacing[a] for a in across)


def _hung(scene: _Scene, plane: Plane, array: np.ndarray) -> np.ndarray:
    """A slice as it is shown: cut to the view; coronal slices turned so that the head is on top."""
    seen = array[tuple(scene.view[axis] for axis in range(3) if axis != plane.axis)]
    return seen[::-1] if plane.axis == 1 else seen


def _draw_row(
    figure: Figure, scene: _Scene, plane: Plane, size: tuple[float, float], bottom: float, height: float
) -> None:
    width, total = size
    rows, columns = _extent(scene, plane)
    place = {"extent": (0, columns, rows, 0), "aspect": "equal"}
    grey = _hung(scene, plane, np.take(scene.ct, plane.index, axis=plane.axis))
    for column in range(4):
        left = LEFT + column * (PANEL + GAP)
        axes = figure.add_axes((left / width, bottom / total, PANEL / width, height / total), facecolor=BACKGROUND)
        axes.imshow(
            grey, cmap="gray", vmin=LEVEL - WINDOW / 2, vmax=LEVEL + WINDOW / 2, interpolation="bilinear", **place
        )
        if column == 1:
            _draw_outlines(axes, scene, plane)
        elif column == 2:
            _draw_probability(axes, _hung(scene, plane, scene.probability.plane(plane.axis, plane.index)), place)
        elif column == 3:
            _draw_uncertainty(axes, scene, plane, place)
        axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_edgecolor("#3A3A3A")
        _draw_letters(axes, scene, plane)
        if column == 0:
            _draw_scale_bar(axes, rows, columns)
    text = f"{plane.name}\n{plane.index + 1} of {scene.frame.shape[plane.axis]}\n{_position(scene, plane)}"
    figure.text(0.12 / width, (bottom + height / 2) / total, text, color=INK, fontsize=10, va="center", linespacing=1.5)


def _position(scene: _Scene, plane: Plane) -> str:
    """Where the middle of a slice lies, such as "S 31 mm"."""
    middle = [(window.start + window.stop - 1) / 2 for window in scene.view]
    middle[plane.axis] = plane.index
    value = scene.frame.centre_ras(middle)[2 if plane.axis == 0 else 1]
    letter = (("I", "S") if plane.axis == 0 else ("P", "A"))[int(value >= 0)]
    return f"{letter} {abs(value):.0f} mm"


def _draw_outlines(axes: Axes, scene: _Scene, plane: Plane) -> None:
    rows, columns = _extent(scene, plane)
    label = _hung(scene, plane, np.take(scene.label, plane.index, axis=plane.axis))
    y = (np.arange(label.shape[0]) + 0.5) * rows / label.shape[0]
    x = (np.arange(label.shape[1]) + 0.5) * columns / label.shape[1]
    for index in np.unique(label[label > 0]):
        axes.contour(x, y, label == index, levels=[0.5], colors=[_colour(int(index))], linewidths=1.3)
    if not scene.label.any():
        axes.text(columns / 2, rows / 2, "no structure found", color=ALARM, fontsize=13, ha="center")


def _draw_probability(axes: Axes, values: np.ndarray, place: dict) -> None:
    values = np.nan_to_num(values, nan=0.0)
    alpha = np.where(values >= LOWEST_SHOWN_PROBABILITY, 0.4 + 0.1 * values, 0.0)  # the CT stays readable below
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1, alpha=alpha, interpolation="nearest", **place)


def _draw_uncertainty(axes: Axes, scene: _Scene, plane: Plane, place: dict) -> None:
    values = _hung(scene, plane, scene.uncertainty.plane(plane.axis, plane.index))
    axes.imshow(
        np.ma.masked_invalid(values), cmap=uncertainty_colours(), vmin=scene.threshold, vmax=scene.upper,
        interpolation="nearest", **place,
    )  # fmt: skip
    across = [axis for axis in range(3) if axis != plane.axis]
    rows, columns = _extent(scene, plane)
    for region in scene.result.regions[:CIRCLED]:
        index = scene.frame.index_of(region.peak_lps_mm)
        spots = [(index[a] - scene.view[a].start + 0.5) * scene.frame.spacing[a] for a in across]
        row, column = (rows - spots[0] if plane.axis == 1 else spots[0]), spots[1]
        if index[plane.axis] == plane.index and 0 <= row <= rows and 0 <= column <= columns:
            axes.plot(column, row, "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1)
            # The number stands towards the middle of the picture, so that it never leaves it.
            offset = (12 if column < columns / 2 else -12, -9 if row < rows / 2 else 9)
            axes.annotate(
                str(region.id), (column, row), offset, textcoords="offset points", color=INK, fontsize=9, weight="bold",
                ha="center", va="center", path_effects=_halo(),
            )  # fmt: skip


def _draw_letters(axes: Axes, scene: _Scene, plane: Plane) -> None:
    low_row, high_row = scene.frame.letters(1 if plane.axis == 0 else 0)
    if plane.axis == 1:
        low_row, high_row = high_row, low_row
    low_column, high_column = scene.frame.letters(2)
    spots = (
        (0.5, 0.985, low_row, "center", "top"), (0.5, 0.015, high_row, "center", "bottom"),
        (0.015, 0.5, low_column, "left", "center"), (0.985, 0.5, high_column, "right", "center"),
    )  # fmt: skip
    for x, y, text, horizontal, vertical in spots:
        axes.text(
            x, y, text, transform=axes.transAxes, color="#FFE08A", fontsize=9, ha=horizontal, va=vertical, weight="bold",
            path_effects=_halo(),
        )  # fmt: skip


def _draw_scale_bar(axes: Axes, rows: float, columns: float) -> None:
    length = max(mm for mm in (5, 10, 20, 50, 100) if mm == 5 or mm <= columns / 3.5)
    x, y = columns * 0.05, rows * 0.95
    axes.plot([x, x + length], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt")
    text = f"{length} mm"
    axes.text(
        x + length / 2, y - rows * 0.02, text, color=INK, fontsize=9, ha="center", va="bottom", path_effects=_halo()
    )


def _draw_titles(figure: Figure, scene: _Scene, size: tuple[float, float]) -> None:
    width, height = size
    provenance = scene.result.provenance
    model, calibration, members = provenance["model"], provenance["calibration"], provenance["members"]
    folds = ", ".join(str(fold) for fold in sorted({str(member["fold"]) for member in members}))
    plural = "s" if len(members) > 1 else ""
    title = f"{model['name']}, {model['configuration']}: {len(members)} network{plural} (fold{plural} {folds})"
    figure.text(LEFT / width, 1 - 0.30 / height, title, color=INK, fontsize=14, weight="bold", va="center")
    sure = scene.result.calibrated
    figure.text(
        LEFT / width, 1 - 0.60 / height, _shorten(calibration["summary"], 150), color=SURE if sure else ALARM,
        fontsize=12 if sure else 14, weight="normal" if sure else "bold", va="center",
    )  # fmt: skip
    shown = "Calibrated probability" if sure else "Probability, NOT CALIBRATED"
    titles = (
        (f"CT (window {WINDOW:.0f}, level {LEVEL:.0f} HU)", INK),
        ("Structures", INK),
        (f"{shown}: {scene.probability_title}", INK if sure else ALARM),
        (f"Uncertainty: {scene.measure['title'].lower()}", INK),
    )
    for column, (text, colour) in enumerate(titles):
        x, y = (LEFT + column * (PANEL + GAP) + PANEL / 2) / width, 1 - (TOP - 0.14) / height
        figure.text(x, y, _shorten(text, 48), color=colour, fontsize=11, ha="center", va="center")


def _draw_legends(figure: Figure, scene: _Scene, planes: list[Plane], size: tuple[float, float]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    width, height = size
    unit = scene.measure["unit"]
    bars = (
        (2, "viridis", 0.0, 1.0, "probability", None),
        (
            3,
            uncertainty_colours(),
            scene.threshold,
            scene.upper,
            f"{scene.measure['title'].lower()} ({unit})",
            scene.threshold,
        ),
    )
    for column, colours, low, high, text, threshold in bars:
        left = LEFT + column * (PANEL + GAP) + 0.2
        axes = figure.add_axes((left / width, 0.92 / height, (PANEL - 0.4) / width, 0.16 / height))
        bar = figure.colorbar(ScalarMappable(Normalize(low, high), colours), cax=axes, orientation="horizontal")
        ticks = [low, *[t for t in bar.get_ticks() if low + 0.12 * (high - low) < t <= high + 1e-9]]
        bar.set_ticks(ticks, labels=[f"{t:.2g}" for t in ticks])
        bar.ax.tick_params(colors=INK, labelsize=9, length=2)
        bar.outline.set_edgecolor(QUIET)
        bar.set_label(text, color=INK, fontsize=10)
        if threshold is not None and not np.isfinite(scene.uncertainty.array).any():
            bar.set_label(f"{text}: nothing above {threshold:.2g}", color=ALARM, fontsize=10)
    _draw_names(figure, scene, planes, size)
    figure.text(LEFT / width, 0.16 / height, _footnote(scene), color=QUIET, fontsize=9, va="center")


def _draw_names(figure: Figure, scene: _Scene, planes: list[Plane], size: tuple[float, float]) -> None:
    """Names of the structures in the slices shown, in their colours, below the second column."""
    width, height = size
    present = sorted(
        {int(i) for plane in planes for i in np.unique(np.take(scene.label, plane.index, axis=plane.axis))} - {0}
    )
    left = LEFT + PANEL + GAP
    for place, index in enumerate(present[:12]):
        x, y = left + 0.1 + (place % 3) * 1.15, 1.08 - (place // 3) * 0.2
        figure.text(x / width, y / height, "\u25ac", color=_colour(index), fontsize=12, va="center")
        name = _shorten(scene.result.labels.get(index, str(index)), 13)
        figure.text((x + 0.22) / width, y / height, name, color=INK, fontsize=9.5, va="center")
    if len(present) > 12:
        figure.text(
            (left + 0.1) / width, 0.32 / height, f"and {len(present) - 12} more", color=QUIET, fontsize=9, va="center"
        )


def _footnote(scene: _Scene) -> str:
    provenance = scene.result.provenance
    count = len(scene.result.regions)
    where = f"within {provenance['roi']['distance_mm']:g} mm of a structure found"
    where = "in the patient's body" if scene.result.of_body else where
    numbers = f"Circled numbers: the first {min(CIRCLED, count)} of {count} places to look at. " if count else ""
    return (
        f"Uncertainty is shown from {scene.threshold:.2g} {scene.measure['unit']} up, {where}. "
        f"{numbers}For research; not a medical device."
    )


def uncertainty_colours() -> ListedColormap:
    """The upper, bright part of "inferno": perceptually uniform, safe for the colour-blind, and clear of the CT's dark greys."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["inferno"](np.linspace(0.35, 1.0, 256)))


def _halo() -> list:
    """A dark rim that keeps text readable over bone."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.2, foreground=BACKGROUND)]


def _colour(index: int) -> str:
    return COLOURS[(index - 1) % len(COLOURS)]


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "\u2026"
