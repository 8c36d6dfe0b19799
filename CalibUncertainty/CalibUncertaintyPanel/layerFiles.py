"""The shown maps as files of their own, and what is said of them there and on their nodes. For threads, once `mapsOf` was asked.

Slicer's own Save writes the voxels and their place, and drops what a node says of them. Here NRRD keeps it in its header, under
the names that a Result folder uses; beside NIfTI, which has no room for it, lies a JSON file.
"""

import json
import re
from pathlib import Path

from slicer.i18n import tr as _

from . import ctVolume
from .overlayNodes import PREFIX

NRRD, NIFTI = ".nrrd", ".nii.gz"
SIDECAR = ".json"


def describe(volumeNode, unit):
    """Say on a node of a layer what its voxels are; a saved scene keeps it.

    :param unit: of the voxels.
    """
    volumeNode.SetAttribute(PREFIX + "Unit", unit)
    about = metadataOf(volumeNode)
    model, calibration = (about.get(PREFIX + key, "") for key in ("model", "calibration"))
    text = _("{name}. Unit: {unit}. Model: {model}. {calibration}")
    text = text.format(name=volumeNode.GetName(), unit=unit, model=model, calibration=calibration)
    volumeNode.SetDescription(text)


def metadataOf(volumeNode):
    """What a node of a layer says of its voxels, under the names of a Result's own files.

    :return: {"CalibUncertainty.kind": "probability", ...}, text.
    """
    found = {}
    for name in ("Kind", "Model", "Calibration", "Calibrated", "Structure", "Raw", "Measure", "Unit"):
        value = volumeNode.GetAttribute(PREFIX + name)
        if value:
            found[PREFIX + name[0].lower() + name[1:]] = value
    if found.get(PREFIX + "raw") == "true":
        found[PREFIX + "calibrated"] = "false"
    return found


def mapsOf(overlays):
    """What `saveMaps` needs to write the two maps that are shown: whole maps of the Result, or, without it, what the nodes hold.

    :param overlays: `Overlays`.
    :return: list of (name for a file, function without arguments that gives the `Volume`, metadata).
    """
    probability, uncertainty = overlays.probabilityNode, overlays.uncertaintyNode
    structure, measure, result = overlays.shownStructure, overlays.shownMeasure, overlays.result
    ofStructure = uncertainty.GetAttribute(PREFIX + "Structure") or None
    if result is None:
        readers = [lambda node=node: ctVolume.libraryVolume(node) for node in (probability, uncertainty)]
    else:
        raw = overlays.shownRaw
        readers = [
            lambda: result.raw_probability(structure) if raw else result.probability(structure),
            lambda: result.uncertainty(measure, ofStructure),
        ]
    names = [f"probability of {structure}", f"{measure} of {ofStructure}" if ofStructure else measure]
    return [
        (name, reader, metadataOf(node))
        for name, reader, node in zip(names, readers, (probability, uncertainty), strict=True)
    ]


def saveMaps(path, maps):
    """Write maps, each into a file of its own.

    :param path: "folder/name.nrrd" or "folder/name.nii.gz"; what a map is gets into its name behind a blank.
    :param maps: of `mapsOf`.
    :return: the files.
    :raises CalibUncertaintyError: if a file cannot be written, or a map of the Result is missing.
    """
    path = Path(path)
    extension = NIFTI if path.name.lower().endswith((NIFTI, ".nii")) else NRRD
    base = re.sub(r"\.(nrrd|nii|nii\.gz)$", "", path.name, flags=re.IGNORECASE)
    files = []
    for name, reader, about in maps:
        volume = reader()
        metadata = {**volume.metadata, **about}
        plain = re.sub(r"[^\w\-. ]+", "_", name)
        target = path.with_name(f"{base} {plain}{extension}")
        volume.with_array(volume.array, metadata).write(target)
        files.append(target)
        if extension == NIFTI:
            files.append(_sidecar(target, metadata))
    return files


def _sidecar(target, metadata):
    from CalibUncertaintyLib import CalibUncertaintyError

    path = target.with_name(target.name[: -len(NIFTI)] + SIDECAR)
    try:
        path.write_text(json.dumps(metadata, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be written ({error.strerror})") from error
    return path
