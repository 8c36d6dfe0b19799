"""The module's self test, step by step, in Slicer or its stand-in. `case` is the unittest case that asserts."""
# ruff: noqa: PT009 - Slicer runs unittest

import shutil
import tempfile
import time
from pathlib import Path

import slicer

from . import reliabilityDiagram, sample, testing
from .mrmlTools import nodesOfClass


def wholeWayWithFake(case):
    """Choose CT and model, run the fake computation, look at layers, threshold, measure, review and raw; calibrate."""
    panel = _openPanel()
    folder = Path(tempfile.mkdtemp(prefix="CalibUncertaintyTest"))
    try:
        case.assertFalse(panel.ui.runButton.enabled)
        ctNode = testing.addPhantom(slicer.mrmlScene)
        panel.logic.command = testing.fakeCommand()
        panel.ui.ctSelector.setCurrentNode(ctNode)
        panel.ui.modelPathLineEdit.currentPath = str(testing.makeFakeModel(folder))
        case.assertTrue(panel.ui.runButton.enabled, panel.ui.runButton.toolTip)
        runToEnd(case, panel, 60)
        checkLayers(case, panel, ctNode)
        checkReview(case, panel)
        checkRaw(case, panel)
        checkCalibrate(case, panel, folder)
    finally:
        panel.logic.command = None
        shutil.rmtree(folder, ignore_errors=True)


def wholeWayWithDemoModel(case):
    """The same with the real computation and the network that lies in Resources."""
    panel = _openPanel()
    model = sample.modelFolder()
    case.assertTrue((model / "plans.json").is_file(), f"the demo model is not in {model}")
    ctNode = testing.addPhantom(slicer.mrmlScene, shape=(48, 64, 64))
    panel.ui.ctSelector.setCurrentNode(ctNode)
    panel.ui.modelPathLineEdit.currentPath = str(model)
    case.assertTrue(panel.ui.runButton.enabled, panel.ui.runButton.toolTip)
    runToEnd(case, panel, 900)
    checkLayers(case, panel, ctNode)


def runToEnd(case, panel, seconds):
    """Press Run and wait for the end, as long as `seconds`; Slicer stays usable meanwhile."""
    panel.ui.runButton.click()
    case.assertTrue(panel.run.running, panel.ui.errorLabel.text)
    case.assertFalse(panel.ui.runButton.enabled)
    case.assertTrue(panel.ui.cancelButton.enabled)
    waitUntil(case, lambda: not panel.run.running, seconds)
    case.assertIsNotNone(panel.overlays, panel.ui.errorLabel.text)


def waitUntil(case, isSo, seconds):
    """Let Slicer work until something is so."""
    deadline = time.time() + seconds
    while not isSo() and time.time() < deadline:
        slicer.app.processEvents()
        time.sleep(0.02)
    case.assertTrue(isSo(), f"not so after {seconds} s")


def checkLayers(case, panel, ctNode):
    """All layers are in every slice view, and the threshold moves the display node only."""
    overlays, parameterNode = panel.overlays, panel.parameterNode
    composites = nodesOfClass(slicer.mrmlScene, "vtkMRMLSliceCompositeNode")
    case.assertGreater(len(composites), 0)
    for composite in composites:
        case.assertEqual(composite.GetBackgroundVolumeID(), ctNode.GetID())
        case.assertEqual(composite.GetForegroundVolumeID(), overlays.probabilityNode.GetID())
    displayNode = overlays.uncertaintyNode.GetScalarVolumeDisplayNode()
    before = overlays.uncertaintyNode.GetImageData().GetMTime()
    parameterNode.threshold = 0.5
    case.assertAlmostEqual(displayNode.GetLowerThreshold(), 0.5)
    panel.ui.thresholdSlider.value = 0.25
    case.assertAlmostEqual(parameterNode.threshold, 0.25)
    case.assertAlmostEqual(displayNode.GetLowerThreshold(), 0.25)
    case.assertEqual(overlays.uncertaintyNode.GetImageData().GetMTime(), before)
    panel.ui.measureComboBox.setCurrentIndex(0)
    case.assertEqual(overlays.shownMeasure, parameterNode.measure)
    case.assertIn("CALIBRATED", panel.ui.statusLabel.text.upper())


def checkReview(case, panel):
    """Going to the next region moves the slices through its peak; a decision on it is counted, kept and taken back."""
    case.assertGreater(panel.ui.regionsTable.rowCount, 0)
    panel.ui.nextRegionButton.click()
    peak = panel.overlays.result.regions[0].peak_ras_mm
    for node in nodesOfClass(slicer.mrmlScene, "vtkMRMLSliceNode"):
        toSlice = type(node.GetSliceToRAS())()
        toSlice.DeepCopy(node.GetSliceToRAS())
        toSlice.Invert()
        case.assertAlmostEqual(toSlice.MultiplyPoint((*peak, 1.0))[2], 0.0, places=3)
    panel.ui.wrongButton.click()
    case.assertIn("1 wrong", panel.ui.reviewProgressLabel.text)
    case.assertTrue((Path(panel.resultFolder) / "review.json").is_file())
    panel.ui.undoDecisionButton.click()
    case.assertNotIn("wrong", panel.ui.reviewProgressLabel.text)
    panel.ui.fitButton.click()


def checkRaw(case, panel):
    """The raw probability takes the place of the calibrated one, and gives it back."""
    before = testing.arrayOf(panel.overlays.probabilityNode)
    panel.ui.rawCheckBox.click()
    waitUntil(case, lambda: panel.overlays.shownRaw, 60)
    case.assertFalse((testing.arrayOf(panel.overlays.probabilityNode) == before).all())
    case.assertIn("RAW", panel.ui.statusLabel.text)
    panel.ui.rawCheckBox.click()
    case.assertTrue((testing.arrayOf(panel.overlays.probabilityNode) == before).all())


def checkCalibrate(case, panel, folder):
    """A calibration is stored in the background, told, and drawn as a plot."""
    cases = Path(folder) / "cases.csv"
    cases.write_text("id,ct,labels\n", encoding="utf-8")
    layout = slicer.app.layoutManager().layout
    panel.ui.casesPathLineEdit.currentPath = str(cases)
    panel.ui.calibrateButton.click()
    case.assertFalse(panel.ui.runButton.enabled)
    waitUntil(case, lambda: not panel.calibrate.running, 60)
    waitUntil(case, lambda: panel.calibration.state is not None, 60)
    case.assertTrue(panel.calibration.state.holds, panel.calibration.state.verdict)
    case.assertTrue(panel.ui.proofButton.enabled, panel.ui.proofButton.toolTip)
    panel.ui.reliabilityButton.click()
    case.assertEqual(reliabilityDiagram.findChart(slicer.mrmlScene).GetNumberOfPlotSeriesNodes(), 3)
    reliabilityDiagram.removeDiagram(slicer.mrmlScene)
    slicer.app.layoutManager().setLayout(layout)
    panel.ui.casesPathLineEdit.currentPath = ""


def _openPanel():
    slicer.util.selectModule("CalibUncertainty")
    return slicer.util.getModuleWidget("CalibUncertainty").panel
