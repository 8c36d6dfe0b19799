"""The file of a picture: nothing else is replaced by it, and a full disk leaves no half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError
from ..volume import refuse_unusable_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PNG = b"\x89PNG\r\n\x1a\n"
_RESOLUTION = 110  # dots an inch


def refuse_other_file(path: Path) -> None:
    """Refuse a place where something is that is no PNG, as the CT or a part of the Result.

    Raises CalibUncertaintyError in one line.
    """
    refuse_unusable_name(path)
    if path.is_dir():
        raise CalibUncertaintyError(f"{path} is a folder; name the picture's file, as in {path / 'montage.png'}")
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(_PNG))
    except OSError:
        return  # nothing is there; what cannot be written is said when it is
    if begins and begins != _PNG:
        raise CalibUncertaintyError(f"{path} is there already and no PNG picture; choose another place")


def save_picture(figure: Figure, path: Path, background: str) -> Path:
    """Write the PNG aside and rename it. Raises CalibUncertaintyError, one line, where that cannot be done."""
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(aside, dpi=_RESOLUTION, format="png", facecolor=background)
        os.replace(aside, path)
    except OSError as error:
        if aside.is_file():
            aside.unlink()
        why = error.strerror or error
        raise CalibUncertaintyError(f"the picture {path} cannot be written ({why}); choose another place") from error
    return path
