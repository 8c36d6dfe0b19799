"""How often a listed region holds a real error: learnt from labelled cases, by kind and score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from .region import KINDS

LEAST_SHARE, LEAST_MM3 = 0.1, 10.0
PRIOR = 0.5  # right and wrong regions that every stretch of scores begins with: Jeffreys' prior
RELIABILITY_BINS = 5  # few, since there are tens of regions where there are millions of voxels
Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


def holds_error(wrong_voxels: int, voxels: int, voxel_mm3: float) -> bool:
    """Whether a region counts as right to have been listed: a tenth of its voxels are wrong, or 10 mm3 of them (our definition).

    A single wrong voxel in a large region is no reason to have looked there; the surface of any contour has some.
    """
    return wrong_voxels > 0 and (wrong_voxels >= LEAST_SHARE * voxels or wrong_voxels * voxel_mm3 >= LEAST_MM3)


@dataclass(frozen=True)
class KindCalibration:
    """Of one kind: a chance that never falls with the score. `from_score` (K,) ascending, the first -inf: where a step begins;
    `chance`, `low`, `high` (its 95 % interval) and `n` (the regions behind it) of each step."""

    from_score: tuple[float, ...]
    chance: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class RegionCalibration:
    """Of every kind with regions in the calibration cases how often they held a real error; cases: how many there were."""

    kinds: Mapping[str, KindCalibration]
    cases: int

    def chance_of(self, kind: str, score: float) -> dict:
        """{"chance", "chance_interval", "chance_n"} of a region; all None for a kind of which the calibration cases had none.

        :param score: mL expected to be wrong.
        """
        known = self.kinds.get(kind)
        if known is None:
            return {"chance": None, "chance_interval": None, "chance_n": None}
        step = int(np.searchsorted(known.from_score, _log(score), side="right")) - 1
        return {
            "chance": known.chance[step], "chance_interval": (known.low[step], known.high[step]), "chance_n": known.n[step],
        }  # fmt: skip

    def to_json(self) -> dict:
        """Plain JSON values; the first step's beginning, -inf, is null."""
        return {
            "cases": self.cases,
            "kinds": {
                kind: {
                    "from_log_score": [None, *of.from_score[1:]], "chance": list(of.chance), "low": list(of.low),
                    "high": list(of.high), "n": list(of.n),
                }
                for kind, of in self.kinds.items()
            },
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping) -> RegionCalibration:
        """The calibration that `to_json` described. Raises CalibUncertaintyError, one line, where it is damaged."""
        try:
            kinds = {str(kind): _kind_from_json(of) for kind, of in document["kinds"].items()}
            cases = document["cases"]
            if isinstance(cases, bool) or not isinstance(cases, int) or cases < 1 or not set(kinds) <= set(KINDS):
                raise ValueError
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise CalibUncertaintyError(
                "the chances of regions in the calibration record are damaged; calibrate the model again"
            ) from error
        return cls(kinds, cases)


def _kind_from_json(of: Mapping) -> KindCalibration:
    starts = [float("-inf"), *(float(value) for value in of["from_log_score"][1:])]
    columns = [[float(value) for value in of[name]] for name in ("chance", "low", "high")]
    n = list(of["n"])
    right = (
        of["from_log_score"][0] is None
        and all(math.isfinite(start) for start in starts[1:])
        and starts == sorted(set(starts))
        and all(len(column) == len(starts) == len(n) for column in columns)
        and all(0 <= low <= p <= high <= 1 for p, low, high in zip(*columns, strict=True))
        and all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in n)
    )
    if not right:
        raise ValueError
    return KindCalibration(tuple(starts), *(tuple(column) for column in columns), tuple(n))


