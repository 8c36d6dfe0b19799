"""What the panel knows of each measure of a Result."""

from dataclasses import dataclass

PER_STRUCTURE = "entropy_k"


@dataclass(frozen=True)
class MeasureInfo:
    """One measure of a Result, as `result.json` describes it. `threshold` is the one stored for the model, or the default.

    `scale` is where its colours end, well below `upper` where hardly any voxel comes near that; 0 where an older Result or
    scene does not say.
    """

    id: str
    title: str
    unit: str
    upper: float
    sentence: str
    threshold: float
    thresholdSource: str
    available: bool
    scale: float = 0.0

    @property
    def scaleEnd(self):
        """Where the colour scale ends."""
        return self.scale or self.upper

    def sliderEnd(self, threshold):
        """Where a slider for the threshold ends: with the colours, unless this threshold or the stored one lies beyond."""
        return self.scaleEnd if max(threshold, self.threshold) <= self.scaleEnd else max(self.upper, threshold)

    def decimals(self, threshold, fine=False):
        """Digits behind the point of a slider for the threshold; the variance of many classes is small.

        :param fine: two more, for a threshold that is computed.
        """
        return (3 if self.sliderEnd(threshold) >= 0.1 else 4) + (2 if fine else 0)


def measuresOf(result):
    """Every `MeasureInfo` of a Result, those that cannot be shown included."""
    entries = list(result.provenance["maps"]["uncertainty"])
    if PER_STRUCTURE not in [entry["measure"] for entry in entries]:
        entries.append(_entropyOfOneStructure())
    return [
        MeasureInfo(
            id=entry["measure"],
            title=entry["title"],
            unit=entry["unit"],
            upper=float(entry["range"][1]),
            sentence=entry["sentence"],
            threshold=float(entry["threshold"]),
            thresholdSource=entry["threshold_source"],
            available=entry["file"] is not None or entry["measure"] == PER_STRUCTURE,
            scale=float(entry.get("scale", entry["range"])[1]),
        )
        for entry in entries
    ]


def _entropyOfOneStructure():
    # It is computed from the probability when it is asked for, so a Result need not list it among its maps.
    from CalibUncertaintyLib.uncertainty.measures import MEASURES

    measure = MEASURES[PER_STRUCTURE]
    return {
        "measure": measure.id,
        "title": measure.title,
        "unit": measure.unit,
        "range": [0.0, measure.upper(2, 1)],
        "sentence": measure.sentence,
        "threshold": measure.default_threshold(2),
        "threshold_source": "default",
        "file": None,
    }
