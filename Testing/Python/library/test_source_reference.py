"""A label map on another grid is refused, or resampled where that was asked for, and then said; test cases stay apart."""

import json

import numpy as np
import pytest
from listening import Listening
from test_member_set import model_folder
from tiny_model import rotation

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.fold_honesty import in_common, trained_on
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.labelled import LabelledCase, read_reference, refuse_doubtful_cases
from CalibUncertaintyLib.workflow.sources import read_cases

SPACING, ORIGIN = (2.0, 1.5, 1.5), (-20.0, 11.0, 300.0)


@pytest.fixture
def model(tmp_path):
    return ModelFolder.open(
        model_folder(tmp_path / "model", labels={"background": 0, "Liver": 1, "Node": 2, "ignore": 3})
    )


@pytest.fixture
def ct():
    return Volume(np.zeros((10, 14, 12), np.int16), SPACING, ORIGIN, rotation(20))


def label_map(path, volume, array=None):
    """Labels 0 to 3 at random, or these; the case that has them."""
    array = np.random.default_rng(4).integers(0, 4, volume.array.shape, np.uint8) if array is None else array
    volume.with_array(array).write(path)
    return LabelledCase("P01", path.with_name("ct.nii.gz"), path)


def finer(ct, shape, factor, shift_mm=(0.0, 0.0, 0.0)):
    """A grid of smaller voxels, turned another way, that begins near the CT's origin."""
    spacing = tuple(size / factor for size in ct.spacing_zyx)
    return Volume(np.zeros(shape, np.uint8), spacing, tuple(np.add(ct.origin_lps, shift_mm)), rotation(14))


def nearest(labels, ct):
    """Brute force: the label of the nearest voxel's centre of each of the CT's voxels; -1 beyond the label map."""
    found = np.full(ct.array.shape, -1)
    for index in np.ndindex(ct.array.shape):
        place = labels.index_from_lps(ct.lps_from_index(index))
        if all(-0.5 <= at < n - 0.5 for at, n in zip(place, labels.array.shape, strict=True)):
            value = labels.array[tuple(int(np.floor(at + 0.5)) for at in place)]
            found[index] = -1 if value == 3 else value
    return found


def test_another_grid_is_refused_with_what_to_do(model, ct, tmp_path):
    case = label_map(tmp_path / "seg.nrrd", finer(ct, (20, 28, 24), 2))
    with pytest.raises(CalibUncertaintyError) as caught:
        read_reference(case, ct, model)
    said = str(caught.value)
    assert said.startswith(
        f"{case.labels} does not lie on the grid of {case.ct}; resample it to the CT (nearest neighbour)"
    )
    assert "\n" not in said


@pytest.mark.parametrize(("shape", "factor", "shift"), [
    ((40, 60, 60), 2, (-20, -20, -10)), ((9, 11, 10), 1.3, (0, 0, 0)), ((5, 6, 5), 0.7, (1.1, -0.7, 0.4)),
])  # fmt: skip
def test_asked_for_every_voxel_gets_the_nearest_label_or_is_ignored(shape, factor, shift, model, ct, tmp_path):
    case = label_map(tmp_path / "seg.nrrd", finer(ct, shape, factor, shift))
    heard = Listening()
    labels = read_reference(case, ct, model, True, heard)
    expected = nearest(Volume.read(case.labels), ct)
    assert len(np.unique(expected)) == 4
    assert labels.dtype == np.int32
    # a voxel halfway between two labels may go either way
    assert np.count_nonzero(labels != expected) <= 0.002 * labels.size
    (warning,) = heard.warnings
    assert warning.startswith("P01: seg.nrrd lay on another grid and was resampled to the CT (nearest neighbour)")
    covered = nearest(label_map_of_ones(case), ct) == 1
    beyond = int(np.count_nonzero(~covered))
    assert (f"; {beyond:,} voxels of the CT beyond it were left out" in warning) == bool(beyond)


def label_map_of_ones(case):
    volume = Volume.read(case.labels)
    return volume.with_array(np.ones_like(volume.array))


