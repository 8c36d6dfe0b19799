"""Temperature scaling: one number T that divides the logits, fitted by negative log-likelihood.

The fit looks at each voxel once. For every case it keeps the sum of the negative log-likelihood (NLL) and of its first two
derivatives in beta = 1/T at the nodes of a fixed grid of beta, a few hundred numbers, however many voxels there are. For one
logit vector a voxel the NLL is convex in beta, so the root of the first derivative is the optimum; it is found between two
nodes on the cubic through derivative and slope at both. Sums of such tables are tables again: drawing cases for the bootstrap
costs no second look at the voxels.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import CalibUncertaintyError
from . import hermite
from .softmax import SMALLEST_LOG_PROBABILITY, softmax

LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 20.0
# Odd, so that T = 1 is a node. With this step of 0.1 in ln T the optimum is right to a few 1e-6; twice the step gives 1e-4.
GRID_NODES = 61
CHUNK_VOXELS = 65536


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
    # (3, GRID_NODES) float64: sums of NLL, dNLL/dbeta, d2NLL/dbeta2
    sums: np.ndarray = field(default_factory=lambda: np.zeros((3, GRID_NODES)))
    labels_seen: set[int] = field(default_factory=set)


class TemperatureFit:
    """Accumulator that finds the temperature with the least NLL over all added voxels.

    Logits (C, N) are one vector a voxel: the NLL of softmax(z / T) (Guo et al. 2017). Logits (M, C, N) are M members: the NLL
    of mean_m softmax(z_m / T), one temperature shared by all members before their probabilities are averaged (Rahaman &
    Thiery 2021 discuss the order of pooling and calibrating). Voxels all weigh the same.
    """

    def __init__(self) -> None:
        self._log_beta = np.linspace(-math.log(HIGHEST_TEMPERATURE), -math.log(LOWEST_TEMPERATURE), GRID_NODES)
        self._log_beta[GRID_NODES // 2] = 0.0
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
            raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not fit: (C, N) or (M, C, N) and (N,)")
        table = self._cases.setdefault(str(case_id), _CaseTable())
        if labels.size == 0:
            return
        if labels.min() < 0 or labels.max() >= members.shape[1]:
            raise CalibUncertaintyError(
                f"case {case_id}: label {int(labels.max() if labels.min() >= 0 else labels.min())} is not one of the "
                f"model's classes 0 to {members.shape[1] - 1}; give a reference with the model's own labels"
            )
        betas = np.exp(self._log_beta)
        step = max(CHUNK_VOXELS // len(members), 8192)  # the chunks of all members are held at once
        for start in range(0, labels.size, step):
            part = slice(start, start + step)
            chunk_labels = labels[part].astype(np.intp)
            shifted = [_relative_to_highest(member[:, part], chunk_labels, case_id) for member in members]
            table.sums += _table_of_one(*shifted[0], betas) if len(shifted) == 1 else _table_of_many(shifted, betas)
        table.voxels += labels.size
        table.labels_seen.update(np.unique(labels).tolist())

    def fit(self, bootstrap: int = 1000, seed: int = 0) -> FittedTemperature:
        """The temperature in [0.05, 20] with the least mean NLL.

        :param bootstrap: number of draws of cases for the 95 % interval; 0 leaves the interval NaN.
        :param seed: of the bootstrap's random numbers.
        """
        used = {case_id: table for case_id, table in self._cases.items() if table.voxels}
        nothing = (math.nan, math.nan)
        if not used:
            return FittedTemperature(math.nan, nothing, "empty_roi", math.nan, math.nan, (), 0)
        tables = np.stack([table.sums for table in used.values()])
        voxels = sum(table.voxels for table in used.values())
        total = tables.sum(axis=0)
        log_beta = float(hermite.minimum(self._log_beta, total[np.newaxis])[0])
        interval = nothing
        if bootstrap and len(used) > 1:
            draws = np.random.default_rng(seed).multinomial(len(used), np.full(len(used), 1 / len(used)), size=bootstrap)
            drawn = np.tensordot(draws.astype(np.float64), tables, axes=1)
            low, high = np.percentile(np.exp(-hermite.minimum(self._log_beta, drawn)), [2.5, 97.5])
            interval = (float(low), float(high))
        temperature, status = math.exp(-log_beta), "ok"
        if log_beta <= self._log_beta[0]:
            temperature, status = HIGHEST_TEMPERATURE, "uninformative"
        elif log_beta >= self._log_beta[-1]:
            temperature, status = LOWEST_TEMPERATURE, "separable"
        seen = set().union(*(table.labels_seen for table in used.values()))
        warnings = () if len(seen) > 1 else ("only one class occurs in the reference labels inside the region of interest",)
        return FittedTemperature(
            temperature=temperature,
            interval=interval,
            status=status,
            nll_before=float(total[0, GRID_NODES // 2] / voxels),
            nll_after=hermite.value(self._log_beta, total, log_beta) / voxels,
            cases=tuple(used),
            voxels=voxels,
            warnings=warnings,
        )


def _relative_to_highest(chunk: np.ndarray, labels: np.ndarray, case_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of all classes but the highest, less the highest: (C-1, n) float32 <= 0; and the label's own, (n,) float32.

    Leaving the highest out (its term in the softmax's denominator is exactly 1) keeps log(1 + rest) exact where the rest is
    far below the resolution of float32 around 1, as it is for the bulk of nnU-Net's voxels.
    """
    chunk = chunk.astype(np.result_type(chunk.dtype, np.float32), copy=False)  # numpy is slow in half precision
    shifted = np.subtract(chunk, chunk.max(axis=0))
    if not np.isfinite(shifted).all():
        if np.isnan(shifted).any():
            raise CalibUncertaintyError(f"case {case_id}: the logits hold NaN or infinite values; predict the case again")
        np.maximum(shifted, SMALLEST_LOG_PROBABILITY, out=shifted, where=np.isneginf(shifted))
    shifted = shifted.astype(np.float32, copy=False)
    columns = np.arange(shifted.shape[1])
    of_label = shifted[labels, columns]
    highest = shifted.argmax(axis=0)
    others = shifted[1:].copy()
    moved = np.flatnonzero(highest)
    others[highest[moved] - 1, moved] = shifted[0, moved]
    return others, of_label


