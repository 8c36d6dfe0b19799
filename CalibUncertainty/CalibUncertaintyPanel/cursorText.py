"""What lies under the mouse, in words: "CT 45 HU · 72 % Parotid, calibrated · entropy 0.41 nats · 3.0 mm outside". No Qt."""

import logging

import numpy as np
import slicer
from slicer.i18n import tr as _

from . import ctVolume

SEPARATOR = " · "


def cursorText(overlays, ctNode, positionRas):
    """Say what the layers hold at a place: the values of the nearest voxels, with what they mean.

    :param overlays: `Overlays`.
    :param ctNode: the CT below the layers, or None.
    :param positionRas: (R, A, S) in mm.
    :return: one line; an empty string outside of everything.
    """
    parts = [_ctPart(ctNode, positionRas)]
    probability = nodeValue(overlays.probabilityNode, positionRas)
    if probability is not None:
        parts += [_probabilityPart(overlays, probability), _uncertaintyPart(overlays, positionRas)]
        parts.append(_placePart(overlays.result, positionRas))
    elif parts[0]:
        parts.append(_("far from every structure, not computed"))
    return SEPARATOR.join(part for part in parts if part)


def nodeValue(volumeNode, positionRas):
    """Value of a volume node's voxel at a place, or None outside it.

    :param positionRas: (R, A, S) in mm in the world; a linear transform of the volume is taken into account.
    """
    if volumeNode is None or volumeNode.GetImageData() is None:
        return None
    try:
        ijkToRas = ctVolume.worldIjkToRas(volumeNode)
    except ValueError:  # under a transform that is not linear
        return None
    index = _indexAt(ijkToRas, volumeNode.GetImageData().GetDimensions()[::-1], positionRas)
    return None if index is None else slicer.util.arrayFromVolume(volumeNode)[index]


def volumeValue(volume, positionRas):
    """The same of a `Volume` of the library."""
    index = _indexAt(volume.ijk_to_ras, volume.array.shape, positionRas)
    return None if index is None else volume.array[index]


def _indexAt(ijkToRas, shape, positionRas):
    ijk = np.linalg.solve(ijkToRas, np.array([*positionRas, 1.0]))[:3]
    index = tuple(int(i) for i in np.floor(ijk[::-1] + 0.5))
    return index if all(0 <= i < n for i, n in zip(index, shape, strict=True)) else None


def _ctPart(ctNode, positionRas):
    value = nodeValue(ctNode, positionRas)
    return "" if value is None else f"CT {float(value):.0f} HU"


def _probabilityPart(overlays, probability):
    state = _("calibrated") if overlays.calibrated else _("NOT CALIBRATED")
    state = _("raw, before calibration") if overlays.shownRaw else state
    return f"{_percent(float(probability))} {overlays.shownStructure}, {state}"


def _uncertaintyPart(overlays, positionRas):
    info = overlays.measure(overlays.shownMeasure)
    try:
        volume = overlays.uncertaintyVolume  # the map itself: the node's is 0 beyond the distance that is shown
    except Exception as error:  # the folder may be gone; what is shown is still there
        logging.debug("CalibUncertainty: %s", error)
        volume = None
    known = volume is not None
    value = volumeValue(volume, positionRas) if known else nodeValue(overlays.uncertaintyNode, positionRas)
    if value is None:
        return ""
    title = info.title[:1].lower() + info.title[1:]
    unit = "" if info.unit == "probability" else f" {info.unit}"
    return f"{title} {float(value):.2f}{unit}"


def _placePart(result, positionRas):
    """Inside which structure, or how far outside of all."""
    if result is None:
        return ""
    try:
        label = volumeValue(result.segmentation, positionRas)
        if label:
            return _("inside {structure}").format(structure=result.labels.get(int(label), label))
        if result.provenance["maps"]["distance"]["file"] is None:
            return ""
        distance = volumeValue(result.distance, positionRas)
    except Exception as error:
        logging.debug("CalibUncertainty: %s", error)
        return ""
    return "" if distance is None else _("{distance:.1f} mm outside").format(distance=float(distance))


def _percent(fraction):
    """In per cent; what is not quite nothing or everything is not rounded to it."""
    if 0 < fraction < 0.01:
        return "< 1 %"
    if 0.99 < fraction < 1:
        return "> 99 %"
    return f"{100 * fraction:.0f} %"
