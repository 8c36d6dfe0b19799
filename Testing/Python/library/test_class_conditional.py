"""Class-conditional calibrators through the real package fiducio, which the test extra brings; skipped where it is not there."""

import sys

import numpy as np
import pytest
from calibrator_data import drawn_classes, fitted

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.calibration.base import Calibrator, CalibratorFit
from CalibUncertaintyLib.calibration.decisions import changed_by_temperature
from CalibUncertaintyLib.calibration.fiducio_bridge import METHODS, ClassConditionalFit, ClassConditionalScaling

try:
    import fiducio
except ImportError:
    fiducio = None
needs_fiducio = pytest.mark.skipif(
    fiducio is None, reason="fiducio is not installed: pip install fiducio (torch >= 2.10)"
)
NAMES = sorted(METHODS)


@pytest.fixture(scope="module")
def example() -> tuple[np.ndarray, np.ndarray]:
    log_odds, labels = drawn_classes(6000)
    return (2.2 * log_odds + np.array([[0.5], [0.0], [-0.5], [0.0]])).astype(np.float32), labels


@pytest.fixture(scope="module")
def results(example) -> dict:
    return {name: fitted(ClassConditionalFit(4, method=name), *example) for name in NAMES} if fiducio else {}


@needs_fiducio
@pytest.mark.parametrize("name", NAMES)
def test_the_fit_is_fiducios_own(name, example, results):
    import torch

    logits, labels = example
    calibrator = getattr(fiducio, METHODS[name][0])(
        optimizer="lbfgs", max_iter=500, lambda_reg=1e-3, mu_reg=1e-3, device="cpu"
    )
    relative = logits - logits.max(axis=0)
    calibrator.fit(torch.from_numpy(np.ascontiguousarray(relative.T)), torch.from_numpy(labels))
    expected = calibrator.transform(np.ascontiguousarray(relative.T)).numpy().T
    assert results[name].calibrator().transform(logits) == pytest.approx(expected, abs=1e-6)
    assert results[name].status == "ok"
    assert results[name].nll_after < results[name].nll_before


@needs_fiducio
@pytest.mark.parametrize("name", NAMES)
def test_no_label_changes_and_where_said_no_order(name, example, results):
    calibrator = results[name].calibrator()
    logits = np.random.default_rng(3).normal(scale=5.0, size=(4, 20_000)).astype(np.float16)
    p = calibrator.transform(logits)
    assert p.dtype == np.float32
    assert p.sum(axis=0) == pytest.approx(np.ones(20_000), abs=1e-6)
    assert changed_by_temperature(logits, p) == 0
    if calibrator.preserves == "order":
        ranked = np.take_along_axis(p, np.argsort(-logits.astype(np.float32), axis=0, kind="stable"), axis=0)
        assert (np.diff(ranked, axis=0) <= 0).all()


@needs_fiducio
@pytest.mark.parametrize("name", NAMES)
def test_a_constant_added_to_a_voxels_logits_changes_nothing(name, example, results):
    logits, labels = example
    shift = np.random.default_rng(4).normal(scale=10.0, size=labels.size)
    found = results[name].calibrator().transform(logits.astype(np.float64) + shift)
    assert found == pytest.approx(results[name].calibrator().transform(logits), abs=1e-5)


@needs_fiducio
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_truth_has_a_status_and_nearly_the_identity(name, example):
    logits, _ = example
    before = np.exp(logits - logits.max(axis=0))
    empty = ClassConditionalFit(4, method=name).fit()
    single = fitted(ClassConditionalFit(4, method=name), logits, np.zeros(logits.shape[1], int))
    assert (empty.status, single.status) == ("empty_roi", "single_class")
    for result in (empty, single):
        assert result.fitted.transform(logits) == pytest.approx(before / before.sum(axis=0), abs=1e-4)
    right = fitted(ClassConditionalFit(4, method=name), logits, logits.argmax(axis=0))
    assert right.status == "separable"
    assert np.isfinite(np.array(right.fitted.raw_b)).all()


@needs_fiducio
def test_a_sample_has_the_same_chance_for_every_voxel(example):
    """A large and a small case: the sample's share of the small one is its share of the voxels."""
    logits, labels = example
    fit = ClassConditionalFit(4, most_values=4 * 1000)
    fit.add("large", np.tile(logits, 5), np.tile(labels, 5))
    fit.add("small", logits[:, :600], labels[:600])
    equal = fit._sample.kept(equal_weights=True)
    assert len(set(equal.weight)) == 1
    assert equal.weight.size == pytest.approx(500 * 30_600 / 30_000, rel=0.1)
    assert fit.fit().status == "ok"


@pytest.mark.parametrize("name", NAMES)
def test_class_conditional_scaling_survives_json_without_fiducio(name):
    random = np.random.default_rng(5)
    document = {
        "method": name,
        "raw_b": random.normal(size=(3, 2, 2)).tolist(),
        "raw_mu": random.normal(size=(3, 2)).tolist(),
    }
    calibrator = ClassConditionalScaling.from_json(document)
    assert isinstance(calibrator, Calibrator)
    assert isinstance(ClassConditionalFit(3, method=name), CalibratorFit)
    assert calibrator.to_json() == document
    assert calibrator.preserves == {"cc_order": "order", "cc_argmax": "argmax"}[name]
    for wrong in ({"raw_b": [[1.0]]}, {"raw_mu": [[1.0, 2.0]]}, {"raw_mu": [["x"]]}, {"method": "vector"}):
        with pytest.raises(ValueError):
            ClassConditionalScaling.from_json({**document, **wrong})
    with pytest.raises(ValueError, match="softmax heads"):
        ClassConditionalFit(3, sigmoid=True, method=name)


def test_without_fiducio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiducio", None)
    with pytest.raises(CalibUncertaintyError, match="pip install fiducio"):
        ClassConditionalFit(3).fit()
