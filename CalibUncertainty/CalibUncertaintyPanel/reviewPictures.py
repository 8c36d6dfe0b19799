"""A picture of each region for the report: axial with outlines, axial and coronal with what is doubtful. Numbers in, PNG out.

Made from the files of the Result and the voxels of the CT, so that no slice view is moved and no display is needed. Slices lie
as radiologists hang them: the patient's right is on the left, the front (coronal: the head) on top.
"""

import struct
import zlib

import numpy as np

from . import overlayNodes, palettes, reviewViews

PIXELS = 240  # a panel's side
GAP = 6
OVERLAY_OPACITY = 0.6
BAR_MM = 20
LOWEST_PROBABILITY = 0.02
MARK_FROM, MARK_TO = 9, 16  # pixels from the peak: four ticks that leave it free


class RegionPictures:
    """Draws regions of one Result.

    :param result: `Result`.
    :param ct: `Volume` of the CT it was made from.
    :param window: (width, level) in HU.
    :raises CalibUncertaintyError: if the CT is not the Result's, or a map is missing.
    """

    def __init__(self, result, ct, window=(400, 40)):
        from CalibUncertaintyLib.workflow.picture_planes import Frame

        self.result = result
        self._frame = Frame(ct)
        self._ct = self._frame.turn(ct.array)
        self._labels = self._frame.turn(result.segmentation.array)
        self._window = window
        self._ijkToRas, self._shape = ct.ijk_to_ras, ct.array.shape
        self._uncertainty, self._threshold, self._upper = self._openUncertainty()
        self._probability = (None, None)

    def strip(self, region, box):
        """The three panels of a region beside each other.

        :param box: `RegionBox` around it.
        :return: PNG.
        """
        width = reviewViews.widthFor(
            reviewViews.reachOf(region.peak_ras_mm, box.cornersRas()), self._ijkToRas, self._shape
        )
        index = self._frame.index_of(region.peak_lps_mm)
        image = np.zeros((PIXELS, 3 * PIXELS + 2 * GAP, 3), np.uint8)
        for column, (axis, doubtful) in enumerate(((0, False), (0, True), (1, True))):
            panel = self._panel(region, index, axis, width, doubtful)
            left = column * (PIXELS + GAP)
            image[:, left : left + PIXELS] = np.rint(255 * panel)
        length = round(BAR_MM / width * PIXELS)
        image[-12:-9, 10 : 10 + length] = 255
        return png(image)

    def _panel(self, region, index, axis, width, doubtful):
        rows, columns = self._samples(index, axis, width)
        grey = _linear(np.take(self._ct, index[axis], axis=axis), rows, columns)
        low = self._window[1] - self._window[0] / 2
        panel = np.repeat(np.clip((grey - low) / self._window[0], 0, 1)[..., np.newaxis], 3, axis=-1)
        panel[np.isnan(grey)] = 0
        if doubtful:
            self._addMap(panel, region, index, axis, rows, columns)
        else:
            self._addOutlines(panel, index, axis, rows, columns)
        _addMark(panel)
        return panel

    def _samples(self, index, axis, width):
        """Fractional row and column indices of the pixels, from the turned grid; the head of a coronal panel comes first."""
        across = [other for other in range(3) if other != axis]
        offsets = (np.arange(PIXELS) - (PIXELS - 1) / 2) * width / PIXELS
        rows = index[across[0]] + offsets / self._frame.spacing[across[0]]
        columns = index[across[1]] + offsets / self._frame.spacing[across[1]]
        return (rows[::-1] if axis == 1 else rows), columns

    def _addOutlines(self, panel, index, axis, rows, columns):
        labels = _nearest(np.take(self._labels, index[axis], axis=axis), rows, columns)
        for order, label in enumerate(self.result.labels):
            inside = labels == label
            panel[inside & ~_eroded(inside)] = palettes.outlineColor(order)

    def _addMap(self, panel, region, index, axis, rows, columns):
        layer, least, upper, scale = self._layerOf(region)
        values = _nearest(layer.plane(axis, index[axis]), rows, columns)
        shown = np.nan_to_num(values, nan=-1.0) >= least
        colors = palettes.colorScale(scale)
        place = np.clip(np.rint(np.nan_to_num(values) / upper * (len(colors) - 1)), 0, len(colors) - 1).astype(int)
        panel[shown] += OVERLAY_OPACITY * (colors[place[shown]] - panel[shown])

    def _layerOf(self, region):
        """What is drawn over a region: the measure above its threshold; of a possible miss the structure's probability."""
        from CalibUncertaintyLib.uncertainty.regions import POSSIBLE_MISS

        scales = overlayNodes.CONTROL_POINTS
        if region.kind == POSSIBLE_MISS and region.label in self.result.labels:
            if self._probability[0] != region.label:
                self._probability = (region.label, self._layer(self.result.probability(region.label)))
            return self._probability[1], LOWEST_PROBABILITY, 1.0, scales[overlayNodes.PROBABILITY_SCALE]
        return self._uncertainty, self._threshold, self._upper, scales[overlayNodes.UNCERTAINTY_SCALE]

    def _openUncertainty(self):
        provenance = self.result.provenance
        threshold = provenance["threshold"]
        entry = next(item for item in provenance["maps"]["uncertainty"] if item["measure"] == threshold["measure"])
        volume = self.result.uncertainty(threshold["measure"])
        if self.result.of_body or provenance["maps"]["distance"]["file"] is not None:
            from CalibUncertaintyLib.result_regions import region_of_interest

            inside = region_of_interest(self.result)
            volume = volume.with_array(np.where(inside, volume.array, np.float32(-1)))
        return self._layer(volume), float(threshold["value"]), float(entry["range"][1])

    def _layer(self, volume):
        from CalibUncertaintyLib.workflow.picture_planes import Layer

        return Layer.of(self._frame, volume)


