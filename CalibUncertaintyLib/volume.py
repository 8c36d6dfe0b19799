"""`Volume`: voxels with their geometry. Everything spatial is in millimetres, LPS as SimpleITK and DICOM have it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .ct_digest import ct_digest
from .errors import CalibUncertaintyError
from .nrrd_file import can_write, write_nrrd

# A rotation stored in single precision, as NIfTI does, is orthonormal to about 1e-6; a tilted gantry is off by 1e-2 and more.
ORTHOGONALITY_TOLERANCE = 1e-3
ROUNDING_TOLERANCE = 1e-6
LONGEST_NAME = 255  # bytes
# ITK's axis letters in RAS+ terms: what one axis of the patient is called at its two ends.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient.

    array: (z, y, x), any numeric type. spacing_zyx: mm, in the order of the array's axes. origin_lps: mm, centre of voxel
    (0, 0, 0) as (x, y, z) in LPS. direction_lps: 3x3, its columns are the directions of the x, y and z index axes in LPS;
    axes that are off right angles by no more than ORTHOGONALITY_TOLERANCE become the nearest rotation (or reflection).
    metadata: text that NRRD files carry.
    """

    array: np.ndarray
    spacing_zyx: tuple[float, float, float]
    origin_lps: tuple[float, float, float]
    direction_lps: np.ndarray
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # ITK straightens such axes when it writes NIfTI: done here, files, maps and the volume in memory lie in one place
        if ROUNDING_TOLERANCE < deviation_from_right_angles(self.direction_lps) <= ORTHOGONALITY_TOLERANCE:
            left, _, right = np.linalg.svd(self.direction_lps)
            object.__setattr__(self, "direction_lps", left @ right)

    @classmethod
    def read(cls, path: str | Path, series: str | None = None, check: bool = True) -> Volume:
        """Read a NIfTI, NRRD or MHA file, or a DICOM series folder, into a single-channel 3D volume.

        series: the SeriesInstanceUID to take where a DICOM folder holds several. check: also look for what no CT may have (a
        single slice, NaN, skewed axes, missing bytes that ITK is silent about).
        Raises CalibUncertaintyError, one line that names the file, for anything that is not such a volume.
        """
        from . import reading

        return reading.read_volume(Path(path), series, check)

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Take a 3D single-component SimpleITK image."""
        return cls(
            sitk.GetArrayFromImage(image),
            tuple(float(s) for s in image.GetSpacing()[::-1]),
            tuple(float(o) for o in image.GetOrigin()),
            np.asarray(image.GetDirection(), dtype=float).reshape(3, 3),
            {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()},
        )

    def to_sitk(self) -> sitk.Image:
        """The same volume as a SimpleITK image (a copy)."""
        array = self.array.astype(np.uint8) if self.array.dtype == bool else self.array
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing_zyx[::-1])
        image.SetOrigin(self.origin_lps)
        image.SetDirection(self.direction_lps.ravel().tolist())
        for key, value in self.metadata.items():
            image.SetMetaData(key, str(value))
        return image

    def write(self, path: str | Path, compression_level: int = 1) -> None:
        """Write by extension (.nrrd keeps `metadata`), gzip-compressed, and read it back: a full disk does not always say so.

        Raises CalibUncertaintyError naming the file when it cannot be written whole.
        """
        path = Path(path)
        refuse_unusable_name(path)
        try:
            if path.suffix == ".nrrd" and can_write(self):
                whole = write_nrrd(self, path, compression_level)
            else:
                sitk.WriteImage(self.to_sitk(), str(path), True, compression_level)
                image = sitk.ReadImage(str(path))  # kept in a name: the view below does not keep it alive
                written = sitk.GetArrayViewFromImage(image)
                whole = written.shape == self.array.shape and np.array_equal(written, self.array, equal_nan=True)
        except (RuntimeError, OSError) as error:
            raise CalibUncertaintyError(
                f"{path} cannot be written ({_last_line(error)}); check free space and permission of the folder"
            ) from error
        if not whole:
            raise CalibUncertaintyError(
                f"{path} was not written whole; the disk is probably full: free space and run again"
            )

    def with_array(self, array: np.ndarray, metadata: dict[str, str] | None = None) -> Volume:
        """Other voxels (z, y, x) of the same shape in the same place."""
        if array.shape != self.array.shape:
            raise ValueError(f"array has shape {array.shape}, the volume {self.array.shape}")
        return Volume(array, self.spacing_zyx, self.origin_lps, self.direction_lps, dict(metadata or {}))

    def crop(self, start_zyx: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> Volume:
        """The box that begins at voxel `start_zyx` and has `shape_zyx` voxels; its origin moves with it."""
        start, shape = np.asarray(start_zyx, dtype=int), np.asarray(shape_zyx, dtype=int)
        if (start < 0).any() or (shape < 1).any() or (start + shape > self.array.shape).any():
            raise ValueError(f"box {tuple(start)} + {tuple(shape)} does not lie inside {self.array.shape}")
        window = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        origin = tuple(float(v) for v in self.lps_from_index(start))
        return Volume(self.array[window], self.spacing_zyx, origin, self.direction_lps, dict(self.metadata))

    def embed_in(self, reference: Volume, fill: float = 0) -> Volume:
        """Put this crop back into the grid it was cut from; voxels outside it become `fill`.

        Raises ValueError where this volume is not a crop of the reference's grid (to a hundredth of a voxel).
        """
        start = reference.index_from_lps(self.origin_lps)
        rounded = np.rint(start).astype(int)
        stop = rounded + self.array.shape
        same_axes = np.allclose(self.spacing_zyx, reference.spacing_zyx, rtol=1e-4) and np.allclose(
            self.direction_lps, reference.direction_lps, atol=1e-4
        )
        if (
            not same_axes
            or np.abs(start - rounded).max() > 0.01
            or (rounded < 0).any()
            or (stop > reference.array.shape).any()
        ):
            raise ValueError("this volume is not a crop of the reference volume")
        whole = np.full(reference.array.shape, fill, dtype=self.array.dtype)
        whole[tuple(slice(a, b) for a, b in zip(rounded, stop, strict=True))] = self.array
        return reference.with_array(whole, self.metadata)

    def voxels_digest(self) -> str:
        """What tells a CT from others on its voxel grid; see `ct_digest.ct_digest`."""
        return ct_digest(self.array)

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """4x4 matrix from (i=x, j=y, k=z, 1) to RAS mm, as Slicer's volume nodes want it."""
        matrix = np.eye(4)
        matrix[:3, :3] = _LPS_TO_RAS @ self.direction_lps @ np.diag(self.spacing_zyx[::-1])
        matrix[:3, 3] = _LPS_TO_RAS @ np.asarray(self.origin_lps)
        return matrix

    def lps_from_index(self, index_zyx: np.ndarray | Sequence[float]) -> np.ndarray:
        """LPS mm of (fractional) array indices (..., 3) in (z, y, x) order; same leading shape."""
        index_xyz = np.asarray(index_zyx, dtype=float)[..., ::-1]
        return np.asarray(self.origin_lps) + (index_xyz * self.spacing_zyx[::-1]) @ self.direction_lps.T

    def ras_from_index(self, index_zyx: np.ndarray | Sequence[float]) -> np.ndarray:
        """RAS mm of (fractional) array indices (..., 3) in (z, y, x) order; same leading shape."""
        return self.lps_from_index(index_zyx) @ _LPS_TO_RAS

    def index_from_lps(self, point_lps: np.ndarray | Sequence[float]) -> np.ndarray:
        """Fractional array index (z, y, x) of an LPS point in mm."""
        offset = np.asarray(point_lps, dtype=float) - np.asarray(self.origin_lps)
        return ((offset @ self.direction_lps) / self.spacing_zyx[::-1])[..., ::-1]

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_zyx)) / 1000.0


