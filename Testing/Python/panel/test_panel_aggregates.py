"""The summaries of each structure that a Result holds, as a table; older Results hold none."""

import pytest

ORGAN = {"name": "Organ", "status": "ok", "mean": 0.1234, "max": 0.9, "boundary": 0.5, "seg_entropy_k": 0.25}
AGREEMENT = {"pairwise_dice": 0.876, "vol_cv": 0.034}
NODE = {"name": "Node", "status": "not_predicted", "mean": None, "max": None, "boundary": None, "pairwise_dice": None}


@pytest.fixture(autouse=True)
def unfolded(panel):
    """The section as somebody looks at it; the panel stays from test to test, and other tests fold it up."""
    panel.ui.summaryCollapsibleButton.collapsed = False
    yield
    panel.ui.summaryCollapsibleButton.collapsed = True


def texts(table):
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def heads(table):
    return [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]


def show(panel, aggregates):
    panel.overlays.result.provenance["aggregates"] = aggregates
    panel.aggregates.fill(panel.overlays.result)


def test_each_structure_has_a_row_and_each_figure_that_is_known_a_column(opened):
    show(opened, {"measure": "entropy", "structures": {"1": ORGAN | AGREEMENT, "2": NODE}})
    table = opened.ui.aggregatesTable
    assert table.isVisibleTo(opened.ui.summaryCollapsibleButton)
    assert heads(table)[:4] == ["Structure", "Mean", "Border", "Own"]
    assert texts(table)[0] == ["Organ", "0.123", "0.500", "0.250", "0.876", "3.4 %"]
    assert texts(table)[1] == ["Node (not predicted)", "–", "–", "–", "–", "–"]
    assert opened.ui.aggregatesLabel.text == "Entropy of each structure, in nats:"
    assert all(table.horizontalHeaderItem(column).toolTip() for column in range(table.columnCount))


def test_figures_that_no_structure_has_take_no_column(opened):
    show(opened, {"structures": {"1": ORGAN}})
    assert "Agreement" not in heads(opened.ui.aggregatesTable)
    assert len(texts(opened.ui.aggregatesTable)[0]) == 4


@pytest.mark.parametrize("aggregates", [None, {}, {"structures": None}, {"structures": {"1": {"name": "Organ"}}}, 7])
def test_nothing_is_shown_where_there_is_nothing(opened, aggregates):
    show(opened, {"structures": {"1": ORGAN}})
    show(opened, aggregates)
    assert not opened.ui.aggregatesTable.isVisibleTo(opened.ui.summaryCollapsibleButton)
    assert not opened.ui.aggregatesLabel.isVisibleTo(opened.ui.summaryCollapsibleButton)
    opened.aggregates.fill(None)


def test_a_measure_that_the_result_does_not_show_is_named_as_it_is(opened):
    show(opened, {"measure": "something", "structures": {"1": ORGAN}})
    assert opened.ui.aggregatesLabel.text == "something:"


def test_each_structure_says_where_it_stands_among_the_calibration_cases(opened):
    standing = {"status": "ok", "combined": 1.26, "cases": 8, "higher": 1, "equal": 0}
    few = {"status": "ok", "combined": -0.5, "cases": 2, "higher": None, "equal": None}
    combined = {"status": "ok", "structures": {"1": standing, "2": {"status": "no_score", "combined": None}, "3": few}}
    structures = {"1": ORGAN, "2": NODE, "3": {**ORGAN, "name": "Other"}}
    show(opened, {"measure": "entropy", "structures": structures, "combined": combined})
    table = opened.ui.aggregatesTable
    assert heads(table)[-1] == "Compared"
    assert [row[-1] for row in texts(table)] == ["+1.3 (2 of 9)", "–", "-0.5"]
    assert "1 is the most uncertain" in table.horizontalHeaderItem(table.columnCount - 1).toolTip()
    show(
        opened, {"measure": "entropy", "structures": structures, "combined": {"status": "no_scores", "structures": {}}}
    )
    assert "Compared" not in heads(table)
