"""The controls that filter the list of places. The parameter node keeps the choices; the line below says what they hide."""

import slicer
from slicer.i18n import tr as _

from . import comboBoxes
from . import reviewWords as words
from .reviewFilter import ReviewFilter, hiddenSentence, kindsOf, structuresOf


class ReviewFilterSection:
    """Keeps the list at what the parameter node asks for.

    :param section: the `ReviewSection`.
    """

    def __init__(self, section, ui):
        self.section = section
        self.ui = ui
        self._offered = {}
        ui.reviewKindComboBox.connect("currentIndexChanged(int)", self._onKind)
        ui.reviewStructureComboBox.connect("currentIndexChanged(int)", self._onStructure)
        ui.showAllPlacesButton.connect("clicked(bool)", self.onShowAll)

    def offer(self, regions):
        """Offer the kinds and structures of these regions. A choice of another Result that none of them has is given up."""
        kinds = {"": _("All kinds"), **{kind: words.KINDS.get(kind, kind) for kind in kindsOf(regions)}}
        structures = {"": _("All structures"), **{name: name for name in structuresOf(regions)}}
        self._offered = {self.ui.reviewKindComboBox: kinds, self.ui.reviewStructureComboBox: structures}
        for comboBox, choices in self._offered.items():
            comboBoxes.offer(comboBox, choices.values())
            comboBox.enabled = len(choices) > 2  # of a single kind nothing can be filtered
        known = any(words.chanceOf(region) is not None for region in regions)
        self.ui.reviewLeastChanceSpinBox.enabled = known
        self.ui.reviewLeastChanceSpinBox.toolTip = (
            _("Hide places where the model was wrong less often than this, in cases with a known answer. At 0 none is hidden.")
            if known
            else _("This result does not say how often such places were wrong: its model has no chances of regions stored.")
        )  # fmt: skip
        parameterNode = self.section.panel.parameterNode
        if parameterNode is not None and regions:
            with slicer.util.NodeModify(parameterNode):
                parameterNode.reviewKind = parameterNode.reviewKind if parameterNode.reviewKind in kinds else ""
                if parameterNode.reviewStructure not in structures:
                    parameterNode.reviewStructure = ""

    @property
    def chosen(self):
        """The `ReviewFilter` that the parameter node asks for."""
        parameterNode = self.section.panel.parameterNode
        if parameterNode is None:
            return ReviewFilter()
        return ReviewFilter(
            parameterNode.reviewLeastChance / 100, parameterNode.reviewKind, parameterNode.reviewStructure
        )

    def update(self):
        """Show the choices, and what they hide."""
        chosen = self.chosen
        for comboBox, value in (
            (self.ui.reviewKindComboBox, chosen.kind),
            (self.ui.reviewStructureComboBox, chosen.structure),
        ):
            choices = list(self._offered.get(comboBox, {}))
            if value in choices:
                comboBoxes.choose(comboBox, choices.index(value))
        self.section.table.filter(chosen)
        self.updateSentence()

    def updateSentence(self):
        """Say how many places are hidden, and how many of these nobody has looked at."""
        text = hiddenSentence(self.section.table.hidden, self.section.decisions)
        self.ui.reviewHiddenLabel.setText(text)
        self.ui.reviewHiddenLabel.setVisible(bool(text))
        self.ui.showAllPlacesButton.setVisible(bool(text))

    def onShowAll(self, checked=None):
        """Hide nothing any more."""
        parameterNode = self.section.panel.parameterNode
        if parameterNode is None:
            return
        with slicer.util.NodeModify(parameterNode):
            parameterNode.reviewLeastChance = 0.0
            parameterNode.reviewKind = parameterNode.reviewStructure = ""

    def _onKind(self, index):
        self._write("reviewKind", self.ui.reviewKindComboBox, index)

    def _onStructure(self, index):
        self._write("reviewStructure", self.ui.reviewStructureComboBox, index)

    def _write(self, name, comboBox, index):
        choices = list(self._offered.get(comboBox, {}))
        if self.section.panel.parameterNode is not None and 0 <= index < len(choices):
            setattr(self.section.panel.parameterNode, name, choices[index])
