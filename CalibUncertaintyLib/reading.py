"""Reading volumes from files that people really have: what is not a CT-like volume is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_check import check_left_out, check_slices, tags_of
from .errors import CalibUncertaintyError
from .nifti_check import check_nifti, check_nifti_header
from .volume import ORTHOGONALITY_TOLERANCE, Volume, _last_line, deviation_from_right_angles, refuse_unusable_name

FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd) or a folder with a DICOM series"
LOWEST_STORED, HIGHEST_STORED = -32768, 65535  # what 16 bits hold, signed or not: no scanner writes more
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.01, 100.0  # outside this the unit is wrong, or the header


def read_volume(path: Path, series: str | None = None, check: bool = True) -> Volume:
    """See `Volume.read`."""
    refuse_unusable_name(path)
    if not path.exists():
        raise CalibUncertaintyError(f"{path} does not exist; check the path")
    try:
        image = _read_dicom(path, series) if path.is_dir() else _read_file(path, check)
    except PermissionError as error:
        raise CalibUncertaintyError(f"{path} may not be read; check its permissions") from error
    volume = Volume.from_sitk(image)
    if check:
        check_volume(volume, path)
    return volume


def open_image(path: Path) -> sitk.ImageFileReader:
    """A reader that has read the header of an image file, and none of its voxels.

    Raises CalibUncertaintyError, one line that names the file, for what is no image.
    """
    refuse_unusable_name(path)
    if not path.is_file():  # a pipe would keep us waiting for ever
        raise CalibUncertaintyError(f"{path} is neither a file nor a folder; it reads {FORMATS}")
    with path.open("rb") as stream:  # says "permission" and "empty" before ITK says something else
        if not stream.read(1):
            raise CalibUncertaintyError(f"{path} is an empty file; copy or export the CT again")
    if _is_nifti(path):
        check_nifti_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _QuietItk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        if _is_nifti(path):
            check_nifti(path)  # damaged is another thing than not being one
        raise CalibUncertaintyError(
            f"{path} is not an image this program can read ({_last_line(error)}); it reads {FORMATS}"
        ) from error
    return reader


def _read_file(path: Path, check: bool) -> sitk.Image:
    reader = open_image(path)
    if path.suffix.lower() == ".dcm" or reader.HasMetaDataKey("0008|0060"):
        raise CalibUncertaintyError(f"{path} is a single DICOM file; give the folder that holds the whole series")
    _check_layout(path, reader.GetSize(), reader.GetNumberOfComponents(), slices=check)
    if check and _is_nifti(path):
        check_nifti(path)
    try:
        with _QuietItk():
            return reader.Execute()
    except RuntimeError as error:
        if _is_of_geometry(str(error)):
            raise CalibUncertaintyError(
                f"{path} has a voxel size of 0, or axes that do not span a volume ({_last_line(error)}); export it again"
            ) from error
        raise CalibUncertaintyError(
            f"{path} cannot be read to its end ({_last_line(error)}); it is probably truncated: copy or export it again"
        ) from error


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _is_of_geometry(message: str) -> bool:
    """Whether ITK refused a spacing or a direction, and not the voxels."""
    return "spacing" in message or "determinant" in message.lower()


class _QuietItk(sitk.LoggerBase):
    """Keeps ITK's own warnings out of the terminal while a folder is searched; what they mean is said in our words."""

    def __enter__(self) -> _QuietItk:
        self._previous = self.SetAsGlobalITKLogger()
        return self

    def __exit__(self, *_) -> None:
        self._previous.SetAsGlobalITKLogger()

    def _drop(self, text: str) -> None:
        """Not shown."""

    DisplayText = DisplayErrorText = DisplayWarningText = DisplayGenericOutputText = DisplayDebugText = _drop


def _check_layout(path: str | Path, size: tuple[int, ...], components: int, slices: bool = True) -> None:
    if components != 1:
        raise CalibUncertaintyError(
            f"{path} has {components} values in each voxel (a colour or vector image); a CT has one: export it as a scalar volume"
        )
    shown = " x ".join(str(n) for n in size)
    if len(size) > 3 and any(n > 1 for n in size[3:]):
        raise CalibUncertaintyError(f"{path} is {len(size)}D ({shown}); give one 3D volume: export a single time point")
    if len(size) != 3:
        raise CalibUncertaintyError(f"{path} is {len(size)}D ({shown}); a 3D CT volume is needed")
    if slices and min(size) < 2:
        raise CalibUncertaintyError(
            f"{path} has a single slice ({shown} voxels); a CT of at least two slices is needed"
        )


