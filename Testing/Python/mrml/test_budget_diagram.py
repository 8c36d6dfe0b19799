"""The budget curve in a real MRML scene: what is drawn, that it is saved, used again and removed."""

import math

import pytest

pytest.importorskip("slicer", reason="SLICER-CORE MISSING: install the test extra to run the MRML layer")

from CalibUncertaintyPanel import budgetDiagram as diagram
from CalibUncertaintyPanel import evaluationCurves, fakeEvaluation, reliabilityDiagram
from CalibUncertaintyPanel.mrmlTools import nodesOfClass

CLASSES = ("vtkMRMLTableNode", "vtkMRMLPlotSeriesNode", "vtkMRMLPlotChartNode")


def curves(names=("uncalibrated", "calibrated"), measure="entropy"):
    return evaluationCurves.budgetCurves(fakeEvaluation.content(names), measure)


def points(series):
    table = series.GetTableNode().GetTable()
    columns = [table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName())]
    return [tuple(column.GetValue(row) for column in columns) for row in range(table.GetNumberOfRows())]


def counts(scene):
    return [len(nodesOfClass(scene, name)) for name in CLASSES]


def test_each_configuration_is_drawn_beside_the_ideal_and_a_random_order(scene):
    chart = diagram.updateBudget(scene, curves(), "Entropy, Model")
    names = [chart.GetNthPlotSeriesNode(i).GetName() for i in range(chart.GetNumberOfPlotSeriesNodes())]
    assert names == ["uncalibrated", "calibrated", "Ideal: errors first", "Random order"]
    series = diagram.findSeries(scene)
    for number, scale in ((0, 0.8), (1, 1.0)):
        found = points(series[number])
        assert found[0] == (0.0, 0.0)
        assert len(found) == 51
        for step, (x, y) in enumerate(found):
            assert x == pytest.approx(0.1 * step)
            assert y == pytest.approx(min(0.5 * scale, 12 * scale * 0.001 * step))
    assert points(series[2])[-1] == pytest.approx((5.0, 1.0))
    assert points(series[3])[-1] == pytest.approx((5.0, 0.02))


def test_axes_have_units_and_room_for_the_legend(scene):
    chart = diagram.updateBudget(scene, curves(), "Entropy, Model")
    assert "% of the region of interest" in chart.GetXAxisTitle()
    assert "Dice" in chart.GetYAxisTitle()
    assert chart.GetXAxisRange() == pytest.approx((0, 5))
    assert chart.GetYAxisRange()[0] == 0
    assert chart.GetYAxisRange()[1] > 1.1
    assert chart.GetLegendVisibility()


def test_what_is_best_and_worst_possible_is_grey_and_all_lines_differ(scene):
    diagram.updateBudget(scene, curves(), "Entropy")
    series = diagram.findSeries(scene)
    looks = {(node.GetColor(), node.GetLineStyle(), node.GetLineWidth()) for node in series}
    assert len(looks) == 4
    for node in series[2:]:
        assert node.GetColor() == diagram.GREY
    assert math.dist(series[0].GetColor(), series[1].GetColor()) > 0.5


def test_drawing_again_uses_the_same_nodes_and_leaves_no_curve_of_before(scene):
    first = diagram.updateBudget(scene, curves(), "Entropy")
    assert diagram.updateBudget(scene, curves(measure="mi"), "Mutual information") is first
    assert counts(scene) == [4, 4, 1]
    assert points(diagram.findSeries(scene)[1])[-1][1] == pytest.approx(0.4)
    chart = diagram.updateBudget(scene, curves(("one", "two", "three")), "Entropy")
    assert counts(scene) == [5, 5, 1]
    chart = diagram.updateBudget(scene, curves(("one",)), "Entropy")
    assert counts(scene) == [3, 3, 1]
    assert chart.GetNumberOfPlotSeriesNodes() == 3


def test_a_measure_without_errors_in_any_case_is_refused(scene):
    assert curves(measure="epkl") == []
    with pytest.raises(ValueError, match="no budget curve"):
        diagram.updateBudget(scene, [], "Pairwise divergence")
    assert counts(scene) == [0, 0, 0]


def test_unknown_points_of_a_curve_are_left_out():
    content = fakeEvaluation.content(["calibrated"])
    budget = content["configurations"]["calibrated"]["measures"]["entropy"]["domains"]["pred"]["budget"]
    budget["overlap"]["mean"][:10] = [None] * 10
    curve = evaluationCurves.budgetCurves(content, "entropy")[0]
    assert curve.points[0] == (0.0, 0.0)
    assert curve.points[1][0] == pytest.approx(1.1)
    budget["overlap"]["mean"][:] = [None] * 50
    assert evaluationCurves.budgetCurves(content, "entropy") == []


def test_it_is_another_plot_than_the_reliability_diagram(scene):
    item = {"lower": 0.5, "upper": 0.55, "n": 5000, "confidence": 0.52, "accuracy": 0.5}
    figures = {when: {"bins": [item]} for when in reliabilityDiagram.WHEN}
    other = reliabilityDiagram.updateDiagram(scene, figures, "Model")
    diagram.updateBudget(scene, curves(), "Entropy")
    assert counts(scene) == [7, 7, 2]
    diagram.removeBudget(scene)
    assert counts(scene) == [3, 3, 1]
    assert reliabilityDiagram.findChart(scene) is other


def test_a_saved_scene_brings_the_curve_back_and_it_is_used_again(scene, tmp_path):
    diagram.updateBudget(scene, curves(), "Entropie, Modell Ü")
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    chart = diagram.findChart(scene)
    assert chart.GetTitle() == "Budget curve: Entropie, Modell Ü"
    assert points(diagram.findSeries(scene)[2])[-1] == pytest.approx((5.0, 1.0), abs=1e-4)
    assert diagram.updateBudget(scene, curves(), "Entropy") is chart
    assert counts(scene) == [4, 4, 1]
