"""The page of an evaluation: one HTML file that needs no other, no script and nothing from the net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..model.record_check import POOLING_IN_WORDS
from . import evaluate_words as words
from .page_parts import bullets, document, escaped, picture_of, table_of
from .proof_numbers import BY_KEY, DICE, UNKNOWN, Metric
from .proof_words import count, p_text

_SHARE = Metric("share", "", "", 1, 3, "higher", "")
_PROBABILITY = ("nll", "brier_sum", "ece_toplabel", "ece_class", "signed_gap")
_MEASURE = (
    ("at_thresholds.stored.error_dice", "Error Dice"), ("at_thresholds.stored.recall", "Recall"),
    ("at_thresholds.stored.precision", "Precision"), ("ranking.auroc", "AUROC"), ("ranking.auprc", "AUPRC"),
    ("ranking.fpr95", "FPR95"), ("budget.area", "UEO-AUC 0–5 %"), ("budget.ratio_to_ideal", "of the ideal"),
)  # fmt: skip
_PLACES = (
    *((f"at_budgets.{share}.{kind}_recall", f"{title}, {100 * float(share):g} %")
      for kind, title in (("boundary", "On the boundary"), ("non_boundary", "Off it")) for share in ("0.01", "0.02", "0.05")),
    ("at_budgets.0.05.error_components.found_share", "Pieces found, 5 %"), ("at_budgets.0.05.edit.saving", "Dice gained, 5 %"),
)  # fmt: skip


def page(content: Mapping, pictures: Mapping[str, bytes], cases: Sequence[Mapping]) -> str:
    """The whole document. content: as of evaluation.json. pictures: of `draw`. cases: of `pictures_of_cases`."""
    sections = [
        _head(content), _configurations(content), _probabilities(content), _dice(content),
        _shown(pictures, "reliability", "Stated confidence and observed accuracy"), _measures(content), _places(content),
        _shown(pictures, "budget", "What a reader finds in the most uncertain voxels"),
        _shown(pictures, "recall", "Errors on the boundary and off it, at equal flagged volume"),
        _regions(content), _shown(pictures, "regions", "Stated chances of regions and what came true"), _montage(cases),
        _comparisons(content, "configurations", "One configuration against another"),
        _comparisons(content, "measures", "One measure against the entropy"), _cases(content), _failed(content),
        _definitions(content),
    ]  # fmt: skip
    return document(f"Evaluation of {content['model']}", sections)


def _there(content: Mapping) -> dict[str, Mapping]:
    return {name: of for name, of in content["configurations"].items() if of.get("by_case")}


def _head(content: Mapping) -> str:
    warned = words.warnings(content)
    box = (
        f'<div class="box warning"><strong>Before you rely on this</strong>{bullets(warned)}</div>\n' if warned else ""
    )
    return (
        f"<h1>{escaped('Evaluation of ' + content['model'])}</h1>\n"
        f'<p class="quiet">Made {escaped(content["created"][:10])}. For research; not a medical device.</p>\n'
        f"<p>{escaped(words.summary(content))}</p>\n{box}"
    )


def _configurations(content: Mapping) -> str:
    rows = [
        [
            name, of["members"], POOLING_IN_WORDS[of["mode"]], (of.get("applied") or {}).get("summary", UNKNOWN),
            f"{of['cases_used']} of {of['cases_total']}", f"{of['seconds'] / max(1, of['cases_used']):.1f}",
        ]
        for name, of in content["configurations"].items()
    ]  # fmt: skip
    heads = ("Configuration", "Members", "Pooling", "Calibration", "Cases", "s a case")
    return f"<h2>What was compared</h2>\n{table_of(heads, rows, text=(1, 2, 3))}"


def _probabilities(content: Mapping) -> str:
    parts = ""
    there = _there(content)
    for domain in dict.fromkeys(domain for of in there.values() for domain in of["calibration"]):
        rows = []
        for name, of in there.items():
            found = of["calibration"][domain]
            cells = [_interval(BY_KEY[key], found["figures"][key]) for key in _PROBABILITY]
            rows.append([name, *cells, f"{found['pooled']['n']:,}", _used(found["figures"]["nll"])])
        heads = ("Configuration", *(BY_KEY[key].heading for key in _PROBABILITY), "Voxels", "Cases")
        parts += table_of(heads, rows, f"{words.domain(domain, content['options']['roi_mm'])}. {words.INTERVAL}")
    return f"<h2>Probabilities</h2>\n{parts}"


def _dice(content: Mapping) -> str:
    there = _there(content)
    names = list(dict.fromkeys(name for of in there.values() for name in of["dice"]))
    rows = [
        ["mean of the structures" if name == "mean" else name, *(_interval(DICE, of["dice"].get(name)) for of in there.values()),
         _used(next(iter(there.values()))["dice"].get(name))]
        for name in names
    ]  # fmt: skip
    caption = (
        f"Dice of the whole CT, no unit. Cases without a structure, drawn or predicted, are left out. {words.INTERVAL}"
    )
    return f"<h2>Overlap with the reference</h2>\n{table_of(('Structure', *there, 'Cases'), rows, caption)}"


def _measures(content: Mapping) -> str:
    domain, parts = content["options"]["roi_reference"], ""
    for place in (domain, *(name for name in ("pred", "union") if name != domain)):
        rows = [[*about, *cells] for about, cells in _rows_of_measures(content, place, [key for key, _ in _MEASURE])]
        heads = ("Measure", "Configuration", "Threshold", *(title for _, title in _MEASURE), "Cases")
        caption = (
            f"{words.domain(place, content['options']['roi_mm'])}. {words.errors(content, place)} {words.LOCALISATION}"
        )
        parts += table_of(heads, rows, caption, text=(1,))
    left_out = words.not_computed(content)
    more = f'<p class="quiet">{escaped(left_out)}</p>\n' if left_out else ""
    return f"<h2>Does the uncertainty find the errors?</h2>\n{parts}{more}"


def _places(content: Mapping) -> str:
    domain = content["options"]["roi_reference"]
    rows = [
        [about[0], about[1], *cells] for about, cells in _rows_of_measures(content, domain, [key for key, _ in _PLACES])
    ]
    heads = ("Measure", "Configuration", *(title for _, title in _PLACES), "Cases")
    caption = f"{words.domain(domain, content['options']['roi_mm'])}. {words.PLACES}"
    return f"<h2>Which errors are found, at equal flagged volume</h2>\n{table_of(heads, rows, caption, text=(1,))}"


def _rows_of_measures(content: Mapping, domain: str, keys: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    rows = []
    there = _there(content)
    computed = {name for of in there.values() for name, about in of["measures"].items() if about["domains"]}
    for measure in dict.fromkeys(name for of in there.values() for name in of["measures"] if name in computed):
        for name, of in there.items():
            about = of["measures"].get(measure)
            if about is None:
                continue
            found = about["domains"].get(domain)
            threshold = about["threshold"]
            shown = (
                UNKNOWN if math.isnan(threshold) else f"{threshold:.3g} {about['unit']} ({about['threshold_source']})"
            )
            cells = [_interval(_SHARE, found["figures"].get(key)) if found else UNKNOWN for key in keys]
            used = _used(found["figures"].get("ranking.auroc")) if found else words.status(about["status"])
            rows.append(([words.measure(measure, about["title"]), name, shown], [*cells, used]))
    return rows


def _regions(content: Mapping) -> str:
    rows = [
        [
            name,
            kind.replace("_", " "),
            f"{found['regions']}",
            f"{found['holding_error']}",
            f"{100 * found['share']:.0f} %",
        ]
        for name, of in _there(content).items()
        for kind, found in of["regions"]["kinds"].items()
    ]
    stated = any(of["regions"]["with_chance"] for of in _there(content).values())
    caption = (
        "Listed regions of all cases, and how many hold an error: a tenth of their voxels are wrong, or 10 mm³ of them."
    )
    caption += "" if stated else " No chance is stated for them: the calibration record has no calibrated regions."
    table = table_of(("Configuration", "Kind", "Regions", "Hold an error", "Share"), rows, caption, text=(1,)) if rows else (
        "<p>No region was listed in any case.</p>\n"
    )  # fmt: skip
    return f"<h2>Listed regions</h2>\n{table}"


def _shown(pictures: Mapping[str, bytes], name: str, title: str) -> str:
    if name in pictures:
        return f"<h2>{escaped(title)}</h2>\n{picture_of(pictures[name], words.CAPTIONS[name])}"
    if name == "reliability" and not pictures:
        return "<p>There is nothing to draw, or no matplotlib (pip install matplotlib).</p>\n"
    return ""


def _montage(cases: Sequence[Mapping]) -> str:
    if not cases:
        return ""
    found = "".join(
        picture_of(item["png"], f"{words.WHICH[item['which']]}: {item['case']}, {item['configuration']}; error Dice of the"
                   f" {item['measure']} at its threshold {item['error_dice']:.2f}. The slice with the most wrong voxels.")
        for item in cases
    )  # fmt: skip
    return f"<h2>The worst and the best case</h2>\n{found}"


def _comparisons(content: Mapping, family: str, title: str) -> str:
    found = content["comparisons"][family]
    if not found:
        return ""
    rows = []
    for row in found:
        difference, signed = row["difference"], _metric_of(row["figure"])
        what = f"{row['after']} against {row['before']}"
        about = row["measure"] or "" if family == "configurations" else row["configuration"]
        corrected = {"p": row["p_holm"], "status": row["wilcoxon"]["status"]}
        rows.append(
            [
                what, about, words.figure(row["figure"]), _interval(signed, difference, signed=True), p_text(row["wilcoxon"]),
                p_text(corrected), _used(difference),
            ]
        )  # fmt: skip
    about = "Measure" if family == "configurations" else "Configuration"
    heads = ("Difference", about, "Figure", "Mean difference", "Wilcoxon p", "p, Holm", "Cases")
    tests = content["comparisons"]["count"][family]
    caption = (
        f"{words.domain(content['options']['roi_reference'], content['options']['roi_mm'])} (probabilities: within the distance of"
        f" prediction or reference). Second less first, paired by case; bootstrap over cases (BCa, 95 %) and Wilcoxon's signed-rank"
        f" test, two-sided; Holm's correction is for the {count(tests, 'test')} of this table."
    )
    return f"<h2>{escaped(title)}</h2>\n{table_of(heads, rows, caption, text=(1, 2))}"


def _metric_of(figure: str) -> Metric:
    return DICE if figure == "dice" else BY_KEY.get(figure, _SHARE)


def _cases(content: Mapping) -> str:
    rows = []
    domain = content["options"]["roi_reference"]
    for case in content["cases"]:
        for name, of in _there(content).items():
            numbers = of["by_case"].get(case)
            if numbers is None:
                continue
            calibration, errors = numbers["calibration"]["union"], numbers["errors"][domain]
            values = [BY_KEY[key].text(_number(calibration.get(key))) for key in ("nll", "brier_sum", "ece_toplabel")]
            rows.append(
                [
                    case,
                    name,
                    DICE.text(_number(numbers["dice"]["mean"])),
                    *values,
                    f"{errors['error_ml']:.2f}",
                    f"{errors['volume_ml']:.1f}",
                ]
            )
    heads = ("Case", "Configuration", "Dice", "NLL (nats)", "Brier, sum", "ECE (%)", "Errors (mL)", "ROI (mL)")
    near = [words.domain(name, content["options"]["roi_mm"]) for name in ("union", domain)]
    caption = f"Probabilities: {near[0]}. Errors: {near[1]}. All figures are in cases.csv."
    return f"<h2>All cases</h2>\n{table_of(heads, rows, caption, text=(1,))}"


def _failed(content: Mapping) -> str:
    if not content["failed"]:
        return ""
    rows = [[item["case"], item["configuration"], item["reason"]] for item in content["failed"]]
    return (
        f"<h2>Cases that failed and were left out</h2>\n{table_of(('Case', 'Configuration', 'Why'), rows, text=(1, 2))}"
    )


def _definitions(content: Mapping) -> str:
    items = [
        *words.DEFINITIONS,
        f"Versions: {', '.join(f'{key} {value}' for key, value in content['versions'].items())}.",
    ]
    return f'<h2>What the figures are</h2>\n{bullets(items)}<p class="quiet">{escaped(words.SOURCES)}</p>\n'


def _interval(metric: Metric, found: Mapping | None, signed: bool = False) -> str:
    if found is None:
        return UNKNOWN
    mean = metric.text(_number(found["mean"]), signed)
    if found["status"] != "ok":
        return mean
    return f"{mean} [{metric.text(found['lower'], signed)}, {metric.text(found['upper'], signed)}]"


def _used(found: Mapping | None) -> str:
    return UNKNOWN if found is None else f"{found['used']} of {found['total']}"


def _number(value: object) -> float:
    return math.nan if value is None else float(value)
