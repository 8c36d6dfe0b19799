"""The figures of an evaluation for tables and a plot: evaluation.json in, rows and curves out. Neither Qt nor the scene."""

import json
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from .evaluationCurves import domainOf, worked
from .evaluationRuns import FIGURES_FILE, REPORT_FILE

SCHEMA, SCHEMA_VERSION = "calib-uncertainty/evaluation", 1
UNKNOWN = "–"
DICE, CALIBRATION_OF = "dice", "union"  # probabilities are judged near what is predicted or drawn
PROBABILITY_HEADS = (_("Configuration"), _("Cases"), _("Dice"), _("NLL, nats"), _("ECE, %"))
MEASURE_HEADS = (_("Measure"), _("Error Dice"), _("Recall"), _("Precision"), _("UEO-AUC"))
MEASURE_FIGURES = (
    "at_thresholds.stored.error_dice",
    "at_thresholds.stored.recall",
    "at_thresholds.stored.precision",
    "budget.area",
)
EXPLAINED = _(
    "Means over cases. NLL and ECE: errors of the probabilities, lower is better. Error Dice, recall and precision: the voxels "
    "that are flagged at the stored threshold against those that are wrong. UEO-AUC: mean overlap with the errors when the most "
    "uncertain 0 to 5 % of the region of interest are flagged. Point at a number for its 95 % interval."
)


@dataclass(frozen=True)
class Cell:
    """One number of a table: `text`, and what is known of how sure it is (`tip`)."""

    text: str
    tip: str = ""


def readEvaluation(folder):
    """What an evaluation has written.

    :param folder: with evaluation.json.
    :return: its content, figures that are unknown None.
    :raises CalibUncertaintyError: if there is none, or one of another version.
    """
    from CalibUncertaintyLib import CalibUncertaintyError

    path = Path(folder) / FIGURES_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = _("{folder} holds no evaluation that can be read: no {file}").format(folder=folder, file=FIGURES_FILE)
        raise CalibUncertaintyError(text) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CalibUncertaintyError(_("{path} is no evaluation of CalibUncertainty").format(path=path))
    if content.get("schema_version") != SCHEMA_VERSION:
        text = _(
            "{path} was written in version {there} of the format, this panel reads version {here}: open its {page} in a browser"
        )
        raise CalibUncertaintyError(
            text.format(path=path, there=content.get("schema_version"), here=SCHEMA_VERSION, page=REPORT_FILE)
        )
    return content


def summaryLines(content):
    """What to know before believing the figures, in plain text: how many cases, what failed and why."""
    from CalibUncertaintyLib.workflow import evaluate_words

    lines = [evaluate_words.summary(content)]
    lines += [_("Warning: {text}").format(text=text) for text in evaluate_words.warnings(content)]
    failed = {}
    for item in content["failed"]:
        failed.setdefault((item["case"], item["reason"]), []).append(item["configuration"])
    for (case, reason), configurations in failed.items():
        lines.append(_("Failed: {case} ({where}): {reason}").format(
            case=case, where=", ".join(configurations), reason=reason))  # fmt: skip
    return lines


def probabilityRows(content):
    """Rows for `PROBABILITY_HEADS`, lists of `Cell`; configurations without any case that worked are left out."""
    rows = []
    for name, of in worked(content).items():
        figures = of["calibration"][CALIBRATION_OF]["figures"]
        used = f"{of['cases_used']} / {of['cases_total']}"
        about = (of.get("applied") or {}).get("summary") or ""
        rows.append([
            Cell(name, about), Cell(used), _cell(of["dice"].get("mean")), _cell(figures.get("nll"), "{:.4f}"),
            _cell(figures.get("ece_toplabel"), "{:.2f}", 100.0),
        ])  # fmt: skip
    return rows


def measureRows(content, configuration):
    """Rows for `MEASURE_HEADS`, lists of `Cell`; measures that were not computed are left out.

    :param configuration: its name.
    """
    rows, of = [], worked(content)[configuration]
    for measure, title in measures(content).items():
        figures = domainOf(content, of, measure).get("figures")
        if figures:
            rows.append([Cell(title), *(_cell(figures.get(key)) for key in MEASURE_FIGURES)])
    return rows


def measures(content):
    """{identifier: title} of the measures that some configuration has figures of."""
    found = {}
    for of in worked(content).values():
        for measure, about in of["measures"].items():
            if domainOf(content, of, measure):
                found.setdefault(measure, about.get("title") or measure)
    return found


def _cell(figure, form="{:.3f}", factor=1.0):
    if not figure or figure.get("mean") is None:
        return Cell(UNKNOWN, _("Unknown in all cases"))
    text = form.format(factor * figure["mean"])
    cases = _("{used} of {total} cases").format(used=figure.get("used"), total=figure.get("total"))
    if figure.get("lower") is None or figure.get("upper") is None:
        return Cell(text, cases)
    low, high = (form.format(factor * figure[key]) for key in ("lower", "upper"))
    return Cell(text, _("95 % interval {low} to {high}, {cases}").format(low=low, high=high, cases=cases))
