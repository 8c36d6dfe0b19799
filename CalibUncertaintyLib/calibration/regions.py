"""Temperature scaling of sigmoid heads: one number T for each region that divides its logit, fitted region by region.

A sigmoid head z is the softmax of the two logits (0, z): outside and inside. Every region is therefore fitted as a model of two
classes, with the tables of `TemperatureFit`. A positive T moves no logit across 0, so no region's decision changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .softmax import sigmoid, temperatures_of
from .temperature import FittedTemperature, TemperatureFit


@dataclass(frozen=True)
class RegionTemperatureScaling:
    """sigmoid(z_c / T_c) with T_c > 0 for each region c; whether p > 0.5 stays as it is.

    :raises ValueError: when a temperature is not a finite number above 0.
    Source: the two-class case of Guo et al. 2017, Eq. 9.
    """

    temperatures: tuple[float, ...]
    method = "temperature"
    preserves = "decisions"

    def __post_init__(self) -> None:
        temperatures_of(self.temperatures, len(self.temperatures))

    def transform(self, logits: np.ndarray) -> np.ndarray:
        """(C, ...) logits to (C, ...) float32 probabilities, one region a channel."""
        return sigmoid(logits, self.temperatures)

    def to_json(self) -> dict:
        """{"method": "temperature", "temperature": [T, ...]}, in the order of the heads."""
        return {"method": self.method, "temperature": list(self.temperatures)}

    @classmethod
    def from_json(cls, document: dict) -> RegionTemperatureScaling:
        """The calibrator that `to_json` described; a record's entry will do."""
        if document.get("method", "temperature") != "temperature":
            raise ValueError(f"not a temperature: method {document['method']!r}")
        return cls(tuple(float(value) for value in document["temperature"]))


@dataclass(frozen=True)
class FittedRegionTemperatures:
    """What the fits of all regions found: `regions` holds a `FittedTemperature` each, in the order of `names`."""

    names: tuple[str, ...]
    regions: tuple[FittedTemperature, ...]

    @property
    def temperature(self) -> tuple[float, ...]:
        """T of each region."""
        return tuple(region.temperature for region in self.regions)

    @property
    def interval(self) -> tuple[tuple[float, float], ...]:
        """The 95 % interval of each region's T over cases, (NaN, NaN) with fewer than two cases."""
        return tuple(region.interval for region in self.regions)

    @property
    def status(self) -> str:
        """"ok" where every region's fit is, else the first other status; see `FittedTemperature`."""
        return next((region.status for region in self.regions if region.status != "ok"), "ok")

    @property
    def nll_before(self) -> float:
        """Mean over regions of the mean NLL at T = 1, nats a voxel."""
        return math.fsum(region.nll_before for region in self.regions) / len(self.regions)

    @property
    def nll_after(self) -> float:
        """Mean over regions of the mean NLL at their temperatures, nats a voxel."""
        return math.fsum(region.nll_after for region in self.regions) / len(self.regions)

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that brought voxels."""
        return self.regions[0].cases

    @property
    def voxels(self) -> int:
        """Voxels looked at; each counts for every region."""
        return self.regions[0].voxels

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about the regions' fits, each naming its region."""
        return tuple(
            f"{name} is everywhere or nowhere in the reference labels inside the region of interest"
            for name, region in zip(self.names, self.regions, strict=True)
            if region.warnings
        )

    def calibrator(self) -> RegionTemperatureScaling:
        """The calibrator with these temperatures."""
        return RegionTemperatureScaling(self.temperature)


class RegionTemperatureFit:
    """Accumulator that finds the temperature of each region with the least binary NLL over all added voxels.

    Logits (C, N) are one logit a region and voxel: the NLL of sigmoid(z / T). Logits (M, C, N) are M members: the NLL of
    mean_m sigmoid(z_m / T). See `TemperatureFit`.

    :param names: of the regions, in the order of the heads.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("at least one region is needed")
        self.names = tuple(names)
        self._fits = [TemperatureFit() for _ in self.names]

    def add(self, case_id: str, logits: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels of a case; a case may come in several pieces.

        :param case_id: cases are what the bootstrap draws.
        :param logits: (C, N), or (M, C, N) for members; log-odds will do.
        :param truth: (C, N) bool, where each region truly is. Leave ignored voxels out beforehand.
        :raises CalibUncertaintyError: when logits are NaN or infinite.
        :raises ValueError: when the shapes do not fit together.
        """
        logits, truth = np.asarray(logits), np.asarray(truth)
        members = logits[np.newaxis] if logits.ndim == 2 else logits
        if members.ndim != 3 or members.shape[1] != len(self.names) or truth.shape != members.shape[1:]:
            raise ValueError(f"logits {logits.shape} and truth {truth.shape} do not fit: ([M,] {len(self.names)}, N) and (C, N)")
        if truth.dtype != bool:
            raise ValueError(f"truth must say True or False for each region, got {truth.dtype}")
        for channel, fit in enumerate(self._fits):
            of_region = members[:, channel]
            fit.add(case_id, np.stack([np.zeros_like(of_region), of_region], axis=1), truth[channel].astype(np.uint8))

    def fit(self, bootstrap: int = 1000, seed: int = 0) -> FittedRegionTemperatures:
        """The temperatures in [0.05, 20] with the least mean NLL of each region; see `TemperatureFit.fit`."""
        return FittedRegionTemperatures(self.names, tuple(fit.fit(bootstrap, seed) for fit in self._fits))
