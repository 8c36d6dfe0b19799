"""Calibrated probabilities and uncertainty maps for nnU-Net v2 segmentation of CT.

Four nouns (`Volume`, `ModelFolder`, `CalibrationRecord`, `Result`) and three verbs (`segment`, `calibrate`, `evaluate`).
Importing the package needs numpy and SimpleITK only; torch and nnunetv2 are imported when a verb runs.
"""

import importlib

from .errors import CalibUncertaintyError, Cancelled
from .version import __version__

_PUBLIC = {
    "Volume": "volume",
    "ModelFolder": "model.folder",
    "CalibrationRecord": "model.record",
    "Result": "result",
    "segment": "workflow.segment",
    "calibrate": "workflow.calibrate",
    "evaluate": "workflow.evaluate",
}

__all__ = ["CalibUncertaintyError", "Cancelled", "__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
