"""Probabilities that nnU-Net stored give what running the networks gives, read plane by plane, and nothing else is taken."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from listening import Listening
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.softmax import softmax
from CalibUncertaintyLib.calibration.temperature import TemperatureFit
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import collect_cases
from CalibUncertaintyLib.workflow.source_npz import StoredProbabilities
from CalibUncertaintyLib.workflow.sources import LabelledCase, collect_npz, npz_of

REGIONS = {"background": 0, "Body": [1, 2], "Node": [2]}
ROI_MM = 5.0


def labelled(folder, seed=0, **of_ct):
    """A case with a small liver and a node."""
    ct = write_ct(folder / f"ct{seed}.nii.gz", shape=(18, 20, 22), seed=seed, **of_ct)
    volume = Volume.read(ct)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[6:11, 5:12, 5:12], labels[12:15, 3:8, 13:17] = 1, 2
    volume.with_array(labels).write(folder / f"seg{seed}.nii.gz")
    return LabelledCase(f"case{seed}", ct, folder / f"seg{seed}.nii.gz")


def stored(case, model, path, folds):
    """As nnUNetv2_predict --save_probabilities writes it: its own probabilities, by its own call of numpy."""
    _, probabilities = stock_prediction(model, case.ct, path.with_suffix(".nii.gz"), folds, mirroring=False)
    np.savez_compressed(str(path), probabilities=probabilities)
    return path


def take(case, npz, model, progress=None, roi_mm=ROI_MM, **options):
    with Scratch(case.labels.parent) as scratch:  # all of it is small enough to stay in memory
        return collect_npz(case, npz, ModelFolder.open(model), roi_mm, scratch, progress or Progress(), **options)


def run(case, model, folder, folds):
    members = MemberSet.choose(model, folds, flips="off")
    return collect_cases([case], members.models[0], MemberPredictor(members, "cpu"), ROI_MM, folder, Progress())[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(transpose=(1, 0, 2)), sharpness=6.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return labelled(tmp_path_factory.mktemp("case"), direction=rotation(15), empty_border=3)


@pytest.fixture(scope="module")
def npz(case, model, tmp_path_factory):
    """One file a fold."""
    folder = tmp_path_factory.mktemp("npz")
    return [stored(case, model, folder / f"fold{fold}.npz", (fold,)) for fold in (0, 1)]


def test_stored_probabilities_give_what_running_the_network_gives(case, model, npz, tmp_path):
    mine, expected = take(case, npz[0], model), run(case, model, tmp_path, [0])
    assert mine.size == expected.size > 1000
    assert mine.outside == expected.outside > 0
    assert mine.members.shape == (1, 3, mine.size)
    assert mine.near_prediction.sum() == expected.near_prediction.sum()
    np.testing.assert_array_equal(np.bincount(mine.labels), np.bincount(expected.labels))
    # voxel for voxel, whatever the order they come in: the logits differ by a constant in each voxel, and both were rounded to half
    for p, q in zip(softmax(mine.pooled), softmax(expected.pooled), strict=True):
        np.testing.assert_allclose(np.sort(p), np.sort(q), atol=3e-3)
    fitted = []
    for voxels in (mine, expected):
        fit = TemperatureFit()
        fit.add("a", voxels.pooled, voxels.labels)
        fitted.append(fit.fit(bootstrap=0))
    assert fitted[0].temperature == pytest.approx(fitted[1].temperature, rel=2e-3)
    assert fitted[0].nll_before == pytest.approx(fitted[1].nll_before, rel=1e-3)


def test_the_voxels_are_those_of_the_array_near_prediction_or_reference(case, tmp_path, model):
    ct, reference = Volume.read(case.ct), Volume.read(case.labels).array
    p = np.random.default_rng(3).dirichlet([8, 1, 1], ct.array.shape).transpose(3, 0, 1, 2).astype(np.float32)
    p[1:] *= 0.45 / p[1:].max()  # background everywhere, but for what the model sees far from the reference
    p[1, 10:13, 13:16, 14:17] += 0.5
    p[0] = 1 - p[1:].sum(axis=0)
    np.savez_compressed(tmp_path / "a.npz", probabilities=p)
    predicted = p.argmax(axis=0)
    assert np.count_nonzero(predicted) == 27

    def near(mask):  # every voxel against every voxel of the structures
        there = np.argwhere(mask) * ct.spacing_zyx
        places = np.argwhere(np.ones(mask.shape, bool)) * ct.spacing_zyx
        least = np.concatenate(
            [((part[:, None] - there) ** 2).sum(axis=2).min(axis=1) for part in np.array_split(places, 40)]
        )
        return (least <= (ROI_MM + 1e-3) ** 2).reshape(mask.shape)

    filled = np.argwhere(ct.array != 0)
    inside = np.zeros(ct.array.shape, bool)
    inside[tuple(slice(a, b + 1) for a, b in zip(filled.min(axis=0), filled.max(axis=0), strict=True))] = True
    roi = near((predicted > 0) | (reference > 0))
    chosen = roi & inside
    assert 100 < np.count_nonzero(chosen) < 0.7 * np.count_nonzero(inside)
    voxels = take(case, tmp_path / "a.npz", model)
    np.testing.assert_array_equal(voxels.pooled, np.log(p[:, chosen]).astype(np.float16))
    np.testing.assert_array_equal(voxels.labels, reference[chosen])
    np.testing.assert_array_equal(voxels.near_prediction, near(predicted > 0)[chosen])
    assert voxels.outside == np.count_nonzero(roi & ~inside)


def test_several_files_are_members_whose_mean_is_the_pool_of_nnunet(case, model, npz, tmp_path):
    both = take(case, npz, model)
    assert both.members.shape == (2, 3, both.size)
    np.testing.assert_allclose(both.pooled, both.members.astype(np.float32).mean(axis=0), rtol=2e-3, atol=1e-3)
    pooled = take(case, stored(case, model, tmp_path / "both.npz", (0, 1)), model)
    assert pooled.size == both.size
    np.testing.assert_array_equal(pooled.labels, both.labels)
    np.testing.assert_array_equal(pooled.near_prediction, both.near_prediction)
    np.testing.assert_allclose(softmax(both.pooled), softmax(pooled.pooled), atol=6e-3)
    expected = run(case, model, tmp_path, [0, 1])
    for mine, other in zip(both.members, expected.members, strict=True):
        for p, q in zip(softmax(mine), softmax(other), strict=True):
            np.testing.assert_allclose(np.sort(p), np.sort(q), atol=3e-3)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_the_axes_of_the_models_reader_are_followed(reader, tmp_path):
    folder = write_model(tmp_path, plans(reader=reader, transpose=(2, 0, 1)), folds=(0,), sharpness=6.0)
    case = labelled(tmp_path, direction=np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]) @ rotation(10))
    mine, expected = (
        take(case, stored(case, folder, tmp_path / "a.npz", (0,)), folder),
        run(case, folder, tmp_path, [0]),
    )
    assert mine.size == expected.size
    np.testing.assert_array_equal(np.bincount(mine.labels), np.bincount(expected.labels))
    of_class = [np.sort(softmax(voxels.pooled)[1][voxels.labels == 2]) for voxels in (mine, expected)]
    np.testing.assert_allclose(*of_class, atol=3e-3)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 1, 0)])
def test_regions_give_log_odds_and_what_is_saturated_is_counted(transpose, tmp_path):
    labels, order = (REGIONS, (1, 2)) if transpose == (0, 1, 2) else ({"background": 0, "Body": [1, 2]}, (1,))
    folder = write_model(
        tmp_path, plans(transpose=transpose), folds=(0,), labels=labels, regions_class_order=order, sharpness=40.0
    )
    case = labelled(tmp_path)
    path, heard = stored(case, folder, tmp_path / "a.npz", (0,)), Listening()
    with StoredProbabilities(path) as file:
        assert file.fortran == (len(order) == 1)  # one region alone, its axes turned round, is in Fortran's order
    mine, expected = take(case, path, folder, heard), run(case, folder, tmp_path, [0])
    assert mine.size == expected.size
    for z, y in zip(mine.pooled, expected.pooled, strict=True):
        z, y = np.sort(z.astype(float)), np.sort(y.astype(float))
        told_apart = (y > -80) & (y < 14)  # in float32
        assert told_apart.sum() > 100
        np.testing.assert_allclose(z[told_apart], y[told_apart], atol=0.1)
    with np.load(path) as content:
        p = content["probabilities"]
    clipped = int(((p == 0) | (p == 1)).sum())
    said = [
        warning
        for warning in heard.warnings
        if "stored probabilities near the structures are exactly 0 or 1" in warning
    ]
    assert bool(said) == bool(clipped)
    assert np.isfinite(mine.pooled).all()


def test_a_probability_of_exactly_0_is_clipped_and_counted(case, model, npz, tmp_path):
    with np.load(npz[0]) as content:
        p = content["probabilities"].copy()
    z, y, x = (int(n) for n in np.argwhere(Volume.read(case.labels).array == 1)[20])
    p[:, z, y, x] = 1, 0, 0
    np.savez_compressed(tmp_path / "a.npz", probabilities=p)
    heard = Listening()
    voxels = take(case, tmp_path / "a.npz", model, heard)
    (said,) = [warning for warning in heard.warnings if "exactly" in warning]
    assert said.startswith(f"case0: 2 of {3 * voxels.size:,} stored probabilities")
    assert voxels.pooled.min() == pytest.approx(-103.28, abs=0.05)


# --- the file ------------------------------------------------------------------------------------------------------------


def read_whole(path):
    with StoredProbabilities(path) as file:
        values = np.full(file.shape, np.nan)
        for where, p in file.planes():
            values[(slice(None), *where)] = p
        return values


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("packed", [True, False])
def test_planes_are_those_of_the_array(packed, order, dtype, tmp_path):
    p = np.random.default_rng(0).random((5, 7, 33, 41)).astype(dtype, order=order)
    p[1:, :, 5:] = 0  # long runs, as probabilities far from everything
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", other=np.arange(3), probabilities=p)
    np.testing.assert_array_equal(read_whole(tmp_path / "a.npz"), p)
    with StoredProbabilities(tmp_path / "a.npz") as file:
        assert len(list(file.planes(3))) == 3
        (where, first), *_ = file.planes()  # a second walk begins anew
        np.testing.assert_array_equal(first, p[(slice(None), *where)])


def test_memory_is_that_of_a_plane_however_many_classes_and_planes(tmp_path):
    p = np.random.default_rng(0).random((12, 40, 64, 64), dtype=np.float32)
    np.savez_compressed(tmp_path / "a.npz", probabilities=p)
    size, plane = p.nbytes, p.nbytes // 40
    del p
    tracemalloc.start()
    with StoredProbabilities(tmp_path / "a.npz") as file:
        total = sum(float(values.sum(dtype=np.float64)) for _, values in file.planes())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 0
    assert peak < 12 * (1 << 16) * 2 + 4 * plane + (1 << 21) < size / 1.5


def test_a_file_that_is_cut_short_or_altered_is_refused(npz, tmp_path):
    content = npz[0].read_bytes()
    broken = bytearray(content)
    broken[len(content) // 2] ^= 0x55
    for number, damaged in enumerate(
        (content[: len(content) // 2], bytes(broken), b"", b"PK\x03\x04", b"not a zip" * 40)
    ):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(damaged)
        with pytest.raises(CalibUncertaintyError, match=f"{number}.npz cannot be read"):
            StoredProbabilities(path)


def test_an_altered_byte_of_an_unpacked_file_is_found_by_its_checksum(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.full((2, 4, 4, 4), 0.5, np.float32))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(np.float32(0.5).tobytes() * 4) + 40] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(content))
    with pytest.raises(CalibUncertaintyError, match="checksum is wrong"):
        StoredProbabilities(tmp_path / "a.npz")


class _Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"softmax": np.zeros(3)}, r"no array 'probabilities' \(it has softmax\)"),
        ({"probabilities": np.zeros((3, 4, 4), np.float32)}, r"float32 of shape \(3, 4, 4\)"),
        ({"probabilities": np.zeros((3, 4, 4, 4), np.uint8)}, "is uint8 of shape"),
        ({"probabilities": np.zeros((3, 0, 4, 4), np.float32)}, "of shape"),
        ({"probabilities": np.array([_Trap()], dtype=object)}, "is object of shape"),
    ],
)
def test_an_npz_without_such_an_array_is_refused_and_nothing_is_unpickled(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(CalibUncertaintyError, match=said) as caught:
        StoredProbabilities(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_packing_that_numpy_never_uses_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.zeros((2, 3, 3, 3), np.float32))
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as archive,
        zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as other,
    ):
        other.writestr("probabilities.npy", archive.read("probabilities.npy"))
    with pytest.raises(CalibUncertaintyError, match="packed as numpy never does"):
        StoredProbabilities(tmp_path / "b.npz")


# --- what does not fit ---------------------------------------------------------------------------------------------------


def change_nan(p):
    p[1, 9, 9, 9] = np.nan


def change_inf(p):
    p[2, 17, 19, 21] = np.inf


def change_sum(p):
    p[1, 2, 3, 4] += 0.01


def change_negative(p):
    p[0, 2, 3, 4] = -0.5


def to_logits(p):
    p[...] = np.log(np.maximum(p, 1e-6)) + 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_nan, "values that are not numbers"), (change_inf, "values that are not numbers"),
        (change_sum, r"of a voxel sum to 1\.01, not to 1"), (change_negative, r"values from -0\.5 to 1, which are no"),
        (to_logits, "which are no probabilities"),
        (lambda p: p[:2], "has 2 classes, the model 3"),
        (lambda p: p[:, :-1], r"has 17 x 20 x 22 voxels, its image .*ct0\.nii\.gz 18 x 20 x 22"),
        (lambda p: p.transpose(0, 3, 2, 1), "has 22 x 20 x 18 voxels"),
    ],
)  # fmt: skip
def test_what_is_not_of_this_image_and_model_is_refused_by_name(change, said, case, model, npz, tmp_path):
    with np.load(npz[0]) as content:
        p = content["probabilities"].copy()
    changed = change(p)
    np.savez_compressed(tmp_path / "bad.npz", probabilities=p if changed is None else changed)
    with pytest.raises(CalibUncertaintyError, match=said) as caught:
        take(case, [npz[0], tmp_path / "bad.npz"], model)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "bad.npz") in str(caught.value)


def test_no_file_and_a_file_that_is_not_there_are_refused(case, model, tmp_path):
    for given, said in (
        ([], "case case0: no stored probabilities"),
        (tmp_path / "gone.npz", "gone.npz cannot be read"),
    ):
        with pytest.raises(CalibUncertaintyError, match=said):
            take(case, given, model)


def test_all_missing_npz_are_listed_at_once(tmp_path):
    cases = [LabelledCase(name, tmp_path / "ct", tmp_path / "seg") for name in ("a", "b", "c")]
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.npz").touch()
    with pytest.raises(CalibUncertaintyError) as caught:
        npz_of(cases, [tmp_path / "x", tmp_path / "y"])
    assert f"case b: {tmp_path / 'x' / 'b.npz'}; case c: {tmp_path / 'x' / 'c.npz'}" in str(caught.value)
    with pytest.raises(CalibUncertaintyError, match="gone is not a folder"):
        npz_of(cases, [tmp_path / "gone"])
    assert npz_of(cases[:1], [tmp_path / "x", tmp_path / "y"]) == {
        "a": [tmp_path / "x" / "a.npz", tmp_path / "y" / "a.npz"]
    }


def test_a_disk_without_room_is_said_with_the_case(case, model, npz, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "CalibUncertaintyLib.workflow.room.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})
    )
    with (
        Scratch(tmp_path, limit_bytes=0) as scratch,
        pytest.raises(CalibUncertaintyError, match="case case0 needs up to"),
    ):
        collect_npz(case, npz[0], ModelFolder.open(model), ROI_MM, scratch, Progress())


def test_nothing_near_a_structure_gives_no_voxels(case, model, tmp_path):
    volume = Volume.read(case.ct)
    volume.with_array(np.zeros(volume.array.shape, np.uint8)).write(tmp_path / "empty.nii.gz")
    p = np.zeros((3, *volume.array.shape), np.float32)
    p[0] = 1
    np.savez_compressed(tmp_path / "a.npz", probabilities=p)
    voxels = take(LabelledCase("e", case.ct, tmp_path / "empty.nii.gz"), tmp_path / "a.npz", model)
    assert (voxels.size, voxels.outside, voxels.pooled.shape) == (0, 0, (3, 0))


def test_labels_to_be_ignored_are_left_out(case, npz, model, tmp_path):
    folder = write_model(tmp_path, plans(transpose=(1, 0, 2)), sharpness=6.0)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    content["labels"]["ignore"] = 3
    (folder / "dataset.json").write_text(json.dumps(content))
    reference = Volume.read(case.labels)
    array = reference.array.copy()
    array[:9] = 3
    reference.with_array(array).write(tmp_path / "part.nii.gz")
    voxels = take(LabelledCase("a", case.ct, tmp_path / "part.nii.gz"), npz[0], folder)
    assert voxels.labels.min() == 0
    whole = take(case, npz[0], model)
    assert 0 < voxels.size < whole.size
