"""The stand-in for ``slicer.app``, ``slicer.modules`` and the main window, around the real MRML core."""

from __future__ import annotations

import platform
import sys
import tempfile
import types
from pathlib import Path

import slicer
import slicer.util  # Slicer's own file, from slicer-core

from . import ctk_widgets, io_manager, python_lock, pythonqt
from .scene import MrmlCore
from .views import LayoutManager
from .watch import Watch

_application = None


def application():
    """The running stand-in, or None."""
    return _application


def _qtApplicationClass():
    from PySide6.QtCore import Property, QProcessEnvironment, Signal
    from PySide6.QtWidgets import QApplication

    @pythonqt.emulatedCppClass
    class qSlicerApplication(QApplication):
        startupCompleted = Signal()
        mrmlSceneChanged = Signal(object)
        _signatures = ("mrmlSceneChanged(vtkMRMLScene*)",)

        def __init__(self, folder: Path):
            super().__init__(["Slicer"])
            self._folder, self._testing, self._core, self._layoutManager = folder, False, None, None

        # paths and names -------------------------------------------------------------------------------------------
        temporaryPath = Property(str, lambda self: str(self._folder / "temporary"))
        slicerHome = Property(str, lambda self: str(self._folder / "home"))
        extensionsInstallPath = Property(str, lambda self: str(self._folder / "extensions"))
        slicerUserSettingsFilePath = Property(str, lambda self: str(self._folder / "settings" / "Slicer.ini"))
        applicationVersion = Property(str, lambda self: f"{self.majorVersion}.{self.minorVersion}.0")
        majorVersion = Property(int, lambda self: 5)
        minorVersion = Property(int, lambda self: 12)
        revision = Property(str, lambda self: "stand-in")
        os = Property(str, lambda self: {"Linux": "linux", "Darwin": "macosx", "Windows": "win"}[platform.system()])
        arch = Property(str, lambda self: platform.machine())
        platform = Property(str, lambda self: f"{self.os}-{self.arch}")
        isInstalled = Property(bool, lambda self: True)
        documentationBaseUrl = Property(str, lambda self: "https://slicer.readthedocs.io/en/latest/")

        def moduleDocumentationUrl(self, name):
            return self.documentationBaseUrl

        def translate(self, context, text):
            return text

        def startupEnvironment(self):
            return QProcessEnvironment.systemEnvironment()

        # parts -----------------------------------------------------------------------------------------------------
        def processEvents(self):
            python_lock.processEvents()

        def mrmlScene(self):
            return self._core.scene

        def applicationLogic(self):
            return self._core.applicationLogic

        def layoutManager(self):
            return self._layoutManager

        def moduleManager(self):
            return self._modules

        def moduleLogic(self, name):
            return self._core.logics[name]

        def coreIOManager(self):
            return self._io

        ioManager = coreIOManager

        def settings(self):
            return _settings()

        userSettings = settings
        revisionUserSettings = settings

        def pythonConsole(self):
            return None

        def commandOptions(self):
            return types.SimpleNamespace(noMainWindow=False, testingEnabled=self._testing)

        def testingEnabled(self):
            return self._testing

        def pauseRender(self):
            pass

        def resumeRender(self):
            pass

        def setRenderPaused(self, paused):
            pass

        def restart(self):
            raise AssertionError("the module asked Slicer to restart")

    return qSlicerApplication


def _settings():
    import qt

    return qt.QSettings()


class Application:
    """Everything one process has of the stand-in; tests hold it as the fixture ``slicer_application``."""

    def __init__(self):
        self._folderHolder = tempfile.TemporaryDirectory(prefix="slicer-stand-in-")
        self.folder = Path(self._folderHolder.name)
        for name in ("temporary", "home", "extensions", "settings"):
            (self.folder / name).mkdir()
        qt = pythonqt.createQtModule()
        ctk_widgets.createCtkModule()
        from . import qmrml_widgets
        from .dialogs import Dialogs

        qmrml_widgets.install()
        self._setSettings(qt)
        self.qt = _qtApplicationClass()(self.folder)
        self.dialogs = Dialogs()
        self.dialogs.install()
        watch = Watch()  # colour and terminology files are not in slicer-core: their logics complain at start
        watch.start()
        self.core = MrmlCore(self.qt.temporaryPath)
        watch.stop()
        self.startupOutput = watch.vtkOutput
        self._installSlicer(qmrml_widgets)
        self.layoutManager = LayoutManager(self.core)
        self.qt._layoutManager = self.layoutManager
        self._entered = None
        self.mainWindow = qmrml_widgets.qSlicerMainWindow()

    def _setSettings(self, qt) -> None:
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        for scope in (qt.QSettings.UserScope, qt.QSettings.SystemScope):
            qt.QSettings.setPath(qt.QSettings.IniFormat, scope, str(self.folder / "settings"))
        qt.QCoreApplication.setOrganizationName("stand-in")
        qt.QCoreApplication.setApplicationName("Slicer")

    def _installSlicer(self, qmrml_widgets) -> None:
        from . import parameter_node, scripted_module

        self.qt._core = self.core
        self.qt._io = io_manager.CoreIOManager(self.core)
        slicer.app = self.qt
        slicer.mrmlScene = self.core.scene
        slicer.selfTests = {}
        for name in ("modules", "moduleNames"):
            module = types.ModuleType(f"slicer.{name}")
            setattr(slicer, name, module)
            sys.modules[f"slicer.{name}"] = module
        self.qt._modules = scripted_module.ModuleManager(self)
        for name, logic in self.core.logics.items():
            self.qt._modules.addCppModule(name, logic)
        scripted_module.install()
        parameter_node.install()

    def processEvents(self) -> None:
        python_lock.processEvents()

    def waitUntil(self, condition, seconds: float = 10.0, what: str = "the condition") -> None:
        """Run the event loop until ``condition()`` is true; a test fails after the given time."""
        import time

        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come true within {seconds} s")
            python_lock.processEvents()
            python_lock.wait(0.005)

    def loadModule(self, path: Path | str):
        """Load a scripted module from its .py file, as Slicer's factory does at start; returns the module object."""
        return self.qt._modules.loadScripted(Path(path))

    def enterModule(self, name: str):
        """Show a module's panel as the module selector does: exit() of the last one, enter() of this one."""
        module = self.qt._modules.module(name)
        widget = module.widgetRepresentation()
        if self._entered is not None and self._entered is not widget:
            self._entered.exit()
        self._entered = widget
        widget.setMRMLScene(self.core.scene)
        widget.enter()
        return widget

    def leaveModule(self) -> None:
        if self._entered is not None:
            self._entered.exit()
            self._entered = None

    def clear(self) -> None:
        """Close the scene as File/Close Scene does, and forget messages and answers, and where one was typing."""
        self.dialogs.clear()
        focused = self.qt.focusWidget()
        if focused is not None:
            focused.clearFocus()
        self.core.scene.Clear(0)
        self.processEvents()


def start() -> Application:
    """Install the stand-in; the second call returns the first one's application."""
    global _application
    if _application is None:
        _application = Application()
    return _application
