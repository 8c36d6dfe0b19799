"""The nodes of a plot of ours: found again by what they are, filled, and removed with their folder. Takes the scene; no Qt."""

import vtk

from .mrmlTools import nodesOfClass


def findNode(scene, className, attribute, role):
    """The node whose attribute has this value, or None."""
    return next((node for node in nodesOfClass(scene, className) if node.GetAttribute(attribute) == role), None)


def roleNode(scene, className, attribute, role, name):
    """The node of this role, a new one where there is none, with this name."""
    node = findNode(scene, className, attribute, role)
    if node is None:
        node = scene.AddNewNodeByClass(className, name)
        node.SetAttribute(attribute, role)
    node.SetName(name)
    return node


def fillTable(node, columns):
    """Give a table node these columns.

    :param columns: {name: values}; whole numbers stay whole.
    """
    table = vtk.vtkTable()
    for name, values in columns.items():
        whole = all(isinstance(value, int) for value in values) and bool(values)
        array = vtk.vtkLongLongArray() if whole else vtk.vtkDoubleArray()
        array.SetName(name)
        for value in values:
            array.InsertNextValue(value)
        table.AddColumn(array)
    node.SetAndObserveTable(table)


def removeNodes(scene, attribute):
    """Take every node with this attribute out of the scene, with the folder that is empty then."""
    nodes = [node for node in nodesOfClass(scene, "vtkMRMLNode") if node is not None and node.GetAttribute(attribute)]
    hierarchy = scene.GetSubjectHierarchyNode()
    folders = set()
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        if item:
            folders.add(hierarchy.GetItemParent(item))
            hierarchy.RemoveItem(item, False, False)
        scene.RemoveNode(node)
    for folder in folders:
        if folder != hierarchy.GetSceneItemID() and not hierarchy.GetNumberOfItemChildren(folder):
            hierarchy.RemoveItem(folder)
