"""The summary of the shown case: volumes with their intervals, what is known of the case, and the way to the clipboard."""

import html
import json

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def collapsed(panel):
    """The section as it is at first; the panel stays from test to test."""
    panel.ui.summaryCollapsibleButton.collapsed = True
    yield
    panel.ui.summaryCollapsibleButton.collapsed = True


@pytest.fixture
def summed(opened, slicer_application):
    """The panel with the summary of a Result."""
    opened.ui.summaryCollapsibleButton.collapsed = False
    slicer_application.waitUntil(lambda: opened.summary.summary is not None, seconds=20, what="the summary")
    return opened


def rows_of(table):
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_nothing_is_read_as_long_as_nobody_looks(opened, slicer_application):
    slicer_application.processEvents()
    assert opened.ui.summaryCollapsibleButton.collapsed
    assert opened.summary.summary is None
    assert not opened.summary._timer.isActive()
    assert not opened.ui.copySummaryButton.enabled
    opened.ui.summaryCollapsibleButton.collapsed = False
    assert "Adding up" in opened.ui.summaryLabel.text
    slicer_application.waitUntil(lambda: opened.summary.summary is not None, seconds=20, what="the summary")
    assert "Adding up" not in opened.ui.summaryLabel.text
    assert opened.ui.copySummaryButton.enabled


def test_the_volumes_are_those_of_labels_probabilities_and_levels(summed):
    result = summed.overlays.result
    rows = rows_of(summed.ui.summaryTable)
    assert [row[0] for row in rows] == list(result.labels.values()) == ["Organ", "Node"]
    voxel = 1.5 * 1.5 * 3.0 / 1000
    for row, (label, name) in zip(rows, result.labels.items(), strict=True):
        p = result.probability(name).array
        sure, possible = (float(text) for text in row[3].split(" – "))
        assert float(row[1]) == pytest.approx(np.count_nonzero(result.segmentation.array == label) * voxel, abs=0.051)
        assert float(row[2]) == pytest.approx(p.sum(dtype=float) * voxel, abs=0.051)
        assert sure == pytest.approx(np.count_nonzero(p >= 0.95) * voxel, abs=0.051)
        assert possible == pytest.approx(np.count_nonzero(p >= 0.05) * voxel, abs=0.051)
        assert sure < float(row[1]) < possible
    assert "our definitions" in summed.ui.summaryTable.toolTip


def test_it_says_calibrated_entropy_changed_labels_and_warnings(summed):
    text = summed.ui.summaryLabel.text
    assert "Calibrated (temperature 2.03" in text
    assert "Dataset999_Fake" in text
    assert "nats over" in text
    assert "Labels changed against nnU-Net&#x27;s own: none" in text
    assert "Warning: This is the fake model of the tests" in text


def test_an_uncalibrated_case_is_not_read_as_frequencies(opened, ct, tmp_path, slicer_application):
    from CalibUncertaintyPanel import fakeProcess

    arguments = {"ct": str(tmp_path / "ct.nrrd"), "out": str(tmp_path / "raw"), "model": "fake", "roi_mm": 15.0}
    fakeProcess.writeResult(arguments, calibrated=False)
    opened.ui.summaryCollapsibleButton.collapsed = False
    slicer_application.waitUntil(lambda: opened.summary.summary is not None, seconds=20)
    opened.showResult(tmp_path / "raw", ct)
    assert opened.summary.summary is None  # the old case's numbers are gone at once
    assert opened.ui.summaryTable.isHidden()
    slicer_application.waitUntil(lambda: opened.summary.summary is not None, seconds=20)
    assert "NOT CALIBRATED" in opened.ui.summaryLabel.text
    assert "Do not read these probabilities as frequencies" in opened.ui.summaryLabel.text


def test_what_result_json_says_is_text_and_never_markup(summed, slicer_application):
    provenance = summed.overlays.result.provenance
    provenance["warnings"] = [f"<b>warning {number}</b> & more" for number in range(5)]
    provenance["changed_labels"] = {"by_pooling": 12, "by_temperature": 0}
    summed.summary._show()
    text = summed.ui.summaryLabel.text
    assert "&lt;b&gt;warning 2&lt;/b&gt; &amp; more" in text
    assert "warning 3" not in text
    assert "2 more warnings" in text
    assert "12 voxels by pooling, 0 by calibration" in text


def test_sums_of_the_case_are_said_where_the_result_has_them(summed):
    from CalibUncertaintyPanel import summaryWords

    provenance = summed.overlays.result.provenance
    case = {"mean": 0.1, "patch_mean": 0.4321, "boundary": 0.25, "pairwise_dice": None}
    for aggregates in (None, {}, {"measure": "mi"}, {"case": None}, []):
        provenance["aggregates"] = aggregates
        assert summaryWords.aggregateFacts(provenance) == []
    provenance["aggregates"] = {"measure": "entropy", "unit": "nats", "case": {**case, "pairwise_dice": 0.9}}
    assert summaryWords.aggregateFacts(provenance) == [
        ("Entropy along the borders, mean", "0.250 nats"),
        ("Entropy in the worst block of 10 × 10 × 10 voxels, mean", "0.432 nats"),
        ("Agreement of the members", "Dice of pairs 0.900 in the mean"),
    ]
    summed.summary._show()
    assert "worst block" in summed.ui.summaryLabel.text
    assert "Dice of pairs 0.900" in summed.ui.summaryLabel.text
    assert "our definition" in summed.ui.summaryLabel.toolTip


def test_copying_gives_lines_that_a_spreadsheet_takes(summed):
    import slicer

    summed.ui.copySummaryButton.click()
    lines = slicer.app.clipboard().text().splitlines()
    assert lines[0] == "Phantom CT"
    table = [line.split("\t") for line in lines if line.count("\t") == 3]
    assert table == [list(summaryHeads()), *rows_of(summed.ui.summaryTable)]


