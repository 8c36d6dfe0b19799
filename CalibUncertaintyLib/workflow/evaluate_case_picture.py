"""One slice of a case for the report: where it is wrong, and where the uncertainty says so."""

from __future__ import annotations

import io

import numpy as np

from ..volume import Volume
from .evaluate_window import CaseWindow
from .picture import LEVEL, WINDOW, uncertainty_colours
from .picture_planes import Frame

WIDTH_INCHES, DOTS_PER_INCH = 7.2, 110
PREDICTED, DRAWN, WRONG = "#56B4E9", "#F0E442", "#FF5C8A"


def case_picture(window: CaseWindow, ct: Volume) -> bytes | None:
    """A PNG of the axial slice with the most wrong voxels: outlines beside the uncertainty; None without matplotlib.

    Left the prediction's outline and the reference's, with what is wrong as a red veil; right the measure that regions are made
    of from its threshold up, in the colours of `montage`, with the outline of what is wrong. The front is on top and the
    patient's right on the left of the picture.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
    except ImportError:
        return None
    frame = Frame(ct.crop(window.start, window.label.shape))
    threshold = window.result.provenance["threshold"]
    entry = next(
        item for item in window.result.provenance["maps"]["uncertainty"] if item["measure"] == threshold["measure"]
    )
    inside = window.domain("body").mask if window.result.of_body else window.distance <= window.roi_mm
    seen = window.error & inside
    level = _slice_of(frame, seen, window.error, window.label > 0, window.truth > 0)
    across = frame.spacing[1] * frame.shape[1], frame.spacing[2] * frame.shape[2]
    height = WIDTH_INCHES / 2 * min(across[0] / across[1], 1.8) + 0.3
    figure = Figure(figsize=(WIDTH_INCHES, height), facecolor="black")
    FigureCanvasAgg(figure)
    grey, label, truth, wrong = (
        frame.turn(array)[level] for array in (frame.reference.array, window.label, window.truth, window.error)
    )
    place = {"extent": (0, across[1], across[0], 0), "aspect": "equal"}
    for axes in (pair := figure.subplots(1, 2)):
        axes.imshow(
            grey, cmap="gray", vmin=LEVEL - WINDOW / 2, vmax=LEVEL + WINDOW / 2, interpolation="bilinear", **place
        )
        axes.set_axis_off()
    for value in np.unique(label[label > 0]):
        _outline(pair[0], label == value, PREDICTED, across, "-")
    for value in np.unique(truth[truth > 0]):
        _outline(pair[0], truth == value, DRAWN, across, "--")
    u = frame.turn(window.measure(threshold["measure"]))[level]
    pair[1].imshow(
        np.ma.masked_less(u, threshold["value"]), cmap=uncertainty_colours(), vmin=threshold["value"],
        vmax=max(entry.get("scale", entry["range"])[1], threshold["value"] + 1e-3), interpolation="nearest", **place,
    )  # fmt: skip
    pair[0].imshow(
        np.ma.masked_equal(wrong, 0), cmap=ListedColormap([WRONG]), alpha=0.45, interpolation="nearest", **place
    )
    _outline(pair[1], wrong, WRONG, across, "-", 0.6)  # thin beside what is to be seen
    shown = f"{entry['title']} from {threshold['value']:.2g} {entry['unit']} up, wrong (red)"
    for axes, title in zip(pair, ("predicted (blue), reference (yellow, dashed), wrong (red)", shown), strict=True):
        axes.set_title(title, color="white", fontsize=8.5)
        axes.text(0.01, 0.5, frame.letters(2)[0], transform=axes.transAxes, color="white", fontsize=8.5, va="center")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=1 - 0.26 / height, wspace=0.01)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, facecolor="black", metadata={"Software": None})
    return stream.getvalue()


def _slice_of(frame: Frame, *masks: np.ndarray) -> int:
    """The axial slice with the most voxels of the first mask that has any; the middle one where none has."""
    for mask in masks:
        counts = frame.turn(mask).sum(axis=(1, 2))
        if counts.any():
            return int(np.argmax(counts))
    return frame.shape[0] // 2


def _outline(axes, mask: np.ndarray, colour: str, across: tuple[float, float], line: str, width: float = 1.0) -> None:
    if not mask.any() or mask.all() or min(mask.shape) < 2:
        return
    rows, columns = mask.shape
    y, x = (np.arange(rows) + 0.5) * across[0] / rows, (np.arange(columns) + 0.5) * across[1] / columns
    axes.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=width, linestyles=line)
