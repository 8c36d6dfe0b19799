"""The figures of a record's entry: which cases and voxels they are of."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.candidates import Reference
from CalibUncertaintyLib.workflow.fit import figures
from CalibUncertaintyLib.workflow.labelled import LabelledCase, RoiVoxels

LABELS = {"background": 0, "First": 1, "Second": 2}


def reference() -> Reference:
    return Reference(Heads(("First", "Second"), (1, 2), sigmoid=False), LABELS)


def case(name: str, seed: int, near_share: float) -> RoiVoxels:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3.0, size=(3, 2000)).astype(np.float16)
    labels = (logits + 2 * random.gumbel(size=logits.shape)).argmax(axis=0).astype(np.int32)
    near = random.random(2000) < near_share
    return RoiVoxels(LabelledCase(name, "ct", "seg"), logits, logits[np.newaxis], labels, near, 0)


def mean_nll(voxels: RoiVoxels, temperature: float) -> float:
    """Of the voxels near the prediction."""
    near = voxels.near_prediction
    log_p = log_softmax(voxels.pooled[:, near].astype(np.float64) / temperature, axis=0)
    return float(-log_p[voxels.labels[near], np.arange(near.sum())].mean())


def mean_brier(voxels: RoiVoxels, temperature: float) -> float:
    near = voxels.near_prediction
    p = softmax(voxels.pooled[:, near].astype(np.float64) / temperature, axis=0)
    return float(((p - np.eye(3)[:, voxels.labels[near]]) ** 2).sum(axis=0).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_domain_of_the_prediction_has_its_own_means_over_cases(temperature):
    cases = [case("a", 1, 0.7), case("b", 2, 0.3)]
    calibration = AppliedCalibration("pool_logit", temperature, calibrated=True, heads=reference().heads)
    found = figures(cases, calibration, reference(), 15.0)
    domain = found["domains"]["dist:15:pred"]
    assert set(found["domains"]) == {"dist:15:pred"}
    assert domain["n"] == sum(int(voxels.near_prediction.sum()) for voxels in cases)
    assert domain["nll"] == pytest.approx(np.mean([mean_nll(voxels, temperature) for voxels in cases]), rel=1e-5)
    assert domain["brier_sum"] == pytest.approx(
        np.mean([mean_brier(voxels, temperature) for voxels in cases]), rel=1e-5
    )
    assert {"ece_toplabel", "ece_class", "cases_used"} <= set(domain)
    assert found["pooled"]["n"] == 4000


def test_a_case_without_a_prediction_is_left_out_of_that_domain_alone():
    cases = [case("a", 1, 0.5), case("nothing predicted", 2, 0.0)]
    calibration = AppliedCalibration("pool_logit", heads=reference().heads)
    found = figures(cases, calibration, reference(), 7.5)
    domain = found["domains"]["dist:7.5:pred"]
    assert domain["cases_used"] == 1
    assert found["per_case"]["cases_used"] == 2
    assert domain["nll"] == pytest.approx(mean_nll(cases[0], 1.0), rel=1e-5)


def test_no_domain_is_named_where_the_distance_is_not_known():
    assert "domains" not in figures(
        [case("a", 1, 0.5)], AppliedCalibration("pool_logit", heads=reference().heads), reference()
    )
