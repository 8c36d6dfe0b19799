"""Other voxels for a volume node: the planes that are looked at first, the rest in small steps. Scene and node in; no Qt."""

import time

import slicer
import vtk
from slicer.util import VTKObservationMixin

from .mrmlTools import nodesOfClass
from .visiblePlanes import visiblePlanes

AT_ONCE_VOXELS = 4_000_000  # so many are written in a few milliseconds
STEP_SECONDS = 0.006


class VisibleFill(VTKObservationMixin):
    """Fills the voxels of one volume node.

    All at once, unless somebody sets `inSteps` and promises to call `step` until `pending` is False. Until then whatever a
    slice view shows is right, and scrolling writes what comes into view. Saving the scene completes it.
    """

    def __init__(self, scene, volumeNode):
        VTKObservationMixin.__init__(self)
        self.scene = scene
        self.volumeNode = volumeNode
        self.inSteps = False
        self._source = None
        self._left = []  # slices (axis 0) to be written; the next one comes last
        self._written = set()  # planes in the way of `visiblePlanes` that need not wait for them

    @property
    def pending(self):
        """Whether there are voxels yet to be written."""
        return self._source is not None

    def start(self, source):
        """Show a map, in place of one that is not finished yet.

        :param source: `MaskedMap` of the shape of the node's voxels.
        """
        self.drop()
        self._source, self._left = source, list(range(len(source.array)))
        planes = None
        if self.inSteps and source.array.size > AT_ONCE_VOXELS:
            planes = visiblePlanes(self.scene, self.volumeNode)
        if planes is None:
            self.finish()
            return
        middle = next((first for axis, first, _last in sorted(planes) if axis == 0), 0)
        self._left.sort(key=lambda index: -abs(index - middle))
        self._writePlanes(planes)
        slicer.util.arrayFromVolumeModified(self.volumeNode)
        self._watch()

    def step(self, seconds=STEP_SECONDS):
        """Write more, for about so long.

        :return: `pending`.
        """
        array, deadline = self._array(), time.perf_counter() + seconds
        while array is not None and self._left and time.perf_counter() < deadline:
            self._source.writeInto(array, self._left.pop())
        if self.pending and not self._left:
            self.drop()
            slicer.util.arrayFromVolumeModified(self.volumeNode)
        return self.pending

    def finish(self):
        """Write all that is left, now."""
        while self.step(float("inf")):
            pass

    def drop(self):
        """Leave the voxels as they are."""
        self.removeObservers()
        self._source = None
        self._left = []
        self._written = set()

    def _array(self):
        """The node's voxels; None, and nothing is left to be done, where they have gone or were exchanged."""
        if not self.pending:
            return None
        known = self.volumeNode.GetScene() is not None and self.volumeNode.GetImageData() is not None
        array = slicer.util.arrayFromVolume(self.volumeNode) if known else None
        if array is None or array.shape != self._source.array.shape:
            self.drop()
            return None
        return array

    def _writePlanes(self, planes):
        """Write these planes; whether there was anything to write."""
        array, wrote = self._array(), False
        left = set(self._left)
        for axis, first, last in planes if array is not None else ():
            if (axis, first, last) in self._written or (axis == 0 and left.isdisjoint(range(first, last + 1))):
                continue
            self._source.writeInto(array, (slice(None),) * axis + (slice(first, last + 1),))
            self._written.add((axis, first, last))
            wrote = True
        return wrote

    def _onViewModified(self, caller, event):
        planes = visiblePlanes(self.scene, self.volumeNode) if self._array() is not None else set()
        if planes is None:
            self.finish()
        elif self._writePlanes(planes):
            slicer.util.arrayFromVolumeModified(self.volumeNode)

    def _watch(self):
        for view in nodesOfClass(self.scene, "vtkMRMLSliceNode"):
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._onViewModified)
        # Not every way of saving tells so beforehand, but each gives the node a file name.
        self.addObserver(self.scene, self.scene.StartSaveEvent, self._onSave)
        self.addObserver(self.scene, self.scene.NodeAddedEvent, self._onNodeAdded)
        if self.volumeNode.GetStorageNode() is not None:
            self.addObserver(self.volumeNode.GetStorageNode(), vtk.vtkCommand.ModifiedEvent, self._onSave)

    def _onSave(self, caller, event):
        self.finish()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller, event, node):
        if node is not None and node.IsA("vtkMRMLStorageNode"):
            self.finish()
