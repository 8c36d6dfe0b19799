"""Getting labels ready to leave Slicer as a DICOM segmentation object: to whose study and to which CT they belong. Scene in; no Qt.

The writing is done by the QuantitativeReporting extension (dcmqi), whose plug-in asks the subject hierarchy for the images that a
segmentation refers to. What each segment is stands in its terminology, see `terminology`.
"""

from slicer import vtkMRMLSubjectHierarchyNode
from slicer.i18n import tr as _

from .overlayNodes import STUDY
from .reviewEditor import findEditableLabels

INSTANCES, REFERENCED = "DICOM.instanceUIDs", "DICOM.ReferencedInstanceUIDs"


def exportProblem(scene, ctNode):
    """Why labels of this CT cannot become a DICOM segmentation object, or an empty string.

    :param ctNode: the CT below the labels, or None.
    :return: one sentence for the user.
    """
    if ctNode is None:
        return _("A DICOM segmentation refers to its CT: load the CT of this result, and choose it as CT.")
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not _instances(hierarchy, ctNode) or not _studyOf(hierarchy, ctNode):
        text = _("{name} was not loaded from DICOM, and a DICOM segmentation refers to DICOM images: load the CT with the DICOM "
                 "module and open this result again.")  # fmt: skip
        return text.format(name=ctNode.GetName())
    return ""


def prepareExport(scene, modelLabels, ctNode):
    """Put the labels into their CT's study and tell them which images they refer to.

    :param modelLabels: segmentation node of a Result; what a reader has edited of it goes out in its place, where there is any.
    :param ctNode: that `exportProblem` has nothing against.
    :return: (segmentation node, its item in the subject hierarchy).
    """
    node = findEditableLabels(scene, modelLabels) or modelLabels
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = _studyOf(hierarchy, ctNode)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node)
    if hierarchy.GetItemAncestorAtLevel(item, STUDY) != study:
        hierarchy.SetItemParent(item, study)
    hierarchy.SetItemAttribute(item, REFERENCED, _instances(hierarchy, ctNode))
    node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
    return node, item


def _instances(hierarchy, ctNode):
    item = hierarchy.GetItemByDataNode(ctNode)
    return ctNode.GetAttribute(INSTANCES) or (hierarchy.GetItemAttribute(item, INSTANCES) if item else "")


def _studyOf(hierarchy, ctNode):
    item = hierarchy.GetItemByDataNode(ctNode)
    return hierarchy.GetItemAncestorAtLevel(item, STUDY) if item else 0
