"""The panel's calibration section: what is stored with a model, whether it holds, and its reliability diagram."""

import json
import time


def test_without_a_model_the_section_asks_for_one(panel):
    assert "Choose a model" in panel.ui.calibrationStateLabel.text
    for button in (panel.ui.calibrationDetailsButton, panel.ui.reliabilityButton, panel.ui.calibrateButton):
        assert not button.enabled
        assert button.toolTip


def test_a_model_without_a_calibration_says_so_and_why(panel, model, told):
    state = told()
    assert not state.holds
    assert "Not calibrated" in panel.ui.calibrationStateLabel.text
    assert "calibrate the model first" in panel.ui.calibrationStateLabel.text
    assert panel.ui.calibrationDetailsButton.enabled
    assert not panel.ui.reliabilityButton.enabled
    assert "no calibration that holds" in panel.ui.reliabilityButton.toolTip


def test_a_stored_calibration_is_told_with_its_figures(panel, calibrated, told):
    panel.calibration.checkAgain()
    state = told()
    assert state.holds, state.verdict
    text = panel.ui.calibrationStateLabel.text
    assert "Holds for these folds and flips" in text
    assert "Temperature 2.030 (95 % interval 1.83 to 2.23), 3 cases" in text
    assert "NLL 0.4000 → 0.3000 nats" in text
    assert "ECE 12.00 → 1.50 %" in text
    assert state.made in text
    assert len(state.made) == 10
    assert "lower is better" in panel.ui.calibrationStateLabel.toolTip


def test_what_is_looked_at_follows_folds_flips_and_pooling(panel, calibrated, told):
    panel.calibration.checkAgain()
    assert told().holds
    panel.inputs._foldBoxes[1].click()
    assert panel.calibration.state is None  # what was said of other folds is taken away at once
    assert "Looking" in panel.ui.calibrationStateLabel.text
    assert "fold" in told().verdict
    assert not panel.calibration.state.holds
    panel.inputs._foldBoxes[1].click()
    assert told().holds
    panel.ui.mirroringCheckBox.click()
    assert not told().holds
    panel.ui.mirroringCheckBox.click()
    panel.ui.poolingComboBox.setCurrentIndex(1)
    assert not told().holds
    assert "pool_prob" in panel.calibration.state.verdict


def test_a_calibration_for_another_way_of_putting_folds_together_is_one_click_away(panel, calibrated, told):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(calibrated.parent, modes=("shared", "pool_prob"))
    panel.calibration.checkAgain()
    assert not told().holds
    assert (
        "stored for: Average the probabilities (labels may change); Calibrate all"
        in panel.ui.calibrationStateLabel.text
    )
    assert not panel.ui.otherWayButton.isHidden()
    assert panel.ui.otherWayButton.text == "Use: Average the probabilities (labels may change)"
    panel.ui.otherWayButton.click()
    assert panel.parameterNode.pooling.value == "pool_prob"
    assert panel.ui.poolingComboBox.currentIndex == 1
    assert told().holds
    assert panel.ui.otherWayButton.isHidden()


def test_other_weights_than_those_calibrated_are_named(panel, calibrated, model, told):
    (model / "fold_1" / "checkpoint_final.pth").write_bytes(b"other weights")
    panel.calibration.checkAgain()
    assert not told().holds
    assert "fold 1" in panel.calibration.state.verdict


def test_a_record_that_was_edited_by_hand_does_not_hold(panel, calibrated, told):
    content = json.loads(calibrated.read_text(encoding="utf-8"))
    content["entries"][0]["temperature"] = 1.0
    calibrated.write_text(json.dumps(content))
    panel.calibration.checkAgain()
    assert not told().holds
    assert "changed" in panel.calibration.state.verdict


def test_the_details_are_all_that_the_check_says(panel, calibrated, told):
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.workflow.check import check_model

    panel.calibration.checkAgain()
    told()
    panel.ui.calibrationDetailsButton.click()
    shown = panel.calibration.detailsEdit.plainText
    report = check_model(MemberSet.choose(calibrated.parent, "all"), "pool_logit")
    assert shown == "\n".join(report.lines())
    assert shown.startswith("HOLDS")
    assert panel.calibration.detailsEdit.readOnly
    panel.ui.calibrationDetailsButton.click()  # again: the same window


def test_looking_at_large_checkpoints_does_not_hold_the_panel_up(panel, model, told, monkeypatch):
    from CalibUncertaintyPanel import calibrationState

    read = calibrationState.readState
    monkeypatch.setattr(calibrationState, "readState", lambda *choice: (time.sleep(0.5), read(*choice))[1])
    began = time.monotonic()
    panel.calibration.checkAgain()
    panel.update()
    assert time.monotonic() - began < 0.4
    assert "Looking" in panel.ui.calibrationStateLabel.text
    assert not told().holds


