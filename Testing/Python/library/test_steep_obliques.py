"""Scans turned by 45 degrees and about them: each of nnU-Net's readers names their axes in its own way, and so do we."""

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib.inference.frame import reader_frame
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.segment import segment

READER = "SimpleITKIOWithReorient"
TURNED = [rotation(angle) @ np.diag(signs) for angle in (44, 45, 46, 135, 225) for signs in ((1, 1, 1), (-1, 1, -1))]
TURNED += [np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] for seed in range(40)]


def test_the_axes_are_turned_to_ras_as_itk_turns_them(tmp_path):
    array, others, path = np.arange(24, dtype=np.int16).reshape(2, 3, 4), 0, tmp_path / "ct.nii"
    for direction in TURNED:
        # of a file: what it rounds decides between axes that are equally near
        Volume(array, (3.0, 1.0, 2.0), (5.0, -7.0, 11.0), direction).write(path)
        volume, turned = Volume.read(path), sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
        frame = reader_frame(volume, READER)
        np.testing.assert_array_equal(frame.to_network(array), sitk.GetArrayFromImage(turned))
        np.testing.assert_array_equal(frame.to_volume(frame.to_network(array)), array)
        assert frame.spacing_to_network(volume.spacing_zyx) == turned.GetSpacing()[::-1]
        others += frame != reader_frame(volume, "NibabelIOWithReorient")
    assert others > 0, "nibabel names all axes alike: these directions try nothing"


@pytest.mark.parametrize("angle", [45, 135])
def test_labels_of_a_steeply_oblique_ct_are_stock_nnunets(angle, tmp_path):
    model = write_model(tmp_path, plans(reader=READER), folds=[0])
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(18, 20, 16), direction=rotation(angle))
    stock, _ = stock_prediction(model, ct, tmp_path / "stock.nii.gz", folds=[0])
    result = segment(ct, model, tmp_path / "out", folds=[0], calibration="none")
    np.testing.assert_array_equal(result.segmentation.array, sitk.GetArrayFromImage(stock))
    np.testing.assert_allclose(stock.GetDirection(), result.segmentation.direction_lps.ravel(), atol=1e-5)
