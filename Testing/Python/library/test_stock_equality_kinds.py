"""The engine on every kind of model, label by label what stock nnU-Net writes; cascades have a file of their own."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tiny_model import plans, rotation, stock_prediction, write_ct, write_model

from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.workflow.inputs import read_channels

REGIONS = {"background": 0, "Whole": [1, 2, 3], "Inner": [2, 3], "Node": 2}
KINDS = {
    "two channels": (dict(channels=2), dict(channels={"0": "CT", "1": "PET"})),
    "ignore label": ({}, dict(labels={"background": 0, "Liver": 1, "Node": 2, "ignore": 3})),
    "residual encoder": (dict(residual=True), {}),
    "regions": ({}, dict(labels=REGIONS, regions_class_order=(1, 3, 2))),
    "regions decoded backwards": ({}, dict(labels=REGIONS, regions_class_order=(3, 2, 1))),
    "2d residual encoder of regions": (
        dict(residual=True, patch=(16, 16), spacing=(1.5, 1.5)),
        dict(labels=REGIONS, regions_class_order=(1, 3, 2)),
    ),
    "3d_lowres": (dict(lowres=(4.0, 3.0, 3.0)), dict(configuration="3d_lowres")),
    "two channels of regions, transposed": (
        dict(channels=2, transpose=(1, 0, 2), reader="NibabelIOWithReorient"),
        dict(channels={"0": "CT", "1": "PET"}, labels=REGIONS, regions_class_order=(1, 3, 2)),
    ),
}


def pooled_logits(folder, images):
    """Pooled logits (C, z, y, x) on the whole CT, zero outside nnU-Net's crop; and where that crop is."""
    model = ModelFolder.open(folder)
    model.refuse_unsupported()
    predictor = MemberPredictor(MemberSet.choose(model), "cpu")
    volumes, _ = read_channels(images, model)
    with Scratch(folder) as scratch:
        opinions = Opinions.ask(predictor, predictor.prepare(volumes), scratch, Progress())
        logits = np.zeros((predictor.n_classes, *opinions.case.full_shape), np.float16)
        crop = np.zeros(opinions.case.full_shape, bool)
        for slab in opinions.slabs(opinions.whole()):
            logits[(slice(None), *slab.inside)] = slab.pooled
            crop[slab.inside] = True
        back = opinions.case.frame.to_volume
        return model.heads, back(logits), back(crop)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_probabilities_are_stock_nnunets(tmp_path, kind):
    of_plans, of_model = KINDS[kind]
    folder = write_model(tmp_path, plans(**of_plans), **of_model)
    where = {"direction": rotation(12) @ np.diag([-1, 1, 1]), "empty_border": 3} if "transposed" in kind else {}
    images = [write_ct(tmp_path / f"ct_{i:04d}.nii.gz", seed=i, **where) for i in range(of_plans.get("channels", 1))]
    written, stock = stock_prediction(folder, images, tmp_path / "stock.nii.gz")
    heads, logits, crop = pooled_logits(folder, images)
    assert np.array_equal(np.where(crop, heads.label_of_logits(logits), 0), sitk.GetArrayFromImage(written))
    assert len(np.unique(sitk.GetArrayFromImage(written))) >= 3
    if "reader" in of_plans:
        return  # stock's probabilities lie in its reader's axes
    p = torch.from_numpy(logits.astype(np.float32))
    p = torch.sigmoid(p) if heads.sigmoid else torch.softmax(p, 0)
    assert np.abs(p.numpy() - stock)[:, crop].max() < 2e-3
