"""Finding the class of a trainer by reading files, and loading it only where it has a network of its own.

A trainer may change the network that the plans describe. Code is loaded from nnU-Net's package, from this library, and from a
folder that the user named; from nowhere else. Reading comes first: most trainers change only how a network is trained, and
nnU-Net's own way of looking (it imports every trainer it has) needs packages that inference does not.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibUncertaintyError

STOCK_TRAINER = "nnUNetTrainer"
MOST_FILES = 2000  # more than this is not a folder of trainers but somebody's home
_OWN_TRAINERS = Path(__file__).resolve().parents[1] / "trainers"
_BUILDER = "build_network_architecture"


@dataclass(frozen=True)
class FoundTrainer:
    """Where a checkpoint's trainer was found. file: None where it was not; folder: what was searched, root of its modules' names.

    has_own_network: whether it, or a class it is made from, builds the network otherwise than from the plans alone.
    """

    name: str
    file: Path | None = None
    folder: Path | None = None
    has_own_network: bool = False

    @property
    def is_stock(self) -> bool:
        """nnU-Net's plain trainer, or a checkpoint that names none."""
        return self.name in ("", STOCK_TRAINER)

    @property
    def is_ours(self) -> bool:
        """One of this library's trainers, in this library."""
        return self.folder == _OWN_TRAINERS

    @property
    def is_users(self) -> bool:
        """One in the folder that the user named, whose code the user wants to be run."""
        return self.folder is not None and self.folder not in (_OWN_TRAINERS, _stock_trainers())

    @property
    def remark(self) -> str:
        """A sentence for the user where the trainer was not found and the plans' network is used; else empty."""
        if self.is_stock or self.file is not None:
            return ""
        return (
            f"The model comes from a custom trainer ({self.name}) that was not found; the plans' network was used, which fits its"
            " weights. If the trainer changed more than the training, name its folder with --trainers DIR"
        )

    @contextlib.contextmanager
    def loaded(self) -> Iterator[type]:
        """The class; running this runs the code of its file. What it imports is found beside it until the block ends.

        Raises CalibUncertaintyError naming the file when it cannot be imported.
        """
        root = _root_of(self.file, self.folder)
        name = ".".join(self.file.relative_to(root).with_suffix("").parts)
        with _importing_from(root, forget=self.folder):
            try:
                module = importlib.import_module(name)
                if Path(getattr(module, "__file__", None) or "").resolve() != self.file.resolve():
                    raise ImportError(f"another module called {name} is in its way, rename the file")
                found = getattr(module, self.name)
            except Exception as error:
                raise CalibUncertaintyError(
                    f"{self.file}: the trainer {self.name} cannot be loaded ({type(error).__name__}:"
                    f" {' '.join(str(error).split())})"
                ) from error
            yield found


def find_trainer(name: str, trainers: str | Path | None = None) -> FoundTrainer:
    """Look for a trainer class in the folder the user named, in this library's trainers and in nnU-Net's own. Nothing is run.

    name: as in the checkpoint. trainers: the user's folder, in the manner of nnU-Net's nnUNet_extTrainer; None for none.
    Raises CalibUncertaintyError where that folder does not exist, or its files define the class twice or cannot be read.
    """
    folders = [_named_folder(trainers)] if trainers is not None else []  # a wrong one is refused whoever the trainer is
    if name in ("", STOCK_TRAINER):
        return FoundTrainer(name)
    folders += [_OWN_TRAINERS] if _OWN_TRAINERS.is_dir() else []
    folders += [_stock_trainers()]
    classes: dict[str, _Class] = {}
    for folder in reversed(folders):
        classes.update(_classes_in(folder, name))
    if name not in classes:
        return FoundTrainer(name)
    found = classes[name]
    return FoundTrainer(name, found.file, found.folder, _changes_network(name, classes))


def moved_architecture(class_name: str) -> str | None:
    """The full name of a network class of nnU-Net's companion package, wherever in it the class is now; None: nowhere."""
    package = importlib.util.find_spec("dynamic_network_architectures.architectures")
    folder = Path(next(iter(package.submodule_search_locations)))
    found = _classes_in(folder, class_name).get(class_name)
    if found is None:
        return None
    return ".".join((package.name, *found.file.relative_to(folder).with_suffix("").parts, class_name))


@dataclass(frozen=True)
class _Class:
    """A class as it stands in a file: what it is made from, and whether it says how the network is built."""

    file: Path
    folder: Path
    bases: tuple[str, ...]
    builds: bool


def _named_folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CalibUncertaintyError(f"{folder} {what}; --trainers wants the folder that holds the trainer's .py file")
    return folder.resolve()


def _stock_trainers() -> Path:
    package = importlib.util.find_spec("nnunetv2")
    return Path(package.origin).resolve().parent / "training" / "nnUNetTrainer"


def _classes_in(folder: Path, wanted: str) -> dict[str, _Class]:
    """Every class that the .py files of a folder and the folders in it define at their top."""
    files = []
    for file in folder.rglob("*.py"):
        files.append(file)
        if len(files) > MOST_FILES:
            raise CalibUncertaintyError(
                f"{folder} holds more than {MOST_FILES} Python files; name the folder that holds the trainer's own"
            )
    classes: dict[str, _Class] = {}
    for file in sorted(files):
        try:
            text = file.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, ValueError) as error:  # a SyntaxError is a ValueError only for null bytes
            if isinstance(error, OSError):
                raise CalibUncertaintyError(f"{file} cannot be read ({error.strerror})") from error
            continue
        except SyntaxError as error:
            if re.search(rf"^class {re.escape(wanted)}\b", text, re.MULTILINE):
                raise CalibUncertaintyError(
                    f"{file}, line {error.lineno}: the trainer {wanted} is not valid Python"
                ) from error
            continue
        for node in tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            if node.name == wanted and wanted in classes:
                raise CalibUncertaintyError(
                    f"the trainer {wanted} is defined twice, in {classes[wanted].file} and {file}; keep one"
                )
            bases = tuple(ast.unparse(base).split(".")[-1] for base in node.bases)
            classes[node.name] = _Class(file, folder, bases, _defines_builder(node))
    return classes


def _defines_builder(node: ast.ClassDef) -> bool:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == _BUILDER:
            return True
        if isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == _BUILDER for t in item.targets):
            return True
    return False


def _changes_network(name: str, classes: dict[str, _Class], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a class between this one and nnU-Net's plain trainer builds the network; one that is not known might."""
    if name in (STOCK_TRAINER, "object"):
        return False
    if name not in classes or name in seen:
        return True
    found = classes[name]
    return found.builds or any(_changes_network(base, classes, seen | {name}) for base in found.bases)


def _root_of(file: Path, folder: Path) -> Path:
    """The folder from which a module is named: above its packages, but not above the folder that was searched.

    nnU-Net's own are named from where nnU-Net is installed: they are part of its package.
    """
    if folder == _stock_trainers():
        return folder.parents[2]
    root = file.parent
    while root != folder and (root / "__init__.py").is_file():
        root = root.parent
    return root


@contextlib.contextmanager
def _importing_from(root: Path, forget: Path) -> Iterator[None]:
    """Modules are looked for in `root` first, then among our trainers; their names are free again afterwards."""
    if forget == _stock_trainers():
        yield
        return
    before = set(sys.modules)
    places = [str(root), str(forget), str(_OWN_TRAINERS)]
    sys.path[:0] = places
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for place in places:
            with contextlib.suppress(ValueError):
                sys.path.remove(place)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and any(Path(file).resolve().is_relative_to(folder) for folder in (forget, _OWN_TRAINERS)):
                del sys.modules[name]
