"""`CalibratedRange`: what the cases of a calibration looked like, and in words where a new CT lies outside of it.

A temperature was fitted on these cases and promises nothing beyond them. A new case from the same source lies above the largest
of n calibration cases with probability 1/(n + 1), and as often below the smallest (exchangeable cases, no ties; the rank
argument of conformal prediction, Vovk et al. 2005). So few cases bound little, and nothing here warns at the bare minimum and
maximum: every range is widened (our definition, see `CalibratedRange.bounds`), so that these probabilities are the upper limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from ..errors import CalibUncertaintyError
from ..plain_json import plain

KEPT_VALUES = 50  # up to as many cases every value is kept
FALSE_ALARMS = 0.01  # of new cases like the calibration's, by each kind of trait that has prediction limits
# By how much a range is widened at least, and at most: a CT shifted by 1024 HU is named however few the cases
SPACING_FACTOR, VIEW_FACTORS, VOLUME_FACTORS = 1.25, (1.5, 3.0), (2.0, math.inf)
HU_MARGINS, SHARE_MARGINS = (100.0, 500.0), (0.15, 0.4)
ENTROPY_SLACK = 1.1  # less than a tenth above the highest means nothing, however alike the cases were
SMALLEST_VOLUME_ML = 0.1  # smaller volumes, and none at all, count as this; no field of view is as small
FEW_CASES = 9  # with fewer, more than one new case in ten lies above the largest value by chance
ENTROPY, ENTROPY_OF, VOLUME_OF = "entropy", "entropy:", "volume_ml:"


class HasTraits(Protocol):
    """What a case looks like: `CaseTraits` of the workflow."""

    roi_mm: float | None

    def flat(self) -> dict[str, float]:
        """Every known trait by its name."""


@dataclass(frozen=True)
class TraitRange:
    """One trait over the calibration cases that have it. sd: with n - 1; None with one case. values: None for more than 50."""

    n: int
    minimum: float
    maximum: float
    mean: float
    sd: float | None
    values: tuple[float, ...] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> TraitRange:
        """Of at least one finite value."""
        values = tuple(float(value) for value in values)
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"a range needs finite values, at least one, got {values}")
        n = len(values)
        mean = math.fsum(values) / n
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(n, min(values), max(values), mean, sd, values if n <= KEPT_VALUES else None)

    def to_json(self) -> dict:
        """Plain JSON values."""
        content = {"n": self.n, "min": self.minimum, "max": self.maximum, "mean": self.mean, "sd": self.sd}
        return content if self.values is None else content | {"values": list(self.values)}

    @classmethod
    def from_json(cls, content: Mapping) -> TraitRange:
        """The range that `to_json` described, already checked."""
        values = content.get("values")
        sd = content["sd"]
        return cls(
            int(content["n"]), float(content["min"]), float(content["max"]), float(content["mean"]),
            None if sd is None else float(sd), None if values is None else tuple(map(float, values)),
        )  # fmt: skip


@dataclass(frozen=True)
class CalibratedRange:
    """The traits of the calibration cases, by name. cases: how many there were; roi_mm: where the entropy was averaged, mm.

    It stands as "range" in an entry of the calibration record; entries without it are older, and bound nothing.
    """

    cases: int
    traits: dict[str, TraitRange] = field(default_factory=dict)
    roi_mm: float | None = None

    @classmethod
    def of(cls, cases: Sequence[HasTraits]) -> CalibratedRange:
        """Of the calibration cases. A trait that a case does not have (an organ not found) is taken from the others.

        Raises ValueError without a case, and where the ROI distances differ.
        """
        if not cases:
            raise ValueError("a calibrated range needs at least one case")
        distances = {case.roi_mm for case in cases if case.roi_mm is not None}
        if len(distances) > 1:
            raise ValueError(f"the cases' ROI distances differ: {sorted(distances)}")
        flat = [case.flat() for case in cases]
        names = dict.fromkeys(name for values in flat for name in values)
        traits = {name: TraitRange.of([values[name] for values in flat if name in values]) for name in names}
        return cls(len(cases), traits, next(iter(distances), None))

    def warnings_for(self, traits: HasTraits) -> list[str]:
        """One sentence for every trait that lies outside its widened range; of several that say the same, the farthest.

        What the calibration does not know (an older record, another structure) is not compared, nor is the entropy within another
        ROI distance. Nothing warns of an entropy or a volume after calibration on a single case: one value has no spread.
        """
        found: dict[str, tuple[float, str]] = {}
        for name, value in traits.flat().items():
            known = self.traits.get(name)
            if known is None or (name == ENTROPY and not _same_distance(self.roi_mm, traits.roi_mm)):
                continue
            low, high = self.bounds(name)
            if low <= value <= high:
                continue
            beyond = max(low - value, value - high) / max(abs(high - low), 1e-12) if math.isfinite(low) else 1.0
            group = _GROUPS.get(name, name)
            if group not in found or beyond > found[group][0]:
                found[group] = (beyond, self._sentence(name, value, known))
        return [sentence for _, sentence in found.values()]

    def bounds(self, name: str) -> tuple[float, float]:
        """Between which two values a trait raises no warning; infinite where nothing is bounded.

        Spacing, which a scanner's setting decides and no patient: the range widened by 25 %. All else varies from patient to
        patient and is widened to the prediction limits, mean -+ t sd sqrt(1 + 1/n), with t a quantile of Student's distribution
        of n - 1 degrees of freedom (Hahn 1969): of new cases 1 % get a warning from each kind of trait where it is normal; its
        sides, axes, percentiles and structures share that. HU: by no less than 100 and no more than 500 HU; share of body: 0.15
        and 0.4; field of view, on logarithms: a factor of 1.5 and 3; volumes, on logarithms: a factor of 2 at least; entropy: only
        an upper end, a tenth of the maximum at least. A single case has no spread and is widened by the most.
        """
        known = self.traits[name]
        if name.startswith("spacing"):
            return known.minimum / SPACING_FACTOR, known.maximum * SPACING_FACTOR
        if name == ENTROPY or name.startswith(ENTROPY_OF):
            limit = _prediction_limits(known, 1 if name == ENTROPY else self._count(ENTROPY_OF))[1]
            return -math.inf, max(ENTROPY_SLACK * known.maximum, limit)
        if name.startswith(VOLUME_OF):
            low, high = _widened_by_factor(known, 2 * self._count(VOLUME_OF), VOLUME_FACTORS)
            return (-math.inf if low <= SMALLEST_VOLUME_ML else low), high
        if name.startswith("field_of_view"):
            return _widened_by_factor(known, 6, VIEW_FACTORS)
        if name.startswith("hu_"):
            return _widened(known, 6, HU_MARGINS)
        return _widened(known, 2, SHARE_MARGINS) if name == "body_share" else (-math.inf, math.inf)

    def caution(self) -> str:
        """What so few cases leave open, in one sentence; empty from nine on."""
        if self.cases >= FEW_CASES:
            return ""
        if self.cases == 1:
            return (
                "With one calibration case it can hardly be told whether another CT is like it: spacing is compared with that one,"
                " field of view and HU only coarsely, entropy and volumes not at all; calibrate on ten cases or more"
            )
        return (
            f"With {self.cases} calibration cases it can hardly be told whether another CT is like them: of cases that are, 1 in"
            f" {self.cases + 1} lies above their largest value by chance, so that only gross differences are warned of;"
            " calibrate on ten cases or more"
        )

    def to_json(self) -> dict:
        """Plain JSON values, as they stand in the record."""
        traits = {name: known.to_json() for name, known in self.traits.items()}
        return plain({"cases": self.cases, "roi_mm": self.roi_mm, "traits": traits})

    @classmethod
    def from_json(cls, content: Mapping) -> CalibratedRange:
        """The range that `to_json` described. Raises CalibUncertaintyError, one line, where a field is wrong."""
        problem = problem_in_range(content)
        if problem:
            raise CalibUncertaintyError(
                f"the range of the calibration cases cannot be used: {problem}; calibrate again"
            )
        traits = {name: TraitRange.from_json(known) for name, known in content["traits"].items()}
        return cls(int(content["cases"]), traits, content.get("roi_mm"))

    def _count(self, prefix: str) -> int:
        return sum(name.startswith(prefix) for name in self.traits)

    def _sentence(self, name: str, value: float, known: TraitRange) -> str:
        said, unit, decimals = _WORDS.get(name) or _words_of_structure(name, self.roi_mm)
        shown, low, high = (_number(number, decimals) for number in (value, known.minimum, known.maximum))
        calibrated = low if low == high else f"{low} to {high}"
        cases = f"{known.n} case{'' if known.n == 1 else 's'}"
        said = said.format(f"{shown}{unit}")
        return f"{said}; the model was calibrated on {calibrated}{unit} ({cases}): the probabilities may be off"


def problem_in_range(content: Any, where: str = "range") -> str:
    """What is wrong with a stored range, in words that name the field; empty when nothing is."""
    if not isinstance(content, Mapping) or not isinstance(content.get("traits"), Mapping):
        return f"{where} must be an object with 'cases' and 'traits'"
    if not _is_count(content.get("cases")):
        return f"{where}.cases must be a whole number from 1 up"
    roi = content.get("roi_mm")
    if roi is not None and not (_is_number(roi) and roi > 0):
        return f"{where}.roi_mm must be null or a number above 0"
    for name, known in content["traits"].items():
        problem = _problem_in_trait(known)
        if problem:
            return f"{where}.traits.{name}{problem}"
    return ""


def _problem_in_trait(known: Any) -> str:
    if not isinstance(known, Mapping) or not _is_count(known.get("n")):
        return ".n must be a whole number from 1 up"
    if not all(_is_number(known.get(key)) for key in ("min", "max", "mean")):
        return " must have the numbers min, max and mean"
    if known["min"] > known["max"]:
        return ".min must not be above max"
    sd = known.get("sd", "missing")
    if not (sd is None if known["n"] == 1 else _is_number(sd) and sd >= 0):
        return ".sd must be a number, 0 or above, and null with one case"
    values = known.get("values")
    right = values is None or (isinstance(values, list) and len(values) == known["n"] and all(map(_is_number, values)))
    return "" if right else f".values must be {known['n']} numbers"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _same_distance(mine: float | None, other: float | None) -> bool:
    return mine is not None and other is not None and math.isclose(mine, other, rel_tol=1e-6)


def _prediction_limits(known: TraitRange, sharing: int) -> tuple[float, float]:
    """Beyond each of which the next value of a normal variable lies with probability FALSE_ALARMS / sharing."""
    if known.sd is None:
        return -math.inf, math.inf
    reach = student_quantile(1 - FALSE_ALARMS / sharing, known.n - 1) * known.sd * math.sqrt(1 + 1 / known.n)
    return known.mean - reach, known.mean + reach


def _widened(known: TraitRange, sharing: int, margins: tuple[float, float]) -> tuple[float, float]:
    """The range widened to its prediction limits, but by no less and no more than these margins."""
    (low, high), (least, most) = _prediction_limits(known, sharing), margins
    low = max(min(low, known.minimum - least), known.minimum - most)
    return low, min(max(high, known.maximum + least), known.maximum + most)


def _widened_by_factor(known: TraitRange, sharing: int, factors: tuple[float, float]) -> tuple[float, float]:
    """As `_widened`, of the logarithms. Of more cases than are kept, smallest and largest bound well by themselves."""
    values = known.values or (known.minimum, known.maximum)
    logarithms = TraitRange.of([math.log(max(value, SMALLEST_VOLUME_ML)) for value in values])
    if known.values is None:
        logarithms = replace(logarithms, sd=0.0)
    low, high = _widened(logarithms, sharing, (math.log(factors[0]), math.log(factors[1])))
    return _exp(low), _exp(high)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


@lru_cache(maxsize=256)
def student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t for 0.5 <= p < 1 and a whole number of degrees of freedom; above 1000 as of 1000.

    Source: the finite sums for its distribution (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), inverted by bisection.
    """
    if freedom < 1 or not 0.5 <= p < 1:
        raise ValueError(f"needs 0.5 <= p < 1 and at least one degree of freedom, got {p} and {freedom}")
    freedom = min(freedom, 1000)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if (1 + _share_within(middle, freedom)) / 2 < p:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _share_within(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine if freedom > 1 else 0.0) if odd else (1.0, 1.0)
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _number(value: float, decimals: int) -> str:
    if decimals < 0:  # so many significant digits
        return f"{value:.{-decimals}g}"
    return f"{value:.{decimals}f}" if decimals == 0 or abs(value) >= 1 else f"{value:.{decimals + 1}f}"


