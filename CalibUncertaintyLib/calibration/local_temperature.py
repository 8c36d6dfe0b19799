"""Local temperature: a small network looks at the image and the logits around each voxel and says by how much to divide there.

softmax(z / T(x)) with T(x) > 0 keeps the order of the classes at every voxel, so no label changes. The network starts at the
one temperature that fits all voxels (its last layer is zero), and what is kept is the state with the least NLL on calibration
cases that it was not trained on, the start among them: it cannot end worse than one temperature on these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibUncertaintyError
from .local_network import LocalNetwork
from .softmax import sigmoid, softmax
from .volumes import Triple, clean_logits, slab_windows, with_halo, without_halo

SLAB_VOXELS = 1 << 19


@dataclass(frozen=True)
class LocalTemperature:
    """softmax(z / T(x)), or sigmoid(z_c / T_c(x)) for each region; T(x) = T exp(r tanh(a(x) / r)) > 0, r = ln 20.

    temperatures: the one that fits all voxels, or one a region; network: gives a(x) of image and shift-invariant logits.
    :raises ValueError: when a temperature is not a finite number above 0 or their number is not the network's.
    Source: Ding et al., ICCV 2021 (local temperature scaling); network and bounds are our definition.
    """

    temperatures: tuple[float, ...]
    network: LocalNetwork
    regions: bool = False
    method = "local_temperature"
    spatial = True

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value > 0 for value in self.temperatures):
            raise ValueError(f"temperatures must be finite numbers above 0, got {self.temperatures}")
        if len(self.temperatures) != self.network.outputs:
            raise ValueError(f"{len(self.temperatures)} temperatures for a network that gives {self.network.outputs}")

    @property
    def preserves(self) -> str:
        """ "order" for softmax; "decisions" for sigmoid heads, each region having its own T(x)."""
        return "decisions" if self.regions else "order"

    @property
    def halo(self) -> Triple:
        """Voxels of context in (z, y, x)."""
        return self.network.halo

    def transform(self, logits: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
        """(C, Z, Y, X) logits, and the image (Z, Y, X) in HU that a fit with images needs, to float32 probabilities.

        :raises CalibUncertaintyError: when logits or image are NaN, or the image that was fitted with is not given.
        :raises ValueError: when the shapes do not fit.
        """
        logits = np.asarray(logits)
        result = np.empty(logits.shape, np.float32)
        for window, centred, temperature in self._by_slab(logits, image):
            z = centred / temperature
            result[(slice(None), *window)] = sigmoid(z) if self.regions else softmax(z)
        return result

    def temperature_map(self, logits: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
        """T(x), (Z, Y, X) float32, or of regions (C, Z, Y, X); see `transform`."""
        logits = np.asarray(logits)
        result = np.empty((len(self.temperatures), *logits.shape[1:]), np.float32)
        for window, _, temperature in self._by_slab(logits, image):
            result[(slice(None), *window)] = temperature
        return result if self.regions else result[0]

    def _by_slab(self, logits: np.ndarray, image: np.ndarray | None):
        """(window, its clean logits, T(x) there as (1 or C, z, y, x) float32) over the whole volume."""
        channels = self.network.channels
        if logits.ndim != 4 or len(logits) != channels:
            raise ValueError(f"expected logits ({channels}, Z, Y, X), got {logits.shape}")
        if self.network.with_image:
            if image is None:
                raise CalibUncertaintyError(
                    "this local temperature was fitted with the CT and needs it; give the image"
                )
            if np.shape(image) != logits.shape[1:]:
                raise ValueError(f"image {np.shape(image)} and logits {logits.shape} do not fit")
        for window in slab_windows(logits.shape[1:], SLAB_VOXELS):
            centred = clean_logits(with_halo(logits, window, self.halo), self.regions)
            around = with_halo(np.asarray(image), window, self.halo) if self.network.with_image else None
            exponent = self.network.exponents(centred, around)
            base = np.asarray(self.temperatures, np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
            yield window, without_halo(centred, self.halo), base * np.exp(exponent)

    def to_json(self) -> dict:
        """{"method", "regions", "temperature": [T, ...], "network": see `LocalNetwork.to_json`}."""
        return {
            "method": self.method, "regions": self.regions, "temperature": list(self.temperatures),
            "network": self.network.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict) -> LocalTemperature:
        """The calibrator that `to_json` described."""
        if document.get("method") != cls.method:
            raise ValueError(f"not a local temperature: method {document.get('method')!r}")
        temperatures = tuple(float(value) for value in document["temperature"])
        return cls(temperatures, LocalNetwork.from_json(document["network"]), bool(document["regions"]))


@dataclass(frozen=True)
class FittedLocalTemperature:
    """What a fit found.

    `status` is "ok", "no_gain" (nothing was better on the held-out cases than one temperature, which is kept), "one_case" (none
    to hold out: one temperature is kept) or "empty_roi" (no voxel: figures NaN, no calibrator). `nll_before` (T = 1),
    `nll_global` (one temperature) and `nll_after` are means over all kept ROI voxels, in nats; `held_out_nll` the three on the
    held-out cases alone, NaN where there are none: the figures to go by, though the stop was chosen on these cases. `history`
    holds {"step", "train", "held_out"}, NLL at each look at the held-out cases.
    """

    local: LocalTemperature | None
    status: str
    nll_before: float
    nll_global: float
    nll_after: float
    held_out_nll: tuple[float, float, float]
    cases: tuple[str, ...]
    held_out: tuple[str, ...]
    voxels: int
    warnings: tuple[str, ...] = ()
    history: tuple[dict, ...] = ()

    def calibrator(self) -> LocalTemperature:
        """The calibrator. Raises CalibUncertaintyError where there was no voxel to fit on."""
        if self.local is None:
            raise CalibUncertaintyError(
                "no voxel lies in the region of interest of any case; there is no temperature to use"
            )
        return self.local


def held_out_cases(cases: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """The cases to stop by, drawn by chance: this share, at least one, and one must be left; () of fewer than two."""
    if len(cases) < 2:
        return ()
    count = min(len(cases) - 1, max(1, round(share * len(cases))))
    return tuple(sorted(np.random.default_rng(seed).choice(sorted(cases), count, replace=False).tolist()))
