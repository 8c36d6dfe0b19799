"""The maps that have been read, up to a limit of memory: reading one of a whole CT takes seconds."""

LIMIT_BYTES = 1_500_000_000


class MapCache:
    """`Volume`s by key. Where they would be too many, those that were not asked for the longest are dropped.

    :ivar inUse: keys of those that are never dropped.
    """

    def __init__(self, limitBytes=LIMIT_BYTES):
        self.limitBytes = limitBytes
        self.inUse = frozenset()
        self._volumes = {}

    def __contains__(self, key):
        return key in self._volumes

    @property
    def bytes(self):
        """Memory of all of them."""
        return sum(volume.array.nbytes for volume in self._volumes.values())

    @property
    def largest(self):
        """Memory of the largest of them."""
        return max((volume.array.nbytes for volume in self._volumes.values()), default=0)

    def hasRoomFor(self, size):
        """Whether so many bytes more drive nothing out."""
        return self.bytes + size <= self.limitBytes

    def get(self, key):
        """The volume with this key, which is the newest from now on.

        :raises KeyError: if it is not there.
        """
        volume = self._volumes[key] = self._volumes.pop(key)
        return volume

    def put(self, key, volume):
        """Keep a volume; the oldest ones go where there is no room for it."""
        self._volumes.pop(key, None)
        for oldest in [known for known in self._volumes if known not in self.inUse]:
            if self.hasRoomFor(volume.array.nbytes):
                break
            self._volumes.pop(oldest)
        self._volumes[key] = volume

    def clear(self):
        """Forget all."""
        self._volumes.clear()
