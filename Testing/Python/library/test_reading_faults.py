"""Files that people really have and that ITK is silent, loud or fatal about: each is refused in one line that names it."""

import gzip
import os
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.reading import check_is_ct
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.preflight import check_ct_size
from CalibUncertaintyLib.workflow.writing import output_folder

SHAPE = (4, 5, 6)
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\nspace directions: {}\n"
    "kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n"
)


def volume(array):
    return Volume(array, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))


def nifti(path, at=0, layout="", *values):
    """A NIfTI file of which some bytes of the header are others."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(volume(np.arange(120, dtype=np.int16).reshape(SHAPE)).to_sitk(), str(plain))
    content = bytearray(plain.read_bytes())
    if layout:
        struct.pack_into(layout, content, at, *values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refusal(path):
    with pytest.raises(CalibUncertaintyError) as caught:
        Volume.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
def test_a_name_of_another_encoding_is_refused_and_does_not_end_the_process(tmp_path):
    path = tmp_path / os.fsdecode(b"ct\xff.nii.gz")
    path.write_bytes(b"x")
    assert "UTF-8" in refusal(path)
    with pytest.raises(CalibUncertaintyError, match="UTF-8"):
        volume(np.zeros(SHAPE, np.int16)).write(path)
    with pytest.raises(CalibUncertaintyError, match="UTF-8"):
        output_folder(tmp_path / os.fsdecode(b"out\xff"))
    check_ct_size(path)  # looks at the header before all else
    path.rename(tmp_path / os.fsdecode(b"slice\xff.dcm"))
    assert "UTF-8" in refusal(tmp_path)  # the same in a DICOM folder


@pytest.mark.parametrize("name", ["a" * 300 + ".nii.gz", "a\0b.nii.gz"])
def test_a_name_that_no_file_can_have_is_refused(name, tmp_path):
    assert "check the path" in refusal(tmp_path / name)
    with pytest.raises(CalibUncertaintyError, match="check the path"):
        output_folder(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ct.nii.gz")
    assert "neither a file nor a folder" in refusal(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("at", "layout", "values"),
    [
        (40, "<4h", (3, -6, 5, 4)),
        (40, "<4h", (3, 0, 5, 4)),
        (40, "<h", (9,)),
        (70, "<2h", (99, 16)),
    ],
)
def test_a_damaged_nifti_header_is_one_line_and_nothing_else_on_the_terminal(name, at, layout, values, tmp_path, capfd):
    said = refusal(nifti(tmp_path / name, at, layout, *values))
    assert name in said
    assert "damaged NIfTI header" in said
    assert capfd.readouterr() == ("", "")


def test_what_itk_warns_of_a_header_does_not_reach_the_terminal(tmp_path, capfd):
    path = nifti(tmp_path / "a.nii", 80, "<3f", -1.0, 1.0, 3.0)  # other voxel sizes than the sform's
    assert Volume.read(path).array.shape == SHAPE
    check_ct_size(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_cut_within_its_header_is_said_to_be_truncated(tmp_path):
    whole = nifti(tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:10])
    assert "truncated" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("directions", ["(0,0,0) (0,1,0) (0,0,2)", "(1,0,0) (1,0,0) (0,0,2)"])
def test_axes_of_no_volume_are_not_said_to_be_a_truncated_file(directions, tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(directions).encode() + np.arange(120, dtype=np.int16).tobytes())
    said = refusal(path)
    assert "truncated" not in said
    assert "voxel size of 0, or axes" in said


def test_values_that_single_precision_does_not_hold_are_refused(tmp_path):
    array = np.zeros(SHAPE)
    array[1, 1, 1] = -1e300
    sitk.WriteImage(volume(array).to_sitk(), str(tmp_path / "a.nrrd"))
    assert "1e+300" in refusal(tmp_path / "a.nrrd")


@pytest.mark.parametrize("factor", [10**12, -(10**12)])
def test_values_that_no_scanner_writes_are_warned_of(factor):
    array = np.arange(-60, 60).reshape(SHAPE) * factor
    (warning,) = check_is_ct(volume(array), "ct.nrrd")
    assert "no Hounsfield units" in warning
    assert "no Hounsfield units" not in " ".join(check_is_ct(volume(array // 10**11), "ct.nrrd"))


def test_a_single_dicom_slice_is_answered_with_the_folder_to_give(tmp_path):
    slice_of_ct = sitk.GetImageFromArray(np.arange(30, dtype=np.int16).reshape(5, 6))
    slice_of_ct.SetMetaData("0008|0060", "CT")
    sitk.WriteImage(slice_of_ct, str(tmp_path / "slice.dcm"))
    assert "give the folder" in refusal(tmp_path / "slice.dcm")
