"""Quick compare: the CT alone for as long as a button or a key is held, raw against calibrated, all views on the same place."""

import qt
from slicer.i18n import tr as _

from . import layouts, slicerCompat
from .layouts import Layouts
from .sliceLayers import compositeNodes

HIDE_KEYS, RAW_KEYS = "Alt+0", "Alt+R"  # arrows with Alt open lists, other letters the menus of Slicer
HELD_MS = 700  # longer than any keyboard waits before it repeats a key that is held


class CompareSection:
    """Hides the overlays for a moment; the parameter node does not change."""

    def __init__(self, panel, ui, shortcuts):
        """
        :param shortcuts: `Shortcuts` of the module.
        """
        self.panel = panel
        self.ui = ui
        self.layouts = Layouts()
        ui.sideBySideButton.connect("clicked(bool)", self.onSideBySide)
        # A shortcut does not tell when its key is let go, but it repeats as long as the key is held.
        self._held = qt.QTimer()
        self._held.setSingleShot(True)
        self._held.setInterval(HELD_MS)
        self._held.connect("timeout()", self.show)
        ui.hideOverlaysButton.connect("pressed()", self.hide)
        ui.hideOverlaysButton.connect("released()", self.show)
        ui.linkSlicesCheckBox.connect("clicked(bool)", self.onLink)
        shortcuts.add(HIDE_KEYS, self.onHideKey)
        shortcuts.add(RAW_KEYS, self.onRawKey)
        ui.hideOverlaysButton.toolTip = _(
            "Hide everything but the CT for as long as this button is held down, or {keys}; {rawKeys} swaps raw and calibrated"
        ).format(keys=HIDE_KEYS, rawKeys=RAW_KEYS)

    def release(self):
        """Stop the timer."""
        self._held.stop()

    @property
    def hidden(self):
        """Whether the CT is shown alone at the moment."""
        return self.panel.layers.hidden

    def hide(self):
        """Show the CT alone."""
        self._set(True)

    def show(self):
        """Show the overlays again as they were."""
        self._held.stop()
        self._set(False)

    def onHideKey(self):
        """The key is held, or repeats because it still is."""
        self._held.start()
        self.hide()

    def onRawKey(self):
        """Swap raw and calibrated probability, where both can be shown."""
        if self.panel.overlays is not None and self.panel.parameterNode is not None and self.ui.rawCheckBox.enabled:
            self.panel.parameterNode.rawShown = not self.panel.parameterNode.rawShown

    def onLink(self, linked):
        """Have zoom, place and layers of all slice views follow each other, or not."""
        for node in compositeNodes(self.panel.scene):
            node.SetLinkedControl(bool(linked))

    def onSideBySide(self, sideBySide):
        """Show the layers side by side, linked and on the place that is looked at; or one over the other again."""
        if not sideBySide:
            self.layouts.showStacked()
        elif self.layouts.showSideBySide():
            slicerCompat.soon(self._arrange)  # the views are made when Qt has had its turn
        self.update()

    def _arrange(self):
        if not self.layouts.sideBySide:
            return
        self.panel.layers.showInViews()
        self.onLink(True)
        layouts.alignViews(self.panel.scene)
        self.update()

    def update(self):
        """Show in the panel whether the views are linked; Slicer's own controls may have changed it."""
        self.ui.sideBySideButton.checked = self.layouts.sideBySide
        nodes = compositeNodes(self.panel.scene)
        wasBlocked = self.ui.linkSlicesCheckBox.blockSignals(True)
        self.ui.linkSlicesCheckBox.checked = bool(nodes) and all(node.GetLinkedControl() for node in nodes)
        self.ui.linkSlicesCheckBox.blockSignals(wasBlocked)

    def _set(self, hidden):
        if self.panel.layers.hidden == hidden or (hidden and self.panel.overlays is None):
            return
        self.panel.layers.hidden = self.panel.contours.hidden = hidden
        self.panel.layers.showVisibility()
        self.panel.contours.update()
