"""The table of a Result's regions: one row each, sortable by every column, the one to look at first on top."""

import math

import qt
from slicer.i18n import tr as _

from . import reviewWords as words
from .reviewDecisions import VERDICTS
from .reviewFilter import ReviewFilter


class _Column:
    """How one column is filled and sorted. `key` and `text` take a region and its decision; a key of None comes last."""

    def __init__(self, title, tip, text, key, isNumber=True):
        self.title = title
        self.tip = tip
        self.text = text
        self.key = key
        self.isNumber = isNumber


def _rank(decision):
    return (VERDICTS.index(decision.verdict) if decision.verdict else len(VERDICTS)) if decision.isMade else None


COLUMNS = (
    _Column(
        _("#"), _("Order in which to look: click here to come back to it"), lambda r, d: str(r.id), lambda r, d: -r.id
    ),
    _Column(
        _("Seen"),
        _("What you have decided: ✓ correct, ✗ wrong, ? unsure, ✎ edited in Segment Editor"),
        lambda r, d: words.mark(d),
        lambda r, d: _rank(d),
        False,
    ),
    _Column(
        _("Structure"),
        _("Nearest structure, or the one that may have been missed"),
        lambda r, d: r.structure or words.NONE,
        lambda r, d: r.structure.casefold() or None,
        False,
    ),
    _Column(
        _("Why"),
        "\n".join(words.KIND_SENTENCES.values()),
        lambda r, d: words.kind(r),
        lambda r, d: words.kind(r),
        False,
    ),
    _Column(
        _("Error"),
        _("Chance that the model is really wrong here: how often such places were, in cases with a known answer"),
        lambda r, d: words.chance(words.chanceOf(r)),
        lambda r, d: words.chanceOf(r),
    ),
    _Column(_("mL"), _("Volume in mL"), lambda r, d: words.number(r.volume_ml), lambda r, d: r.volume_ml),
    _Column(
        _("Share"),
        _("Volume expected to be wrong, as a part of the structure's volume; none for a possible miss"),
        lambda r, d: words.share(r.share),
        lambda r, d: r.share,
    ),
    _Column(_("Mean"), _("Mean of the measure in the region"), lambda r, d: f"{r.mean:.2f}", lambda r, d: r.mean),
    _Column(
        _("Peak"), _("Highest value of the measure in the region"), lambda r, d: f"{r.peak:.2f}", lambda r, d: r.peak
    ),
)
ROW_MARGIN = 7  # pixels: as many places as possible are seen at once
READING_ORDER, SEEN, STRUCTURE, CHANCE = 0, 1, 2, 4
DETAILS = (7, 8)  # given up in a narrow panel, so that the names of structures can be read
READABLE = "Lymph nodes"  # of a structure's name


