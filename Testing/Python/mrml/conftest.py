"""Real MRML nodes and slice logics from slicer-core, without an application."""

import os
import sys
import types
from pathlib import Path

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in (REPOSITORY, REPOSITORY / "CalibUncertainty"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

slicer = pytest.importorskip("slicer", reason="SLICER-CORE MISSING: install the test extra to run the MRML layer")
import vtk  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

# The translator is the application's; without one a text stays as it stands in the source.
sys.modules.setdefault("slicer.i18n", types.SimpleNamespace(tr=lambda text: text, translate=lambda context, text: text))

HIDDEN_AT_START = "HomeDirectory is not set"  # the colour logic looks for the files of an installed Slicer


class SliceView:
    """One slice view: the real logic and node, asked for its pixels without OpenGL."""

    def __init__(self, scene, application_logic, name):
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(scene)
        self.node = self.logic.AddSliceNode(name)
        self.composite = self.logic.GetSliceCompositeNode()

    def reset(self, pixels=96):
        """One pixel a millimetre, no layers."""
        self.node.SetDimensions(pixels, pixels, 1)
        self.node.SetFieldOfView(pixels, pixels, 1)
        self.node.SetOrientationToAxial()
        for layer in range(4):
            self.composite.SetNthLayerVolumeID(layer, None)

    def look_at(self, ras):
        """Axial slice through a point, one millimetre a pixel, the point in the middle."""
        self.node.SetOrientationToAxial()
        self.node.JumpSliceByCentering(*(float(v) for v in ras))

    def pixels(self):
        """RGBA (rows, columns, 4), first row at the bottom, as VTK has it."""
        self.logic.UpdatePipeline()
        blend = self.logic.GetBlend()
        blend.Update()
        width, height, _ = blend.GetOutput().GetDimensions()
        return vtk_to_numpy(blend.GetOutput().GetPointData().GetScalars()).reshape(height, width, 4).copy()

    def ras_of_pixels(self):
        """RAS position of every pixel, (rows, columns, 3)."""
        matrix = self.node.GetXYToRAS()
        array = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
        rows, columns = np.indices(self.node.GetDimensions()[1::-1])
        points = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], axis=-1)
        return (points @ array.T)[..., :3]


@pytest.fixture(autouse=True)
def vtk_errors_fail_the_test():
    """VTK reports errors to a window, not to Python: collect them and fail."""
    messages = []
    window = vtk.vtkOutputWindow()

    @vtk.calldata_type(vtk.VTK_STRING)
    def collect(caller, event, message):
        if HIDDEN_AT_START not in message:
            messages.append(message)

    window.AddObserver("ErrorEvent", collect)
    window.AddObserver("WarningEvent", collect)
    before = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(window)
    yield messages
    vtk.vtkOutputWindow.SetInstance(before)
    assert not messages, "VTK reported:\n" + "\n".join(messages)


class Application:
    """Scene and logics in the order they need; `.mrb` files want the two managers."""

    def __init__(self, folder):
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkMRMLApplicationLogic()
        self.cache, self.manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        self.cache.SetRemoteCacheDirectory(str(folder))
        self.manager.SetCacheManager(self.cache)
        self.scene.SetCacheManager(self.cache)
        self.scene.SetDataIOManager(self.manager)
        self.scene.SetRootDirectory(str(folder))
        self.colors = slicer.vtkSlicerColorLogic()
        self.segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
        for logic, name in ((self.colors, "Colors"), (self.segmentations, "Segmentations")):
            logic.SetMRMLApplicationLogic(self.logic)
            logic.SetMRMLScene(self.scene)
            self.logic.SetModuleLogic(name, logic)
        self.logic.SetMRMLScene(self.scene)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)


@pytest.fixture(scope="session")
def application(tmp_path_factory):
    """One scene for all tests, as in Slicer; it is closed after each. Logics must not outlive their scene, so it stays."""
    application = Application(tmp_path_factory.mktemp("cache"))
    application.views = {
        name: SliceView(application.scene, application.logic, name) for name in ("Red", "Green", "Yellow")
    }
    return application


@pytest.fixture
def scene(application):
    application.scene.Clear(0)
    for view in application.views.values():
        view.reset()
    yield application.scene
    application.scene.Clear(0)


@pytest.fixture
def view(application, scene):
    return application.views["Red"]


@pytest.fixture
def other_views(application, scene):
    return [application.views["Green"], application.views["Yellow"]]


@pytest.fixture(params=["straight", "oblique"])
def ijk_to_ras(request):
    from CalibUncertaintyPanel import testing

    return None if request.param == "straight" else testing.obliqueIjkToRas()


@pytest.fixture
def ct(scene):
    from CalibUncertaintyPanel import testing

    return testing.addPhantom(scene)


@pytest.fixture
def make_result(tmp_path):
    """Function from a CT node to a Result of the fake model, written and read through files."""
    from CalibUncertaintyPanel import ctVolume, fakeProcess

    from CalibUncertaintyLib.result import Result

    def make(ct, calibrated=True, roi_mm=15.0, name="result"):
        path = tmp_path / f"{name}.nrrd"
        ctVolume.writeCt(ct, path)
        out = tmp_path / name
        fakeProcess.writeResult({"ct": str(path), "out": str(out), "model": "fake", "roi_mm": roi_mm}, calibrated)
        return Result.open(out)

    return make