def test_on_the_same_grid_nothing_is_resampled_nor_said(model, ct, tmp_path):
    case = label_map(tmp_path / "seg.nrrd", ct)
    heard = Listening()
    labels = read_reference(case, ct, model, True, heard)
    np.testing.assert_array_equal(labels, read_reference(case, ct, model))
    assert set(np.unique(labels)) == {-1, 0, 1, 2}
    assert heard.warnings == []


def test_a_label_map_elsewhere_is_refused_even_when_resampling(model, ct, tmp_path):
    case = label_map(tmp_path / "seg.nrrd", finer(ct, (10, 10, 10), 1, (0, 0, 500)))
    with pytest.raises(CalibUncertaintyError, match=r"seg\.nrrd does not reach .*ct\.nii\.gz anywhere"):
        read_reference(case, ct, model, True)


def test_a_label_the_model_does_not_have_is_refused_before_resampling(model, ct, tmp_path):
    grid = finer(ct, (8, 8, 8), 1)
    array = np.zeros(grid.array.shape, np.float32)
    array[4, 4, 4] = 1.5
    case = label_map(tmp_path / "seg.nrrd", grid, array)
    with pytest.raises(CalibUncertaintyError, match=r"holds the label 1\.5"):
        read_reference(case, ct, model, True)


# --- cases that must not be there ----------------------------------------------------------------------------------------


def cases_of(tmp_path, *names):
    return [LabelledCase(name, tmp_path / f"ct{i}.nii", tmp_path / f"seg{i}.nii") for i, name in enumerate(names)]


def test_cases_kept_for_testing_are_refused_all_at_once(model, tmp_path):
    members, cases = MemberSet.choose(model), cases_of(tmp_path, "a", "b", "Zo\u00eb")
    refuse_doubtful_cases(cases, members, Listening(), excluded=["c"])
    with pytest.raises(CalibUncertaintyError, match=r"^the case b is kept for testing"):
        refuse_doubtful_cases(cases, members, Listening(), excluded={"b", "c"})
    with pytest.raises(CalibUncertaintyError, match=r"^the cases b, Zoë are kept for testing"):
        refuse_doubtful_cases(cases, members, Listening(), excluded=["Zoe\u0308", "b"])


def test_doubled_cases_are_all_named(model, tmp_path):
    cases = cases_of(tmp_path, "a", "b", "a", "c", "b")
    with pytest.raises(CalibUncertaintyError, match=r"^the cases a, b are listed twice"):
        refuse_doubtful_cases(cases, MemberSet.choose(model), Listening())


def test_identifiers_are_compared_whatever_way_their_accents_are_written(model):
    assert in_common(["Zoe\u0308", "b", "b"], ["Zo\u00eb", "c"]) == ["Zoe\u0308"]
    splits = [{"train": ["Zo\u00eb"], "val": []}, {"train": [], "val": []}]
    (model.path / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    assert trained_on(["Zoe\u0308", "b"], MemberSet.choose(model)) == {"Zoe\u0308": [(0, 0)]}


def test_listed_calibration_cases_that_trained_a_fold_are_refused(model, ct, tmp_path):
    lines = ["id;ct;labels;split"]
    for name, split in (("p1", "calibration"), ("p2", "calibration"), ("p3", "train")):
        ct.with_array(np.full(ct.array.shape, ord(name[1]), np.int16)).write(tmp_path / f"{name}.nii.gz")
        ct.with_array(np.full(ct.array.shape, ord(name[1]) % 3, np.uint8)).write(tmp_path / f"{name}_seg.nii.gz")
        lines.append(f"{name};{name}.nii.gz;{name}_seg.nii.gz;{split}")
    (tmp_path / "cases.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    cases = read_cases(tmp_path / "cases.csv")
    splits = [{"train": ["p3"], "val": ["p1", "p2"]}, {"train": ["p2"], "val": ["p3"]}]
    (model.path / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    refuse_doubtful_cases(cases, MemberSet.choose(model, [0]), Listening())
    with pytest.raises(CalibUncertaintyError, match=r"^fold 1 of Dataset1_X was trained on p2; give held-out"):
        refuse_doubtful_cases(cases, MemberSet.choose(model), Listening())
