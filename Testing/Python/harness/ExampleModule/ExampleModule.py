"""A scripted module with one widget of every kind the stand-in knows, in the idioms of Slicer's template."""

import enum
import pathlib
from typing import Annotated, Optional

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *  # noqa: F403
from slicer.util import VTKObservationMixin


class ExampleModule(ScriptedLoadableModule):  # noqa: F405
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)  # noqa: F405
        self.parent.title = _("Example")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["nobody"]
        self.parent.helpText = _("For tests.")
        slicer.app.connect("startupCompleted()", lambda: None)


class Measure(enum.Enum):
    ENTROPY = "entropy"
    MARGIN = "margin"

    def label(self):
        return self.value.title()


@parameterNodeWrapper
class ExampleModuleParameterNode:
    ct: vtkMRMLScalarVolumeNode
    segmentation: Optional[vtkMRMLSegmentationNode]  # noqa: UP045 - both ways of writing it must work
    model: pathlib.Path
    measure: Measure = Measure.MARGIN
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.25
    distance: Annotated[float, WithinRange(0.0, 100.0)] = 15.0
    members: Annotated[int, WithinRange(1, 5)] = 3
    outlines: bool = True
    details: bool = False
    note: str = "none"
    folds: list[int] = [0, 1]  # noqa: RUF012 - a default, as Slicer's wrapper wants it
    names: list[str]


class ExampleModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):  # noqa: F405
    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)  # noqa: F405
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self.calls = []

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)  # noqa: F405
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/ExampleModule.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ExampleModuleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self.calls.append("cleanup")
        self.removeObservers()

    def enter(self) -> None:
        self.calls.append("enter")
        self.initializeParameterNode()

    def exit(self) -> None:
        self.calls.append("exit")
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.ct:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.ct = first

    def setParameterNode(self, parameterNode) -> None:  # noqa: N803
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()

    def _checkCanApply(self, caller=None, event=None) -> None:
        self.ui.applyButton.enabled = bool(self._parameterNode and self._parameterNode.ct)

    def onApplyButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Failed to compute results."), waitCursor=True):
            self.logic.process(self._parameterNode.ct)


class ExampleModuleLogic(ScriptedLoadableModuleLogic):  # noqa: F405
    def getParameterNode(self):
        return ExampleModuleParameterNode(super().getParameterNode())

    def process(self, ct) -> None:
        raise ValueError(f"cannot process {ct.GetName()}")


class ExampleModuleTest(ScriptedLoadableModuleTest):  # noqa: F405
    ran = 0

    def runTest(self):
        ExampleModuleTest.ran += 1
        self.delayDisplay("ran")
