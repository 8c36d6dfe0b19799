"""Writes the lists of scripts and resources in the CMakeLists.txt of the two modules from what lies in their folders.

Run it after a file was added, renamed or removed: ``python Testing/update_cmake_lists.py``. Slicer packs only what is
listed, so a forgotten file is missing in the installed extension; Testing/Python/packaging fails before that.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = ("CalibUncertainty", "CalibUncertaintyLib")
NOT_PACKED = {"CMakeLists.txt"}


def packed_files(folder: Path) -> tuple[list[str], list[str]]:
    """Scripts and resources of a module, as paths relative to its folder; caches and CMake's own file are left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = sorted(path.relative_to(folder).as_posix() for path in files if path.name not in NOT_PACKED)
    return [n for n in names if n.endswith(".py")], [n for n in names if not n.endswith(".py")]


def written(text: str, variable: str, names: list[str]) -> str:
    """The text of a CMakeLists.txt with one ``set(VARIABLE ...)`` replaced."""
    lines = "".join(f"  {name}\n" for name in names)
    pattern = re.compile(rf"set\({variable}\n.*?  \)\n", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"exactly one set({variable} ...) is wanted, with its parenthesis on a line of its own")
    return pattern.sub(lambda match: f"set({variable}\n{lines}  )\n", text)


def main() -> int:
    """Rewrite both files; prints what changed."""
    for module in MODULES:
        path = REPOSITORY / module / "CMakeLists.txt"
        scripts, resources = packed_files(path.parent)
        before = path.read_text(encoding="utf-8")
        after = written(before, "MODULE_PYTHON_SCRIPTS", scripts)
        after = written(after, "MODULE_PYTHON_RESOURCES", resources)
        if after != before:
            path.write_text(after, encoding="utf-8")
        state = "unchanged" if after == before else "written"
        print(f"{path.relative_to(REPOSITORY)}: {len(scripts)} scripts, {len(resources)} resources, {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
