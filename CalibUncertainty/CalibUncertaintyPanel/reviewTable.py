"""Review: the regions of a Result, the one to look at first on top; choosing one moves all slice views to its peak."""

import html

import qt
from slicer.i18n import tr as _

from .sliceLayers import jumpTo

KINDS = {"uncertain": _("Uncertain"), "possible_miss": _("Possible miss")}


class ReviewTable:
    """The list of regions with its two buttons."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.table = ui.regionsTable
        self._regions = []
        columns = [_("#"), _("Kind"), _("Structure"), _("mL"), _("Share"), _("Peak"), _("Score")]
        tips = [
            _("Order in which to look"),
            _(
                "Uncertain: above the threshold, near a structure. Possible miss: far from every structure that was found."
            ),
            _("Nearest structure, or the one that may have been missed"),
            _("Volume in mL"),
            _("Score as a part of the structure's predicted volume: what the list is sorted by; none for a possible miss"),
            _("Highest value of the measure in the region"),
            _("Volume in mL that is expected to be wrong; possible misses are sorted by it"),
        ]
        self.table.setColumnCount(len(columns))
        for column, (text, tip) in enumerate(zip(columns, tips, strict=True)):
            header = qt.QTableWidgetItem(text)
            header.setToolTip(tip)
            self.table.setHorizontalHeaderItem(column, header)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(2, qt.QHeaderView.Stretch)
        self.table.connect("itemSelectionChanged()", self._onSelected)
        ui.previousRegionButton.connect("clicked(bool)", lambda checked=None: self._step(-1))
        ui.nextRegionButton.connect("clicked(bool)", lambda checked=None: self._step(1))
        self.fill(None)

    def fill(self, result):
        """List the regions of a Result; None empties the table."""
        self._regions = list(result.regions) if result is not None else []
        wasBlocked = self.table.blockSignals(True)
        self.table.setRowCount(len(self._regions))
        for row, region in enumerate(self._regions):
            self._fillRow(row, region)
        self.table.clearSelection()
        self.table.setCurrentCell(-1, -1)
        self.table.blockSignals(wasBlocked)
        self.ui.reviewLabel.setText(self._explanation(result))
        self.ui.reasonLabel.setText("")
        self._updateButtons()

    def select(self, row):
        """Choose a row, as a click does."""
        self.table.selectRow(row)

    def _fillRow(self, row, region):
        texts = [
            str(region.id),
            KINDS.get(region.kind, region.kind),
            region.structure,
            _number(region.volume_ml),
            _share(region.share),
            f"{region.peak:.2f}",
            _number(region.score),
        ]
        for column, text in enumerate(texts):
            cell = qt.QTableWidgetItem(text)
            cell.setToolTip(region.reason)
            if column not in (1, 2):
                cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self.table.setItem(row, column, cell)

    def _explanation(self, result):
        if result is None:
            return _("The places to look at first are listed here after a run.")
        provenance = result.provenance
        threshold, roi = provenance["threshold"], provenance["roi"]
        titles = {entry["measure"]: entry["title"] for entry in provenance["maps"]["uncertainty"]}
        what = _("{measure} of at least {value:.3g} {unit}, within {distance:g} mm").format(
            measure=titles.get(threshold["measure"], threshold["measure"]),
            value=threshold["value"],
            unit=threshold["unit"],
            distance=roi["distance_mm"],
        )
        if not self._regions:
            return _("No place to review: nowhere {what} of the structures.").format(what=what)
        return _("{count} places to review: {what} of the structures, and possible misses beyond. The sliders above do not "
                 "change this list.").format(count=len(self._regions), what=what)  # fmt: skip

    def _onSelected(self):
        row = self.table.currentRow()  # pythonqt: ok, no property of QTableWidget
        self._updateButtons()
        if not 0 <= row < len(self._regions):
            self.ui.reasonLabel.setText("")
            return
        region = self._regions[row]
        self.ui.reasonLabel.setText(html.escape(region.reason))
        self.panel.chooseStructure(region.structure)
        jumpTo(self.panel.scene, region.peak_ras_mm)

    def _step(self, by):
        row = self.table.currentRow()  # pythonqt: ok, no property of QTableWidget
        self.table.selectRow(row + by if row >= 0 else 0)

    def _updateButtons(self):
        row = self.table.currentRow()  # pythonqt: ok, no property of QTableWidget
        count = len(self._regions)
        self.ui.previousRegionButton.enabled = row > 0
        self.ui.nextRegionButton.enabled = row + 1 < count
        if not count:
            tip = _("There is no place to review.")
            self.ui.previousRegionButton.toolTip = self.ui.nextRegionButton.toolTip = tip
            return
        self.ui.previousRegionButton.toolTip = (
            _("Go to the place before this one") if row > 0 else _("This is the first place.")
        )
        self.ui.nextRegionButton.toolTip = (
            _("Go to the next place") if row + 1 < count else _("This is the last place.")
        )


def _share(part):
    """Per cent of the structure, as the reason of the region has it."""
    if part is None:
        return "–"
    return "< 1 %" if part < 0.01 else f"{100 * part:.0f} %"


def _number(value):
    return f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
