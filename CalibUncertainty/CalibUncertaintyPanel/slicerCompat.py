"""The one place that knows what this Slicer can do. It asks for features, never for version numbers."""

import shutil
import sys

import slicer

UNCERTAINTY_LAYER = 3  # the first layer above background (0), foreground (1) and label (2)


def hasAdditionalLayers(compositeNode):
    """Whether a slice view can show more than background, foreground and label (Slicer 5.10 and later)."""
    return hasattr(compositeNode, "SetNthLayerVolumeID")


def setTopLayer(compositeNode, volumeId, opacity):
    """Show a volume above all others of a slice view; None takes it away.

    Without additional layers the label layer has to serve.
    """
    if not hasAdditionalLayers(compositeNode):
        compositeNode.SetLabelVolumeID(volumeId)
        compositeNode.SetLabelOpacity(opacity)
        return
    compositeNode.SetNthLayerVolumeID(UNCERTAINTY_LAYER, volumeId)
    compositeNode.SetNthLayerOpacity(UNCERTAINTY_LAYER, opacity)


def topLayerVolumeId(compositeNode):
    """Identifier of the volume on top of a slice view, or None."""
    if not hasAdditionalLayers(compositeNode):
        return compositeNode.GetLabelVolumeID()
    return compositeNode.GetNthLayerVolumeID(UNCERTAINTY_LAYER)


def pythonExecutable():
    """The Python that starts the computation: Slicer's launcher of it, or this one outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def runFolder():
    """A new, empty folder for one run, in Slicer's temporary folder."""
    return slicer.util.tempDirectory(key="CalibUncertainty")


def loadVolume(path):
    """Load an image file into the scene.

    :raises RuntimeError: if Slicer cannot read it.
    """
    return slicer.util.loadVolume(str(path))


def packaging():
    """The `slicer.packaging` module (Slicer 5.12 and later) or None."""
    try:
        import slicer.packaging as module
    except ImportError:
        return None
    return module


def pytorchLogic():
    """The logic of the PyTorch extension, or None where it is not installed."""
    try:
        import PyTorchUtils
    except ImportError:
        return None
    return PyTorchUtils.PyTorchUtilsLogic()


def nnUNetInstaller():
    """What installs nnU-Net in the NNUNet extension, not asking by itself; None where the extension is not there."""
    try:
        from SlicerNNUNetLib import InstallLogic
    except ImportError:
        return None
    return InstallLogic(doAskConfirmation=False)


def showChart(chartNode):
    """Show a plot chart: in a plot view of the layout, which is changed to one with a plot where it has none.

    :return: whether there was a layout to show it in; a Slicer without main window has none, and nothing happens then.
    """
    if _layoutManager() is None:
        return False
    slicer.modules.plots.logic().ShowChartInLayout(chartNode)
    return True


def layout():
    """Identifier of the layout of the views, or None in a Slicer without window."""
    manager = _layoutManager()
    return manager.layout if manager is not None else None


def conventionalLayout():
    """Identifier of Slicer's usual layout: three slice views and a 3D view."""
    return slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView


def addLayout(identifier, description):
    """Have Slicer know a layout.

    :param description: its XML.
    :return: whether there is a window that could show it.
    """
    manager = _layoutManager()
    if manager is None:
        return False
    layoutNode = manager.layoutLogic().GetLayoutNode()
    if not layoutNode.IsLayoutDescription(identifier):
        layoutNode.AddLayoutDescription(identifier, description)
    return True


def showLayout(identifier):
    """Arrange the views by a layout that Slicer knows."""
    manager = _layoutManager()
    if manager is not None:
        manager.setLayout(identifier)


def _layoutManager():
    application = getattr(slicer, "app", None)
    return application.layoutManager() if application is not None else None


def openInBrowser(path):
    """Open a file of this computer with the program that opens web pages.

    :return: whether there is one.
    """
    import qt

    return qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))


def openSegmentEditor():
    """Open the Segment Editor module.

    :return: whether this Slicer has it.
    """
    if not hasattr(slicer.modules, "segmenteditor"):
        return False
    slicer.util.selectModule("SegmentEditor")
    return True


def writesDicomSegmentations():
    """Whether a plug-in is there that writes DICOM segmentation objects; the QuantitativeReporting extension brings it."""
    return "DICOMSegmentationPlugin" in getattr(slicer.modules, "dicomPlugins", {})


def openDicomExport(scene, item):
    """Open Slicer's dialog that exports to DICOM.

    :param item: of the subject hierarchy, chosen at first.
    :return: whether this Slicer has the dialog.
    """
    if not hasattr(slicer, "qSlicerDICOMExportDialog"):
        return False
    dialog = slicer.qSlicerDICOMExportDialog(None)
    dialog.setMRMLScene(scene)
    dialog.execDialog(item)
    return True


def soon(function):
    """Call a function when Slicer has come back from what it is doing."""
    import qt

    # Slicer's own QTimer.singleShot keeps every timer, and with it the function and its panel, until Slicer ends.
    timer = qt.QTimer()
    timer.setSingleShot(True)

    def call():
        timer.deleteLater()
        function()

    timer.connect("timeout()", call)
    timer.start(0)
