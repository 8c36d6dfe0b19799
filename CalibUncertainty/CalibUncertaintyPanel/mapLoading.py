"""Reads maps of a large Result in a thread: what is wanted now, then what is likely to be wanted next."""

import logging

import qt
from slicer.i18n import tr as _

from .backgroundAnswer import BackgroundAnswer
from .resultMaps import BODY, DISTANCE, PROBABILITY, RAW

INTERVAL_MS = 30


class MapLoading:
    """Small maps are read where they are used; of large ones somebody would wait for seconds.

    :param onFailed: function that is told the exception when a wanted map cannot be read; all wishes are forgotten then.
    """

    def __init__(self, panel, ui, onFailed):
        self.panel = panel
        self.ui = ui
        self._onFailed = onFailed
        self._wanted = {}  # purpose: keys
        self._reading = None
        self._unreadable = set()
        self._answer = BackgroundAnswer("map")
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimer)
        self._say()

    @property
    def busy(self):
        """Whether somebody waits for a map."""
        return bool(self._wanted)

    @property
    def idle(self):
        """Whether nothing is being read or about to be."""
        return self._reading is None and not self._timer.isActive()

    def release(self):
        """Stop timer and thread."""
        self._timer.stop()
        self._answer.stop()
        self._reading = None
        self._wanted.clear()
        self._say()

    def onNewOverlays(self):
        """Other layers are shown: begin to read what is likely to be asked for, if that takes long."""
        self.release()
        self._unreadable.clear()
        overlays = self.panel.overlays
        if overlays is not None and overlays.maps.isLarge:
            self._timer.start()

    def ready(self, purpose, keys):
        """Whether maps can be used now. Otherwise they are read, and then the panel is updated.

        :param purpose: any text; what was wanted for it before is not wanted any more.
        :param keys: keys of `ResultMaps`, or None among them.
        """
        maps = self.panel.overlays.maps
        missing = [key for key in keys if not maps.isReady(key) and maps.takesLong(key)]
        self._wanted.pop(purpose, None)
        if missing:
            self._wanted[purpose] = missing
            self._startNext()
        self._say()
        return not missing

    def _onTimer(self):
        answer = self._answer.poll() if self._reading is not None else None
        if answer is not None:
            key, self._reading = self._reading, None
            self._take(key, answer)
        self._startNext()

    def _take(self, key, answer):
        isWanted = any(key in keys for keys in self._wanted.values())
        if answer.error is None:
            self.panel.overlays.maps.take(key, answer.value)
            if isWanted:
                self.panel.update()
            return
        logging.error("CalibUncertainty: a map cannot be read: %s", answer.error)
        self._unreadable.add(key)
        if isWanted:
            self._wanted.clear()
            self._say()
            self._onFailed(answer.error)

    def _startNext(self):
        maps = self.panel.overlays.maps if self.panel.overlays is not None else None
        if maps is None or maps.result is None:
            self.release()
            return
        wanted = [key for keys in self._wanted.values() for key in keys if not maps.isReady(key)]
        if self._reading is not None and (not wanted or self._reading in wanted):
            return
        likely = [] if wanted else maps.worthPrefetching(self.panel.overlays.measures)
        key = next((key for key in wanted or likely if key in wanted or key not in self._unreadable), None)
        if key is None:
            self._timer.stop()
            return
        self._reading = key
        self._answer.start(maps.reader(key))
        self._timer.start()

    def _say(self):
        keys = [key for keys in self._wanted.values() for key in keys]
        self.ui.loadingLabel.setText(_("Reading {name}...").format(name=self._name(keys[0])) if keys else "")
        self.ui.loadingLabel.setVisible(bool(keys))

    def _name(self, key):
        kind, structure = key
        if kind == BODY:
            return _("the body")
        if kind == DISTANCE:
            return _("the distance from {structure}").format(structure=structure or _("the structures"))
        if kind in (PROBABILITY, RAW):
            return _("the probability of {structure}").format(structure=structure)
        title = self.panel.overlays.measure(kind).title
        return f"{title[:1].lower()}{title[1:]}"