def test_the_button_draws_the_diagram_and_brings_a_plot_view_into_the_layout(panel, calibrated, told, clean_scene):
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram

    panel.calibration.checkAgain()
    told()
    layout = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView  # without a plot, whatever was shown before
    slicer.app.layoutManager().setLayout(layout)
    panel.ui.reliabilityButton.click()
    chart = reliabilityDiagram.findChart(slicer.mrmlScene)
    assert "Dataset999_Fake, folds 0 and 1" in chart.GetTitle()
    assert slicer.app.layoutManager().layout == slicer.modules.plots.logic().GetLayoutWithPlot(layout) != layout
    assert slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID() == chart.GetID()
    slicer.app.layoutManager().setLayout(layout)


def test_without_a_layout_the_diagram_is_made_and_nothing_is_shown(panel, calibrated, told, clean_scene, monkeypatch):
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram, slicerCompat

    panel.calibration.checkAgain()
    told()
    layout = slicer.app.layoutManager().layout
    monkeypatch.setattr(type(slicer.app), "layoutManager", lambda self: None)
    panel.ui.reliabilityButton.click()
    chart = reliabilityDiagram.findChart(slicer.mrmlScene)
    assert chart is not None
    assert slicerCompat.showChart(chart) is False
    monkeypatch.undo()
    assert slicer.app.layoutManager().layout == layout


def test_a_calibration_without_bins_disables_the_diagram_and_says_why(panel, model, told):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(model, figures={"before": {}, "after": {}})
    panel.calibration.checkAgain()
    assert told().holds
    assert not panel.ui.reliabilityButton.enabled
    assert "no bins" in panel.ui.reliabilityButton.toolTip
    assert "NLL" not in panel.ui.calibrationStateLabel.text


def compared(panel, slicer_application) -> str:
    """The words about the CT, once they are there."""
    slicer_application.waitUntil(lambda: panel.calibration.ct.report is not None, seconds=20, what="the comparison")
    assert not panel.ui.ctComparisonLabel.isHidden()
    return panel.ui.ctComparisonLabel.text


def cases_like(ct, spacing_factor=1.0, n=12) -> dict:
    """What cases with this CT's traits look like, "range" of an entry; their voxels so many times as large."""
    import dataclasses

    import slicer
    from CalibUncertaintyPanel import runEstimate

    from CalibUncertaintyLib.model.calibrated_range import CalibratedRange
    from CalibUncertaintyLib.workflow.traits import traits_of_ct

    traits = traits_of_ct(runEstimate.ctGrid(ct, slicer.util.arrayFromVolume(ct)))
    spacing = tuple(spacing_factor * step for step in traits.spacing_mm)
    return CalibratedRange.of([dataclasses.replace(traits, spacing_mm=spacing)] * n).to_json()


def test_a_ct_like_the_calibration_cases_is_said_to_be_so(panel, ct, calibrated, told, slicer_application):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(calibrated.parent, ofCases=cases_like(ct))
    panel.calibration.checkAgain()
    assert told().holds
    text = compared(panel, slicer_application)
    assert "This CT is like the calibration cases" in text
    assert "shows only in a run" in text
    panel.ui.calibrationDetailsButton.click()
    assert "CT: voxels of" in panel.calibration.detailsEdit.plainText


def test_a_ct_outside_what_was_calibrated_is_named_with_what_differs(panel, ct, calibrated, told, slicer_application):
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(calibrated.parent, ofCases=cases_like(ct, spacing_factor=5.0))
    panel.calibration.checkAgain()
    assert told().holds
    text = compared(panel, slicer_application)
    assert "This CT lies outside what was calibrated" in text
    assert "mm" in text
    assert panel.calibration.state.holds  # a warning, no refusal


def test_another_ct_is_compared_anew_and_none_is_not(panel, ct, calibrated, told, slicer_application):
    import slicer
    from CalibUncertaintyPanel import fakeCalibration

    fakeCalibration.writeRecord(calibrated.parent, ofCases=cases_like(ct))
    panel.calibration.checkAgain()
    assert told().holds
    assert "like the calibration cases" in compared(panel, slicer_application)
    other = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, ct, "other")
    slicer.util.arrayFromVolume(other)[...] += 5000
    other.GetImageData().Modified()
    panel.ui.ctSelector.setCurrentNode(other)
    assert panel.calibration.ct.report is None  # what was said of the first is taken away at once
    assert "outside what was calibrated" in compared(panel, slicer_application)
    panel.ui.ctSelector.setCurrentNode(None)
    assert panel.ui.ctComparisonLabel.isHidden()


def test_cases_of_unknown_looks_are_said_to_be_unknown(panel, ct, calibrated, told, slicer_application):
    panel.calibration.checkAgain()
    assert told().holds
    text = compared(panel, slicer_application)
    assert "not compared" in text
    assert "like the calibration cases" not in text


def test_nothing_is_said_of_a_ct_where_no_calibration_holds(panel, ct, model, told):
    assert not told().holds
    assert panel.ui.ctComparisonLabel.isHidden()
    assert panel.calibration.ct.report is None
