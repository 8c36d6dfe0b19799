"""Screenshots: a panel grabbed off screen, slice views rendered into memory, and both put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import qt
import slicer


def grab(widget, size: tuple[int, int] | None = None) -> qt.QImage:
    """Picture of a widget as it would look in a window; ``size`` (width, height) in pixels, else its own.

    A widget that needs more height gets it, as in the scroll area that holds a panel in Slicer: the picture then
    shows all of it, and is higher than asked for. A width below the widget's minimum is raised to it as well.
    """
    widget.show()
    for _ in range(3):  # layouts settle over a few rounds
        if size is not None:
            widget.resize(_asInScrollArea(widget, size))
        slicer.app.processEvents()
    return widget.grab().toImage()


def _asInScrollArea(widget, size: tuple[int, int]) -> qt.QSize:
    wanted = qt.QSize(*size).expandedTo(widget.minimumSizeHint())
    if widget.layout() is not None and widget.layout().hasHeightForWidth():
        wanted.setHeight(max(wanted.height(), widget.layout().totalHeightForWidth(wanted.width())))
    return wanted


def toArray(image: qt.QImage) -> np.ndarray:
    """RGB uint8 (height, width, 3) of a QImage."""
    image = image.convertToFormat(qt.QImage.Format_RGBA8888)
    pixels = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine() // 4, 4)
    return pixels[:, : image.width(), :3].copy()


def toImage(picture) -> qt.QImage:
    """QImage of a QImage, an array (height, width, 3 or 4) or a file."""
    if isinstance(picture, qt.QImage):
        return picture
    if isinstance(picture, (str, Path)):
        return qt.QImage(str(picture))
    picture = np.ascontiguousarray(picture[..., :3], dtype=np.uint8)
    height, width, _ = picture.shape
    return qt.QImage(picture.tobytes(), width, height, 3 * width, qt.QImage.Format_RGB888).copy()


def compose(panel, *slices, path: Path | str | None = None, gap: int = 4, columns: int = 2) -> qt.QImage:
    """Panel on the left, slice images in a grid on the right, as Slicer lays them out; saved where ``path`` says."""
    panel = toImage(panel)
    slices = [toImage(picture) for picture in slices]
    columns = max(1, min(columns, len(slices)))
    rows = [slices[start : start + columns] for start in range(0, len(slices), columns)]
    gridWidth = max((sum(s.width() for s in row) + gap * (len(row) - 1) for row in rows), default=0)
    gridHeight = sum(max(s.height() for s in row) for row in rows) + gap * max(0, len(rows) - 1)
    whole = qt.QImage(
        panel.width() + (gap if rows else 0) + gridWidth, max(panel.height(), gridHeight), qt.QImage.Format_RGB32
    )
    whole.fill(qt.QColor(60, 60, 60))
    painter = qt.QPainter(whole)
    painter.drawImage(0, 0, panel)
    top = 0
    for row in rows:
        left = panel.width() + gap
        for picture in row:
            painter.drawImage(left, top, picture)
            left += picture.width() + gap
        top += max(picture.height() for picture in row) + gap
    painter.end()
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not whole.save(str(path)):
            raise OSError(f"could not write the picture {path}")
    return whole


def save(picture, path: Path | str) -> Path:
    """Write a QImage or an array as PNG."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not toImage(picture).save(str(path)):
        raise OSError(f"could not write the picture {path}")
    return Path(path)