def check_volume(volume: Volume, path: str | Path) -> None:
    """Refuse a volume that no CT can be: not three-dimensional, one slice, absurd voxel size, skewed axes, NaN. `path` names it."""
    _check_layout(path, volume.array.shape[::-1], 1)
    if not all(SMALLEST_VOXEL_MM <= size <= LARGEST_VOXEL_MM for size in volume.spacing_zyx):  # NaN is not in it either
        shown = " x ".join(f"{size:g}" for size in volume.spacing_zyx[::-1])
        raise CalibUncertaintyError(
            f"{path} has the voxel size {shown} mm; a CT's lies between {SMALLEST_VOXEL_MM:g} and {LARGEST_VOXEL_MM:g} mm:"
            " export it with the real one"
        )
    if not (np.isfinite(volume.origin_lps).all() and np.isfinite(volume.direction_lps).all()):
        raise CalibUncertaintyError(
            f"{path} has an origin or directions of its axes that are not numbers (NaN or infinite); export it again"
        )
    if deviation_from_right_angles(volume.direction_lps) > ORTHOGONALITY_TOLERANCE:
        raise CalibUncertaintyError(
            f"{path} has axes that are not at right angles (a tilted gantry?); resample it to a rectangular grid first"
        )
    if np.issubdtype(volume.array.dtype, np.floating):
        broken = int(volume.array.size - np.count_nonzero(np.isfinite(volume.array)))
        if broken:
            raise CalibUncertaintyError(
                f"{path} holds {broken:,} voxels that are not numbers (NaN or infinite); export it again or fill them"
            )
        largest = float(max(volume.array.max(), -volume.array.min()))
        if largest > float(np.finfo(np.float32).max):  # networks compute in single precision, where it is infinite
            raise CalibUncertaintyError(
                f"{path} holds values up to {largest:.3g}, which no network can take; export it again in Hounsfield units"
            )


def check_is_ct(volume: Volume, path: str | Path) -> list[str]:
    """Refuse what plainly holds no Hounsfield units; return warnings about what is only strange.

    The rules are ours: a constant image, an image with values in [0, 1], and an image of few whole non-negative values (a label
    map) are refused; an image without any value below 0 HU (no air, no fat) is a warning, because masked CTs exist, and so are
    values that no 16 bits hold, which may be of a few voxels at metal.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high:
        raise CalibUncertaintyError(f"{path} has the same value ({low:g}) in every voxel; it is not a CT")
    if low >= 0 and high <= 1:
        raise CalibUncertaintyError(
            f"{path} has values between 0 and 1; a CT in Hounsfield units is needed, not a rescaled one"
        )
    if low >= 0 and high < 256:
        sample = np.unique(volume.array[:: max(1, volume.array.shape[0] // 16)])
        if len(sample) < 64 and np.array_equal(sample, np.rint(sample)):
            raise CalibUncertaintyError(
                f"{path} looks like a label map ({len(sample)} whole values up to {high:g}), not like a CT; give the CT"
            )
    if low < LOWEST_STORED or high > HIGHEST_STORED:
        return [
            f"The CT holds values from {low:.6g} to {high:.6g}, which are no Hounsfield units: is it scaled, or was it damaged when"
            " it was exported?"
        ]
    if low >= 0:
        return [
            f"No voxel of the CT is below 0 HU (lowest {low:g}): were the Hounsfield units shifted when it was exported?"
        ]
    if high < 50:
        return [f"No voxel of the CT is above {high:g} HU: is it in Hounsfield units?"]
    return []


def _read_dicom(folder: Path, series: str | None) -> sitk.Image:
    for entry in folder.iterdir():
        refuse_unusable_name(entry)
    with _QuietItk():
        series_ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        found = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series_ids}
    listed = [name for names in found.values() for name in names]
    if not found:
        check_left_out(folder, listed)
        raise CalibUncertaintyError(f"{folder} holds no DICOM series; it reads {FORMATS}")
    if series is not None and series not in found:
        raise CalibUncertaintyError(f"{folder} holds no DICOM series {series}; it holds {', '.join(found)}")
    if series is None and len(found) > 1:
        choices = "; ".join(f"{uid} ({tags_of(names[0], '0008|103e')[0] or 'no description'}, {len(names)} files)"
                            for uid, names in found.items())  # fmt: skip
        raise CalibUncertaintyError(f"{folder} holds {len(found)} DICOM series, choose one with --series UID: {choices}")
    uid = series or next(iter(found))
    names = found[uid]
    modality = tags_of(names[0], "0008|0060")[0]
    if modality and modality != "CT":
        raise CalibUncertaintyError(
            f"{folder} holds a DICOM series of modality {modality}, not CT; for a model that wants such an image, give it as NIfTI,"
            " NRRD or MHA, in the units the model was trained on"
        )
    check_left_out(folder, listed, names[0])
    if len(names) < 2:
        raise CalibUncertaintyError(
            f"{folder} holds a single slice of series {uid}; a CT of at least two slices is needed"
        )
    check_slices(folder, names)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise CalibUncertaintyError(f"{folder}: the DICOM series cannot be read ({_last_line(error)})") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise CalibUncertaintyError(f"{folder} holds colour images, not a CT")
    return image
