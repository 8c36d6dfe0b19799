"""The patient's body as the region of interest of `segment`, `calibrate` and `evaluate`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError, cli
from CalibUncertaintyLib.body import body_mask
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.result_regions import RegionVoxels, region_of_interest
from CalibUncertaintyLib.uncertainty.region import POSSIBLE_MISS
from CalibUncertaintyLib.uncertainty.regions import find_regions
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.check import check_model
from CalibUncertaintyLib.workflow.evaluate import evaluate
from CalibUncertaintyLib.workflow.labelled import LabelledCase
from CalibUncertaintyLib.workflow.options import SegmentOptions
from CalibUncertaintyLib.workflow.segment import segment

SHAPE = (18, 26, 24)


def write_patient(path, seed=0, direction=None, shape=SHAPE):
    """A CT of tissue with smooth random HU in an oval, and air around it."""
    write_ct(path, shape=shape, seed=seed, direction=direction)
    ct = Volume.read(path)
    _, y, x = np.indices(shape)
    inside = ((y - 12) / 8) ** 2 + ((x - 11) / 7) ** 2 <= 1
    hu = np.where(inside, np.clip(ct.array, -200, 1500), -1000).astype(np.int16)
    ct.with_array(hu).write(path)
    return path


def body_by_hand(path):
    ct = Volume.read(path)
    mask = body_mask(ct.array, ct.spacing_zyx)
    assert 0.2 < mask.mean() < 0.8
    return mask


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(transpose=(1, 2, 0)), sharpness=5.0)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("ct") / "ct.nii.gz", direction=rotation(12))


OPTIONS = {"flips": "off", "roi": "body", "threshold": 0.6, "min_region_ml": 0.0, "merge_gap_mm": 0.0, "calibration": "none"}


@pytest.fixture(scope="module")
def result(model, ct, tmp_path_factory):
    return segment(ct, model, tmp_path_factory.mktemp("out") / "result", export=["nifti"], **OPTIONS)


def window(result):
    box = result.provenance["box"]
    return tuple(
        slice(a, a + n) for a, n in zip(box["start_xyz"][::-1], box["size_xyz"][::-1], strict=True)
    )  # fmt: skip


def test_the_body_is_stored_and_the_maps_reach_all_of_it(result, ct):
    body = body_by_hand(ct)
    assert result.of_body
    assert np.array_equal(result.body.array > 0, body[window(result)])
    assert result.body.array.sum() == body.sum()  # none lies outside of the box
    assert result.provenance["roi"] == {
        "distance_mm": 15.0, "reference": "body", "voxels": int(body.sum()),
        "volume_ml": pytest.approx(body.sum() * Volume.read(ct).voxel_volume_ml),
    }  # fmt: skip
    exported = Volume.read(result.folder / "nifti" / "body.nii.gz")
    assert np.array_equal(exported.array > 0, body)
    assert np.array_equal(region_of_interest(result), result.body.array > 0)


def test_regions_are_all_that_is_uncertain_in_the_body_and_nothing_else(result):
    wanted = (result.uncertainty("entropy").array >= 0.6) & (result.body.array > 0)
    uncertain = [region for region in result.regions if region.kind != POSSIBLE_MISS]
    voxels = RegionVoxels.of_result(result, uncertain)
    pieces, count = ndimage.label(wanted, np.ones((3, 3, 3)))
    assert len(uncertain) == count > 0
    found = np.zeros_like(pieces)
    for region in uncertain:
        mask = voxels.mask(region)
        assert len(np.unique(pieces[mask])) == 1
        found[mask] += 1
    assert np.array_equal(found == 1, wanted)
    assert found.max() == 1


def test_aggregates_are_of_the_body(result):
    u = result.uncertainty("entropy").array[result.body.array > 0]
    assert result.provenance["aggregates"]["case"]["mean"] == pytest.approx(u.mean(dtype=float), rel=1e-5)


def random_case(seed):
    random = np.random.default_rng(seed)
    shape = (7, 16, 15)
    smooth = [ndimage.gaussian_filter(random.normal(size=shape), 1.2) for _ in range(3)]
    u, p, inside = (field / np.abs(field).max() for field in smooth)
    label = np.zeros(shape, np.uint8)
    if seed % 3:
        label[2:4, 3:6, 2:6] = 1 + seed % 2
    return np.abs(u), np.clip(p, 0, 1), inside > 0.0, label


class Grid:
    spacing_zyx = (2.0, 1.0, 1.5)

    def lps_from_index(self, index):
        return np.asarray(index, float)

    ras_from_index = lps_from_index


@pytest.mark.parametrize("seed", range(12))
def test_in_any_region_of_interest_a_miss_is_listed_once(seed):
    u, p, inside, label = random_case(seed)
    distance = np.full(label.shape, np.inf, np.float32)
    if label.any():
        distance = ndimage.distance_transform_edt(label == 0, Grid.spacing_zyx).astype(np.float32)
    least = 5 * 3.0
    found = find_regions(
        u, distance, label, p, 1 - p, 4.0, 0.5, Grid(), {1: "One", 2: "Two"}, least, 0.4, np.ones_like(label), inside=inside
    )
    uncertain, count = ndimage.label((u >= 0.5) & inside, np.ones((3, 3, 3)))
    sizes = np.bincount(uncertain.ravel(), minlength=count + 1)
    listed = [set(np.flatnonzero(uncertain == n)) for n in range(1, count + 1) if sizes[n] >= 5]
    far, count = ndimage.label((p >= 0.4) & ~(distance <= 4.0 + 1e-4), np.ones((3, 3, 3)))
    misses = [set(np.flatnonzero(far == n)) for n in range(1, count + 1) if (far == n).sum() >= 5]
    misses = [miss for miss in misses if not any(miss & other for other in listed)]
    by_kind = {False: [], True: []}
    for region, places in zip(found, found.places, strict=True):
        by_kind[region.kind == POSSIBLE_MISS].append(set(places.tolist()))
        assert region.reason.endswith(".")
        assert (region.share is None) == (region.kind == POSSIBLE_MISS or not label.any())
    assert sorted(map(sorted, by_kind[False])) == sorted(map(sorted, listed))
    assert sorted(map(sorted, by_kind[True])) == sorted(map(sorted, misses))


def test_a_shape_of_another_grid_is_refused():
    u, p, inside, label = random_case(1)
    with pytest.raises(ValueError, match="one shape"):
        find_regions(u, u, label, p, p, 4.0, 0.5, Grid(), {}, 0.0, 0.4, label, inside=inside[:-1])


def test_without_any_structure_doubt_in_the_body_is_listed(model, ct, tmp_path):
    """The weights prefer background everywhere, but not by much."""
    own = tmp_path / model.parent.name / model.name
    for fold in (0, 1):
        (own / f"fold_{fold}").mkdir(parents=True)
        name = f"fold_{fold}/checkpoint_final.pth"
        content = torch.load(model / name, weights_only=False)
        for key, weights in content["network_weights"].items():
            if "seg_layers" in key:
                weights.zero_()
                if weights.ndim == 1:
                    weights[0] = 1.0
        torch.save(content, own / name)
    for name in ("plans.json", "dataset.json"):
        (own / name).write_text((model / name).read_text(encoding="utf-8"))
    found = segment(ct, own, tmp_path / "out", **OPTIONS)
    assert not found.segmentation.array.any()
    (region, *rest) = found.regions
    assert not rest
    assert region.voxels == body_by_hand(ct).sum()
    assert (region.label, region.structure, region.share) == (0, "", None)
    assert "though no structure was drawn at all" in region.reason
    assert Result.open(found.folder).regions == found.regions
    assert RegionVoxels.of_result(found).mask(region).sum() == region.voxels


@pytest.mark.parametrize("kind", ["air", "shifted"])
def test_a_ct_without_a_body_or_without_hounsfield_units_is_refused_before_the_network_runs(
    kind, model, ct, tmp_path, monkeypatch
):
    from CalibUncertaintyLib.inference.opinions import Opinions

    monkeypatch.setattr(Opinions, "ask", lambda *_, **__: pytest.fail("the network was asked"))
    given = Volume.read(ct)
    air = np.random.default_rng(0).normal(-1000, 20, SHAPE).round()
    array = air if kind == "air" else given.array.astype(np.int32) + 1024
    said = "the CT shows no body" if kind == "air" else "no Hounsfield units or are masked"
    with pytest.raises(CalibUncertaintyError, match=said):
        segment(given.with_array(array.astype(np.int16)), model, tmp_path / "out", **OPTIONS, skip_ct_check=True)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_region_of_interest_is_refused():
    with pytest.raises(CalibUncertaintyError, match="the ROI 'skin' is unknown; choose structures or body"):
        SegmentOptions(roi="skin")


def test_the_terminal_takes_a_distance_or_the_body(capsys):
    def parsed(*words, verb="segment"):
        more = {"segment": ["ct", "--out", "o"], "calibrate": ["--cases", "c"], "evaluate": ["--cases", "c", "--out", "o"]}
        return cli.parser().parse_args([verb, *more[verb], "--model", "m", *words])

    for verb in ("segment", "calibrate", "evaluate"):
        given = [parsed(*words, verb=verb) for words in ([], ["--roi", "8"], ["--roi", "body"], ["--roi", "8", "--roi", "body"])]
        assert [(of.roi, of.roi_mm) for of in given] == [
            ("structures", 15.0), ("structures", 8.0), ("body", 15.0), ("body", 8.0),
        ]  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            parsed("--roi", "skin", verb=verb)
        assert ended.value.code == 2
        assert "give a distance in mm, or body, not 'skin'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cases(model, tmp_path_factory):
    """References are the model's own labels, but where it is unsure; there every second one is another. One is to be ignored."""
    folder = tmp_path_factory.mktemp("cases")
    found = []
    for seed in (1, 2):
        path = write_patient(folder / f"ct{seed}.nii.gz", seed)
        own = segment(path, model, folder / f"r{seed}", flips="off", calibration="none", full_volume=True)
        entropy, random = own.uncertainty("entropy").array, np.random.default_rng(seed)
        doubted = (entropy > np.quantile(entropy, 0.7)) & (random.random(entropy.shape) < 0.5)
        labels = np.where(doubted, random.integers(0, 3, entropy.shape), own.segmentation.array).astype(np.uint8)
        Volume.read(path).with_array(labels).write(folder / f"labels{seed}.nii.gz")
        found.append(LabelledCase(f"P{seed}", path, folder / f"labels{seed}.nii.gz"))
    return found


