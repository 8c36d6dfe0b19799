"""A Result's regions are found again voxel by voxel from its maps."""

import math

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.result_regions import RegionVoxels
from CalibUncertaintyLib.uncertainty.region import POSSIBLE_MISS
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Function that makes a Result whose regions begin at a threshold of the entropy."""
    folder = tmp_path_factory.mktemp("result")
    model, ct = write_model(folder, plans(), sharpness=6.0), write_ct(folder / "ct.nii.gz")

    def make(threshold):
        return segment(
            ct, model, folder / f"out {threshold}", flips="off", calibration="none", threshold=threshold, min_region_ml=0.0,
            roi_mm=2.0, merge_gap_mm=4.0, full_volume=True,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def result(made):
    return made(0.9)


def test_every_region_has_as_many_voxels_as_it_says_and_its_peak_among_them(result):
    assert len(result.regions) > 1
    found = RegionVoxels.of_result(result)
    entropy = result.uncertainty("entropy").array
    for region in result.regions:
        mask = found.mask(region)
        assert int(mask.sum()) == region.voxels
        assert region.volume_ml == pytest.approx(mask.sum() * math.prod(result.segmentation.spacing_zyx) / 1000)
        if region.kind != POSSIBLE_MISS:
            assert entropy[mask].max() == pytest.approx(region.peak, abs=1e-6)
            assert entropy[mask].mean() == pytest.approx(region.mean, abs=1e-5)
        box = found.bounds(region)
        assert mask[box].sum() == mask.sum()
        assert all(mask[box].any(axis=tuple(b for b in range(3) if b != a))[[0, -1]].all() for a in range(3))


def test_regions_do_not_share_voxels(result):
    found = RegionVoxels.of_result(result)
    uncertain = [found.of[region.id] for region in result.regions if region.kind != POSSIBLE_MISS]
    together = np.concatenate(uncertain)
    assert np.unique(together).size == together.size


def test_a_voxel_on_the_threshold_is_found_again(result, made):
    first = next(region for region in result.regions if region.kind != POSSIBLE_MISS)
    on_it = made(first.peak)  # no voxel of this region lies above it, and one at least on it
    found = RegionVoxels.of_result(on_it)
    region = next(r for r in on_it.regions if r.peak_lps_mm == first.peak_lps_mm)
    assert region.mean == region.peak == first.peak
    assert found.of[region.id].size == region.voxels >= 1
