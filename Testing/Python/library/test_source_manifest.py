"""Lists of cases as people write them: splits, spreadsheets' habits, and everything that is missing or doubled, at once."""

import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.workflow.sources import read_cases

NAMES = ("train", "calibration", "test")


def image(path, seed=None):
    """A small image; seed None: all zeros."""
    array = np.zeros((3, 4, 5), np.uint8)
    if seed is not None:
        array[...] = np.random.default_rng(seed).integers(0, 3, array.shape)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.fixture
def folder(tmp_path):
    """Four cases p0 to p3, each with a CT and a label map of its own."""
    for index in range(4):
        image(tmp_path / f"p{index}_ct.nii.gz", index)
        image(tmp_path / f"p{index}_seg.nii.gz", 10 + index)
    return tmp_path


def lines_of(*splits, separator=","):
    rows = [["id", "ct", "labels", "split"]]
    rows += [[f"p{index}", f"p{index}_ct.nii.gz", f"p{index}_seg.nii.gz", split] for index, split in enumerate(splits)]
    return [separator.join(row) for row in rows]


def csv_of(folder, lines, end="\n", encoding="utf-8"):
    (folder / "cases.csv").write_bytes((end.join(lines) + end).encode(encoding))
    return folder / "cases.csv"


def json_of(folder, cases):
    (folder / "cases.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
    return folder / "cases.json"


def ids(cases):
    return [case.id for case in cases]


def refusal(path, split=None):
    with pytest.raises(CalibUncertaintyError) as caught:
        read_cases(path, split)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_calibration_cases_are_taken_unless_another_split_is_named(folder):
    path = csv_of(folder, lines_of("train", "calibration", "test", "Calibration"))
    assert ids(read_cases(path)) == ["p1", "p3"]
    assert ids(read_cases(path, "test")) == ["p2"]
    assert ids(read_cases(path, "TRAIN")) == ["p0"]
    assert refusal(path, "validation").endswith(
        "has no case in the split 'validation'; it has: train, calibration, test, Calibration"
    )


def test_without_splits_all_cases_are_taken_and_none_can_be_named(folder):
    path = csv_of(folder, [line.rpartition(",")[0] for line in lines_of("", "", "")])
    assert ids(read_cases(path)) == ["p0", "p1", "p2"]
    assert "names no splits" in refusal(path, "calibration")
    path = csv_of(folder, lines_of("", "", ""))  # the column is there, and nothing in it
    assert ids(read_cases(path)) == ["p0", "p1", "p2"]


def test_a_case_without_a_split_among_others_is_refused_by_line(folder):
    assert "line 3: no split is given" in refusal(csv_of(folder, lines_of("calibration", "", "test")))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_spreadsheets_write_is_read(separator, end, encoding, folder):
    plain = read_cases(csv_of(folder, lines_of(*NAMES)))
    lines = ["", *lines_of(*NAMES, separator=separator), separator * 3, ""]
    assert read_cases(csv_of(folder, lines, end, encoding)) == plain
    assert read_cases(csv_of(folder, [f"sep={separator}", *lines], end, encoding)) == plain


def test_line_numbers_count_the_empty_lines_too(folder):
    lines = lines_of("calibration", "calibration")
    broken = [lines[0], "", lines[1], "", "", "p1,,p1_seg.nii.gz,calibration"]
    assert "line 6: id, ct and labels" in refusal(csv_of(folder, broken))
    assert "line 7: id, ct and labels" in refusal(csv_of(folder, ["sep=,", *broken]))


def test_names_with_spaces_and_letters_of_any_language_are_read(folder):
    image(folder / "Müller Äöß 患者.nii.gz", 50)
    lines = ["Id; CT ;LABELS;note", "Fall 7 – Müller;Müller Äöß 患者.nii.gz;p0_seg.nii.gz;ж"]
    (case,) = read_cases(csv_of(folder, lines))
    assert case.id == "Fall 7 – Müller"
    assert case.ct == folder / "Müller Äöß 患者.nii.gz"


def test_channels_are_listed_within_quotes_where_semicolons_separate_the_columns(folder):
    (case,) = read_cases(csv_of(folder, ["id;ct;labels", 'a;"p0_ct.nii.gz;p1_ct.nii.gz";p0_seg.nii.gz']))
    assert case.channels == (folder / "p0_ct.nii.gz", folder / "p1_ct.nii.gz")
    (case,) = read_cases(
        json_of(folder, [{"id": "a", "ct": ["p0_ct.nii.gz", "p1_ct.nii.gz"], "labels": "p0_seg.nii.gz"}])
    )
    assert case.channels == (folder / "p0_ct.nii.gz", folder / "p1_ct.nii.gz")
    assert "line 2: 4 values for 3 columns" in refusal(
        csv_of(folder, ["id;ct;labels", "a;p0_ct.nii.gz;p1_ct.nii.gz;p0_seg.nii.gz"])
    )


def test_both_shapes_of_json_give_what_the_csv_gives(folder):
    plain = read_cases(csv_of(folder, lines_of(*NAMES)))
    flat = [
        {"id": f"p{i}", "ct": f"p{i}_ct.nii.gz", "labels": f"p{i}_seg.nii.gz", "split": split}
        for i, split in enumerate(NAMES)
    ]
    assert read_cases(json_of(folder, flat)) == plain
    for key in ("labels", "seg", "seg_clinical"):
        nested = [
            {"id": case["id"], "files": {"ct": case["ct"], key: case["labels"], "dose": "d"}, "split": case["split"]}
            for case in flat
        ]
        assert read_cases(json_of(folder, nested)) == plain


def test_every_missing_file_is_listed_at_once_up_to_twenty(folder):
    lines = ["id,ct,labels", *(f"m{i},m{i}_ct.nii,m{i}_seg.nii" for i in range(3))]
    said = refusal(csv_of(folder, lines))
    assert "6 files do not exist" in said
    for index in range(3):
        for kind in ("ct", "seg"):
            assert f"line {index + 2}: {folder / f'm{index}_{kind}.nii'}" in said
    lines = ["id,ct,labels", *(f"m{i},m{i}_ct.nii,p0_seg.nii.gz" for i in range(33))]
    said = refusal(csv_of(folder, lines))
    assert "33 files do not exist" in said
    assert said.count("_ct.nii") == 20
    assert said.endswith("; and 13 more")


def test_files_of_splits_that_are_not_taken_need_not_be_there(folder):
    lines = [*lines_of("calibration", "calibration"), "t1,elsewhere.nii,elsewhere_seg.nii,train", "u1,,,train"]
    assert ids(read_cases(csv_of(folder, lines))) == ["p0", "p1"]
    assert "line 5: id, ct and labels" in refusal(csv_of(folder, lines), "train")


def test_cases_in_two_splits_are_all_named(folder):
    lines = lines_of("calibration", "test", "calibration")
    again = [lines[1].replace("calibration", "test"), lines[2].replace("test", "train")]
    said = refusal(csv_of(folder, [*lines, *again]))
    assert "p0 (calibration and test, lines 2, 5)" in said
    assert "p1 (test and train, lines 3, 6)" in said
    assert "p2" not in said


def test_cases_that_are_listed_twice_are_all_named(folder):
    lines = lines_of("", "", "")
    assert "line 5: the case p1 is listed twice" in refusal(csv_of(folder, [*lines, lines[2]]))
    said = refusal(csv_of(folder, [*lines, lines[2], lines[3], lines[3]]))
    assert "p1 (lines 3, 5); p2 (lines 4, 6, 7)" in said


def test_one_name_written_in_two_ways_of_unicode_is_one_case(folder):
    lines = ["id,ct,labels", "Mu\u0308ller,p0_ct.nii.gz,p0_seg.nii.gz", "M\u00fcller,p1_ct.nii.gz,p1_seg.nii.gz"]
    assert "listed twice" in refusal(csv_of(folder, lines))


@pytest.mark.parametrize("kind", ["ct", "seg"])
@pytest.mark.parametrize("way", ["path", "link", "copy"])
def test_one_file_under_two_identifiers_is_refused_with_both(way, kind, folder):
    lines = lines_of("calibration", "test", "train")
    mine, other = folder / f"p0_{kind}.nii.gz", folder / f"p1_{kind}.nii.gz"
    if way == "path":
        lines[2] = lines[2].replace(other.name, f"../{folder.name}/{mine.name}")
    else:
        other.unlink()
        other.symlink_to(mine) if way == "link" else shutil.copyfile(mine, other)
    said = refusal(csv_of(folder, lines))
    assert "(case p0, calibration)" in said
    assert "(case p1, test)" in said
    assert "p2" not in said


def test_a_dicom_folder_under_two_identifiers_is_refused_whatever_its_files_are_called(folder):
    for name, files in (("a", ("1.dcm", "2.dcm")), ("b", ("x", "y"))):
        (folder / name).mkdir()
        for number, file in enumerate(files):
            (folder / name / file).write_bytes(bytes([number]) * 100)
    lines = ["id,ct,labels", "p,a,p0_seg.nii.gz", "q,b,p1_seg.nii.gz"]
    assert "the same file under several cases" in refusal(csv_of(folder, lines))
    (folder / "b" / "y").write_bytes(bytes([7]) * 100)
    assert ids(read_cases(csv_of(folder, lines))) == ["p", "q"]


def test_label_maps_without_structures_may_be_alike(folder):
    for index in range(2):
        image(folder / f"p{index}_seg.nii.gz")
    assert ids(read_cases(csv_of(folder, lines_of("calibration", "calibration")))) == ["p0", "p1"]
    for index in range(2):  # but not CTs
        image(folder / f"p{index}_ct.nii.gz")
    assert "p1_ct.nii.gz" in refusal(csv_of(folder, lines_of("calibration", "calibration")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "is no list of cases"),
        ('{"cases": 3}', "is no list of cases"),
        ('{"cases": []}', "lists no case"),
        ('{"cases": ["p0"]}', "case 1: 'p0' is no case"),
        ('{"cases": [{"id": ["a"], "ct": "p0_ct.nii.gz", "labels": "p0_seg.nii.gz"}]}', "case 1: 'id' is"),
        ('{"cases": [{"ct": "p0_ct.nii.gz", "labels": "p0_seg.nii.gz"}]}', "case 1: id, ct and labels"),
        ('{"cases": [{"id": "a", "ct": 5, "labels": "p0_seg.nii.gz"}]}', "case 1: 'ct' is 5"),
        ('{"cases": [{"id": "a", "ct": "p0_ct.nii.gz", "labels": [1]}]}', "case 1: 'labels' is"),
        ('{"cases": [{"id": "a", "files": "p0_ct.nii.gz"}]}', "case 1: 'files' is"),
        ('{"cases": [{"id": "a", "files": {"ct": "p0_ct.nii.gz", "seg_a": "x", "seg_b": "y"}}]}', "several label maps"),
        ('{"cases": [{"id": 7, "ct": "gone.nii", "labels": "p0_seg.nii.gz"}]}', "case 1: .*gone.nii does not exist"),
    ],
)
def test_json_that_is_no_list_of_cases_is_one_line(content, said, folder):
    (folder / "cases.json").write_text(content, encoding="utf-8")
    with pytest.raises(CalibUncertaintyError, match=said):
        read_cases(folder / "cases.json")
    refusal(folder / "cases.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column id, ct, labels"),
        ("id,ct,labels\nM\u00fc,a,b\n".encode("cp1252"), "not UTF-8"),
        ("id,ct,labels\n".encode("utf-16"), "not UTF-8"),
        (b"id,ct,labels\n\0\n", "zero bytes"),
        (b'id,ct,labels\n"a,b,c\n', "cannot be read as a CSV file"),
        (b"id,ct,labels,labels\na,b,c,d\n", "several columns labels"),
        (b"id,ct,labels\n,b,c\n,d,e\n", "lines 2, 3: id, ct and labels"),
    ],
)
def test_a_csv_that_is_none_is_one_line(content, said, folder):
    (folder / "cases.csv").write_bytes(content)
    assert re.search(said, refusal(folder / "cases.csv"))


@pytest.mark.parametrize("name", ["gone.csv", "gone.json", "."])
def test_a_list_that_is_not_there_is_one_line(name, folder):
    said = refusal(folder / name)
    assert ("is a folder" if name == "." else "does not exist; give a list of cases: a CSV file whose first line is") in said


def test_the_list_of_the_real_cases_is_read_by_split(shared_data):
    splits = {split: ids(read_cases(shared_data / "cases.json", split)) for split in ("train", "calibration", "test")}
    assert [len(splits[split]) for split in splits] == [30, 12, 18]
    assert len({case for cases in splits.values() for case in cases}) == 60
    assert ids(read_cases(shared_data / "cases.json")) == splits["calibration"]


@pytest.mark.parametrize("name", ["a\nb", "half \ud800", "zero \0"])
def test_an_identifier_that_no_page_can_show_is_refused(name, folder):
    said = refusal(json_of(folder, [{"id": name, "ct": "p0_ct.nii.gz", "labels": "p0_seg.nii.gz"}]))
    assert "case 1: the id '" in said
    assert "no text on one line" in said
