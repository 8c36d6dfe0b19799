"""How much a threshold flags, in words. No Qt."""

from slicer.i18n import tr as _

from .roiChoice import ALL_STRUCTURES


def flagged(counts, threshold, hasRoi, budgetStatus=""):
    """A line such as "Above the threshold: 12.3 mL, 8.1 % of the region of interest (152 mL)."

    :param counts: `ValueCounts` of a region that is not empty.
    :param threshold: in the measure's unit.
    :param hasRoi: whether there is a region of interest; otherwise the whole map was counted.
    :param budgetStatus: of `Budgeted`, where a budget was asked for.
    """
    whole = volume(counts.voxels * counts.voxel_ml)
    place = _("of the region of interest ({volume})") if hasRoi else _("of the map ({volume}; no structure was found)")
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
    if roi.structure != ALL_STRUCTURES:
        text = _("The region of interest is empty: {structure} was not predicted, or no voxel lies on this side of it.")
        return text.format(structure=roi.structure)
    return _("The region of interest is empty: no voxel lies at this distance on this side.")


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