@pytest.fixture(scope="module")
def in_body(model, cases, tmp_path_factory):
    return calibrate(cases, model, tmp_path_factory.mktemp("body") / "r.json", flips="off", bootstrap=0, roi="body")


@pytest.fixture(scope="module")
def nearby(model, cases, tmp_path_factory):
    return calibrate(cases, model, tmp_path_factory.mktemp("near") / "r.json", flips="off", bootstrap=0, roi_mm=3.0)


def test_a_calibration_in_the_body_is_of_its_voxels_and_says_so(in_body, nearby, model, cases):
    path, entry = in_body
    expected = {case.id: int(body_by_hand(case.ct).sum()) for case in cases}
    figures = entry.figures["before"]
    assert {case: of["n"] for case, of in figures["cases"].items()} == expected
    assert entry.roi == {"distance_mm": 15.0, "reference": "body"}
    assert list(figures["domains"]) == ["body"]
    assert CalibrationRecord.read(path).entries[0].roi["reference"] == "body"
    assert nearby[1].roi == {"distance_mm": 3.0, "reference": "union"}
    members = MemberSet.choose(model, flips="off")
    assert "Fitted in the patient's body" in "\n".join(check_model(members, "pool_logit", str(path)).lines())


def test_the_threshold_is_the_best_one_over_the_voxels_of_the_body(in_body, model, cases, tmp_path):
    """What is flagged at the stored threshold overlaps with the errors in the body at least as well as at any other."""
    path, entry = in_body
    threshold = entry.thresholds["entropy"]["value"]
    of_cases = []
    for case in cases:
        found = segment(case.ct, model, tmp_path / case.id, flips="off", roi="body", calibration=str(path))
        assert found.provenance["threshold"]["value"] == pytest.approx(threshold)
        body, labels = found.body.array > 0, Volume.read(case.labels).array[window(found)]
        wrong = (labels != found.segmentation.array[window(found)])[body]
        of_cases.append((found.uncertainty("entropy").array[body], wrong))

    def overlap(at):
        return np.mean([2 * ((u >= at) & wrong).sum() / ((u >= at).sum() + wrong.sum()) for u, wrong in of_cases])

    best = max(overlap(at) for at in np.linspace(0.01, 1.09, 200))
    assert overlap(threshold) >= best - 0.003


