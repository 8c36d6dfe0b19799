"""``slicer.app.coreIOManager()``: chooses the real storage code for the few file kinds that tests load and save."""

from __future__ import annotations

from pathlib import Path

import slicer

SUFFIXES = {".mrml": "SceneFile", ".mrb": "SceneFile", ".csv": "TableFile", ".ctbl": "ColorTableFile"}


class CoreIOManager:
    def __init__(self, core):
        self._core = core

    def fileType(self, path: str) -> str:
        name = str(path)
        if name.endswith((".seg.nrrd", ".seg.nhdr")):
            return "SegmentationFile"
        return SUFFIXES.get(Path(name).suffix, "VolumeFile")

    def fileWriterFileType(self, node) -> str:
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"

    def loadNodes(self, fileType, properties, loaded=None, messages=None) -> bool:
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._loadScene(path, properties.get("clear", False))
        name = properties.get("name", Path(path).name.split(".")[0])
        if fileType == "VolumeFile":
            options = 1 if properties.get("labelmap") else 0
            node = self._core.logics["Volumes"].AddArchetypeVolume(path, name, options)
        elif fileType == "SegmentationFile":
            node = self._core.logics["Segmentations"].LoadSegmentationFromFile(path, True, name)
        else:
            raise NotImplementedError(f"the stand-in loads no {fileType}")
        if node is not None and loaded is not None:
            loaded.AddItem(node)
        return node is not None

    def _loadScene(self, path: str, clear: bool) -> bool:
        scene = self._core.scene
        if clear:
            scene.Clear(0)
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path))
        scene.SetURL(path)
        return bool(scene.Import())

    def saveNodes(self, fileType, properties, messages=None) -> bool:
        path = str(properties["fileName"])
        scene = self._core.scene
        if fileType == "SceneFile":
            if path.endswith(".mrb"):
                return bool(scene.WriteToMRB(path, None))
            scene.SetRootDirectory(str(Path(path).parent))
            scene.SetURL(path)
            return bool(scene.Commit())
        node = scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        storage.SetUseCompression(bool(properties.get("useCompression", True)))
        return bool(storage.WriteData(node))


def addStorageForAll() -> None:
    """What Slicer's save dialog does before it writes a bundle: every storable node gets a storage node."""
    scene = slicer.mrmlScene
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