class ReviewTable:
    """Fills and sorts a QTableWidget.

    :param onSelected: called without arguments when another row is chosen.
    """

    def __init__(self, table, onSelected):
        self.table = table
        self._regions = []
        self._decisions = None
        self._order = []
        self._filter = ReviewFilter()
        self._revealed = set()
        self._onSelected = onSelected
        self._left = None  # a half lies between two rows
        self._othersWidth = 0  # of all columns but the structure's, with details
        self._fitTimer = qt.QTimer(table)  # a header that is just being laid out must not be changed
        self._fitTimer.setSingleShot(True)
        self._fitTimer.connect("timeout()", self._fitDetails)
        self._sorted = (READING_ORDER, False)  # column, whether against its first direction
        table.setColumnCount(len(COLUMNS))
        for column, about in enumerate(COLUMNS):
            header = qt.QTableWidgetItem(about.title)
            header.setToolTip(about.tip)
            table.setHorizontalHeaderItem(column, header)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + ROW_MARGIN)
        header = table.horizontalHeader()
        header.setMinimumSectionSize(18)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setSectionResizeMode(STRUCTURE, qt.QHeaderView.Stretch)
        header.connect("sectionClicked(int)", self.sortBy)
        header.connect("sectionResized(int,int,int)", self._onSectionResized)
        table.connect("itemSelectionChanged()", onSelected)

    def fill(self, regions, decisions, chosen):
        """List regions in reading order, none of them chosen.

        :param decisions: `ReviewDecisions` on them.
        :param chosen: `ReviewFilter`.
        """
        self._regions, self._decisions, self._filter = list(regions), decisions, chosen
        self._sorted = (READING_ORDER, False)
        self._left = None
        self._revealed.clear()
        self._show(None)

    def filter(self, chosen):
        """Show only what passes a `ReviewFilter`. A chosen region that is hidden by it is not chosen any more."""
        if chosen == self._filter:
            return
        before, self._left = self.selected, None
        self._filter = chosen
        self._revealed.clear()
        self._show(before)
        if before is not None and self.selected is None:
            earlier = self._placesBefore(before)
            self._left = sum(region.id in earlier for region in self._order) - 0.5
            self._onSelected()

    @property
    def hidden(self):
        """The `Region`s that the filter hides."""
        shown = {region.id for region in self._order}
        return [region for region in self._regions if region.id not in shown]

    @property
    def selected(self):
        """The `Region` of the chosen row, or None."""
        row = self.table.currentRow()  # pythonqt: ok, no property of QTableWidget
        return self._order[row] if 0 <= row < len(self._order) else None

    @property
    def place(self):
        """(Row of the chosen region, or -1; number of rows)."""
        row = self.table.currentRow()  # pythonqt: ok, no property of QTableWidget
        return (row if row < len(self._order) else -1), len(self._order)

    def selectRow(self, row):
        """Choose a row, as a click does."""
        self.table.selectRow(row)

    def select(self, regionId):
        """Choose the row of a region, wherever it is sorted to; one that is hidden is shown until the filter changes."""
        if regionId not in [region.id for region in self._order]:
            self._revealed.add(regionId)
            self._show(None)
        self.table.selectRow([region.id for region in self._order].index(regionId))

    def leave(self):
        """Choose no row; `step` goes on from the one that was chosen."""
        self._left = self.place[0] if self.place[0] >= 0 else self._left
        self.table.setCurrentCell(-1, -1)  # before the selection goes: its signal asks for the current row
        self.table.clearSelection()

    def step(self, by):
        """Go on by some rows; from no row to the first one.

        :return: whether there was a row to go to.
        """
        row, count = self.place
        row = self._left if row < 0 else row
        wanted = 0 if row is None else (math.floor(row) if by > 0 else math.ceil(row)) + by
        if not 0 <= wanted < count:
            return False
        self.table.selectRow(wanted)
        return True

    def sortBy(self, column):
        """Sort by a column: numbers from the highest, words from A; the second time the other way; the third time no more.

        The chosen region stays chosen, and nothing else happens about it.
        """
        known, turned = self._sorted
        if column == READING_ORDER or (column == known and turned):
            self._sorted = (READING_ORDER, False)
        else:
            self._sorted = (column, column == known)
        self._show(self.selected)

    def updateDecision(self, regionId):
        """Show the decision on a region; the rows stay where they are until the next sorting."""
        for row, region in enumerate(self._order):
            if region.id == regionId:
                self.table.item(row, SEEN).setText(words.mark(self._decisions.of(regionId)))

    def _show(self, selected):
        column, turned = self._sorted
        self._order = [region for region in self._inOrder() if self._passes(region)]
        wasBlocked = self.table.blockSignals(True)
        self.table.setUpdatesEnabled(False)
        try:
            self.table.clearSelection()
            self.table.setRowCount(0)  # filling rows that exist costs a layout for each cell
            self.table.setRowCount(len(self._order))
            for row, region in enumerate(self._order):
                self._fillRow(row, region)
            self._showDirection(column, turned)
            self.table.setColumnHidden(CHANCE, all(words.chanceOf(region) is None for region in self._regions))
            self._fitColumns()
            if selected is not None and self._passes(selected):
                self.select(selected.id)
            else:
                self.table.setCurrentCell(-1, -1)
        finally:
            self.table.setUpdatesEnabled(True)
            self.table.blockSignals(wasBlocked)

    def _inOrder(self):
        column, turned = self._sorted
        return _inOrder(self._regions, self._decisions, COLUMNS[column], turned)

    def _passes(self, region):
        return region.id in self._revealed or self._filter.passes(region)

    def _placesBefore(self, region):
        """Identifiers of what comes before a region in the order of now, hidden or not."""
        identifiers = [each.id for each in self._inOrder()]
        return set(identifiers[: identifiers.index(region.id)])

    def _fillRow(self, row, region):
        decision = self._decisions.of(region.id)
        for column, about in enumerate(COLUMNS):
            cell = qt.QTableWidgetItem(about.text(region, decision))
            cell.setToolTip(region.reason)
            if about.isNumber:
                cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self.table.setItem(row, column, cell)

    def _showDirection(self, column, turned):
        header = self.table.horizontalHeader()
        header.setSortIndicatorShown(column != READING_ORDER)
        downwards = COLUMNS[column].isNumber != turned
        header.setSortIndicator(column, qt.Qt.DescendingOrder if downwards else qt.Qt.AscendingOrder)

    def _fitColumns(self):
        # Once for all rows: a header that fits itself measures every row again for each cell that is set.
        self._hideDetails(False)
        for column in range(len(COLUMNS)):
            if column != STRUCTURE:
                self.table.resizeColumnToContents(column)
        header = self.table.horizontalHeader()
        self._othersWidth = sum(header.sectionSize(column) for column in range(len(COLUMNS)) if column != STRUCTURE)
        self._fitDetails()

    def _onSectionResized(self, column, before, width):
        if column == STRUCTURE and self._othersWidth:  # the panel is wider or narrower than it was
            self._fitTimer.start(0)

    def _fitDetails(self):
        least = self.table.fontMetrics().horizontalAdvance(READABLE) + 2 * ROW_MARGIN
        self._hideDetails(self.table.viewport().width - self._othersWidth < least)

    def _hideDetails(self, hidden):
        for column in DETAILS:
            if self.table.isColumnHidden(column) != hidden:
                self.table.setColumnHidden(column, hidden)


def _inOrder(regions, decisions, column, turned):
    """Regions sorted by a column; equal ones stay in reading order, those without a value come last."""
    keys = {region.id: column.key(region, decisions.of(region.id)) for region in regions}
    known = [region for region in regions if keys[region.id] is not None]
    unknown = [region for region in regions if keys[region.id] is None]
    return sorted(known, key=lambda region: keys[region.id], reverse=column.isNumber != turned) + unknown