def warnings_of(found):
    return [text for text in found.provenance["warnings"] if "threshold" in text]


def test_a_threshold_of_another_region_of_interest_is_said_and_chances_are_not_given(in_body, nearby, model, ct, tmp_path):
    common = {"flips": "off", "min_region_ml": 0.1}
    mine = segment(ct, model, tmp_path / "a", calibration=str(in_body[0]), roi="body", **common)
    assert warnings_of(mine) == []
    assert mine.provenance["calibration"]["roi"] == "in the patient's body"
    assert {region.chance is None for region in mine.regions if region.kind != POSSIBLE_MISS} == {False}
    other = segment(ct, model, tmp_path / "b", calibration=str(nearby[0]), roi="body", **common)
    assert warnings_of(other) == [
        "The stored threshold of entropy was fitted within 3 mm of the structures, and regions are listed in the patient's body:"
        " it may mark too much or too little there"
    ]
    assert {region.chance for region in other.regions} == {None}
    back = segment(ct, model, tmp_path / "c", calibration=str(in_body[0]), roi_mm=15.0, **common)
    assert "was fitted in the patient's body, and regions are listed within 15 mm" in warnings_of(back)[0]
    assert {region.chance for region in back.regions} == {None}
    assert mine.provenance["aggregates"]["combined"]["status"] in ("no_scores", "other_roi")  # these are within a distance
    own = segment(ct, model, tmp_path / "d", calibration=str(in_body[0]), roi="body", threshold=0.5, **common)
    assert warnings_of(own) == []  # it is not the stored one


