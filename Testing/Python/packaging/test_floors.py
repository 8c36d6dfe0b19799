"""An import never climbs, the four middle rooms do not know each other, and the library knows neither Slicer nor Qt."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "CalibUncertaintyLib"
MIDDLE = ("inference", "calibration", "uncertainty", "evaluation")
# From the ground up. A name is a file or a folder of the library; those on one line may import each other.
FLOORS = (
    ("errors", "version", "plain_json", "value_codes", "field_checks", "ct_digest"),
    ("progress", "volume", "reading", "dicom_check", "nifti_check", "nrrd_file", "body"),
    ("model",),
    MIDDLE,
    ("trainers",),
    ("result", "result_check", "result_regions"),
    ("workflow",),
    ("cli", "cli_answers", "cli_evaluate", "cli_help", "cli_last_layer", "cli_members", "cli_options", "cli_roi"),
    ("__main__",),
)
HEAVY = (
    "torch",
    "nnunetv2",
    "scipy",
    "edt",
    "cc3d",
    "matplotlib",
    "skimage",
    "nibabel",
    "pandas",
    "dask",
    "distributed",
    "slicer",
    "qt",
    "vtk",
)
FORBIDDEN = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "PySide6", "PythonQt", "sitkUtils"}


def floor_of(room):
    for height, rooms in enumerate(FLOORS):
        if room in rooms:
            return height
    raise AssertionError(
        f"CalibUncertaintyLib/{room} has no floor: say in test_floors.py and the plan where it belongs"
    )


def room_of(path):
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return parts[0]


def imports_of(path):
    """(line, dotted name) of every import in a file, those inside functions too; relative ones written out."""
    package = ("CalibUncertaintyLib", *path.relative_to(LIBRARY).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def for_nnunet_only(path):
    """The files in trainers/ are imported by nnU-Net, by plain name, and by nothing of the library."""
    return room_of(path) == "trainers" and path.name != "__init__.py"


def library_files():
    return sorted(path for path in LIBRARY.rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", library_files(), ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_an_import_never_climbs(path):
    room = room_of(path)
    if room == "__init__":
        return  # the front door names what is offered; the next test keeps it light
    problems = []
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "CalibUncertaintyLib" or len(parts) < 2 or not exists(parts[1]):
            continue
        other = parts[1]
        sideways = room in MIDDLE and other in MIDDLE and other != room
        if floor_of(other) > floor_of(room) or sideways:
            problems.append(f"{path.name}:{line}: {room} imports {other}")
    assert problems == []


def exists(room):
    return (LIBRARY / room).is_dir() or (LIBRARY / f"{room}.py").is_file()


@pytest.mark.parametrize("path", library_files(), ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_the_library_knows_neither_slicer_nor_qt(path):
    assert [f"{path.name}:{line}: {name}" for line, name in imports_of(path) if name.split(".")[0] in FORBIDDEN] == []


def test_importing_every_module_needs_numpy_and_simpleitk_only():
    files = [path for path in library_files() if not for_nnunet_only(path)]
    names = [".".join(("CalibUncertaintyLib", *p.relative_to(LIBRARY).with_suffix("").parts)) for p in files]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is not allowed while the library is imported")
sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
print("all imported")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.strip() == "all imported", run.stderr[-2000:]


def test_the_panel_asks_the_library_from_the_top_floors_only():
    """The panel speaks with the computation through a process and a Result folder; it opens and checks, no more."""
    allowed = {"result", "result_regions", "model", "volume", "errors", "version", "workflow", "uncertainty", "body"}
    problems = []
    for path in sorted((LIBRARY.parent / "CalibUncertainty").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) and node.level == 0 else None
            parts = (module or "").split(".")
            if parts[0] == "CalibUncertaintyLib" and len(parts) > 1 and parts[1] not in allowed:
                problems.append(f"{path.name}:{node.lineno}: {module}")
    assert problems == []


def test_no_file_is_longer_than_four_hundred_lines(repository):
    folders = ("CalibUncertainty", "CalibUncertaintyLib", "Testing")
    files = [p for folder in folders for p in (repository / folder).rglob("*.py") if "Output" not in p.parts]
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert [f"{p.relative_to(repository)}: {n} lines" for p, n in lengths.items() if n > 400] == []
