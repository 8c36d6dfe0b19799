"""What a reader has decided about each region of a Result, with undo and redo. Plain data: neither Qt nor MRML."""

from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta, timezone

CORRECT, WRONG, UNSURE = "correct", "wrong", "unsure"
VERDICTS = (CORRECT, WRONG, UNSURE)
SAME_PLACE_MM = 1.0  # a decision is taken for a region only if the region still lies where it was decided on


@dataclass(frozen=True)
class Decision:
    """The state of one region.

    `verdict` - one of VERDICTS, or "" while there is none. `edited` - voxels that were changed in Segment Editor inside the
    region's box. `time` - when this state came about, ISO 8601 in UTC; of two states of a region the later one counts.
    """

    verdict: str = ""
    note: str = ""
    reviewer: str = ""
    edited: int = 0
    time: str = ""

    @classmethod
    def fromJson(cls, document):
        """The decision that `asdict` described.

        :raises ValueError: if it is none; unknown keys of later versions are ignored.
        """
        known = {item.name: document[item.name] for item in fields(cls) if item.name in document}
        decision = cls(**known)
        texts = (decision.verdict, decision.note, decision.reviewer, decision.time)
        if not all(isinstance(text, str) for text in texts) or not isinstance(decision.edited, int):
            raise ValueError("a decision holds a value of the wrong kind")
        if decision.verdict not in ("", *VERDICTS):
            raise ValueError(f"'{decision.verdict}' is not a decision")
        return decision

    @property
    def isMade(self):
        """Whether the reader has said something about the region: a verdict, or an edited segment."""
        return bool(self.verdict) or self.edited > 0


NOTHING = Decision()


class ReviewDecisions:
    """The decisions on a list of regions. `now` gives the time, for tests."""

    def __init__(self, regions=(), now=None):
        """
        :param regions: `Region`s in reading order.
        """
        self.regions = {region.id: region for region in regions}
        self._decisions = {}
        self._undo = []
        self._redo = []
        self._now = now or _utcNow

    def of(self, regionId):
        """The `Decision` on a region; `NOTHING` while there is none."""
        return self._decisions.get(regionId, NOTHING)

    def change(self, regionId, **values):
        """Change some fields of a decision, as one step of undo.

        :return: whether anything is other than before.
        """
        before = self.of(regionId)
        if replace(before, time="", **values) == replace(before, time=""):
            return False
        self._set(regionId, replace(before, **values))
        self._undo.append((regionId, before))
        self._redo.clear()
        return True

    @property
    def canUndo(self):
        """Whether there is a step to take back."""
        return bool(self._undo)

    @property
    def canRedo(self):
        """Whether a step was taken back and nothing else decided since."""
        return bool(self._redo)

    def undo(self):
        """Take the last step back.

        :return: the region it was about, or None.
        """
        return self._step(self._undo, self._redo)

    def redo(self):
        """Take the last undo back.

        :return: the region it was about, or None.
        """
        return self._step(self._redo, self._undo)

    def counts(self):
        """How many regions there are, how many were looked at, and how many have each verdict.

        :return: {"regions", "seen", "correct", "wrong", "unsure", "edited"}.
        """
        made = [self.of(identifier) for identifier in self.regions if self.of(identifier).isMade]
        counts = {verdict: sum(decision.verdict == verdict for decision in made) for verdict in VERDICTS}
        edited = sum(decision.edited > 0 for decision in made)
        return {"regions": len(self.regions), "seen": len(made), "edited": edited, **counts}

    def toJson(self):
        """One entry for each region with a decision, or with one taken back, with what the region is known by."""
        return [
            {
                "region": identifier,
                "kind": self.regions[identifier].kind,
                "structure": self.regions[identifier].structure,
                "peak_lps_mm": [float(value) for value in self.regions[identifier].peak_lps_mm],
                **asdict(decision),
            }
            for identifier, decision in sorted(self._decisions.items())
        ]

    def merge(self, entries):
        """Take over decisions that were stored elsewhere, where they are later than what is known here.

        :param entries: as `toJson` gives them.
        :return: how many belong to no region of this list.
        :raises ValueError, KeyError, TypeError: if one of them is damaged; then none is taken over.
        """
        strangers = 0
        understood = [(entry["region"], entry, Decision.fromJson(entry)) for entry in entries]  # all of them, or none
        for identifier, entry, decision in understood:
            region = self.regions.get(identifier)
            if region is None or not _isAt(region, entry):
                strangers += 1
            elif decision.time > self.of(identifier).time:
                self._decisions[identifier] = decision
        return strangers

    def _set(self, regionId, decision):
        self._decisions[regionId] = replace(decision, time=_after(self.of(regionId).time, self._now()))

    def _step(self, steps, opposite):
        if not steps:
            return None
        regionId, wanted = steps.pop()
        opposite.append((regionId, self.of(regionId)))
        self._set(regionId, wanted)
        return regionId


def _utcNow():
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _after(before, now):
    """Now, or a moment after `before` where the clock has not gone on since then or was put back."""
    if now > before:
        return now
    return (datetime.fromisoformat(before) + timedelta(microseconds=1)).isoformat(timespec="microseconds")


def _isAt(region, entry):
    if entry.get("kind") != region.kind:
        return False
    return all(
        abs(here - there) <= SAME_PLACE_MM for here, there in zip(region.peak_lps_mm, entry["peak_lps_mm"], strict=True)
    )
