"""What is said of a DICOM series before ITK reads it: which slice, which gap, how far aside, and what is no slice of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_volume import dicom_object, text_of, write_series

from CalibUncertaintyLib.dicom_check import check_left_out, check_slices, tags_of
from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.volume import Volume

STEP_MM = 3.0


def series(folder, slices=6, **changes):
    """(folder, files) of an upright series, 3 mm from slice to slice."""
    array = np.random.default_rng(0).integers(-1000, 1500, (slices, 4, 5)).astype(np.int16)
    write_series(folder, Volume(array, (STEP_MM, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)), **changes)
    return folder, sorted(map(str, folder.iterdir()))


def at(*places):
    """Tag of the position of each slice, from its place (x, y, z) in mm."""
    return lambda k: text_of(*places[k])


def upright(gaps, aside=0.0, which=None):
    """Places of slices with these gaps between them, one of them some mm aside."""
    heights = np.concatenate([[0.0], np.cumsum(gaps)])
    return at(*[(aside if k == which else 0.0, 0.0, z) for k, z in enumerate(heights)])


def refusal(folder, names):
    with pytest.raises(CalibUncertaintyError) as caught:
        check_slices(folder, names)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tags_are_read_without_their_padding_and_are_empty_where_there_are_none(tmp_path):
    _, names = series(tmp_path / "a", slices=1, uid="1.2.3.4")  # of odd length: padded to even in the file
    assert tags_of(names[0], "0008|0060", "0020|000e", "0010|0010", "0008|103e") == ("CT", "1.2.3.4", "", "series 1.2.3.4")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert tags_of(str(tmp_path / "broken.dcm"), "0008|0060", "0020|000e") == ("", "")


@pytest.mark.parametrize(("gap", "right"), [(2.75, True), (3.25, True), (2.6, False), (3.4, False), (4.4, False), (6.0, False)])
def test_a_gap_a_tenth_larger_or_smaller_than_usual_is_named(gap, right, tmp_path):
    folder, names = series(tmp_path / "a", place=upright([3.0, 3.0, gap, 3.0, 3.0]))
    if right:
        check_slices(folder, names)
    else:
        assert f"the gap between slices 3 and 4 is {gap:.2f} mm where 3.00 mm is usual" in refusal(folder, names)


def test_slices_a_hundredth_of_a_millimetre_apart_are_the_same_place(tmp_path):
    folder, names = series(tmp_path / "a", place=upright([3.0, 0.005, 3.0, 3.0, 3.0]))
    assert "1.2.3.4_001.dcm and 1.2.3.4_002.dcm have the same position" in refusal(folder, names)
    folder, names = series(tmp_path / "b", place=upright([3.0, 0.02, 3.0, 3.0, 3.0]))
    assert "the gap between slices 2 and 3 is 0.02 mm" in refusal(folder, names)


@pytest.mark.parametrize(("aside", "right"), [(0.04, True), (0.1, False), (-0.1, False)])
def test_a_slice_may_lie_aside_by_the_rounding_of_files_only(aside, right, tmp_path):
    folder, names = series(tmp_path / "a", place=upright([3.0] * 5, aside, which=3))
    if right:
        check_slices(folder, names)
    else:
        assert "shifted slices" in refusal(folder, names)


def test_a_slice_shifted_far_from_the_first_is_seen_beside_its_neighbours(tmp_path):
    """0.2 mm are less than a thousandth of the way from the first slice, but much from one slice to the next."""
    folder, names = series(tmp_path / "a", slices=90, place=upright([3.0] * 89, 0.2, which=80))
    assert "shifted slices" in refusal(folder, names)


@pytest.mark.parametrize("number", [b"nan   ", b"inf   ", b"1e9999", b"x     "])
def test_the_slice_whose_place_is_unknown_is_named(number, tmp_path):
    folder, names = series(tmp_path / "a", place=upright([3.0] * 5, aside=123.25, which=2))
    content = Path(names[2]).read_bytes()
    assert content.count(b"123.25") == 1
    Path(names[2]).write_bytes(content.replace(b"123.25", number))  # ITK would not write it
    assert "1.2.3.4_002.dcm has no usable ImagePositionPatient (" in refusal(folder, names)


def test_the_angle_of_a_tilt_is_the_same_whichever_way_the_series_runs(tmp_path):
    places = [(0.0, 3.0 * k * np.tan(np.deg2rad(10)), 3.0 * k) for k in range(6)]
    folder, names = series(tmp_path / "a", place=at(*places))
    for order in (names, names[::-1]):
        assert "tilted gantry of 10.0 degrees" in refusal(folder, order)


def test_the_slice_that_lies_in_another_plane_is_the_one_that_is_named(tmp_path):
    folder, names = series(
        tmp_path / "a", orient=lambda k: text_of(1, 0, 0, 0, 0, -1) if k == 4 else text_of(1, 0, 0, 0, 1, 0)
    )
    assert "1.2.3.4_004.dcm lies in another plane than 1.2.3.4_000.dcm" in refusal(folder, names)
    slightly = (1, 0, 0, 0, np.cos(0.01), np.sin(0.01))
    folder, names = series(tmp_path / "b", orient=lambda k: text_of(*slightly) if k == 2 else text_of(1, 0, 0, 0, 1, 0))
    assert "1.2.3.4_002.dcm lies in another plane" in refusal(folder, names)


@pytest.mark.parametrize("turned", [b"1\\0\\0\\1\\0\\0", b"2\\0\\0\\0\\1\\0", b"1\\0\\0\\0\\3\\0"])
def test_directions_that_are_no_directions_of_a_plane_are_malformed(turned, tmp_path):
    folder, names = series(tmp_path / "a")
    for path in map(Path, names):  # ITK would not write such a file
        content = path.read_bytes()
        assert content.count(b"1\\0\\0\\0\\1\\0") == 1
        path.write_bytes(content.replace(b"1\\0\\0\\0\\1\\0", turned))
    assert "ImageOrientationPatient of 1.2.3.4_000.dcm is malformed" in refusal(folder, names)


@pytest.mark.parametrize(("name", "length", "right"), [
    ("SLICE.DCM", 20, False), ("slice.ima", 131, False), ("slice.Dicom", 0, False), ("notes.txt", 20, True),
    ("slice", 20, True), ("old.dcm", 132, True), (".hidden.dcm", 20, True),
])  # fmt: skip
def test_a_file_too_short_to_say_what_it_is_may_be_a_slice_by_its_name(name, length, right, tmp_path):
    folder, names = series(tmp_path / "a")
    (folder / name).write_bytes(bytes(length))
    if right:
        check_left_out(folder, names, names[0])
    else:
        with pytest.raises(CalibUncertaintyError, match=f"{re.escape(str(folder / name))} is truncated or unreadable"):
            check_left_out(folder, names, names[0])


def test_wherever_the_head_of_a_slice_ends_it_is_one_that_cannot_be_read(tmp_path):
    folder, names = series(tmp_path / "a")
    listed, head = names[1:], (folder / names[0]).read_bytes()[:400]
    for length in range(0, 400, 3):
        (folder / names[0]).write_bytes(head[:length])
        with pytest.raises(CalibUncertaintyError, match="truncated or unreadable"):
            check_left_out(folder, listed, listed[0])


def test_what_is_of_the_same_kind_as_the_series_may_be_a_slice_of_it(tmp_path):
    folder, names = series(tmp_path / "a")
    (folder / "beside.dcm").write_bytes(dicom_object("1.2.840.10008.5.1.4.1.1.4"))
    check_left_out(folder, names, names[0])
    for path in map(Path, names):  # the same series as one of MR images
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4\0"))
    with pytest.raises(CalibUncertaintyError, match=r"beside\.dcm is truncated or unreadable"):
        check_left_out(folder, names, names[0])
    check_left_out(folder, names)  # without an example of the series
