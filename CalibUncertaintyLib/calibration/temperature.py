"""Temperature scaling: one number T that divides the logits, fitted by negative log-likelihood.

The fit looks at each voxel once. For every case it keeps the negative log-likelihood (NLL) and its slope at the nodes of a
fixed grid of beta = 1/T, 67 numbers, however many voxels there are. For one logit vector a voxel the NLL is convex in beta, so
the root of the slope is the optimum; it is found on the polynomials through value and slope. Sums of such tables are tables
again: drawing cases for the bootstrap costs no second look at the voxels.
"""

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.record_check import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from . import hermite
from .doubling import FINE_NODES, NODES, Sums, Workspace, refined, sums_of_many, sums_of_one
from .softmax import softmax

_THREADS = max(1, min(4, os.cpu_count() or 1))  # numpy's loops run side by side
CHUNK_VOXELS = 40960 // max(_THREADS, 2)  # of six classes: all threads together hold some 10 MB


@dataclass(frozen=True)
class TemperatureScaling:
    """softmax(z / T) with T > 0: softens (T > 1) or sharpens (T < 1), and leaves the order of the classes alone.

    :raises ValueError: when the temperature is not a finite number above 0.
    Source: Guo et al. 2017, Eq. 9.
    """

    temperature: float
    method = "temperature"
    preserves = "order"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be a finite number above 0, got {self.temperature}")

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities."""
        return softmax(logits, self.temperature)

    def to_json(self) -> dict:
        """{"method": "temperature", "temperature": T}."""
        return {"method": self.method, "temperature": self.temperature}

    @classmethod
    def from_json(cls, document: dict) -> "TemperatureScaling":
        """The calibrator that `to_json` described; a record's entry will do."""
        if document.get("method", "temperature") != "temperature":
            raise ValueError(f"not a temperature: method {document['method']!r}")
        return cls(float(document["temperature"]))


@dataclass(frozen=True)
class FittedTemperature:
    """What a fit found.

    `interval` is the 95 % percentile interval of a bootstrap over cases, (NaN, NaN) with fewer than two cases. `status` is
    "ok", "separable" (every voxel right: no finite optimum, T at its lower limit), "uninformative" (the logits say nothing
    about the labels: T at its upper limit) or "empty_roi" (no voxel: all figures NaN). `nll_before` (T = 1) and `nll_after`
    are means over all voxels, in nats. `cases` are those that brought voxels.
    """

    temperature: float
    interval: tuple[float, float]
    status: str
    nll_before: float
    nll_after: float
    cases: tuple[str, ...]
    voxels: int
    warnings: tuple[str, ...] = ()

    def calibrator(self) -> TemperatureScaling:
        """The calibrator with this temperature."""
        return TemperatureScaling(self.temperature)


@dataclass
class _CaseTable:
    voxels: int = 0
    # as in `Sums`
    curve: np.ndarray = field(default_factory=lambda: np.zeros((2, NODES)))
    label: float = 0.0
    wrong: bool = False
    spread: bool = False
    labels_seen: set[int] = field(default_factory=set)

    def add(self, part: Sums, labels_seen: np.ndarray) -> None:
        self.curve += part.curve
        self.label += part.label
        self.wrong, self.spread = self.wrong or part.wrong, self.spread or part.spread
        self.labels_seen.update(labels_seen.tolist())


