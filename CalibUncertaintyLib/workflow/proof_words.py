"""What a proof says in words: the verdict, its warnings, and what was calibrated. Plain text; the page escapes it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .proof_numbers import BY_KEY, UNKNOWN, case_ids, changed_labels, changes_decisions, column, number, pooled

FEW_CASES = 10
LEAST_FOR_WILCOXON = 6  # pairs; with fewer no p below 0.05 is possible
LISTED = 12  # values of a parameter on the page; all are in proof.json
BODY = "in the patient's body"
_ROI_REFERENCE = {
    "union": "the predicted or the reference structures",
    "pred": "the predicted structures",
    "gt": "the reference structures",
}
_MODES = {
    "pool_logit": "the members' logits are averaged, as stock nnU-Net does, and the mean is calibrated",
    "pool_prob": "the members' probabilities are averaged, and the mean is calibrated",
    "member": "each member is calibrated by itself, then their probabilities are averaged",
    "shared": "all members are calibrated with the same parameters, then their probabilities are averaged",
}
_EVALUATED_ON = {
    "fit": "The figures are of the cases the calibration was fitted on, so they flatter it: on new cases expect somewhat worse.",
    "cross_validation": "The figures are cross-validated: every case was calibrated by a fit that had not seen it.",
    "held_out": "The figures are of cases that were kept out of the fit.",
}
DOES_MEAN = (
    "On cases like the calibration cases, of all voxels shown with a probability of about 70 %, about 70 % are right.",
    "Modern networks are over-confident: of the voxels to which they give 95 %, far fewer are right. Calibration fits the stated"
    " probabilities to the frequencies that were observed on labelled cases the model was not trained on.",
)
DOES_NOT_MEAN = (
    "that the 70 % holds for each patient, scanner or structure alone: look at the spread of the cases below;",
    "anything on cases unlike those it was fitted on, such as another protocol, another anatomy or an implant;",
    "anything about the whole contour: it is a statement about voxels, and neighbouring voxels err together;",
    "that the segmentation got better: calibration changes how sure the model says it is, not what it knows.",
)


def count(n: float, one: str, many: str = "") -> str:
    """ "1 case", "312,403 voxels"."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def verdict(proof: Mapping, statistics: Mapping) -> list[str]:
    """What came out, in sentences: ECE and NLL over the cases, and the labels."""
    said = [text for key in ("ece_toplabel", "nll") if (text := _change(key, statistics["metrics"].get(key)))]
    changed, voxels = changed_labels(proof), pooled(proof, "after", "n")
    if not math.isnan(changed):
        of = f" of {count(voxels, 'voxel')}" if voxels > 0 else ""
        many = f" ({100 * changed / voxels:.3g} %)" if voxels > 0 and changed > 0 else ""
        said.append(f"Calibration changed the label of {changed:,.0f}{of}{many}.")
    return said


def _change(key: str, found: Mapping | None) -> str:
    if not found or math.isnan(found["difference"]["mean"]):
        return ""
    metric, difference = BY_KEY[key], found["difference"]
    before, after = (metric.text(found[when]["mean"]) for when in ("before", "after"))
    unit = f" {metric.unit}" if metric.unit else ""
    name = {"ece_toplabel": "calibration error (ECE)", "nll": "negative log-likelihood (NLL)"}[key]
    moved = "stayed at" if before == after else "fell" if difference["mean"] < 0 else "rose"
    text = f"Over {count(difference['used'], 'case')} the mean {name} {moved}"
    text += f" {after}{unit}" if before == after else f" from {before}{unit} to {after}{unit}"
    if difference["status"] == "ok":
        ends = " to ".join(metric.text(difference[end], signed=True) for end in ("lower", "upper"))
        text += (
            f" (difference {metric.text(difference['mean'], signed=True)}{unit}, 95 % interval over cases {ends}{unit}"
        )
        text += f"; Wilcoxon p {p_text(found['wilcoxon'])})"
    return f"{text}."


