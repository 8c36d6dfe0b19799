"""From the voxels of labelled cases to a record's entries: temperatures or other methods, figures before and after, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import CalibUncertaintyError
from ..evaluation.metrics import CalibrationMetrics, RegionMetrics, mean_over_cases
from ..model.calibrated_range import CalibratedRange
from ..model.folder import Fold
from ..model.record import CalibrationEntry
from ..progress import Progress
from ..uncertainty.roi import roi_mask
from .applied import AppliedCalibration
from .calibrated_case import CalibratedCase, calibrated_cases
from .candidates import Candidate, FittedCandidate, Reference, calibrated, fit_candidates, parts
from .fit_maps import maps_of_entry, threshold_fits
from .labelled import RoiVoxels

__all__ = ["Reference", "entry_of", "figures", "fit_entries", "parts"]
_FIGURES = (
    "n", "nll", "ece_toplabel", "brier_sum", "brier_mean", "accuracy", "mean_confidence", "signed_gap", "ece_class", "ace_class",
    "mce_toplabel", "smooth_ece", "dice",
)  # fmt: skip
_OF_DOMAIN = ("n", "cases_used", "nll", "ece_toplabel", "ece_class", "brier_sum")
_OF_CLASS = ("ece", "ace", "signed_gap", "dice", "bins")


def new_metrics(reference: Reference) -> CalibrationMetrics | RegionMetrics:
    """An accumulator of voxels for the figures."""
    heads = reference.heads
    return RegionMetrics(heads.names) if heads.sigmoid else CalibrationMetrics(heads.channels, names=reference.classes)


def fit_entries(
    cases: Sequence[RoiVoxels], members: dict, reference: Reference, roi_mm: float, bootstrap: int, progress: Progress,
    candidates: Sequence[Candidate] = (Candidate(), Candidate("pool_prob")), source: str = "held_out",
    compared: Sequence[dict] = (),
) -> list[CalibrationEntry]:  # fmt: skip
    """One entry for each candidate, of everything that was collected.

    members: as they stand in the record. roi_mm: the distance that the voxels were collected in. bootstrap: draws of cases.
    source, compared: as they stand in the entries. Raises CalibUncertaintyError where there is no voxel at all.
    """
    if not any(case.size for case in cases):
        raise CalibUncertaintyError("no structure was predicted or drawn in any case; there is nothing to calibrate on")
    progress.report(0.0, "fitting")
    fitted = fit_candidates(cases, candidates, reference, bootstrap)
    for message in dict.fromkeys(message for found in fitted.values() for message in found.warnings):
        progress.warn(f"{message}; the calibration says nothing about the others")
    entries = []
    for number, (candidate, found) in enumerate(fitted.items()):
        progress.report(0.5 + 0.5 * number / len(fitted), f"figures and thresholds: {candidate}")
        entries.append(entry_of(cases, found, members, reference, roi_mm, progress, source, compared))
    return entries


def ensemble_entries(
    of_folds: Mapping[Fold, Sequence[RoiVoxels]], members: dict, reference: Reference, roi_mm: float, bootstrap: int,
    progress: Progress,
) -> list[CalibrationEntry]:  # fmt: skip
    """Entries of several folds together from what each says alone about the cases it did not see: modes `shared` and `member`.

    shared: one temperature with the least NLL over all of these; member: each fold's own. The figures are those of the single
    folds at these temperatures, not of their mean, which no case is there for.
    """
    numbered = [
        replace(voxels, sources=(number,) * len(voxels.members))
        for number, voxels_of in enumerate(of_folds.values())
        for voxels in voxels_of
    ]
    fitted = fit_candidates(numbered, [Candidate("shared"), Candidate("member")], reference, bootstrap)
    # maps of one fold are no maps of several: no thresholds
    return [
        entry_of(numbered, found, members, reference, roi_mm, progress, "out_of_fold", with_maps=False)
        for found in fitted.values()
    ]


def entry_of(
    cases: Sequence[RoiVoxels], found: FittedCandidate, members: dict, reference: Reference, roi_mm: float, progress: Progress,
    source: str = "held_out", compared: Sequence[dict] = (), with_maps: bool = True,
) -> CalibrationEntry:  # fmt: skip
    """A fitted candidate as it stands in the record, with figures before and after.

    with_maps: and with what the maps need: thresholds, laws, chances of regions.
    """
    candidate, after = found.candidate, found.applied
    if found.status != "ok" and candidate.method == "temperature":
        values = after.member_temperatures or after.temperature
        shown = ", ".join(f"{value:g}" for value in np.ravel(values))
        progress.warn(
            f"{candidate.mode}: the temperature ran to its limit ({shown}, {found.status}); look at the cases"
        )
    before = AppliedCalibration(candidate.mode, heads=reference.heads)
    is_temperature = candidate.method == "temperature"
    each = after.member_temperatures
    fits = threshold_fits(reference.heads, len(cases[0].members)) if with_maps else {}
    with calibrated_cases(cases, after, reference, fits) as (looked_at, scratch):
        maps = maps_of_entry(looked_at, fits, reference, roi_mm, scratch) if with_maps else {"thresholds": {}}
        maps["range"] = _range(looked_at, reference, roi_mm)
    return CalibrationEntry(
        members=members,
        mode=candidate.mode,
        method=candidate.method,
        temperature=_plain(after.temperature) if is_temperature and each is None else None,
        temperature_interval=_known(found.interval) if found.interval is not None else None,
        temperature_status=found.status,
        member_temperature=None if each is not None else _plain(after.member_temperature),
        member_temperatures=None if each is None else [_plain(value) for value in each],
        parameters=found.parameters,
        roi={"distance_mm": roi_mm, "reference": "body" if cases[0].of_body else "union"},
        cases=list(found.cases),
        figures={
            "evaluated_on": "fit",
            "before": figures(cases, before, reference, roi_mm),
            "after": figures(cases, after, reference, roi_mm),
        },
        **maps,
        source=source,
        compared=list(compared),
    )


def _plain(temperature: float | Sequence[float]) -> float | list[float]:
    return float(temperature) if np.isscalar(temperature) else [float(value) for value in temperature]


def _known(interval: Sequence) -> list | None:
    """The interval, or None where there is none (one case only, no bootstrap); of regions one each, or None for all."""
    if np.isscalar(interval[0]):
        return [float(end) for end in interval] if all(map(math.isfinite, interval)) else None
    each = [_known(of_region) for of_region in interval]
    return each if any(each) else None


def figures(
    cases: Sequence[RoiVoxels], calibration: AppliedCalibration, reference: Reference, roi_mm: float | None = None
) -> dict:
    """Every figure over the ROI voxels, as mean over cases and pooled over all voxels; see `CalibrationMetrics.full_result`.

    roi_mm: the ROI's distance; then means over cases of the voxels within it of the prediction alone stand under "domains", as a
    new patient has no reference to be near to.
    """
    results, near_prediction, pooled, changed, against_stock = [], [], new_metrics(reference), 0, 0
    for voxels in cases:
        metrics, of_prediction = new_metrics(reference), new_metrics(reference)
        for part in parts(voxels):
            p, label, by_calibration = calibrated(voxels, part, calibration)
            truth = reference.truth(voxels.labels[part])
            metrics.add(p, truth)
            if roi_mm is not None:
                near = voxels.near_prediction[part]
                of_prediction.add(p[:, near], truth[..., near])
            changed += by_calibration
            against_stock += int(np.count_nonzero(label != reference.heads.label_of_logits(voxels.pooled[:, part])))
        results.append(metrics.full_result())
        near_prediction.append(of_prediction.full_result())
        pooled.merge(metrics)
    whole = pooled.full_result()
    by_name = "regions" if "regions" in whole else "classes"
    classes = whole.pop(by_name)
    place = "body" if cases[0].of_body else f"dist:{roi_mm or 0:g}:pred"
    domains = {} if roi_mm is None else {"domains": {place: _of_domain(near_prediction)}}
    return {
        "per_case": {**mean_over_cases(results), **_means(results)},
        "pooled": {
            **{key: value for key, value in whole.items() if key != "bins"},
            by_name: {name: {key: found[key] for key in found if key != "bins"} for name, found in classes.items()},
        },
        "cases": {voxels.case.id: _of_case(result) for voxels, result in zip(cases, results, strict=True)},
        "bins": whole["bins"],
        "classes": {name: {key: found[key] for key in _OF_CLASS if key in found} for name, found in classes.items()},
        "changed_by_temperature": changed,
        "differs_from_stock": against_stock,
        **domains,
    }


def _of_domain(results: Sequence[dict]) -> dict:
    means = {**mean_over_cases(results), **_means(results)}
    return {key: means[key] for key in _OF_DOMAIN if key in means}


def _of_case(result: dict) -> dict:
    found = {key: result[key] for key in _FIGURES if key in result}
    classes = result.get("regions") or result["classes"]
    return found | {
        "dice_per_class": {name: of_class["dice"] for name, of_class in classes.items() if name != "background"}
    }


def _means(results: Sequence[dict]) -> dict:
    """Means over cases of the figures that `mean_over_cases` does not know; NaN cases are left out of each."""
    found = {}
    for key in ("ece_class", "ace_class", "mce_toplabel", "smooth_ece", "dice"):
        known = [result[key] for result in results if key in result and math.isfinite(result[key])]
        found[key] = float(np.mean(known)) if known else math.nan
    return found


def _range(cases: Sequence[CalibratedCase], reference: Reference, roi_mm: float) -> dict | None:
    """What these cases look like to this calibration; None where their images are not known (stored probabilities)."""
    heads = reference.heads
    names = dict(zip(heads.values, heads.names, strict=True))
    traits = []
    for case in cases:
        voxels = case.voxels
        if voxels.traits is None:
            return None
        near = roi_mask(voxels.places.distance, roi_mm) if voxels.of_body else voxels.near_prediction
        traits.append(
            voxels.traits.with_run(case.entropy, case.label, near, names, voxels.voxel_ml, roi_mm)
        )
    return CalibratedRange.of(traits).to_json()
