"""The words and numbers of a region, for the table and the report alike."""

from slicer.i18n import tr as _

from .reviewDecisions import CORRECT, UNSURE, WRONG

NONE = "–"
KINDS = {
    "boundary": _("Border"),
    "non_boundary": _("Off border"),
    "uncertain": _("Unsure"),
    "possible_miss": _("Missed?"),
}
KIND_SENTENCES = {
    "boundary": _("Border: the model is in doubt where exactly a structure ends."),
    "non_boundary": _(
        "Off border: the model is in doubt away from the borders it drew, where a part may be missing or too much."
    ),
    "uncertain": _("Unsure: the model is in doubt here, at or near a structure that it found."),
    "possible_miss": _("Missed?: a structure may lie here that the model did not draw, far from all that it drew."),
}
VERDICTS = {CORRECT: _("correct"), WRONG: _("wrong"), UNSURE: _("unsure")}
MARKS = {CORRECT: "✓", WRONG: "✗", UNSURE: "?"}
EDITED_MARK = "✎"


def kind(region):
    """Kind of a region in a plain word."""
    return KINDS.get(region.kind, region.kind)


def number(value):
    """A volume in mL or a score: two figures that matter."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"


def share(part):
    """Per cent of the structure, as the reason of the region has it."""
    if part is None:
        return NONE
    return "< 1 %" if part < 0.01 else f"{100 * part:.0f} %"


def chanceOf(region):
    """Calibrated chance in 0..1 that a region is a real error; None where the Result does not say."""
    return getattr(region, "chance", None)


def chance(probability):
    """A chance as people say it: "6 in 10"."""
    if probability is None:
        return NONE
    tenths = round(10 * probability)
    if tenths == 0:
        return _("< 1 in 10")
    return _("> 9 in 10") if tenths == 10 else _("{count} in 10").format(count=tenths)


def chanceSentence(region):
    """How often such regions were real errors, with what is known of how sure that is; "" where nothing is known."""
    probability = chanceOf(region)
    if probability is None:
        return ""
    interval, count = getattr(region, "chance_interval", None), getattr(region, "chance_n", None)
    text = _("Real errors among such places: {chance}").format(chance=chance(probability))
    if interval is not None:
        text += _(" (95 % interval {low:.0f} to {high:.0f} %)").format(low=100 * interval[0], high=100 * interval[1])
    if count:
        text += _(", of {count} places in the calibration cases").format(count=count)
    return text + "."


def mark(decision):
    """The sign of a decision in the table; "" while there is none."""
    return MARKS.get(decision.verdict, "") + (EDITED_MARK if decision.edited else "")


def state(decision):
    """A decision in words; "not looked at" while there is none."""
    words = [VERDICTS[decision.verdict]] if decision.verdict else []
    if decision.edited:
        words.append(_("edited, {count} voxels changed").format(count=decision.edited))
    return "; ".join(words) or _("not looked at")


def progress(counts):
    """How far a review is: "7 of 23 looked at, 2 wrong".

    :param counts: of `ReviewDecisions.counts`.
    """
    text = _("{seen} of {regions} looked at").format(**counts)
    named = ((counts[WRONG], _("wrong")), (counts[UNSURE], _("unsure")), (counts["edited"], _("edited")))
    return ", ".join([text, *(f"{count} {word}" for count, word in named if count)])
