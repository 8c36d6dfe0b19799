"""Reading and writing volumes: geometry survives, and what is not a CT is refused in one line that names the file."""

import os
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import rotation

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.reading import check_is_ct, check_volume
from CalibUncertaintyLib.volume import Volume


@pytest.fixture
def volume():
    array = np.random.default_rng(0).integers(-1000, 1500, (5, 7, 9)).astype(np.int16)
    return Volume(array, (3.0, 1.5, 0.5), (-10.0, 20.0, 30.5), rotation(20))


def write(path, array, is_vector=False, spacing=None, direction=None):
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    if spacing:
        image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("extension", ["nii.gz", "nii", "nrrd", "mha"])
def test_a_volume_comes_back_from_its_file_with_its_geometry(volume, extension, tmp_path):
    volume.write(tmp_path / f"a.{extension}")
    again = Volume.read(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.spacing_zyx, volume.spacing_zyx, rtol=1e-6)
    np.testing.assert_allclose(again.origin_lps, volume.origin_lps, atol=1e-4)
    np.testing.assert_allclose(again.direction_lps, volume.direction_lps, atol=1e-6)


def test_positions_agree_with_simpleitk(volume):
    image = volume.to_sitk()
    for index in [(0, 0, 0), (4, 2, 8), (1, 6, 3)]:
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(volume.lps_from_index(index), expected, atol=1e-9)
        np.testing.assert_allclose(volume.ras_from_index(index), np.array(expected) * [-1, -1, 1], atol=1e-9)
        np.testing.assert_allclose(volume.index_from_lps(expected), index, atol=1e-9)
        np.testing.assert_allclose((volume.ijk_to_ras @ [*index[::-1], 1])[:3], volume.ras_from_index(index), atol=1e-9)


def test_a_crop_lies_where_it_was_cut_and_goes_back_there(volume):
    crop = volume.crop((1, 2, 3), (2, 4, 5))
    np.testing.assert_allclose(crop.lps_from_index((0, 0, 0)), volume.lps_from_index((1, 2, 3)))
    whole = crop.embed_in(volume, fill=-7)
    np.testing.assert_array_equal(whole.array[1:3, 2:6, 3:8], volume.array[1:3, 2:6, 3:8])
    assert np.count_nonzero(whole.array != -7) <= 2 * 4 * 5


def test_a_crop_of_another_grid_is_not_embedded(volume):
    other = Volume(volume.array, volume.spacing_zyx, (0.0, 0.0, 0.0), volume.direction_lps)
    with pytest.raises(ValueError, match="not a crop"):
        volume.crop((0, 0, 0), (2, 2, 2)).embed_in(other)


def test_nrrd_keeps_what_a_map_says_of_itself(volume, tmp_path):
    volume.with_array(volume.array, {"CalibUncertainty.unit": "nats"}).write(tmp_path / "a.nrrd")
    assert Volume.read(tmp_path / "a.nrrd").metadata["CalibUncertainty.unit"] == "nats"


BAD_FILES = {
    "missing": (lambda p: p / "no.nii.gz", "does not exist"),
    "empty": (lambda p: (p / "e.nrrd").touch() or p / "e.nrrd", "is an empty file"),
    "text": (lambda p: (p / "t.nii.gz").write_text("hello") and p / "t.nii.gz", "not an image"),
    "colour": (lambda p: write(p / "c.nrrd", np.zeros((4, 5, 6, 3), np.uint8), True), "3 values in each voxel"),
    "two-dimensional": (lambda p: write(p / "s.nii.gz", np.zeros((5, 6), np.int16)), "is 2D"),
    "one slice": (lambda p: write(p / "o.nii.gz", np.zeros((1, 5, 6), np.int16)), "single slice"),
    "skewed": (
        lambda p: write(p / "k.nrrd", np.zeros((4, 5, 6), np.int16), direction=[[1, 0, 0.2], [0, 1, 0], [0, 0, 0.98]]),
        "right angles",
    ),
    "no DICOM": (lambda p: (p / "folder").mkdir() or p / "folder", "no DICOM series"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_volume_is_refused_in_one_line_that_names_it(kind, tmp_path):
    make, said = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        Volume.read(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_four_dimensional_image_is_refused(tmp_path):
    frame = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    sitk.WriteImage(sitk.JoinSeries([frame, frame]), str(tmp_path / "4d.nii.gz"))
    with pytest.raises(CalibUncertaintyError, match="4D"):
        Volume.read(tmp_path / "4d.nii.gz")


@pytest.mark.parametrize("extension", ["nii.gz", "nii", "nrrd", "mha"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_file_is_refused_although_itk_may_fill_it_up(volume, extension, compressed, tmp_path):
    path = tmp_path / f"a.{extension}"
    sitk.WriteImage(volume.to_sitk(), str(path), compressed)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CalibUncertaintyError, match="truncated"):
        Volume.read(path)


@pytest.mark.parametrize("extension", ["nii.gz", "nii", "nrrd", "mha"])
def test_voxels_that_are_not_numbers_are_refused_although_itk_may_zero_them(extension, tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3], array[2, 2, 2] = np.nan, np.inf
    with pytest.raises(CalibUncertaintyError, match="2 voxels that are not numbers"):
        Volume.read(write(tmp_path / f"n.{extension}", array))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((4, 5, 6), -1000, np.int16), "same value"),
        (np.linspace(0, 1, 120).reshape(4, 5, 6), "between 0 and 1"),
        (np.arange(120).reshape(4, 5, 6) % 5, "label map"),
    ],
)
def test_an_image_without_hounsfield_units_is_refused(array, said):
    with pytest.raises(CalibUncertaintyError, match=said):
        check_is_ct(Volume(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)), "image.nrrd")


