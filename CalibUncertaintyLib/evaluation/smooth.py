"""Calibration error without bins: residuals smoothed by a kernel whose width the error itself chooses."""

from __future__ import annotations

import math

import numpy as np

NARROWEST = 1e-3  # two cells of the histogram: a narrower kernel would see its cells, not its values
PRECISION = 1e-10
MOST_STEPS = 60  # a bound, far beyond what the search takes


def smooth_error(n: np.ndarray, p: np.ndarray, positives: np.ndarray) -> tuple[float, float]:
    """Smooth calibration error and the width of its kernel, from a fine histogram over [0, 1].

    With residuals y_i - p_i at the places p_i, smoothed by a Gaussian of width s that is reflected at 0 and 1,
    smECE_s = integral over t in [0, 1] of |1/n sum_i K_s(t, p_i) (y_i - p_i)|. It falls as s grows; the figure is the one at
    the s with smECE_s = s, no narrower than 1e-3. All residuals of a cell sit at its middle, which moves
    them by at most half a cell; with F cells the figure is right to about 1/(2 F s) of itself.

    :param n: (F,) voxels in each of F equally wide cells from 0 to 1.
    :param p: (F,) sums of their probabilities.
    :param positives: (F,) how many of them are positive.
    :returns: the error in [0, 1] and the width in [1e-3, 1]; (NaN, NaN) without voxels.
    Source: Blasiok & Nakkiran 2024 (Smooth ECE), definitions 1 and 2, with the reflected kernel.
    """
    total = n.sum()
    if total == 0:
        return math.nan, math.nan
    residuals = (positives - p) / total
    # the even extension of period 2 makes the reflected kernel a plain periodic one, which is a product of spectra
    spectrum = np.fft.rfft(np.concatenate([residuals, residuals[::-1]]))
    frequency = np.arange(spectrum.size) / 2.0

    def error(width: float) -> float:
        damped = spectrum * np.exp(-2.0 * (np.pi * width * frequency) ** 2)
        return float(np.abs(np.fft.irfft(damped, 2 * residuals.size)[: residuals.size]).sum())

    low, high = NARROWEST, 1.0
    at_low, at_high = error(low) - low, error(high) - high
    if at_low <= 0.0:
        return at_low + low, low
    if at_high >= 0.0:
        return at_high + high, high
    # false position after Illinois: the end that stays is halved, so both ends close in
    for _ in range(MOST_STEPS):
        width = (low * at_high - high * at_low) / (at_high - at_low)
        here = error(width) - width
        if abs(here) <= PRECISION:
            break
        if here > 0.0:
            low, at_low, at_high = width, here, 0.5 * at_high
        else:
            high, at_high, at_low = width, here, 0.5 * at_low
    return here + width, width