def summaryHeads():
    from CalibUncertaintyPanel import summaryWords

    return summaryWords.STRUCTURE_HEADS


def test_a_damaged_result_is_told_in_the_section_and_nowhere_else(opened, tmp_path, slicer_application, slicer_watch):
    (tmp_path / "result" / "maps" / "probability_2.nrrd").unlink()
    opened.ui.summaryCollapsibleButton.collapsed = False
    slicer_application.waitUntil(lambda: not opened.summary._timer.isActive(), seconds=20)
    assert "cannot be summed up" in opened.ui.summaryLabel.text
    assert "probability_2.nrrd" in opened.ui.summaryLabel.text
    assert opened.ui.summaryTable.isHidden()
    assert not opened.ui.copySummaryButton.enabled


def test_a_closed_scene_has_no_summary(summed, slicer_application):
    slicer_application.clear()
    assert summed.summary.summary is None
    assert "after a run" in summed.ui.summaryLabel.text
    assert summed.ui.summaryTable.isHidden()


def test_panel_and_report_say_the_same(summed, slicer_application, tmp_path):
    path = tmp_path / "report.html"
    slicer_application.dialogs.answer(str(path))
    summed.ui.saveReportButton.click()
    slicer_application.waitUntil(lambda: not summed.review.report.running, seconds=30, what="the report")
    page = path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert "once in n + 1 times" not in page  # this Result knows neither of agreement nor of calibration cases
    for row in rows_of(summed.ui.summaryTable):
        for text in row:
            assert text in page


def test_agreement_and_standing_are_in_the_report_with_what_they_are(opened, slicer_application, tmp_path):
    from CalibUncertaintyPanel import standingWords

    path = opened.overlays.result.folder / "result.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    case = {"status": "ok", "combined": 1.25, "cases": 8, "higher": 0, "equal": 0}
    content["aggregates"] = {
        "measure": "entropy", "unit": "nats", "case": {"pairwise_dice": 0.9, "pairwise_dice_min": 0.75},
        "structures": {}, "agreement": {"status": "ok", "members": 5}, "combined": {"status": "ok", "case": case},
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    slicer_application.dialogs.answer(str(tmp_path / "report.html"))
    opened.ui.saveReportButton.click()
    slicer_application.waitUntil(lambda: not opened.review.report.running, seconds=30, what="the report")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        *standingWords.standingFacts(content["aggregates"])[0],
        "more uncertain than all 8",
        standingWords.HELP,
    ):
        assert html.escape(text) in page


@pytest.fixture
def from_dicom(ct):
    """The CT as the DICOM module leaves it."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), hierarchy.CreateStudyItem(patient, "S"))
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    return patient


def test_a_dicom_segmentation_needs_a_ct_from_dicom(opened):
    opened.ui.exportDicomButton.click()
    assert "was not loaded from DICOM" in opened.ui.exportProblemLabel.text
    assert not opened.ui.exportProblemLabel.isHidden()
    opened.summary.fill(None)
    assert opened.ui.exportProblemLabel.isHidden()


def test_without_its_extension_slicer_is_told_what_to_install(from_dicom, opened):
    opened.ui.exportDicomButton.click()
    assert "QuantitativeReporting" in opened.ui.exportProblemLabel.text


def test_deleting_the_patient_takes_the_layers_along(from_dicom, opened, slicer_application):
    import slicer

    nodes = opened.overlays.nodes
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.RemoveItem(from_dicom)
    slicer_application.processEvents()
    assert all(node.GetScene() is None for node in nodes)
    assert opened.overlays is None
    assert "deleted" in opened.ui.errorLabel.text
    assert "after a run" in opened.ui.summaryLabel.text


def test_the_export_dialog_opens_on_the_prepared_labels(from_dicom, opened, monkeypatch):
    import slicer

    asked = []

    class Dialog:
        def __init__(self, parent):
            assert parent is None

        def setMRMLScene(self, scene):
            asked.append(scene)

        def execDialog(self, item):
            asked.append(item)

    monkeypatch.setattr(slicer, "qSlicerDICOMExportDialog", Dialog, raising=False)
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMSegmentationPlugin": object}, raising=False)
    opened.ui.exportDicomButton.click()
    assert opened.ui.exportProblemLabel.isHidden()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    assert asked[0] is slicer.mrmlScene
    assert hierarchy.GetItemDataNode(asked[1]) is opened.overlays.segmentationNode
    assert hierarchy.GetItemAttribute(asked[1], "DICOM.ReferencedInstanceUIDs") == "1.2.3 1.2.4"


def test_the_shown_maps_are_saved_in_the_background(opened, slicer_application, tmp_path):
    (tmp_path / "out").mkdir()
    slicer_application.dialogs.answer(str(tmp_path / "out" / "case.nii.gz"))
    opened.ui.saveMapsButton.click()
    assert "Writing" in opened.ui.exportProblemLabel.text
    slicer_application.waitUntil(lambda: not opened.summary._savingTimer.isActive(), seconds=20, what="the maps")
    assert "case entropy.nii.gz" in opened.ui.exportProblemLabel.text
    assert len(list((tmp_path / "out").iterdir())) == 4
    slicer_application.dialogs.answer(str(tmp_path / "gone" / "case.nrrd"))
    opened.ui.saveMapsButton.click()
    slicer_application.waitUntil(lambda: not opened.summary._savingTimer.isActive(), seconds=20, what="the maps")
    assert "cannot be written" in opened.ui.exportProblemLabel.text
    slicer_application.dialogs.answer("")  # closed without a choice
    opened.ui.saveMapsButton.click()
    assert not opened.summary._savingTimer.isActive()
