"""The review as a reader does it: sort, go on with the keyboard, zoom, decide, take back, come back later."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from review_parts import column_of, list_regions, press, slice_nodes, titles


def test_numbers_sort_as_numbers_and_a_third_click_brings_the_reading_order_back(reviewed):
    base = reviewed.overlays.result.regions[0]
    volumes = [2.0, 10.0, 0.5, 10.0]
    list_regions(reviewed, [replace(base, id=i + 1, volume_ml=v) for i, v in enumerate(volumes)])
    table = reviewed.ui.regionsTable
    header, ml = table.horizontalHeader(), titles(table).index("mL")
    header.sectionClicked.emit(ml)
    assert column_of(reviewed, "#") == ["2", "4", "1", "3"]  # equal ones stay in reading order
    assert header.isSortIndicatorShown()
    header.sectionClicked.emit(ml)
    assert column_of(reviewed, "#") == ["3", "1", "2", "4"]
    header.sectionClicked.emit(ml)
    assert column_of(reviewed, "#") == ["1", "2", "3", "4"]
    assert not header.isSortIndicatorShown()
    header.sectionClicked.emit(ml)
    header.sectionClicked.emit(0)
    assert column_of(reviewed, "#") == ["1", "2", "3", "4"]


def test_words_sort_from_a_and_what_is_unknown_comes_last_either_way(reviewed):
    base = reviewed.overlays.result.regions[0]
    regions = [replace(base, id=1, structure="Zunge", share=None), replace(base, id=2, structure="aorta", share=0.2)]
    regions.append(replace(base, id=3, structure="Leber", share=0.4))
    list_regions(reviewed, regions)
    header = reviewed.ui.regionsTable.horizontalHeader()
    structure, share = (titles(reviewed.ui.regionsTable).index(title) for title in ("Structure", "Share"))
    header.sectionClicked.emit(structure)
    assert column_of(reviewed, "Structure") == ["aorta", "Leber", "Zunge"]
    header.sectionClicked.emit(share)
    assert column_of(reviewed, "#") == ["3", "2", "1"]
    header.sectionClicked.emit(share)
    assert column_of(reviewed, "#") == ["2", "3", "1"]


def test_the_chosen_region_stays_chosen_when_the_table_is_sorted_and_next_follows_the_new_order(reviewed):
    ui, review = reviewed.ui, reviewed.review
    review.select(1)
    chosen, reason = review.table.selected, ui.reasonLabel.text
    before = [node.GetFieldOfView() for node in slice_nodes()]
    for _ in range(2):  # from the smallest
        ui.regionsTable.horizontalHeader().sectionClicked.emit(titles(ui.regionsTable).index("mL"))
    order = [int(text) for text in column_of(reviewed, "#")]
    assert order != sorted(order)
    assert review.table.selected is chosen
    assert ui.reasonLabel.text == reason
    assert [node.GetFieldOfView() for node in slice_nodes()] == before
    row = order.index(chosen.id)
    assert row > 0
    ui.previousRegionButton.click()
    assert review.table.selected.id == order[row - 1]


@pytest.mark.parametrize(
    ("chance", "text"), [(0.62, "6 in 10"), (0.03, "< 1 in 10"), (0.97, "> 9 in 10"), (0.951, "> 9 in 10"), (None, "–")]
)
def test_the_chance_to_be_an_error_is_said_as_people_say_it(reviewed, chance, text):
    base = reviewed.overlays.result.regions[0]
    known = {**vars(base), "chance": chance, "chance_interval": (0.4, 0.8), "chance_n": 41, "to_json": base.to_json}
    with_chance = SimpleNamespace(**known)
    other = SimpleNamespace(**{**vars(with_chance), "id": 2, "chance": 0.5})
    list_regions(reviewed, [with_chance, other])
    assert column_of(reviewed, "Error") == [text, "5 in 10"]
    reviewed.review.select(0)
    sentence = reviewed.ui.chanceLabel.text
    if chance is None:
        assert sentence == ""
    else:
        assert "40 to 80 %" in sentence
        assert "41 places" in sentence


def test_old_results_without_a_chance_have_no_column_for_it(reviewed):
    column = titles(reviewed.ui.regionsTable).index("Error")
    assert not hasattr(reviewed.overlays.result.regions[0], "chance") or all(
        region.chance is None for region in reviewed.overlays.result.regions
    )
    assert reviewed.ui.regionsTable.isColumnHidden(column)


def test_choosing_a_region_zooms_every_view_to_it_and_fit_gives_the_zoom_back(reviewed):
    from CalibUncertaintyPanel.reviewViews import reachOf, widthFor

    def fields():
        return np.array([node.GetFieldOfView() for node in slice_nodes()])

    before = fields()
    reviewed.ui.nextRegionButton.click()
    region = reviewed.review.table.selected
    width = widthFor(
        reachOf(region.peak_ras_mm, reviewed.review.boxes[region.id].cornersRas()), *reviewed.review.grid()
    )
    for node in slice_nodes():
        assert min(node.GetFieldOfView()[:2]) == pytest.approx(width)
    reviewed.ui.fitButton.click()
    assert fields() == pytest.approx(before)
    reviewed.ui.zoomToRegionCheckBox.click()
    assert not reviewed.parameterNode.zoomToRegion
    reviewed.ui.nextRegionButton.click()
    assert fields() == pytest.approx(before)


def test_fit_without_a_zoom_before_fits_the_views_to_the_ct(reviewed):
    node = slice_nodes()[0]
    node.SetFieldOfView(7, 7, 1)
    reviewed.ui.fitButton.click()
    assert min(node.GetFieldOfView()[:2]) > 50


def test_the_most_uncertain_slice_is_shown_in_the_axial_view_and_no_place_is_chosen_then(reviewed):
    import slicer

    overlays = reviewed.overlays
    reviewed.review.select(2)
    threshold = reviewed.parameterNode.threshold
    array = slicer.util.arrayFromVolume(overlays.uncertaintyNode)
    sums = np.where(array >= threshold, array, 0).sum(axis=(1, 2), dtype=float)
    matrix = overlays.result.uncertainty("entropy").ijk_to_ras
    reviewed.ui.uncertainSliceButton.click()
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx((matrix @ [0, 0, int(sums.argmax()), 1])[2])
    assert reviewed.review.table.selected is None
    assert not reviewed.ui.correctButton.enabled
    assert str(int((array[int(sums.argmax())] >= threshold).sum())) in reviewed.ui.reasonLabel.text
    reviewed.ui.nextRegionButton.click()
    assert reviewed.review.table.place[0] == 3  # on from where it was left
    reviewed.ui.thresholdSlider.value = 1.09
    reviewed.ui.uncertainSliceButton.click()
    assert "Nowhere" in reviewed.ui.reasonLabel.text


def test_the_keys_work_while_the_module_is_open_and_are_given_back(reviewed, slicer_application, window):
    import qt
    from CalibUncertaintyPanel import reviewKeys

    def keys():
        return sorted(s.key.toString() for s in window.findChildren(qt.QShortcut))

    ours = {value for name, value in vars(reviewKeys).items() if name.isupper()}
    assert len(ours) == 7
    assert ours <= set(keys())
    assert all("+" in key for key in keys())
    press("Alt+PgDown")
    assert reviewed.review.table.place[0] == 0
    press("Alt+PgDown")
    press("Alt+2")
    press("Alt+PgUp")
    assert reviewed.review.table.place[0] == 0
    assert reviewed.review.decisions.of(2).verdict == "wrong"
    press("Alt+Z")
    assert reviewed.review.decisions.of(2).verdict == ""
    assert reviewed.review.table.selected.id == 2
    press("Alt+Shift+Z")
    assert reviewed.review.decisions.of(2).verdict == "wrong"
    slicer_application.leaveModule()
    assert not ours & set(keys())
    slicer_application.enterModule("CalibUncertainty")
    slicer_application.enterModule("CalibUncertainty")
    assert len(keys()) == len(set(keys()))
    assert ours <= set(keys())
