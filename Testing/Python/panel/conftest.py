"""The panel's layer: real Qt under the stand-in for the Slicer application, real processes."""

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in (REPOSITORY, REPOSITORY / "CalibUncertainty", REPOSITORY / "Testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from Harness.fixtures import *  # noqa: E402, F403


def waiting_for(application, job, what):
    """Function that lets the application work until a job of the panel has ended."""

    def wait(seconds=30):
        application.waitUntil(lambda: not job.running, seconds=seconds, what=what)

    return wait


def list_of_one_case(path):
    """A file that lists one case, as the panel takes it."""
    path.write_text("id,ct,labels\na,a.nii.gz,a_labels.nii.gz\n", encoding="utf-8")
    return path


@pytest.fixture
def panel(slicer_application):
    """The panel, opened, with the fake computation."""
    import slicer

    slicer_application.loadModule(REPOSITORY / "CalibUncertainty" / "CalibUncertainty.py")
    slicer.util.selectModule("CalibUncertainty")
    panel = slicer.modules.CalibUncertaintyWidget.panel
    from CalibUncertaintyPanel import testing

    panel.logic.command = testing.fakeCommand()
    yield panel
    panel.run.release()
    # Closing a scene keeps singletons, the parameter node among them: the next test gets a new one.
    slicer.modules.CalibUncertaintyWidget.panel.setParameterNode(None)
    slicer_application.leaveModule()
    node = slicer.mrmlScene.GetSingletonNode("CalibUncertainty", "vtkMRMLScriptedModuleNode")
    slicer.mrmlScene.RemoveNode(node)


@pytest.fixture
def ct(panel):
    import slicer
    from CalibUncertaintyPanel import testing

    node = testing.addPhantom(slicer.mrmlScene)
    panel.ui.ctSelector.setCurrentNode(node)
    return node


@pytest.fixture
def model(panel, tmp_path):
    from CalibUncertaintyPanel import testing

    folder = testing.makeFakeModel(tmp_path)
    panel.ui.modelPathLineEdit.currentPath = str(folder)
    return folder


@pytest.fixture
def behave(panel):
    """Function that chooses how the fake computation behaves."""
    from CalibUncertaintyPanel import testing

    def choose(behaviour):
        panel.logic.command = testing.fakeCommand(behaviour)

    return choose


@pytest.fixture
def finish(panel, slicer_application):
    """Function that lets the application work until the run has ended."""
    return waiting_for(slicer_application, panel.run, "the run")


@pytest.fixture
def finished(panel, ct, model, finish):
    """The panel after a run that went well."""
    panel.ui.runButton.click()
    finish()
    assert panel.overlays is not None, panel.ui.errorLabel.text
    return panel


@pytest.fixture
def opened(panel, ct, tmp_path):
    """The panel with a Result of the fake model that was made elsewhere: sooner there than by a run."""
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    path = tmp_path / "ct.nrrd"
    ctVolume.writeCt(ct, path)
    fakeProcess.writeResult({"ct": str(path), "out": str(tmp_path / "result"), "model": "fake", "roi_mm": 15.0})
    panel.showResult(tmp_path / "result", ct)
    assert panel.overlays is not None, panel.ui.errorLabel.text
    return panel


@pytest.fixture
def counted(opened, slicer_application):
    """The panel with a Result; function that lets the application work until the values of the chosen region are counted."""

    def wait():
        slicer_application.processEvents()
        layers = opened.layers
        slicer_application.waitUntil(
            lambda: opened.overlays.roi == layers.roi.choice and "counting" not in opened.ui.flaggedLabel.text,
            seconds=20, what="counts",
        )  # fmt: skip
        slicer_application.processEvents()
        return opened.ui.flaggedLabel.text

    wait()
    opened.wait = wait
    return opened


@pytest.fixture
def calibrated(model):
    """The model with a stored calibration."""
    from CalibUncertaintyPanel import fakeCalibration

    for fold in (0, 1):  # folds with the same weights would count as one
        (model / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"weights of fold %d" % fold)
    return fakeCalibration.writeRecord(model)


@pytest.fixture
def told(panel, slicer_application):
    """Function that lets the application work until the state of the calibration is known; gives it."""

    def wait():
        slicer_application.waitUntil(lambda: panel.calibration.state is not None, seconds=20, what="the state")
        return panel.calibration.state

    return wait


@pytest.fixture
def cases(panel, tmp_path):
    path = list_of_one_case(tmp_path / "Fälle 1.csv")
    panel.ui.casesPathLineEdit.currentPath = str(path)
    return path


@pytest.fixture
def ended(panel, slicer_application):
    """Function that lets the application work until the calibration has ended."""
    return waiting_for(slicer_application, panel.calibrate, "the calibration")


@pytest.fixture
def clean_scene():
    """No diagram of an earlier test is left."""
    import slicer
    from CalibUncertaintyPanel import reliabilityDiagram

    yield
    reliabilityDiagram.removeDiagram(slicer.mrmlScene)


@pytest.fixture
def run_job(tmp_path):
    """Function that starts the fake computation and polls it to its end; returns the job and its events."""
    import time

    from CalibUncertaintyPanel import fakeProcess
    from CalibUncertaintyPanel.job import Job

    jobs = []

    def start(behaviour="ok", ct="none.nrrd", **options):
        folder = tmp_path / f"run{len(jobs)}"
        folder.mkdir()
        command = [sys.executable, fakeProcess.__file__, "--behaviour", behaviour]
        arguments = {"ct": str(ct), "model": "fake", "out": str(folder / "result"), "roi_mm": 15.0}
        job = Job(command, {"verb": "segment", "arguments": arguments}, folder, REPOSITORY, **options)
        jobs.append(job)
        job.start()
        return job

    def finish(job, seconds=20.0):
        events, deadline = [], time.monotonic() + seconds
        while not job.finished:
            assert time.monotonic() < deadline, f"still running after {seconds} s:\n{job.details()}"
            events += job.poll()
            time.sleep(0.02)
        return events

    start.finish = finish
    yield start
    for job in jobs:
        job.cancel()


@pytest.fixture
def reviewed(opened, slicer_application):
    """The panel with a Result, the boxes of the regions found; settings of the reader as on a new computer."""
    import qt

    qt.QSettings().remove("CalibUncertainty")
    opened.ui.reviewerLineEdit.text = ""
    opened.ui.reviewLogCheckBox.checked = False
    slicer_application.waitUntil(lambda: opened.review.boxes, seconds=20, what="the boxes")
    yield opened
    qt.QSettings().remove("CalibUncertainty")


@pytest.fixture
def window():
    """A main window for the keys; Slicer has one, the stand-in's is not found as long as it is hidden."""
    import slicer

    return slicer.util.mainWindow()


@pytest.fixture
def listed_cases(panel, tmp_path):
    path = list_of_one_case(tmp_path / "Prüffälle 1.csv")
    panel.ui.testCasesPathLineEdit.currentPath = str(path)
    return path


@pytest.fixture
def evaluated(panel, slicer_application):
    """Function that lets the application work until the evaluation has ended."""
    return waiting_for(slicer_application, panel.evaluate, "the evaluation")
