"""What all calibrators have in common: the registry, the promises they make, the sample, the report on decisions."""

import json
import tracemalloc

import numpy as np
import pytest
from calibrator_data import drawn_classes, drawn_regions, fitted

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.base import Calibrator, CalibratorFit, FittedCalibration
from CalibUncertaintyLib.calibration.decision_report import DecisionReport
from CalibUncertaintyLib.calibration.decisions import changed_by_region_temperatures, changed_by_temperature
from CalibUncertaintyLib.calibration.methods import METHODS, calibrator_from_json, method_of
from CalibUncertaintyLib.calibration.platt import PlattScaling
from CalibUncertaintyLib.calibration.sample import VoxelSample
from CalibUncertaintyLib.calibration.temperature import TemperatureScaling

VOXELWISE = [name for name, method in METHODS.items() if not method.spatial and not method.extra]
OF_REGIONS = [name for name in VOXELWISE if METHODS[name].preserves_regions]


def example(name: str, sigmoid: bool):
    truth_of = drawn_regions if sigmoid else drawn_classes
    log_odds, truth = truth_of(3000)
    logits = (2.5 * log_odds + 0.3).astype(np.float16)
    return logits, truth, METHODS[name].new_fit(len(logits), sigmoid)


@pytest.mark.parametrize(("name", "sigmoid"), [*((n, False) for n in VOXELWISE), *((n, True) for n in OF_REGIONS)])
def test_every_method_keeps_its_promises_and_survives_json(name, sigmoid):
    logits, truth, fit = example(name, sigmoid)
    assert isinstance(fit, CalibratorFit)
    result = fitted(fit, logits, truth)
    assert isinstance(result, FittedCalibration)
    assert result.status == "ok"
    assert (result.cases, result.voxels) == (("case",), 3000)
    assert result.nll_after < result.nll_before
    calibrator = result.calibrator()
    assert isinstance(calibrator, Calibrator)
    method = METHODS[name]
    assert calibrator.preserves == (method.preserves_regions if sigmoid else method.preserves)
    again = calibrator_from_json(json.loads(json.dumps(calibrator.to_json())))
    assert again == calibrator
    p = again.transform(logits.reshape(len(logits), 10, 300))
    assert (p.shape, p.dtype) == ((len(logits), 10, 300), np.float32)
    p = p.reshape(len(logits), -1)
    assert np.array_equal(p, calibrator.transform(logits))
    assert p.min() >= 0
    assert p.max() <= 1
    if not sigmoid:
        assert p.sum(axis=0) == pytest.approx(np.ones(3000), abs=1e-6)
    if calibrator.preserves == "order":
        assert changed_by_temperature(logits, p) == 0
    if calibrator.preserves == "decisions":
        assert changed_by_region_temperatures(logits, p) == 0


@pytest.mark.parametrize("name", VOXELWISE)
def test_pieces_are_the_same_case_and_the_fit_is_the_same_every_time(name):
    logits, truth, whole = example(name, False)
    pieces = METHODS[name].new_fit(len(logits))
    for part in (slice(0, 7), slice(7, 2000), slice(2000, None)):
        pieces.add("case", logits[:, part], truth[part])
    first, second = fitted(whole, logits, truth), pieces.fit()
    assert second.nll_after == pytest.approx(first.nll_after, rel=1e-9)
    assert np.allclose(first.calibrator().transform(logits), second.calibrator().transform(logits), atol=1e-6)
    assert pieces.fit().calibrator() == second.calibrator()


@pytest.mark.parametrize("name", VOXELWISE)
def test_without_a_voxel_every_method_says_so(name):
    result = METHODS[name].new_fit(3).fit()
    assert (result.status, result.voxels, result.cases) == ("empty_roi", 0, ())
    assert np.isnan(result.nll_before)


def test_every_method_is_described_in_plain_words():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title
        assert method.description.endswith(".")
        assert method.preserves in ("order", "argmax", "none")
        if method.preserves == "none":
            assert "labels" in method.description
            assert "may change" in method.description
        else:
            assert "no label can change" in method.description
    assert {name for name, method in METHODS.items() if method.spatial} == {
        "auxiliary_convolution",
        "local_temperature",
    }


def test_what_is_not_known_or_does_not_fit_is_refused_in_one_line():
    with pytest.raises(CalibUncertaintyError, match="no calibration method 'magic'; choose one of temperature, platt"):
        method_of("magic")
    with pytest.raises(CalibUncertaintyError, match="this model has regions: choose one of temperature"):
        method_of("vector").new_fit(3, sigmoid=True)
    for document in ({}, None, [], {"method": "magic"}, {"method": ["platt"]}, {"method": None}):
        with pytest.raises(CalibUncertaintyError, match="does not know"):
            calibrator_from_json(document)
    for document in (
        {"method": "temperature"}, {"method": "temperature", "temperature": -1}, {"method": "temperature", "temperature": [0.0]},
        {"method": "temperature", "temperature": None}, {"method": "platt"}, {"method": "vector", "weight": [1], "bias": [1, 2]},
        {"method": "isotonic", "heads": "softmax", "before": [[2.0]], "after": [[0.5]]}, {"method": "cc_order", "raw_mu": []},
    ):  # fmt: skip
        with pytest.raises(CalibUncertaintyError, match="not valid"):
            calibrator_from_json(document)


def cases_of(sizes: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        name: (np.full((2, size), number, np.float32) + np.arange(size), random.integers(2, size=(1, size)))
        for number, (name, size) in enumerate(sizes.items())
    }


