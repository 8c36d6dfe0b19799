"""`MemberSet`: which opinions are asked for, read without torch."""

from __future__ import annotations

import fnmatch
import numbers
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import CalibUncertaintyError
from .folder import FINAL_CHECKPOINT, Fold, ModelFolder
from .folder_check import label_numbers

FLIPS = ("off", "mean", "members")
MOST_SAMPLES = 10_000  # of dropout; our definition: a list of many more would fill the memory before the first pass
Source = tuple[int, Fold, str]  # model index, fold, checkpoint file name: one set of trained weights


@dataclass(frozen=True)
class MemberSet:
    """Which opinions are asked for: every combination of model, fold, checkpoint, flip and dropout sample.

    models, folds: the model folders and the folds of each. checkpoints: file names, in every fold the same. flips: "off", "mean"
    (nnU-Net's mirroring, averaged inside each member) or "members" (each flip is a member). dropout: samples a network with its
    dropout kept active, 0 for none; seed: of those samples. insert_dropout: rate in (0, 1) of dropout that is put into a network
    trained without it. left_out: sources that hold the same weights as one before them. before: the members of a cascade's first
    stage, whose labels these are shown; None where no model is a second stage. warnings: what was noticed while choosing.
    """

    models: tuple[ModelFolder, ...]
    folds: tuple[tuple[Fold, ...], ...]
    checkpoints: tuple[str, ...] = (FINAL_CHECKPOINT,)
    flips: str = "mean"
    dropout: int = 0
    seed: int = 0
    insert_dropout: float | None = None
    left_out: tuple[Source, ...] = ()
    before: MemberSet | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def choose(
        cls, models: ModelFolder | str | Path | Sequence[ModelFolder | str | Path], folds: str | Fold | Sequence[Fold] = "all",
        checkpoints: str | Sequence[str] | None = None, flips: str = "mean", dropout: int = 0, seed: int = 0,
        insert_dropout: float | None = None, previous: str | os.PathLike | None = None,
    ) -> MemberSet:  # fmt: skip
        """The set meant by these options.

        models: one or several trained folders with the same structures and channels; folds: "all" or a list, of each model.
        checkpoints: None for checkpoint_final.pth, file names, patterns such as "checkpoint_cycle*", or "all". previous: model
        folder of a cascade's first stage, where it does not lie beside the second's.
        Raises CalibUncertaintyError, one line naming the folder, fold, file or value that is wrong.
        """
        check_member_values(flips, dropout, seed, insert_dropout)
        given = [models] if isinstance(models, ModelFolder | str | Path) else list(models)
        opened = tuple(item if isinstance(item, ModelFolder) else ModelFolder.open(item) for item in given)
        if not opened:
            raise CalibUncertaintyError("no model was given; name at least one trained model folder")
        _check_models(opened)
        selected = tuple(tuple(model.select_folds(folds)) for model in opened)
        names = _checkpoint_names(opened, selected, checkpoints)
        chosen = cls(
            opened, selected, names, flips, int(dropout), int(seed), None if insert_dropout is None else float(insert_dropout),
            before=_first_stage(opened, selected, flips, previous),
            warnings=_folds_passed_over(opened) if folds == "all" else (),
        )  # fmt: skip
        twins = chosen._identical_files()
        return chosen.without(twins) if twins else chosen

    def sources(self) -> list[Source]:
        """(model index, fold, checkpoint file name) of every set of weights that is asked, in that order."""
        return [source for source in self._all_sources() if source not in self.left_out]

    def _all_sources(self) -> list[Source]:
        return [
            (index, fold, name) for index, folds in enumerate(self.folds) for fold in folds for name in self.checkpoints
        ]

    def path_of(self, source: Source) -> Path:
        """The checkpoint file of one source."""
        index, fold, name = source
        return self.models[index].checkpoint_path(fold, name)

    def without(self, duplicates: Iterable[Source] | dict[Source, Source]) -> MemberSet:
        """The set less sources whose weights equal another's; a mapping {duplicate: the one it equals} names both in the warning.

        Equal weights would count one opinion twice. Files tell only when they are equal byte by byte (`choose` looks); otherwise
        whoever loads the weights does.
        """
        pairs = duplicates if isinstance(duplicates, dict) else dict.fromkeys(duplicates)
        new = [source for source in pairs if source not in self.left_out]
        kept = {source[0] for source in self.sources() if source not in new}
        idle = [model.path for index, model in enumerate(self.models) if index not in kept]
        if idle:
            raise CalibUncertaintyError(
                f"{idle[0]} holds nothing but weights that other checkpoints hold too; leave this model folder out"
            )
        said = []
        for source in new:
            equal = (
                f"the same weights as {self.name_of(pairs[source])}"
                if pairs[source]
                else "the same weights as another one"
            )
            said.append(f"{self.name_of(source)} holds {equal} and is asked only once")
        return replace(self, left_out=(*self.left_out, *new), warnings=(*self.warnings, *said))

    def name_of(self, source: Source) -> str:
        """One source in words: fold_0/checkpoint_final.pth, with its model folder where there are several."""
        index, fold, name = source
        file = f"fold_{fold}/{name}"
        return file if len(self.models) == 1 else str(self.models[index].path / file)

    @property
    def mirroring(self) -> bool:
        """Whether flips are used at all, inside each member or as members."""
        return self.flips != "off"

    @property
    def least_members(self) -> int:
        """How many members there are at least: how many flips a model allows is known only from its checkpoint."""
        return len(self.sources()) * max(1, self.dropout) * (2 if self.flips == "members" else 1)

    def fingerprint(self) -> dict:
        """What a calibration record is tied to.

        As `ModelFolder.fingerprint` of the first model, with every source among "checkpoints"; keys are added only for what
        goes beyond folds of one model: "flips" (for members), "dropout" with "seed" and "insert_dropout", "models" (then each
        checkpoint has the index of its "model"), "previous" (a cascade's first stage), and "duplicates" (what was left out).
        """
        document = self.models[0].fingerprint([])
        document["checkpoints"] = [self._hashed(source) for source in self.sources()]
        return document | self._beyond_folds()

    def as_recorded(self) -> dict:
        """The "members" of a calibration entry."""
        return {
            "folds": list(dict.fromkeys(fold for _, fold, _ in self.sources())),
            "checkpoint": ", ".join(dict.fromkeys(name for _, _, name in self.sources())),
            "checkpoints": [self._hashed(source) for source in self.sources()],
            "mirroring": self.mirroring,
            **self._beyond_folds(),
        }

    def _beyond_folds(self) -> dict:
        added: dict = {"flips": self.flips} if self.flips == "members" else {}
        if self.dropout:
            added |= {"dropout": self.dropout, "seed": self.seed}
            if self.insert_dropout is not None:
                added["insert_dropout"] = self.insert_dropout
        if len(self.models) > 1:
            keys = ("name", "configuration", "trainer", "plans_sha256", "dataset_sha256")
            added["models"] = [{key: model.fingerprint([])[key] for key in keys} for model in self.models]
        if self.before is not None:
            first = self.before.fingerprint()
            added["previous"] = {key: first[key] for key in ("plans_sha256", "checkpoints", "previous") if key in first}
        if self.left_out:
            added["duplicates"] = [self._hashed(source) for source in self.left_out]
        return added

    def _hashed(self, source: Source) -> dict:
        index, fold, name = source
        found = self.models[index].fingerprint([fold], name)["checkpoints"][0]
        return {"model": index, **found} if len(self.models) > 1 else found

    def training_cases(self) -> dict[tuple[int, Fold], list[str] | None]:
        """Identifiers of the cases that each (model index, fold) in use was trained on; None where that is not known."""
        used = dict.fromkeys((index, fold) for index, fold, _ in self.sources())
        return {(index, fold): self.models[index].training_cases(fold) for index, fold in used}

    def to_json(self) -> dict:
        """As it stands in result.json."""
        return {
            "models": [{"name": model.name, "folder": str(model.path)} for model in self.models],
            "folds": [list(folds) for folds in self.folds],
            "checkpoints": list(self.checkpoints),
            "flips": self.flips,
            "dropout": self.dropout,
            "seed": self.seed,
            "insert_dropout": self.insert_dropout,
            "left_out": [{"model": index, "fold": fold, "checkpoint": name} for index, fold, name in self.left_out],
        }

    def describe(self) -> str:
        """In words: "folds 0, 1 and 2, 3 checkpoints each, each flip a member, 20 dropout samples (seed 0)"."""
        parts = [folds_in_words(self.folds[0])]
        if len(self.models) > 1:
            named = (f"{folds_in_words(f)} of {m.path.name}" for m, f in zip(self.models, self.folds, strict=True))
            parts = [f"{len(self.models)} models ({'; '.join(named)})"]
        if len(self.checkpoints) > 1:
            parts.append(f"{len(self.checkpoints)} checkpoints each ({', '.join(self.checkpoints)})")
        elif self.checkpoints != (FINAL_CHECKPOINT,):
            parts.append(self.checkpoints[0])
        if self.left_out:
            count = len(self.left_out)
            parts.append(f"{count} of them left out as {'a duplicate' if count == 1 else 'duplicates'}")
        if self.flips != "mean":
            parts.append("no flips" if self.flips == "off" else "each flip a member")
        if self.dropout:
            inserted = "" if self.insert_dropout is None else f", inserted with rate {self.insert_dropout:g}"
            samples = "sample" if self.dropout == 1 else "samples"
            parts.append(f"{self.dropout} dropout {samples} (seed {self.seed}{inserted})")
        if self.before is not None:
            parts.append(f"shown the labels of {self.before.models[0].configuration} ({self.before.describe()})")
        return ", ".join(parts)

    def _identical_files(self) -> dict[Source, Source]:
        """Sources whose files equal an earlier one's byte by byte, each with that one. Only files of equal size are read.

        The same weights behind other plans (another voxel size or normalisation) are another opinion and stay.
        """
        sources = self._all_sources()
        by_size: dict[int, list[Source]] = {}
        for source in sources:
            by_size.setdefault(_size_of(self.path_of(source)), []).append(source)
        twins: dict[Source, Source] = {}
        for alike in by_size.values():
            first: dict[tuple[str, str, str], Source] = {}
            for source in alike if len(alike) > 1 else ():
                model = self.models[source[0]]
                what = (model.plans_digest(), model.configuration, self._hashed(source)["sha256"])
                earlier = first.setdefault(what, source)
                if earlier != source:
                    twins[source] = earlier
        return twins


