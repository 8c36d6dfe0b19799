"""Slice views without widgets: real slice logics and displayable managers, rendered into memory through EGL."""

from __future__ import annotations

import os

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SLICE_VIEWS = ("Red", "Yellow", "Green")
SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
DEFAULT_SIZE = (600, 600)


class SliceView:
    """What ``layoutManager().sliceWidget("Red")`` gives: the logic is real, the widget is not there."""

    def __init__(self, name: str, core, logics: vtk.vtkCollection):
        self.name = name
        self._core = core
        self._size = DEFAULT_SIZE
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(core.applicationLogic)
        self._logic.SetMRMLScene(core.scene)
        self._logic.SetSliceNode(core.scene.GetNodeByID(f"vtkMRMLSliceNode{name}"))
        logics.AddItem(self._logic)  # before the displayable managers: the one of colour legends asks for it once
        self._createWindow()  # at once, as in Slicer: a displayable manager answers to events it was there to hear
        self.resize(DEFAULT_SIZE)

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def sliceView(self):
        return self

    def sliceController(self):
        return self

    def fitSliceToBackground(self):
        self._logic.FitSliceToBackground()

    def scheduleRender(self):
        pass

    def forceRender(self):
        pass

    def setSliceOffsetValue(self, offset: float):
        self._logic.SetSliceOffset(offset)

    def resize(self, size: tuple[int, int]) -> None:
        """Resize as a window does: the slice node's dimensions and the field of view follow."""
        self._size = tuple(int(s) for s in size)
        self._logic.ResizeSliceNode(*self._size)
        self._window.SetSize(*self._size)

    def _createWindow(self) -> None:
        self._renderer = vtk.vtkRenderer()
        self._renderer.SetBackground(0, 0, 0)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(*self._size)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._window.SetInteractor(self._interactor)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(self._actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(self._core.applicationLogic)
        for manager in SLICE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._group = factory.InstantiateDisplayableManagers(self._renderer)
        self._group.SetMRMLDisplayableNode(self.mrmlSliceNode())

    def render(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """RGB image, uint8, shape (height, width, 3), first row at the top."""
        if size is not None and tuple(size) != self._size:
            self.resize(size)
        self._logic.UpdatePipeline()
        layers = self._logic.GetImageDataConnection()  # None while no layer holds a volume
        self._mapper.SetInputConnection(layers)
        self._actor.SetVisibility(layers is not None)
        self._group.RequestRender()
        self._window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._window)
        grabber.ReadFrontBufferOff()
        grabber.SetInputBufferTypeToRGB()
        grabber.ShouldRerenderOff()
        grabber.Update()
        return _toArray(grabber.GetOutput())

    def blend(self) -> np.ndarray:
        """What the layers give together, RGBA uint8 (height, width, 4), first row at the top; no OpenGL.

        Outside every volume the alpha is 0 and the colour meaningless.
        """
        self._logic.UpdatePipeline()
        if self._logic.GetImageDataConnection() is None:
            raise ValueError(f"slice view {self.name} shows no volume: there is nothing to blend")
        blend = self._logic.GetBlend()
        blend.Update()
        return _toArray(blend.GetOutput())


def _toArray(image: vtk.vtkImageData) -> np.ndarray:
    width, height, _ = image.GetDimensions()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
    return array[::-1].copy()


class LayoutManager:
    """``slicer.app.layoutManager()``: the layout node and logic are real, no window is laid out."""

    def __init__(self, core):
        self._core = core
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
        self._logics = vtk.vtkCollection()
        core.applicationLogic.SetSliceLogics(self._logics)
        self._views = {name: SliceView(name, core, self._logics) for name in SLICE_VIEWS}

    def layoutLogic(self):
        return self._core.layoutLogic

    @property
    def layout(self) -> int:
        return self._core.layoutLogic.GetLayoutNode().GetViewArrangement()

    @layout.setter
    def layout(self, arrangement: int) -> None:
        self.setLayout(arrangement)

    def setLayout(self, arrangement: int) -> None:
        self._core.layoutLogic.GetLayoutNode().SetViewArrangement(arrangement)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._views)

    sliceWidgetNames = sliceViewNames

    def sliceWidget(self, name: str) -> SliceView | None:
        return self._views.get(name)

    def mrmlSliceLogics(self):
        return self._logics

    threeDViewCount = 0
    plotViewCount = 0
    tableViewCount = 0

    def threeDWidget(self, index):
        return None

    def resetSliceViews(self) -> None:
        for view in self._views.values():
            view.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        pass


def render_slice(view: str = "Red", size: tuple[int, int] = DEFAULT_SIZE) -> np.ndarray:
    """Draw one slice view with everything Slicer draws in it (ruler, legend, outlines). RGB, top row first."""
    return slicer.app.layoutManager().sliceWidget(view).render(size)


def blend(view: str = "Red") -> np.ndarray:
    """The composited layers of one slice view, RGBA, top row first, without OpenGL: the best thing to assert on."""
    return slicer.app.layoutManager().sliceWidget(view).blend()
