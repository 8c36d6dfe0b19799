"""The page of a proof: one HTML file that needs no other, no script and nothing from the net."""

from __future__ import annotations

import math
from collections.abc import Mapping

from . import proof_words as words
from .page_parts import bullets, document, escaped, picture_of, table_of
from .proof_numbers import (
    DICE,
    IN_CASE_TABLE,
    METRICS,
    UNKNOWN,
    Metric,
    case_ids,
    class_names,
    dice_names,
    dice_of,
    metrics_in,
    number,
    of_case,
    voxels_of,
)
from .proof_pictures import drawn_classes

DICE_COLUMNS = 7
_PERCENT = Metric("relative", "Relative", "%", 100, 0, "", "")
_CAPTIONS = {
    "reliability": "Reliability diagram. Each point is a bin of voxels of about the same confidence; a calibrated model lies"
    " on the dotted diagonal, an over-confident one below it. Bars: voxels in each bin (logarithmic). Grey: bins of fewer than"
    " 1000 voxels, too few to be read; they still count in the ECE.",
    "classes": "The same for the probability of each structure: of all voxels given about this probability, how many belong to"
    " it. Far from every structure the probability is near 0, so the leftmost bin holds most voxels.",
    "subjects": "How the cases spread. One line is one case, from before to after; the bar is the median, the shape the"
    " distribution, and the worst case after calibration is named. A mean that is well calibrated does not make every case so.",
}


def page(proof: Mapping, statistics: Mapping, pictures: Mapping[str, bytes]) -> str:
    """The whole document. statistics: of `statistics_of`. pictures: PNGs by file name, as `draw` gives them."""
    sections = [
        _head(proof, statistics),
        _meaning(),
        _summary(statistics),
        _domains(proof),
        _reliability(pictures),
        _structures(proof, pictures),
        _subjects(statistics, pictures),
        _cases(proof),
        _compared(proof),
        _what(proof),
        _definitions(proof, statistics),
    ]
    return document(str(proof.get("title") or "Calibration"), sections)


def _head(proof: Mapping, statistics: Mapping) -> str:
    model = proof.get("model") or {}
    said = "".join(f"<li><strong>{escaped(text)}</strong></li>" for text in words.verdict(proof, statistics))
    warned = words.warnings(proof, statistics)
    box = (
        f'<div class="box warning"><strong>Before you rely on this</strong>{bullets(warned)}</div>\n' if warned else ""
    )
    parts = [model.get(key) for key in ("name", "configuration", "trainer")]
    made = ", ".join(escaped(part) for part in parts if part)
    return (
        f'<h1>{escaped(proof.get("title") or "Calibration")}</h1>\n<p class="quiet">{made}; {escaped(proof.get("described", ""))}.'
        f" Made {escaped(str(proof.get('created', ''))[:10])}. For research; not a medical device.</p>\n"
        f"<p>{escaped(proof.get('in_words', ''))}. {escaped(words.evaluated_on(proof))}</p>\n<ul>{said}</ul>\n{box}"
    )


def _meaning() -> str:
    return (
        '<div class="box"><strong>What a calibrated probability means</strong>\n'
        f"{bullets(words.DOES_MEAN)}<strong>It does not mean</strong>\n{bullets(words.DOES_NOT_MEAN)}</div>\n"
    )


def _summary(statistics: Mapping) -> str:
    metrics = [metric for metric in METRICS if metric.key in statistics["metrics"]]
    if not metrics:
        return ""
    rows = [_summary_row(metric.heading, metric, statistics["metrics"][metric.key]) for metric in metrics]
    rows += [_summary_row(f"Dice, {name}", DICE, found) for name, found in statistics["dice"].items()]
    heads = ("Mean over cases", "Before", "After", "Difference", "Relative", "Wilcoxon p", "Cases")
    drawn = statistics["bootstrap"]
    caption = (
        f"In brackets the {100 * drawn['level']:g} % interval of the mean: bootstrap over cases ({drawn['draws']} draws, BCa)."
        " Difference: after less before, case by case; in percent it is of the whole, not of the value before."
        " Wilcoxon: signed-rank test of that difference, two-sided, not corrected for several tests."
    )
    return f"<h2>Figures over the cases</h2>\n{table_of(heads, rows, caption)}"


def _domains(proof: Mapping) -> str:
    """The means over cases where fewer voxels count, such as near the prediction alone."""
    before, after = (proof["figures"][when].get("domains") or {} for when in ("before", "after"))
    rows = []
    for name in (name for name in before if name in after):
        for metric in (metric for metric in METRICS if metric.key in before[name]):
            values = [number(of.get(metric.key)) for of in (before[name], after[name])]
            rows.append([words.domain(name), metric.heading, *map(metric.text, values)])
    if not rows:
        return ""
    caption = (
        "Means over the cases. A new patient has a prediction only, so these are the voxels that the maps are made of."
    )
    return f"<h2>Near the prediction alone</h2>\n{table_of(('Where', 'Figure', 'Before', 'After'), rows, caption, text=(1,))}"


