"""The budget curve of an evaluation as a Slicer plot: what a reader finds who looks at the most uncertain voxels only.

Across: the share of the region of interest that is flagged, most uncertain voxels first. Up: overlap (Dice) of the flagged voxels
with the wrong ones, mean over cases (after Brioso et al., arXiv 2604.11798).
"""

from slicer.i18n import tr as _

from .overlayNodes import groupInFolder
from .plotNodes import fillTable, findNode, removeNodes, roleNode
from .reliabilityDiagram import LEGEND_FONT_SIZE, LINE_WIDTH

ROLE = "CalibUncertainty.BudgetCurve"  # what each node is; a saved scene keeps it
CHART = "chart"
X_COLUMN, Y_COLUMN = "Flagged share (%)", "Overlap"
X_TITLE = "Flagged voxels (% of the region of interest)"
Y_TITLE = "Overlap with the errors (Dice)"
# Okabe and Ito without yellow; lines differ, too
COLORS = ((0.0, 0.447, 0.698), (0.835, 0.369, 0.0), (0.0, 0.62, 0.451), (0.8, 0.475, 0.655), (0.337, 0.706, 0.914))
GREY = (0.45, 0.45, 0.45)
LEGEND_ROOM = 1.25  # Slicer draws the legend in the upper right corner


def findChart(scene):
    """The chart that `updateBudget` has put into this scene, or None."""
    return findNode(scene, "vtkMRMLPlotChartNode", ROLE, CHART)


def updateBudget(scene, curves, title):
    """Draw budget curves; nodes of an earlier drawing are used again, those of curves that are gone are removed.

    :param curves: of `evaluationCurves.budgetCurves`: configurations, the ideal, a random order.
    :param title: the measure and the model.
    :return: chart node.
    :raises ValueError: if there is nothing to draw.
    """
    if len(curves) < 3:
        raise ValueError(_("There is no budget curve of this measure: no case had errors near what was predicted."))
    isNew = findChart(scene) is None
    if findSeries(scene) and len(findSeries(scene)) != len(curves):
        removeNodes(scene, ROLE)
        isNew = True
    chart = roleNode(scene, "vtkMRMLPlotChartNode", ROLE, CHART, f"Budget curve, {title}")
    wasModifying = chart.StartModify()
    chart.RemoveAllPlotSeriesNodeIDs()
    nodes = []
    for number, curve in enumerate(curves):
        table = roleNode(scene, "vtkMRMLTableNode", ROLE, f"table {number}", f"Budget curve, {curve.name}")
        fillTable(
            table, {X_COLUMN: [float(x) for x, _y in curve.points], Y_COLUMN: [float(y) for _x, y in curve.points]}
        )
        series = roleNode(scene, "vtkMRMLPlotSeriesNode", ROLE, f"curve {number}", curve.name)
        _style(series, table, number, len(curves))
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        nodes += [table, series]
    _arrange(chart, curves, title)
    chart.EndModify(wasModifying)
    if isNew:
        groupInFolder(scene, [chart, *nodes], "Budget curve")
    return chart


def findSeries(scene):
    """The series that are drawn, in their order."""
    found = []
    while (node := findNode(scene, "vtkMRMLPlotSeriesNode", ROLE, f"curve {len(found)}")) is not None:
        found.append(node)
    return found


def removeBudget(scene):
    """Take the plot out of the scene, with its folder."""
    removeNodes(scene, ROLE)


def _style(series, table, number, count):
    reference = number - (count - 2)  # the last two: 0 the ideal, 1 a random order
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(series.PlotTypeScatter)
    series.SetXColumnName(X_COLUMN)
    series.SetYColumnName(Y_COLUMN)
    series.SetMarkerStyle(series.MarkerStyleNone)
    series.SetColor(*(GREY if reference >= 0 else COLORS[number % len(COLORS)]))
    series.SetLineWidth(1 if reference >= 0 else LINE_WIDTH)
    lines = (series.LineStyleSolid, series.LineStyleDash, series.LineStyleDashDot)
    styles = (series.LineStyleDot, series.LineStyleDash)
    series.SetLineStyle(styles[reference] if reference >= 0 else lines[number % len(lines)])


def _arrange(chart, curves, title):
    highest = max(y for curve in curves for _x, y in curve.points)
    chart.SetTitle(f"Budget curve: {title}")
    chart.SetXAxisTitle(X_TITLE)
    chart.SetYAxisTitle(Y_TITLE)
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(0.0, max(x for curve in curves for x, _y in curve.points))
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, LEGEND_ROOM * max(highest, 0.01))
    chart.SetLegendFontSize(LEGEND_FONT_SIZE)
    chart.SetLegendVisibility(True)
    chart.SetGridVisibility(True)
