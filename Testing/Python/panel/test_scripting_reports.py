"""Summary, review, report, DICOM and evaluation for scripts: no widget, no parameter node."""

import csv
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def logic(slicer_application, slicer_scene):
    import slicer

    slicer_application.loadModule(Path(__file__).resolve().parents[3] / "CalibUncertainty" / "CalibUncertainty.py")
    from CalibUncertaintyPanel import testing

    from CalibUncertainty import CalibUncertaintyLogic

    slicer.mrmlScene.Clear(0)
    logic = CalibUncertaintyLogic()
    logic.command = testing.fakeCommand()
    return logic


@pytest.fixture
def ct(logic):
    import slicer
    from CalibUncertaintyPanel import testing

    return testing.addPhantom(slicer.mrmlScene, "CT von Müller")


@pytest.fixture
def overlays(logic, ct, tmp_path):
    """The layers of a Result of the fake model."""
    import slicer
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    ctVolume.writeCt(ct, tmp_path / "ct.nrrd")
    arguments = {"ct": str(tmp_path / "ct.nrrd"), "out": str(tmp_path / "result"), "model": "fake", "roi_mm": 15.0}
    return logic.addResult(slicer.mrmlScene, fakeProcess.writeResult(arguments), ct)


def test_the_summary_is_in_millilitres(logic, overlays):
    summary = logic.caseSummary(overlays)
    organ = summary.structures[0]
    assert organ.name == "Organ"
    voxels = np.count_nonzero(overlays.result.segmentation.array == 1)
    assert organ.drawn == pytest.approx(voxels * 1.5 * 1.5 * 3.0 / 1000)
    assert organ.sure < organ.drawn < organ.possible


def test_a_report_has_the_decisions_that_lie_in_the_result_folder(logic, ct, overlays, tmp_path):
    from CalibUncertaintyPanel.reviewDecisions import ReviewDecisions
    from CalibUncertaintyPanel.reviewStore import ReviewStore

    assert logic.reviewDecisions(overlays).toJson() == []
    decisions = ReviewDecisions(overlays.result.regions)
    first = overlays.result.regions[0].id
    decisions.change(first, verdict="wrong", note="Gefäß, kein Knoten")
    assert ReviewStore(decisions, None, overlays.result.folder).save()
    found = logic.reviewDecisions(overlays)
    assert found.of(first).verdict == "wrong"
    page, *tables = logic.saveReport(overlays, tmp_path / "Bericht.html", ct)
    text = page.read_text(encoding="utf-8")
    assert "CT von Müller" in text
    assert "Gefäß, kein Knoten" in text
    assert text.count("<img") == len(overlays.result.regions)
    rows = list(csv.DictReader(tables[0].open(encoding="utf-8")))
    assert [row["verdict"] for row in rows if row["region"] == str(first)] == ["wrong"]


def test_without_a_ct_there_is_a_report_without_pictures(logic, overlays, tmp_path):
    page = logic.saveReport(overlays, tmp_path / "report.html")[0]
    assert "<img" not in page.read_text(encoding="utf-8")


def test_the_maps_of_a_case_are_saved_with_what_they_are(logic, overlays, tmp_path):
    from CalibUncertaintyLib.volume import Volume

    files = logic.saveMaps(overlays, tmp_path / "case.nrrd")
    assert Volume.read(files[0]).metadata["CalibUncertainty.structure"] == "Organ"
    assert Volume.read(files[1]).metadata["CalibUncertainty.measure"] == "entropy"


def test_labels_of_a_ct_that_is_not_from_dicom_are_refused(logic, ct, overlays):
    import slicer

    with pytest.raises(ValueError, match="was not loaded from DICOM"):
        logic.prepareDicomExport(slicer.mrmlScene, overlays, ct)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), hierarchy.CreateStudyItem(patient, "S"))
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    node, _item = logic.prepareDicomExport(slicer.mrmlScene, overlays, ct)
    assert node is overlays.segmentationNode
    hierarchy.RemoveItem(patient)


def test_an_evaluation_gives_its_figures(logic, tmp_path):
    from CalibUncertaintyPanel import testing

    model = testing.makeFakeModel(tmp_path / "model")
    cases = tmp_path / "cases.csv"
    cases.write_text("id,ct,labels\n")
    events = []
    content = logic.evaluate(model, cases, tmp_path / "out", onEvent=events.append)
    assert list(content["configurations"]) == ["uncalibrated", "calibrated"]
    assert (tmp_path / "out" / "report.html").is_file()
    assert any(event is not None and event.kind == "progress" for event in events)
    content = logic.evaluate(model, cases, tmp_path / "out2", compareUncalibrated=False)
    assert list(content["configurations"]) == ["calibrated"]
    with pytest.raises(ValueError, match="is no file"):
        logic.evaluate(model, tmp_path / "none.csv", tmp_path / "out")
