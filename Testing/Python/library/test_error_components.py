"""Connected errors and what a threshold finds of them, against scipy's components and counting flagged voxels."""

import math

import numpy as np
import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.evaluation.error_components import error_components, found_share

SPACING = (3.0, 0.9, 0.8)


def make_case(seed: int, shape=(12, 40, 45), cut: float = 0.62) -> tuple:
    """Blobs of errors of all sizes, u full of ties, and which voxels lie near a surface."""
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(random.random(shape), 1.0)
    error = rough > np.quantile(rough, cut + 0.3)
    u = (np.floor(random.random(shape) * 50) / 50).astype(np.float32)
    near = np.zeros(shape, bool)
    near[:, : shape[1] // 2] = True
    return error, u, near


def naive(error, u, near, threshold: float, least_mm3: float, part: float) -> list[tuple]:
    """(voxels, on the boundary, found, highest u) of each component that is large enough."""
    ndimage = pytest.importorskip("scipy.ndimage")
    numbered, count = ndimage.label(error, structure=np.ones((3, 3, 3)))
    found = []
    for number in range(1, count + 1):
        mask = numbered == number
        size = int(mask.sum())
        if size * math.prod(SPACING) >= least_mm3:
            flagged = int((mask & (u >= threshold)).sum())
            found.append((size, 2 * int(near[mask].sum()) >= size, flagged >= part * size - 1e-9, float(u[mask].max())))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("least_mm3", "part"), [(10.0, 0.1), (0.0, 0.5), (30.0, 1.0)])
def test_what_a_threshold_finds_is_what_counting_flagged_voxels_finds(seed, least_mm3, part):
    error, u, near = make_case(seed)
    components = error_components(error, u, near, SPACING, least_mm3=least_mm3, found_share=part)
    everything = len(naive(error, u, near, 0.0, 0.0, part))
    for threshold in (0.0, 0.3, float(np.float32(0.5)), float(np.float32(0.9)), math.inf):
        expected = naive(error, u, near, threshold, least_mm3, part)
        found = found_share(components, threshold)
        assert found["components"] == len(components) == len(expected) == everything - components.dropped
        assert found["found"] == sum(row[2] for row in expected)
        assert found["found_share"] == pytest.approx(np.mean([row[2] for row in expected]))
        for name, side in (("boundary_found_share", True), ("non_boundary_found_share", False)):
            assert found[name] == pytest.approx(np.mean([row[2] for row in expected if row[1] is side]))
        volumes = np.array([row[0] for row in expected])
        assert found["found_volume_share"] == pytest.approx(volumes[[row[2] for row in expected]].sum() / volumes.sum())
    assert sorted(components.peak.tolist()) == pytest.approx(sorted(row[3] for row in expected))
    volumes = sorted((row[0] * math.prod(SPACING) / 1000 for row in expected), reverse=True)
    assert components.volume_ml.tolist() == pytest.approx(volumes)


def test_a_component_of_thirty_voxels_needs_three_of_them():
    error = np.ones((1, 5, 6), bool)
    u = np.linspace(0, 1, 30, dtype=np.float32).reshape(error.shape)
    components = error_components(error, u, error, (1, 1, 1))
    assert components.found_below.tolist() == [u.ravel()[27]]
    assert found_share(components, float(u.ravel()[27]))["found"] == 1
    assert found_share(components, float(np.nextafter(u.ravel()[27], np.float32(2))))["found"] == 0


def test_voxels_that_touch_by_a_corner_belong_together():
    error = np.zeros((4, 4, 4), bool)
    error[0, 0, 0] = error[1, 1, 1] = error[3, 3, 3] = True
    components = error_components(error, error.astype(np.float32), ~error, (2.0, 2.0, 2.0), least_mm3=8.0)
    assert components.volume_ml.tolist() == [0.016, 0.008]
    assert not components.boundary.any()
    assert error_components(error, error * 1.0, error, (2.0, 2.0, 2.0), least_mm3=8.1).dropped == 1


def test_half_of_the_voxels_near_the_surface_make_a_boundary_component():
    error = np.ones((1, 1, 4), bool)
    near = np.array([[[True, True, False, False]]])
    assert error_components(error, error * 1.0, near, (2, 2, 2)).boundary.tolist() == [True]
    near[0, 0, 0] = False
    assert error_components(error, error * 1.0, near, (2, 2, 2)).boundary.tolist() == [False]


def test_without_errors_there_is_nothing_to_find():
    nothing = np.zeros((3, 4, 5), bool)
    found = found_share(error_components(nothing, nothing * 1.0, nothing, (1, 1, 1)), 0.5)
    assert (found["components"], found["found"]) == (0, 0)
    assert all(math.isnan(value) for name, value in found.items() if name.endswith("share"))


def test_wrong_input_is_refused():
    error = np.ones((2, 2, 2), bool)
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        error_components(error, np.full(error.shape, math.nan), error, (1, 1, 1))
    for arguments in ((error, np.ones((2, 2)), error, (1, 1, 1)), (error, error, error, (1, 0, 1))):
        with pytest.raises(ValueError):
            error_components(*arguments)
    with pytest.raises(ValueError):
        error_components(error, error, error, (1, 1, 1), found_share=0.0)
