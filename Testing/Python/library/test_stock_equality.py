"""The default segmentation is stock nnU-Net's, voxel for voxel, on every geometry and plan that a clinic or a lab may have."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.workflow.segment import segment

GEOMETRIES = {
    "isotropic": {},
    "finer than the plan": {"spacing": (0.8, 0.8, 1.1), "shape": (30, 36, 40)},
    "twice the plan's grid, where halves tie": {"spacing": (0.75, 0.75, 1.0), "shape": (32, 40, 40)},
    "thick slices": {"spacing": (0.9, 0.9, 5.0), "shape": (14, 40, 36)},
    "oblique": {"direction": rotation(23)},
    "flipped": {"direction": np.diag([-1, 1, -1])},
    "axes exchanged": {"direction": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])},
    "empty border": {"empty_border": 4, "shape": (30, 34, 36)},
    "smaller than the patch": {"shape": (6, 9, 11)},
}
PLANS = {
    "plain": {},
    "transposed": {"transpose": (1, 0, 2)},
    "cyclically transposed": {"transpose": (2, 0, 1)},
    "thick-slice plan": {"spacing": (5.0, 1.0, 1.0), "patch": (8, 16, 16)},
    "reader that turns to RAS": {"reader": "NibabelIOWithReorient"},
    "SimpleITK reader that turns to RAS": {"reader": "SimpleITKIOWithReorient"},
    "RAS and transposed": {"reader": "NibabelIOWithReorient", "transpose": (2, 0, 1)},
    "nibabel reader": {"reader": "NibabelIO"},
    "two-dimensional": {"spacing": (1.5, 1.5), "patch": (16, 16)},
    "cubic logits": {"resampling": {"order": 3}},
    "through-plane linear": {"spacing": (5.0, 1.0, 1.0), "patch": (8, 16, 16), "resampling": {"order_z": 1}},
    "nearest logits": {"resampling": {"order": 0}},
}
HARD = {"spacing": (0.9, 0.9, 3.5), "shape": (16, 30, 26), "direction": np.diag([-1, -1, 1]) @ rotation(17), "empty_border": 3}


def assert_equal_to_stock(model, ct, folder, folds=(0, 1), mirroring=True) -> Result:
    stock, probabilities = stock_prediction(model, ct, folder / "stock.nii.gz", folds, mirroring)
    result = segment(ct, model, folder / "result", folds=list(folds), mirroring=mirroring, calibration="none")
    ours = sitk.ReadImage(str(folder / "result" / "segmentation.nii.gz"))
    expected = sitk.GetArrayFromImage(stock)
    assert len(np.unique(expected)) > 1, "the comparison is empty: stock nnU-Net found one label only"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), expected)
    np.testing.assert_allclose(ours.GetSpacing(), stock.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(ours.GetOrigin(), stock.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(ours.GetDirection(), stock.GetDirection(), atol=1e-5)
    assert result.provenance["changed_labels"] == {"by_pooling": 0, "by_temperature": 0}
    reader = json.loads((model / "plans.json").read_text(encoding="utf-8"))["image_reader_writer"]
    if "Reorient" not in reader:  # those probabilities lie in other axes than the CT's
        assert_same_probabilities(result, probabilities)
    return result


def assert_same_probabilities(result: Result, stock: np.ndarray) -> None:
    for label in result.labels:
        ours = result.probability(label)
        start = np.rint(result.segmentation.index_from_lps(ours.origin_lps)).astype(int)
        window = tuple(slice(a, a + n) for a, n in zip(start, ours.array.shape, strict=True))
        assert np.abs(ours.array - stock[label][window]).max() < 2e-3
        outside = stock[label].copy()
        outside[window] = 0
        limit = result.provenance["left_out"]["largest_foreground_probability"]
        assert outside.max() <= limit + 1e-3


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_labels_equal_stock_on_the_geometry(geometry, plain_model, tmp_path):
    assert_equal_to_stock(plain_model, write_ct(tmp_path / "ct.nii.gz", **GEOMETRIES[geometry]), tmp_path)


@pytest.mark.parametrize("plan", PLANS)
def test_labels_equal_stock_with_the_plan(plan, tmp_path):
    model = write_model(tmp_path, plans(**PLANS[plan]))
    assert_equal_to_stock(model, write_ct(tmp_path / "ct.nii.gz", **HARD), tmp_path)


def test_labels_equal_stock_without_mirroring(plain_model, tmp_path):
    assert_equal_to_stock(plain_model, write_ct(tmp_path / "ct.nii.gz"), tmp_path, mirroring=False)


def test_labels_equal_stock_for_one_fold(plain_model, tmp_path):
    assert_equal_to_stock(plain_model, write_ct(tmp_path / "ct.nii.gz"), tmp_path, folds=(1,))


def test_labels_equal_stock_for_five_folds_whose_half_precision_sums_round(tmp_path):
    model = write_model(tmp_path, plans(), folds=range(5), sharpness=60.0)
    assert_equal_to_stock(model, write_ct(tmp_path / "ct.nii.gz"), tmp_path, folds=range(5), mirroring=False)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("dataset", "ct", "folds"),
    [
        ("Dataset501_HeadNeck", "okbp/okbp_164_ct.nii.gz", (0,)),
        ("Dataset502_Sarcoma", "sts/sts042_ct.nii.gz", (0, 1)),
    ],
)
def test_labels_equal_stock_on_a_real_ct(dataset, ct, folds, shared_data, shared_models, tmp_path):
    model = next((shared_models / dataset).glob("nnUNetTrainer__*"))
    result = assert_equal_to_stock(model, shared_data / ct, tmp_path, folds)
    assert set(np.unique(result.segmentation.array)) == {0, *result.labels}