def folds_in_words(folds: Sequence[Fold]) -> str:
    """ "fold 0", "folds 0 and 1", "folds 0, 1 and 2"."""
    names = [str(fold) for fold in folds]
    return f"fold {names[0]}" if len(names) == 1 else f"folds {', '.join(names[:-1])} and {names[-1]}"


def check_member_values(flips: str, dropout: int, seed: int, insert_dropout: float | None) -> None:
    """Refuse, in one line naming the value, what no member set can be made with."""
    if flips not in FLIPS:
        raise CalibUncertaintyError(f"flips '{flips}' is unknown; choose {', '.join(FLIPS[:-1])} or {FLIPS[-1]}")
    for name, value, meaning in (("dropout", dropout, "samples"), ("seed", seed, "the seed")):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
            raise CalibUncertaintyError(f"{name} ({meaning}) must be a whole number from 0 up, got {value!r}")
    if dropout > MOST_SAMPLES:
        raise CalibUncertaintyError(f"dropout (samples) must be {MOST_SAMPLES:,} at most, got {dropout}")
    if seed >= 2**63:
        raise CalibUncertaintyError(f"seed must be below 2 to the power of 63, got {seed}")
    if insert_dropout is None:
        return
    is_number = isinstance(insert_dropout, numbers.Real) and not isinstance(insert_dropout, bool)
    if not is_number or not 0 < insert_dropout < 1:
        raise CalibUncertaintyError(f"the rate of inserted dropout must lie between 0 and 1, got {insert_dropout!r}")
    if not dropout:
        raise CalibUncertaintyError(
            "inserting dropout does nothing without dropout samples; say how many, as in --dropout 20"
        )