def test_an_evaluation_in_the_body_counts_its_errors_first(in_body, model, cases, tmp_path, capsys):
    listed = tmp_path / "cases.json"
    rows = [{"id": case.id, "ct": str(case.ct), "labels": str(case.labels), "split": "test"} for case in cases]
    listed.write_text(json.dumps({"cases": rows}))
    out = tmp_path / "out"
    given = ["--cases", str(listed), "--model", str(model), "--out", str(out), "--flips", "off", "--calibration", "none"]
    assert cli.main(["evaluate", *given, "--roi", "body", "--keep-results"]) == 0
    assert "entropy: error Dice" in capsys.readouterr().err
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert content["options"]["roi_reference"] == "body"
    of = content["configurations"]["uncalibrated"]
    assert list(of["errors"]) == ["body", "pred", "union"]
    assert set(of["calibration"]) == {"union", "pred", "box", "body"}
    for case in cases:
        found = Result.open(out / "cases" / "uncalibrated" / case.id / "result")
        body, truth = body_by_hand(case.ct), Volume.read(case.labels).array
        errors = of["by_case"][case.id]["errors"]["body"]
        assert errors["voxels"] == body.sum()
        assert errors["errors"] == ((found.segmentation.array != truth) & body).sum()
        assert of["by_case"][case.id]["calibration"]["body"]["n"] == body.sum()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("In the patient&#x27;s body") > 0
    assert (out / "summary.csv").read_text(encoding="utf-8").count(",body,") > 10
    # a run by distance has other figures, and does not take these for its own
    again = evaluate(
        [replace(case) for case in cases], model, out, flips="off", calibration="none", roi_mm=15.0, keep_results=True
    )
    assert again.count("kept") == 0
    assert list(again.content["configurations"]["uncalibrated"]["errors"]) == ["pred", "union"]


@pytest.mark.real_data
def test_on_a_real_ct_doubt_is_listed_anywhere_in_the_body(shared_data, tmp_path):
    model = write_model(tmp_path, plans(spacing=(5.0, 8.0, 8.0)), folds=(0,), sharpness=3.0)
    path = shared_data / "okbp" / "okbp_004_ct.nii.gz"
    found = segment(path, model, tmp_path / "out", flips="off", roi="body", threshold=0.9, merge_gap_mm=0.0)
    body = body_by_hand(path)
    assert found.body.array.sum() == body.sum()
    voxels = RegionVoxels.of_result(found)
    uncertain = [region for region in found.regions if region.kind != POSSIBLE_MISS]
    assert uncertain
    assert all(body[window(found)][voxels.mask(region)].all() for region in uncertain)