def _moments(others: np.ndarray, squares: np.ndarray, beta: float, scratch: np.ndarray) -> tuple[np.ndarray, ...]:
    """log of the denominator, mean and variance of the relative logits under softmax(beta z), each (n,) float32."""
    np.multiply(others, np.float32(beta), out=scratch)
    # Below exp(-87) lie subnormal numbers: slow, and without weight beside the highest class's 1.
    np.maximum(scratch, np.float32(-87.0), out=scratch)
    np.exp(scratch, out=scratch)
    rest = scratch.sum(axis=0)
    denominator = rest + np.float32(1.0)
    mean = np.einsum("cn,cn->n", scratch, others)
    mean /= denominator
    variance = np.einsum("cn,cn->n", scratch, squares)
    variance /= denominator
    variance -= mean * mean
    return np.log1p(rest, out=rest), mean, variance


def _table_of_one(others: np.ndarray, of_label: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Sums over a chunk of NLL, first and second derivative in beta at each beta: (3, nodes) float64."""
    table = np.empty((3, betas.size))
    squares, scratch = others * others, np.empty_like(others)
    label_sum = of_label.sum(dtype=np.float64)
    for index, beta in enumerate(betas):
        log_denominator, mean, variance = _moments(others, squares, beta, scratch)
        table[0, index] = log_denominator.sum(dtype=np.float64) - beta * label_sum
        table[1, index] = mean.sum(dtype=np.float64) - label_sum
        table[2, index] = variance.sum(dtype=np.float64)
    return table


def _table_of_many(shifted: list[tuple[np.ndarray, np.ndarray]], betas: np.ndarray) -> np.ndarray:
    """As `_table_of_one` for the mean of the members' softmax: NLL = -ln mean_m q_m with q_m the label's probability.

    With d_m = z_m,y - E_m[z] and r_m = q_m / sum q: NLL' = -sum r_m d_m, NLL'' = (sum r_m d_m)^2 - sum r_m (d_m^2 - Var_m).
    """
    table = np.empty((3, betas.size))
    squares = [others * others for others, _ in shifted]
    of_label = np.stack([label for _, label in shifted]).astype(np.float64)
    scratch = np.empty_like(shifted[0][0])
    for index, beta in enumerate(betas):
        moments = [_moments(others, square, beta, scratch)
                   for (others, _), square in zip(shifted, squares, strict=True)]
        log_denominator, mean, variance = (np.stack(parts).astype(np.float64) for parts in zip(*moments, strict=True))
        log_q = beta * of_label - log_denominator
        highest = log_q.max(axis=0)
        weight = np.exp(log_q - highest)
        weight_sum = weight.sum(axis=0)
        weight /= weight_sum
        difference = of_label - mean
        first = (weight * difference).sum(axis=0)
        table[0, index] = -(highest + np.log(weight_sum)).sum() + of_label.shape[1] * math.log(len(shifted))
        table[1, index] = -first.sum()
        table[2, index] = (first * first - (weight * (difference * difference - variance)).sum(axis=0)).sum()
    return table