class TemperatureFit:
    """Accumulator that finds the temperature with the least NLL over all added voxels.

    Logits (C, N) are one vector a voxel: the NLL of softmax(z / T) (Guo et al. 2017). Logits (M, C, N) are M members: the NLL
    of mean_m softmax(z_m / T), one temperature shared by all members before their probabilities are averaged (Rahaman &
    Thiery 2021 discuss the order of pooling and calibrating). Voxels all weigh the same.
    """

    def __init__(self) -> None:
        self._cases: dict[str, _CaseTable] = {}

    def add(self, case_id: str, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add voxels of a case; a case may come in several pieces.

        :param case_id: cases are what the bootstrap draws.
        :param logits: (C, N), or (M, C, N) for members; log-probabilities will do; -inf is read as the logarithm of the
            smallest float32 below the voxel's highest.
        :param labels: (N,) integers in [0, C): the true class of each voxel. Leave ignored voxels out beforehand.
        :raises CalibUncertaintyError: when a label is not a class, or logits are NaN or +inf.
        :raises ValueError: when the shapes do not fit together.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        members = logits[np.newaxis] if logits.ndim == 2 else logits
        if members.ndim != 3 or labels.shape != members.shape[2:] or members.shape[1] < 2:
            raise ValueError(
                f"logits {logits.shape} and labels {labels.shape} do not fit: (C, N) or (M, C, N) and (N,)"
            )
        table = self._cases.setdefault(str(case_id), _CaseTable())
        if labels.size == 0:
            return
        if labels.min() < 0 or labels.max() >= members.shape[1]:
            raise CalibUncertaintyError(
                f"case {case_id}: label {int(labels.max() if labels.min() >= 0 else labels.min())} is not one of the "
                f"model's classes 0 to {members.shape[1] - 1}; give a reference with the model's own labels"
            )
        step = max(6 * CHUNK_VOXELS // (members.shape[0] * members.shape[1]), 1024)  # of all members at once

        own = threading.local()

        def prepare() -> None:
            own.spaces = [Workspace() for _ in members]

        def part_of(start: int) -> tuple[Sums, np.ndarray]:
            part = slice(start, start + step)
            chunk_labels = labels[part].astype(np.intp)
            if len(members) == 1:
                sums = sums_of_one(members[0][:, part], chunk_labels, str(case_id), own.spaces[0])
            else:
                sums = sums_of_many(members[:, :, part], chunk_labels, str(case_id), own.spaces)
            return sums, np.flatnonzero(np.bincount(chunk_labels))

        with ThreadPoolExecutor(_THREADS, initializer=prepare) as threads:
            for sums, labels_seen in threads.map(part_of, range(0, labels.size, step)):
                table.add(sums, labels_seen)
        table.voxels += labels.size

    def fit(self, bootstrap: int = 1000, seed: int = 0) -> FittedTemperature:
        """The temperature in [0.05, 20] with the least mean NLL.

        :param bootstrap: number of draws of cases for the 95 % interval; 0 leaves the interval NaN.
        :param seed: of the bootstrap's random numbers.
        """
        used = {case_id: table for case_id, table in self._cases.items() if table.voxels}
        nothing = (math.nan, math.nan)
        if not used:
            return FittedTemperature(math.nan, nothing, "empty_roi", math.nan, math.nan, (), 0)
        tables = list(used.values())
        voxels = sum(table.voxels for table in tables)
        log_beta_grid, total = _on_fine_grid(tables, np.ones((1, len(tables))))
        log_beta = float(hermite.minimum(log_beta_grid, total)[0])
        interval = nothing
        if bootstrap and len(used) > 1:
            draws = np.random.default_rng(seed).multinomial(
                len(used), np.full(len(used), 1 / len(used)), size=bootstrap
            )
            drawn = _on_fine_grid(tables, draws.astype(np.float64))[1]
            low, high = np.percentile(np.exp(-hermite.minimum(log_beta_grid, drawn)), [2.5, 97.5])
            interval = (float(low), float(high))
        temperature, status = math.exp(-log_beta), "ok"
        if log_beta <= log_beta_grid[0]:
            temperature, status = HIGHEST_TEMPERATURE, "uninformative"
        elif log_beta >= log_beta_grid[-1]:
            temperature, status = LOWEST_TEMPERATURE, "separable"
        seen = set().union(*(table.labels_seen for table in used.values()))
        warnings = (
            () if len(seen) > 1 else ("only one class occurs in the reference labels inside the region of interest",)
        )
        return FittedTemperature(
            temperature=temperature,
            interval=interval,
            status=status,
            nll_before=float(total[0, 0, FINE_NODES // 2] / voxels),
            # where next to nothing is left, rounding could make it negative
            nll_after=max(hermite.value(log_beta_grid, total[0], log_beta) / voxels, 0.0),
            cases=tuple(used),
            voxels=voxels,
            warnings=warnings,
        )


def _on_fine_grid(tables: list[_CaseTable], draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and two derivatives in beta on a grid of ln beta of the cases' weighted sums, (draws, 3, FINE_NODES).

    :param draws: (B, cases) how often each case counts.
    """
    curve = np.tensordot(draws, np.stack([table.curve for table in tables]), axes=1)
    label = draws @ np.array([table.label for table in tables])
    log_beta, fine = refined(curve, label, math.log(HIGHEST_TEMPERATURE))
    # Where no label is outdone the NLL falls for ever, though the nodes' float32 may see no more of it.
    right = ~(draws @ np.array([table.wrong for table in tables]) > 0)
    falls_always = right & (draws @ np.array([table.spread for table in tables]) > 0)
    fine[falls_always, 1] = np.minimum(fine[falls_always, 1], -np.finfo(float).tiny)
    return log_beta, fine
