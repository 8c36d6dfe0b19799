"""What an evaluation's report says in words. Plain text; the page escapes it."""

from __future__ import annotations

from collections.abc import Mapping

from .proof_words import FEW_CASES, LEAST_FOR_WILCOXON, count
from .source_case import named

INTERVAL = "Means over cases, in brackets the 95 % interval (bootstrap over cases, BCa)."
LOCALISATION = (
    "Threshold: that of the record, or our default, frozen before these cases were seen. UEO-AUC: mean overlap with the errors when"
    " the most uncertain 0 to 5 % of the domain are flagged. All lie from 0 to 1; AUROC of 0.5 is chance, FPR95 is better when low."
    " Cases without errors are left out of the figures they do not define."
)
PLACES = (
    "Recall of the errors near a predicted surface (within a voxel's diagonal, at least 2 mm) and of the others, when the most"
    " uncertain 1, 2 and 5 % of the domain are flagged; pieces: 26-connected errors of 10 mm³ or more of which a tenth is flagged;"
    " Dice gained: mean over structures when a reader corrects all flagged voxels. All lie from 0 to 1; means over cases, 95 %"
    " intervals."
)
CAPTIONS = {
    "reliability": "All voxels of all cases within the distance of prediction or reference. A calibrated model lies on the dotted"
    " diagonal, an over-confident one below it. Grey: bins of fewer than 1000 voxels.",
    "budget": "Overlap (Dice) of the flagged voxels with the errors, as more of the region of interest is flagged, most uncertain"
    " first; mean over cases. Grey: all errors ranked first, and no order at all.",
    "recall": "Which part of the errors lies in the most uncertain 1, 2 and 5 % of the region of interest; mean over cases,"
    " with 95 % intervals. A dash: no case has such errors.",
    "regions": "Regions of all cases by their stated chance to hold an error, in groups of equal number, and how many did.",
}
WHICH = {"worst": "The worst case", "best": "The best case", "only": "The only case with errors"}
DEFINITIONS = (
    "Error: a voxel whose label is not the reference's; what the reference marks to be ignored counts nowhere.",
    "Error Dice, recall, precision: of the voxels at or above the threshold against the errors (Jungo et al. 2020).",
    "AUROC, AUPRC, FPR95: how well the measure ranks wrong voxels above right ones, over all thresholds.",
    "UEO-AUC 0–5 %: after Brioso et al. (arXiv 2604.11798); divided by the width of the interval (our choice).",
    "Places that segment leaves out of its maps count as background with probability 1 and without uncertainty.",
    "NLL, Brier, ECE: Guo et al. 2017 and Mehrtash et al. 2020; ECE with 20 bins of the highest probability.",
)
SOURCES = (
    "Guo et al. 2017, On Calibration of Modern Neural Networks (ICML) · Mehrtash et al. 2020, Confidence Calibration and Predictive"
    " Uncertainty Estimation for Deep Medical Image Segmentation (IEEE TMI) · Jungo et al. 2020, Analyzing the Quality and"
    " Challenges of Uncertainty Estimations for Brain Tumor Segmentation (Front. Neurosci.) · Efron and Tibshirani 1993, An"
    " Introduction to the Bootstrap · Wilcoxon 1945 · Holm 1979"
)
_STATUS = {
    "single_member": "needs several members", "not_computed": "not asked for", "no_law": "needs a calibration",
}  # fmt: skip
_FIGURES = {
    "dice": "Dice, mean", "nll": "NLL (nats)", "brier_sum": "Brier, sum", "ece_toplabel": "ECE (%)",
    "at_thresholds.stored.error_dice": "Error Dice at the threshold", "ranking.auroc": "AUROC", "budget.area": "UEO-AUC 0–5 %",
    "at_budgets.0.05.boundary_recall": "Boundary recall at 5 %",
    "at_budgets.0.05.non_boundary_recall": "Non-boundary recall at 5 %",
}  # fmt: skip


