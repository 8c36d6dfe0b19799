"""What a calibrator that may change labels did to them: changed voxels, and Dice of every class before and after."""

from __future__ import annotations

import math

import numpy as np

from ..model.heads import first_argmax
from .base import Calibrator
from .sample import checked_truth

CHUNK_VOXELS = 65536


class DecisionReport:
    """Accumulator of counts over voxels with known labels, case by case; nothing but counts is kept.

    :param calibrator: what to look at; any will do, one that preserves decisions changes none.
    :param n_classes: output channels C.
    :param sigmoid: whether every channel is a region by itself, decided by z > 0 before and p > 0.5 after.
    Source: Dice 1945, 2 |A and B| / (|A| + |B|); the two counts side by side: our definition.
    """

    def __init__(self, calibrator: Calibrator, n_classes: int, sigmoid: bool = False) -> None:
        self.calibrator, self.n_classes, self.sigmoid = calibrator, n_classes, sigmoid
        self._voxels: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        # of every case: before and after; hits, decided, true; class
        self._counts: dict[str, np.ndarray] = {}

    def add(self, case_id: str, logits: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels of a case; a case may come in several pieces.

        :param logits: (C, N).
        :param truth: (N,) classes; of sigmoid heads (C, N) bool. Leave ignored voxels out beforehand.
        :raises CalibUncertaintyError: when a label is not a class.
        :raises ValueError: when the shapes do not fit together.
        """
        logits, case_id = np.asarray(logits), str(case_id)
        rows = checked_truth(case_id, logits, truth, self.n_classes, self.sigmoid)
        if len(rows) != 1:
            raise ValueError("labels of one rater are needed")
        counts = self._counts.setdefault(case_id, np.zeros((2, 3, self.n_classes), np.int64))
        for start in range(0, logits.shape[1], CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            chunk, of_chunk = logits[:, part], rows[0][..., part]
            p = self.calibrator.transform(chunk)
            before = chunk > 0 if self.sigmoid else first_argmax(chunk)
            after = p > 0.5 if self.sigmoid else first_argmax(p)
            differs = (before != after).any(axis=0) if self.sigmoid else before != after
            self._changed[case_id] = self._changed.get(case_id, 0) + int(np.count_nonzero(differs))
            for number in range(self.n_classes):
                true = of_chunk[number] if self.sigmoid else of_chunk == number
                for way, decided in enumerate((before, after)):
                    inside = decided[number] if self.sigmoid else decided == number
                    hits = np.count_nonzero(inside & true)
                    counts[way, :, number] += hits, np.count_nonzero(inside), np.count_nonzero(true)
        self._changed.setdefault(case_id, 0)
        self._voxels[case_id] = self._voxels.get(case_id, 0) + logits.shape[1]

    def merge(self, other: DecisionReport) -> None:
        """Take over the counts of another accumulator; a case in both is one case."""
        if (other.n_classes, other.sigmoid) != (self.n_classes, self.sigmoid):
            raise ValueError("reports of different heads")
        for case_id, counts in other._counts.items():
            self._counts[case_id] = self._counts.get(case_id, 0) + counts
            self._voxels[case_id] = self._voxels.get(case_id, 0) + other._voxels[case_id]
            self._changed[case_id] = self._changed.get(case_id, 0) + other._changed[case_id]

    def result(self) -> dict:
        """Plain values.

        `voxels`, `changed_voxels`; `dice_before` and `dice_after`, each class pooled over all voxels, [0, 1]; `mean_dice_before`
        and `mean_dice_after`, each class as mean over the cases that have it (`n_dice_before`, `n_dice_after` of them); `cases`:
        voxels, changed voxels and both Dice of each case. NaN where a class is neither drawn nor decided. `status`: "ok" or
        "empty_roi".
        """
        cases = {
            case_id: {
                "voxels": self._voxels[case_id],
                "changed_voxels": self._changed[case_id],
                "dice_before": _dice(counts[0]),
                "dice_after": _dice(counts[1]),
            }
            for case_id, counts in self._counts.items()
        }
        total = sum(self._counts.values(), np.zeros((2, 3, self.n_classes), np.int64))
        result = {
            "status": "ok" if sum(self._voxels.values()) else "empty_roi",
            "voxels": sum(self._voxels.values()),
            "changed_voxels": sum(self._changed.values()),
            "dice_before": _dice(total[0]),
            "dice_after": _dice(total[1]),
            "cases": cases,
        }
        for way in ("dice_before", "dice_after"):
            columns = zip(*(case[way] for case in cases.values()), strict=True) if cases else [()] * self.n_classes
            known = [[value for value in column if not math.isnan(value)] for column in columns]
            result[f"mean_{way}"] = [math.fsum(values) / len(values) if values else math.nan for values in known]
            result[f"n_{way}"] = [len(values) for values in known]
        return result


def _dice(counts: np.ndarray) -> list[float]:
    """Of hits, decided and true voxels (3, C)."""
    hits, decided, true = counts.astype(np.float64)
    return [
        2 * h / (d + t) if d + t else math.nan
        for h, d, t in zip(hits.tolist(), decided.tolist(), true.tolist(), strict=True)
    ]
