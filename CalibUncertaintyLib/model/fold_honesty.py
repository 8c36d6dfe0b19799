"""Which of some cases trained which member: a model is too sure of what it was trained on, and no figure shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .folder import Fold
from .member_set import MemberSet

_ENDINGS = re.compile(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's number of the input channel, as in case_0000.nii.gz


def trained_on(case_ids: Iterable[str], members: MemberSet) -> dict[str, list[tuple[int, Fold]]]:
    """The (model index, fold) that each of these cases trained, from `splits_final.json`; cases that trained none are left out.

    Of folds without that file nothing is known; see `unknown_training`.
    """
    found: dict[str, list[tuple[int, Fold]]] = {}
    known = {source: set(cases or ()) for source, cases in members.training_cases().items()}
    for case in dict.fromkeys(case_ids):
        of_case = [source for source, cases in known.items() if case in cases]
        if of_case:
            found[case] = of_case
    return found


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
    known = {case for cases in members.training_cases().values() for case in cases or ()}
    alike = {}
    for case, paths in files.items():
        if case in known:
            continue
        beginnings = {beginning for path in paths for beginning in _beginnings(case_name(path))}
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
