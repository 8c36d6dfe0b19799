"""The reliability diagram in a real MRML scene: what is drawn, how it looks, and that it is saved, used again and removed."""

import math

import pytest

pytest.importorskip("slicer", reason="SLICER-CORE MISSING: install the test extra to run the MRML layer")

from CalibUncertaintyPanel import reliabilityDiagram as diagram
from CalibUncertaintyPanel.mrmlTools import nodesOfClass

CLASSES = ("vtkMRMLTableNode", "vtkMRMLPlotSeriesNode", "vtkMRMLPlotChartNode")


def bins(shift, many=5000, few=999):
    """Twenty bins: the lowest five empty, the sixth with few voxels, accuracy `shift` below confidence."""
    content = []
    for number in range(20):
        n = 0 if number < 5 else few if number == 5 else many + number
        confidence = (number + 0.6) / 20
        known = (
            {"confidence": confidence, "accuracy": confidence - shift} if n else {"confidence": None, "accuracy": None}
        )
        content.append({"lower": number / 20, "upper": (number + 1) / 20, "n": n, **known})
    return content


def figures(before=0.2, after=0.01):
    return {
        "before": {"bins": bins(before), "pooled": {"ece_toplabel": before}},
        "after": {"bins": bins(after), "pooled": {"ece_toplabel": after}},
    }


def series(scene):
    return {node.GetAttribute(diagram.ROLE): node for node in nodesOfClass(scene, "vtkMRMLPlotSeriesNode")}


def points(node):
    table = node.GetTableNode().GetTable()
    names = (node.GetXColumnName(), node.GetYColumnName(), diagram.COUNT_COLUMN)
    return [
        tuple(table.GetColumnByName(name).GetValue(row) for name in names) for row in range(table.GetNumberOfRows())
    ]


def delete(scene, node):
    """As the application does it: the entry in the data tree goes first."""
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)
    scene.RemoveNode(node)


def counts(scene):
    return [len(nodesOfClass(scene, name)) for name in CLASSES]


def test_each_bin_with_enough_voxels_is_a_point(scene):
    diagram.updateDiagram(scene, figures(), "Model")
    for when, shift in (("before", 0.2), ("after", 0.01)):
        found = points(series(scene)[when])
        assert len(found) == 14
        for number, (x, y, n) in zip(range(6, 20), found, strict=True):
            assert x == pytest.approx(100 * (number + 0.6) / 20)
            assert y == pytest.approx(x - 100 * shift)
            assert n == 5000 + number


def test_empty_bins_and_those_of_few_voxels_are_left_out():
    item = {"lower": 0.5, "upper": 0.55, "n": 1000, "confidence": 0.52, "accuracy": 0.5}
    assert diagram.pointsOf([item]) == [(52.0, 50.0, 1000)]
    for change in ({"n": 999}, {"n": 0, "confidence": None}, {"accuracy": None}, {"confidence": math.nan}):
        assert diagram.pointsOf([{**item, **change}]) == []
    assert diagram.pointsOf(None) == []


def test_the_diagonal_axes_and_legend_are_there(scene):
    chart = diagram.updateDiagram(scene, figures(), "Dataset900, folds 0 to 4")
    assert points(series(scene)["diagonal"]) == [(0, 0, 0), (100, 100, 0)]
    assert chart.GetXAxisTitle().endswith("(%)")
    assert chart.GetYAxisTitle().endswith("(%)")
    assert chart.GetXAxisRange() == (0, 100)
    assert chart.GetYAxisRange()[0] == 0
    assert chart.GetYAxisRange()[1] > 100  # room for the legend, which would cover the surest bins
    assert not chart.GetXAxisRangeAuto()
    assert not chart.GetYAxisRangeAuto()
    assert chart.GetLegendVisibility()
    assert "Dataset900, folds 0 to 4" in chart.GetTitle()
    names = [chart.GetNthPlotSeriesNode(i).GetName() for i in range(chart.GetNumberOfPlotSeriesNodes())]
    assert names == ["Perfect", "Before, ECE 20.00 %", "After, ECE 1.00 %"]


