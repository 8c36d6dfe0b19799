"""The body as the region of interest of the layers: what is in it, against the library's mask put together by hand."""

import json
import sys

import numpy as np
import pytest
from CalibUncertaintyPanel import ctVolume, testing
from CalibUncertaintyPanel.overlays import Overlays
from CalibUncertaintyPanel.resultMaps import BODY_KEY, ResultMaps
from CalibUncertaintyPanel.roiChoice import BODY_SHARE, BOTH, INSIDE, OUTSIDE, RoiChoice

from CalibUncertaintyLib.body import body_mask
from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.uncertainty.roi import roi_of


@pytest.fixture
def ct(scene):
    return testing.addPhantom(scene)


@pytest.fixture
def result(ct, make_result):
    return make_result(ct)


def in_box(result, array):
    (x, y, z), (nx, ny, nz) = (result.provenance["box"][key] for key in ("start_xyz", "size_xyz"))
    return array[z : z + nz, y : y + ny, x : x + nx]


def whole_body(ct):
    volume = ctVolume.libraryVolume(ct)
    body = body_mask(volume.array, volume.spacing_zyx)
    assert 0.1 < body.mean() < 0.9
    return body


def maps_with(result, ct):
    maps = ResultMaps(result)
    maps.ct = ctVolume.libraryVolume(ct)
    return maps


@pytest.mark.parametrize(("found", "side"), [(True, BOTH), (True, INSIDE), (True, OUTSIDE), (False, BOTH), (False, INSIDE)])
def test_the_region_is_the_body_s_on_each_side_of_the_structures(result, ct, found, side):
    labels = result.segmentation.array
    labels[: len(labels) // 2] = 0
    if not found:
        labels[...] = 0
    label, entropy = in_box(result, labels), result.uncertainty("entropy")
    expected = roi_of(label, entropy.spacing_zyx, None, None, side, in_box(result, whole_body(ct))).mask
    masked = maps_with(result, ct).masked(("entropy", None), RoiChoice(15.0, side=side, ofBody=True))
    assert np.array_equal(masked.inside(np.s_[:]), expected)
    assert np.array_equal(masked.whole(), np.where(expected, entropy.array, 0))
    assert masked.counts(1.0).voxels == expected.sum()
    for part in (np.s_[2:4], np.s_[:, 1], np.s_[:, :, 3:5]):
        assert np.array_equal(masked.inside(part), expected[part])


def test_the_part_of_the_body_that_the_maps_hold_is_known(result, ct):
    body = whole_body(ct)
    found = maps_with(result, ct).get(BODY_KEY)
    assert float(found.metadata[BODY_SHARE]) == pytest.approx(in_box(result, body).sum() / body.sum())
    assert found.array.dtype == np.uint8
    assert np.array_equal(found.ijk_to_ras, result.uncertainty("entropy").ijk_to_ras)


def test_a_result_that_was_made_in_the_body_brings_it_and_shows_it_first(scene, ct, result):
    body = in_box(result, whole_body(ct)).copy()
    body[:2] = False  # as no CT says
    result.uncertainty("entropy").with_array(body.astype(np.uint8)).write(result.folder / "maps" / "body.nrrd")
    content = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    content["maps"]["body"] = {"file": "maps/body.nrrd"}
    content["roi"]["reference"] = "body"
    (result.folder / "result.json").write_text(json.dumps(content))
    overlays = Overlays.create(scene, Result.open(result.folder))
    assert overlays.roi.ofBody
    expected = np.where(body, result.uncertainty("entropy").array, 0)
    assert np.array_equal(testing.arrayOf(overlays.uncertaintyNode), expected)
    assert overlays.maps.get(BODY_KEY).metadata[BODY_SHARE] == "1.0"


def test_without_a_ct_or_without_a_body_it_says_what_to_do(result, ct):
    with pytest.raises(CalibUncertaintyError, match="load it and choose it above as CT"):
        ResultMaps(result).get(BODY_KEY)
    maps = maps_with(result, ct)
    maps.ct = maps.ct.with_array(np.full(maps.ct.array.shape, -1000, np.int16))
    with pytest.raises(CalibUncertaintyError, match="The CT shows no body"):
        maps.get(BODY_KEY)


def test_a_missing_package_is_named_with_what_to_do_instead(result, ct, monkeypatch):
    monkeypatch.setitem(sys.modules, "cc3d", None)
    with pytest.raises(CalibUncertaintyError, match=r"body needs the package cc3d.*around the structures"):
        maps_with(result, ct).get(BODY_KEY)


def test_the_body_of_a_large_ct_takes_long_whatever_the_size_of_the_maps(result, ct, monkeypatch):
    maps = maps_with(result, ct)
    assert not maps.takesLong(BODY_KEY)
    box = np.prod(result.provenance["box"]["size_xyz"])
    # of the class that these maps are of: another test may have loaded the module anew
    monkeypatch.setitem(type(maps).takesLong.__globals__, "AT_ONCE_VOXELS", int(box))
    assert maps.ct.array.size > box
    assert maps.takesLong(BODY_KEY)
    assert not maps.takesLong(("entropy", None))