def _words_of_structure(name: str, roi_mm: float | None) -> tuple[str, str, int]:
    kind, _, structure = name.partition(":")
    if name == ENTROPY:
        near = "near the structures" if roi_mm is None else f"within {roi_mm:g} mm of the structures"
        return f"The mean entropy {near} is {{}}, so the model is less sure than on its calibration cases", " nats", -3
    structure = structure.replace("{", "{{").replace("}", "}}")
    if f"{kind}:" == ENTROPY_OF:
        return (
            f"The mean entropy inside {structure} is {{}}, so the model is less sure than on its calibration cases",
            " nats",
            -3,
        )
    return f"The volume that the model gives {structure} is {{}}", " mL", 1


# What is said of a trait, its unit, and decimals (negative: significant digits)
_WORDS = {
    "spacing_z_mm": ("The CT's slices are {} apart", " mm", 1),
    "spacing_y_mm": ("The CT's pixels are {} high", " mm", 1),
    "spacing_x_mm": ("The CT's pixels are {} wide", " mm", 1),
    "field_of_view_z_mm": ("The CT is {} long across its slices", " mm", 0),
    "field_of_view_y_mm": ("The CT's slices are {} high", " mm", 0),
    "field_of_view_x_mm": ("The CT's slices are {} wide", " mm", 0),
    "hu_low": ("The darkest tissue in the CT (0.5th percentile of the body) has {}", " HU", 0),
    "hu_median": ("The median of the body in the CT is {}", " HU", 0),
    "hu_high": ("The brightest tissue in the CT (99.5th percentile of the body) has {}", " HU", 0),
    "body_share": ("The share of the CT that is body is {}", "", 1),
}
# Height and width of the pixels, and of the slices, are as a rule the same; one sentence is enough
_GROUPS = {f"{what}_{axis}_mm": f"{what} in plane" for what in ("spacing", "field_of_view") for axis in "yx"}
