"""Calibrators that look at a voxel's neighbourhood: what made the labels comes back, and a window gives what the whole gives."""

import json

import numpy as np
import pytest
from labelled_volumes import SHAPE, drawn, random_local, volume
from scipy import ndimage
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration import volumes
from CalibUncertaintyLib.calibration.auxiliary_convolution import AuxiliaryConvolution, AuxiliaryConvolutionFit
from CalibUncertaintyLib.calibration.base import Calibrator
from CalibUncertaintyLib.calibration.linear_fit import fit_linear, nll_of_scores
from CalibUncertaintyLib.calibration.local_temperature_fit import LocalTemperatureFit
from CalibUncertaintyLib.errors import Cancelled
from CalibUncertaintyLib.progress import Progress


def random_convolution(channels=3, size=(1, 5, 5), regions=False):
    random = np.random.default_rng(3)
    return AuxiliaryConvolution(random.normal(0, 0.3, (channels, *size)), random.normal(0, 1, channels), regions)


CALIBRATORS = {
    "convolution in plane": random_convolution(),
    "convolution in space": random_convolution(size=(5, 5, 5)),
    "convolution of regions": random_convolution(regions=True),
    "local temperature": random_local(),
    "local temperature of regions": random_local(regions=True),
    "local temperature without image": random_local(with_image=False),
}
EACH = pytest.mark.parametrize("calibrator", CALIBRATORS.values(), ids=CALIBRATORS.keys())


@EACH
def test_a_window_with_its_halo_gives_what_the_whole_volume_gives(calibrator):
    logits, _, _, image = volume(0)
    whole = calibrator.transform(logits, image)
    window = (slice(2, 6), slice(8, 18), slice(9, 21))
    around = tuple(slice(max(0, w.start - h), w.stop + h) for w, h in zip(window, calibrator.halo, strict=True))
    inner = tuple(slice(w.start - a.start, w.stop - a.start) for w, a in zip(window, around, strict=True))
    part = calibrator.transform(logits[(slice(None), *around)], image[around])[(slice(None), *inner)]
    np.testing.assert_allclose(part, whole[(slice(None), *window)], atol=2e-6)


@EACH
def test_slabs_join_without_a_seam(calibrator, monkeypatch):
    logits, _, _, image = volume(0)
    whole = calibrator.transform(logits, image)
    windows = list(volumes.slab_windows(SHAPE, 3 * SHAPE[1] * SHAPE[2]))
    assert [w[0] for w in windows] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    for module in ("auxiliary_convolution", "local_temperature"):
        path = f"CalibUncertaintyLib.calibration.{module}.slab_windows"
        monkeypatch.setattr(path, lambda shape, voxels=0: iter(windows))
    np.testing.assert_allclose(calibrator.transform(logits, image), whole, atol=2e-6)


@EACH
def test_json_gives_the_same_calibrator_back(calibrator):
    logits, _, _, image = volume(1)
    assert isinstance(calibrator, Calibrator)
    again = type(calibrator).from_json(json.loads(json.dumps(calibrator.to_json(), allow_nan=False)))
    assert (again.method, again.preserves, again.halo) == (calibrator.method, calibrator.preserves, calibrator.halo)
    assert np.array_equal(again.transform(logits, image), calibrator.transform(logits, image))


@EACH
def test_a_constant_added_to_all_logits_of_a_voxel_changes_softmax_results_nowhere(calibrator):
    if calibrator.regions:
        return
    logits, _, _, image = volume(1)
    shift = np.random.default_rng(0).normal(0, 20, SHAPE)
    shifted = logits.astype(np.float64) + shift
    np.testing.assert_allclose(calibrator.transform(shifted, image), calibrator.transform(logits, image), atol=2e-5)


@EACH
def test_nan_logits_are_refused_in_one_line(calibrator):
    logits, _, _, image = volume(1)
    logits[1, 3, 4, 5] = np.nan
    with pytest.raises(CalibUncertaintyError, match="the logits hold NaN or infinite values"):
        calibrator.transform(logits, image)


