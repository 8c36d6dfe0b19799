"""Which of some cases trained which member: a model is too sure of what it was trained on, and no figure shows it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..plain_json import parsed
from .folder import SPLITS_NAME, Fold, ModelFolder
from .member_set import MemberSet

_ENDINGS = re.compile(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's number of the input channel, as in case_0000.nii.gz


def trained_on(case_ids: Iterable[str], members: MemberSet) -> dict[str, list[tuple[int, Fold]]]:
    """The (model index, fold) that each of these cases trained, from `splits_final.json`; cases that trained none are left out.

    Of folds without that file nothing is known; see `unknown_training`.
    """
    found: dict[str, list[tuple[int, Fold]]] = {}
    known = {source: set(map(same_name, cases or ())) for source, cases in members.training_cases().items()}
    for case in dict.fromkeys(case_ids):
        of_case = [source for source, cases in known.items() if same_name(case) in cases]
        if of_case:
            found[case] = of_case
    return found


def same_name(identifier: str) -> str:
    """An identifier as it is compared: some systems write a letter and its accent as one sign, others as two."""
    return unicodedata.normalize("NFC", str(identifier).strip())


def in_common(case_ids: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the identifiers that are among others, in their order."""
    known = set(map(same_name, others))
    return [case for case in dict.fromkeys(case_ids) if same_name(case) in known]


def unknown_training(members: MemberSet) -> list[Path]:
    """The model folders of which it is not known what trained some fold in use."""
    unknown = dict.fromkeys(index for (index, _), cases in members.training_cases().items() if cases is None)
    return [members.models[index].path for index in unknown]


def named_like_training(
    files: Mapping[str, Sequence[Path]], members: MemberSet
) -> dict[str, tuple[str, list[tuple[int, Fold]]]]:
    """Cases whose own identifier trained nothing but whose file has the name of a case that did, as in p1.nii.gz or p1_ct.nii.gz.

    files: {identifier: its files}. Returns {identifier: (the training case's identifier, what it trained)}.
    """
    known = {same_name(case) for cases in members.training_cases().values() for case in cases or ()}
    alike = {}
    for case, paths in files.items():
        if same_name(case) in known:
            continue
        beginnings = {beginning for path in paths for beginning in _beginnings(same_name(case_name(path)))}
        found = max(known & beginnings, key=len, default=None)
        if found is not None:
            alike[case] = (found, trained_on([found], members)[found])
    return alike


def _beginnings(name: str) -> list[str]:
    """The name, and what of it stands before each sign that is no letter or digit: p1_ct gives p1_ct and p1."""
    return [name, *(name[: sign.start()] for sign in re.finditer(r"[^A-Za-z0-9]", name) if sign.start())]


def case_name(path: str | Path) -> str:
    """A file's name as nnU-Net names cases: without its ending and the number of its channel."""
    return _CHANNEL.sub("", _ENDINGS.sub("", Path(path).name))


def in_words(sources: Sequence[tuple[int, Fold]], members: MemberSet) -> str:
    """ "fold 0 of Dataset501_HeadNeck", "folds 0 and 2 of ..."; folder names where there are several models."""
    parts = []
    for index in dict.fromkeys(index for index, _ in sources):
        folds = [str(fold) for of_model, fold in sources if of_model == index]
        model = members.models[index]
        named = f"fold {folds[0]}" if len(folds) == 1 else f"folds {', '.join(folds[:-1])} and {folds[-1]}"
        parts.append(f"{named} of {model.name if len(members.models) == 1 else model.path}")
    return " and ".join(parts)


@dataclass(frozen=True)
class Splits:
    """What `splits_final.json` says: of each fold, by its number, the cases that trained it and those it did not see."""

    path: Path
    trained: tuple[tuple[str, ...], ...]
    held_out: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, path: Path) -> Splits:
        """Raises CalibUncertaintyError, one line, where the file is none of nnU-Net's."""
        try:
            content = parsed(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibUncertaintyError(
                f"{path} is not readable JSON; copy it from where the model was trained"
            ) from error
        folds = content if isinstance(content, list) else []
        if not folds or not all(isinstance(fold, dict) for fold in folds):
            raise cls._not_ours(path)
        sides = [[fold.get(side) for fold in folds] for side in ("train", "val")]
        if not all(
            isinstance(cases, list) and all(isinstance(name, str) for name in cases) for cases in (*sides[0], *sides[1])
        ):
            raise cls._not_ours(path)
        return cls(path, *(tuple(map(tuple, of_folds)) for of_folds in sides))

    @staticmethod
    def _not_ours(path: Path) -> CalibUncertaintyError:
        return CalibUncertaintyError(
            f"{path} does not list 'train' and 'val' cases of every fold as nnU-Net does; copy it from where the model was trained"
        )


def find_splits(model: ModelFolder, dataset: Path | None = None, given: str | os.PathLike | None = None) -> Splits:
    """The splits a model was trained with.

    Looked for, in this order: the file that is `given`; beside the trained folds, or one folder up; then in nnUNet_preprocessed
    (of the environment, or beside the folder of the raw `dataset`) and in the raw dataset folder itself, where all must agree.
    Raises CalibUncertaintyError where there is none, or where it cannot be told which of several it is.
    """
    if given is not None:
        path = Path(given)
        path = path / SPLITS_NAME if path.is_dir() else path
        if not path.is_file():
            raise CalibUncertaintyError(f"{path} does not exist; give the model's {SPLITS_NAME}")
        return Splits.read(path)
    own = model.splits_paths
    for path in own:
        if path.is_file():
            return Splits.read(path)
    elsewhere = list(dict.fromkeys(folder / SPLITS_NAME for folder in _dataset_folders(model, dataset)))
    found = [Splits.read(path) for path in elsewhere if path.is_file()]
    if not found:
        raise CalibUncertaintyError(
            f"there is no {SPLITS_NAME} that says which cases each fold of {model.name} did not see; copy it from"
            f" nnUNet_preprocessed into {model.path} (looked in {', '.join(str(path.parent) for path in [*own, *elsewhere])})"
        )
    for other in found[1:]:
        if (other.trained, other.held_out) != (found[0].trained, found[0].held_out):
            raise CalibUncertaintyError(
                f"{found[0].path} and {other.path} differ; copy the one that {model.name} was trained with into {model.path}"
            )
    return found[0]


def _dataset_folders(model: ModelFolder, dataset: Path | None) -> list[Path]:
    """Where nnU-Net, or who prepared the data for it, puts what belongs to a dataset."""
    names = list(dict.fromkeys([model.name, *([dataset.name] if dataset else [])]))
    preprocessed = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112 (nnU-Net's own name)
    folders = [Path(preprocessed) / name for name in names] if preprocessed else []
    if dataset is not None:
        beside = dataset.resolve().parent.parent / "nnUNet_preprocessed"
        folders += [*(beside / name for name in names), dataset]
    return folders
