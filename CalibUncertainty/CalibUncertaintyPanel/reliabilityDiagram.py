"""The reliability diagram of a calibration as a Slicer plot: tables, series and chart. Takes the scene; knows no Qt.

Each point is a bin of voxels: how sure the model was of the label it chose, and how often that was right. On the diagonal the
two agree. Bins with few voxels say little and are left out (Mehrtash et al. 2020).
"""

import math

from slicer.i18n import tr as _

from .overlayNodes import groupInFolder
from .plotNodes import fillTable, findNode, removeNodes, roleNode

ROLE = "CalibUncertainty.Diagram"  # what each node is; a saved scene keeps it
FEWEST_VOXELS = 1000
X_COLUMN, Y_COLUMN, COUNT_COLUMN = "Mean probability (%)", "Right (%)", "Voxels"
CHART, DIAGONAL, WHEN = "chart", "diagonal", ("before", "after")
X_TITLE = "Mean probability of the chosen label (%)"
Y_TITLE = "Voxels whose label was right (%)"
# Vermillion and blue of Okabe and Ito: told apart by colour-blind readers, and marker and line differ, too
COLORS = {"before": (0.835, 0.369, 0.0), "after": (0.0, 0.447, 0.698), DIAGONAL: (0.45, 0.45, 0.45)}
TITLES = {"before": "Before", "after": "After", DIAGONAL: "Perfect"}
LINE_WIDTH, MARKER_SIZE, LEGEND_FONT_SIZE = 2, 9, 10
X_RANGE = (0.0, 100.0)
Y_RANGE = (
    0.0,
    120.0,
)  # Slicer draws the legend in the upper right corner, where most voxels are: it gets room above 100 %


def pointsOf(bins):
    """The bins that are drawn.

    :param bins: each {"lower", "upper", "n", "confidence", "accuracy"}, confidence and accuracy in 0..1, None where n is 0.
    :return: list of (confidence in per cent, accuracy in per cent, voxels), by rising confidence.
    """
    points = []
    for item in bins or ():
        known = [item.get("confidence"), item.get("accuracy")]
        if item.get("n", 0) >= FEWEST_VOXELS and all(value is not None and math.isfinite(value) for value in known):
            points.append((100.0 * known[0], 100.0 * known[1], int(item["n"])))
    return sorted(points)


def diagramProblem(figures):
    """Why these figures cannot be drawn, or an empty string.

    :param figures: {"before": {"bins": [...]}, "after": {...}}.
    """
    bins = {when: (figures.get(when) or {}).get("bins") for when in WHEN}
    if not all(bins.values()):
        return _("The record holds no bins for a diagram; calibrating again adds them.")
    if not any(pointsOf(bins[when]) for when in WHEN):
        text = _("No bin holds {count} voxels, too few for a diagram; calibrate on more cases.")
        return text.format(count=FEWEST_VOXELS)
    return ""


def findChart(scene):
    """The chart that `updateDiagram` has put into this scene, or None."""
    return findNode(scene, "vtkMRMLPlotChartNode", ROLE, CHART)


def updateDiagram(scene, figures, title):
    """Draw a calibration's figures; nodes of an earlier diagram are used again, and deleted ones made anew.

    :param figures: that `diagramProblem` has nothing against.
    :param title: what was calibrated.
    :return: chart node.
    :raises ValueError: if there is nothing to draw.
    """
    problem = diagramProblem(figures)
    if problem:
        raise ValueError(problem)
    isNew = findChart(scene) is None
    chart = roleNode(scene, "vtkMRMLPlotChartNode", ROLE, CHART, "Reliability diagram")
    wasModifying = chart.StartModify()
    chart.RemoveAllPlotSeriesNodeIDs()
    rows = {when: pointsOf(figures[when]["bins"]) for when in WHEN}
    nodes = []
    for role, points in {DIAGONAL: [(0.0, 0.0, 0), (100.0, 100.0, 0)], **rows}.items():
        table = roleNode(scene, "vtkMRMLTableNode", ROLE, f"table of {role}", f"Reliability, {TITLES[role].lower()}")
        names = (X_COLUMN, Y_COLUMN, COUNT_COLUMN)
        fillTable(table, {name: [point[column] for point in points] for column, name in enumerate(names)})
        series = roleNode(scene, "vtkMRMLPlotSeriesNode", ROLE, role, _legend(role, figures))
        _style(series, table, role)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        nodes += [table, series]
    chart.SetName(f"Reliability of {title}")
    chart.SetTitle(f"Reliability: {title}")
    chart.SetXAxisTitle(X_TITLE)
    chart.SetYAxisTitle(Y_TITLE)
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(*X_RANGE)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(*Y_RANGE)
    chart.SetLegendFontSize(LEGEND_FONT_SIZE)
    chart.SetLegendVisibility(True)
    chart.SetGridVisibility(True)
    chart.EndModify(wasModifying)
    if isNew:
        groupInFolder(scene, [chart, *nodes], "Reliability diagram")
    return chart


def removeDiagram(scene):
    """Take the diagram out of the scene, with its folder."""
    removeNodes(scene, ROLE)


def _style(series, table, role):
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(series.PlotTypeScatter)
    series.SetXColumnName(X_COLUMN)
    series.SetYColumnName(Y_COLUMN)
    series.SetColor(*COLORS[role])
    series.SetLineWidth(LINE_WIDTH if role in WHEN else 1)
    series.SetMarkerSize(MARKER_SIZE)
    markers = {"before": series.MarkerStyleCircle, "after": series.MarkerStyleSquare}
    series.SetMarkerStyle(markers.get(role, series.MarkerStyleNone))
    series.SetLineStyle(series.LineStyleDash if role == "before" else series.LineStyleSolid)


def _legend(role, figures):
    pooled = (figures.get(role) or {}).get("pooled") or {}
    error = pooled.get("ece_toplabel")
    return f"{TITLES[role]}, ECE {100 * error:.2f} %" if isinstance(error, (int, float)) else TITLES[role]
