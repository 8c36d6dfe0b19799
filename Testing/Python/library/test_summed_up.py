"""A Result sums its uncertainty up: the case, each structure, its pieces; the numbers are those of the maps."""

import json

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    model = write_model(folder, plans(), sharpness=6.0)
    return segment(write_ct(folder / "ct.nii.gz"), model, folder / "out", flips="off", calibration="none", roi_mm=3.0)


def test_a_structure_s_summary_is_that_of_its_maps(result):
    summary = result.provenance["aggregates"]
    assert summary["measure"] == "entropy"
    assert summary["status"] == "ok"
    entropy, ml = result.uncertainty("entropy"), np.prod(result.segmentation.spacing_zyx) / 1000
    start = np.rint(result.segmentation.index_from_lps(entropy.origin_lps)).astype(int)
    label = result.segmentation.array[tuple(slice(a, a + n) for a, n in zip(start, entropy.array.shape, strict=True))]
    roi = result.distance.array <= 3.0 + 1e-4
    assert summary["case"]["voxels"] == roi.sum()
    assert summary["case"]["mean"] == pytest.approx(entropy.array[roi].mean(dtype=float), rel=1e-6)
    above = entropy.array[roi & (entropy.array >= result.provenance["threshold"]["value"])]
    assert summary["case"]["thresh"] == pytest.approx(above.mean(dtype=float), rel=1e-6)
    for value, name in result.labels.items():
        of_structure, inside = summary["structures"][str(value)], label == value
        assert of_structure["name"] == name
        assert of_structure["volume_ml"] == pytest.approx(inside.sum() * ml)
        assert of_structure["mean"] == pytest.approx(entropy.array[inside].mean(dtype=float), rel=1e-6)
        p = result.probability(value).array
        assert of_structure["expected_volume_ml"] == pytest.approx(p.sum(dtype=float) * ml, rel=1e-6)
        q = np.clip(p[inside].astype(float), 1e-12, 1 - 1e-12)
        wanted = -(q * np.log(q) + (1 - q) * np.log(1 - q))
        assert of_structure["seg_entropy_k"] == pytest.approx(wanted.mean(), rel=1e-4)


def test_the_summary_is_plain_json(result):
    text = (result.folder / "result.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["aggregates"] == Result.open(result.folder).provenance["aggregates"]


def test_a_case_without_any_structure_is_summed_up_as_such(tmp_path):
    import torch

    model = write_model(tmp_path, plans(), sharpness=1.0)
    for fold in (0, 1):
        path = model / f"fold_{fold}" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=True)
        for name, values in content["network_weights"].items():
            if "seg_layers" in name and name.endswith("bias"):
                values[0] += 30.0
        torch.save(content, path)
    result = segment(write_ct(tmp_path / "ct.nii.gz"), model, tmp_path / "out", flips="off", calibration="none")
    summary = result.provenance["aggregates"]
    assert summary["status"] == "empty_roi"
    assert summary["case"]["mean"] is None
    assert {of["status"] for of in summary["structures"].values()} == {"not_predicted"}
