"""CalibUncertainty: calibrated probabilities and uncertainty maps of nnU-Net v2 segmentations of CT.

A thin shell: the four classes that Slicer looks for. What they do is in CalibUncertaintyPanel, and the computation in
CalibUncertaintyLib.
"""

import importlib.util
import logging
import os
import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if importlib.util.find_spec("CalibUncertaintyLib") is None:
    # Not built: only this folder is on the path, and the library lies beside it.
    sys.path.append(str(Path(__file__).resolve().parents[1]))

TUTORIAL = "https://github.com/CalibUncertainty/CalibUncertainty/blob/main/Docs/Tutorial.md"
SLOW_TESTS_VARIABLE = "CALIB_UNCERTAINTY_SLOW_TESTS"


class CalibUncertainty(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Calibrated Uncertainty")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = [_("The CalibUncertainty contributors")]
        self.parent.helpText = _("""
<p>Segments a CT with a trained nnU-Net v2 model and shows, over the CT, a probability that means what it says (calibrated)
and a map of where the model may be wrong (uncertainty), above a threshold, near the structures, region by region.</p>
<p>1. Choose a CT and a model folder, or press the button of the sample. 2. Run. 3. Move the threshold; add confidence contours.
4. Go through the list of regions with the keyboard, decide, correct. 5. Save a report.</p>
<p>For physicists: <i>Calibrate this model</i> fits the probabilities to labelled cases, <i>Evaluate this model</i> measures on
other cases whether the maps find the errors.</p>
<p>All of it, step by step: <a href="{tutorial}">the tutorial</a>.</p>
<p><b>Not a medical device.</b> For research; not for diagnosis or treatment.</p>
""").format(tutorial=TUTORIAL)
        self.parent.acknowledgementText = _("""
<p>Segmentation: nnU-Net, Isensee F et al., Nature Methods 2021. Calibration: Guo C et al., ICML 2017 (temperature scaling);
Mehrtash A et al., IEEE TMI 2020; Rousseau A-J et al., ISBI 2021. Members: Lakshminarayanan B et al., NeurIPS 2017 (deep
ensembles); Zhao Y et al., MICCAI 2022 (checkpoint ensembles). Uncertainty: Kahl K-C et al., ICLR 2024; Malinin A and Gales M,
ICLR 2021; Jungo A et al., Frontiers in Neuroscience 2020 (error overlap). Further papers are named in the README.
Colour scales: S van der Walt and N Smith (matplotlib, CC0). Outline colours: Okabe M and Ito K, 2008.</p>
""")
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Slicer is up: it learns the layout of a scene that may be loaded before the module is opened, and the sample."""
    from CalibUncertaintyPanel import layouts

    layouts.register()
    registerSampleData()


def registerSampleData():
    """Offer the CT phantom in the Sample Data module, where this Slicer has it."""
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return
    from CalibUncertaintyPanel import sample

    sample.register(SampleDataLogic, Path(__file__).parent / "Resources" / "Icons" / "CalibUncertainty.png")


class CalibUncertaintyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Passes what Slicer tells the module on to the panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None

    def setup(self):
        """The module is opened for the first time."""
        from CalibUncertaintyPanel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/CalibUncertainty.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = CalibUncertaintyLogic()
        self.panel = Panel(uiWidget, self.logic, self.resourcePath)
        self.ui = self.panel.ui
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        if self.parent.isEntered:  # reloaded while it is open
            self.panel.enter()

    def cleanup(self):
        """The module is reloaded, or Slicer quits."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.release()
            self.panel = None

    def onReload(self):
        """Developer mode: load the panel and the library anew as well, not this file alone."""
        self.cleanup()  # with the modules it was made from, not with those that are loaded next
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("CalibUncertaintyPanel", "CalibUncertaintyLib")
        ]:
            del sys.modules[name]
        super().onReload()

    def enter(self):
        """The module is opened."""
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self):
        """Another module is opened. A run goes on."""
        if self.panel is not None:
            self.panel.leave()

    def onSceneStartClose(self, caller, event):
        """The scene is about to be emptied."""
        self.panel.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        """The scene has been emptied."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """A scene has been loaded: its parameter node and its layers are taken up."""
        if self.panel.parameterNode is None and not self.parent.isEntered:
            return  # `enter` will do it
        # A new wrapper: an old one has read its node references when the nodes were not in the scene yet, and keeps that.
        self.panel.setParameterNode(self.logic.getParameterNode())
        if not self.parent.isEntered:
            self.panel.disconnectGui()

    def initializeParameterNode(self):
        """Make sure that a parameter node exists and is followed."""
        self.panel.setParameterNode(self.logic.getParameterNode(self.panel.parameterNode))


class CalibUncertaintyLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts: start a run, show a Result, take up the layers of a saved scene.

    `segment`, `addResult`, `addContours` and `addRegionModels` take the scene and its nodes and need neither a widget nor a
    parameter node; `caseSummary`, `reviewDecisions`, `saveReport`, `saveMaps` and `prepareDicomExport` take what those give,
    `evaluate` files only. Resources/Examples/segmentFolder.py uses them.

    :ivar command: another program that speaks the computation's protocol (tests); None for the real one.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.command = None

    def getParameterNode(self, known=None):
        """The module's typed parameter node.

        :param known: what an earlier call returned. It comes back if it still wraps the scene's node: every further wrapper
            leaves observers on that node.
        """
        from CalibUncertaintyPanel.parameterNode import CalibUncertaintyParameterNode

        node = super().getParameterNode()
        return known if known is not None and known.parameterNode is node else CalibUncertaintyParameterNode(node)

    def startRun(self, parameterNode):
        """Start a run with these choices; see `CalibUncertaintyPanel.runs.startRun`.

        :return: `Job`; call its `poll` until `finished`.
        """
        from CalibUncertaintyPanel import modelSummary, runs

        return runs.startRun(parameterNode, modelSummary.readModel(parameterNode.modelFolder).folder, self.command)

    def showResult(self, folder, parameterNode, ctNode=None):
        """Add the layers of a Result folder to the scene and note them in the parameter node.

        :param ctNode: the CT it was made from; looked for in the scene, and on disk, when it is None.
        :return: `Overlays`.
        :raises CalibUncertaintyError: if the folder is not a finished Result.
        """
        from CalibUncertaintyPanel import ctVolume, layersCt, overlayNodes
        from CalibUncertaintyPanel.overlays import Overlays

        from CalibUncertaintyLib.result import Result

        result = Result.open(folder)
        known = ctNode is not None
        ctNode = ctNode or self._ctOf(result, parameterNode.ctVolume)
        structures = [entry["name"] for entry in result.provenance["maps"]["probability"]]
        structure = parameterNode.structure if parameterNode.structure in structures else None
        with overlayNodes.undoneOnFailure(slicer.mrmlScene):
            # the list of places is made of this measure, so that is what is looked at first
            measure = result.provenance["threshold"]["measure"]
            overlays = Overlays.create(slicer.mrmlScene, result, ctNode, structure, measure)
            if ctNode is not None and ctVolume.belongsTogether(ctNode, result):
                if known:
                    layersCt.tie(overlays.segmentationNode, ctNode, known=True)
                else:
                    layersCt.tieAsFound(overlays.segmentationNode, ctNode, result)
            self._noteLayers(parameterNode, folder, ctNode, overlays)
        return overlays

    def _ctOf(self, result, chosen):
        """The CT that a Result was made from, of the scene or from its file; else one on its voxel grid, else None."""
        from CalibUncertaintyPanel import ctVolume, slicerCompat

        found, path = ctVolume.findCt(slicer.mrmlScene, result, chosen), Path(result.provenance["ct"]["path"])
        if path.is_file() and (found is None or ctVolume.hasVoxels(found, result) is False):
            return slicerCompat.loadVolume(str(path))
        return found

    def _noteLayers(self, parameterNode, folder, ctNode, overlays):
        from CalibUncertaintyPanel.parameterNode import RoiOf

        with slicer.util.NodeModify(parameterNode):
            if ctNode is not None:
                parameterNode.ctVolume = ctNode
            parameterNode.resultFolder = Path(folder)
            parameterNode.probabilityVolume, parameterNode.uncertaintyVolume, parameterNode.segmentation = (
                overlays.nodes
            )
            parameterNode.measure = overlays.shownMeasure
            parameterNode.structure = overlays.shownStructure
            parameterNode.threshold = overlays.measure(overlays.shownMeasure).threshold
            parameterNode.roiShownMm = overlays.roiLimitMm
            if overlays.result.of_body:  # what the list of places is of
                parameterNode.roiOf = RoiOf.BODY

    def segment(self, scene, ctNode, modelFolder, outputFolder=None, **options):
        """Segment a CT and add the layers of its Result to the scene; waits. See `CalibUncertaintyPanel.scripting.segment`.

        :return: `Overlays`; their `result` is the `Result`.
        :raises CalibUncertaintyError: if the model or the CT cannot be used, or the run fails.
        """
        from CalibUncertaintyPanel import scripting

        return scripting.segment(scene, ctNode, modelFolder, outputFolder, command=self.command, **options)

    def addResult(self, scene, folder, ctNode=None):
        """Add the layers of a Result folder to a scene, without a parameter node.

        :param ctNode: the CT it was made from; looked for in the scene when it is None.
        :return: `Overlays`.
        :raises CalibUncertaintyError: if the folder is not a finished Result.
        """
        from CalibUncertaintyPanel import scripting

        return scripting.showResult(scene, folder, ctNode)

    def addContours(self, scene, overlays, structures=None, outer=0.05, inner=0.95):
        """Add confidence contours at two probabilities (0..1) of structures, by name, or of all.

        :return: segmentation node.
        """
        from CalibUncertaintyPanel import scripting

        return scripting.addContours(scene, overlays, structures, outer, inner)

    def addRegionModels(self, scene, overlays):
        """Add the uncertain regions as a model for 3D views.

        :return: (model of the regions, model of the structures as a ghost).
        """
        from CalibUncertaintyPanel import scripting

        return scripting.addRegionModels(scene, overlays)

    def reviewDecisions(self, overlays):
        """What readers have decided on the regions of a Result: `ReviewDecisions`, whose `toJson` gives plain values."""
        from CalibUncertaintyPanel import scriptingReports

        return scriptingReports.decisionsOf(overlays)

    def caseSummary(self, overlays):
        """Volumes of all structures in mL, with their intervals, and the mean entropy; see `reviewSummary.CaseSummary`."""
        from CalibUncertaintyPanel import scriptingReports

        return scriptingReports.summaryOf(overlays)

    def saveReport(self, overlays, path, ctNode=None):
        """Write the report of a case and its review: a web page, and two tables (CSV) beside it.

        :param ctNode: the CT, for pictures.
        :return: the files.
        """
        from CalibUncertaintyPanel import scriptingReports

        return scriptingReports.saveReviewReport(overlays, path, ctNode)

    def saveMaps(self, overlays, path):
        """Write the shown probability and uncertainty as NRRD, or as NIfTI with JSON files, with what is known of them.

        :param path: "folder/name.nrrd" or "folder/name.nii.gz"; what a map is gets into its name.
        :return: the files.
        """
        from CalibUncertaintyPanel import layerFiles

        return layerFiles.saveMaps(path, layerFiles.mapsOf(overlays))

    def prepareDicomExport(self, scene, overlays, ctNode):
        """Put the labels into the study of their CT and tell them its images, for "Export to DICOM" or a DICOM plug-in.

        :return: (segmentation node, its item in the subject hierarchy).
        :raises ValueError: if the CT did not come from DICOM.
        """
        from CalibUncertaintyPanel import dicomExport

        problem = dicomExport.exportProblem(scene, ctNode)
        if problem:
            raise ValueError(problem)
        return dicomExport.prepareExport(scene, overlays.segmentationNode, ctNode)

    def evaluate(self, modelFolder, cases, outputFolder, **options):
        """Evaluate a model on labelled test cases; waits. See `CalibUncertaintyPanel.scriptingReports.evaluate`.

        :return: content of evaluation.json.
        """
        from CalibUncertaintyPanel import scriptingReports

        return scriptingReports.evaluate(modelFolder, cases, outputFolder, command=self.command, **options)

    def restoreOverlays(self, parameterNode):
        """The layers that the parameter node names, or None; without their Result folder they can only be looked at."""
        from CalibUncertaintyPanel.overlays import Overlays

        from CalibUncertaintyLib import CalibUncertaintyError
        from CalibUncertaintyLib.result import Result

        nodes = [parameterNode.probabilityVolume, parameterNode.uncertaintyVolume, parameterNode.segmentation]
        if any(node is None for node in nodes):
            return None
        try:
            result = Result.open(parameterNode.resultFolder)
        except CalibUncertaintyError as error:
            logging.info("CalibUncertainty: %s", error)
            result = None
        return Overlays.restore(slicer.mrmlScene, *nodes, result)


class CalibUncertaintyTest(ScriptedLoadableModuleTest):
    """The panel's whole way on a small phantom: with a fake computation, and, where asked for, with the true demo model."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the tests; the slow one when CALIB_UNCERTAINTY_SLOW_TESTS is set."""
        self.setUp()
        self.test_theWholeWayWithTheFakeComputation()
        if os.environ.get(SLOW_TESTS_VARIABLE):
            self.setUp()
            self.theWholeWayWithTheDemoModel()

    def test_theWholeWayWithTheFakeComputation(self):
        """From a CT to layers, threshold and review."""
        from CalibUncertaintyPanel import selfTest

        self.delayDisplay("The whole way with the fake computation")
        selfTest.wholeWayWithFake(self)
        self.delayDisplay("Passed")

    def theWholeWayWithTheDemoModel(self):
        """The same with the network that comes with the extension; needs PyTorch and nnU-Net.

        Not named test...: ctest's loader runs every method of such a name by itself, without `runTest` and its condition.
        """
        from CalibUncertaintyPanel import selfTest

        self.delayDisplay("The whole way with the demo model")
        selfTest.wholeWayWithDemoModel(self)
        self.delayDisplay("Passed")
