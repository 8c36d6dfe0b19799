"""The Python packages that the panel's parts need: what is missing, and how it is installed without harming Slicer's own.

Nothing is installed without asking. PyTorch comes through the PyTorch extension, which knows the graphics card; nnU-Net
through the NNUNet extension or, without it, through `slicer.packaging`. Both leave out what Slicer ships: its SimpleITK must
not be replaced by that of PyPI. pip gets the versions of these packages as constraints as well.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import socket
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from . import slicerCompat

TORCH = "torch>=2.6,!=2.9.*"  # nnU-Net refuses 2.9; checkpoints are read without running what they hold from 2.6 on
NNUNET = "nnunetv2>=2.6,<3"
PACKAGES = {  # import name -> requirement
    "nnunetv2": NNUNET,
    "edt": "edt>=2.3",
    "cc3d": "connected-components-3d>=3.12",
    "isal": "isal>=1.6",
    "matplotlib": "matplotlib>=3.6",
    "fiducio": "fiducio>=0.2",
}
SIZES_MB = {  # on disk, with what they need themselves and Slicer does not have; measured on Linux
    "nnunetv2": 500,
    "edt": 15,
    "cc3d": 20,
    "isal": 1,
    "matplotlib": 100,
    "fiducio": 1,
}
COMPUTING = ("nnunetv2", "edt", "cc3d", "isal")  # and PyTorch
PICTURES = ("matplotlib",)  # of the pages that calibrating and evaluating write
INDEX = ("pypi.org", 443)
KEPT = ("numpy", "SimpleITK", "torch", "torchvision", "vtk", "scipy", "requests")
LEFT_OUT = ["SimpleITK", "torch", "torchvision", "requests"]  # of what nnU-Net asks for


@dataclass(frozen=True)
class Missing:
    """What has to be installed: PyTorch or not, and requirements for pip."""

    torch: bool
    requirements: tuple

    def __bool__(self):
        return self.torch or bool(self.requirements)

    def inWords(self):
        """One line for each, for the question to the user."""
        lines = [_("PyTorch, through the PyTorch extension (up to 3 GB)")] if self.torch else []
        sizes = {PACKAGES[name]: size for name, size in SIZES_MB.items()}
        text = _("{requirement} (about {size} MB)")
        return lines + [text.format(requirement=each, size=sizes[each]) for each in self.requirements]


def findMissing(names=COMPUTING):
    """Look for packages, in versions that will do, without importing them.

    :param names: of PACKAGES. nnU-Net needs PyTorch, which is looked for with it.
    :return: `Missing`, false when everything is there.
    """
    importlib.invalidate_caches()
    requirements = tuple(PACKAGES[name] for name in names if not _isThere(name, PACKAGES[name]))
    return Missing(torch="nnunetv2" in names and not _isThere("torch", TORCH), requirements=requirements)


def missingPackage(error):
    """Import name of the package of PACKAGES that an error, or its cause, says is not installed; "" for any other error."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    name = (getattr(error, "name", None) or "").split(".")[0]
    return name if name in PACKAGES else ""


def ensure(confirm, names=COMPUTING):
    """Install what is missing, after asking.

    :param confirm: function from a question to whether the user agrees.
    :param names: of PACKAGES: what is about to be used.
    :return: an empty string when everything is there, otherwise why it is not, in one sentence.
    """
    missing = findMissing(names)
    if not missing:
        return ""
    if missing.torch and slicerCompat.pytorchLogic() is None:
        return _(
            "PyTorch is not installed. Install the PyTorch extension (Extensions Manager), restart Slicer, and run again."
        )
    question = _("This needs Python packages that are not installed yet:\n\n{packages}\n\n"
                 "They will be downloaded into Slicer's Python; its own packages are kept. Install them now?")  # fmt: skip
    if not confirm(question.format(packages="\n".join(missing.inWords()))):
        return _("Packages that this needs were not installed. Do it once more to be asked again.")
    try:
        _install(missing)
    except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
        logging.exception("CalibUncertainty: installing packages failed")
        return failureInWords(error)
    left = findMissing(names)
    if left:
        return _("Still missing after installing: {names}.").format(names=", ".join(left.inWords()))
    return ""


def failureInWords(error):
    """Why installing failed and what to do, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        reason = _("pip ended with exit code {code}").format(code=error.returncode)
    else:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if _isOffline():
        text = _("Installing failed ({reason}): this computer does not reach {host}. Connect it, or name your hospital's mirror or "
                 "proxy in pip's settings, and try again.")  # fmt: skip
        return text.format(reason=reason, host=INDEX[0])
    return _("Installing failed ({reason}). What pip said is in the Python console.").format(reason=reason)


def _isOffline():
    if urllib.request.getproxies():
        return False  # whether a proxy lets pip through cannot be told from here
    try:
        socket.create_connection(INDEX, timeout=3).close()
    except OSError:
        return True
    return False


def _isThere(name, requirement):
    # find_spec looks and does not import: torch would take seconds.
    if importlib.util.find_spec(name) is None:
        return False
    distribution, versions = _split(requirement)
    try:
        return _specifierSet()(versions).contains(importlib.metadata.version(distribution), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return True  # somebody's own copy, without a version


def _split(requirement):
    """Name and versions of a requirement."""
    name = re.match(r"[\w.\-]+", requirement).group()
    return name, requirement[len(name) :]


def _specifierSet():
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        from pip._vendor.packaging.specifiers import SpecifierSet
    return SpecifierSet


def _install(missing):
    installer = slicerCompat.nnUNetInstaller() if NNUNET in missing.requirements else None
    if missing.torch and installer is None:
        _installTorch()
    if installer is not None:  # it brings the PyTorch that its nnU-Net wants
        if not installer.setupPythonRequirements(NNUNET):
            raise RuntimeError(_("the NNUNet extension could not install nnU-Net"))
    elif NNUNET in missing.requirements:
        _installNNUNet()
    others = [requirement for requirement in missing.requirements if requirement != NNUNET]
    if others:
        with _constraints() as path:
            slicer.util.pip_install([*others, "-c", str(path)])  # pythonqt: ok, `ensure` has asked


def _installTorch():
    versions = _split(TORCH)[1]
    logic = slicerCompat.pytorchLogic()
    if logic.installTorch(askConfirmation=False, torchVersionRequirement=versions) is None:
        raise RuntimeError(_("the PyTorch extension could not install PyTorch"))


def _installNNUNet():
    packaging = slicerCompat.packaging()
    if packaging is None:
        raise RuntimeError(_("this Slicer needs the NNUNet extension for it: install that from the Extensions Manager"))
    with _constraints() as path:
        packaging.pip_install(
            [NNUNET], constraints=path, skip_packages=LEFT_OUT, requester="CalibUncertainty"
        )  # pythonqt: ok, `ensure` has asked


@contextlib.contextmanager
def _constraints():
    # Written when it is needed: what has been installed a moment ago is kept as well.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(f"{line}\n" for line in keptVersions()), encoding="utf-8")
        yield path


def keptVersions():
    """Constraints for pip that hold the packages of Slicer and PyTorch at the versions they have now.

    :return: lines of a constraints file.
    """
    lines = []
    for name in KEPT:
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            logging.debug("CalibUncertainty: %s is not installed, so it need not be kept", name)
    return lines
