"""`CaseTraits`: what a CT, and the run on it, look like; compared with the cases of a calibration by `CalibratedRange`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..body import BODY_HU
from ..errors import CalibUncertaintyError
from ..model.calibrated_range import ENTROPY, ENTROPY_OF, VOLUME_OF
from ..volume import Volume

PERCENTILES = (0.5, 50.0, 99.5)
SAMPLED_VOXELS = 500_000
CHUNK_VOXELS = 65536


@dataclass(frozen=True)
class CaseTraits:
    """What is looked at in one CT, and where a run has been made in that run.

    spacing_mm, field_of_view_mm: (z, y, x), in the order of the array's axes. hu: percentiles 0.5, 50 and 99.5 of the body (voxels
    above -300 HU; of all voxels where there is none). body_share: of the voxels, 0 to 1. Of a run, None and {} without: roi_mm,
    the distance of the ROI; entropy: its mean within that distance of the predicted structures, nats, None where nothing was
    predicted; entropy_of: its mean inside each predicted structure; volumes_ml: of each structure of the model, 0 where it was
    not predicted.
    """

    spacing_mm: tuple[float, float, float]
    field_of_view_mm: tuple[float, float, float]
    hu: tuple[float, float, float]
    body_share: float
    roi_mm: float | None = None
    entropy: float | None = None
    entropy_of: dict[str, float] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, float]:
        """Every known trait by its name, as in "spacing_z_mm", "hu_median", "entropy", "entropy:Liver", "volume_ml:Liver"."""
        values: dict[str, float | None] = {
            **{f"spacing_{axis}_mm": value for axis, value in zip("zyx", self.spacing_mm, strict=True)},
            **{f"field_of_view_{axis}_mm": value for axis, value in zip("zyx", self.field_of_view_mm, strict=True)},
            **dict(zip(("hu_low", "hu_median", "hu_high"), self.hu, strict=True)),
            "body_share": self.body_share,
            ENTROPY: self.entropy,
            **{ENTROPY_OF + name: value for name, value in self.entropy_of.items()},
            **{VOLUME_OF + name: value for name, value in self.volumes_ml.items()},
        }
        return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}

    def with_run(
        self, entropy: np.ndarray, label: np.ndarray, near: np.ndarray, names: Mapping[int, str], voxel_ml: float, roi_mm: float
    ) -> CaseTraits:  # fmt: skip
        """The same CT with what a calibrated run said about it.

        :param entropy: nats, of the calibrated pooled probability; any shape, at least all voxels within the ROI distance.
        :param label: predicted label numbers, same shape, 0 is background.
        :param near: bool, same shape: within `roi_mm` of a predicted structure (`uncertainty.roi.roi_mask`).
        :param names: structure of each label number, as `ModelFolder.labels`; other numbers count for the ROI alone.
        :param voxel_ml: volume of a voxel, mL. roi_mm: mm; the same as for the calibration cases, or the means do not compare.
        :raises ValueError: when the shapes differ.
        Source: mean entropy of a predicted structure, Mehrtash et al. 2020, Eq. 7, here of the entropy of all classes.
        """
        if not entropy.shape == label.shape == near.shape:
            raise ValueError(f"shapes differ: {entropy.shape}, {label.shape} and {near.shape}")
        bins = max(names, default=0) + 1
        counts, sums = np.zeros(bins, np.int64), np.zeros(bins)
        in_roi, of_roi = 0, 0.0
        for part in _parts(entropy.shape):
            values, numbers = entropy[part].ravel().astype(np.float64), label[part].ravel()
            mask = near[part].ravel()
            in_roi += int(np.count_nonzero(mask))
            of_roi += float(values[mask].sum())
            known = (numbers > 0) & (numbers < bins)
            numbers = numbers[known].astype(np.intp)
            counts += np.bincount(numbers, minlength=bins)
            sums += np.bincount(numbers, values[known], minlength=bins)
        return replace(
            self,
            roi_mm=float(roi_mm),
            entropy=of_roi / in_roi if in_roi else None,
            entropy_of={name: float(sums[k] / counts[k]) for k, name in names.items() if counts[k]},
            volumes_ml={name: float(counts[k] * voxel_ml) for k, name in names.items()},
        )


def traits_of_ct(volume: Volume) -> CaseTraits:
    """Of a CT in Hounsfield units, before any run.

    HU are looked at on a regular lattice of up to 500,000 voxels: every n-th along each axis, the axis with the most samples being
    thinned first. That takes milliseconds whatever the size of the CT, and a percentile of the body moves by about a tenth of
    a percentage point of its rank.
    Raises CalibUncertaintyError where none of these voxels is a number.
    """
    sample = volume.array[lattice(volume.array.shape)].ravel()
    if np.issubdtype(sample.dtype, np.floating):
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        raise CalibUncertaintyError("the CT holds no voxel that is a number; export it again")
    body = sample[sample > BODY_HU]
    percentiles = np.percentile(body if body.size else sample, PERCENTILES)
    return CaseTraits(
        tuple(float(step) for step in volume.spacing_zyx),
        tuple(float(n * step) for n, step in zip(volume.array.shape, volume.spacing_zyx, strict=True)),
        tuple(float(value) for value in percentiles),
        body.size / sample.size,
    )


def lattice(shape: Sequence[int], most: int = SAMPLED_VOXELS) -> tuple[slice, ...]:
    """Slices with steps that leave at most `most` voxels of a volume, spread evenly; all of them where it has no more."""
    steps = [1] * len(shape)

    def left() -> list[int]:
        return [-(-n // step) for n, step in zip(shape, steps, strict=True)]

    while math.prod(left()) > most:
        steps[int(np.argmax(left()))] += 1
    return tuple(slice((n - 1) % step // 2, None, step) for n, step in zip(shape, steps, strict=True))


def _parts(shape: Sequence[int]) -> Iterator[slice]:
    """Pieces along the first axis, of about 65536 voxels, at least one row each."""
    rows = max(1, CHUNK_VOXELS // max(1, math.prod(shape[1:])))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