def test_a_ct_without_air_is_only_warned_about():
    array = np.random.default_rng(0).integers(0, 1500, (4, 5, 6))
    assert "below 0 HU" in check_is_ct(Volume(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)), "ct.nrrd")[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing_zyx": (1.0, 1.0, np.nan)}, "voxel size nan x 1 x 1 mm"),
        ({"spacing_zyx": (1.0, 1.0, 1e-6)}, "voxel size 1e-06 x 1 x 1 mm"),
        ({"spacing_zyx": (250.0, 1.0, 1.0)}, "voxel size 1 x 1 x 250 mm"),
        ({"origin_lps": (0.0, np.nan, 0.0)}, "not numbers"),
        ({"origin_lps": (np.inf, 0.0, 0.0)}, "not numbers"),
        ({"direction_lps": np.full((3, 3), np.nan)}, "not numbers"),
        ({"direction_lps": np.diag([1.0, np.nan, 1.0])}, "not numbers"),
        ({"direction_lps": np.diag([np.inf, 1.0, 1.0])}, "not numbers"),
        ({"direction_lps": np.zeros((3, 3))}, "right angles"),
    ],
)
def test_a_place_that_no_ct_can_have_is_refused(change, said):
    place = {"spacing_zyx": (1.0, 1.0, 1.0), "origin_lps": (0.0, 0.0, 0.0), "direction_lps": np.eye(3)} | change
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        check_volume(Volume(np.zeros((4, 5, 6)), **place), "image.nrrd")
    assert "image.nrrd" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("at", "kind", "value", "said"),
    [
        (108, "f", np.nan, "damaged NIfTI header"),
        (108, "f", np.inf, "damaged NIfTI header"),
        (108, "f", -5.0, "damaged NIfTI header"),
        (72, "h", -8, "damaged NIfTI header"),
        (80, "f", np.nan, "voxel size nan x 1.5 x 3 mm"),
        (88, "f", 0.0, "voxel size 0.5 x 1.5 x 0 mm"),
    ],
)
def test_a_damaged_nifti_header_is_refused_although_itk_may_make_something_of_it(volume, at, kind, value, said, tmp_path):
    path = tmp_path / "a.nii"
    volume.write(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + kind, content, at, value)
    path.write_bytes(content)
    with pytest.raises(CalibUncertaintyError, match=said):
        Volume.read(path)


def sheared(shear):
    slant = np.eye(3)
    slant[0, 1] = shear
    return rotation(20) @ slant @ np.diag([1.0, 1.0, -1.0])


@pytest.mark.parametrize("shear", [2e-6, 1e-4, 4e-4, 9e-4])
def test_slightly_skewed_axes_are_straightened_so_that_maps_fit_what_itk_writes(volume, shear, tmp_path):
    ct = Volume.read(write(tmp_path / "a.nrrd", volume.array, spacing=(0.5, 1.5, 3.0), direction=sheared(shear)))
    np.testing.assert_allclose(ct.direction_lps.T @ ct.direction_lps, np.eye(3), atol=1e-12)
    assert np.linalg.det(ct.direction_lps) == pytest.approx(-1)
    np.testing.assert_allclose(ct.direction_lps, sheared(shear), atol=shear)
    ct.write(tmp_path / "segmentation.nii.gz")
    ct.crop((1, 2, 3), (2, 4, 5)).write(tmp_path / "map.nrrd")
    segmentation = Volume.read(tmp_path / "segmentation.nii.gz")
    for reference in (ct, segmentation):
        whole = Volume.read(tmp_path / "map.nrrd").embed_in(reference)
        np.testing.assert_array_equal(whole.array[1:3, 2:6, 3:8], volume.array[1:3, 2:6, 3:8])
    last = np.array(ct.array.shape) - 1
    np.testing.assert_allclose(segmentation.lps_from_index(last), ct.lps_from_index(last), atol=1e-4)