def deviation_from_right_angles(direction: np.ndarray) -> float:
    """Largest difference between the scalar products of a 3x3 matrix's columns and those of unit vectors at right angles."""
    direction = np.asarray(direction, dtype=float)
    with np.errstate(invalid="ignore"):  # infinite values give NaN, which is neither small nor large
        return float(np.abs(direction.T @ direction - np.eye(3)).max())


def refuse_unusable_name(path: str | Path) -> None:
    """Refuse a path that no file can have, or that is no valid text: over bytes of another encoding ITK ends the whole process.

    Raises CalibUncertaintyError in one line.
    """
    try:
        zero = b"\0" in os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise CalibUncertaintyError(
            f"the name {shown} holds characters that are no valid UTF-8; rename the file or its folder"
        ) from error
    if zero:
        raise CalibUncertaintyError(f"the name {os.fspath(path)!r} holds a zero character; check the path")
    longest = max((len(os.fsencode(part)) for part in Path(path).parts), default=0)
    if longest > LONGEST_NAME:
        raise CalibUncertaintyError(
            f"{os.fspath(path)} has a name of {longest} bytes, file systems take {LONGEST_NAME}; check the path"
        )


def _last_line(error: Exception) -> str:
    """ITK's exceptions are paragraphs; the last line says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "No such file" not in line]
    return lines[-1] if lines else type(error).__name__
