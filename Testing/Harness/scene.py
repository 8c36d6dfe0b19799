"""The real MRML scene with the real module logics, put together as Slicer's application does at start."""

from __future__ import annotations

import slicer
import vtk

# Module name -> class of its logic; all of these are Slicer's own C++ code, from slicer-core.
MODULE_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Units": "vtkSlicerUnitsLogic",
    "ViewControllers": "vtkSlicerViewControllersLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Texts": "vtkSlicerTextsLogic",
}

# What Slicer's subject-hierarchy plug-ins (Qt, absent here) give an item as soon as it enters the scene.
HAS_HIERARCHY_ITEM = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceNode",
)


class MrmlCore:
    """Scene, application logic and module logics; lives as long as the process."""

    def __init__(self, temporaryPath: str):
        self.scene = slicer.vtkMRMLScene()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetTemporaryPath(temporaryPath)
        self.cacheManager = slicer.vtkCacheManager()
        self.cacheManager.SetRemoteCacheDirectory(temporaryPath)
        self.dataIOManager = slicer.vtkDataIOManager()
        self.dataIOManager.SetCacheManager(self.cacheManager)
        self.scene.SetCacheManager(self.cacheManager)
        self.scene.SetDataIOManager(self.dataIOManager)
        self.scene.SetRootDirectory(temporaryPath)
        self.applicationLogic.SetMRMLScene(self.scene)
        self.logics = {}
        for name, className in MODULE_LOGICS.items():
            if hasattr(slicer, className):
                self._addLogic(name, getattr(slicer, className)())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        self.layoutLogic = slicer.vtkMRMLLayoutLogic()
        self.layoutLogic.SetMRMLApplicationLogic(self.applicationLogic)
        self.layoutLogic.SetMRMLScene(self.scene)
        self._observeScene()

    def _observeScene(self) -> None:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onAdded(caller, event, node):
            if node is not None and node.IsA("vtkMRMLSubjectHierarchyNode"):
                self._oneHierarchy()
            elif not self.scene.IsImporting():
                self._addHierarchyItem(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onAboutToBeRemoved(caller, event, node):
            hierarchy = self.scene.GetSubjectHierarchyNode()
            item = hierarchy.GetItemByDataNode(node) if hierarchy and not self.scene.IsClosing() else 0
            if item:
                hierarchy.RemoveItem(item, False, False)

        def onEndImport(caller, event):
            self._oneHierarchy()
            for index in range(self.scene.GetNumberOfNodes()):
                self._addHierarchyItem(self.scene.GetNthNode(index))

        self.scene.AddObserver(self.scene.NodeAddedEvent, onAdded)
        self.scene.AddObserver(self.scene.NodeAboutToBeRemovedEvent, onAboutToBeRemoved)
        self.scene.AddObserver(self.scene.EndImportEvent, onEndImport, 10.0)  # before everybody else, as in Slicer
        self.scene.AddObserver(self.scene.EndCloseEvent, lambda caller, event: self._oneHierarchy())
        self._oneHierarchy()

    def _oneHierarchy(self):
        """Merge what a loaded scene brought into the one subject-hierarchy node; make it where there is none."""
        return slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(self.scene)

    def _addLogic(self, name: str, logic) -> None:
        logic.SetMRMLApplicationLogic(self.applicationLogic)  # before the scene: some logics ask for it at once
        logic.SetMRMLScene(self.scene)
        self.applicationLogic.SetModuleLogic(name, logic)
        self.logics[name] = logic

    def _addHierarchyItem(self, node) -> None:
        if node is None or node.GetHideFromEditors() or not any(node.IsA(name) for name in HAS_HIERARCHY_ITEM):
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
