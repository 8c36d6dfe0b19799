"""The layers side by side: CT alone, with the probability, and with the uncertainty, in three linked views of one slice."""

from . import slicerCompat
from .mrmlTools import nodesOfClass

SIDE_BY_SIDE = 7301  # identifier of the layout; Slicer's own are small numbers, those of users begin with 1000
CT_VIEW, PROBABILITY_VIEW, UNCERTAINTY_VIEW = "CalibCT", "CalibProbability", "CalibUncertainty"

_VIEW = """
  <item><view class="vtkMRMLSliceNode" singletontag="{tag}">
    <property name="orientation" action="default">Axial</property>
    <property name="viewlabel" action="default">{label}</property>
    <property name="viewcolor" action="default">{color}</property>
  </view></item>"""

DESCRIPTION = (
    '<layout type="horizontal" split="true">'
    + _VIEW.format(tag=CT_VIEW, label="CT", color="#8C8C8C")
    + _VIEW.format(tag=PROBABILITY_VIEW, label="P", color="#21918C")
    + _VIEW.format(tag=UNCERTAINTY_VIEW, label="U", color="#E45A31")
    + "\n</layout>"
)


def layersOf(viewName):
    """Which layers a slice view shows over the CT: (probability, uncertainty).

    :param viewName: layout name of the view; every view but those of the layout here shows both.
    """
    return {CT_VIEW: (False, False), PROBABILITY_VIEW: (True, False), UNCERTAINTY_VIEW: (False, True)}.get(
        viewName, (True, True)
    )


def register():
    """Have Slicer know the layout, which a scene may have been saved with."""
    slicerCompat.addLayout(SIDE_BY_SIDE, DESCRIPTION)


def alignViews(scene):
    """Bring the three views to the slice, place and zoom of the axial view of the usual layout."""
    nodes = {node.GetLayoutName(): node for node in nodesOfClass(scene, "vtkMRMLSliceNode")}
    red = nodes.get("Red")
    for name in (CT_VIEW, PROBABILITY_VIEW, UNCERTAINTY_VIEW):
        node = nodes.get(name)
        if node is None or red is None:
            continue
        wasModifying = node.StartModify()
        node.SetOrientationToAxial()
        node.GetSliceToRAS().DeepCopy(red.GetSliceToRAS())
        node.UpdateMatrices()
        height = red.GetFieldOfView()[1]
        width, rows = node.GetDimensions()[:2]
        node.SetFieldOfView(height * width / max(rows, 1), height, red.GetFieldOfView()[2])
        node.EndModify(wasModifying)


class Layouts:
    """Changes to the layout and back to the one before it."""

    def __init__(self):
        self._before = None

    @property
    def sideBySide(self):
        """Whether the layers are shown side by side now."""
        return slicerCompat.layout() == SIDE_BY_SIDE

    def showSideBySide(self):
        """Show the layers side by side; whether this Slicer has a window to do so."""
        if self.sideBySide:
            return True
        before = slicerCompat.layout()
        if not slicerCompat.addLayout(SIDE_BY_SIDE, DESCRIPTION):
            return False
        slicerCompat.showLayout(SIDE_BY_SIDE)
        self._before = before
        return True

    def showStacked(self):
        """Go back to the layout before, in which all layers lie one over the other."""
        if self.sideBySide:
            slicerCompat.showLayout(self._before or slicerCompat.conventionalLayout())
