"""What the tests of the review look at and press."""

import json
from types import SimpleNamespace


def titles(table):
    return [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]


def column_of(panel, title):
    table = panel.ui.regionsTable
    column = titles(table).index(title)
    return [table.item(row, column).text() for row in range(table.rowCount)]


def slice_nodes():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceNode")


def stored(panel):
    return json.loads((panel.resultFolder / "review.json").read_text(encoding="utf-8"))


def list_regions(panel, regions):
    """Show other regions in the table than the Result's."""
    result = panel.overlays.result
    panel.review.fill(SimpleNamespace(regions=regions, provenance=result.provenance, folder=None))


def press(keys):
    """Press keys as Qt hears them from the main window."""
    import qt
    import slicer

    found = [s for s in slicer.util.mainWindow().findChildren(qt.QShortcut) if s.key.toString() == keys]
    assert len(found) == 1, f"{len(found)} shortcuts of {keys}"
    found[0].activated.emit()


def least_width(panel):
    """Pixels that the panel needs at least."""
    import qt

    for layout in panel.widget.findChildren(qt.QLayout):
        layout.invalidate()  # a panel that is not on a screen is told nothing of widgets that were hidden
    return panel.widget.minimumSizeHint().width()
