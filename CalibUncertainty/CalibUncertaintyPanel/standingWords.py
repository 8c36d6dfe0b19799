"""How far the members agree about a case, and how it stands among the calibration cases, in words."""

from slicer.i18n import tr as _

HELP = _(
    "Agreement: Dice of what two members by themselves draw, twice the common volume over the sum of both, of every pair and "
    "structure; 1 where both draw the same. Compared with calibration cases: several scores (mean entropy, along the borders, "
    "in the worst block, away from surfaces; agreement), each in standard deviations from the mean of the calibration cases, "
    "turned so that more means more uncertain, and averaged. This is our definition. Even a usual case comes out above all of n "
    "calibration cases once in n + 1 times."
)
COMPARED_TIP = _(
    "How much more uncertain the structure is than in the calibration cases, in standard deviations, averaged over its scores (our "
    "definition), and its place among them: 1 is the most uncertain"
)
_AGREEMENT_REASONS = {
    "single_member": _("not known: there is only one member"),
    "too_many_members": _("not counted: there are too many members"),
    "too_many_regions": _("not counted: there are too many regions"),
}
_COMBINED_REASONS = {
    "not_calibrated": _("not compared: the probabilities are not calibrated"),
    "no_scores": _(
        "not compared: the calibration record holds no scores of cases (it needs 3 cases whose CTs the model was run on; older "
        "records hold none)"
    ),
    "other_roi": _("not compared: they were looked at within another distance of the structures"),
}


def standingFacts(aggregates):
    """Agreement and standing of a case, as far as its Result knows of them.

    :param aggregates: of a `Result`'s provenance; older ones hold less.
    :return: list of (name, text).
    """
    return [fact for fact in (_agreement(aggregates), _compared(aggregates)) if fact is not None]


def structureStanding(aggregates, label):
    """The combined score of a structure with its place among the calibration cases; None where it has none.

    :param label: the structure's key in aggregates["structures"].
    """
    found = _within(aggregates, "combined", "structures", label)
    score = found.get("combined")
    if not isNumber(score):
        return None
    place = _place(found)
    return f"{score:+.1f}" if place is None else _("{score:+.1f} ({place} of {count})").format(score=score, **place)


def isNumber(value):
    """Whether a value of a Result is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _agreement(aggregates):
    agreement, case = _within(aggregates, "agreement"), _within(aggregates, "case")
    name = _("Agreement of the members")
    reason = _AGREEMENT_REASONS.get(str(agreement.get("status")))
    if reason is not None:
        return name, reason
    if not isNumber(case.get("pairwise_dice")):
        return None
    if isNumber(agreement.get("members")):
        name = _("Agreement of the {count} members").format(count=agreement["members"])
    text = _("Dice of pairs {mean:.3f} in the mean").format(mean=case["pairwise_dice"])
    if isNumber(case.get("pairwise_dice_min")):
        text += _(", {lowest:.3f} for the pair and structure that differ most").format(lowest=case["pairwise_dice_min"])
    return name, text


def _compared(aggregates):
    combined = _within(aggregates, "combined")
    reason, name = _COMBINED_REASONS.get(str(combined.get("status"))), _("Compared with calibration cases")
    if reason is not None:
        return name, reason
    case = _within(combined, "case")
    if case.get("status") == "no_score":
        return name, _("not compared: no score is known of this case and of 3 others that differ")
    if not isNumber(case.get("combined")):
        return None
    return name, _standing(case)


def _standing(case):
    text = _("{score:+.1f} standard deviations").format(score=case["combined"])
    if _place(case) is None:
        return text + _("; too few of them have the same scores for a rank")
    count, higher, equal = case["cases"], case["higher"], case["equal"]
    lower = count - higher - equal
    if lower == count:
        said = _("more uncertain than all {count}")
    elif higher == count:
        said = _("less uncertain than all {count}")
    else:
        said = _("more uncertain than {lower} of {count}")
    chance = _("as high by chance in {often} of {among} cases like them")
    return "; ".join(
        (text, said.format(lower=lower, count=count), chance.format(often=1 + higher + equal, among=count + 1))
    )


def _place(found):
    """{"place", "count"} among the calibration cases and itself; None where it is not known."""
    if not all(isNumber(found.get(key)) for key in ("cases", "higher", "equal")):
        return None
    return {"place": 1 + found["higher"], "count": found["cases"] + 1}


def _within(found, *keys):
    """What lies there, where it is a dictionary; else an empty one."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
