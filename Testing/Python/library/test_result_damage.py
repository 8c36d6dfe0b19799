"""A Result folder that was edited, half-copied or mixed with another: one line that names the file and the field."""

import copy
import json

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.result_check import problem_in
from CalibUncertaintyLib.workflow.picture import montage
from CalibUncertaintyLib.workflow.segment import segment

STRANGE = (None, "text", -1, float("nan"), [], {}, True, 1e300, "../../ct.nii.gz")


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz", shape=(16, 20, 18))


@pytest.fixture(scope="module")
def made(ct, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    model = write_model(folder, plans(), folds=[0])
    return segment(ct, model, folder / "result", flips="off", roi_mm=1.0, min_region_ml=0.0, merge_gap_mm=0.0)


@pytest.fixture
def folder(made, tmp_path):
    import shutil

    return shutil.copytree(made.folder, tmp_path / "result")


def everything_of(result, ct, png):
    """Whatever reads a Result; what is no CalibUncertaintyError gets through."""
    result.segmentation, result.regions, result.calibrated, result.raw_availability  # noqa: B018 - they are read
    for label in result.labels:
        result.probability(label)
    montage(result.folder, ct, png)


def test_a_whole_result_has_no_problem(made, ct, tmp_path):
    assert problem_in(made.provenance) == ""
    assert made.regions
    everything_of(made, ct, tmp_path / "a.png")


def fields_of(value, path=()):
    """Every place in result.json, of each list its first item."""
    if isinstance(value, dict):
        for key in value:
            yield (*path, key)
            yield from fields_of(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from fields_of(value[0], (*path, 0))


READ = ("calibration", "maps", "model", "roi", "segmentation", "threshold", "regions", "members", "geometry", "box", "ct")


def test_no_field_that_is_changed_ends_in_anything_but_one_line(made):
    tried = refused = 0
    for path in fields_of(made.provenance):
        if path[0] not in READ:
            continue
        for strange in STRANGE:
            content = copy.deepcopy(made.provenance)
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = strange
            problem = problem_in(content)
            tried, refused = tried + 1, refused + bool(problem)
            assert "\n" not in problem
            if not problem:  # what gets through can be used
                result = Result(made.folder, content)
                _ = result.labels, result.calibrated, result.regions, result.raw_availability, result.overlapping
                assert not result.is_of(np.zeros((2, 2, 2)))
    assert refused > tried / 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("roi"), "roi is missing"),
        (lambda c: c.pop("box"), "box is missing"),
        (lambda c: c.update(ct="ct.nii.gz"), "ct must be an object"),
        (lambda c: c["ct"].pop("path"), "ct.path is missing"),
        (lambda c: c["ct"].update(voxels_digest=7), "ct.voxels_digest must be text"),
        (lambda c: c["maps"]["distance"].pop("file"), "maps.distance must be an object that names a file"),
        (lambda c: c["maps"].update(body={"file": "../x"}), "maps.body must be an object that names a file"),
        (lambda c: c.update(regions="x"), "regions must be a list"),
        (lambda c: c["threshold"].update(value=float("nan")), "threshold.value must be"),
        (lambda c: c["model"].update(labels=[]), "model.labels must be a list that is not empty"),
        (lambda c: c["regions"][0].pop("peak_lps_mm"), "regions[0].peak_lps_mm is missing"),
        (lambda c: c["segmentation"].update(file="../ct.nii.gz"), "segmentation.file must be the name of a file"),
        (lambda c: c["maps"]["probability"][0].update(file="/etc/passwd"), "maps.probability[0].file must be"),
    ],
)
def test_a_field_that_is_wrong_is_named_when_the_folder_is_opened(change, named, folder):
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError) as refusal:
        Result.open(folder)
    assert named in str(refusal.value)
    assert str(folder / "result.json") in str(refusal.value)


EDITS = {
    "cropped": (lambda image: image[1:-1, :, :], "voxels and result.json says"),
    "moved": (lambda image: (image.SetOrigin((1000.0, 0.0, 0.0)), image)[1], "lies elsewhere"),
    "turned": (lambda image: (image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1)), image)[1], "lies elsewhere"),
    "a slice of it": (lambda image: image[:, :, 3], "is 2D|voxels and result.json says"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["segmentation", "probability", "entropy", "distance"])
def test_a_map_of_another_place_or_size_is_named(edit, kind, folder, ct, tmp_path):
    change, said = EDITS[edit]
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    maps = content["maps"]
    name = {
        "segmentation": content["segmentation"]["file"],
        "probability": maps["probability"][0]["file"],
        "entropy": next(item["file"] for item in maps["uncertainty"] if item["measure"] == "entropy"),
        "distance": maps["distance"]["file"],
    }[kind]
    sitk.WriteImage(change(sitk.ReadImage(str(folder / name))), str(folder / name))
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        everything_of(Result.open(folder), ct, tmp_path / "a.png")
    assert str(folder / name) in str(refusal.value)


@pytest.mark.parametrize(
    "change", [lambda a: a + np.float32(0.5), lambda a: a.astype(np.int16) - 1, lambda a: a + np.uint8(70)]
)
def test_a_segmentation_that_holds_no_labels_of_the_result_is_named(change, folder, made):
    changed = change(made.segmentation.array)
    made.segmentation.with_array(changed).write(folder / "segmentation.nii.gz")
    with pytest.raises(CalibUncertaintyError, match=r"segmentation.nii.gz does not hold the Result's labels"):
        _ = Result.open(folder).segmentation


@pytest.mark.parametrize("place", ["ct.nii.gz", "result/result.json", "result/segmentation.nii.gz", "result"])
def test_a_picture_takes_the_place_of_pictures_only(place, folder, ct, tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(ct.read_bytes())
    before = (tmp_path / place).read_bytes() if (tmp_path / place).is_file() else None
    with pytest.raises(CalibUncertaintyError, match=r"no PNG picture|is a folder") as refusal:
        montage(folder, tmp_path / "ct.nii.gz", tmp_path / place)
    assert str(tmp_path / place) in str(refusal.value)
    assert before is None or (tmp_path / place).read_bytes() == before


def test_a_picture_takes_the_place_of_an_earlier_one_and_of_an_empty_file(folder, ct, tmp_path):
    (tmp_path / "a.png").touch()
    for _ in range(2):
        assert montage(folder, ct, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
