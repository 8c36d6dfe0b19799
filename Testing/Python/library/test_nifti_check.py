"""NIfTI files as nibabel writes them, of both versions and byte orders: what is whole passes, what is not is said by number."""

import gzip
import struct

import nibabel
import numpy as np
import pytest

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.nifti_check import check_nifti, check_nifti_header

VERSIONS = {"NIfTI-1": nibabel.Nifti1Image, "NIfTI-2": nibabel.Nifti2Image}
SHAPE = (6, 5, 4)


def written(path, version="NIfTI-1", order="<", dtype="i2", array=None):
    """A file of this version, byte order and type; nibabel gives a header the voxel size and where the voxels begin."""
    kind = VERSIONS[version]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    array = np.arange(120).reshape(SHAPE) if array is None else array
    nibabel.save(kind(array.astype(dtype), np.diag([0.5, 1.5, 3.0, 1.0]), header), path)
    return path


def changed(path, at, layout, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, at, *values)
    path.write_bytes(content)
    return path


def refusal(path, check=check_nifti):
    with pytest.raises(CalibUncertaintyError) as caught:
        check(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i2", "f4", "f8"])
@pytest.mark.parametrize("chunk", [40, 16 << 20])
def test_every_missing_byte_and_every_voxel_that_is_no_number_is_counted(version, order, dtype, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("CalibUncertaintyLib.nifti_check._CHUNK_BYTES", chunk)
    path = written(tmp_path / "a.nii", version, order, dtype)
    check_nifti_header(path)
    check_nifti(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-45])
    assert "45 bytes of voxels are missing" in refusal(path)
    path.write_bytes(whole[:-1])
    assert "1 bytes of voxels are missing" in refusal(path)
    path.write_bytes(whole + b"what follows the voxels")
    check_nifti(path)
    if dtype != "i2":
        array = np.arange(120.0).reshape(SHAPE)
        array[1, 2, 3], array[0, 0, 0], array[5, 4, 3] = np.nan, np.inf, -np.inf
        assert "3 voxels that are not numbers" in refusal(written(path, version, order, dtype, array))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_double_is_read_as_one_number_though_half_of_it_looks_like_none(order, tmp_path):
    array = np.full(SHAPE, 1.0 + 0x7FC00000 * 2.0**-52)
    assert np.isnan(array.view(np.float32)).any()
    check_nifti(written(tmp_path / "a.nii", order=order, dtype="f8", array=array))


@pytest.mark.parametrize(("version", "order", "at", "layout"), [
    ("NIfTI-1", "<", 80, "<f"), ("NIfTI-1", ">", 88, ">f"), ("NIfTI-2", "<", 112, "<d"), ("NIfTI-2", ">", 128, ">d"),
])  # fmt: skip
@pytest.mark.parametrize("size", [0.0, np.nan, np.inf])
def test_a_voxel_size_that_is_none_is_refused(version, order, at, layout, size, tmp_path):
    path = changed(written(tmp_path / "a.nii", version, order), at, layout, size)
    for check in (check_nifti, check_nifti_header):
        assert "voxel size" in refusal(path, check)


@pytest.mark.parametrize(("version", "at", "layout"), [("NIfTI-1", 40, "<h"), ("NIfTI-2", 16, "<q")])
@pytest.mark.parametrize("axes", [0, -1, 8])
def test_a_number_of_axes_that_no_image_has_is_refused(version, at, layout, axes, tmp_path):
    path = changed(written(tmp_path / "a.nii", version), at, layout, axes)
    assert f"damaged NIfTI header ({axes} axes, type 4)" in refusal(path)


@pytest.mark.parametrize(("version", "at"), [("NIfTI-1", 72), ("NIfTI-2", 14)])
def test_voxels_of_no_bits_are_refused(version, at, tmp_path):
    assert "damaged NIfTI header" in refusal(changed(written(tmp_path / "a.nii", version), at, "<h", 0))


def test_an_axis_of_no_length_counts_as_one_voxel_as_itk_reads_it(tmp_path):
    path = changed(written(tmp_path / "a.nii"), 40, "<4h", 3, 6, 0, 4)
    path.write_bytes(path.read_bytes()[: 352 + 40])
    assert "8 bytes of voxels are missing" in refusal(path)


@pytest.mark.parametrize(("version", "at", "layout"), [("NIfTI-1", 108, "<f"), ("NIfTI-2", 168, "<q")])
def test_voxels_begin_where_the_header_says(version, at, layout, tmp_path):
    """What lies between the header and them is none of theirs, and no voxel either."""
    path = written(tmp_path / "a.nii", version, dtype="f4")
    begin = len(path.read_bytes()) - 480
    content = path.read_bytes()
    path.write_bytes(content[:begin] + np.full(25, np.nan, "f4").tobytes() + content[begin:])
    check_nifti(changed(path, at, layout, begin + 100))
    assert "25 voxels that are not numbers" in refusal(changed(path, at, layout, begin))


def test_every_type_of_the_standard_is_known(tmp_path):
    path = written(tmp_path / "a.nii")
    standard = {code for code in nibabel.nifti1.data_type_codes.code if isinstance(code, int)} - {0, 1, 255}
    assert len(standard) == 16
    for code in standard:
        check_nifti_header(changed(path, 70, "<h", code))
    for code in (0, 1, 255):
        assert f"type {code}" in refusal(changed(path, 70, "<h", code), check_nifti_header)


def test_packing_is_told_by_the_content_whatever_the_name_says(tmp_path):
    whole = written(tmp_path / "a.nii").read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(whole[:-6]))
    (tmp_path / "plain.nii.gz").write_bytes(whole[:-6])
    for name in ("packed.nii", "plain.nii.gz"):
        assert "6 bytes of voxels are missing" in refusal(tmp_path / name)


def test_a_packed_file_that_is_damaged_anywhere_is_said_to_be(tmp_path):
    path = tmp_path / "a.nii.gz"
    packed = gzip.compress(written(tmp_path / "a.nii").read_bytes())
    places = {"method": 2, "first block": 10, "checksum of everything": len(packed) - 8}
    for place, at in places.items():
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 0xFF]) + packed[at + 1 :])
        assert "truncated or damaged" in refusal(path), place
        if place != "checksum of everything":  # which reading the header does not come to
            assert "truncated or damaged" in refusal(path, check_nifti_header), place


@pytest.mark.parametrize("content", [b"", b"\x5c", b"\x5c\x01\x00\x00", b"no image at all" * 50])
def test_what_has_no_nifti_header_is_left_to_itk(content, tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    check_nifti_header(path)
    check_nifti(path)
