"""The filter of the review's list: what is hidden is said, walked around, and never lost."""

from dataclasses import replace

import pytest
from panel_parts import choose
from review_parts import column_of, list_regions, press

KINDS = ["boundary", "non_boundary", "boundary", "possible_miss", "boundary", "non_boundary"]
CHANCES = [0.8, 0.04, 0.3, None, 0.09, 0.1]
STRUCTURES = ["Organ", "Node", "Organ", "", "Organ", "Node"]


@pytest.fixture
def listed(reviewed):
    base = reviewed.overlays.result.regions[0]
    about = zip(KINDS, CHANCES, STRUCTURES, strict=True)
    list_regions(
        reviewed, [replace(base, id=i, kind=k, chance=c, structure=s) for i, (k, c, s) in enumerate(about, start=1)]
    )
    return reviewed


def numbers(panel):
    return [int(text) for text in column_of(panel, "#")]


def test_nothing_is_hidden_by_default_and_no_line_says_so(listed):
    assert numbers(listed) == [1, 2, 3, 4, 5, 6]
    assert listed.ui.reviewLeastChanceSpinBox.value == 0
    assert listed.ui.reviewHiddenLabel.isHidden()
    assert listed.ui.showAllPlacesButton.isHidden()
    assert listed.ui.reviewFilterCollapsibleButton.collapsed


def test_what_was_hardly_ever_wrong_can_be_hidden_but_never_what_nothing_is_known_of(listed):
    listed.ui.reviewLeastChanceSpinBox.value = 10
    assert numbers(listed) == [1, 3, 4, 6]
    assert listed.ui.reviewHiddenLabel.text == "2 of 6 hidden, 2 of them not looked at."
    assert not listed.ui.reviewHiddenLabel.isHidden()
    assert listed.parameterNode.reviewLeastChance == 10
    listed.ui.showAllPlacesButton.click()
    assert numbers(listed) == [1, 2, 3, 4, 5, 6]
    assert listed.ui.reviewLeastChanceSpinBox.value == 0
    assert listed.ui.reviewHiddenLabel.isHidden()


def test_kinds_and_structures_that_occur_are_offered_and_filtered_by(listed):
    kinds, structures = listed.ui.reviewKindComboBox, listed.ui.reviewStructureComboBox
    assert [kinds.itemText(i) for i in range(kinds.count)] == ["All kinds", "Border", "Off border", "Missed?"]
    assert [structures.itemText(i) for i in range(structures.count)] == ["All structures", "Node", "Organ", "–"]
    choose(kinds, "Off border")
    assert numbers(listed) == [2, 6]
    choose(kinds, "Missed?")
    choose(structures, "–")
    assert numbers(listed) == [4]
    choose(structures, "Node")
    assert numbers(listed) == []
    assert "6 of 6 hidden" in listed.ui.reviewHiddenLabel.text
    assert "filter" in listed.ui.nextRegionButton.toolTip


def test_the_keys_walk_past_what_is_hidden(listed):
    choose(listed.ui.reviewKindComboBox, "Border")
    seen = []
    for keys in ("Alt+PgDown", "Alt+PgDown", "Alt+PgDown", "Alt+PgDown", "Alt+PgUp"):
        press(keys)
        seen.append(listed.review.table.selected.id)
    assert seen == [1, 3, 5, 5, 3]


def test_a_chosen_place_stays_chosen_as_long_as_it_is_listed(listed):
    listed.review.table.select(3)
    listed.ui.reviewLeastChanceSpinBox.value = 10
    assert listed.review.table.selected.id == 3
    choose(listed.ui.reviewStructureComboBox, "Node")
    assert listed.review.table.selected is None
    assert not listed.ui.correctButton.enabled
    assert not listed.ui.noteLineEdit.enabled


@pytest.mark.parametrize(("keys", "wanted"), [("Alt+PgDown", 5), ("Alt+PgUp", 3)])
def test_from_a_place_that_was_hidden_the_way_goes_on_to_its_neighbours(listed, keys, wanted):
    listed.review.table.select(4)
    choose(listed.ui.reviewKindComboBox, "Border")
    press(keys)
    assert listed.review.table.selected.id == wanted


def test_progress_counts_every_place_whether_it_is_listed_or_not(listed):
    listed.review.table.select(2)
    listed.ui.wrongButton.click()
    listed.ui.reviewLeastChanceSpinBox.value = 10
    listed.review.table.select(1)
    listed.ui.correctButton.click()
    assert listed.ui.reviewProgressLabel.text.startswith("2 of 6 looked at")
    assert listed.ui.reviewProgressBar.maximum == 6
    assert listed.ui.reviewHiddenLabel.text == "2 of 6 hidden, 1 of them not looked at."
    assert listed.review.decisions.counts()["regions"] == 6


def test_taking_a_decision_back_shows_its_place_although_the_filter_hides_it(listed):
    listed.review.table.select(2)
    listed.ui.wrongButton.click()
    choose(listed.ui.reviewKindComboBox, "Border")
    listed.ui.undoDecisionButton.click()
    assert listed.review.decisions.of(2).verdict == ""
    assert listed.review.table.selected.id == 2
    assert numbers(listed) == [1, 2, 3, 5]
    assert "2 of 6 hidden" in listed.ui.reviewHiddenLabel.text
    choose(listed.ui.reviewKindComboBox, "Missed?")
    assert numbers(listed) == [4]


def test_sorting_keeps_the_filter_and_the_filter_the_sorting(listed):
    choose(listed.ui.reviewKindComboBox, "Border")
    listed.ui.regionsTable.horizontalHeader().sectionClicked.emit(4)
    assert numbers(listed) == [1, 3, 5]
    listed.ui.regionsTable.horizontalHeader().sectionClicked.emit(4)
    assert numbers(listed) == [5, 3, 1]
    listed.ui.showAllPlacesButton.click()
    assert numbers(listed) == [2, 5, 6, 3, 1, 4]


def test_a_choice_that_the_next_result_does_not_have_is_given_up_and_others_are_kept(listed):
    base = listed.overlays.result.regions[0]
    listed.ui.reviewLeastChanceSpinBox.value = 20
    choose(listed.ui.reviewKindComboBox, "Missed?")
    choose(listed.ui.reviewStructureComboBox, "Organ")
    list_regions(
        listed, [replace(base, id=i, kind="boundary", chance=c, structure="Organ") for i, c in ((1, 0.1), (2, 0.5))]
    )
    assert listed.parameterNode.reviewKind == ""
    assert listed.parameterNode.reviewLeastChance == 20
    assert numbers(listed) == [2]
    assert "1 of 2 hidden" in listed.ui.reviewHiddenLabel.text


def test_a_saved_scene_keeps_the_filter(reviewed, slicer_application, tmp_path):
    import slicer

    everything = numbers(reviewed)
    choose(reviewed.ui.reviewStructureComboBox, "Node")
    some = numbers(reviewed)
    assert 0 < len(some) < len(everything)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer_application.processEvents()
    assert reviewed.parameterNode.reviewStructure == "Node"
    assert reviewed.ui.reviewStructureComboBox.currentText == "Node"
    assert numbers(reviewed) == some


def test_without_known_chances_the_percentage_cannot_be_chosen_and_says_why(reviewed):
    assert not reviewed.ui.reviewLeastChanceSpinBox.enabled
    assert "does not say" in reviewed.ui.reviewLeastChanceSpinBox.toolTip
