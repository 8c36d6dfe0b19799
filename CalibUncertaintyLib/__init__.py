"""Calibrated probabilities and uncertainty maps for nnU-Net v2 segmentation of CT.

Four nouns (`Volume`, `ModelFolder`, `CalibrationRecord`, `Result`) and the verbs `segment` and `calibrate`.
Importing the package needs numpy and SimpleITK only; torch and nnunetv2 are imported when a verb runs.
"""

from .errors import CalibUncertaintyError, Cancelled
from .version import __version__

__all__ = ["CalibUncertaintyError", "Cancelled", "__version__"]