def p_text(test: Mapping) -> str:
    """The p of a signed-rank test; a dash where it is unknown."""
    p = test["p"]
    if test["status"] == "no_scipy":
        return "needs scipy"
    return UNKNOWN if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def warnings(proof: Mapping, statistics: Mapping) -> list[str]:
    """What a reader must know before believing the figures."""
    said = [_EVALUATED_ON["fit"]] if (proof.get("evaluated_on") or "fit") == "fit" else []
    said += _decisions(proof, statistics)
    status = proof.get("parameters", {}).get("status", "ok")
    if status not in ("ok", None):
        said.append(f"The fit ran to its limit ({status}); look at the cases before using this calibration.")
    for key in ("nll", "ece_toplabel"):
        found = statistics["metrics"].get(key)
        shown = [BY_KEY[key].text(found[when]["mean"]) for when in ("before", "after")] if found else ["", ""]
        if found and found["difference"]["mean"] > 0 and shown[0] != shown[1]:
            said.append(f"The mean {BY_KEY[key].title} is worse after calibration than before.")
    ids = case_ids(proof)
    known = [not math.isnan(value) for value in column(proof, "after", "nll")]
    empty = [case for case, there in zip(ids, known, strict=True) if not there]
    if empty:
        names = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        said.append(f"{count(len(empty), 'case')} of {len(ids)} had no figures and is left out of the means: {names}.")
    used = len(ids) - len(empty)
    if 0 < used < FEW_CASES:
        tested = "; no Wilcoxon p below 0.05 is possible" if used < LEAST_FOR_WILCOXON else ""
        said.append(f"Only {count(used, 'case')}: intervals of so few are rough, and tend to be too narrow{tested}.")
    return said


def _decisions(proof: Mapping, statistics: Mapping) -> list[str]:
    """For a calibration that changes what is segmented: how many voxels, and the Dice before and after."""
    if not changes_decisions(proof):
        return []
    changed, dice = changed_labels(proof), statistics["metrics"].get("dice")
    text = "This calibration can change the segmentation"
    text += f", and changed the label of {count(changed, 'voxel')} of these cases." if changed > 0 else "."
    if dice and not math.isnan(dice["difference"]["mean"]):
        before, after = (BY_KEY["dice"].text(dice[when]["mean"]) for when in ("before", "after"))
        text += f" Mean Dice before: {before}, after: {after}. Look at the Dice of every structure before using it."
    else:
        text += " The Dice before and after was not measured: do not use it before it is."
    return [text]


def evaluated_on(proof: Mapping) -> str:
    """Which cases the figures are of, in a sentence; of those that were fitted on it is `warnings` that says so."""
    kind = str(proof.get("evaluated_on") or "fit")
    return "" if kind == "fit" else _EVALUATED_ON.get(kind, kind)


def mode(proof: Mapping) -> str:
    """How members are pooled, with its name."""
    name = str(proof.get("mode", ""))
    return f"{name}: {_MODES[name]}" if name in _MODES else name


def roi(proof: Mapping) -> str:
    """Where voxels were taken from."""
    found = proof.get("roi") or {}
    distance, reference = number(found.get("distance_mm")), found.get("reference")
    if reference == "body":
        return BODY
    if not math.isnan(distance) and reference in _ROI_REFERENCE:
        return f"within {distance:g} mm of {_ROI_REFERENCE[reference]}"
    return ", ".join(f"{key}: {value}" for key, value in found.items()) or "the whole volume"


def domain(name: str) -> str:
    """Where voxels were taken from, of a domain's name, such as dist:15:pred."""
    if name == "body":
        return BODY
    kind, *rest = name.split(":")
    if kind == "dist" and len(rest) == 2 and rest[1] in _ROI_REFERENCE:
        return f"within {rest[0]} mm of {_ROI_REFERENCE[rest[1]]}"
    return name


def parameters(proof: Mapping) -> list[tuple[str, str]]:
    """Name and value of each fitted parameter; what is one a structure is named by structure, long ones are counted."""
    classes = [str(name) for name in proof.get("classes") or ()]
    return [
        (str(name).replace("_", " "), _value(value, classes))
        for name, value in (proof.get("parameters") or {}).items()
        if value is not None
    ]


def _value(value: object, classes: list[str]) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_value(item, [])}" for key, item in value.items())
    if not isinstance(value, list | tuple):
        found = number(value)
        return f"{found:.4g}" if not math.isnan(found) else "unknown" if value is None else str(value)
    shape = _shape(value)
    if math.prod(shape) > LISTED and len(value) != len(classes):
        return f"{' × '.join(map(str, shape))} values, in proof.json"
    items = [_value(item, []) for item in value]
    if classes and len(items) == len(classes):
        return "; ".join(f"{name}: {item}" for name, item in zip(classes, items, strict=True))
    return " to ".join(items) if len(items) == 2 else ", ".join(items)


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return (len(value), *(_shape(value[0]) if value else ()))
