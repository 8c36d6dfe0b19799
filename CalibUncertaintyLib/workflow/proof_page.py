"""The page of a proof: one HTML file that needs no other, no script and nothing from the net."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from . import proof_words as words
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

# Scripts and anything from elsewhere are refused by the browser too, should a name ever slip through unescaped
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --quiet: #555; --line: #c9c9c9; --soft: #f2f5f8; --warn: #fff3e0;
  --edge: #b35900; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e8e8e8; --quiet: #adb3ba; --line: #454b52; --soft: #21262c;
  --warn: #3a2a12; --edge: #ffb45c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p, ul { margin: .5rem 0; max-width: 52rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.box { background: var(--soft); border-left: 4px solid #0072B2; padding: .6rem 1rem; margin: 1rem 0; }
.warning { background: var(--warn); border-left-color: var(--edge); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .28rem .65rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th:first-child, td:first-child { min-width: 7rem; }
.hash { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem; overflow-wrap: anywhere; white-space: normal;
  text-align: left; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; background: #fff; border: 1px solid var(--line); }
figure:first-of-type img { max-height: 46rem; }
@media print { :root { --paper: #fff; --ink: #000; --quiet: #333; --line: #999; --soft: #fff; --warn: #fff; --edge: #000;
  color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; } .box { border: 1px solid #666; }
  .wide { overflow: visible; break-inside: avoid; } table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; }
  th { white-space: normal; }
  tr, figure, .box { break-inside: avoid; } h2 { break-after: avoid; } thead { display: table-header-group; }
  figure img, figure:first-of-type img { max-height: 19cm; margin: 0 auto; border: 0; }
  .quiet { break-inside: avoid; break-after: avoid; } .hash { font-size: 6.5pt; } td.text { overflow-wrap: normal; }
  @page { margin: 15mm; } }
"""
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
    title = _text(proof.get("title") or "Calibration")
    sections = [
        _head(proof, statistics),
        _meaning(),
        _summary(statistics),
        _reliability(pictures),
        _structures(proof, pictures),
        _subjects(statistics, pictures),
        _cases(proof),
        _compared(proof),
        _what(proof),
        _definitions(proof, statistics),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Escaped; a number and its % stay on one line."""
    return escape(str(value), quote=True).replace(" %", "\N{NO-BREAK SPACE}%")


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: Sequence[int] = ()) -> str:
    """A table of plain texts. text: columns, besides the first, that hold words."""
    kind = [' class="text"' if index in text else "" for index in range(len(heads))]
    head = "".join(f'<th scope="col"{of}>{_text(item)}</th>' for item, of in zip(heads, kind, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{of}>{_text(item)}</td>' for item, of in zip(row, kind, strict=True))}</tr>\n"
        for row in rows
    )
    named = f'<p class="quiet">{_text(caption)}</p>\n' if caption else ""
    return f'{named}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def _head(proof: Mapping, statistics: Mapping) -> str:
    model = proof.get("model") or {}
    said = "".join(f"<li><strong>{_text(text)}</strong></li>" for text in words.verdict(proof, statistics))
    warned = words.warnings(proof, statistics)
    box = f'<div class="box warning"><strong>Before you rely on this</strong>{_list(warned)}</div>\n' if warned else ""
    parts = [model.get(key) for key in ("name", "configuration", "trainer")]
    made = ", ".join(_text(part) for part in parts if part)
    return (
        f'<h1>{_text(proof.get("title") or "Calibration")}</h1>\n<p class="quiet">{made}; {_text(proof.get("described", ""))}.'
        f" Made {_text(str(proof.get('created', ''))[:10])}. For research; not a medical device.</p>\n"
        f"<p>{_text(proof.get('in_words', ''))}. {_text(words.evaluated_on(proof))}</p>\n<ul>{said}</ul>\n{box}"
    )


def _meaning() -> str:
    return (
        '<div class="box"><strong>What a calibrated probability means</strong>\n'
        f"{_list(words.DOES_MEAN)}<strong>It does not mean</strong>\n{_list(words.DOES_NOT_MEAN)}</div>\n"
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
    return f"<h2>Figures over the cases</h2>\n{_table(heads, rows, caption)}"


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
    if found["status"] not in ("ok",):
        return mean
    return f"{mean} [{metric.text(found['lower'], signed)}, {metric.text(found['upper'], signed)}]"


def _reliability(pictures: Mapping[str, bytes]) -> str:
    if not pictures:
        found = "<p>The pictures need matplotlib (pip install matplotlib).</p>\n"
    elif "reliability.png" in pictures:
        found = _picture(pictures["reliability.png"], _CAPTIONS["reliability"])
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
        f"{''.join(_picture(png, _CAPTIONS['classes']) for png in found)}"
    )


def _picture(png: bytes, caption: str) -> str:
    said, data = _text(caption), base64.b64encode(png).decode("ascii")
    return f'<figure><img alt="{said}" src="data:image/png;base64,{data}">\n<figcaption>{said}</figcaption></figure>\n'


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
        table = _table(("Cases", "Before", "After"), rows, caption)
    picture = _picture(pictures["subjects.png"], _CAPTIONS["subjects"]) if "subjects.png" in pictures else ""
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
    return f"<h2>All cases</h2>\n{_table(heads, rows, caption)}{_case_dice(proof)}"


def _case_dice(proof: Mapping) -> str:
    """Dice of each structure, one table for every few structures so that none runs off a printed page."""
    names, tables = dice_names(proof), ""
    for start in range(0, len(names), DICE_COLUMNS):
        part, rows = names[start : start + DICE_COLUMNS], []
        for case in case_ids(proof):
            before, after = (dice_of(proof, when, case) for when in ("before", "after"))
            rows.append([case, *(_arrow(DICE, before.get(name, math.nan), after.get(name, math.nan)) for name in part)])
        tables += _table(("Case", *part), rows, "" if start else "Dice of each structure, before → after calibration.")
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
    return f"<h2>What was compared</h2>\n{_table(heads, rows, caption, text=(1, 5))}"


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
        f'<tr><th scope="row">{_text(name)}</th><td class="{"hash" if "SHA" in name else "text"}">{_text(value)}</td></tr>\n'
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
        place, file = item.get("model"), _text(item.get("checkpoint", ""))
        named = f"{models[place].get('name', '')}, " if isinstance(place, int) and 0 <= place < len(models) else ""
        body += (
            f'<tr><td>{_text(named)}fold {_text(item.get("fold", ""))}</td><td class="text">{file}</td>'
            f'<td class="hash">{_text(item.get("sha256", ""))}</td></tr>\n'
        )
    return (
        '<p class="quiet">The weights this calibration holds for, and no others:</p>\n<div class="wide"><table><thead><tr>'
        '<th scope="col">Member</th><th scope="col" class="text">Checkpoint</th><th scope="col" class="text">SHA-256</th>'
        f"</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def _definitions(proof: Mapping, statistics: Mapping) -> str:
    items = "".join(
        f"<li><strong>{_text(metric.title)}</strong>{f' ({metric.unit})' if metric.unit else ''}: {_text(metric.meaning)}.</li>"
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
