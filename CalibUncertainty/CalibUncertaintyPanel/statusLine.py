"""The line that is always visible: calibrated or not, how many labels changed, what the run warned of."""

import html

from slicer.i18n import tr as _

GOOD = "background-color: #1f6f4a; color: #ffffff; border-radius: 4px; padding: 6px"
BAD = "background-color: #f5b700; color: #201a00; border-radius: 4px; padding: 6px"
NEUTRAL = "border: 1px solid #8a9199; border-radius: 4px; padding: 6px"
SHOWN_WARNINGS = 4


def statusOf(overlays, warnings=()):
    """Text and style of the status line.

    :param overlays: `Overlays` or None.
    :param warnings: lines about what lies below them, see `CtBelow`.
    :return: (rich text, style sheet).
    """
    if overlays is None:
        return _("No result yet. Choose a CT and a model, then press Run."), NEUTRAL
    summary = overlays.probabilityNode.GetAttribute("CalibUncertainty.Calibration") or ""
    if not overlays.calibrated and not summary.startswith("NOT CALIBRATED"):
        summary = _("NOT CALIBRATED: {reason}").format(reason=summary)
    lines = [f"<b>{html.escape(summary)}</b>"]
    if overlays.shownRaw:
        lines.insert(0, f"<b>{_('RAW PROBABILITY SHOWN, as it was before calibration.')}</b>")
    if not overlays.calibrated or overlays.shownRaw:
        lines.append(_("Do not read these probabilities as frequencies."))
    lines += [f"<b>{html.escape(warning)}</b>" for warning in warnings]
    if overlays.result is not None:
        lines += _linesOf(overlays.result.provenance)
    return "<br>".join(lines), GOOD if overlays.calibrated and not overlays.shownRaw and not warnings else BAD


def _linesOf(provenance):
    changed = provenance["changed_labels"]
    lines = [
        _("Labels changed against nnU-Net's own: {pooling} voxels by pooling, {temperature} by calibration.").format(
            pooling=changed["by_pooling"], temperature=changed["by_temperature"]
        )
    ]
    warnings = [str(warning) for warning in provenance["warnings"] if "NOT CALIBRATED" not in str(warning)]
    lines += [html.escape(_("Warning: {text}").format(text=text)) for text in warnings[:SHOWN_WARNINGS]]
    if len(warnings) > SHOWN_WARNINGS:
        more = len(warnings) - SHOWN_WARNINGS
        lines.append(_("... and {count} more warnings, in result.json").format(count=more))
    return lines
