"""What one may choose about a run of `segment`, and what of it is refused."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import CalibUncertaintyError
from ..model.folder import Fold
from ..uncertainty.measures import MEASURES
from .applied import MODES

EXPORTS = ("nifti",)


@dataclass(frozen=True)
class SegmentOptions:
    """Everything one may choose about a run of `segment`, with its defaults.

    folds: "all" or a list of folds. device: auto, cpu, cuda, cuda:1, mps. calibration: auto, none, or a record file.
    mode: pool_logit (labels as stock nnU-Net's) or pool_prob. mirroring: nnU-Net's test-time mirroring. roi_mm: how far from the
    predicted structures uncertain regions are listed, mm. measure, threshold: what regions are made of; "stored" takes the
    record's threshold, or our default where there is none. min_region_ml: smaller regions are not listed. miss_probability:
    foreground probability beyond the ROI that is listed as a possible miss. box_probability: every place whose foreground
    probability can exceed this is kept in the maps. full_volume: maps of the whole CT. export: ("nifti",) writes every map on
    the CT grid. overwrite: replace an earlier Result. series: DICOM SeriesInstanceUID. step_size: of nnU-Net's sliding
    window. trust_checkpoint: read checkpoints that hold more than data. skip_ct_check: take any voxel values.
    """

    folds: str | Sequence[Fold] = "all"
    device: str = "auto"
    calibration: str = "auto"
    mode: str = "pool_logit"
    mirroring: bool = True
    roi_mm: float = 15.0
    measure: str = "entropy"
    threshold: str | float = "stored"
    min_region_ml: float = 0.1
    miss_probability: float = 0.1
    box_probability: float = 0.01
    full_volume: bool = False
    export: Sequence[str] = ()
    overwrite: bool = False
    series: str | None = None
    step_size: float = 0.5
    trust_checkpoint: bool = False
    skip_ct_check: bool = False

    def __post_init__(self) -> None:
        stored = [name for name in MEASURES if name != "entropy_k"]
        rules = [
            (self.mode in MODES, f"mode '{self.mode}' is unknown; choose {' or '.join(MODES)}"),
            (self.measure in stored, f"measure '{self.measure}' is unknown; choose one of {', '.join(stored)}"),
            (is_number(self.roi_mm, 0, 1000), f"the ROI distance must lie between 0 and 1000 mm, got {self.roi_mm}"),
            (
                self.threshold == "stored" or is_number(self.threshold, 0, math.inf),
                f"the threshold must be 'stored' or a number from 0 up, got {self.threshold}",
            ),
            (
                is_number(self.min_region_ml, 0, math.inf),
                f"the smallest region must be 0 mL or more, got {self.min_region_ml}",
            ),
            (
                is_number(self.box_probability, 0, 1),
                f"the box probability must lie in 0 to 1, got {self.box_probability}",
            ),
            (
                is_number(self.miss_probability, 0, 1) and self.miss_probability >= self.box_probability,
                f"the probability of a miss must lie between the box probability ({self.box_probability}) and 1,"
                f" got {self.miss_probability}",
            ),
            (is_number(self.step_size, 0.05, 1), f"the step size must lie between 0.05 and 1, got {self.step_size}"),
            (
                not isinstance(self.export, str) and set(self.export) <= set(EXPORTS),
                f"export {self.export!r} is unknown; choose a list with 'nifti', or an empty one",
            ),
            *(
                (isinstance(getattr(self, name), bool), f"{name} must be true or false, got {getattr(self, name)!r}")
                for name in ("mirroring", "full_volume", "overwrite", "trust_checkpoint", "skip_ct_check")
            ),
        ]
        for holds, message in rules:
            if not holds:
                raise CalibUncertaintyError(message)

    @classmethod
    def names(cls) -> list[str]:
        """The options' names."""
        return [item.name for item in fields(cls)]


def is_number(value, low: float, high: float) -> bool:
    """A finite real number, of Python or numpy, in [low, high]."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and low <= value <= high
        and math.isfinite(value)
    )