def _summary_row(title: str, metric: Metric, found: Mapping) -> list[str]:
    relative = found["relative"]
    cells = [_with_interval(metric, found[when]) for when in ("before", "after")]
    cells.append(_with_interval(metric, found["difference"], signed=True))
    known = metric.better == "lower" and not math.isnan(relative)
    cells.append(f"{_PERCENT.text(relative, signed=True)} %" if known else UNKNOWN)
    cells.append(words.p_text(found["wilcoxon"]))
    return [title, *cells, f"{found['difference']['used']} of {found['difference']['total']}"]


def _with_interval(metric: Metric, found: Mapping, signed: bool = False) -> str:
    mean = metric.text(found["mean"], signed)
    if found["status"] != "ok":
        return mean
    return f"{mean} [{metric.text(found['lower'], signed)}, {metric.text(found['upper'], signed)}]"


def _reliability(pictures: Mapping[str, bytes]) -> str:
    if not pictures:
        found = "<p>The pictures need matplotlib (pip install matplotlib).</p>\n"
    elif "reliability.png" in pictures:
        found = picture_of(pictures["reliability.png"], _CAPTIONS["reliability"])
    else:
        return ""
    return f"<h2>Stated confidence and observed accuracy</h2>\n{found}"


def _structures(proof: Mapping, pictures: Mapping[str, bytes]) -> str:
    names, drawn = class_names(proof), drawn_classes(proof)
    found = [png for name, png in pictures.items() if name.startswith("classes")]
    if not found:
        return ""
    left_out = (
        f"<p>Of {len(names)} structures the {len(drawn)} with the largest calibration error before are drawn; all are in"
        " proof.json.</p>\n"
    )
    return (
        f"<h2>Structure by structure</h2>\n{left_out if len(drawn) < len(names) else ''}"
        f"{''.join(picture_of(png, _CAPTIONS['classes']) for png in found)}"
    )


def _subjects(statistics: Mapping, pictures: Mapping[str, bytes]) -> str:
    subjects = statistics["subjects"]
    limit = number(subjects["limit"])
    table = ""
    if not math.isnan(limit):
        rows = [
            [f"{name}-confident" if name != "calibrated" else name]
            + [_share(subjects[when], name) for when in ("before", "after")]
            for name in ("over", "under", "calibrated")
        ]
        caption = (
            f"A case counts as over- or under-confident when its mean confidence lies more than {100 * limit:.2f} %"
            " (of the whole) above or below its accuracy: the 90th percentile of the gaps of all voxels before and after"
            " (the rule of Jungo et al. 2020). The limit follows from what is compared here; it is not a clinical one."
        )
        table = table_of(("Cases", "Before", "After"), rows, caption)
    picture = picture_of(pictures["subjects.png"], _CAPTIONS["subjects"]) if "subjects.png" in pictures else ""
    return f"<h2>Case by case: how they spread</h2>\n{picture}{table}" if picture or table else ""


def _share(found: Mapping, name: str) -> str:
    return f"{found[name]} of {found['used']} ({100 * found[f'share_{name}']:.0f} %)" if found["used"] else UNKNOWN


def _cases(proof: Mapping) -> str:
    metrics = metrics_in(proof, IN_CASE_TABLE)
    if any(metric.key == "brier_sum" for metric in metrics):
        metrics = [metric for metric in metrics if metric.key != "brier_mean"]
    voxels = {case: voxels_of(proof, case) for case in case_ids(proof)}
    counted = not all(map(math.isnan, voxels.values()))
    rows = []
    for case, n in voxels.items():
        row = [case, *([UNKNOWN if math.isnan(n) else f"{n:,.0f}"] if counted else [])]
        row += [
            _arrow(metric, *(of_case(proof, when, case, metric.key) for when in ("before", "after")))
            for metric in metrics
        ]
        rows.append(row)
    heads = ["Case", *(["Voxels"] if counted else []), *(metric.heading for metric in metrics)]
    caption = "Before → after calibration; one value where both are the same. All figures are in cases.csv."
    return f"<h2>All cases</h2>\n{table_of(heads, rows, caption)}{_case_dice(proof)}"


def _case_dice(proof: Mapping) -> str:
    """Dice of each structure, one table for every few structures so that none runs off a printed page."""
    names, tables = dice_names(proof), ""
    for start in range(0, len(names), DICE_COLUMNS):
        part, rows = names[start : start + DICE_COLUMNS], []
        for case in case_ids(proof):
            before, after = (dice_of(proof, when, case) for when in ("before", "after"))
            rows.append([case, *(_arrow(DICE, before.get(name, math.nan), after.get(name, math.nan)) for name in part)])
        tables += table_of(
            ("Case", *part), rows, "" if start else "Dice of each structure, before → after calibration."
        )
    return tables


