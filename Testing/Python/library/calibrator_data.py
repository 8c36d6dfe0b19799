"""Synthetic logits and truth that the tests of the calibrators share."""

import numpy as np
from scipy.special import expit


def drawn_classes(voxels: int = 40_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True log-odds (C, N), the first class the most frequent, and labels drawn from them (the Gumbel trick)."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(scale=2.0, size=(classes, voxels))
    log_odds[0] += 3.0 * (random.random(voxels) < 0.5)
    return log_odds, (log_odds + random.gumbel(size=log_odds.shape)).argmax(axis=0)


def drawn_regions(voxels: int = 40_000, regions: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True log-odds (C, N) of regions, and the truth drawn from them, (C, N) bool."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(-1.0, 2.5, size=(regions, voxels))
    return log_odds, random.random(log_odds.shape) < expit(log_odds)


def fitted(fit, logits: np.ndarray, truth: np.ndarray):
    """What a fit finds of one case."""
    fit.add("case", logits, truth)
    return fit.fit()
