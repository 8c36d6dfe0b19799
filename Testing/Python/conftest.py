"""Fixtures every layer shares: where the repository, the demo model and the real cases are."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Testing" / "Python"))  # for helpers that several layers share


def _real_data_root() -> Path:
    return Path(os.environ.get("CALIB_UNCERTAINTY_DATA", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled CTs; the test skips, and says so, where it is missing."""
    folder = _real_data_root() / "data"
    if not (folder / "cases.json").is_file():
        pytest.skip(f"REAL CT MISSING: no cases.json in {folder}; set CALIB_UNCERTAINTY_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of nnU-Net models trained on the real CTs; the test skips, and says so, where it is missing."""
    folder = _real_data_root() / "models"
    if not folder.is_dir():
        pytest.skip(f"REAL MODELS MISSING: no {folder}; set CALIB_UNCERTAINTY_DATA to run this test")
    return folder


@pytest.fixture(autouse=True)
def one_library():
    """The module's reload loads the library anew. The tests that follow in this process hold classes of the one before."""

    def loaded():
        return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "CalibUncertaintyLib"}

    before = loaded()
    yield
    after = loaded()
    if any(after.get(name) is not module for name, module in before.items()):
        for name in after:
            del sys.modules[name]
        sys.modules.update(before)
