"""Which way to calibrate: every candidate is judged on cases that it was not fitted on."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from ..calibration.methods import METHODS
from ..errors import CalibUncertaintyError
from ..evaluation.metrics import mean_over_cases
from ..model.record_check import MEMBER_MODES, POOL_MODES
from ..progress import Progress
from .candidates import Candidate, Reference, calibrated, fit_candidates, parts
from .fit import new_metrics
from .labelled import RoiVoxels

MOST_FOLDS = 5
SAME_NLL = 1e-4  # relative; where nothing more is gained, the one number of a temperature is to be preferred


def candidates_of(mode: str, method: str, n_members: int, sigmoid: bool) -> list[Candidate]:
    """The candidates that a mode and a method mean, either of which may be auto.

    mode: one of `MODES`, "pool" (both ways of pooling first), "all", or "auto" (as all, to choose from). method: a name, or
    "auto": every method that is there and looks at each voxel by itself; the others take minutes a fit and are asked for by name.
    Modes that calibrate single members mean nothing with one member and are left out.
    Raises CalibUncertaintyError where nothing is left, or mode and method do not go together.
    """
    several = ("pool_logit", "pool_prob", *(MEMBER_MODES if n_members > 1 else ()))
    modes = {"pool": POOL_MODES, "all": several, "auto": several}.get(mode, (mode,))
    if n_members < 2 and set(modes) <= set(MEMBER_MODES):
        raise CalibUncertaintyError(
            f"mode {mode} calibrates several members one by one, and there is only one; choose pool_logit"
        )
    names = [method]
    if method == "auto":
        names = [name for name, item in METHODS.items() if not item.spatial and _can_run(name, sigmoid)]
    found = [Candidate(one, "temperature") for one in modes if "temperature" in names]
    for name in (name for name in names if name != "temperature"):
        # the pool in question is stock nnU-Net's unless another was asked for
        found += [Candidate(mode if mode in POOL_MODES else "pool_logit", name)]
        if mode in MEMBER_MODES and method != "auto":
            Candidate(mode, name)  # says why not
    return found


def _can_run(name: str, sigmoid: bool) -> bool:
    method = METHODS[name]
    installed = not method.extra or importlib.util.find_spec(method.extra) is not None
    return installed and not (sigmoid and method.preserves_regions is None)


def compare(
    cases: Sequence[RoiVoxels], candidates: Sequence[Candidate], reference: Reference, progress: Progress
) -> list[dict]:
    """Cross-validation over cases: each is looked at by fits of the others; one row a candidate, the best first.

    Chosen is the least mean NLL over cases among the candidates that give no voxel another label than stock nnU-Net's
    ensemble; with regions, than its decisions drawn into one segmentation. A temperature as good to `SAME_NLL` goes
    first. Rows: mode, method, nll_cv and ece_cv (means over the held-out cases), changed_labels, folds, chosen.
    Raises CalibUncertaintyError with fewer than two cases that have voxels.
    """
    used = [voxels for voxels in cases if voxels.size]
    if len(used) < 2:
        raise CalibUncertaintyError(
            "to compare ways of calibrating at least two cases are needed; name --mode and --method"
        )
    folds = min(MOST_FOLDS, len(used))
    results: dict[Candidate, list[dict]] = {candidate: [] for candidate in candidates}
    changed = dict.fromkeys(candidates, 0)
    for fold in range(folds):
        progress.report(fold / folds, f"comparing {len(candidates)} ways of calibrating, part {fold + 1} of {folds}")
        fitted = fit_candidates([v for i, v in enumerate(used) if i % folds != fold], candidates, reference)
        for voxels in used[fold::folds]:
            for candidate, found in fitted.items():
                metrics = new_metrics(reference)
                for part in parts(voxels):
                    p, label, _ = calibrated(voxels, part, found.applied)
                    metrics.add(p, reference.truth(voxels.labels[part]))
                    stock = reference.heads.label_of_logits(voxels.pooled[:, part])
                    changed[candidate] += int(np.count_nonzero(label != stock))
                results[candidate].append(metrics.result())
    rows = [
        {
            "mode": candidate.mode, "method": candidate.method, "nll_cv": mean["nll"], "ece_cv": mean["ece_toplabel"],
            "changed_labels": changed[candidate], "folds": folds, "chosen": False,
        }
        for candidate, mean in ((candidate, mean_over_cases(of)) for candidate, of in results.items())
    ]  # fmt: skip
    rows.sort(key=lambda row: row["nll_cv"])
    allowed = [row for row in rows if row["changed_labels"] == 0]
    if not allowed:
        raise CalibUncertaintyError(
            "every way of calibrating that was compared changes labels; name --mode and --method"
        )
    enough = allowed[0]["nll_cv"] * (1 + SAME_NLL)
    simple = (row for row in allowed if row["method"] == "temperature" and row["nll_cv"] <= enough)
    next(simple, allowed[0])["chosen"] = True
    return rows
