"""Tables of figures in the panel: as high as they need to be, numbers on the right, what is known of them as a tool tip."""

import qt

ROW_MARGIN = 7  # pixels
ROWS_TO_GIVE = 2
MOST_ROWS = 8  # as high as a table grows; further rows are scrolled to


def prepareTable(table, heads, stretched=0):
    """Give a QTableWidget its columns.

    :param heads: titles.
    :param stretched: the column that takes the room that is left.
    """
    table.setColumnCount(len(heads))
    table.setHorizontalHeaderLabels(list(heads))
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + ROW_MARGIN)
    header = table.horizontalHeader()
    for column in range(len(heads)):
        isStretched = column == stretched
        header.setSectionResizeMode(column, qt.QHeaderView.Stretch if isStretched else qt.QHeaderView.ResizeToContents)


def fillTable(table, rows, textColumns=1):
    """Show rows.

    :param rows: of texts, or of `Cell`s with `text` and `tip`.
    :param textColumns: how many columns on the left hold words.
    """
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            text, tip = (cell, "") if isinstance(cell, str) else (cell.text, cell.tip)
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip or text)
            if column >= textColumns:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(row, column, item)
    shown = min(max(len(rows), 1), MOST_ROWS)
    rowHeight = table.verticalHeader().defaultSectionSize
    height = table.horizontalHeader().height + shown * rowHeight + 6
    table.setMaximumHeight(height)
    # Labels that break their lines need more room than they ask for: a long table gives way to them.
    table.setMinimumHeight(height - (ROWS_TO_GIVE * rowHeight if shown > 2 * ROWS_TO_GIVE else 0))
