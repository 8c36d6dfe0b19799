"""The threshold above which a voxel is called uncertain, from cases whose errors are known."""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from ..value_codes import codes_of, values_of
from .measures import MEASURES

CHUNK_VOXELS = 262144
CURVE_POINTS = 256
CRITERIA = ("mean", "pooled")


@dataclass(frozen=True)
class FittedThreshold:
    """The threshold with the best error-Dice, by `criterion`: the "mean" over cases, or that of all voxels "pooled".

    `value` has the measure's unit. `status` is "ok", "no_errors" (no case has a wrong voxel, so nothing can be learnt and
    `value` is the measure's upper end) or "empty_roi" (no voxel: NaN). `error_dice` is each case's value at the threshold,
    `mean_error_dice` their mean and `pooled_error_dice` that of all voxels as one case. `thresholds`, `mean_curve` and
    `pooled_curve` draw both over no more than 256 candidates, evenly spread by value and by order of magnitude, the best of
    each criterion among them.
    """

    measure: str
    value: float
    mean_error_dice: float
    status: str
    error_dice: dict[str, float]
    thresholds: np.ndarray
    mean_curve: np.ndarray
    criterion: str = "mean"
    pooled_error_dice: float = math.nan
    pooled_curve: np.ndarray | None = None

    def to_json(self) -> dict:
        """{"value", "unit", "mean_error_dice"} as a calibration record stores it; null where a figure is NaN."""
        figures = {"value": self.value, "mean_error_dice": self.mean_error_dice}
        figures = {key: None if math.isnan(figure) else figure for key, figure in figures.items()}
        return figures | {"unit": MEASURES[self.measure].unit}


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
        self._codes = int(codes_of(np.float32(upper))) + 1
        self._cases: dict[str, np.ndarray] = {}

    @property
    def candidates(self) -> np.ndarray:
        """Every threshold that the fit tries, ascending, float64: 0 and the values on the codes' grid up to the largest one."""
        return values_of(np.arange(self._codes)).astype(np.float64)

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
        # 32 bits hold the voxels of any case, and hundreds of cases with twenty measures stay in memory
        table = self._cases.setdefault(str(case_id), np.zeros((2, self._codes), dtype=np.uint32))
        for start in range(0, u.size, CHUNK_VOXELS):
            values = u[start : start + CHUNK_VOXELS]
            if np.isnan(values).any():
                raise CalibUncertaintyError(f"case {case_id}: {self.measure} holds NaN; predict the case again")
            code = np.minimum(codes_of(values), self._codes - 1)
            for row, counted in zip(table, (code, code[error[start : start + CHUNK_VOXELS]]), strict=True):
                row += np.bincount(counted, minlength=self._codes).astype(np.uint32)

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
            return self._unfitted(criterion, math.nan, "empty_roi", {}, *np.full((2, self._codes), np.nan))
        mean_curve = sum(_error_dice_curve(table) for table in used.values()) / len(used)
        pooled = sum(table.astype(np.int64) for table in used.values())
        pooled_curve = _error_dice_curve(pooled)
        if not pooled[1].any():
            unknown = dict.fromkeys(used, math.nan)
            return self._unfitted(criterion, self._upper, "no_errors", unknown, mean_curve, pooled_curve)
        bests = {"mean": int(np.argmax(mean_curve)), "pooled": int(np.argmax(pooled_curve))}
        best, drawn = bests[criterion], self._drawn(pooled[0], *bests.values())
        return FittedThreshold(
            measure=self.measure,
            value=float(values_of(np.array(best))),
            mean_error_dice=float(mean_curve[best]),
            status="ok",
            error_dice={case_id: _error_dice_at(table, best) for case_id, table in used.items()},
            thresholds=self.candidates[drawn],
            mean_curve=mean_curve[drawn],
            criterion=criterion,
            pooled_error_dice=float(pooled_curve[best]),
            pooled_curve=pooled_curve[drawn],
        )

    def _unfitted(
        self, criterion: str, value: float, status: str, error_dice: dict[str, float], mean: np.ndarray, pooled: np.ndarray
    ) -> FittedThreshold:
        """What is given where there is nothing to learn from."""
        drawn = self._drawn(np.ones(self._codes))
        return FittedThreshold(
            self.measure, value, math.nan, status, error_dice, self.candidates[drawn], mean[drawn], criterion,
            pooled_curve=pooled[drawn],
        )  # fmt: skip

    def _drawn(self, counts: np.ndarray, *wanted: int) -> np.ndarray:
        """Codes of the candidates that curves are drawn over: those wanted, and others from the lowest value that occurs on."""
        half = (CURVE_POINTS - len(wanted) - 1) // 2
        lowest = int(np.argmax(counts[1:] > 0)) + 1 if counts[1:].any() else 0
        by_value = codes_of(np.linspace(float(values_of(np.array(lowest))), self._upper, half))
        by_magnitude = np.round(np.linspace(lowest, self._codes - 1, half)).astype(np.int64)
        chosen = np.concatenate([[0], by_value, by_magnitude, wanted]).astype(np.int64)
        return np.unique(np.minimum(chosen, self._codes - 1))


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
