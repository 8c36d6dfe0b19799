"""The case in words and numbers, for the panel and the report alike."""

from slicer.i18n import tr as _

from . import reviewWords as words
from . import standingWords

STRUCTURE_HEADS = (_("Structure"), _("Drawn, mL"), _("Expected, mL"), _("95 % to 5 %, mL"))
STRUCTURES_CAPTION = _(
    "Drawn: the model's label. Expected: every voxel counts with its probability. 95 % to 5 %: the volume of all voxels "
    "with a probability of at least 95 %, and of at least 5 %. Many voxels of less than 5 % can make the expected volume larger "
    "than that."
)
NOT_FREQUENCIES = _("Do not read these probabilities as frequencies.")
MOST_WARNINGS_IN_PANEL = 3


def facts(result, summary):
    """What there is to say of a case besides its structures, in the order of reading.

    :param result: `Result`.
    :param summary: `CaseSummary`, or None as long as it is being made.
    :return: list of (name, text).
    """
    provenance = result.provenance
    model = f"{provenance['model']['name']}, {provenance['model'].get('configuration', '')}".rstrip(", ")
    found = [
        (_("Model"), model),
        (_("Segmented"), str(provenance.get("created", "")).replace("T", " ").replace("+00:00", " UTC")),
    ]
    if summary is not None:
        found.append((_("Mean entropy"), meanEntropy(summary)))
    found += aggregateFacts(provenance)
    found.append((_("Labels changed against nnU-Net's own"), changedLabels(provenance["changed_labels"])))
    return found


def meanEntropy(summary):
    """The mean entropy of a `CaseSummary` with the place it is of."""
    text = _("{value:.3f} nats over {volume:.0f} mL near the structures")
    return text.format(value=summary.meanEntropy, volume=summary.roiMl)


def changedLabels(changed):
    """How many voxels have another label than nnU-Net would give.

    :param changed: {"by_pooling": voxels, "by_temperature": voxels}.
    """
    if not any(changed.get(key) for key in ("by_pooling", "by_temperature")):
        return _("none")
    return _("{by_pooling} voxels by pooling, {by_temperature} by calibration").format(**changed)


def calibration(result):
    """Whether the probabilities are calibrated, in a sentence or two."""
    summary = result.provenance["calibration"]["summary"]
    return summary if result.calibrated else f"{summary}. {NOT_FREQUENCIES}"


def warnings(result):
    """The warnings of the run."""
    return [str(warning) for warning in result.provenance.get("warnings") or ()]


def aggregateFacts(provenance):
    """Sums of the uncertainty of the whole case, where the Result holds them.

    :param provenance: of a `Result`; its "aggregates" are {"measure", "unit", "case": {...}, ...}, and missing in older ones.
    :return: list of (name, text).
    """
    aggregates = provenance.get("aggregates")
    if not isinstance(aggregates, dict) or not isinstance(aggregates.get("case"), dict):
        return []
    case, unit = aggregates["case"], aggregates.get("unit", "")
    titles = {entry["measure"]: entry["title"] for entry in provenance["maps"]["uncertainty"]}
    measure = titles.get(aggregates.get("measure"), str(aggregates.get("measure", "")))
    said = (
        ("boundary", _("{measure} along the borders, mean"), unit),
        ("patch_mean", _("{measure} in the worst block of 10 × 10 × 10 voxels, mean"), unit),
    )
    return [
        (name.format(measure=measure), f"{case[key]:.3f} {of}".rstrip())
        for key, name, of in said
        if isinstance(case.get(key), (int, float))
    ] + standingWords.standingFacts(aggregates)


def structureRows(summary):
    """Rows for `STRUCTURE_HEADS`, as text."""
    return [
        (item.name, ml(item.drawn), ml(item.expected), f"{ml(item.sure)} – {ml(item.possible)}")
        for item in summary.structures
    ]


def ml(value):
    """A volume of a structure."""
    return words.number(value) if value < 10 else f"{value:.1f}"


def asText(result, summary, caseName):
    """The summary as lines with tabs, for the clipboard: a spreadsheet takes it, and so does a mail."""
    lines = [caseName, calibration(result)]
    lines += ["\t".join(fact) for fact in facts(result, summary)]
    lines += [f"{_('Warning')}\t{text}" for text in warnings(result)]
    lines += ["", "\t".join(STRUCTURE_HEADS), *("\t".join(row) for row in structureRows(summary)), STRUCTURES_CAPTION]
    return "\n".join(lines) + "\n"