def _arrow(metric: Metric, before: float, after: float) -> str:
    first, second = metric.text(before), metric.text(after)
    return first if first == second else f"{first} → {second}"


def _compared(proof: Mapping) -> str:
    found = [item for item in proof.get("compared") or () if isinstance(item, Mapping)]
    if not found:
        return ""
    nll, ece = (next(metric for metric in METRICS if metric.key == key) for key in ("nll", "ece_toplabel"))
    rows = []
    for item in found:
        changed = number(item.get("changed_labels"))
        rows.append(
            [
                str(item.get("method", "")), str(item.get("mode", "")), nll.text(number(item.get("nll_cv"))),
                ece.text(number(item.get("ece_cv"))), UNKNOWN if math.isnan(changed) else f"{changed:,.0f}",
                "chosen" if item.get("chosen") else "",
            ]
        )  # fmt: skip
    heads = ("Method", "Mode", "NLL (nats)", "ECE (%)", "Changed labels", "")
    caption = "Figures by cross-validation over the cases: each case was calibrated by a fit that had not seen it."
    return f"<h2>What was compared</h2>\n{table_of(heads, rows, caption, text=(1, 5))}"


def _what(proof: Mapping) -> str:
    model, members = proof.get("model") or {}, proof.get("members") or {}
    labels = model.get("labels") or {}
    cases = proof.get("cases") or []
    rows = [
        ("Method", f"{proof.get('method', '')}: {proof.get('in_words', '')}"),
        *((f"Parameter: {name}", value) for name, value in words.parameters(proof)),
        ("Mode", words.mode(proof)),
        ("Members", str(proof.get("described", ""))),
        ("Region of interest", words.roi(proof)),
        ("Fitted on", f"{words.count(len(cases), 'case')}: {', '.join(map(str, cases))}" if cases else ""),
        ("Structures", ", ".join(f"{key}: {value}" for key, value in labels.items())),
        ("Model", ", ".join(str(model[key]) for key in ("name", "configuration", "trainer") if model.get(key))),
        ("plans.json, SHA-256", str(model.get("plans_sha256") or "")),
        ("Made", str(proof.get("created", ""))),
        ("Versions", ", ".join(f"{key} {value}" for key, value in (proof.get("versions") or {}).items())),
    ]
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td class="{"hash" if "SHA" in name else "text"}">{escaped(value)}</td></tr>\n'
        for name, value in rows if value
    )  # fmt: skip
    table = f'<div class="wide"><table><tbody>\n{body}</tbody></table></div>\n'
    return f"<h2>What was calibrated</h2>\n{table}{_checkpoints(members)}"


def _checkpoints(members: Mapping) -> str:
    files, models = members.get("checkpoints") or [], members.get("models") or []
    if not files:
        return ""
    body = ""
    for item in files:
        place, file = item.get("model"), escaped(item.get("checkpoint", ""))
        named = f"{models[place].get('name', '')}, " if isinstance(place, int) and 0 <= place < len(models) else ""
        body += (
            f'<tr><td>{escaped(named)}fold {escaped(item.get("fold", ""))}</td><td class="text">{file}</td>'
            f'<td class="hash">{escaped(item.get("sha256", ""))}</td></tr>\n'
        )
    return (
        '<p class="quiet">The weights this calibration holds for, and no others:</p>\n<div class="wide"><table><thead><tr>'
        '<th scope="col">Member</th><th scope="col" class="text">Checkpoint</th><th scope="col" class="text">SHA-256</th>'
        f"</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def _definitions(proof: Mapping, statistics: Mapping) -> str:
    items = "".join(
        f"<li><strong>{escaped(metric.title)}</strong>{f' ({metric.unit})' if metric.unit else ''}: {escaped(metric.meaning)}.</li>"
        for metric in METRICS
        if metric.key in statistics["metrics"]
    )
    return (
        f'<h2>What the figures are</h2>\n<ul>{items}</ul>\n<p class="quiet">'
        "Guo et al. 2017, On Calibration of Modern Neural Networks (ICML) · Mehrtash et al. 2020, Confidence Calibration and"
        " Predictive Uncertainty Estimation for Deep Medical Image Segmentation (IEEE TMI) · Jungo et al. 2020, Analyzing the"
        " Quality and Challenges of Uncertainty Estimations for Brain Tumor Segmentation (Front. Neurosci.) · Rousseau et al."
        " 2021, Post Training Uncertainty Calibration of Deep Networks for Medical Image Segmentation (ISBI) · Efron and"
        " Tibshirani 1993, An Introduction to the Bootstrap</p>\n"
    )
