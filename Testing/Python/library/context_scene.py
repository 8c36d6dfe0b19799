"""A made-up patient for measures that look at surroundings: two touching structures, and doubt that is usual at their borders."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from CalibUncertaintyLib.uncertainty.interface_distance import signed_distance
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures, roi_mask

LABELS = (0, 1, 2)


@dataclass
class Scene:
    """Labels, signed distance in mm, region of interest and normalised entropy u, (z, y, x) each."""

    label: np.ndarray
    signed: np.ndarray
    roi: np.ndarray
    u: np.ndarray
    spacing: tuple[float, float, float]
    centres: np.ndarray  # (z, y, x, 3) mm

    def of_roi(self):
        """What a law is fitted on: u, label and signed distance of the region of interest, (N,) each."""
        return self.u[self.roi], self.label[self.roi], self.signed[self.roi]

    def ball(self, centre, radius):
        """The voxels within `radius` mm of a place in mm."""
        return ((self.centres - np.asarray(centre)) ** 2).sum(axis=-1) <= radius**2


def scene(seed=0, spacing=(1.0, 1.0, 1.0), side_mm=56, shift=(0.0, 0.0, 0.0), correlated_mm=0.0, roi_mm=15.0):
    """A ball of 24 mm across whose upper part is another structure, with doubt that fades away from every border.

    The noise on it is spread as a standard normal on the logit's scale, independent or correlated over some mm.
    """
    shape = tuple(round(side_mm / step) for step in spacing)
    centres = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), axis=-1
    )
    from_centre = centres - (side_mm / 2 + np.asarray(shift))
    label = ((from_centre**2).sum(axis=-1) <= 12.0**2).astype(np.uint8)
    label[(label > 0) & (from_centre[..., 0] > 2)] = 2
    signed = signed_distance(label, spacing)
    roi = roi_mask(distance_to_structures(label, spacing), roi_mm)
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if correlated_mm:
        noise = gaussian_filter(noise, [correlated_mm / step for step in spacing], mode="wrap")
        noise /= noise.std()
    usual = 1.5 - 1.1 * np.minimum(np.abs(signed), 6) - 0.4 * label
    u = (1 / (1 + np.exp(-(usual + noise)))).astype(np.float32)
    return Scene(label, signed, roi, u, spacing, centres)
