"""How uncertain each structure is, all in all: the numbers that a Result holds; nothing where it holds none."""

from slicer.i18n import tr as _

from .evaluationTables import fillTable, prepareTable
from .standingWords import COMPARED_TIP, isNumber, structureStanding

# key in result.json, title, how it is written, what it is
FIGURES = (
    ("mean", _("Mean"), "{:.3f}", _("Mean of the measure inside the structure")),
    ("boundary", _("Border"), "{:.3f}", _("Mean of the measure along the surface of the structure")),
    (
        "seg_entropy_k",
        _("Own"),
        "{:.3f}",
        _("Mean entropy, in nats, of the structure against all else, inside it (Mehrtash et al., 2020)"),
    ),
    ("pairwise_dice", _("Agreement"), "{:.3f}", _("Mean Dice of all pairs of networks: 1 where all drew the same")),
    ("vol_cv", _("Volume ±"), "{:.1%}", _("Standard deviation of the networks' volumes over their mean")),
)


class AggregatesSection:
    """A table of structures, below the one of their volumes."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.fill(None)

    def fill(self, result):
        """Another Result is shown, or None."""
        aggregates = aggregatesOf(result)
        heads, tips, rows = tableOf(aggregates)
        for widget in (self.ui.aggregatesLabel, self.ui.aggregatesTable):
            widget.setVisible(bool(rows))
        if not rows:
            return
        self.ui.aggregatesLabel.setText(_caption(aggregates, self.panel.overlays))
        prepareTable(self.ui.aggregatesTable, heads)
        for column, tip in enumerate(tips):
            self.ui.aggregatesTable.horizontalHeaderItem(column).setToolTip(tip)
        fillTable(self.ui.aggregatesTable, rows)


def aggregatesOf(result):
    """The summaries of a Result, as its result.json has them; empty where there are none.

    :param result: `Result` or None.
    """
    found = result.provenance.get("aggregates") if result is not None else None
    return found if isinstance(found, dict) and isinstance(found.get("structures"), dict) else {}


def tableOf(aggregates):
    """Titles, tool tips and rows of those figures that are known of any structure.

    :param aggregates: as from `aggregatesOf`.
    """
    numbered = {label: item for label, item in aggregates.get("structures", {}).items() if isinstance(item, dict)}
    structures, standing = list(numbered.values()), [structureStanding(aggregates, label) for label in numbered]
    known = [figure for figure in FIGURES if any(isNumber(item.get(figure[0])) for item in structures)]
    if not known and not any(standing):
        return [], [], []
    heads = [_("Structure"), *(title for _key, title, _form, _tip in known)]
    tips = [_("Structures of the model, in its order"), *(tip for _key, _title, _form, tip in known)]
    rows = [[_nameOf(item), *(_text(item.get(key), form) for key, _title, form, _tip in known)] for item in structures]
    if any(standing):
        heads.append(_("Compared"))
        tips.append(COMPARED_TIP)
        rows = [[*row, text or "–"] for row, text in zip(rows, standing, strict=True)]
    return heads, tips, rows


def _caption(aggregates, overlays):
    identifier = str(aggregates.get("measure") or "entropy")
    title, unit = identifier, ""
    try:
        info = overlays.measure(identifier)
        title, unit = info.title, info.unit
    except (AttributeError, KeyError):  # of a measure that this Result does not show
        pass
    return _("{measure} of each structure, in {unit}:").format(measure=title, unit=unit) if unit else f"{title}:"


def _nameOf(structure):
    name = str(structure.get("name") or "?")
    return name if structure.get("status") != "not_predicted" else _("{name} (not predicted)").format(name=name)


def _text(value, form):
    if not isNumber(value):
        return "–"
    return form.format(value).replace("%", " %")
