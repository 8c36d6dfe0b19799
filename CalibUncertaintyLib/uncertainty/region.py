"""One place to look at, and how it is said why."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields

import numpy as np

UNCERTAIN, POSSIBLE_MISS = "uncertain", "possible_miss"
BOUNDARY, NON_BOUNDARY = "boundary", "non_boundary"
KINDS = (BOUNDARY, NON_BOUNDARY, UNCERTAIN, POSSIBLE_MISS)


@dataclass(frozen=True)
class Region:
    """One place to look at.

    `kind` is "boundary" or "non_boundary" (above the threshold, near a structure; most of its voxels at a predicted surface or
    not), "uncertain" (the same where it is not known which; older Results), or "possible_miss" (far from every structure, yet some
    structure is likely enough). `label` and `structure` are the nearest structure, or the one possibly missed; 0 and "" when
    there is none. `mean` and `peak` are of the measure (possible_miss: of the foreground probability). `score` is the volume
    in mL expected to be wrong: the sum of the calibrated probability of an error (possible_miss: of the foreground probability)
    times the voxel volume; our definition. `distance_mm` is the least distance to a predicted structure, None when there is
    none. `share` is `score` as a part of the structure's predicted volume, what regions are read by: 0.1 mL in doubt is much of
    a lymph node and nothing of a liver (our definition; None for a possible miss). The centroid may lie outside a region that
    is a shell; the peak is always inside. `surface_share` is the part of its voxels near a predicted surface. `chance` is how often
    regions of this kind and score held a real error in the calibration cases (`RegionCalibration`), with its 95 % interval and the
    number of regions behind it; None where that is not known.
    """

    id: int
    kind: str
    label: int
    structure: str
    voxels: int
    volume_ml: float
    mean: float
    peak: float
    score: float
    distance_mm: float | None
    centroid_ras_mm: tuple[float, float, float]
    centroid_lps_mm: tuple[float, float, float]
    peak_ras_mm: tuple[float, float, float]
    peak_lps_mm: tuple[float, float, float]
    reason: str
    share: float | None = None
    surface_share: float | None = None
    chance: float | None = None
    chance_interval: tuple[float, float] | None = None
    chance_n: int | None = None

    def to_json(self) -> dict:
        """Plain JSON values, positions as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping) -> "Region":
        """The region that `to_json` described; keys of later versions are ignored."""
        values = {
            item.name: document[item.name] for item in fields(cls) if item.default is MISSING or item.name in document
        }
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@dataclass(frozen=True)
class FoundRegions:
    """The regions in the order in which to look at them, and how many were left out as too small.

    places: of each region the flat indices of its voxels in the arrays that it was found in.
    """

    regions: list[Region]
    dropped: int
    places: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __getitem__(self, index: int) -> Region:
        return self.regions[index]


def reason_of(region: Mapping) -> str:
    """One plain sentence that says why the place is listed."""
    volume = f"{region['volume_ml']:.2g} mL" if region["volume_ml"] < 10 else f"{region['volume_ml']:.0f} mL"
    structure, gap = region["structure"] or f"label {region['label']}", region["distance_mm"]
    if region["kind"] != POSSIBLE_MISS and region["share"] is None:
        doubt = f"no structure was drawn at all; about {region['score']:.2g} mL may be wrong"
        return f"{volume} lie above the uncertainty threshold, though {doubt}.{_chance_in_words(region)}"
    if region["kind"] != POSSIBLE_MISS:
        where = f"at {structure}" if gap == 0 else f"{gap:.1f} mm outside {structure}"
        where = {BOUNDARY: f"along the surface of {structure}", NON_BOUNDARY: where + ", away from its surface"}.get(
            region["kind"], where
        )
        part = "under 1 %" if region["share"] < 0.01 else f"{100 * region['share']:.0f} %"
        doubt = f"about {region['score']:.2g} mL may be wrong, {part} of the structure"
        return f"{volume} {where} lie above the uncertainty threshold; {doubt}.{_chance_in_words(region)}"
    drawn = "though no structure was drawn at all" if gap is None else f"though none was drawn within {gap:.0f} mm"
    likely = (
        f"{structure} may have been missed here: a structure is up to {100 * region['peak']:.0f} % likely, {drawn}."
    )
    return likely + _chance_in_words(region)


def _chance_in_words(region: Mapping) -> str:
    if region.get("chance") is None:
        return ""
    tenths = round(10 * region["chance"])
    held = "fewer than 1 in 10" if tenths == 0 else "more than 9 in 10" if tenths == 10 else f"{tenths} in 10"
    if region["chance_n"] == 1:
        return f" Judged by the only region like this one in the calibration cases, {held} hold a real error."
    return f" Of {region['chance_n']} regions like this one in the calibration cases {held} held a real error."
