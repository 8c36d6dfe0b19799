"""Where uncertainty is shown: how far from which structures, on which side of their surface."""

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

ALL_STRUCTURES = ""
BOTH, INSIDE, OUTSIDE = "both", "inside", "outside"


@dataclass(frozen=True)
class RoiChoice:
    """A region of interest, as `CalibUncertaintyLib.uncertainty.roi.roi_of` defines it.

    `distanceMm` - largest distance from the structures, in mm; without meaning inside of them. `structure` - name of the
    only one that counts, or ALL_STRUCTURES. `side` - BOTH, INSIDE or OUTSIDE.
    """

    distanceMm: float
    structure: str = ALL_STRUCTURES
    side: str = BOTH

    @property
    def limits(self):
        """Distances d (mm) with low < d <= high lie in the region; d is 0 inside the structures."""
        from CalibUncertaintyLib.uncertainty.roi import ROUNDING_MM

        low = 0.0 if self.side == OUTSIDE else -1.0
        return np.float32(low), np.float32(0.0 if self.side == INSIDE else self.distanceMm + ROUNDING_MM)


def structureDistance(result, structure):
    """Distance of each voxel of the maps' box from one structure, for a thread: it takes seconds on a whole CT.

    :param result: `Result`.
    :param structure: name of a structure.
    :return: `Volume` in mm, 0 inside; +inf everywhere where the structure was not predicted.
    :raises CalibUncertaintyError: where a package is missing that the first run installs.
    """
    from CalibUncertaintyLib.errors import CalibUncertaintyError
    from CalibUncertaintyLib.uncertainty.roi import distance_to_structures

    if result.overlapping:  # of regions that overlap, a label is only the part that belongs to no region inside
        volume = result.probability(structure)
        inside = volume.array >= 0.5
    else:
        box = result.provenance["box"]
        volume = result.segmentation.crop(box["start_xyz"][::-1], box["size_xyz"][::-1])
        label = next(number for number, name in result.labels.items() if name == structure)
        inside = volume.array == label
    try:
        distance = distance_to_structures(inside, volume.spacing_zyx)
    except ImportError as error:
        text = _("The distance from {structure} alone needs the package {package}, which is installed before the first run; show "
                 "uncertainty around all structures until then")  # fmt: skip
        raise CalibUncertaintyError(text.format(structure=structure, package=error.name)) from error
    return volume.with_array(distance)
