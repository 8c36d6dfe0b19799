"""What would be installed, and what pip is told to leave alone; nothing is installed here."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def install(slicer_application):
    import CalibUncertaintyPanel.install as module

    return module


@pytest.fixture
def missing(install, monkeypatch):
    """Function that makes these packages look missing, until `_install` has been called."""

    def pretend(*names):
        state = set(names)
        monkeypatch.setattr(install, "_isThere", lambda name, requirement: name not in state)
        return state

    return pretend


def test_nothing_is_asked_when_everything_is_there(install, missing):
    missing()
    assert install.ensure(lambda question: pytest.fail("asked")) == ""


def test_only_what_is_missing_is_named(install, missing):
    missing("edt")
    assert install.findMissing().requirements == ("edt>=2.3",)
    assert not install.findMissing().torch


def test_a_refusal_installs_nothing(install, missing, monkeypatch):
    missing("edt", "cc3d")
    monkeypatch.setattr(install, "_install", lambda missing: pytest.fail("installed"))
    assert "not installed" in install.ensure(lambda question: False)


def test_the_packages_of_slicer_are_handed_to_pip_as_constraints(install):
    lines = install.keptVersions()
    assert f"numpy=={importlib.metadata.version('numpy')}" in lines
    assert f"SimpleITK=={importlib.metadata.version('SimpleITK')}" in lines


def test_small_packages_go_through_pip_with_the_constraints(install, missing, monkeypatch):
    import slicer

    state, calls = missing("edt", "cc3d"), []

    def pip_install(requirements):
        calls.append(requirements)
        assert "numpy==" in Path(requirements[-1]).read_text(encoding="utf-8")
        state.clear()

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    assert install.ensure(lambda question: "edt>=2.3" in question) == ""
    assert calls[0][:3] == ["edt>=2.3", "connected-components-3d>=3.12", "-c"]


def test_nnunet_goes_through_its_extension_where_that_is_there(install, missing, monkeypatch):
    from CalibUncertaintyPanel import slicerCompat

    state, asked = missing("nnunetv2"), []

    class Installer:
        def setupPythonRequirements(self, requirement):
            asked.append(requirement)
            state.clear()
            return True

    monkeypatch.setattr(slicerCompat, "nnUNetInstaller", Installer)
    assert install.ensure(lambda question: True) == ""
    assert asked == ["nnunetv2>=2.6,<3"]


def test_nnunet_without_its_extension_leaves_out_what_slicer_ships(install, missing, monkeypatch):
    from CalibUncertaintyPanel import slicerCompat

    state, calls = missing("nnunetv2"), []

    class Packaging:
        @staticmethod
        def pip_install(requirements, **options):
            calls.append((requirements, options["skip_packages"]))
            state.clear()

    monkeypatch.setattr(slicerCompat, "nnUNetInstaller", lambda: None)
    monkeypatch.setattr(slicerCompat, "packaging", lambda: Packaging)
    assert install.ensure(lambda question: True) == ""
    assert calls[0][0] == ["nnunetv2>=2.6,<3"]
    assert {"SimpleITK", "torch"} <= set(calls[0][1])


def test_a_failed_install_is_told(install, missing, monkeypatch):
    import slicer

    missing("edt")

    def fail(requirements):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(slicer.util, "pip_install", fail)
    assert "Installing failed" in install.ensure(lambda question: True)


def test_an_install_that_did_nothing_is_told(install, missing, monkeypatch):
    import slicer

    missing("edt")
    monkeypatch.setattr(slicer.util, "pip_install", lambda requirements: None)
    assert "Still missing" in install.ensure(lambda question: True)


@pytest.mark.parametrize(
    ("name", "version", "is_missing"),
    [
        ("nnunetv2", "2.5.1", True),
        ("nnunetv2", "2.6.0", False),
        ("nnunetv2", "3.0", True),
        ("torch", "2.9.1+cu128", True),
        ("torch", "2.0.1", True),
        ("torch", "2.8.0+cpu", False),
    ],
)
def test_a_version_that_will_not_do_counts_as_missing(install, monkeypatch, name, version, is_missing):
    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: version if asked == name else known(asked))
    found = install.findMissing()
    assert (found.torch if name == "torch" else install.NNUNET in found.requirements) == is_missing


def test_versions_are_compared_where_packaging_is_not_installed(install, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "packaging.specifiers", None)
    pytest.importorskip("pip", reason="PIP MISSING: this environment has no pip to borrow the comparison from")
    assert install._specifierSet().__module__.startswith("pip.")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.5")
    assert install.NNUNET in install.findMissing().requirements


class TorchLogic:
    """The PyTorch extension's logic, as far as installing goes."""

    def __init__(self, state, calls):
        self.state, self.calls = state, calls

    OPTIONS = ("askConfirmation", "forceComputationBackend", "torchVersionRequirement", "torchvisionVersionRequirement")

    def installTorch(self, **options):
        assert set(options) <= set(self.OPTIONS)
        self.calls.append(options.get("torchVersionRequirement"))
        self.state.discard("torch")
        return object()


def test_pytorch_comes_in_a_version_that_nnunet_takes(install, missing, monkeypatch):
    from CalibUncertaintyPanel import slicerCompat

    state, calls = missing("torch"), []
    monkeypatch.setattr(slicerCompat, "pytorchLogic", lambda: TorchLogic(state, calls))
    assert install.ensure(lambda question: True) == ""
    assert calls == [">=2.6,!=2.9.*"]


def test_the_nnunet_extension_brings_pytorch_itself(install, missing, monkeypatch):
    from CalibUncertaintyPanel import slicerCompat

    state, calls = missing("torch", "nnunetv2"), []

    class Installer:
        def setupPythonRequirements(self, requirement):
            state.clear()
            return True

    monkeypatch.setattr(slicerCompat, "pytorchLogic", lambda: TorchLogic(state, calls))
    monkeypatch.setattr(slicerCompat, "nnUNetInstaller", Installer)
    assert install.ensure(lambda question: True) == ""
    assert calls == []
