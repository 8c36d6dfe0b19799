"""What several test files of the library begin with; a file that needs another model or CT makes its own of the same name."""

import pytest
from tiny_model import plans, write_ct, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model without a calibration."""
    return write_model(tmp_path_factory.mktemp("model"), plans())


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A CT for it."""
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz")


@pytest.fixture(scope="module")
def calibrated_model(tmp_path_factory):
    """A tiny model with its calibration, for `evaluate`."""
    from evaluate_parts import write_calibrated_model

    return write_calibrated_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cases(calibrated_model, tmp_path_factory):
    """Two labelled test cases for it."""
    from evaluate_parts import labelled_cases

    return labelled_cases(calibrated_model, tmp_path_factory.mktemp("cases"), seeds=(1, 2))
