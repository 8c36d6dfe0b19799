"""Where uncertainty is shown: how far from which structures, on which side of their surface."""

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

ALL_STRUCTURES = ""
BOTH, INSIDE, OUTSIDE = "both", "inside", "outside"
IN_STRUCTURES, IN_BODY, ELSEWHERE = 0, 1, 255
BODY_SHARE = "CalibUncertainty.BodyShare"


@dataclass(frozen=True)
class RoiChoice:
    """A region of interest, as `CalibUncertaintyLib.uncertainty.roi.roi_of` defines it.

    `distanceMm` - largest distance from the structures, in mm; without meaning inside of them. `structure` - name of the
    only one that counts, or ALL_STRUCTURES. `side` - BOTH, INSIDE or OUTSIDE. `ofBody` - the patient's body in place of a
    distance; then the side is that of all structures.
    """

    distanceMm: float
    structure: str = ALL_STRUCTURES
    side: str = BOTH
    ofBody: bool = False

    @property
    def limits(self):
        """Distances d (mm) with low < d <= high lie in the region; d is 0 inside the structures. Of the body: of `bodyPlaces`."""
        if self.ofBody:
            return (0 if self.side == OUTSIDE else -1), (IN_STRUCTURES if self.side == INSIDE else IN_BODY)
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


def bodyPlaces(result, ct=None):
    """Where each voxel of the maps' box lies, for a thread: it takes seconds on a whole CT.

    :param result: `Result`; one that was made in the body brings it.
    :param ct: the CT that it was made from, a `Volume`, or None.
    :return: `Volume` of uint8: IN_STRUCTURES, IN_BODY or ELSEWHERE; a structure outside of the body is elsewhere. Its metadata
        say under BODY_SHARE which part of the body the box holds.
    :raises CalibUncertaintyError: where there is no CT, no body in it, or a package is missing that the first run installs.
    """
    box = result.provenance["box"]
    start, size = box["start_xyz"][::-1], box["size_xyz"][::-1]
    labels = result.segmentation.crop(start, size)
    if result.of_body:
        body, share = result.body.array > 0, 1.0
    else:
        whole = _bodyOf(ct)
        body = whole[tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))]
        share = np.count_nonzero(body) / np.count_nonzero(whole)
    places = np.full(labels.array.shape, ELSEWHERE, np.uint8)
    places[body] = IN_BODY
    places[body & (labels.array > 0)] = IN_STRUCTURES
    return labels.with_array(places, {BODY_SHARE: repr(float(share))})


def _bodyOf(ct):
    from CalibUncertaintyLib.body import body_of
    from CalibUncertaintyLib.errors import CalibUncertaintyError

    if ct is None:
        text = _("The body is found in the CT of this result, which is not shown: load it and choose it above as CT")
        raise CalibUncertaintyError(text)
    try:
        return body_of(ct, _("The CT"))
    except ImportError as error:
        text = _("The body needs the package {package}, which is installed before the first run; show uncertainty around the "
                 "structures until then")  # fmt: skip
        raise CalibUncertaintyError(text.format(package=error.name)) from error