def _check_models(models: Sequence[ModelFolder]) -> None:
    """Refuse the same folder twice, and folders that do not name the same structures, numbers and channels."""
    seen: set[str] = set()
    for model in models:
        place = os.path.realpath(model.path)
        if place in seen:
            raise CalibUncertaintyError(f"the model folder {model.path} is listed twice; list each once")
        seen.add(place)
    first = models[0]
    for other in models[1:]:
        problem = _difference(first, other)
        if problem:
            raise CalibUncertaintyError(
                f"{first.path} and {other.path} cannot be asked together: {problem}; choose models of the same structures"
            )


def _folds_passed_over(models: Sequence[ModelFolder]) -> tuple[str, ...]:
    """A warning for every numbered fold folder that "all" does not mean, because its training has not ended or is not copied."""
    said = []
    for model in models:
        numbers = (
            int(found.name[5:]) for found in model.path.glob("fold_*") if re.fullmatch("fold_[0-9]+", found.name)
        )
        for number in sorted(number for number in set(numbers) if (model.path / f"fold_{number}").is_dir()):
            if not model.checkpoint_path(number).is_file():
                name = f"fold_{number}" if len(models) == 1 else str(model.path / f"fold_{number}")
                said.append(f"{name} has no {FINAL_CHECKPOINT} and is not asked")
    return tuple(said)