def test_axes_at_right_angles_stay_as_they_are_to_the_bit(volume):
    rounded = rotation(20).astype(np.float32).astype(float)
    for direction in (rotation(20), rounded, np.eye(3)[[1, 2, 0]]):
        kept = Volume(volume.array, volume.spacing_zyx, volume.origin_lps, direction).direction_lps
        assert np.array_equal(kept, direction)


def test_axes_beyond_the_tolerance_are_not_straightened_but_refused(volume):
    ct = Volume(volume.array, volume.spacing_zyx, volume.origin_lps, sheared(1.1e-3))
    with pytest.raises(CalibUncertaintyError, match="right angles"):
        check_volume(ct, "image.nrrd")


def write_series(folder, volume, uid="1.2.3.4", modality="CT", leave_out=(), place=None, orient=None):
    """place, orient: the tags ImagePositionPatient and ImageOrientationPatient of slice k, in place of the true ones."""
    folder.mkdir(exist_ok=True)
    image, writer = volume.to_sitk(), sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = volume.direction_lps
    orientation = "\\".join(f"{v:.10f}" for v in [*direction[:, 0], *direction[:, 1]])
    for k in range(volume.array.shape[0]):
        if k in leave_out:
            continue
        piece = image[:, :, k]
        true_position = "\\".join(f"{v:.6f}" for v in volume.lps_from_index((k, 0, 0)))
        position = place(k) if place else true_position
        turned = orient(k) if orient else orientation
        for tag, value in {
            "0008|0060": modality, "0020|000e": uid, "0020|000d": "1.2.3", "0020|0032": position, "0020|0037": turned,
            "0020|0013": str(k), "0008|103e": f"series {uid}", "0018|0050": f"{volume.spacing_zyx[0]}",
            "0028|1052": "0", "0028|1053": "1", "0008|0018": f"{uid}.{k}",
        }.items():  # fmt: skip
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{k:03d}.dcm"))
        writer.Execute(piece)
    return folder


def test_a_dicom_series_is_read_with_its_geometry(volume, tmp_path):
    again = Volume.read(write_series(tmp_path / "dicom", volume))
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.spacing_zyx, volume.spacing_zyx, atol=1e-4)
    np.testing.assert_allclose(again.origin_lps, volume.origin_lps, atol=1e-4)
    np.testing.assert_allclose(again.direction_lps, volume.direction_lps, atol=1e-4)


def test_of_several_dicom_series_one_is_asked_for_and_can_be_named(volume, tmp_path):
    write_series(tmp_path / "dicom", volume, "1.2.3.4")
    folder = write_series(tmp_path / "dicom", volume.with_array(volume.array // 2), "1.2.3.5")
    with pytest.raises(CalibUncertaintyError, match=r"2 DICOM series.*--series"):
        Volume.read(folder)
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    np.testing.assert_array_equal(Volume.read(folder, series=ids[1]).array, volume.array // 2)


def test_a_dicom_series_with_a_missing_slice_is_refused(volume, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="gap between slices"):
        Volume.read(write_series(tmp_path / "dicom", volume, leave_out=(2,)))


def test_a_dicom_series_of_another_modality_is_refused(volume, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="modality MR"):
        Volume.read(write_series(tmp_path / "dicom", volume, modality="MR"))


def text_of(*values):
    return "\\".join(f"{v:.6f}" for v in values)


def refusal_of(folder):
    with pytest.raises(CalibUncertaintyError) as refusal:
        Volume.read(folder)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("degrees", [0.2, 5, -20])
def test_a_tilted_gantry_is_refused_and_not_straightened(volume, degrees, tmp_path):
    volume = Volume(np.repeat(volume.array, 4, axis=0), volume.spacing_zyx, volume.origin_lps, volume.direction_lps)

    def tilted(k):
        return text_of(*volume.lps_from_index((k, 0, 0)) + volume.direction_lps[:, 1] * 3 * k * np.tan(np.deg2rad(degrees)))

    said = refusal_of(write_series(tmp_path / "dicom", volume, place=tilted))
    assert f"tilted gantry of {abs(degrees):.1f} degrees" in said
    assert "resample it to a rectangular grid" in said


def test_positions_rounded_in_the_plane_are_no_tilt(volume, tmp_path):
    def rounded(k):
        return "\\".join(f"{v:.2f}" for v in volume.lps_from_index((k, 0, 0)))

    np.testing.assert_array_equal(Volume.read(write_series(tmp_path / "dicom", volume, place=rounded)).array, volume.array)


def test_a_single_shifted_slice_is_refused(volume, tmp_path):
    def shifted(k):
        return text_of(*volume.lps_from_index((k, 0, 0)) + volume.direction_lps[:, 0] * 0.6 * (k == 2))

    assert "shifted slices" in refusal_of(write_series(tmp_path / "dicom", volume, place=shifted))


def test_a_slice_in_another_plane_is_named(volume, tmp_path):
    true = [*volume.direction_lps[:, 0], *volume.direction_lps[:, 1]]
    turned = [*volume.direction_lps[:, 0], *volume.direction_lps[:, 2]]
    said = refusal_of(write_series(tmp_path / "dicom", volume, orient=lambda k: text_of(*(turned if k == 2 else true))))
    assert "another plane" in said


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda k: "a\\b\\c", "ImagePositionPatient"),
        (lambda k: "nan\\0\\1", "ImagePositionPatient"),
        (lambda k: text_of(0, 0), "ImagePositionPatient"),
        (lambda k: "", "ImagePositionPatient"),
        (lambda k: text_of(0, 0, 0), "same position"),
    ],
)
def test_malformed_positions_are_said_and_not_called_a_gap(volume, place, said, tmp_path):
    text = refusal_of(write_series(tmp_path / "dicom", volume, place=place))
    assert said in text
    assert "gap" not in text


