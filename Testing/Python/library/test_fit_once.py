"""An entry's laws, thresholds, regions and range: each voxel is calibrated once for all, and they are what they should be."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

from CalibUncertaintyLib.calibration.softmax import probabilities
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.plain_json import plain
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.uncertainty.context_law import ContextLaw
from CalibUncertaintyLib.uncertainty.distance_aware import distance_aware_entropy
from CalibUncertaintyLib.uncertainty.exceedance import ebcu
from CalibUncertaintyLib.uncertainty.interface_distance import signed_distance
from CalibUncertaintyLib.uncertainty.measures import MEASURES, measures_of
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures
from CalibUncertaintyLib.uncertainty.threshold import ThresholdFit
from CalibUncertaintyLib.workflow import calibrated_case, candidates
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.calibrated_case import calibrated_cases
from CalibUncertaintyLib.workflow.candidates import Candidate, Reference
from CalibUncertaintyLib.workflow.context_fit import fit_context
from CalibUncertaintyLib.workflow.fit import fit_entries
from CalibUncertaintyLib.workflow.fit_maps import maps_of_entry, threshold_fits
from CalibUncertaintyLib.workflow.labelled import LabelledCase, LabelledVolume, RoiVoxels
from CalibUncertaintyLib.workflow.places import Places

SHAPE, SPACING = (10, 24, 20), (3.0, 1.5, 1.5)
HEADS = Heads(("First", "Second"), (1, 2), sigmoid=False)
REFERENCE = Reference(HEADS, {"background": 0, "First": 1, "Second": 2})


def labelled(seed: int, members: int = 3) -> RoiVoxels:
    """A ball of two classes, members that are unsure around it, a reference that is drawn from what they say, and a few far
    voxels.
    """
    random = np.random.default_rng(seed)
    z, y, x = (axis * step for axis, step in zip(np.indices(SHAPE), SPACING, strict=True))
    inside = 9.0 - np.sqrt((z - 14) ** 2 + (y - 17) ** 2 + (x - 14) ** 2)
    logits = np.stack([-0.6 * inside, np.where(x < 14, inside, -9.0), np.where(x >= 14, inside, -9.0)])
    each = (logits + random.normal(scale=1.2, size=(members, *logits.shape))).astype(np.float16)
    pooled = each.astype(np.float32).mean(axis=0).astype(np.float16)
    truth = (pooled.astype(float) / 1.7 + random.gumbel(size=pooled.shape)).argmax(axis=0).astype(np.int32)
    label = pooled.argmax(axis=0)
    distance, signed = distance_to_structures(label, SPACING), signed_distance(label, SPACING)

    def of(mask: np.ndarray, far: RoiVoxels | None = None) -> RoiVoxels:
        places = Places(SHAPE, SPACING, np.flatnonzero(mask), distance[mask], signed[mask])
        return RoiVoxels(
            LabelledCase(f"P{seed}", "ct", "seg"), pooled[:, mask], each[..., mask], truth[mask], distance[mask] <= 6.0, 0,
            places=places, far=far,
        )  # fmt: skip

    return of(distance <= 9.0, of((distance > 9.0) & (random.random(SHAPE) < 0.05)))


def entry(cases, **changes):
    found = fit_entries(cases, {}, REFERENCE, 6.0, 0, Progress(), [Candidate(**changes)])
    return {key: value for key, value in plain(dataclasses.asdict(found[0])).items() if key != "created"}


@pytest.fixture(scope="module")
def cases():
    return [labelled(1), labelled(2)]


def test_what_is_worked_out_is_what_the_calibration_says(cases):
    calibration = AppliedCalibration("pool_logit", 1.7, 1.3, calibrated=True, heads=HEADS)
    with calibrated_cases(cases, calibration, REFERENCE, threshold_fits(HEADS, 3)) as (found, _):
        for case, voxels in zip(found, cases, strict=True):
            for part, of_case in ((case, voxels), (case.far, voxels.far)):
                p = softmax(of_case.pooled.astype(np.float64) / 1.7, axis=0)
                assert part.entropy == pytest.approx(-(p * np.log(p)).sum(axis=0), abs=1e-5)
                assert np.array_equal(part.label, of_case.pooled.argmax(axis=0))
                assert np.array_equal(part.wrong, of_case.pooled.argmax(axis=0) != of_case.labels)
                assert part.foreground == pytest.approx(1 - p[0], abs=1e-5)
                assert part.expected == pytest.approx(1 - p.max(axis=0), abs=1e-5)
                assert np.array_equal(part.likeliest, 1 + of_case.pooled[1:].argmax(axis=0))
            each = softmax(voxels.members.astype(np.float64) / 1.3, axis=1)
            mean = each.mean(axis=0)
            mi = (each * np.log(each)).sum(axis=1).mean(axis=0) - (mean * np.log(mean)).sum(axis=0)
            assert case.measures["mi"] == pytest.approx(mi, abs=1e-5)
            assert set(case.measures) == {"entropy", "mi"}
    assert found == []


def test_thresholds_are_those_of_all_voxels_near_the_prediction_at_once(cases):
    found = entry(cases)
    temperature, law = found["temperature"], ContextLaw.from_json(found["context"])
    fits = {name: ThresholdFit(name, MEASURES[name].upper(3, 3, False)) for name in ("entropy", "conf", "dae", "ebcu")}
    for voxels in cases:
        places, near = voxels.places, voxels.near_prediction
        measures = measures_of(probabilities(voxels.pooled, temperature, False))
        label = voxels.pooled.argmax(axis=0)
        wrong = label != voxels.labels
        u = places.scattered(np.minimum(measures["entropy"] / np.float32(np.log(3)), np.float32(1)))
        signed = places.scattered(places.signed, np.float32(np.inf))
        around = {
            "dae": distance_aware_entropy(u, signed),
            "ebcu": ebcu(u, places.scattered(label), signed, places.scattered(near), SPACING, law),
        }
        off = wrong & (np.abs(places.signed) > np.hypot(3.0, np.hypot(1.5, 1.5)) + 1e-4)
        assert (off & near).any()
        for name, fit in fits.items():
            values = measures[name] if name in measures else places.gathered(around[name])
            errors = off if MEASURES[name].off_borders else wrong
            fit.add(voxels.case.id, values[near], errors[near])
    for name, fit in fits.items():
        criterion = "pooled" if MEASURES[name].off_borders else "mean"
        assert found["thresholds"][name]["value"] == fit.fit(criterion).value, name


@pytest.mark.parametrize("mode", ["pool_logit", "pool_prob", "shared", "member"])
def test_an_entry_depends_neither_on_the_pieces_nor_on_where_arrays_lie(cases, monkeypatch, mode):
    whole = entry(cases, mode=mode)
    assert {"entropy", "mi", "dae", "ebcu"} <= set(whole["thresholds"])
    assert set(whole["regions"]) >= {"entropy", "mi"}
    monkeypatch.setattr(Scratch.__init__, "__defaults__", (0,))
    monkeypatch.setattr(calibrated_case, "parts", lambda voxels: pieces_of(voxels.size))
    assert entry(cases, mode=mode) == whole


def pieces_of(size, step=333):
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def test_far_voxels_count_for_the_regions_alone(cases):
    found = entry(cases)
    without = entry([dataclasses.replace(voxels, far=None) for voxels in cases])
    assert {key: value for key, value in found.items() if key != "regions"} == {
        key: value for key, value in without.items() if key != "regions"
    }


class Neighbours:
    """Stands for a calibrator that looks at each voxel's neighbours."""

    method, spatial, preserves, halo = "local_temperature", True, "order", (1, 1, 1)

    def __init__(self):
        self.asked = 0

    def transform(self, logits, image=None):
        self.asked += 1
        return probabilities(np.asarray(logits), 1.7, False)


