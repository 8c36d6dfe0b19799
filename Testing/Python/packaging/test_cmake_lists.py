"""CMake packs what its lists name, and nothing else: the lists must equal the tree."""

import re
import shutil
import subprocess
import sys

import pytest

MODULES = ("CalibUncertainty", "CalibUncertaintyLib")
SCRIPTED = "lib/Slicer-5.10/qt-scripted-modules"  # as the stub in FakeSlicer says


def listed(repository, module, variable):
    """The entries of one set(...) of a module's CMakeLists.txt."""
    text = (repository / module / "CMakeLists.txt").read_text(encoding="utf-8")
    (body,) = re.findall(rf"set\({variable}\s(.*?)\)", text, re.DOTALL)
    return re.sub(r"#.*", "", body).split()


def in_tree(repository, module):
    """Every file of a module but CMake's own and caches."""
    folder = repository / module
    files = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {p.relative_to(folder).as_posix() for p in files} - {"CMakeLists.txt"}


@pytest.mark.parametrize("module", MODULES)
def test_every_script_and_resource_is_listed_once_and_exists(repository, module):
    names = listed(repository, module, "MODULE_PYTHON_SCRIPTS") + listed(repository, module, "MODULE_PYTHON_RESOURCES")
    tree = in_tree(repository, module)
    repair = "run: python Testing/update_cmake_lists.py"
    assert len(names) == len(set(names)), f"listed twice; {repair}"
    assert tree - set(names) == set(), f"in the folder and not packed; {repair}"
    assert set(names) - tree == set(), f"packed and not in the folder; {repair}"


@pytest.mark.parametrize("module", MODULES)
def test_scripts_and_resources_are_not_mixed_up(repository, module):
    assert all(name.endswith(".py") for name in listed(repository, module, "MODULE_PYTHON_SCRIPTS"))
    assert not any(name.endswith(".py") for name in listed(repository, module, "MODULE_PYTHON_RESOURCES"))


def test_the_ui_file_and_the_icon_are_packed(repository):
    resources = listed(repository, "CalibUncertainty", "MODULE_PYTHON_RESOURCES")
    assert "Resources/UI/CalibUncertainty.ui" in resources
    assert "Resources/Icons/CalibUncertainty.png" in resources


def test_every_folder_with_scripts_is_a_package(repository):
    for module in MODULES:
        folders = {path.parent for path in (repository / module).rglob("*.py")} - {repository / "CalibUncertainty"}
        imported = [folder for folder in folders if "Resources" not in folder.parts]  # examples are run, not imported
        assert [str(f) for f in imported if not (f / "__init__.py").is_file()] == []


def test_pip_installs_every_package_of_the_library(repository):
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'"(CalibUncertaintyLib[\w.]*)",', text))
    folders = {p.parent.relative_to(repository) for p in (repository / "CalibUncertaintyLib").rglob("__init__.py")}
    assert named == {".".join(folder.parts) for folder in folders}


def test_the_script_that_writes_the_lists_changes_only_the_lists(repository, tmp_path, monkeypatch):
    import update_cmake_lists

    for module in MODULES:
        folder = tmp_path / module / "inner"
        folder.mkdir(parents=True)
        (folder / "b.py").touch()
        (folder / "a.json").touch()
        shutil.copy(repository / module / "CMakeLists.txt", tmp_path / module)
    monkeypatch.setattr(update_cmake_lists, "REPOSITORY", tmp_path)
    assert update_cmake_lists.main() == 0
    for module in MODULES:
        assert listed(tmp_path, module, "MODULE_PYTHON_SCRIPTS") == ["inner/b.py"]
        assert listed(tmp_path, module, "MODULE_PYTHON_RESOURCES") == ["inner/a.json"]
        rest = [
            re.sub(r"^  [\w/.-]+\n", "", (root / module / "CMakeLists.txt").read_text(encoding="utf-8"), flags=re.M)
            for root in (repository, tmp_path)
        ]
        assert rest[0] == rest[1]


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    """The extension configured, built and installed by the real cmake against a stub of Slicer's CMake files."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("CMAKE MISSING: the extension was not configured; install cmake to run this test")
    build, target = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    stub = repository / "Testing" / "Python" / "packaging" / "FakeSlicer"
    for arguments in (
        ["-S", str(repository), "-B", str(build), f"-DSlicer_DIR={stub}", "-DBUILD_TESTING=ON"],
        ["--build", str(build)],
        ["--install", str(build), "--prefix", str(target)],
    ):
        run = subprocess.run([cmake, *arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    return build, target / SCRIPTED


def test_the_extension_configures_builds_and_installs(installed, repository):
    _, scripted = installed
    for module in MODULES:
        place = scripted if module == "CalibUncertainty" else scripted / module
        assert [name for name in in_tree(repository, module) if not (place / name).is_file()] == []


def test_the_demo_model_lies_beside_the_library_once_installed(installed, repository):
    _, scripted = installed
    source = repository / "Resources" / "DemoModel"
    files = [p.relative_to(source) for p in source.rglob("*") if p.is_file()]
    assert files, "Resources/DemoModel is empty"
    assert [str(f) for f in files if not (scripted / "Resources" / "DemoModel" / f).is_file()] == []


def test_the_modules_own_test_is_registered(installed):
    build, _ = installed
    assert "CalibUncertainty.py" in (build / "registered_tests.txt").read_text(encoding="utf-8").split()


def test_the_installed_library_imports_by_itself(installed):
    _, scripted = installed
    code = "import CalibUncertaintyLib as lib; print(lib.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=scripted, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == str(scripted / "CalibUncertaintyLib" / "__init__.py"), run.stderr
