"""What was dropped onto the panel: a Result folder, a model folder, or something that is told in one line. No Qt."""

from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from . import modelSummary

RESULT, MODEL, NEITHER = "result", "model", "neither"
INSIDE = {
    "result.json",
    "segmentation.nii.gz",
    "plans.json",
    "dataset.json",
}  # files that people drop in place of their folder


@dataclass(frozen=True)
class Dropped:
    """kind: RESULT, MODEL or NEITHER. folder: what to open. problem: why nothing can be opened, or ""."""

    kind: str
    folder: Path = None
    problem: str = ""


def recognise(paths):
    """Find out what was dropped.

    :param paths: of files and folders on this computer.
    :return: `Dropped`.
    """
    if len(paths) != 1:
        return Dropped(NEITHER, problem=_("Drop one folder at a time: a Result folder or a model folder."))
    path = Path(paths[0])
    folder = path.parent if path.name in INSIDE else path
    if not folder.is_dir():
        text = _("{name} is no folder. Drop a Result folder or a model folder here, and a CT on a slice view.")
        return Dropped(NEITHER, problem=text.format(name=path.name))
    if (folder / "result.json").is_file():
        return Dropped(RESULT, folder)
    summary = modelSummary.readModel(folder)
    if not summary.problem:
        return Dropped(MODEL, summary.folder)
    if _looksLikeModel(folder):
        return Dropped(NEITHER, problem=summary.problem)
    text = _(
        "{folder} is neither a Result folder (with result.json) nor the folder of a trained nnU-Net v2 model (with plans.json)."
    )
    return Dropped(NEITHER, problem=text.format(folder=folder))


def _looksLikeModel(folder):
    return any((folder / name).exists() for name in ("plans.json", "dataset.json", "fold_0", "fold_all"))
