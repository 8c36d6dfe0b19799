"""The figures of one case: overlap, calibration, what each measure says about the errors, and whether listed regions hold one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..inference.scratch import Scratch
from .evaluate_localisation import localisation_of, regions_of
from .evaluate_window import CaseWindow
from .fit import new_metrics

DOMAINS = ("union", "pred", "box")  # of the calibration figures, and the body, where it is the region of interest
OF_CALIBRATION = (
    "n", "nll", "brier_sum", "brier_mean", "ece_toplabel", "smooth_ece", "mce_toplabel", "ece_class", "ace_class", "accuracy",
    "mean_confidence", "signed_gap", "status",
)  # fmt: skip


def figures_of(window: CaseWindow, folder: Path, roi_reference: str = "pred") -> dict:
    """Every figure of one case.

    folder: a place for large arrays. roi_reference: whose domain comes first among those of the error localisation.
    Returns {"dice": {structure: ...}, "calibration": {domain: ...}, "errors": {domain: ...}, "measures": {measure: {domain: ...}},
    "regions": [...]}; unknown figures are NaN.
    """
    others = [name for name in ("pred", "union") if name != roi_reference]
    domains = {name: window.domain(name) for name in (*DOMAINS, *(("body",) if window.result.of_body else ()))}
    with Scratch(folder) as scratch:
        p = window.probabilities(scratch)
        calibration = {name: _calibration(window, p, domain.mask) for name, domain in domains.items()}
        dice = _dice(window, p)
        del p
    for name, domain in domains.items():
        calibration[name] |= {"domain": domain.id, "missed_structure": domain.missed_structure}
    return {
        "dice": dice,
        "calibration": calibration,
        **localisation_of(window, {name: domains[name] for name in (roi_reference, *others)}),
        "regions": regions_of(window),
        "labels": {"wrong": int(np.count_nonzero(window.error)), "known": int(np.count_nonzero(window.valid))},
    }


def _calibration(window: CaseWindow, p: np.ndarray, mask: np.ndarray) -> dict:
    """Figures of the probabilities in one domain, with the bins of the reliability diagram; see `CalibrationMetrics`."""
    metrics = new_metrics(window.reference)
    for part in window.parts():
        inside = mask[part]
        if inside.any():
            metrics.add(np.ascontiguousarray(p[:, part][:, inside]), window.reference.truth(window.truth[part][inside]))
    full = metrics.full_result()
    found = {key: full[key] for key in OF_CALIBRATION if key in full}
    return found | {
        "bins": [{key: item[key] for key in ("lower", "upper", "n", "confidence", "accuracy")} for item in full["bins"]]
    }


def _dice(window: CaseWindow, p: np.ndarray) -> dict[str, dict]:
    """Dice of each structure over the whole CT: 2 |P and G| / (|P| + |G|), NaN where it is neither drawn nor predicted.

    Of regions that may overlap P is where the region's probability exceeds 0.5, and G the region's union of labels.
    """
    heads = window.reference.heads
    counts = {name: np.zeros(3, np.int64) for name in heads.names}
    for part in window.parts():
        valid = window.valid[part]
        truth = window.truth[part][valid]
        drawn = window.reference.truth(truth) if heads.sigmoid else None
        label = window.label[part][valid]
        for place, (name, value) in enumerate(zip(heads.names, heads.values, strict=True)):
            predicted = p[place][part][valid] > 0.5 if heads.sigmoid else label == value
            wanted = drawn[place] if heads.sigmoid else truth == value
            counts[name] += [
                np.count_nonzero(predicted & wanted),
                np.count_nonzero(predicted),
                np.count_nonzero(wanted),
            ]
    ml = math.prod(window.spacing) / 1000.0
    return {name: _overlap(*(int(n) for n in of), ml) for name, of in counts.items()}


def _overlap(both: int, predicted: int, drawn: int, ml: float) -> Mapping:
    empty = predicted + drawn == 0
    return {
        "dice": math.nan if empty else 2.0 * both / (predicted + drawn),
        "status": "both_empty" if empty else "ok",
        "predicted_ml": predicted * ml,
        "reference_ml": drawn * ml,
    }
