"""One score of a case, and of each structure, from several: how far they lie above those of the calibration cases.

Our definition (the scores themselves have sources, see `aggregation_scores` and `member_agreement`):

- z of a score: (value - mean) / standard deviation (n - 1) over the calibration cases, with its sign turned where a larger value
  means less uncertainty
- combined: the mean of the z of the scores that count; 0 is a usual case, 1 one standard deviation more uncertain in all of them
- a score counts where it is known of the new case and of at least 3 calibration cases, and differs between these; NaN, infinity
  and None are unknown
- rank: the new case is put among the calibration cases that have all of these scores, the z are taken anew over all of them, and
  all are ordered by the mean of these. So the new case has no part that the others have not: where all are alike (exchangeable), it
  comes first with a chance of 1 / (n + 1) (the rank argument of conformal prediction, Vovk et al. 2005)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError

FEWEST_CASES = 3
# 1: a larger value means more uncertainty; -1: less. Names as `aggregate` has them.
OF_CASE = {"mean": 1, "patch_mean": 1, "boundary": 1, "dist_weighted": 1, "pairwise_dice": -1}
# the mean entropy inside is left out: of a model with one structure it is `seg_entropy_k` again
OF_STRUCTURE = {"boundary": 1, "seg_entropy_k": 1, "pairwise_dice": -1, "vol_cv": 1}
SAME = 1e-9  # values that differ by less, as a share of the largest, do not differ


@dataclass(frozen=True)
class CombinedScore:
    """Where a case or a structure stands.

    `status`: "ok" or "no_score" (none counts). `combined`: mean z, None without a score. `scores`: the z of each that counts.
    `cases`: the n calibration cases that have all of these; of these `higher` are more uncertain, `equal` as much, the rest less.
    `chance`: (1 + higher + equal) / (n + 1), how often a case like them stands as high or higher. None where n is below 3.
    """

    status: str
    combined: float | None
    scores: dict[str, float]
    cases: int
    higher: int | None
    equal: int | None
    chance: float | None

    def to_json(self) -> dict:
        """As it stands in result.json."""
        return {
            "status": self.status, "combined": self.combined, "scores": self.scores, "cases": self.cases,
            "higher": self.higher, "equal": self.equal, "chance": self.chance,
        }  # fmt: skip


@dataclass(frozen=True)
class ScoreReference:
    """Scores of n calibration cases. signs: of each by its name; values: {name: (n,) float64}, NaN where it is unknown."""

    signs: Mapping[str, int]
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, cases: Sequence[Mapping], signs: Mapping[str, int]) -> ScoreReference:
        """Of the figures of each case, or of one structure in each, as `aggregate` gives them."""
        return cls(dict(signs), {name: np.array([_known(case.get(name)) for case in cases]) for name in signs})

    def moments(self) -> dict[str, dict]:
        """{name: {"mean", "sd", "n", "sign"}} over the cases where a score is known; None with no case, the sd with one."""
        found = {}
        for name, values in self.values.items():
            known = values[np.isfinite(values)]
            mean, sd = _moments(known)
            found[name] = {"mean": mean, "sd": sd, "n": int(known.size), "sign": self.signs[name]}
        return found

    def place(self, figures: Mapping) -> CombinedScore:
        """Where a new case, or one structure of it, stands; figures: as `aggregate` gives them."""
        own = {name: _known(figures.get(name)) for name in self.signs}
        names = [name for name, values in self.values.items() if math.isfinite(own[name]) and self._counts(values)]
        if not names:
            return CombinedScore("no_score", None, {}, 0, None, None, None)
        z = {}
        for name in names:
            mean, sd = _moments(self.values[name][np.isfinite(self.values[name])])
            z[name] = self.signs[name] * (own[name] - mean) / sd
        combined = float(np.mean(list(z.values())))
        others = np.stack([self.values[name] for name in names])
        others = others[:, np.isfinite(others).all(axis=0)]
        n = others.shape[1]
        if n < FEWEST_CASES:
            return CombinedScore("ok", combined, z, n, None, None, None)
        new = np.array([[own[name]] for name in names])
        higher, equal = self._above(names, np.concatenate([others, new], axis=1))
        return CombinedScore("ok", combined, z, n, higher, equal, (1 + higher + equal) / (n + 1))

    def _counts(self, values: np.ndarray) -> bool:
        known = values[np.isfinite(values)]
        return known.size >= FEWEST_CASES and not _all_the_same(known)

    def _above(self, names: Sequence[str], values: np.ndarray) -> tuple[int, int]:
        """(higher, equal): how many of all but the last of (scores, cases) lie above and level with the last, of z over all."""
        total = np.zeros(values.shape[1])
        for name, of_score in zip(names, values, strict=True):
            if not _all_the_same(of_score):
                total += self.signs[name] * (of_score - of_score.mean()) / of_score.std(ddof=1)
        beyond = total[:-1] - total[-1]
        level = np.abs(beyond) <= SAME * len(names)
        return int(np.count_nonzero(~level & (beyond > 0))), int(np.count_nonzero(level))

    def to_json(self) -> dict:
        """Plain JSON: {"moments": ..., "values": {name: [a number or null for each case]}}."""
        return {
            "moments": self.moments(),
            "values": {
                name: [float(value) if math.isfinite(value) else None for value in of_score]
                for name, of_score in self.values.items()
            },
        }

    @classmethod
    def from_json(cls, document: Mapping, cases: int) -> ScoreReference:
        """What `to_json` described, of so many cases. Raises LookupError, TypeError, ValueError or AttributeError otherwise."""
        signs = {str(name): int(of["sign"]) for name, of in document["moments"].items()}
        values = {
            name: np.array([_known(value) for value in of_score]) for name, of_score in document["values"].items()
        }
        right = set(signs) == set(values) and set(signs.values()) <= {1, -1}
        if not right or any(of_score.shape != (cases,) for of_score in values.values()):
            raise ValueError("scores of other cases, or without a sign")
        return cls(signs, values)


@dataclass(frozen=True)
class CaseScores:
    """Scores of the calibration cases, within `roi_mm` of what was predicted. `cases`: ids. `structures`: by label."""

    roi_mm: float
    cases: tuple[str, ...]
    case: ScoreReference
    structures: Mapping[int, ScoreReference]

    @classmethod
    def of(cls, figures: Mapping[str, Mapping], structures: Sequence[int], roi_mm: float) -> CaseScores | None:
        """Of what `aggregate` says of each case's entropy, by the case's id; None with fewer than 3 cases."""
        if len(figures) < FEWEST_CASES:
            return None
        each = list(figures.values())
        return cls(
            float(roi_mm),
            tuple(figures),
            ScoreReference.of([found["case"] for found in each], OF_CASE),
            {k: ScoreReference.of([_of_structure(found, k) for found in each], OF_STRUCTURE) for k in structures},
        )

    def place(self, figures: Mapping) -> tuple[CombinedScore, dict[int, CombinedScore]]:
        """Where a new case and each of its structures stand; figures: what `aggregate` says of its entropy."""
        return self.case.place(figures["case"]), {
            k: reference.place(_of_structure(figures, k)) for k, reference in self.structures.items()
        }

    def to_json(self) -> dict:
        """As it stands in the record."""
        return {
            "measure": "entropy", "roi_mm": self.roi_mm, "cases": list(self.cases), "case": self.case.to_json(),
            "structures": {str(k): reference.to_json() for k, reference in self.structures.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping) -> CaseScores:
        """What `to_json` described. Raises CalibUncertaintyError, one line, where it is damaged."""
        try:
            cases, roi_mm = tuple(map(str, document["cases"])), float(document["roi_mm"])
            if len(cases) < FEWEST_CASES or not (math.isfinite(roi_mm) and roi_mm > 0):
                raise ValueError
            return cls(
                roi_mm,
                cases,
                ScoreReference.from_json(document["case"], len(cases)),
                {int(k): ScoreReference.from_json(of, len(cases)) for k, of in document["structures"].items()},
            )
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise CalibUncertaintyError(
                "the scores of cases in the calibration record are damaged; calibrate the model again"
            ) from error


def _of_structure(figures: Mapping, k: int) -> Mapping:
    """A structure's figures; none of one that is not predicted: that nobody draws it is no certainty about it."""
    found = figures["structures"].get(str(k), {})
    return found if found.get("status") == "ok" else {}


def _known(value: float | None) -> float:
    """The value, or NaN in place of what is no finite number."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def _moments(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1); None where there are too few."""
    if not values.size:
        return None, None
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else None


def _all_the_same(values: np.ndarray) -> bool:
    return float(np.ptp(values)) <= SAME * max(float(np.abs(values).max()), 1e-300)
