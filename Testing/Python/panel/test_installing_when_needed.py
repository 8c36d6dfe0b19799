"""Packages are asked for when they are needed, with their size; Slicer's own stay; a failure is one line. Nothing is installed."""

import ast
import re
import subprocess
import sys
import zipfile

import pytest

OF_SLICER = {"numpy", "SimpleITK", "scipy", "vtk", "requests", "slicer", "qt", "ctk"}
OF_NNUNET = {"torch", "batchgenerators", "acvl_utils", "dynamic_network_architectures", "nibabel"}
ONLY_ON_REQUEST = {"dask", "distributed"}  # several workers, which the panel does not use


@pytest.fixture
def install(slicer_application):
    import CalibUncertaintyPanel.install as module

    return module


@pytest.fixture
def extras(repository):
    """The requirements of each extra of pyproject.toml."""
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    text = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    found = re.findall(r"^([\w-]+) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    return {name: re.findall(r'"([^"]+)"', re.sub("#.*", "", body)) for name, body in found}


# What is asked for -----------------------------------------------------------------------------------------------------------


def test_the_panel_asks_for_what_the_library_asks_for(install, extras):
    wanted = [install.PACKAGES[name] for name in install.COMPUTING]
    elsewhere = [install.TORCH.split(",")[0], "scipy>=1.12"]  # by the PyTorch extension, and with Slicer itself
    assert sorted([*wanted, *elsewhere]) == sorted(extras["compute"])
    assert [install.PACKAGES[name] for name in install.PICTURES] == extras["pictures"]
    assert [install.PACKAGES["fiducio"]] == extras["class-conditional"]


def test_whatever_the_library_imports_is_there_or_can_be_asked_for(install, repository):
    known = OF_SLICER | OF_NNUNET | ONLY_ON_REQUEST | set(install.PACKAGES) | set(sys.stdlib_module_names)
    strangers = set()
    for path in (repository / "CalibUncertaintyLib").rglob("*.py"):
        if path.parent.name == "trainers":
            continue  # imported by nnU-Net's training
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            strangers |= {(path.name, name.split(".")[0]) for name in names if name.split(".")[0] not in known}
    assert strangers - {(name, "CalibUncertaintyLib") for name, _ in strangers} == set()


def test_every_package_is_asked_for_with_its_size(install):
    assert set(install.SIZES_MB) == set(install.PACKAGES)
    everything = install.Missing(torch=True, requirements=tuple(install.PACKAGES.values()))
    lines = everything.inWords()
    assert len(lines) == len(install.PACKAGES) + 1
    assert all(line.endswith("MB)") or line.endswith("GB)") for line in lines)


def test_only_what_is_about_to_be_used_is_looked_for(install, monkeypatch):
    monkeypatch.setattr(install, "_isThere", lambda name, requirement: False)
    assert install.findMissing().requirements == tuple(install.PACKAGES[name] for name in install.COMPUTING)
    assert install.findMissing().torch
    assert install.findMissing(("edt",)) == install.Missing(torch=False, requirements=("edt>=2.3",))


def test_calibrating_asks_for_the_pictures_and_for_what_its_method_needs(panel):
    from CalibUncertaintyPanel import calibrationRuns, install
    from CalibUncertaintyPanel.parameterNode import CalibrationMethod

    usual = calibrationRuns.packagesOf(CalibrationMethod.TEMPERATURE)
    assert set(usual) == {*install.COMPUTING, "matplotlib"}
    assert set(calibrationRuns.packagesOf(CalibrationMethod.CC_ORDER)) == {*usual, "fiducio"}
    for method in CalibrationMethod:
        assert set(calibrationRuns.packagesOf(method)) <= set(install.PACKAGES)


def test_evaluating_asks_for_the_pictures_too(panel, model, cases, monkeypatch):
    from CalibUncertaintyPanel import install

    asked = []
    monkeypatch.setattr(install, "ensure", lambda confirm, names: asked.extend(names) or "packages are missing")
    panel.ui.testCasesPathLineEdit.currentPath = str(cases)
    panel.logic.command = None
    panel.ui.evaluateButton.click()
    assert set(asked) == {*install.COMPUTING, "matplotlib"}
    assert "packages are missing" in panel.ui.evaluationErrorLabel.text
    assert not panel.evaluate.running


@pytest.fixture
def without(monkeypatch):
    """Function that makes packages impossible to import, as they are in a Slicer that has never run a model."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize("agrees", [True, False])
def test_regions_in_3d_ask_for_the_package_that_finds_them(opened, without, slicer_application, monkeypatch, agrees):
    import qt
    from CalibUncertaintyPanel import install

    without("cc3d")
    installed = []
    monkeypatch.setattr(install, "_install", lambda missing: (installed.append(missing), monkeypatch.undo()))
    slicer_application.dialogs.answer(qt.QMessageBox.Ok if agrees else qt.QMessageBox.Cancel)
    opened.ui.regionsIn3dCheckBox.click()
    slicer_application.waitUntil(lambda: not opened.regions.busy, seconds=20, what="an answer")
    (question,) = slicer_application.dialogs.takeMessages()
    assert "connected-components-3d>=3.12 (about 20 MB)" in question.text
    assert "nnunetv2" not in question.text
    assert len(installed) == agrees
    assert ("choose it again" if agrees else "not installed") in opened.ui.errorLabel.text
    assert not opened.parameterNode.regionsIn3d
    assert opened.overlays is not None


def test_a_region_of_interest_asks_for_the_package_that_measures_distances(opened, without, slicer_application):
    import qt

    without("edt")
    slicer_application.dialogs.answer(qt.QMessageBox.Cancel)
    opened.ui.roiOfComboBox.setCurrentIndex(1)
    slicer_application.waitUntil(lambda: slicer_application.dialogs.messages, seconds=20, what="a question")
    (question,) = slicer_application.dialogs.takeMessages()
    assert "edt>=2.3 (about 15 MB)" in question.text
    assert opened.parameterNode.roiOf.value == "all"  # what is still shown
    opened.ui.thresholdSlider.value = 0.5
    slicer_application.processEvents()
    assert slicer_application.dialogs.takeMessages() == []  # asked once


def test_other_errors_are_no_missing_packages(install):
    assert install.missingPackage(ModuleNotFoundError("x", name="cc3d.fastcc3d")) == "cc3d"
    assert install.missingPackage(ModuleNotFoundError("x", name="antigravity2")) == ""
    assert install.missingPackage(ImportError("x", name="cc3d")) == ""  # there, and broken
    told = ValueError("in other words")
    told.__cause__ = ModuleNotFoundError("x", name="edt")
    assert install.missingPackage(told) == "edt"
    assert install.missingPackage(ValueError("x")) == ""


# What pip may not touch -------------------------------------------------------------------------------------------------------


def make_wheel(folder, name, requires):
    """A package of nothing that needs others."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(
        f"Requires-Dist: {r}\n" for r in requires
    )
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def what_pip_would_do(install, folder, name):
    with install._constraints() as path:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--no-index"]
        command += ["--find-links", str(folder), "-c", str(path), name]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def test_with_the_constraints_real_pip_leaves_slicers_packages_where_they_are(install, tmp_path):
    pytest.importorskip("pip", reason="PIP MISSING: the constraints were not tried with it")
    make_wheel(tmp_path, "wants_some_numpy", ["numpy", "SimpleITK", "requests"])
    run = what_pip_would_do(install, tmp_path, "wants-some-numpy")
    assert run.returncode == 0, run.stderr
    assert "Would install wants" in run.stdout
    assert run.stdout.split("Would install")[1].split() == ["wants_some_numpy-1.0"]


@pytest.mark.parametrize("requirement", ["numpy>=99", "SimpleITK<1", "requests>=99"])
def test_with_the_constraints_real_pip_refuses_what_would_change_them(install, tmp_path, requirement):
    pytest.importorskip("pip", reason="PIP MISSING: the constraints were not tried with it")
    make_wheel(tmp_path, "wants_another", [requirement])
    run = what_pip_would_do(install, tmp_path, "wants-another")
    assert run.returncode != 0
    assert "Would install" not in run.stdout


# When it fails ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(install, monkeypatch):
    """Function that lets an install of edt fail with an error, on a computer with or without the internet; gives what is said."""
    import slicer

    def fail(error, online=True, proxies=()):
        def connect(address, timeout):
            if not online:
                raise OSError("no route")
            return type("Connection", (), {"close": lambda self: None})()

        def pip_install(requirements):
            raise error

        monkeypatch.setattr(install, "_isThere", lambda name, requirement: name != "edt")
        monkeypatch.setattr(install.socket, "create_connection", connect)
        monkeypatch.setattr(install.urllib.request, "getproxies", lambda: dict(proxies))
        monkeypatch.setattr(slicer.util, "pip_install", pip_install)
        return install.ensure(lambda question: True)

    return fail


LONG = subprocess.CalledProcessError(
    1, ["/opt/Slicer/bin/PythonSlicer", "-m", "pip", "install", "edt>=2.3", "-c", "/tmp/x"]
)


def test_a_failure_is_one_line_without_the_command(failing):
    text = failing(LONG)
    assert "exit code 1" in text
    assert "Python console" in text
    assert "PythonSlicer" not in text
    assert "\n" not in text


def test_without_a_network_the_line_says_so_and_what_to_do(failing):
    text = failing(LONG, online=False)
    assert "does not reach pypi.org" in text
    assert "mirror or proxy" in text
    assert "\n" not in text


def test_behind_a_proxy_nothing_is_claimed_about_the_network(failing):
    assert "pypi.org" not in failing(LONG, online=False, proxies={"https": "http://proxy:3128"}.items())


@pytest.mark.parametrize(
    "error", [RuntimeError("two\nlines"), OSError(28, "No space left on device"), RuntimeError("")]
)
def test_other_failures_are_one_line_too(failing, error):
    text = failing(error)
    assert "Installing failed" in text
    assert "\n" not in text
    assert "()" not in text