def test_doubled_slices_are_said(volume, tmp_path):
    folder = write_series(tmp_path / "dicom", volume, place=lambda k: text_of(*volume.lps_from_index((k // 2, 0, 0))))
    assert "same position; slices are doubled" in refusal_of(folder)


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("left", [40, 140, 200, 330, -20])
def test_a_truncated_dicom_slice_is_named_and_not_left_out(volume, which, left, tmp_path):
    folder = write_series(tmp_path / "dicom", volume)
    broken = sorted(folder.iterdir())[which]
    broken.write_bytes(broken.read_bytes()[:left])
    assert f"{broken} is truncated or unreadable" in refusal_of(folder)


def test_a_folder_of_truncated_slices_only_says_so(volume, tmp_path):
    folder = write_series(tmp_path / "dicom", volume)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    assert "000.dcm is truncated or unreadable" in refusal_of(folder)


def dicom_object(sop_class: str) -> bytes:
    """A DICOM file without an image, explicit little-endian: a structure set, a report, a DICOMDIR."""

    def element(group, number, kind, value):
        value += b"\0" * (len(value) % 2)
        head = struct.pack("<HH2s", group, number, kind)
        return head + (struct.pack("<HI", 0, len(value)) if kind == b"OB" else struct.pack("<H", len(value))) + value

    uid = sop_class.encode()
    meta = element(2, 1, b"OB", b"\0\1") + element(2, 2, b"UI", uid) + element(2, 3, b"UI", b"1.2.3.9")
    meta += element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + element(8, 0x16, b"UI", uid)


def test_what_lies_beside_the_slices_and_is_no_slice_is_ignored(volume, tmp_path):
    folder = write_series(tmp_path / "dicom", volume)
    for name, sop_class in {
        "RS.dcm": "1.2.840.10008.5.1.4.1.1.481.3", "SR.dcm": "1.2.840.10008.5.1.4.1.1.88.22",
        "dose.dcm": "1.2.840.10008.5.1.4.1.1.88.67", "screenshot.dcm": "1.2.840.10008.5.1.4.1.1.7",
        "mr.dcm": "1.2.840.10008.5.1.4.1.1.20", "DICOMDIR": "1.2.840.10008.1.3.10",
    }.items():  # fmt: skip
        (folder / name).write_bytes(dicom_object(sop_class))
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / "._a.dcm").write_bytes(b"Mac OS X")
    (folder / "below").mkdir()
    np.testing.assert_array_equal(Volume.read(folder).array, volume.array)
    (folder / "enhanced.dcm").write_bytes(dicom_object("1.2.840.10008.5.1.4.1.1.2.1"))
    assert "enhanced.dcm is truncated or unreadable" in refusal_of(folder)


@pytest.mark.skipif(os.name != "posix", reason="/proc is Linux's")
def test_a_file_that_cannot_be_written_is_said(volume):
    with pytest.raises(CalibUncertaintyError, match="cannot be written"):
        volume.write("/proc/nowhere/a.nrrd")