def test_before_and_after_differ_for_colour_blind_readers_and_without_colour(scene):
    """Brettel, Vienot and Mollon's projections to two cone types, as the matrices of Machado et al. 2009 at full severity."""
    diagram.updateDiagram(scene, figures(), "Model")
    first, second = (series(scene)[when] for when in ("before", "after"))
    assert first.GetMarkerStyle() != second.GetMarkerStyle()
    assert first.GetLineStyle() != second.GetLineStyle()
    matrices = {
        "protanopia": (
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ),
        "deuteranopia": (
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.011820, 0.042940, 0.968881),
        ),
        "tritanopia": (
            (1.255528, -0.076749, -0.178779),
            (-0.078411, 0.930809, 0.147602),
            (0.004733, 0.691367, 0.303900),
        ),
    }
    for name, matrix in matrices.items():
        seen = [
            [sum(m * c for m, c in zip(row, node.GetColor(), strict=True)) for row in matrix]
            for node in (first, second)
        ]
        assert math.dist(*seen) > 0.4, name


def test_drawing_again_uses_the_same_nodes(scene):
    chart = diagram.updateDiagram(scene, figures(), "Model")
    identifiers = {role: node.GetID() for role, node in series(scene).items()}
    assert counts(scene) == [3, 3, 1]
    again = diagram.updateDiagram(scene, figures(before=0.1), "Other model")
    assert again is chart is diagram.findChart(scene)
    assert counts(scene) == [3, 3, 1]
    assert {role: node.GetID() for role, node in series(scene).items()} == identifiers
    assert points(series(scene)["before"])[0][1] == pytest.approx(23)
    assert "Other model" in chart.GetTitle()
    assert chart.GetNumberOfPlotSeriesNodes() == 3


def test_what_the_user_has_deleted_is_made_anew(scene):
    chart = diagram.updateDiagram(scene, figures(), "Model")
    delete(scene, series(scene)["after"])
    delete(scene, series(scene)["before"].GetTableNode())
    assert diagram.updateDiagram(scene, figures(), "Model") is chart
    assert counts(scene) == [3, 3, 1]
    assert len(points(series(scene)["after"])) == len(points(series(scene)["before"])) == 14
    delete(scene, chart)
    assert diagram.updateDiagram(scene, figures(), "Model") is diagram.findChart(scene)
    assert counts(scene) == [3, 3, 1]


def test_other_plots_of_the_scene_stay_as_they_are(scene):
    other = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", "Dose-volume histogram")
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "Measurements")
    diagram.updateDiagram(scene, figures(), "Model")
    assert other.GetName() == "Dose-volume histogram"
    diagram.removeDiagram(scene)
    assert counts(scene) == [1, 0, 1]
    assert nodesOfClass(scene, "vtkMRMLTableNode") == [table]


def test_removing_takes_the_folder_of_the_data_tree_along(scene):
    import slicer
    import vtk

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    def items():
        found = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found, True)
        return found.GetNumberOfIds()

    before = items()
    chart = diagram.updateDiagram(scene, figures(), "Model")
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(chart))
    assert hierarchy.GetItemName(folder) == "Reliability diagram"
    assert items() == before + 8
    diagram.removeDiagram(scene)
    assert diagram.findChart(scene) is None
    assert items() == before
    diagram.removeDiagram(scene)  # nothing there: nothing happens


def test_a_closed_scene_has_no_diagram(scene):
    diagram.updateDiagram(scene, figures(), "Model")
    scene.Clear(0)
    assert counts(scene) == [0, 0, 0]
    assert diagram.findChart(scene) is None


def test_a_saved_scene_brings_the_diagram_back_and_it_is_used_again(scene, tmp_path):
    diagram.updateDiagram(scene, figures(), "Modell Ü")
    drawn = {role: points(node) for role, node in series(scene).items()}
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    chart = diagram.findChart(scene)
    assert chart.GetTitle() == "Reliability: Modell Ü"
    assert chart.GetXAxisTitle() == diagram.X_TITLE
    assert chart.GetXAxisRange() == (0, 100)
    for role, node in series(scene).items():
        assert points(node) == [pytest.approx(point, abs=1e-3) for point in drawn[role]]
        assert node.GetColor() == pytest.approx(diagram.COLORS[role], abs=1e-3)
    assert diagram.updateDiagram(scene, figures(), "Model") is chart
    assert counts(scene) == [3, 3, 1]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({}, "no bins"),
        ({"before": {"bins": bins(0.1)}, "after": None}, "no bins"),
        ({"before": {"bins": bins(0.1, many=10)}, "after": {"bins": bins(0.1, many=10)}}, "No bin holds 1000"),
    ],
)
def test_figures_with_nothing_to_draw_are_refused_with_a_reason(scene, broken, words):
    assert words in diagram.diagramProblem(broken)
    with pytest.raises(ValueError, match=words):
        diagram.updateDiagram(scene, broken, "Model")
    assert counts(scene) == [0, 0, 0]
    assert diagram.diagramProblem(figures()) == ""
