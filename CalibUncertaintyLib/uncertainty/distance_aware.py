"""Distance-aware entropy: doubt right at a border between structures is usual, so it counts less the nearer the border is."""

from collections.abc import Sequence

import numpy as np

from .distance_bands import BANDS, bands_of, refuse_nan

FORMS = ("dae", "dae_linear", "dae_resid")
SCALE_MM = 3.0  # a slice or two, within which partial volume blurs every border; our definition
_THIN_SHARE = 0.95  # of the structures' voxels nearer than the scale, where `dae` leaves less than 40 % of the entropy
_BEYOND = 1e-3  # how far rounding may carry a normalised entropy beyond its range


def distance_aware_entropy(
    u: np.ndarray,
    distance: np.ndarray,
    form: str = "dae",
    scale_mm: float = SCALE_MM,
    medians: Sequence[float] | None = None,
) -> np.ndarray:
    """Normalised entropy u, lowered by what is usual at this distance d from the nearest predicted interface.

    `dae`: u (1 - exp(-d^2 / 2 s^2)). `dae_linear`: u min(d, s) / s. `dae_resid`: max(0, u - the median of u over right voxels of
    the same band of distance). Where there is no interface (d infinite, `surface_status`) each of them is u itself.

    :param u: normalised entropy in [0, 1], any shape. :param distance: mm, signed or not, of the same shape.
    :param scale_mm: s, above 0. :param medians: of each band, `ContextLaw.medians`; `dae_resid` needs them, no other form does.
    :returns: float32 in [0, 1] of the same shape.
    :raises CalibUncertaintyError: when u holds NaN.
    :raises ValueError: when u leaves [0, 1] (is it in nats?), the form is unknown, or medians are missing.
    Source: our definition; `dae_linear` has the shape of the distance weighting of Jungo et al. 2020.
    """
    u, distance = np.asarray(u, np.float32), np.asarray(distance, np.float32)
    _check(u, distance, form, scale_mm)
    if form == "dae_resid":
        if medians is None or len(medians) != BANDS:
            raise ValueError(f"dae_resid needs {BANDS} medians, one for each band of distance")
        usual = np.asarray(medians, np.float32)[bands_of(distance)]
        result = np.asarray(u - np.where(np.isinf(distance), np.float32(0), usual))
    else:
        result = np.array(np.abs(distance))
        result /= np.float32(scale_mm)
        if form == "dae":
            np.square(result, out=result)
            result *= np.float32(-0.5)
            np.expm1(result, out=result)
            np.negative(result, out=result)
        else:
            np.minimum(result, np.float32(1), out=result)
        result *= u
    return np.clip(result, 0.0, 1.0, out=result)


def _check(u: np.ndarray, distance: np.ndarray, form: str, scale_mm: float) -> None:
    if u.shape != distance.shape:
        raise ValueError(f"expected arrays of one shape, got {u.shape} and {distance.shape}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if not (np.isfinite(scale_mm) and scale_mm > 0):
        raise ValueError(f"the scale must be above 0 mm, got {scale_mm}")
    refuse_nan(u)
    if np.isnan(distance).any():
        raise ValueError("a distance is NaN")
    if u.size and not (u.min() >= -_BEYOND and u.max() <= 1 + _BEYOND):
        raise ValueError(f"normalised entropy must lie in 0 .. 1, got {u.min()} .. {u.max()}")


def surface_status(distance: np.ndarray) -> str:
    """ "ok", or "no_surface" where no interface was predicted: every distance is infinite then."""
    distance = np.asarray(distance)
    return "ok" if distance.size and np.isfinite(distance.flat[0]) else "no_surface"


def thin_structures_warning(label: np.ndarray, distance: np.ndarray, scale_mm: float = SCALE_MM) -> str | None:
    """A sentence for people where 95 % or more of the structures' voxels lie nearer to an interface than the scale.

    :param label: predicted classes, any shape, 0 is background. :param distance: mm, signed or not, of the same shape.
    :returns: None where there is nothing to warn of.
    """
    inside = np.asarray(label) > 0
    voxels = int(np.count_nonzero(inside))
    near = int(np.count_nonzero(np.abs(np.asarray(distance)[inside]) < scale_mm))
    if voxels == 0 or near < _THIN_SHARE * voxels:
        return None
    return (
        f"The predicted structures are thin: {int(100 * near / voxels)} % of their voxels lie within {scale_mm:g} mm of a border,"
        " where distance-aware entropy is dark; look at the entropy itself there"
    )
