"""Stock nnU-Net's labels where several odd things meet: plan, grid, crop, direction and kind of model at once."""

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib.workflow.segment import segment

THICK = {"spacing": (5.0, 1.0, 1.0), "patch": (8, 16, 16)}
REGIONS = {
    "labels": {"background": 0, "Whole": [1, 2, 3], "Inner": [2, 3], "Node": 2},
    "regions_class_order": (1, 3, 2),
    "channels": {"0": "CT", "1": "PET"},
}
ODD = {
    "low-resolution axis, transposed, oblique, cropped": (
        {**THICK, "transpose": (1, 0, 2)},
        {},
        {"spacing": (0.9, 2.5, 4.0), "shape": (14, 30, 26), "direction": rotation(31), "empty_border": 3},
    ),
    "through-plane linear, cyclically transposed, mirrored": (
        {**THICK, "transpose": (2, 0, 1), "resampling": {"order_z": 1}},
        {},
        {"spacing": (4.0, 0.9, 0.9), "shape": (26, 24, 18), "direction": rotation(31) @ np.diag([-1, 1, 1]), "empty_border": 3},
    ),
    "through-plane cubic": ({**THICK, "resampling": {"order_z": 3}}, {}, {"spacing": (0.9, 0.9, 4.0), "shape": (14, 30, 26)}),
    "separate axes although all are alike": (
        {"resampling": {"force_separate_z": True}}, {}, {"spacing": (1.2, 1.2, 1.1)},
    ),
    "a tenth of a millimetre in plane": ({}, {}, {"spacing": (0.1, 0.1, 10.0), "shape": (6, 40, 44)}),
    "five times coarser than the plan": ({"spacing": (1.0, 0.8, 0.8)}, {}, {"spacing": (5.0, 5.0, 5.0), "shape": (7, 8, 9)}),
    "two axes of low resolution": (
        {"spacing": (6.0, 6.0, 1.0), "patch": (8, 8, 16)}, {}, {"spacing": (1.0, 5.0, 5.0), "shape": (10, 11, 40)},
    ),
    "patch longer than the CT along one axis": ({"patch": (16, 16, 48)}, {}, {"shape": (24, 30, 12)}),
    "regions of two channels in two dimensions": (
        {"patch": (16, 16), "spacing": (1.5, 1.5), "channels": 2},
        REGIONS,
        {"direction": rotation(20), "empty_border": 3, "spacing": (1.1, 1.3, 4.0)},
    ),
    "regions of two channels, low-resolution axis": (
        {**THICK, "channels": 2},
        REGIONS,
        {"spacing": (0.9, 0.9, 4.0), "shape": (14, 30, 26), "direction": rotation(5), "empty_border": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_labels_are_stock_nnunets(name, tmp_path):
    of_plans, of_model, of_ct = ODD[name]
    model = write_model(tmp_path, plans(**of_plans), folds=[0], **of_model)
    images = [write_ct(tmp_path / f"ct_{n:04d}.nii.gz", seed=n, **of_ct) for n in range(of_plans.get("channels", 1))]
    stock, _ = stock_prediction(model, images, tmp_path / "stock.nii.gz", folds=[0])
    expected = sitk.GetArrayFromImage(stock)
    assert len(np.unique(expected)) > 2, "the comparison is empty"
    result = segment(images if len(images) > 1 else images[0], model, tmp_path / "out", folds=[0], calibration="none")
    np.testing.assert_array_equal(result.segmentation.array, expected)
    np.testing.assert_allclose(result.segmentation.origin_lps, stock.GetOrigin(), atol=1e-3)
