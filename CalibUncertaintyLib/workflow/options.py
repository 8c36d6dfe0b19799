"""What one may choose about a run of `segment` or `calibrate`, and what of it is refused."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.folder import Fold, ModelFolder
from ..model.member_set import MemberSet, check_member_values
from .applied import MODES
from .chosen_measures import ALL, rule_of

EXPORTS = ("nifti",)
STRUCTURES, BODY = "structures", "body"
ROIS = (STRUCTURES, BODY)
PRECISIONS = ("stock", "bf16")
HIGHEST_THRESHOLD = 1e6  # no measure comes near it, and maps in single precision can be compared with it


@dataclass(frozen=True)
class MemberOptions:
    """Which members are asked, and how they are computed; `segment` and `calibrate` share these.

    folds: "all" or a list of folds, of each model. checkpoints: None for checkpoint_final.pth; file names, patterns such as
    "checkpoint_cycle*", or "all", the same in every fold. flips: "mean" (nnU-Net's mirroring, averaged inside each member), "off",
    or "members" (each flip a member). mirroring: False is an older name for flips="off". dropout: samples a network with its
    dropout active, 0 for none; seed: of their random numbers; insert_dropout: rate in (0, 1) of dropout put into a network that
    was trained without. device: auto, cpu, cuda, cuda:1, mps. precision: "stock" (as nnU-Net computes) or "bf16" (CPUs that have
    it; how many labels differ is counted). step_size: of nnU-Net's sliding window, of the patch. trainers: folder with the files
    of custom trainer classes; their code is run. previous: model folder of a cascade's first stage, where it does not lie beside
    the second's. trust_checkpoint: read checkpoints that hold more than data.
    """

    folds: str | Sequence[Fold] = "all"
    checkpoints: str | Sequence[str] | None = None
    flips: str = "mean"
    mirroring: bool = True
    dropout: int = 0
    seed: int = 0
    insert_dropout: float | None = None
    device: str = "auto"
    precision: str = "stock"
    step_size: float = 0.5
    trainers: str | os.PathLike | None = None
    previous: str | os.PathLike | None = None
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        check_member_values(self.flips, self.dropout, self.seed, self.insert_dropout)
        refuse_first(paths(self, "trainers", "previous"))
        rules = [
            (
                self.precision in PRECISIONS,
                f"precision '{self.precision}' is unknown; choose {' or '.join(PRECISIONS)}",
            ),
            (is_number(self.step_size, 0.05, 1), f"the step size must lie between 0.05 and 1, got {self.step_size}"),
            *truths(self, "mirroring", "trust_checkpoint"),
            (
                self.mirroring or self.flips != "members",
                "flips as members and mirroring switched off contradict each other; choose one of them",
            ),
            (
                self.trainers is None or Path(self.trainers).is_dir(),
                f"{self.trainers} is not a folder; give the one that holds the trainer's .py file",
            ),
        ]
        refuse_first(rules)
        flips = self.flips if self.mirroring else "off"
        object.__setattr__(self, "flips", flips)
        object.__setattr__(self, "mirroring", flips != "off")

    def members_of(self, model: ModelFolder | str | Path | Sequence[ModelFolder | str | Path]) -> MemberSet:
        """The members that these options mean in one model folder, or in several together."""
        return MemberSet.choose(
            model, self.folds, self.checkpoints, self.flips, self.dropout, self.seed, self.insert_dropout, self.previous
        )

    @classmethod
    def names(cls) -> list[str]:
        """The options' names."""
        return [item.name for item in fields(cls)]


@dataclass(frozen=True)
class SegmentOptions(MemberOptions):
    """Everything one may choose about a run of `segment`, with its defaults; see `MemberOptions` for the members.

    calibration: auto, none, or a record file. mode: pool_logit (labels as stock nnU-Net's) or pool_prob. roi_mm: how far from
    the predicted structures uncertain regions are listed, mm. roi: "structures" for that, or "body": uncertain regions are listed
    anywhere in the patient's body (`body_of`), the maps reach all of it, as full_volume's do, and roi_mm is from where on a
    possible miss is listed. measure, threshold: what regions are made of; "stored" takes the record's threshold, or our default
    where there is none. measures: which are computed beside that one: "standard" (all that cost next to nothing), "all", or a list
    of names. min_region_ml: smaller regions are not listed. merge_gap_mm: regions no
    farther from each other than this, mm, are one. miss_probability: foreground probability beyond the ROI that is listed as a
    possible miss. box_probability: every place whose foreground probability can exceed this, at most 0.5, is kept in the maps.
    full_volume: maps of the whole CT. export: ("nifti",) writes every map on the CT grid. overwrite: replace an earlier Result.
    series: DICOM SeriesInstanceUID. skip_ct_check: take any voxel values.
    """

    calibration: str = "auto"
    mode: str = "pool_logit"
    roi_mm: float = 15.0
    roi: str = STRUCTURES
    measure: str = "entropy"
    measures: str | Sequence[str] = "standard"
    threshold: str | float = "stored"
    min_region_ml: float = 0.1
    merge_gap_mm: float = 2.0
    miss_probability: float = 0.1
    box_probability: float = 0.01
    full_volume: bool = False
    export: Sequence[str] = ()
    overwrite: bool = False
    series: str | None = None
    skip_ct_check: bool = False

    @property
    def whole_maps(self) -> bool:
        """Whether the maps may be of the whole CT."""
        return self.full_volume or self.roi == BODY

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_first(paths(self, "calibration"))
        rules = [
            (self.mode in MODES, f"mode '{self.mode}' is unknown; choose {' or '.join(MODES)}"),
            (self.measure in ALL, f"measure '{self.measure}' is unknown; choose one of {', '.join(ALL)}"),
            rule_of(self.measures),
            (is_number(self.roi_mm, 0, 1000), f"the ROI distance must lie between 0 and 1000 mm, got {self.roi_mm}"),
            roi_rule(self),
            (
                self.threshold == "stored" or is_number(self.threshold, 0, HIGHEST_THRESHOLD),
                f"the threshold must be 'stored' or a number from 0 to {HIGHEST_THRESHOLD:g}, got {self.threshold}",
            ),
            (
                is_number(self.min_region_ml, 0, math.inf),
                f"the smallest region must be 0 mL or more, got {self.min_region_ml}",
            ),
            (
                is_number(self.merge_gap_mm, 0, 50),
                f"the gap that regions are merged across must lie between 0 and 50 mm, got {self.merge_gap_mm}",
            ),
            (
                # that nothing left out exceeds it, at any temperature in use, holds up to one half only
                is_number(self.box_probability, 0, 0.5),
                f"the box probability must lie in 0 to 0.5, got {self.box_probability}",
            ),
            (
                is_number(self.miss_probability, 0, 1) and self.miss_probability >= self.box_probability,
                f"the probability of a miss must lie between the box probability ({self.box_probability}) and 1,"
                f" got {self.miss_probability}",
            ),
            (
                isinstance(self.export, list | tuple) and all(item in EXPORTS for item in self.export),
                f"export {self.export!r} is unknown; choose a list with 'nifti', or an empty one",
            ),
            *truths(self, "full_volume", "overwrite", "skip_ct_check"),
        ]
        refuse_first(rules)


def roi_rule(options: object) -> tuple[bool, str]:
    """The rule that the region of interest is one that we know, for `refuse_first`."""
    return options.roi in ROIS, f"the ROI '{options.roi}' is unknown; choose {' or '.join(ROIS)}"


def truths(options: object, *names: str) -> list[tuple[bool, str]]:
    """Rules that these options are true or false, for `refuse_first`."""
    return [
        (isinstance(getattr(options, name), bool), f"{name} must be true or false, got {getattr(options, name)!r}")
        for name in names
    ]


def lists(options: object, *names: str) -> list[tuple[bool, str]]:
    """Rules that these options are lists of texts or paths, for `refuse_first`."""
    given = {name: getattr(options, name) for name in names}
    return [
        (
            isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, str | os.PathLike) for item in value),
            f"{name} must be a list of names, got {value!r}",
        )
        for name, value in given.items()
    ]


def paths(options: object, *names: str) -> list[tuple[bool, str]]:
    """Rules that these options are paths, or not given, for `refuse_first`."""
    return [
        (
            getattr(options, name) is None or isinstance(getattr(options, name), str | os.PathLike),
            f"{name} must be a path, got {getattr(options, name)!r}",
        )
        for name in names
    ]


def refuse_first(rules: Sequence[tuple[bool, str]]) -> None:
    """Raise CalibUncertaintyError with the message of the first rule that does not hold."""
    for holds, message in rules:
        if not holds:
            raise CalibUncertaintyError(message)


def is_number(value: object, low: float, high: float) -> bool:
    """A finite real number, of Python or numpy, in [low, high]."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and low <= value <= high
        and math.isfinite(value)
    )