def test_a_sample_is_bounded_fair_to_cases_and_stands_for_all_voxels():
    cases = cases_of({"large": 50_000, "middle": 3000, "small": 100})
    sample = VoxelSample(2, most_values=2 * 900)
    for name, (logits, truth) in cases.items():
        for start in range(0, truth.shape[1], 7000):
            sample.add(name, logits[:, start : start + 7000], truth[:, start : start + 7000])
    kept = sample.kept()
    assert (sample.voxels, sample.cases) == (53_100, ("large", "middle", "small"))
    assert kept.weight.size == 300 + 300 + 100
    assert kept.weight.sum() == pytest.approx(53_100)
    assert sorted(set(kept.weight.tolist())) == pytest.approx([1.0, 10.0, 50_000 / 300])
    place = kept.logits[0, :300]
    assert place.mean() == pytest.approx(25_000, rel=0.1)  # from all over the case
    assert len(set(place.tolist())) == 300


@pytest.mark.parametrize("name", ["platt", "matrix", "isotonic"])
def test_memory_does_not_grow_with_the_number_of_voxels(name):
    logits, labels = (
        np.random.default_rng(1).normal(size=(6, 1_000_000)).astype(np.float32),
        np.zeros(1_000_000, np.uint8),
    )
    labels[::3] = 1
    # the room of a sample, small here, and what is fixed: histograms, one chunk
    fit = METHODS[name].new_fit(6)
    fit._sample = VoxelSample(6, most_values=60_000)
    fit.add("warm up", logits[:, :1000], labels[:1000])
    tracemalloc.start()
    fit.add("case", logits, labels)
    fit.fit()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fit.fit().voxels == 1_001_000
    assert peak < 0.75 * logits.nbytes


def test_a_draw_depends_on_the_seed_and_the_case_only():
    cases = cases_of({"a": 5000, "b": 4000, "c": 50})

    def drawn(order: str, seed: int, step: int) -> set:
        sample = VoxelSample(2, most_values=2 * 300, seed=seed)
        for name in order:
            logits, truth = cases[name]
            for start in range(0, truth.shape[1], step):
                sample.add(name, logits[:, start : start + step], truth[:, start : start + step])
        return set(map(tuple, sample.kept().logits.T.tolist()))

    assert drawn("abc", 0, 1000) == drawn("cab", 0, 333)
    assert drawn("abc", 0, 1000) != drawn("abc", 1, 1000)


def dice(decided: np.ndarray, true: np.ndarray) -> float:
    return 2 * (decided & true).sum() / (decided.sum() + true.sum()) if decided.any() or true.any() else np.nan


def test_the_report_counts_changed_voxels_and_dice_before_and_after():
    calibrator = PlattScaling((0.3, 2.0, 1.0, 1.0), (0.5, -1.0, 0.0, 0.0), heads_sigmoid=False)
    cases = {name: drawn_classes(2000, seed=seed) for seed, name in enumerate("abc")}
    cases["c"] = (cases["c"][0] + np.array([[0], [0], [0], [-99]]), np.minimum(cases["c"][1], 2))
    whole, first, second = (DecisionReport(calibrator, 4) for _ in range(3))
    for name, (logits, labels) in cases.items():
        whole.add(name, logits, labels)
        first.add(name, logits[:, :777], labels[:777])
        second.add(name, logits[:, 777:], labels[777:])
    first.merge(second)
    result = whole.result()
    assert json.dumps(first.result()) == json.dumps(result)
    before = {name: logits.argmax(axis=0) for name, (logits, _) in cases.items()}
    after = {name: calibrator.transform(logits).argmax(axis=0) for name, (logits, _) in cases.items()}
    changed = {name: int((before[name] != after[name]).sum()) for name in cases}
    assert result["changed_voxels"] == sum(changed.values()) > 100
    for name, (_, labels) in cases.items():
        assert result["cases"][name]["changed_voxels"] == changed[name]
        for way, label in (("dice_before", before[name]), ("dice_after", after[name])):
            expected = [dice(label == number, labels == number) for number in range(4)]
            assert result["cases"][name][way] == pytest.approx(expected, nan_ok=True)
    labels = np.concatenate([cases[name][1] for name in cases])
    label = np.concatenate([after[name] for name in cases])
    assert result["dice_after"] == pytest.approx([dice(label == number, labels == number) for number in range(4)])
    assert np.isnan(result["cases"]["c"]["dice_after"][3])
    assert result["n_dice_after"] == [3, 3, 3, 2]
    known = [result["cases"][name]["dice_after"][3] for name in "ab"]
    assert result["mean_dice_after"][3] == pytest.approx(np.mean(known))


def test_the_report_on_regions_counts_their_decisions():
    logits, truth = drawn_regions(3000)
    calibrator = PlattScaling((1.0, 1.0, 1.0), (2.0, 0.0, 0.0))
    report = DecisionReport(calibrator, 3, sigmoid=True)
    report.add("a", logits, truth)
    result = report.result()
    assert result["changed_voxels"] == np.count_nonzero((logits[0] <= 0) & (logits[0] + 2 > 0))
    assert result["dice_before"] == pytest.approx([dice(logits[n] > 0, truth[n]) for n in range(3)])
    assert result["dice_after"][1:] == result["dice_before"][1:]


def test_the_report_on_a_temperature_has_nothing_to_say_and_none_without_voxels():
    report = DecisionReport(TemperatureScaling(2.0), 4)
    assert report.result()["status"] == "empty_roi"
    report.add("a", *drawn_classes(2000))
    result = report.result()
    assert result["changed_voxels"] == 0
    assert result["dice_after"] == result["dice_before"]
    with pytest.raises(ValueError, match="different heads"):
        report.merge(DecisionReport(TemperatureScaling(2.0), 3))
