"""The threshold above which a voxel is called uncertain, from cases whose errors are known."""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from .measures import MEASURES

BINS = 2048
CHUNK_VOXELS = 262144


@dataclass(frozen=True)
class FittedThreshold:
    """The threshold with the best mean error-Dice.

    `value` has the measure's unit. `status` is "ok", "no_errors" (no case has a wrong voxel, so nothing can be learnt and
    `value` is the measure's upper end) or "empty_roi" (no voxel: NaN). `thresholds` and `mean_curve` are the whole curve,
    `error_dice` the value of each case at the threshold.
    """

    measure: str
    value: float
    mean_error_dice: float
    status: str
    error_dice: dict[str, float]
    thresholds: np.ndarray
    mean_curve: np.ndarray

    def to_json(self) -> dict:
        """{"value", "unit", "mean_error_dice"} as a calibration record stores it; null where a figure is NaN."""
        figures = {"value": self.value, "mean_error_dice": self.mean_error_dice}
        figures = {key: None if math.isnan(figure) else figure for key, figure in figures.items()}
        return figures | {"unit": MEASURES[self.measure].unit}


class ThresholdFit:
    """Accumulator for one measure: a histogram of it for each case, split by whether the label is wrong.

    With E the wrong voxels and U_t the voxels with u >= t, error-Dice(t) = 2 |U_t and E| / (|U_t| + |E|), 1 when both are
    empty. The fit maximises its mean over cases, cases without any error included (they give 1 where nothing is flagged,
    else 0), over the lower edges of the histogram's bins; of equal thresholds the lowest.
    Source: uncertainty-error overlap of Jungo et al. 2020; the mean over calibration cases is our definition.

    :param measure: id of the measure, kept for the record.
    :param upper: its largest value, `MEASURES[measure].upper(C, M)`; must be above 0.
    :param bins: resolution of the grid of thresholds, upper / bins.
    """

    def __init__(self, measure: str, upper: float, bins: int = BINS) -> None:
        if not (math.isfinite(upper) and upper > 0):
            raise ValueError(f"the largest value of {measure} must be above 0, got {upper}")
        self.measure = measure
        self.thresholds = np.linspace(0.0, upper, bins + 1)[:-1]
        self._edges = np.append(self.thresholds, np.inf)
        self._upper = float(upper)
        self._cases: dict[str, np.ndarray] = {}

    def add(self, case_id: str, u: np.ndarray, error: np.ndarray) -> None:
        """Add voxels inside the region of interest; a case may come in several pieces.

        :param case_id: the case they belong to.
        :param u: (N,) values of the measure; beyond its range they count as its ends.
        :param error: (N,) boolean, True where the predicted label is wrong.
        :raises CalibUncertaintyError: when u holds NaN.
        :raises ValueError: when the shapes differ.
        """
        u, error = np.asarray(u).reshape(-1), np.asarray(error, dtype=bool).reshape(-1)
        if u.shape != error.shape:
            raise ValueError(f"{u.size} values but {error.size} error flags")
        bins = self.thresholds.size
        table = self._cases.setdefault(str(case_id), np.zeros((2, bins), dtype=np.int64))
        for start in range(0, u.size, CHUNK_VOXELS):
            values = u[start : start + CHUNK_VOXELS].astype(np.float64)
            if np.isnan(values).any():
                raise CalibUncertaintyError(f"case {case_id}: {self.measure} holds NaN; predict the case again")
            index = np.clip(values * (bins / self._upper), 0, bins - 1).astype(np.intp)
            # The product is rounded; compare with the edges themselves so that u >= t decides, to the last bit.
            index -= (values < self._edges[index]) & (index > 0)
            index += values >= self._edges[index + 1]
            wrong = error[start : start + CHUNK_VOXELS]
            table[0] += np.bincount(index, minlength=bins)
            table[1] += np.bincount(index[wrong], minlength=bins)

    def fit(self) -> FittedThreshold:
        """The threshold with the best mean error-Dice over the cases that brought voxels."""
        used = {case_id: table for case_id, table in self._cases.items() if table[0].any()}
        if not used:
            nothing = np.full(self.thresholds.size, np.nan)
            return FittedThreshold(self.measure, math.nan, math.nan, "empty_roi", {}, self.thresholds, nothing)
        curves = np.stack([_error_dice_curve(table) for table in used.values()])
        mean_curve = curves.mean(axis=0)
        if not any(table[1].any() for table in used.values()):
            return FittedThreshold(
                self.measure, self._upper, math.nan, "no_errors", dict.fromkeys(used, math.nan), self.thresholds, mean_curve
            )
        best = int(np.argmax(mean_curve))
        return FittedThreshold(
            measure=self.measure,
            value=float(self.thresholds[best]),
            mean_error_dice=float(mean_curve[best]),
            status="ok",
            error_dice={case_id: float(curve[best]) for case_id, curve in zip(used, curves, strict=True)},
            thresholds=self.thresholds,
            mean_curve=mean_curve,
        )


def _error_dice_curve(table: np.ndarray) -> np.ndarray:
    """Error-Dice at every threshold from (2, bins) counts of all voxels and of wrong ones."""
    flagged, flagged_and_wrong = np.cumsum(table[:, ::-1], axis=1)[:, ::-1]
    total = flagged + table[1].sum()
    return np.where(total > 0, 2.0 * flagged_and_wrong / np.maximum(total, 1), 1.0)
