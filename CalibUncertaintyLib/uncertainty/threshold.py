"""The threshold above which a voxel is called uncertain, from cases whose errors are known."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import codes_of, values_of
from .measures import MEASURES

CHUNK_VOXELS = 262144
CURVE_POINTS = 256  # as fine as a plot shows
CRITERIA = ("mean", "pooled")


@dataclass(frozen=True)
class FittedThreshold:
    """The threshold with the best error-Dice, by `criterion`: the "mean" over cases, or that of all voxels "pooled".

    `value` has the measure's unit. `status` is "ok", "no_errors" (no case has a wrong voxel, so nothing can be learnt and
    `value` is the measure's upper end) or "empty_roi" (no voxel: NaN). `error_dice` is each case's value at the threshold,
    `mean_error_dice` their mean and `pooled_error_dice` that of all voxels as one case. `thresholds`, `mean_curve` and
    `pooled_curve` are both over every candidate; `curve` picks a few to draw.
    """

    measure: str
    value: float
    mean_error_dice: float
    status: str
    error_dice: dict[str, float]
    thresholds: np.ndarray
    mean_curve: np.ndarray
    pooled_curve: np.ndarray
    criterion: str = "mean"
    pooled_error_dice: float = math.nan

    def to_json(self) -> dict:
        """{"value", "unit", "mean_error_dice"} as a calibration record stores it; null where a figure is NaN."""
        figures = {"value": self.value, "mean_error_dice": self.mean_error_dice}
        figures = {key: None if math.isnan(figure) else figure for key, figure in figures.items()}
        return figures | {"unit": MEASURES[self.measure].unit}

    def curve(self, points: int = CURVE_POINTS) -> dict[str, list[float]]:
        """{"thresholds", "mean", "pooled"} at no more than so many candidates, ascending: what a plot needs.

        They are spread evenly by value and by order of magnitude, so that both axes show the curve; the best of each criterion is
        among them.

        :raises ValueError: with fewer than 8 points.
        """
        if points < 8:
            raise ValueError(f"a curve needs 8 points or more, got {points}")
        last, half = self.thresholds.size - 1, (points - 3) // 2
        best = [int(np.argmax(curve)) for curve in (self.mean_curve, self.pooled_curve)]
        by_value = codes_of(np.linspace(0.0, self.thresholds[last], half))
        by_magnitude = np.round(np.linspace(0, last, half)).astype(np.int64)
        chosen = np.unique(np.minimum(np.concatenate([[0], by_value, by_magnitude, best]), last))
        return {
            "thresholds": self.thresholds[chosen].tolist(),
            "mean": self.mean_curve[chosen].tolist(),
            "pooled": self.pooled_curve[chosen].tolist(),
        }


class ThresholdFit:
    """Accumulator for one measure: a histogram of it for each case, split by whether the label is wrong.

    With E the wrong voxels and U_t the voxels with u >= t, error-Dice(t) = 2 |U_t and E| / (|U_t| + |E|), 1 when both are
    empty. The fit maximises its mean over cases, cases without any error included (they give 1 where nothing is flagged,
    else 0), over all values on the codes' grid (`value_codes`: 1024 between a value and its double) up to the measure's
    largest; of equal thresholds the lowest.
    Source: uncertainty-error overlap of Jungo et al. 2020; the mean over calibration cases is our definition.

    :param measure: id of the measure, kept for the record.
    :param upper: its largest value, `MEASURES[measure].upper(C, M)`; must be above 0.
    """

    def __init__(self, measure: str, upper: float) -> None:
        if not (math.isfinite(upper) and upper > 0):
            raise ValueError(f"the largest value of {measure} must be above 0, got {upper}")
        self.measure = measure
        self._upper = float(upper)
        # every threshold that is tried: 0, and the values on the codes' grid up to the largest one
        self.thresholds = values_of(np.arange(int(codes_of(np.float32(upper))) + 1)).astype(np.float64)
        self._cases: dict[str, np.ndarray] = {}

    def add(self, case_id: str, u: np.ndarray, error: np.ndarray) -> None:
        """Add voxels inside the region of interest; a case may come in several pieces.

        :param case_id: the case they belong to.
        :param u: (N,) values of the measure, as float32; beyond its range they count as its ends.
        :param error: (N,) boolean, True where the predicted label is wrong.
        :raises CalibUncertaintyError: when u holds NaN.
        :raises ValueError: when the shapes differ.
        """
        u, error = np.asarray(u).reshape(-1), np.asarray(error, dtype=bool).reshape(-1)
        if u.shape != error.shape:
            raise ValueError(f"{u.size} values but {error.size} error flags")
        codes = self.thresholds.size
        # 32 bits hold the voxels of any case, and hundreds of cases with twenty measures stay in memory
        table = self._cases.setdefault(str(case_id), np.zeros((2, codes), dtype=np.uint32))
        for start in range(0, u.size, CHUNK_VOXELS):
            values = u[start : start + CHUNK_VOXELS]
            if np.isnan(values).any():
                raise CalibUncertaintyError(f"case {case_id}: {self.measure} holds NaN; predict the case again")
            code = np.minimum(codes_of(values), codes - 1)
            wrong = error[start : start + CHUNK_VOXELS]
            table[0] += np.bincount(code, minlength=codes).astype(np.uint32)
            table[1] += np.bincount(code[wrong], minlength=codes).astype(np.uint32)

    def fit(self, criterion: str = "mean") -> FittedThreshold:
        """The threshold with the best error-Dice.

        :param criterion: "mean" over the cases that brought voxels, each the same weight; or "pooled", all voxels as one case:
            then large cases with many errors decide, and cases without errors count by their voxels only.
        :raises ValueError: when it is neither.
        """
        if criterion not in CRITERIA:
            raise ValueError(f"criterion {criterion!r} is none of {', '.join(CRITERIA)}")
        used = {case_id: table for case_id, table in self._cases.items() if table[0].any()}
        if not used:
            nothing = np.full(self.thresholds.size, np.nan)
            return self._fitted(criterion, math.nan, "empty_roi", {}, nothing, nothing)
        mean_curve = sum(_error_dice_curve(table) for table in used.values()) / len(used)
        pooled_table = sum(table.astype(np.int64) for table in used.values())
        pooled_curve = _error_dice_curve(pooled_table)
        if not pooled_table[1].any():
            unknown = dict.fromkeys(used, math.nan)
            return self._fitted(criterion, self._upper, "no_errors", unknown, mean_curve, pooled_curve)
        best = int(np.argmax(mean_curve if criterion == "mean" else pooled_curve))
        error_dice = {case_id: _error_dice_at(table, best) for case_id, table in used.items()}
        found = self._fitted(criterion, float(self.thresholds[best]), "ok", error_dice, mean_curve, pooled_curve)
        return replace(found, mean_error_dice=float(mean_curve[best]), pooled_error_dice=float(pooled_curve[best]))

    def _fitted(
        self,
        criterion: str,
        value: float,
        status: str,
        error_dice: dict[str, float],
        mean: np.ndarray,
        pooled: np.ndarray,
    ) -> FittedThreshold:
        """A threshold without its figures."""
        return FittedThreshold(
            self.measure, value, math.nan, status, error_dice, self.thresholds, mean, pooled, criterion
        )


def _error_dice_curve(table: np.ndarray) -> np.ndarray:
    """Error-Dice at every threshold from (2, codes) counts of all voxels and of wrong ones."""
    flagged, flagged_and_wrong = np.cumsum(table[:, ::-1], axis=1, dtype=np.int64)[:, ::-1]
    total = flagged + int(table[1].sum(dtype=np.int64))
    return np.where(total > 0, 2.0 * flagged_and_wrong / np.maximum(total, 1), 1.0)


def _error_dice_at(table: np.ndarray, code: int) -> float:
    """The same at one threshold."""
    flagged, flagged_and_wrong = (int(found) for found in table[:, code:].sum(axis=1, dtype=np.int64))
    total = flagged + int(table[1].sum(dtype=np.int64))
    return 2.0 * flagged_and_wrong / total if total else 1.0
