"""The phantom's scripts are not a package: put their folder on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


@pytest.fixture(scope="session")
def phantom():
    """One phantom on the default grid."""
    from phantom import make_phantom

    return make_phantom(11)


@pytest.fixture(scope="session")
def demo_model_root(repository):
    """Everything that is stored of the demo model."""
    return repository / "Resources" / "DemoModel"


@pytest.fixture(scope="session")
def demo_model(demo_model_root):
    """The demo model's nnU-Net folder."""
    return demo_model_root / "Dataset900_Phantom" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