@pytest.mark.parametrize("size", [(1, 5, 5), (5, 5, 5)])
def test_the_convolution_is_scipys(size):
    convolution = random_convolution(size=size)
    logits = volume(2)[0].astype(np.float64)
    centred = logits - logits.mean(axis=0)
    expected = [
        ndimage.correlate(v, k.astype(np.float64), mode="nearest") + b
        for v, k, b in zip(centred, convolution.kernels, convolution.bias, strict=True)
    ]
    # logits of up to 30 are summed in single precision, whose steps are 2e-6 there
    np.testing.assert_allclose(convolution.transform(logits), scipy_softmax(np.stack(expected), axis=0), atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_no_step_leaves_the_convolution_at_identity(dimensions):
    logits, labels, roi, _ = volume(3)
    fit = AuxiliaryConvolutionFit(dimensions=dimensions)
    fit.add_volume("a", logits, labels, roi)
    found = fit.fit(max_passes=0)
    expected = scipy_softmax(logits.astype(np.float64), axis=0)
    np.testing.assert_allclose(found.calibrator().transform(logits), expected, atol=1e-6)
    picked = np.take_along_axis(expected, labels[None], 0)[0][roi]
    assert found.nll_before == found.nll_after == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert found.voxels == np.count_nonzero(roi)


def test_kernels_that_made_the_labels_come_back():
    """The logits lack the smoothing that the truth has: a 3 x 3 mean at half the size, and class 1 is likelier."""
    kernel = np.zeros((5, 5))
    kernel[1:4, 1:4] = 0.5 / 9
    fit = AuxiliaryConvolutionFit()
    for seed in range(3):
        random = np.random.default_rng(seed)
        logits = random.normal(0, 6, (2, 12, 64, 64)).astype(np.float16)
        centred = logits.astype(float) - logits.astype(float).mean(axis=0)
        true = np.stack([ndimage.correlate(v, kernel[None], mode="nearest") for v in centred])
        true[1] += 0.8
        roi = np.ones(true.shape[1:], bool)
        fit.add_volume(f"case{seed}", logits, drawn(random, true), roi)
    found = fit.fit(pull=1e-6)
    # of two classes only the difference of their scores means anything
    np.testing.assert_allclose(found.convolution.kernels.mean(axis=0)[0], kernel, atol=0.006)
    assert found.convolution.bias[1] - found.convolution.bias[0] == pytest.approx(0.8, abs=0.02)
    assert (found.status, found.cases) == ("ok", ("case0", "case1", "case2"))
    assert found.nll_after < found.nll_before


def test_region_kernels_are_fitted_region_by_region():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (2, 10, 64, 64))
    truth = random.random(logits.shape) < expit(np.stack([logits[0] / 2, logits[1] + 1]))
    fit = AuxiliaryConvolutionFit(regions=("whole", "core"))
    fit.add_volume("a", logits, truth, np.ones(logits.shape[1:], bool))
    found = fit.fit(pull=1e-6).calibrator()
    assert found.kernels[:, 0, 2, 2] == pytest.approx([0.5, 1.0], abs=0.03)
    assert found.bias == pytest.approx([0, 1], abs=0.06)


def test_the_linear_fit_is_the_optimum_of_scipys_own_search():
    from scipy.optimize import minimize

    random = np.random.default_rng(0)
    inputs = random.normal(0, 1, (4, 500)).astype(np.float32)
    weights, truth, pull = random.random(500) + 0.5, random.integers(0, 3, 500), 0.01
    start = random.normal(0, 1, (3, 4))

    def value(flat):
        matrix = flat.reshape(3, 4)
        log_p = np.log(scipy_softmax(matrix @ inputs.astype(float), axis=0))
        nll = -np.average(log_p[truth, np.arange(500)], weights=weights)
        return nll + pull / 2 * ((matrix - start) ** 2).sum()

    expected = minimize(value, start.ravel(), method="BFGS", options={"gtol": 1e-8})
    found = fit_linear(inputs, truth, start, False, pull, weights)
    assert value(found.weights.ravel()) == pytest.approx(expected.fun, rel=1e-6)
    np.testing.assert_allclose(found.weights.ravel(), expected.x, atol=2e-3)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_slope_of_the_nll_is_its_difference_quotient(sigmoid):
    random = np.random.default_rng(0)
    scores = random.normal(0, 5, (4, 6))
    truth = random.random((4, 6)) < 0.5 if sigmoid else random.integers(0, 4, 6)
    _, slope = nll_of_scores(scores, truth, sigmoid)
    for channel in range(4):
        step = np.zeros_like(scores)
        step[channel] = 1e-5
        above, below = nll_of_scores(scores + step, truth, sigmoid)[0], nll_of_scores(scores - step, truth, sigmoid)[0]
        np.testing.assert_allclose(slope[channel], (above - below) / 2e-5, atol=1e-8)


def test_all_voxels_right_is_called_separable_and_stays_finite():
    logits, _, roi, _ = volume(4)
    fit = AuxiliaryConvolutionFit()
    fit.add_volume("a", logits, logits.argmax(axis=0), roi)
    found = fit.fit()
    assert found.status == "separable"
    assert np.isfinite(found.convolution.kernels).all()
    assert found.nll_after < found.nll_before


FITS = {"convolution": AuxiliaryConvolutionFit, "local temperature": LocalTemperatureFit}
EACH_FIT = pytest.mark.parametrize("new_fit", FITS.values(), ids=FITS.keys())


@EACH_FIT
def test_an_empty_region_of_interest_gives_a_status_and_no_calibrator(new_fit):
    logits, labels, roi, image = volume(5)
    fit = new_fit()
    fit.add_volume("a", logits, labels, np.zeros_like(roi), image)
    found = fit.fit()
    assert (found.status, found.cases, found.voxels) == ("empty_roi", (), 0)
    assert np.isnan(found.nll_before)
    with pytest.raises(CalibUncertaintyError, match="no voxel lies in the region of interest"):
        found.calibrator()


