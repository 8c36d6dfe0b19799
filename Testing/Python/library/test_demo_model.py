"""The model that comes with the project: calibrated for what it is, equal to stock nnU-Net, good enough to show something."""

import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import stock_prediction

from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.result import Result
from CalibUncertaintyLib.workflow.segment import segment


@pytest.fixture(scope="module")
def demo_folder(repository):
    return repository / "Resources" / "DemoModel" / "Dataset900_Phantom" / "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture(scope="module")
def phantom(repository, tmp_path_factory):
    sys.path.insert(0, str(repository / "Testing"))
    from phantom import make_phantom, write_phantom

    return write_phantom(make_phantom(7), tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def result(demo_folder, phantom, tmp_path_factory) -> Result:
    return segment(phantom / "ct.nii.gz", demo_folder, tmp_path_factory.mktemp("out") / "result")


def stored_temperature(folder) -> float:
    entries = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["entries"]
    (entry,) = [e for e in entries if e["mode"] == "pool_logit" and e["members"]["folds"] == [0, 1, 2, 3, 4]]
    return entry["temperature"]


def test_the_demo_model_is_calibrated_for_all_its_folds(result, demo_folder):
    assert result.calibrated, result.provenance["calibration"]["reason"]
    assert [member["fold"] for member in result.provenance["members"]] == ModelFolder.open(demo_folder).folds == [0, 1, 2, 3, 4]
    assert result.provenance["calibration"]["temperature"] == stored_temperature(demo_folder)
    assert result.provenance["threshold"]["source"] == "stored"


def test_the_demo_model_changes_no_label_of_stock_nnunet(result, demo_folder, phantom, tmp_path):
    stock, _ = stock_prediction(demo_folder, phantom / "ct.nii.gz", tmp_path / "stock.nii.gz", folds=range(5))
    np.testing.assert_array_equal(result.segmentation.array, sitk.GetArrayFromImage(stock))


def test_the_demo_model_finds_every_structure_of_an_unseen_phantom(result, phantom):
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(phantom / "labels.nii.gz")))
    for index, name in result.labels.items():
        found, true = result.segmentation.array == index, truth == index
        dice = 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true))
        assert dice > (0.4 if name == "LymphNodes" else 0.8), f"{name}: Dice {dice:.2f}"


def test_errors_on_the_phantom_are_more_uncertain_than_the_rest(result, phantom):
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(phantom / "labels.nii.gz")))
    entropy = result.uncertainty("entropy")
    start = tuple(np.rint(result.segmentation.index_from_lps(entropy.origin_lps)).astype(int))
    window = tuple(slice(a, a + n) for a, n in zip(start, entropy.array.shape, strict=True))
    near = result.distance.array <= 15
    wrong = (result.segmentation.array[window] != truth[window])[near]
    values = entropy.array[near]
    assert wrong.any()
    assert values[wrong].mean() > 5 * values[~wrong].mean()
