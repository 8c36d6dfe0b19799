"""The module without its panel: a CT, a model and a scene in, nodes out; and the example for `Slicer --python-script`."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def logic(slicer_application, slicer_scene):
    import slicer

    path = Path(__file__).resolve().parents[3] / "CalibUncertainty" / "CalibUncertainty.py"
    slicer_application.loadModule(path)
    from CalibUncertaintyPanel import testing

    from CalibUncertainty import CalibUncertaintyLogic

    slicer.mrmlScene.Clear(0)
    logic = CalibUncertaintyLogic()
    logic.command = testing.fakeCommand()
    return logic


@pytest.fixture
def model(tmp_path):
    from CalibUncertaintyPanel import testing

    return testing.makeFakeModel(tmp_path / "Modell Ä")


@pytest.fixture
def ct(logic):
    import slicer
    from CalibUncertaintyPanel import testing

    return testing.addPhantom(slicer.mrmlScene)


def test_one_call_segments_a_ct_and_gives_its_layers(logic, ct, model, tmp_path):
    import slicer

    events = []
    overlays = logic.segment(slicer.mrmlScene, ct, model, tmp_path, folds="0", roiMm=8, onEvent=events.append)
    assert overlays.result.folder.parent == tmp_path
    assert overlays.roiLimitMm == 8.0
    assert all(node.GetScene() is slicer.mrmlScene for node in overlays.nodes)
    assert [event.kind for event in events if event is not None][-1] == "result"
    assert not (tmp_path / "ct.nrrd").exists()
    contours = logic.addContours(slicer.mrmlScene, overlays, ["Node"], 0.1, 0.9)
    assert contours.GetSegmentation().GetNthSegment(0).GetName().startswith("Node, at least")
    regions, _ = logic.addRegionModels(slicer.mrmlScene, overlays)
    assert regions.GetPolyData().GetNumberOfCells() > 0


def test_a_result_made_elsewhere_is_added_over_the_ct_of_the_scene(logic, ct, model, tmp_path):
    import slicer

    folder = logic.segment(slicer.mrmlScene, ct, model, tmp_path).result.folder
    overlays = logic.addResult(slicer.mrmlScene, folder)
    reference = overlays.segmentationNode.GetNodeReferenceID("referenceImageGeometryRef")
    assert reference == ct.GetID()


def test_a_result_that_is_added_over_another_ct_on_the_same_grid_is_told_in_the_log(logic, ct, model, tmp_path, caplog):
    import slicer
    from CalibUncertaintyPanel import testing

    other = testing.addPhantom(slicer.mrmlScene, "Other")
    slicer.util.updateVolumeFromArray(other, testing.arrayOf(other) + 5)
    folder = logic.segment(slicer.mrmlScene, ct, model, tmp_path).result.folder
    logic.addResult(slicer.mrmlScene, folder, ct)
    assert "another CT" not in caplog.text
    logic.addResult(slicer.mrmlScene, folder, other)
    assert f"Other is another CT than the one {folder} was made from" in caplog.text


@pytest.mark.parametrize(
    ("behaviour", "words"), [("refuse", "fold 7"), ("fail", "out of memory"), ("silent", "without a result")]
)
def test_a_run_that_fails_raises_one_line_and_leaves_the_scene_as_it_was(logic, ct, model, behaviour, words):
    import slicer
    from CalibUncertaintyPanel import testing

    from CalibUncertaintyLib import CalibUncertaintyError

    logic.command = testing.fakeCommand(behaviour)
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(CalibUncertaintyError, match=words) as caught:
        logic.segment(slicer.mrmlScene, ct, model)
    assert "\n" not in str(caught.value)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_what_watches_may_end_the_run(logic, ct, model):
    import slicer
    from CalibUncertaintyPanel import runs, testing

    logic.command = testing.fakeCommand("hang")
    jobs, original = [], runs.startRun

    def stop(event):
        raise KeyboardInterrupt

    runs.startRun = lambda *arguments: jobs.append(original(*arguments)) or jobs[-1]
    try:
        with pytest.raises(KeyboardInterrupt):
            logic.segment(slicer.mrmlScene, ct, model, onEvent=stop)
    finally:
        runs.startRun = original
    assert jobs[0]._process.poll() is not None


def test_bad_input_is_refused_before_anything_is_started(logic, ct, model, tmp_path):
    import slicer

    from CalibUncertaintyLib import CalibUncertaintyError

    with pytest.raises(CalibUncertaintyError, match="Choose a CT"):
        logic.segment(slicer.mrmlScene, None, model)
    with pytest.raises(CalibUncertaintyError, match=str(tmp_path / "none")):
        logic.segment(slicer.mrmlScene, ct, tmp_path / "none")
    with pytest.raises(ValueError, match="gpu"):
        logic.segment(slicer.mrmlScene, ct, model, device="gpu")


def test_the_example_segments_several_cts_goes_on_after_a_bad_one_and_says_so(
    logic, ct, model, tmp_path, capsys, slicer_watch
):
    import slicer

    path = Path(__file__).resolve().parents[3] / "CalibUncertainty" / "Resources" / "Examples" / "segmentFolder.py"
    spec = importlib.util.spec_from_file_location("segmentFolder", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    good = []
    for name in ("eins.nrrd", "zwei.nrrd"):
        good.append(tmp_path / name)
        from CalibUncertaintyPanel import ctVolume

        ctVolume.writeCt(ct, good[-1])
    bad = tmp_path / "none.nrrd"
    code = example.main(
        ["--model", str(model), "--out", str(tmp_path / "out"), str(good[0]), str(bad), str(good[1])], logic
    )
    slicer_watch.forget()  # Slicer reports the file that is not there
    told = capsys.readouterr()
    assert code == 1
    assert "2 of 3 CTs segmented" in told.out
    assert str(bad) in told.err
    scenes = sorted((tmp_path / "out").glob("*.mrb"))
    assert len(scenes) == 2
    reports = sorted((tmp_path / "out").glob("*.html"))
    assert [path.stem for path in reports] == [path.stem for path in scenes]
    assert "Organ" in reports[0].read_text(encoding="utf-8")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(scenes[0]))
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert "Confidence contours (calibrated)" in names
