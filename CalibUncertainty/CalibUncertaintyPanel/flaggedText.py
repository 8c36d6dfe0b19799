"""How much a threshold flags, in words. No Qt."""

from slicer.i18n import tr as _

from .roiChoice import ALL_STRUCTURES


def flagged(counts, threshold, hasRoi, budgetStatus="", ofBody=False):
    """A line such as "Above the threshold: 12.3 mL, 8.1 % of the region of interest (152 mL)."

    :param counts: `ValueCounts` of a region that is not empty.
    :param threshold: in the measure's unit.
    :param hasRoi: whether there is a region of interest; otherwise the whole map was counted.
    :param budgetStatus: of `Budgeted`, where a budget was asked for.
    :param ofBody: whether the region of interest is the body.
    """
    whole = volume(counts.voxels * counts.voxel_ml)
    place = _("of the region of interest ({volume})") if hasRoi else _("of the map ({volume}; no structure was found)")
    if ofBody:
        place = _("of the body ({volume})")
    line = _("Above the threshold: {flagged}, {share} {place}.").format(
        flagged=volume(counts.volume_above(threshold)),
        share=share(counts.share_above(threshold)),
        place=place.format(volume=whole),
    )
    more = {
        "tie": _("More voxels share the highest value than the budget allows, so none is shown."),
        "everything": _("That is all that is uncertain at all."),
    }
    return f"{line} {more[budgetStatus]}" if budgetStatus in more else line


def whyEmpty(roi):
    """Why there is nothing to look at.

    :param roi: `RoiChoice`.
    """
    if roi.ofBody:
        return _("The region of interest is empty: the maps hold no voxel of the body on this side.")
    if roi.structure != ALL_STRUCTURES:
        text = _("The region of interest is empty: {structure} was not predicted, or no voxel lies on this side of it.")
        return text.format(structure=roi.structure)
    return _("The region of interest is empty: no voxel lies at this distance on this side.")


def bodyBeyond(part, leftOut):
    """That the maps do not hold all of the body, and what is known of the rest; "" where they do.

    :param part: of the body that the maps hold, 0..1.
    :param leftOut: the largest probability of a structure outside of them, or None where that is not known.
    """
    if part >= 1:
        return ""
    line = _("The maps hold {part} of the body").format(part=share(part))
    if leftOut is None:
        return f"{line}."
    return _("{line}; in the rest no structure is more than {probability} likely.").format(
        line=line, probability=share(leftOut)
    )


def fittedElsewhere(isStored, fittedInBody, ofBody):
    """That a stored threshold was fitted in another region of interest than the one that is shown; "" where it was not.

    :param isStored: whether the threshold is the one stored with the calibration.
    """
    if not isStored or fittedInBody == ofBody:
        return ""
    if ofBody:
        return _("The stored threshold was fitted near the structures, not in the body.")
    return _("The stored threshold was fitted in the body, not near the structures.")


def volume(ml):
    """A volume in mL or litres."""
    if ml >= 1000:
        return f"{ml / 1000:.1f} L"
    return f"{ml:.0f} mL" if ml >= 100 else f"{ml:.1f} mL" if ml >= 1 or ml == 0 else f"{ml:.2g} mL"


def share(fraction):
    """A share in per cent; what is not quite nothing or everything is not rounded to it."""
    if 0 < fraction < 0.001:
        return "< 0.1 %"
    if 0.999 < fraction < 1:
        return "> 99.9 %"
    return f"{100 * fraction:.1f} %"
