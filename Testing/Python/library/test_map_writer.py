"""Maps that are written beside the search for regions, and what happens when that fails."""

import json

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.errors import CalibUncertaintyError, Cancelled
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow import map_writer
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans(), folds=(0, 1))


@pytest.fixture
def ct(tmp_path):
    return write_ct(tmp_path / "ct.nii.gz", shape=(18, 20, 22))


def test_maps_are_the_same_whether_they_wait_or_not(model, ct, tmp_path, monkeypatch):
    beside = segment(ct, model, tmp_path / "beside", flips="off", export=("nifti",))
    monkeypatch.setattr(map_writer, "_BESIDE_BYTES", 0)
    after = segment(ct, model, tmp_path / "after", flips="off", export=("nifti",))
    files = sorted(path.relative_to(beside.folder) for path in beside.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(after.folder) for path in after.folder.rglob("*") if path.is_file())
    volumes = [name for name in files if name.suffix in (".nrrd", ".gz")]
    assert len(volumes) > 12
    for name in volumes:
        np.testing.assert_array_equal(Volume.read(beside.folder / name).array, Volume.read(after.folder / name).array)
    told = [json.loads((result.folder / "result.json").read_text(encoding="utf-8")) for result in (beside, after)]
    for key in ("maps", "aggregates", "regions"):
        assert told[0][key] == told[1][key]
    assert told[0]["aggregates"]["structures"]["1"]["expected_volume_ml"] > 0


@pytest.mark.parametrize("beside", [True, False])
def test_a_map_that_cannot_be_written_ends_the_run_and_leaves_nothing(beside, model, ct, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Volume, "write", full)
    if not beside:
        monkeypatch.setattr(map_writer, "_BESIDE_BYTES", 0)
    with pytest.raises(CalibUncertaintyError, match="is full; free space"):
        segment(ct, model, tmp_path / "out", folds=[0], flips="off")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]


def test_cancelling_while_regions_are_sought_leaves_nothing(model, ct, tmp_path):
    progress = Progress(lambda: progress.stage_name in ("regions", "write"))
    with pytest.raises(Cancelled):
        segment(ct, model, tmp_path / "out", folds=[0], flips="off", progress=progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]


def test_a_result_knows_its_ct_by_its_voxels(model, ct, tmp_path):
    segment(ct, model, tmp_path / "out", folds=[0], flips="off")
    result, array = Result.open(tmp_path / "out"), Volume.read(ct).array
    assert result.is_of(array) is True
    assert result.is_of(array + 1) is False