def test_a_calibrator_that_looks_at_neighbours_is_asked_once_a_case_and_not_about_far_voxels(cases):
    calibrator = Neighbours()
    calibration = AppliedCalibration("pool_logit", calibrated=True, heads=HEADS, calibrator=calibrator)
    with_volumes = []
    for voxels in cases:
        logits = np.stack([voxels.places.scattered(of_class) for of_class in voxels.pooled])
        volume = LabelledVolume(logits, None, None, np.zeros(SHAPE, np.float32), voxels.places.positions)
        with_volumes.append(dataclasses.replace(voxels, volume=volume))
    fits = threshold_fits(HEADS, 3)
    with calibrated_cases(with_volumes, calibration, REFERENCE, fits) as (found, scratch):
        assert [case.far for case in found] == [None, None]
        maps = maps_of_entry(found, fits, REFERENCE, 6.0, scratch)
    candidates.forget_volume()
    assert calibrator.asked == len(cases)
    plain_temperature = AppliedCalibration("pool_logit", 1.7, calibrated=True, heads=HEADS)
    fits = threshold_fits(HEADS, 3)
    alone = [dataclasses.replace(voxels, far=None) for voxels in cases]
    with calibrated_cases(alone, plain_temperature, REFERENCE, fits) as (found, scratch):
        assert maps_of_entry(found, fits, REFERENCE, 6.0, scratch) == maps


def test_a_case_without_a_voxel_and_cases_without_places_are_no_trouble(cases):
    voxels = cases[0]
    nobody = np.zeros(voxels.size, bool)
    empty = dataclasses.replace(
        voxels, case=LabelledCase("empty", "ct", "seg"), pooled=voxels.pooled[:, nobody], members=voxels.members[..., nobody],
        labels=voxels.labels[nobody], near_prediction=nobody[nobody], places=voxels.places.kept(nobody), far=None,
    )  # fmt: skip
    found = entry([*cases, empty])
    assert found["thresholds"] == entry(cases)["thresholds"]
    lost = [dataclasses.replace(voxels, places=None, far=None) for voxels in cases]
    calibration = AppliedCalibration("pool_logit", 1.7, calibrated=True, heads=HEADS)
    fits = threshold_fits(HEADS, 3)
    with calibrated_cases(lost, calibration, REFERENCE, fits) as (looked_at, scratch):
        assert fit_context(looked_at, HEADS, scratch) is None
        maps = maps_of_entry(looked_at, fits, REFERENCE, 6.0, scratch)
    assert maps["context"] is None
    assert maps["regions"] is None
    assert {"entropy", "conf", "mi"} <= set(maps["thresholds"])
    assert "ebcu" not in maps["thresholds"]
