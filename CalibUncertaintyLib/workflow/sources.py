"""Where the labelled cases of `calibrate` come from: a list, a raw nnU-Net dataset, or probabilities stored by nnU-Net."""

from .labelled import refuse_doubtful_cases, refuse_repeated
from .source_case import LabelledCase
from .source_folds import collect_out_of_fold, members_of_fold, out_of_fold_cases
from .source_manifest import read_cases
from .source_probabilities import collect_npz, npz_of

__all__ = [
    "LabelledCase", "collect_npz", "collect_out_of_fold", "members_of_fold", "npz_of", "out_of_fold_cases", "read_cases",
    "refuse_doubtful_cases", "refuse_repeated",
]  # fmt: skip
