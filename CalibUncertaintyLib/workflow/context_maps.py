"""Measures that know about their surroundings: made once the labels of a whole case are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..model.heads import Heads
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.distance_aware import FORMS, distance_aware_entropy
from ..uncertainty.exceedance import ebcu, ebcu_p, ebcu_self
from ..uncertainty.measures import MEASURES

CONTEXT = tuple(name for name, measure in MEASURES.items() if measure.stage == "context")


def normalised(entropy: np.ndarray, heads: Heads) -> np.ndarray:
    """Entropy in nats as a share of the largest there is, float32 in [0, 1]; of regions their mean is of two classes each."""
    largest = math.log(2 if heads.sigmoid else heads.channels)
    return np.minimum(np.asarray(entropy, np.float32) / np.float32(largest), np.float32(1))


def context_names(wanted: Sequence[str], law: ContextLaw | None) -> list[str]:
    """Those of the wanted measures that can be had: some need to know what is usual."""
    known = law is not None and law.status == "ok"
    return [
        name
        for name in wanted
        if name in CONTEXT
        and (known or not MEASURES[name].needs_law)
        and (name != "ebcu_p" or (law.pooled is not None and law.pooled.status == "ok"))
    ]


def context_maps(
    names: Sequence[str], u: np.ndarray, label: np.ndarray, signed: np.ndarray, roi: np.ndarray, spacing: Sequence[float],
    law: ContextLaw | None, pooled: np.ndarray | None = None,
) -> Iterator[tuple[str, np.ndarray]]:  # fmt: skip
    """(name, (z, y, x) float32 map) of each of these measures, one at a time.

    u: (z, y, x) calibrated normalised entropy. label: predicted labels. signed: mm to the interfaces, below 0 inside structures.
    roi: bool, near the predicted structures; `ebcu...` is 0 outside. spacing: mm. law: what is usual; None without calibration.
    pooled: (z, y, x) `ebcu` of these by this law, where it is known already.
    """
    for name in names:
        if name in FORMS:
            yield name, distance_aware_entropy(u, signed, name, medians=law.medians if name == "dae_resid" else None)
        elif name == "ebcu_self":
            yield name, ebcu_self(u, label, signed, roi, tuple(spacing))
        else:
            if pooled is None:
                pooled = ebcu(u, label, signed, roi, tuple(spacing), law)
            yield name, pooled if name == "ebcu" else ebcu_p(pooled, signed, roi, law.pooled)
