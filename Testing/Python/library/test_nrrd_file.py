"""Our NRRD files, as SimpleITK reads them, and what is noticed when one is not whole."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk

from CalibUncertaintyLib import nrrd_file
from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.nrrd_file import TYPES, can_write, write_nrrd
from CalibUncertaintyLib.volume import Volume

OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def volume_of(dtype, shape=(5, 7, 11), **metadata):
    values = np.random.default_rng(1).normal(size=shape) * 100
    return Volume(values.astype(dtype), (2.5, 0.9, 1 / 3), (-12.34567890123, 1e-7, 400.0), OBLIQUE, metadata)


@pytest.fixture(params=["igzip", "zlib"])
def codec(request, monkeypatch):
    """With isal, and as where it is not installed."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal")
    return request.param


@pytest.mark.parametrize("dtype", TYPES)
def test_simpleitk_reads_voxels_place_and_metadata_as_they_were(tmp_path, dtype, codec):
    volume = volume_of(dtype, **{"CalibUncertainty.unit": "mm²", "CalibUncertainty.structure": "Gl. parotis / Drüse"})
    volume.write(tmp_path / "a.nrrd")
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert sitk.GetArrayFromImage(image).dtype == volume.array.dtype
    assert image.GetSpacing() == pytest.approx(volume.spacing_zyx[::-1], rel=1e-15)
    assert image.GetOrigin() == volume.origin_lps
    assert image.GetDirection() == pytest.approx(OBLIQUE.ravel().tolist(), abs=1e-15)
    assert image.GetMetaData("CalibUncertainty.unit") == "mm²"
    assert image.GetMetaData("CalibUncertainty.structure") == "Gl. parotis / Drüse"


def test_what_is_written_is_what_itk_would_have_written_but_for_digits(tmp_path):
    volume = Volume(np.zeros((2, 3, 4), np.float32), (2.5, 0.5, 0.5), (1.0, 2.0, 3.0), np.eye(3), {"a": "b"})
    volume.write(tmp_path / "ours.nrrd")
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "itk.nrrd"), True)

    def fields(name):
        lines = (tmp_path / name).read_bytes().split(b"\n\n")[0].decode().splitlines()
        return {line.replace(".0", "") for line in lines}

    assert fields("ours.nrrd") == fields("itk.nrrd")


def test_a_view_turned_round_and_voxels_of_the_other_byte_order_are_written_as_they_look(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=">f4").reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    volume = Volume(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    assert can_write(volume)
    volume.write(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd"))), array)


def test_more_than_one_piece_is_written_whole(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(nrrd_file, "_PIECE", 1 << 10)
    volume = volume_of(np.float32, (9, 31, 33))
    assert write_nrrd(volume, tmp_path / "a.nrrd")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd"))), volume.array)


def test_a_full_disk_is_said_and_a_short_file_noticed(tmp_path, monkeypatch, codec):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    volume = volume_of(np.float32, (9, 131, 133))
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CalibUncertaintyError, match=r"a\.nrrd cannot be written"):
            volume.write(tmp_path / "a.nrrd")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    monkeypatch.setattr(nrrd_file.Path, "stat", lambda *_, **__: type("Stat", (), {"st_size": 17}))
    with pytest.raises(CalibUncertaintyError, match="not written whole"):
        volume.write(tmp_path / "b.nrrd")


def test_metadata_that_the_format_cannot_hold_as_it_is_goes_through_itk(tmp_path):
    volume = volume_of(np.float32, note="two\nlines")
    assert not can_write(volume)
    volume.write(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(Volume.read(tmp_path / "a.nrrd", check=False).array, volume.array)