@EACH_FIT
def test_wrong_cases_are_refused_by_name(new_fit):
    logits, labels, roi, image = volume(5)
    fit = new_fit()
    bad = logits.copy()
    bad[0, 5, 9, 9] = np.nan
    with pytest.raises(CalibUncertaintyError, match="case a: the logits hold NaN"):
        fit.add_volume("a", bad, labels, roi, image)
    with pytest.raises(CalibUncertaintyError, match="case a: label 3 is not one of the model's classes 0 to 2"):
        fit.add_volume("a", logits, np.where(labels == 1, 3, labels), roi, image)
    fit.add_volume("b", logits, labels, roi, image)
    with pytest.raises(CalibUncertaintyError, match="case b was added twice"):
        fit.add_volume("b", logits, labels, roi, image)
    with pytest.raises(ValueError, match="do not fit"):
        fit.add_volume("c", logits, labels[1:], roi, image)


def test_labels_outside_the_region_of_interest_do_not_matter():
    logits, labels, roi, _ = volume(5)
    found = []
    for outside in (0, -1):
        fit = AuxiliaryConvolutionFit()
        fit.add_volume("a", logits, np.where(roi, labels, outside), roi)
        found.append(fit.fit().convolution.to_json())
    assert found[0] == found[1]


def test_what_is_kept_is_bounded_and_every_case_stays(monkeypatch):
    monkeypatch.setattr(volumes, "BLOCK_VOXELS", (4, 16, 16))
    stores = []
    for _ in range(2):
        store = volumes.VolumeStore((0, 2, 2), max_bytes=100_000)
        for seed in range(3):
            store.add(f"case{seed}", *volume(seed)[:3])
        assert sum(block.bytes for block in store.blocks) <= 100_000
        assert store.cases == ("case0", "case1", "case2")
        assert "were left out" in store.warnings[0]
        stores.append([block.chance for block in store.blocks])
    assert stores[0] == stores[1]


def test_blocks_hold_each_voxel_once_with_its_true_surroundings(monkeypatch):
    monkeypatch.setattr(volumes, "BLOCK_VOXELS", (4, 16, 16))
    logits, labels, roi, image = volume(0)
    store = volumes.VolumeStore((1, 2, 3))
    store.add("a", logits, labels, roi, image)
    assert len(store.blocks) > 4
    assert sum(block.voxels for block in store.blocks) == np.count_nonzero(roi)
    inner = [volumes.without_halo(block.image, (1, 2, 3))[block.roi] for block in store.blocks]
    expected = np.sort(image[roi].astype(np.float16))
    assert np.array_equal(np.sort(np.concatenate(inner)), expected)


def blocks_kept(seed, max_bytes):
    """For each case the first planes of the blocks that are kept, of a case of five blocks and one of two."""
    store = volumes.VolumeStore((0, 0, 0), max_bytes=max_bytes, seed=seed)
    for name, planes in (("large", 20), ("small", 8)):
        truth = np.arange(planes)[:, None, None] % 2 + np.zeros((planes, 6, 6), np.int64)
        logits = np.broadcast_to(np.arange(planes)[:, None, None], (2, planes, 6, 6)).copy()
        logits[1] *= -1
        store.add(name, logits.astype(np.float32), truth, np.ones((planes, 6, 6), bool))
    return {
        name: tuple(float(block.logits[0, 0, 0, 0]) for block in store.blocks if block.case_id == name)
        for name in ("large", "small")
    }


def test_blocks_are_let_go_by_chance_and_from_the_case_that_has_most(monkeypatch):
    monkeypatch.setattr(volumes, "BLOCK_VOXELS", (4, 6, 6))
    everything = blocks_kept(0, 1 << 20)
    assert everything == {"large": (0, 4, 8, 12, 16), "small": (0, 4)}
    block = 4 * 6 * 6 * (2 * 2 + 4 + 1)  # two logits, the class and the region, of each voxel
    kept = [blocks_kept(seed, 5 * block) for seed in range(12)]
    assert all(len(of["large"]) == 3 and of["small"] == (0, 4) for of in kept)
    gone = {place for of in kept for place in set(everything["large"]) - set(of["large"])}
    assert len(gone) > 2  # not always the same end of the patient


def test_metal_and_padding_beyond_what_hounsfield_units_tell_are_cut_off():
    logits, labels, roi, image = volume(0)
    image = image.copy()
    places = np.argwhere(roi)
    image[tuple(places[0])], image[tuple(places[1])] = 30000.0, -8000.0
    store = volumes.VolumeStore((0, 0, 0))
    store.add("a", logits, labels, roi, image)
    found = np.concatenate([block.image[block.roi] for block in store.blocks]).astype(np.float64)
    assert (found.min(), found.max()) == (-1024.0, pytest.approx(3071.0, abs=1.0))  # half precision counts in twos there


@EACH_FIT
def test_a_fit_can_be_cancelled(new_fit):
    fit = new_fit()
    for seed in range(2):
        fit.add_volume(f"case{seed}", *volume(seed))
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        fit.fit(progress=Progress(cancelled=lambda: next(asked)))