def _first_stage(
    models: Sequence[ModelFolder], folds: Sequence[Sequence[Fold]], flips: str, previous: str | os.PathLike | None
) -> MemberSet | None:
    """The members of a cascade's first stage: the folds asked of the second where it has all of them, else all that it has."""
    cascades = [
        (model, of_model) for model, of_model in zip(models, folds, strict=True) if model.previous_stage is not None
    ]
    if not cascades:
        if previous is not None:
            raise CalibUncertaintyError(
                f"{models[0].name} ({models[0].configuration}) is no second stage of a cascade; leave --previous out"
            )
        return None
    found = [model.previous_model(previous) for model, _ in cascades]
    for (model, _), other in zip(cascades, found, strict=True):
        if os.path.realpath(other.path) != os.path.realpath(found[0].path):
            raise CalibUncertaintyError(
                f"{cascades[0][0].path} and {model.path} have first stages of their own; ask these models one at a time, or name"
                " one first stage for all with --previous DIR"
            )
    wanted = list(dict.fromkeys(fold for _, of_model in cascades for fold in of_model))
    has_all = all(found[0].checkpoint_path(fold).is_file() for fold in wanted)
    return MemberSet.choose(found[0], wanted if has_all else "all", flips="off" if flips == "off" else "mean")


def _difference(first: ModelFolder, other: ModelFolder) -> str:
    mine, theirs = _numbered(first), _numbered(other)
    for name in [*mine, *theirs]:
        if name not in theirs:
            return f"the second does not have {name}"
        if name not in mine:
            return f"only the second has {name}"
        if mine[name] != theirs[name]:
            return f"{name} is {_shown(mine[name])} in one and {_shown(theirs[name])} in the other"
    orders = [list(model.dataset.get("regions_class_order") or ()) for model in (first, other)]
    if first.has_regions and orders[0] != orders[1]:
        return f"their regions_class_order is {orders[0]} in one and {orders[1]} in the other"
    if first.has_regions and list(mine) != list(theirs):
        return "they list their regions in another order"
    if first.channels != other.channels:
        return f"the first wants {', '.join(first.channels)} as input, the second {', '.join(other.channels)}"
    return ""


def _numbered(model: ModelFolder) -> dict[str, tuple]:
    """Every label with its number or, for a region, its numbers. "ignore" has no head: training alone knows it."""
    return label_numbers({name: value for name, value in model.dataset["labels"].items() if name != "ignore"})


def _shown(numbers_of_label: tuple) -> str:
    return " and ".join("no whole number" if number is None else str(number) for number in numbers_of_label)


def _checkpoint_names(
    models: Sequence[ModelFolder], folds: Sequence[Sequence[Fold]], wanted: str | Sequence[str] | None
) -> tuple[str, ...]:
    """The file names meant, in one order whatever order they were given in: checkpoint_final first, then by name and number."""
    if wanted is None:
        return (FINAL_CHECKPOINT,)
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    if not asked or not all(isinstance(item, str) and item and not re.search(r"[/\\]", item) for item in asked):
        raise CalibUncertaintyError(
            f"checkpoints must be file names such as {FINAL_CHECKPOINT}, patterns such as checkpoint_cycle*, or all; got {wanted!r}"
        )
    if "all" in asked and len(asked) > 1:
        raise CalibUncertaintyError("checkpoints: give file names and patterns, or all, not both")
    there = {
        model.path / f"fold_{fold}": model.checkpoints(fold)
        for model, of_model in zip(models, folds, strict=True)
        for fold in of_model
    }
    everywhere = list(dict.fromkeys(name for inside in there.values() for name in inside))
    names: list[str] = []
    for item in asked:
        pattern = "*" if item == "all" else item
        is_pattern = any(sign in pattern for sign in "*?[")
        found = [name for name in everywhere if fnmatch.fnmatchcase(name, pattern)] if is_pattern else [item]
        if not found:
            folder, inside = next(iter(there.items()))
            raise CalibUncertaintyError(f"{folder} has no checkpoint {item}; it has: {', '.join(inside) or 'none'}")
        doubled = [name for name in found if name in names]
        if doubled:
            raise CalibUncertaintyError(f"the checkpoint {doubled[0]} is listed twice; list each once")
        names += found
    for folder, inside in there.items():
        missing = [name for name in names if name not in inside]
        if missing:
            raise CalibUncertaintyError(
                f"{folder} has no checkpoint {', '.join(missing)}; it has: {', '.join(inside) or 'none'}. Choose checkpoints that"
                " every fold has, or other folds"
            )
    order = next(iter(there.values()))  # holds every name by now
    return tuple(sorted(names, key=order.index))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); copy the model folder again") from error
