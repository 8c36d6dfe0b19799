"""What the catalogue says about measures that look at surroundings: when they can be had, and from where they mark."""

import numpy as np
import pytest

from CalibUncertaintyLib.uncertainty.distance_aware import FORMS, distance_aware_entropy
from CalibUncertaintyLib.uncertainty.exceedance import TAU, soft_exceedance
from CalibUncertaintyLib.uncertainty.measures import MEASURES, entropy
from CalibUncertaintyLib.workflow.chosen_measures import measure_names

CONTEXT = {*FORMS, "ebcu", "ebcu_p", "ebcu_self"}


def test_they_come_after_the_label_map_and_not_with_the_measures_of_single_voxels():
    assert {name for name, measure in MEASURES.items() if measure.stage == "context"} == CONTEXT
    assert all(measure.stage in ("voxel", "context") for measure in MEASURES.values())
    for n_members in (1, 5):
        assert not CONTEXT & set(measure_names(n_members))
        assert {"conf", "entropy"} <= set(measure_names(n_members))


def test_those_that_compare_with_calibration_cases_say_so():
    assert {name for name, measure in MEASURES.items() if measure.needs_law} == {"dae_resid", "ebcu", "ebcu_p"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("classes", [2, 6, 25])
def test_far_from_borders_distance_aware_entropy_marks_what_entropy_marks(form, classes, sigmoid):
    p = np.random.default_rng(0).dirichlet(np.full(classes, 0.3), 2000).T.astype(np.float32)
    nats, plain = entropy(p, sigmoid), MEASURES["entropy"]
    u = nats / np.float32(plain.upper(classes, 1, sigmoid))
    far = distance_aware_entropy(u, np.full(u.shape, 300.0), form, medians=np.zeros(8))
    marked = far >= MEASURES[form].default_threshold(classes, sigmoid)
    assert np.array_equal(marked, nats >= plain.default_threshold(classes, sigmoid))
    assert 0 < marked.mean() < 1 or classes == 25
    assert MEASURES[form].upper(classes, 1, sigmoid) == 1


def test_places_are_compared_with_places_whatever_the_heads():
    for name in ("ebcu", "ebcu_p", "ebcu_self"):
        marks = {MEASURES[name].default_threshold(c, s) for c in (2, 6, 25) for s in (False, True)}
        assert len(marks) == 1
        assert MEASURES[name].upper(6, 3) == 1
    assert MEASURES["ebcu"].marked == MEASURES["ebcu_self"].marked == pytest.approx(float(soft_exceedance(0.1)))
    assert MEASURES["ebcu_p"].marked == 1 - TAU
