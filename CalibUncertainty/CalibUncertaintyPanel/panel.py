"""The panel: holds the sections together and keeps them in step with the parameter node and the scene."""

import logging

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from . import ctVolume, dropped, install, layersCt, overlayNodes, slicerCompat, statusLine
from .aggregatesSection import AggregatesSection
from .calibrateSection import CalibrateSection
from .calibrationSection import CalibrationSection
from .collapsible import holdContentsOfAll
from .compareSection import CompareSection
from .contoursSection import ContoursSection
from .ctBelow import CtBelow
from .cursorSection import CursorSection
from .dropTarget import DropTarget
from .estimateSection import EstimateSection
from .evaluateSection import EvaluateSection
from .inputsSection import InputsSection
from .layersSection import LayersSection
from .parameterNode import isChosen
from .queueSection import QueueSection
from .regionsSection import RegionsSection
from .reviewSection import ReviewSection
from .runSection import RunSection
from .shortcuts import Shortcuts
from .sliceLayers import compositeNodes
from .summarySection import SummarySection
from .thresholdSection import ThresholdSection


class Panel(VTKObservationMixin):
    """Everything below the module's title bar.

    :param widget: the widget of the .ui file.
    :param logic: `CalibUncertaintyLogic`.
    :param resourcePath: function from a name in Resources to its path.
    """

    def __init__(self, widget, logic, resourcePath):
        VTKObservationMixin.__init__(self)
        self.widget = widget
        self.ui = slicer.util.childWidgetVariables(widget)
        holdContentsOfAll(self.ui)
        self.logic = logic
        self.scene = slicer.mrmlScene
        self.parameterNode = None
        self.overlays = None
        self._guiTag = None
        self._updating = False
        self._lastCt = None
        self._status = None
        self.ctBelow = CtBelow(self)
        self.inputs = InputsSection(self, self.ui)
        self.run = RunSection(self, self.ui)
        self.queue = QueueSection(self, self.ui)
        self.estimate = EstimateSection(self, self.ui)
        self.calibration = CalibrationSection(self, self.ui)
        self.calibrate = CalibrateSection(self, self.ui)
        self.evaluate = EvaluateSection(self, self.ui)
        self.layers = LayersSection(self, self.ui, resourcePath)
        self.threshold = ThresholdSection(self, self.ui)
        self.contours = ContoursSection(self, self.ui)
        self.regions = RegionsSection(self, self.ui)
        self.cursor = CursorSection(self, self.ui)
        self.shortcuts = Shortcuts()
        self.compare = CompareSection(self, self.ui, self.shortcuts)
        self.review = ReviewSection(self, self.ui)
        self.summary = SummarySection(self, self.ui)
        self.aggregates = AggregatesSection(self, self.ui)
        self._dropTarget = DropTarget()
        self._dropTarget.watch(widget, self.onDropped)
        self.addObserver(self.scene, self.scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(self.scene, self.scene.NodeRemovedEvent, self._onNodeRemoved)
        self.addObserver(self.scene, self.scene.EndBatchProcessEvent, self._onEndBatch)

    @property
    def needsPackages(self):
        """Whether a run needs the packages of the real computation; a substitute for tests does not."""
        return self.logic.command is None

    def release(self):
        """Let go of everything: the module is reloaded, or Slicer quits. A run is stopped."""
        self.leave()
        self.setParameterNode(None)
        computing = self.queue, self.run, self.estimate, self.calibrate, self.evaluate, self.calibration, self.inputs
        layers = self.layers, self.threshold, self.contours, self.regions, self.compare
        for section in (*computing, *layers, self.review, self.summary):
            section.release()
        self.ctBelow.release()
        self._dropTarget.release()
        self.removeObservers()

    def enter(self):
        """The module is opened: what belongs to the time when it is seen begins."""
        self.inputs.enter()
        self.shortcuts.connect()
        self.cursor.enter()
        self.review.enter()

    def leave(self):
        """Another module is opened; a run goes on."""
        self.compare.show()
        self.shortcuts.disconnect()
        self.cursor.leave()
        self.review.leave()
        self.disconnectGui()

    def setParameterNode(self, parameterNode):
        """Follow this parameter node; None when the scene closes or the panel is left for good."""
        if parameterNode is None or self.parameterNode is not parameterNode:
            self._lastCt = None
        if self.parameterNode is not None:
            self.disconnectGui()
            self.removeObserver(self.parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        self.parameterNode = parameterNode
        if parameterNode is None:
            self._setOverlays(None)
            self.queue.onSceneClosed()
            self.updateRunButton()
            return
        self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        if parameterNode.ctVolume is None and self._lastCt is None and not _lacksCt(parameterNode):
            # a CT that was put away on purpose stays away, and none is put below layers of another one
            firstCt = self._firstCt()
            if firstCt is not None:
                parameterNode.ctVolume = firstCt
        self.connectGui()
        self._restore()
        self.update()

    def connectGui(self):
        """Let widgets and parameter node follow each other."""
        if self.parameterNode is not None and self._guiTag is None:
            self._guiTag = self.parameterNode.connectGui(self.ui)

    def disconnectGui(self):
        """Stop that; for another module's time."""
        if self.parameterNode is not None and self._guiTag is not None:
            self.parameterNode.disconnectGui(self._guiTag)
        self._guiTag = None

    def update(self):
        """Bring widgets and slice views to the state of the parameter node."""
        if self._updating or self.parameterNode is None:
            return
        if self.overlays is not None and not self.overlays.isWhole:
            self._forgetDeletedLayers()
        self._updating = True
        self._lastCt = self.parameterNode.ctVolume or self._lastCt
        try:
            self.ctBelow.node()  # a CT that was removed hides the layers, one that was chosen then brings them back
            self.inputs.update()
            self.calibration.update()
            self.threshold.applyBudget()
            self.layers.update()
            self.threshold.update()
            self.contours.update()
            self.regions.update()
            self.compare.update()
            self.review.update()
            self.updateStatus()
            self.updateRunButton()
        finally:
            self._updating = False

    def updateRunButton(self):
        """Enable Run and Calibrate when they can start, and say why not when they cannot."""
        self.run.update()
        self.calibrate.update()
        self.evaluate.update()
        self.queue.update()
        self.estimate.update()

    def busyProblem(self):
        """What is under way, so that nothing else can be started; an empty string when nothing is."""
        if self.run.installing:
            return _("Packages are being installed.")
        for section, text in (
            (self.run, _("A run is under way.")),
            (self.calibrate, _("A calibration is under way.")),
            (self.evaluate, _("An evaluation is under way.")),
        ):
            if section.running:
                return text
        return ""

    def updateStatus(self):
        """Say whether the probabilities that are shown are calibrated."""
        status = statusLine.statusOf(self.overlays, self.ctBelow.warnings())
        if status != self._status:  # a style costs a layout of the whole panel
            self._status = status
            self.ui.statusLabel.setText(status[0])
            self.ui.statusLabel.setStyleSheet(status[1])

    def showError(self, message, details="", section=None):
        """Tell the user in one line, in the panel and in a message box; the details go to the log.

        :param section: the `JobSection` that the line is shown in; that of runs otherwise.
        """
        logging.error("CalibUncertainty: %s\n%s", message, details)
        (section or self.run).showError(message)
        if details:
            slicer.util.errorDisplay(message, windowTitle="CalibUncertainty", detailedText=details)
        else:
            slicer.util.errorDisplay(message, windowTitle="CalibUncertainty")

    def showFailure(self, error, text=""):
        """Tell why something cannot be shown, in one line. A package that it needs and that is missing can be installed at once.

        :param error: the exception.
        :param text: the line, where the error's own will not do.
        """
        name = install.missingPackage(error)
        if not name:
            self.showError(text or str(error))
            return
        refusal = self.run.installPackages((name,))
        self.run.showError(refusal or _("The package {name} is installed now: choose it again.").format(name=name))

    def showResult(self, folder, ctNode=None):
        """Show a Result folder as layers over its CT.

        :param folder: a Result folder.
        :param ctNode: the CT it was made from, if that is known.
        """
        from CalibUncertaintyLib import CalibUncertaintyError

        before = {node.GetBackgroundVolumeID() for node in compositeNodes(self.scene)}
        try:
            with slicer.util.WaitCursor():
                overlays = self.logic.showResult(folder, self.parameterNode, ctNode)
        except CalibUncertaintyError as error:
            self.showError(str(error))
            return
        except Exception as error:
            logging.exception("CalibUncertainty: a result cannot be shown")
            self.showError(_("The result in {folder} cannot be shown: {error}").format(folder=folder, error=error))
            return
        self._setOverlays(overlays)
        self.update()
        shown = self.shownCt()
        if shown is not None and shown.GetID() not in before:
            slicer.util.resetSliceViews()  # another CT than before; otherwise zoom and position stay as they are
        if shown is None:
            self.run.showError(self._wrongCt())

    def _wrongCt(self):
        """Why no CT lies below the layers, and what to do."""
        chosen, geometry = self.parameterNode.ctVolume, self.overlays.result.provenance["geometry"]
        if chosen is None or chosen.GetImageData() is None:
            return _("The CT of this result is not in the scene: load it and choose it above as CT.")
        return _("{name} ({here}) is not the CT of this result ({there} voxels, or of the same size at another place): load that "
                 "one and choose it above as CT.").format(
            name=chosen.GetName(), here=_size(chosen.GetImageData().GetDimensions()), there=_size(geometry["size_xyz"])
        )  # fmt: skip

    def onDropped(self, paths):
        """Open a Result folder or choose a model folder that was dropped onto the panel; tell in one line what it is not."""
        if self.parameterNode is None:
            return
        found = dropped.recognise(paths)
        self.run.showError(found.problem)
        if found.kind == dropped.RESULT:
            self.showResult(found.folder)
        elif found.kind == dropped.MODEL:
            self.parameterNode.modelFolder = found.folder

    def chooseStructure(self, name):
        """Show the probability of a structure, if the layers have it."""
        if self.parameterNode is not None and self.overlays is not None and name in self.overlays.structures:
            self.parameterNode.structure = name

    def shownCt(self):
        """The CT that the layers were made from; None where it is not in the scene."""
        return self.ctBelow.node()

    def _setOverlays(self, overlays):
        if self.overlays is not None:
            if overlays is not None and overlays.nodes != self.overlays.nodes:
                self.overlays.hide()  # over another patient's CT they would mislead
            self.overlays.release()
        self.overlays = overlays
        self.ctBelow.watch()
        self.updateStatus()
        self.layers.onNewOverlays()
        self.threshold.onNewOverlays()
        self.contours.onNewOverlays()
        self.regions.onNewOverlays()
        result = overlays.result if overlays is not None else None
        self.review.fill(result)
        self.summary.fill(result)
        self.aggregates.fill(result)

    def _restore(self):
        """Take up the layers of a saved scene."""
        overlays = self.logic.restoreOverlays(self.parameterNode)
        if overlays is not None and self.overlays is not None and overlays.nodes == self.overlays.nodes:
            overlays.release()
            return
        if overlays is None and self.overlays is not None:
            self.overlays.hide()
        self._setOverlays(overlays)
        self.layers.keepWindow()

    def _firstCt(self):
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if not node.GetHideFromEditors() and not ctVolume.ctProblem(node):
                return node
        return None

    def _onModified(self, caller, event):
        if self.scene.IsBatchProcessing():  # half a scene is there; `_onEndBatch` looks again
            return
        self.update()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller, event, node):
        # A layout with more slice views makes them when it is chosen: they get the layers, too.
        if node is not None and node.IsA("vtkMRMLSliceCompositeNode") and self.overlays is not None:
            slicerCompat.soon(self.layers.onNewView)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node):
        if node is None or self.scene.IsBatchProcessing():
            return
        if node is self._lastCt:
            self._lastCt = None
        if node.GetAttribute("CalibUncertainty.Kind") and node.IsA("vtkMRMLScalarVolumeNode"):
            overlayNodes.removeLegend(self.scene, node)
        self.contours.onNodeRemoved(node)
        self.regions.onNodeRemoved(node)
        if self.overlays is not None and node in self.overlays.nodes:
            self._forgetDeletedLayers()
        elif self.ctBelow.lost:
            self.update()

    def _onEndBatch(self, caller, event):
        self.update()

    def _forgetDeletedLayers(self):
        # The rest of them would lie over whatever CT comes next.
        layersCt.takeOffViews(self.scene, self.overlays.nodes[:2])
        self.overlays.hide()
        self._setOverlays(None)
        self.run.showError(_("A layer of the result was deleted. Open the result again to see it."))

    @property
    def resultFolder(self):
        """Folder of the Result that is shown, or None."""
        chosen = self.parameterNode is not None and isChosen(self.parameterNode.resultFolder)
        return self.parameterNode.resultFolder if chosen else None


def _lacksCt(parameterNode):
    return parameterNode.segmentation is not None and bool(layersCt.removedCt(parameterNode.segmentation))


def _size(dimensions):
    return " x ".join(str(number) for number in dimensions)