class RegionCalibrationFit:
    """Accumulator of regions whose truth is known.

    By kind, the chance is the isotonic regression of holding an error on the score (never falling; Zadrozny & Elkan 2002), whose
    steps take the mean of their regions with half a right and half a wrong one added (Jeffreys), so that a few regions never claim
    certainty; the interval is Wilson's for that step. Regions of one patient resemble each other, so it is somewhat too narrow.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[float, bool]]] = {}
        self._cases: set[str] = set()

    def add(self, case_id: str, kind: str, score: float, error: bool) -> None:
        """One region. score: mL expected to be wrong; error: whether it holds a real one (`holds_error`)."""
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
        if not (math.isfinite(score) and score >= 0):
            raise ValueError(f"a score is a volume of 0 mL or more, got {score}")
        self.add_case(case_id)
        self._found.setdefault(kind, []).append((_log(score), bool(error)))

    def add_case(self, case_id: str) -> None:
        """A case that was looked at, whether it had regions or not."""
        self._cases.add(str(case_id))

    def fit(self) -> RegionCalibration | None:
        """None where no case had any region."""
        if not self._found:
            return None
        return RegionCalibration({kind: _steps(found) for kind, found in self._found.items()}, len(self._cases))


def _steps(found: list[tuple[float, bool]]) -> KindCalibration:
    from scipy.optimize import isotonic_regression

    scores, held = (np.array(column, float) for column in zip(*sorted(found), strict=True))
    # equal scores are one place
    distinct, inverse = np.unique(scores, return_inverse=True)
    counts = np.bincount(inverse).astype(float)
    means = np.bincount(inverse, weights=held) / counts
    level = isotonic_regression(means, weights=counts).x
    begins = np.flatnonzero(np.concatenate([[True], np.diff(level) > 1e-12]))
    n = np.add.reduceat(counts, begins)
    hits = np.add.reduceat(counts * means, begins)
    chance = np.maximum.accumulate((hits + PRIOR) / (n + 2 * PRIOR))
    low, high = _wilson(hits, n)
    between = (distinct[begins[1:]] + distinct[begins[1:] - 1]) / 2.0
    return KindCalibration(
        (-math.inf, *between.tolist()), tuple(chance.tolist()), tuple(np.minimum(low, chance).tolist()),
        tuple(np.maximum(high, chance).tolist()), tuple(round(value) for value in n.tolist()),
    )  # fmt: skip


def _wilson(hits: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share."""
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _log(score: float) -> float:
    """Logarithm of a score; a region of no expected error at all lies below every other."""
    return math.log(max(score, 1e-9))


def region_reliability(chances: Sequence[float], held: Sequence[bool], bins: int = RELIABILITY_BINS) -> dict:
    """Do stated chances come true on cases that they were not learnt from?

    {"n", "bins", "brier", "ece"}. Bins of equally many regions by their chance, fewer where there are fewer regions, each {"n",
    "chance" (mean), "share" (that held an error)}; `brier`: mean of (chance - held)^2; `ece`: mean over the regions of |chance -
    share| of their bin; both [0, 1], NaN without a region.

    :param chances: of each region, [0, 1]. :param held: whether it held a real error (`holds_error`).
    :raises ValueError: when there are not as many of both, or a chance is not in [0, 1].
    Source: Brier 1950; calibration error in bins of equal size as of Nguyen & O'Connor 2015.
    """
    stated, truth = np.asarray(chances, float).reshape(-1), np.asarray(held, bool).reshape(-1)
    if stated.shape != truth.shape or not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError(f"expected as many chances, from 0 to 1, as outcomes; got {stated.size} and {truth.size}")
    if not stated.size:
        return {"n": 0, "bins": [], "brier": math.nan, "ece": math.nan}
    order = np.lexsort((truth, stated))
    stated, truth = stated[order], truth[order].astype(float)
    found = [
        {"n": int(part.size), "chance": float(stated[part].mean()), "share": float(truth[part].mean())}
        for part in np.array_split(np.arange(stated.size), min(bins, stated.size))
    ]
    return {
        "n": int(stated.size),
        "bins": found,
        "brier": float(((stated - truth) ** 2).mean()),
        "ece": sum(item["n"] * abs(item["chance"] - item["share"]) for item in found) / stated.size,
    }
