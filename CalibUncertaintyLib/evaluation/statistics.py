"""What figures of several cases say together: intervals of means, paired tests, and shares of badly calibrated subjects.

Cases are what is drawn and compared, never voxels: neighbouring voxels err together and say next to nothing anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

DRAWS = 5000  # 125 of them lie beyond each end of a 95 % interval
LEVEL = 0.95
SUBJECT_PERCENTILE = 90.0
# Differences smaller than this part of the values are rounding: two ways of adding up the same voxels
ROUNDING = 1e-12
_DRAWN_AT_ONCE = 1 << 20  # indices, so that memory does not grow with draws times cases
METHODS = ("bca", "percentile")


@dataclass(frozen=True)
class MeanInterval:
    """A mean over cases with its bootstrap interval.

    `mean`, `lower`, `upper`: in the unit of the values, NaN where unknown. `used` of `total` cases had a value. `status`: "ok",
    "all_equal" (the interval is that one value), "one_case" (no interval) or "no_cases" (all NaN).
    """

    mean: float
    lower: float
    upper: float
    used: int
    total: int
    status: str
    method: str
    level: float

    def to_json(self) -> dict:
        """As plain values; NaN is left to the writer."""
        return asdict(self)


@dataclass(frozen=True)
class SignedRank:
    """A Wilcoxon signed-rank test of paired cases.

    `statistic`: the smaller sum of ranks. `p`: two-sided, [0, 1], not corrected for several tests. `used` of `total` pairs were
    complete, and `different` of those differ. `status`: "ok", "no_difference" (every pair equal: p = 1), "no_cases" (NaN) or
    "no_scipy" (NaN).
    """

    statistic: float
    p: float
    used: int
    different: int
    total: int
    status: str

    def to_json(self) -> dict:
        """As plain values; NaN is left to the writer."""
        return asdict(self)


@dataclass(frozen=True)
class SubjectShares:
    """How many subjects are over-confident, under-confident or neither.

    `over`, `under`, `calibrated`: numbers of cases, together `used` of `total`. `limit`: of |gap|, [0, 1] or NaN (then nobody
    is counted). The shares are parts of `used`, NaN where that is 0.
    """

    over: int
    under: int
    calibrated: int
    used: int
    total: int
    limit: float

    def to_json(self) -> dict:
        """Numbers and shares, plain."""
        shares = {
            f"share_{name}": getattr(self, name) / self.used if self.used else math.nan
            for name in ("over", "under", "calibrated")
        }
        return asdict(self) | shares


def mean_interval(
    values: Iterable[float | None], *, draws: int = DRAWS, level: float = LEVEL, method: str = "bca", seed: int = 0
) -> MeanInterval:
    """The mean over cases and its bootstrap interval (Efron & Tibshirani 1993, chapters 13 and 14).

    Cases are drawn with replacement. "percentile" takes the quantiles of the drawn means; "bca" also corrects for their bias
    and skewness (bias-corrected and accelerated), which matters with few cases. The same seed draws the same cases, so that
    intervals of two figures of the same cases belong together.

    :param values: one a case, in any unit; NaN and None are left out and counted.
    :raises ValueError: with fewer than 1 draw, a level outside (0, 1) or another method.
    """
    _check(draws, level, method)
    given = _numbers(values)
    kept = given[~np.isnan(given)]
    made = {"used": kept.size, "total": given.size, "method": method, "level": level}
    if kept.size == 0:
        return MeanInterval(math.nan, math.nan, math.nan, status="no_cases", **made)
    mean = float(kept.mean())
    if kept.size == 1:
        return MeanInterval(mean, math.nan, math.nan, status="one_case", **made)
    if np.all(_is_rounding(kept - kept[0], kept, kept[0])):
        return MeanInterval(mean, mean, mean, status="all_equal", **made)
    means = _drawn_means(kept, draws, seed)
    ends = ((1.0 - level) / 2.0, (1.0 + level) / 2.0)
    if method == "bca":
        ends = _bca_ends(kept, means, ends)
    lower, upper = np.quantile(means, ends)
    return MeanInterval(mean, float(lower), float(upper), status="ok", **made)


def paired_difference(
    before: Iterable[float | None], after: Iterable[float | None], *, draws: int = DRAWS, level: float = LEVEL,
    method: str = "bca", seed: int = 0,
) -> MeanInterval:  # fmt: skip
    """The mean of after - before over cases with its bootstrap interval; a case without one of both is left out.

    :param before: one a case. :param after: of the same cases in the same order.
    :raises ValueError: as `mean_interval`, and where the lengths differ.
    """
    first, second = _pairs(before, after)
    return mean_interval(_difference(first, second), draws=draws, level=level, method=method, seed=seed)


def wilcoxon_signed_rank(before: Iterable[float | None], after: Iterable[float | None]) -> SignedRank:
    """Wilcoxon's signed-rank test, two-sided, that the differences of paired cases lie symmetrically about 0.

    Pairs that are equal are left out (Wilcoxon 1945); with few pairs and no ties the p is exact, else from the normal
    distribution or from permutations, as scipy does. With 5 pairs or fewer no p below 0.05 is possible.

    :param before: one a case, NaN or None where unknown. :param after: of the same cases in the same order.
    :raises ValueError: where the lengths differ.
    """
    first, second = _pairs(before, after)
    difference = _difference(first, second)
    kept = difference[~np.isnan(difference)]
    moved = kept[kept != 0]
    made = {"used": kept.size, "different": moved.size, "total": difference.size}
    if kept.size == 0:
        return SignedRank(math.nan, math.nan, status="no_cases", **made)
    if moved.size == 0:
        return SignedRank(0.0, 1.0, status="no_difference", **made)
    try:
        from scipy.stats import wilcoxon
    except ImportError:
        return SignedRank(math.nan, math.nan, status="no_scipy", **made)
    found = wilcoxon(moved)
    return SignedRank(float(found.statistic), min(1.0, float(found.pvalue)), status="ok", **made)


def subject_limit(gaps: Iterable[float | None], percentile: float = SUBJECT_PERCENTILE) -> float:
    """The |gap| beyond which a subject counts as over- or under-confident; NaN without any gap.

    The 90th percentile of the absolute gaps of the methods that are compared, each over the whole data set, as in the published
    code of Jungo et al. 2020 (which leaves the signs on). So it depends on what is compared, and is no clinical limit.

    :param gaps: mean confidence - accuracy, of each method.
    """
    given = _numbers(gaps)
    kept = np.abs(given[~np.isnan(given)])
    return float(np.percentile(kept, percentile)) if kept.size else math.nan


def subject_shares(gaps: Iterable[float | None], limit: float) -> SubjectShares:
    """How many subjects are over-confident (gap > limit), under-confident (gap < -limit) or calibrated (|gap| <= limit).

    Source: Jungo et al. 2020; the gap of a subject here is mean confidence - accuracy over its voxels (there: the mean over bins).

    :param gaps: one a case; NaN and None are left out and counted.
    :param limit: as of `subject_limit`.
    :raises ValueError: when the limit is negative.
    """
    if limit < 0:
        raise ValueError(f"a limit of an absolute gap cannot be negative, got {limit}")
    given = _numbers(gaps)
    kept = given[~np.isnan(given)] if not math.isnan(limit) else given[:0]
    over, under = int(np.count_nonzero(kept > limit)), int(np.count_nonzero(kept < -limit))
    return SubjectShares(over, under, kept.size - over - under, kept.size, given.size, float(limit))


def _check(draws: int, level: float, method: str) -> None:
    if draws < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"needs at least 1 draw and a level between 0 and 1, got {draws} and {level}")
    if method not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(METHODS)}, got {method}")


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    """(n,) float64; None and what is not finite become NaN."""
    found = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    found[~np.isfinite(found)] = math.nan
    return found


def _pairs(before: Iterable[float | None], after: Iterable[float | None]) -> tuple[np.ndarray, np.ndarray]:
    first, second = _numbers(before), _numbers(after)
    if first.size != second.size:
        raise ValueError(f"paired cases must be as many before as after, got {first.size} and {second.size}")
    return first, second


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    difference = second - first
    difference[_is_rounding(difference, first, second)] = 0.0
    return difference


def _is_rounding(difference: np.ndarray, first: np.ndarray, second: np.ndarray | float) -> np.ndarray:
    return np.abs(difference) <= ROUNDING * np.maximum(np.abs(first), np.abs(second))


def _drawn_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws,) means of as many cases as there are, drawn with replacement."""
    random, means = np.random.default_rng(seed), np.empty(draws)
    step = max(1, _DRAWN_AT_ONCE // values.size)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        means[start:stop] = values[random.integers(0, values.size, (stop - start, values.size))].mean(axis=1)
    return means


def _bca_ends(values: np.ndarray, means: np.ndarray, ends: tuple[float, float]) -> tuple[float, float]:
    """Which quantiles of the drawn means to take (Efron & Tibshirani 1993, Eq. 14.10 to 14.15).

    The jackknife means of n values lie (mean - value) / (n - 1) from their mean, so the acceleration needs no second look.
    """
    normal, mean = NormalDist(), values.mean()
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2.0 * means.size)
    if not 0.0 < below < 1.0:
        return ends
    bias = normal.inv_cdf(below)
    away = values - mean
    acceleration = float((away**3).sum() / (6.0 * (away**2).sum() ** 1.5))

    def corrected(end: float) -> float:
        moved = bias + normal.inv_cdf(end)
        return normal.cdf(bias + moved / (1.0 - acceleration * moved))

    return corrected(ends[0]), corrected(ends[1])
