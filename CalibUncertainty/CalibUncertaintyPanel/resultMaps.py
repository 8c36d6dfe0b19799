"""The maps of one Result: which there are, which are in memory, how to read one in a thread."""

from slicer.i18n import tr as _

from .mapCache import MapCache
from .maskedMap import MaskedMap
from .measureInfo import PER_STRUCTURE
from .roiChoice import ALL_STRUCTURES, bodyPlaces, structureDistance
from .visibleFill import AT_ONCE_VOXELS

RAW, PROBABILITY, DISTANCE, BODY = "raw", "probability", "distance", "body"
_DISTANCE_OF_ALL = DISTANCE, ALL_STRUCTURES
BODY_KEY = BODY, None


class ResultMaps:
    """Reads maps when they are asked for and keeps those that were, up to a limit.

    A map is known by its key, a pair: of RAW, PROBABILITY or DISTANCE with the name of a structure, or of a measure's
    identifier with the name of a structure where it is of one only; BODY_KEY is where the body is (`bodyPlaces`).

    :param result: `Result`; None where its folder is gone: then there are none.
    :ivar ct: the CT it was made from, a `Volume`, for whoever asks for the body; None otherwise.
    """

    def __init__(self, result):
        self.result = result
        self.ct = None
        self._cache = MapCache()

    @staticmethod
    def probabilityKey(structure, raw=False):
        """Key of the probability of a structure, by name; `raw` before calibration."""
        return RAW if raw else PROBABILITY, structure

    @staticmethod
    def measureKey(measure, structure):
        """Key of a measure; the structure, by name, counts where it is of one only."""
        return measure, structure if measure == PER_STRUCTURE else None

    @property
    def hasRoi(self):
        """Whether there is a region of interest: without any predicted structure the whole box is shown."""
        return self.result is not None and self.result.provenance["maps"]["distance"]["file"] is not None

    @property
    def isLarge(self):
        """Whether reading and measuring a map takes so long that somebody would wait for it."""
        voxels = 1
        for length in self.result.provenance["box"]["size_xyz"] if self.result is not None else ():
            voxels *= int(length)
        return voxels > AT_ONCE_VOXELS

    def takesLong(self, key):
        """Whether reading or making the map with this key takes so long; the body is that of the whole CT."""
        return self.isLarge or (key == BODY_KEY and self.ct is not None and self.ct.array.size > AT_ONCE_VOXELS)

    def get(self, key):
        """The `Volume` with this key; it is read now where it is not in memory.

        :raises CalibUncertaintyError: if it cannot be read.
        """
        if self.result is None:
            raise RuntimeError(_("The Result folder of these layers is not there any more; open it again."))
        if key == _DISTANCE_OF_ALL:
            return self.result.distance  # which the Result keeps
        if key not in self._cache:
            self._cache.put(key, self.reader(key)())
        return self._cache.get(key)

    def masked(self, key, roi):
        """The `MaskedMap` of a measure inside a region of interest.

        :param roi: `RoiChoice`, or None for no limit.
        """
        array = self.get(key).array
        if roi is None or self.roiKey(roi) is None:
            return MaskedMap(array)
        return MaskedMap(array, self.get(self.roiKey(roi)).array, roi.limits)

    def roiKey(self, roi):
        """Key of the distance that a `RoiChoice` needs; None where there is no region of interest."""
        if roi.ofBody:
            return BODY_KEY
        return (DISTANCE, roi.structure) if self.hasRoi else None

    def isReady(self, key):
        """Whether the map with this key is in memory; None is no map."""
        if key == _DISTANCE_OF_ALL:
            return "distance" in vars(self.result)  # a cached property
        return key is None or key in self._cache

    def reader(self, key):
        """A function that reads the map with this key, for a thread; hand what it returns to `take`."""
        result, (kind, structure) = self.result, key
        if kind == RAW:
            return lambda: result.raw_probability(structure)
        if kind == PROBABILITY:
            return lambda: result.probability(structure)
        if kind == BODY:
            ct = self.ct
            return lambda: bodyPlaces(result, ct)
        if kind == DISTANCE:
            return lambda: structureDistance(result, structure) if structure else result.distance
        return lambda: result.uncertainty(kind, structure)

    def take(self, key, volume):
        """Keep what a `reader` has returned."""
        if key != _DISTANCE_OF_ALL:
            self._cache.put(key, volume)

    def keep(self, *keys):
        """Never drop the maps with these keys, which are shown, and only these."""
        self._cache.inUse = frozenset(keys)

    def worthPrefetching(self, measures):
        """Keys of those of these measures that are not in memory, if there is room for one more.

        :param measures: list of `MeasureInfo`.
        """
        keys = [(info.id, None) for info in measures if info.available and info.id != PER_STRUCTURE]
        missing = [key for key in keys if key not in self._cache]
        return missing if self.result is not None and self._cache.hasRoomFor(self._cache.largest) else []

    def clear(self):
        """Forget what is in memory."""
        self.ct = None
        self._cache.clear()
