"""An opt-in log of a review: how long each region was looked at and what was decided. It stays in the Result folder."""

import csv
import io
import time
from datetime import datetime, timezone
from pathlib import Path

LOG_FILE = "review-log.csv"
COLUMNS = ("time_utc", "region", "kind", "structure", "volume_ml", "seconds", "verdict", "edited_voxels")
LEAST_SECONDS = 0.2  # a region that is only passed on the way to another one is no look


class ReviewLog:
    """Writes one line for each look at a region. No name and no note is kept.

    :param folder: the Result folder, or None.
    :param clock: seconds, for tests.
    """

    def __init__(self, folder=None, clock=time.monotonic):
        self.folder = Path(folder) if folder is not None else None
        self.enabled = False
        self._clock = clock
        self._region = None
        self._began = 0.0

    def begin(self, region):
        """The reader looks at this region from now on; None: at none."""
        self._region = region
        self._began = self._clock()

    def end(self, decision):
        """The reader looks away.

        :param decision: `Decision` on the region that was looked at.
        :raises OSError: if the line cannot be written.
        """
        region, self._region = self._region, None
        seconds = self._clock() - self._began
        if region is None or not self.enabled or self.folder is None or seconds < LEAST_SECONDS:
            return
        path = self.folder / LOG_FILE
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        values = (now, region.id, region.kind, region.structure, f"{region.volume_ml:.3f}", f"{seconds:.1f}")
        line = io.StringIO()
        writer = csv.writer(line, lineterminator="\n")
        if not path.exists():
            writer.writerow(COLUMNS)
        writer.writerow((*values, decision.verdict, decision.edited))
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(line.getvalue())
