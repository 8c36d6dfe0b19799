"""The report of a review: a web page that needs no other file, and tables. For threads: neither Qt nor the scene."""

import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from . import overlayNodes, palettes, standingWords, summaryWords
from . import reviewWords as words
from .reviewExtent import estimatedBox
from .reviewPictures import RegionPictures
from .reviewStore import writeAside
from .reviewSummary import summarize

MOST_PICTURES = 60
REGIONS_SUFFIX, STRUCTURES_SUFFIX = "-regions.csv", "-structures.csv"
DISCLAIMER = _("For research; not for diagnosis or treatment.")
ORIENTATION = _(
    "Each picture: axial slice with the outlines of the structures; the same slice and the coronal one with what is doubtful. "
    "The patient's right is on the left. The four ticks point at the most uncertain voxel; the white bar is 20 mm."
)


@dataclass(frozen=True)
class ReportInput:
    """Everything a report is made from, taken at one moment.

    `folder` - Result folder. `caseName` - what the CT is called. `decisions` - {region id: `Decision`}. `counts` - of
    `ReviewDecisions.counts`. `ct` - `Volume` or None: no pictures then. `boxes` - {region id: `RegionBox`}; others are
    estimated. `window` - (width, level) in HU.
    """

    folder: Path
    caseName: str
    decisions: dict
    counts: dict
    ct: object = None
    boxes: dict = None
    window: tuple = (400, 40)


def saveReport(path, given):
    """Write the page and its two tables.

    :param path: of the page; the tables lie beside it.
    :param given: `ReportInput`.
    :return: the files.
    :raises CalibUncertaintyError: if the Result folder is damaged.
    :raises OSError: if a file cannot be written.
    """
    from CalibUncertaintyLib.result import Result

    result = Result.open(given.folder)
    summary = summarize(result)
    path = Path(path)
    files = {
        path: page(result, summary, given),
        path.with_name(path.stem + REGIONS_SUFFIX): regionsTable(result, given),
        path.with_name(path.stem + STRUCTURES_SUFFIX): structuresTable(summary, given),
    }
    for name, text in files.items():
        writeAside(name, text)
    return list(files)


def page(result, summary, given):
    """The web page.

    :param summary: `CaseSummary`.
    :return: HTML that needs no other file.
    """
    from CalibUncertaintyLib.workflow import page_parts as parts

    title = _("Review of {case}").format(case=given.caseName)
    sections = [
        f"<h1>{parts.escaped(title)}</h1>\n",
        _status(result, parts),
        _case(result, summary, given, parts),
        _structures(summary, parts),
        _regions(result, given, parts),
        _pictures(result, given, parts),
        f'<p class="quiet">{parts.escaped(DISCLAIMER)}</p>\n',
    ]
    return parts.document(title, sections)


def regionsTable(result, given):
    """One line a region, with the decision on it, as CSV."""
    heads = (
        "case", "model", "calibrated", "region", "kind", "structure", "volume_ml", "mean", "peak", "score_ml", "share", "chance",
        "distance_mm", "peak_r_mm", "peak_a_mm", "peak_s_mm", "reason", "verdict", "edited_voxels", "note", "reviewer", "time_utc",
    )  # fmt: skip
    provenance = result.provenance
    case = (given.caseName, provenance["model"]["name"], "yes" if result.calibrated else "no")
    rows = []
    for region in result.regions:
        decision = given.decisions[region.id]
        numbers = (region.volume_ml, region.mean, region.peak, region.score, region.share, words.chanceOf(region))
        numbers += (region.distance_mm, *region.peak_ras_mm)
        said = (region.reason, decision.verdict, decision.edited, decision.note, decision.reviewer, decision.time)
        rows.append((*case, region.id, region.kind, region.structure, *map(_plain, numbers), *said))
    return _csv(heads, rows)


def structuresTable(summary, given):
    """One line a structure, as CSV."""
    heads = ("case", "structure", "drawn_ml", "expected_ml", "at_least_95_percent_ml", "at_least_5_percent_ml")
    rows = [
        (given.caseName, item.name, *map(_plain, (item.drawn, item.expected, item.sure, item.possible)))
        for item in summary.structures
    ]
    return _csv(heads, rows)


def _status(result, parts):
    kind = "box" if result.calibrated else "box warning"
    said = parts.escaped(result.provenance["calibration"]["summary"])
    warning = "" if result.calibrated else " " + parts.escaped(summaryWords.NOT_FREQUENCIES)
    return f'<div class="{kind}"><strong>{said}</strong>{warning}</div>\n'


def _case(result, summary, given, parts):
    facts = [(_("Review"), words.progress(given.counts)), *summaryWords.facts(result, summary)]
    text = f"<h2>{parts.escaped(_('Case'))}</h2>\n" + parts.table_of(
        ("", ""), facts, _help(result), text=(1,)
    )
    warnings = summaryWords.warnings(result)
    if warnings:
        text += f'<div class="box warning">{parts.escaped(_("Warnings of the run"))}{parts.bullets(warnings)}</div>\n'
    return text