def png(image):
    """Encode an RGB picture.

    :param image: (height, width, 3) uint8, top row first.
    :return: bytes of a PNG file.
    """
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = image.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _linear(plane, rows, columns):
    """Bilinear values at rows x columns; NaN outside the plane."""
    at, part, outside = zip(
        *(_between(samples, n) for samples, n in zip((rows, columns), plane.shape, strict=True)), strict=True
    )
    values = sum(
        (part[0] if i else 1 - part[0])[:, np.newaxis]
        * (part[1] if j else 1 - part[1])
        * plane[np.ix_(np.minimum(at[0] + i, plane.shape[0] - 1), np.minimum(at[1] + j, plane.shape[1] - 1))]
        for i in (0, 1)
        for j in (0, 1)
    )
    values[outside[0]] = np.nan
    values[:, outside[1]] = np.nan
    return values


def _between(samples, count):
    at = np.clip(np.floor(samples), 0, count - 1).astype(int)
    return at, np.clip(samples - at, 0, 1), (samples < -0.5) | (samples > count - 0.5)


def _nearest(plane, rows, columns):
    """Values of the nearest voxels, as numbers with NaN outside the plane."""
    at = [np.rint(samples).astype(int) for samples in (rows, columns)]
    inside = [(index >= 0) & (index < n) for index, n in zip(at, plane.shape, strict=True)]
    values = np.full((len(rows), len(columns)), np.nan)
    values[np.ix_(*inside)] = plane[np.ix_(at[0][inside[0]], at[1][inside[1]])]
    return values


def _eroded(mask):
    inner = np.pad(mask, 1)
    return inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]


def _addMark(panel):
    middle = PIXELS // 2
    for sign in (-1, 1):
        ticks = middle + sign * np.arange(MARK_FROM, MARK_TO)
        panel[middle, ticks] = panel[ticks, middle] = 1.0
