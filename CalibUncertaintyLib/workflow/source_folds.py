"""A raw nnU-Net dataset as a source of cases: every fold is calibrated on the cases that it did not see in its training."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.members import MemberPredictor
from ..inference.scratch import Scratch
from ..model.fold_honesty import Splits, case_name, find_splits, in_common, same_name, trained_on
from ..model.folder import Fold, ModelFolder
from ..model.folder_check import label_numbers
from ..model.member_set import MemberSet
from ..progress import Progress
from .labelled import FirstStage, RoiVoxels, collect, refuse_repeated
from .options import STRUCTURES
from .source_case import LabelledCase, ListedFile, named, refuse_missing, refuse_shared_files


def out_of_fold_cases(
    dataset: str | Path, members: MemberSet, splits: str | os.PathLike | None = None, excluded: Collection[str] = ()
) -> dict[Fold, list[LabelledCase]]:
    """The cases of a raw nnU-Net dataset that each fold did not see, {fold: cases}, in the order of the folds.

    dataset: folder Dataset###_Name with dataset.json, imagesTr and labelsTr. members: folds of one model. splits: the model's
    `splits_final.json`; by default it is looked for, see `find_splits`. excluded: identifiers that must not be used.
    Raises CalibUncertaintyError, one line, where the dataset is not the model's, where it is not known what a fold did not see
    or that is nothing, where what nnU-Net validated the fold on says otherwise, and for missing files (all at once).
    """
    folder = Path(dataset)
    model = _only_model(members)
    content = _read_dataset(folder)
    _refuse_other_dataset(content, model, folder)
    found = find_splits(model, folder, splits)
    held_out = {fold: _held_out(fold, found, model) for fold in members.folds[0]}
    wanted = list(dict.fromkeys(case for cases in held_out.values() for case in cases))
    known = {case: _case_of(case, folder, content, model) for case in wanted}
    refuse_repeated(list(known.values()), excluded)
    refuse_missing([file for case in known.values() for file in _files_of(case)], folder)
    # a patient who is there twice was held out of a fold that the other copy may have trained
    trained = dict.fromkeys(case for fold in held_out for case in found.trained[int(fold)] if case not in known)
    others = [_case_of(case, folder, content, model) for case in trained]
    refuse_shared_files([file for case in (*known.values(), *others) for file in _files_of(case)], folder)
    return {fold: [known[case] for case in cases] for fold, cases in held_out.items()}


def collect_out_of_fold(
    cases: Mapping[Fold, Sequence[LabelledCase]],
    members: MemberSet,
    predictor_of: Callable[[MemberSet], MemberPredictor],
    roi_mm: float,
    folder: Path,
    progress: Progress,
    kept: Scratch,
    previous_of: Callable[[MemberSet], FirstStage] | None = None,
    resample_labels: bool = False,
    roi: str = STRUCTURES,
) -> dict[Fold, list[RoiVoxels]]:
    """Run each fold alone on its own cases: {fold: what it says near the structures}, the axis of members M = 1 long.

    (M is longer only where each fold is several members by itself: checkpoints, flips or dropout samples.)
    cases: as `out_of_fold_cases` gives them. members: all folds. predictor_of: makes the predictor of a set of members; asked for
    all folds first, so that a wrong checkpoint shows before the computing. folder: for files of one case; kept: for the voxels
    that are returned, closed by the caller. previous_of: gives the first stage of a cascade, for the members of one fold.
    Raises CalibUncertaintyError where two folds hold the same weights: then what one did not see may have trained it after all.
    """
    _refuse_equal_folds(predictor_of(members).chosen)
    total, done = sum(len(of_fold) for of_fold in cases.values()), 0
    found: dict[Fold, list[RoiVoxels]] = {}
    for fold, of_fold in cases.items():
        alone = members_of_fold(members, fold)
        _refuse_trained([case.id for case in of_fold], alone)
        if alone.before is not None and previous_of is None:
            raise ValueError("the members are the second stage of a cascade; say what gives the first")
        predictor = predictor_of(alone)
        previous = previous_of(alone) if previous_of and alone.before is not None else None
        found[fold] = []
        for case in of_fold:
            said = f"fold {fold}, case {case.id} ({done + 1} of {total})"
            stage = progress.stage("cases", 0.9 * done / total, 0.9 * (done + 1) / total, said)
            with stage, tempfile.TemporaryDirectory(dir=folder) as place, Scratch(Path(place)) as passing:
                voxels = collect(
                    case, members.models[0], predictor, roi_mm, passing, kept, progress, previous, resample_labels,
                    roi=roi,
                )  # fmt: skip
            found[fold].append(voxels)
            done += 1
    return found


def members_of_fold(members: MemberSet, fold: Fold) -> MemberSet:
    """The members of one fold alone; of a cascade with the same fold of its first stage.

    Raises CalibUncertaintyError where the first stage does not have that fold: another one has seen these cases.
    """
    before = members.before
    if before is not None:
        first = _only_model(before)
        if not first.checkpoint_path(fold).is_file():
            raise CalibUncertaintyError(
                f"{first.path} has no fold {fold}, whose labels fold {fold} of the second stage must be shown; copy it there"
            )
        before = members_of_fold(replace(before, folds=((fold,),), left_out=()), fold)
    left_out = tuple(source for source in members.left_out if source[1] == fold)
    return replace(members, folds=((fold,),), left_out=left_out, before=before, warnings=())


def _only_model(members: MemberSet) -> ModelFolder:
    if len(members.models) > 1:
        raise CalibUncertaintyError(
            f"{members.models[0].path} and {members.models[1].path} were given; folds can be calibrated on what they did not see"
            " for one model at a time"
        )
    return members.models[0]


def _read_dataset(folder: Path) -> dict:
    if not folder.is_dir():
        raise CalibUncertaintyError(f"{folder} is not there; give the raw nnU-Net dataset, a folder Dataset###_Name")
    missing = [name for name in ("dataset.json", "imagesTr", "labelsTr") if not (folder / name).exists()]
    if missing:
        raise CalibUncertaintyError(
            f"{folder} has no {' and no '.join(missing)}; give the raw nnU-Net dataset, a folder Dataset###_Name"
        )
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibUncertaintyError(f"{path} is not readable JSON; copy the dataset again") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise CalibUncertaintyError(f"{path} has no 'labels'; it is not one of nnU-Net v2's, copy the dataset again")
    if not isinstance(content.get("file_ending"), str) or not content["file_ending"].startswith("."):
        raise CalibUncertaintyError(f"{path} has no 'file_ending' such as .nii.gz; copy the dataset again")
    return content


def _refuse_other_dataset(content: dict, model: ModelFolder, folder: Path) -> None:
    """The dataset must number its structures and channels as the one that the model was trained on."""
    ours, theirs = label_numbers(content["labels"]), label_numbers(model.dataset["labels"])
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            here, there = (_in_words(labels.get(name)) for labels in (ours, theirs))
            raise CalibUncertaintyError(
                f"{folder / 'dataset.json'}: the label {name} is {here}, in {model.path / 'dataset.json'} {there}; give the"
                f" dataset that {model.name} was trained on"
            )
    if model.has_regions and list(content.get("regions_class_order") or ()) != list(
        model.dataset.get("regions_class_order") or ()
    ):
        raise CalibUncertaintyError(
            f"{folder / 'dataset.json'}: 'regions_class_order' is not that of {model.path / 'dataset.json'}; give the dataset that"
            f" {model.name} was trained on"
        )
    channels = content.get("channel_names") or content.get("modality") or {}
    names = [str(channels[key]) for key in sorted(channels, key=str)] if isinstance(channels, dict) else []
    if names and names != model.channels:
        raise CalibUncertaintyError(
            f"{folder / 'dataset.json'}: the input channels are {', '.join(names)}, those of {model.name}"
            f" {', '.join(model.channels)}; give the dataset that it was trained on"
        )


def _in_words(numbers: tuple | None) -> str:
    return "not there" if numbers is None else " and ".join(str(number) for number in numbers)


def _held_out(fold: Fold, splits: Splits, model: ModelFolder) -> list[str]:
    """The cases that a fold did not see, as far as anything can tell."""
    if fold == "all":
        raise CalibUncertaintyError(
            f"fold all of {model.name} was trained on every case, so none is held out; choose numbered folds, or give other cases"
        )
    if int(fold) >= len(splits.held_out):
        raise CalibUncertaintyError(
            f"{splits.path} has {len(splits.held_out)} folds and says nothing of fold {fold}; give the one that"
            f" {model.name} was trained with"
        )
    cases = list(dict.fromkeys(splits.held_out[int(fold)]))
    if not cases:
        raise CalibUncertaintyError(
            f"{splits.path} lists no held-out case ('val') for fold {fold}; leave this fold out, or give other cases"
        )
    both = in_common(cases, splits.trained[int(fold)])
    if both:
        raise CalibUncertaintyError(
            f"{splits.path}: fold {fold} was trained on {named(both)}, which it lists as held out as well; give other cases"
        )
    validated = _validated(model, fold)
    strange = in_common(validated, splits.trained[int(fold)])
    if strange:
        raise CalibUncertaintyError(
            f"{splits.path} says that {named(strange)} trained fold {fold}, but nnU-Net validated it on them"
            f" ({model.path / f'fold_{fold}' / 'validation'}); give the splits_final.json of this training"
        )
    return cases


def _validated(model: ModelFolder, fold: Fold) -> list[str]:
    """The cases that nnU-Net segmented at the end of the training, because the fold had not seen them."""
    folder = model.path / f"fold_{fold}" / "validation"
    names = (path.name for path in folder.glob("*")) if folder.is_dir() else ()
    return sorted(case_name(name) for name in names if not name.endswith((".json", ".npz", ".pkl")))


def _case_of(name: str, folder: Path, content: dict, model: ModelFolder) -> LabelledCase:
    """The files of one case: named as nnU-Net names them, or listed in dataset.json."""
    listed = content.get("dataset")
    if isinstance(listed, dict):
        by_name = {same_name(case): files for case, files in listed.items()}
        files = by_name.get(same_name(name))
        images, labels = (files.get("images"), files.get("label")) if isinstance(files, dict) else (None, None)
        if not isinstance(images, list) or not images or not isinstance(labels, str):
            raise CalibUncertaintyError(
                f"{folder / 'dataset.json'}: 'dataset' has no 'images' and 'label' of {name}, which the splits name; copy it again"
            )
        ct, *further = (folder / os.path.expandvars(str(image)) for image in images)
        return LabelledCase(name, ct, folder / os.path.expandvars(labels), tuple(further))
    ending = content["file_ending"]
    ct, *further = (folder / "imagesTr" / f"{name}_{index:04d}{ending}" for index in range(len(model.channels)))
    return LabelledCase(name, ct, folder / "labelsTr" / f"{name}{ending}", tuple(further))


def _files_of(case: LabelledCase) -> list[ListedFile]:
    where = f"case {case.id}"
    images = [ListedFile(path, case.id, where, where) for path in case.channels]
    return [*images, ListedFile(case.labels, case.id, where, where, is_reference=True)]


def _refuse_equal_folds(members: MemberSet) -> None:
    if members.left_out:
        raise CalibUncertaintyError(
            f"{members.name_of(members.left_out[0])} holds the same weights as another checkpoint, so what its fold did not see may"
            " have trained it after all; choose folds of their own training"
        )


def _refuse_trained(ids: Sequence[str], members: MemberSet) -> None:
    """A last look, with what lies beside the models: the fold, and the first stage of a cascade, must not know these cases."""
    for stage in (members, members.before):
        seen = trained_on(ids, stage) if stage is not None else {}
        if seen:
            (_, fold), *_ = next(iter(seen.values()))
            raise CalibUncertaintyError(
                f"fold {fold} of {stage.models[0].path} was trained on {named(seen)}; give the splits_final.json of this training"
            )
