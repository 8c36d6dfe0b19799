"""Lets the layers finish what they write in steps, a few milliseconds at a time."""

import qt

INTERVAL_MS = 5  # between two steps, for everything else that Slicer has to do


class FillSteps:
    """A timer that runs as long as there are voxels to be written."""

    def __init__(self, panel):
        self.panel = panel
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)

    def begin(self):
        """Something may have been left to be written."""
        self._timer.start()

    def release(self):
        """Stop; the layers complete themselves when they are released."""
        self._timer.stop()

    def _onTimer(self):
        if self.panel.overlays is None or not self.panel.overlays.fillMore():
            self._timer.stop()