def _help(result):
    """What agreement and comparison are, where either is said."""
    return standingWords.HELP if standingWords.standingFacts(result.provenance.get("aggregates")) else ""


def _structures(summary, parts):
    rows = summaryWords.structureRows(summary)
    table = parts.table_of(summaryWords.STRUCTURE_HEADS, rows, summaryWords.STRUCTURES_CAPTION)
    return f"<h2>{parts.escaped(_('Structures'))}</h2>\n" + table


def _regions(result, given, parts):
    heads = (
        _("Place"), _("Structure"), _("Why"), _("Error"), _("mL"), _("Share"), _("Mean"), _("Peak"), _("Decision"), _("Note"),
        _("By"),
    )  # fmt: skip
    rows = []
    for region in result.regions:
        decision = given.decisions[region.id]
        rows.append(
            (str(region.id), region.structure, words.kind(region), words.chance(words.chanceOf(region)),
             words.number(region.volume_ml), words.share(region.share), f"{region.mean:.2f}", f"{region.peak:.2f}",
             words.state(decision), decision.note, decision.reviewer)
        )  # fmt: skip
    caption = " ".join([*words.KIND_SENTENCES.values(), _("Error: chance that such a place is a real error.")])
    body = (
        parts.table_of(heads, rows, caption, text=(1, 2, 8, 9, 10)) if rows else f"<p>{_('No place to review.')}</p>\n"
    )
    return f"<h2>{parts.escaped(_('Places'))}</h2>\n" + body


def _pictures(result, given, parts):
    head = f"<h2>{parts.escaped(_('Pictures'))}</h2>\n"
    if given.ct is None:
        return f"{head}<p>{parts.escaped(_('The CT was not in the scene: there are no pictures.'))}</p>\n"
    chosen = pictured(result.regions, given.decisions)
    figures = []
    try:
        pictures = RegionPictures(result, given.ct, given.window)
        for region in chosen:
            box = (given.boxes or {}).get(region.id) or estimatedBox(region, given.ct.ijk_to_ras, given.ct.array.shape)
            figures.append(parts.picture_of(pictures.strip(region, box), _caption(region, given.decisions[region.id])))
    except Exception as error:  # a report without pictures is better than none
        logging.exception("CalibUncertainty: the pictures of a report")
        figures.append(f"<p>{parts.escaped(_('No further pictures: {error}').format(error=error))}</p>\n")
    left = len(result.regions) - len(chosen)
    more = _("{count} places have no picture here: those that come last and were not decided on.").format(count=left)
    note = f'<p class="quiet">{parts.escaped(ORIENTATION)} {parts.escaped(more if left else "")}</p>\n{_legend(result, parts)}'
    return head + (note + "".join(figures) if chosen else f"<p>{_('None.')}</p>\n")


def _legend(result, parts):
    """Which colour is which structure, and from where to where the doubt is coloured."""
    outlines = ", ".join(
        f'<span style="color:{_hex(palettes.outlineColor(order))}">&#9632;</span> {parts.escaped(name)}'
        for order, name in enumerate(result.labels.values())
    )
    threshold = result.provenance["threshold"]
    entry = next(item for item in result.provenance["maps"]["uncertainty"] if item["measure"] == threshold["measure"])
    scale = palettes.colorScale(overlayNodes.CONTROL_POINTS[overlayNodes.UNCERTAINTY_SCALE])
    low = scale[min(round(threshold["value"] / entry["range"][1] * 255), 255)]
    doubt = _("{measure} from {low:.3g} (shown from here on) to {high:.3g} {unit}, the same in every report").format(
        measure=entry["title"], low=threshold["value"], high=entry["range"][1], unit=entry["unit"]
    )
    ends = "".join(f'<span style="color:{_hex(color)}">&#9632;</span>' for color in (low, scale[-1]))
    return f'<p class="quiet">{outlines}. {ends} {parts.escaped(doubt)}.</p>\n'


def _hex(color):
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)


def pictured(regions, decisions):
    """The regions that get a picture, in reading order: all that were decided on, then the first ones, up to a limit."""
    first = sorted(regions, key=lambda region: (not decisions[region.id].isMade, region.id))
    return sorted(first[:MOST_PICTURES], key=lambda region: region.id)


def _caption(region, decision):
    text = f"{region.id}. {region.structure or words.NONE}: {words.state(decision)}. {region.reason}"
    chance = words.chanceSentence(region)
    return " ".join(part for part in (text, chance, decision.note) if part)


def _plain(value):
    return "" if value is None else f"{value:.6g}"


def _csv(heads, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()