def domain(name: str, roi_mm: float) -> str:
    """A domain in words."""
    return {
        "union": f"Within {roi_mm:g} mm of a predicted or drawn structure",
        "pred": f"Within {roi_mm:g} mm of a predicted structure (what a new patient has)",
        "box": "The whole box of the maps",
        "body": "In the patient's body",
    }[name]


def figure(key: str) -> str:
    """The name of a figure that is compared."""
    return _FIGURES.get(key, key)


def errors(content: Mapping, place: str) -> str:
    """How many voxels of a domain are wrong, for each configuration (those that differ)."""
    said = []
    for name, of in content["configurations"].items():
        found = (of.get("errors") or {}).get(place)
        if found:
            share = f" ({100 * found['errors'] / found['voxels']:.2g} %)" if found["voxels"] else ""
            said.append((f"{found['errors']:,} of {found['voxels']:,} voxels are wrong{share}", name))
    texts = dict.fromkeys(text for text, _ in said)
    if len(texts) == 1:
        return f"{next(iter(texts))}."
    return "".join(f"{name}: {text}. " for text, name in said).strip()


def measure(name: str, title: str | None) -> str:
    """A measure in words, with the name by which options and tables know it: "Lack of confidence (conf)"."""
    return f"{title} ({name})" if title and title.lower() != name else title or name


def status(key: str) -> str:
    """Why a measure has no map, in words."""
    return _STATUS.get(key, key.replace("_", " "))


def not_computed(content: Mapping) -> str:
    """The measures that no configuration has, and why; empty where there are none."""
    known = [of["measures"] for of in content["configurations"].values() if of.get("measures")]
    there = {name for measures in known for name, about in measures.items() if about["domains"]}
    missing = {
        measure(name, about["title"]): status(about["status"])
        for measures in known for name, about in measures.items() if name not in there
    }  # fmt: skip
    return f"Without a map: {'; '.join(f'{title}: {why}' for title, why in missing.items())}." if missing else ""


def summary(content: Mapping) -> str:
    """How many cases and configurations, and what of them failed."""
    total, configurations = len(content["cases"]), content["configurations"]
    used = {of["cases_used"] for of in configurations.values()}
    text = f"{count(total, 'test case')}, {count(len(configurations), 'configuration')}. "
    if used == {total}:
        return f"{text}Every case worked under every configuration."
    each = "; ".join(f"{name}: {of['cases_used']} of {of['cases_total']}" for name, of in configurations.items())
    return f"{text}Cases used: {each}."


def warnings(content: Mapping) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    failed = {item["case"] for item in content["failed"]}
    if failed:
        said.append(
            f"{count(len(failed), 'case')} failed under some configuration and {'is' if len(failed) == 1 else 'are'} left out"
            " there, and out of the comparisons with it; see the list at the end."
        )
    there = {name: of for name, of in content["configurations"].items() if of.get("by_case")}
    for name in (name for name in content["configurations"] if name not in there):
        said.append(f"{name}: no case worked; it has no figures.")
    for name, of in there.items():
        if of["calibration_asked"] != "none" and not (of.get("applied") or {}).get("calibrated"):
            reason = (of.get("applied") or {}).get("reason", "")
            said.append(f"{name}: no calibration was applied{': ' + reason if reason else ''}.")
        if of["fitted_on"]:
            said.append(f"{name}: its calibration was fitted on {named(of['fitted_on'])}; its figures flatter it.")
        missed = of["calibration"]["pred"]["missed_structure"]
        if missed:
            said.append(f"{name}: in {count(missed, 'case')} nothing was predicted though something is drawn.")
        without = of["errors"]["pred"]["cases_without_errors"]
        if without:
            said.append(f"{name}: {count(without, 'case')} without any error near what was predicted.")
    least = min((of["cases_used"] for of in there.values()), default=0)
    if 0 < least < FEW_CASES:
        tested = "; no Wilcoxon p below 0.05 is possible" if least < LEAST_FOR_WILCOXON else ""
        said.append(f"Only {count(least, 'case')}: intervals of so few are rough, and tend to be too narrow{tested}.")
    return said
