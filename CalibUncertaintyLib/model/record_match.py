"""Whether a calibration entry was made for exactly the members of a run, and in words what differs.

Nothing is guessed: a temperature holds for the weights, plans, flips, dropout, step size and precision that it was fitted with and
for no others. In which order several models are named makes no difference to what they say together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

# Keys of an entry's "members" that are there only for what goes beyond folds of one model, computed as nnU-Net does
BEYOND_FOLDS = (
    "flips", "dropout", "seed", "insert_dropout", "models", "previous", "duplicates", "step_size", "precision",
)  # fmt: skip
STEP_SIZE, PRECISION = 0.5, "stock"  # nnU-Net's own, which a record does not name


def goes_beyond_folds(members: Mapping) -> bool:
    """Whether a program that knows folds of one model only would take these members for others."""
    folds = [str(item["fold"]) for item in members["checkpoints"]]
    return len(set(folds)) < len(folds) or any(key in members for key in BEYOND_FOLDS)


def computing(step_size: float = STEP_SIZE, precision: str = PRECISION) -> dict:
    """How the logits are computed, as it stands among an entry's members and in a fingerprint: only what is not nnU-Net's own."""
    found: dict = {} if step_size == STEP_SIZE else {"step_size": float(step_size)}
    return found if precision == PRECISION else found | {"precision": str(precision)}


def key_of(members: Mapping, mode: str) -> tuple:
    """What one entry of a record is told from another by; weights trained anew under the same names replace the old.

    Of several models the weights belong to it: file names do not tell these models apart.
    """
    files = [_file(item, members) for item in members["checkpoints"]]
    files = sorted(files if members.get("models") else [file[:-1] for file in files])
    return files, _flips(members, members["mirroring"]), _dropout(members), _computing(members), mode


def same_folds(members: Mapping, wanted: Mapping) -> bool:
    """Whether the same folds are asked, in whatever order. wanted: a fingerprint."""
    return set(map(str, folds_of(members))) == set(map(str, folds_of(wanted, members)))


def folds_of(members: Mapping, other: Mapping | None = None) -> list:
    """The folds of an entry's members, or of a fingerprint less what `other` knows as duplicates."""
    return list(dict.fromkeys(item["fold"] for item in _less_duplicates(members, other or {})))


def difference(members: Mapping, wanted: Mapping, mirroring: bool) -> list[str]:
    """What tells an entry's members from those of a run: one sentence a kind, each empty where they agree."""
    return [
        _other_models(members, wanted),
        _other_weights(members, wanted),
        _other_first_stage(members.get("previous"), wanted.get("previous")),
        _other_flips(_flips(members, members["mirroring"]), _flips(wanted, mirroring)),
        _other_dropout(_dropout(members), _dropout(wanted)),
        *_other_computing(_computing(members), _computing(wanted)),
    ]


def _less_duplicates(members: Mapping, other: Mapping) -> list[Mapping]:
    """Checkpoints less those that only the other side found to hold the same weights as one of the rest."""
    surplus, kept = _duplicates(other) - _duplicates(members), []
    for item in members["checkpoints"]:
        file = _file(item, members)
        if surplus[file] > 0:
            surplus[file] -= 1
        else:
            kept.append(item)
    return kept


def _duplicates(members: Mapping) -> Counter:
    return Counter(_file(item, members) for item in members.get("duplicates", ()))


def _file(item: Mapping, members: Mapping) -> tuple:
    """A checkpoint and the plans it is asked with; its model is known by these, not by its place in the list of models."""
    return *_plans(_model_of(item, members)), str(item["fold"]), item["checkpoint"], item["sha256"]


def _model_of(item: Mapping, members: Mapping) -> Mapping:
    models = members.get("models", ())
    return models[item.get("model", 0)] if models else {}


def _plans(model: Mapping) -> tuple[str, str]:
    return str(model.get("configuration", "")), str(model.get("plans_sha256", ""))


def _other_models(members: Mapping, wanted: Mapping) -> str:
    mine, theirs = members.get("models", ()), wanted.get("models", ())
    if len(mine) != len(theirs):
        return f"the record was made for {_models_in_words(mine)}, and this run asks {_models_in_words(theirs)}"
    asked, stored = _unmatched(theirs, mine), _unmatched(mine, theirs)
    if not asked:
        return ""
    model = asked[0]
    same_name = [other for other in stored if other["name"] == model["name"]]
    if not same_name:
        return f"the record was made with {stored[0]['name']}, and this run asks {model['name']} in its place"
    made = next((other for other in same_name if _plans(other)[0] == _plans(model)[0]), same_name[0])
    if _plans(made)[0] != _plans(model)[0]:
        return (
            f"the record was made with the configuration {_plans(made)[0]} of {model['name']}, and this run asks its"
            f" {_plans(model)[0]}"
        )
    return f"{_model_in_words(model)} has other plans (plans.json) than when this record was made"


def _unmatched(models: Sequence[Mapping], others: Sequence[Mapping]) -> list[Mapping]:
    """The models less those that have their match, of the same configuration and plans, among the others; in any order."""
    left, found = Counter(map(_plans, others)), []
    for model in models:
        if left[_plans(model)] > 0:
            left[_plans(model)] -= 1
        else:
            found.append(model)
    return found


def _models_in_words(models: Sequence[Mapping]) -> str:
    if not models:
        return "one model folder"
    return f"{len(models)} model folders together ({', '.join(str(model['name']) for model in models)})"


def _model_in_words(model: Mapping) -> str:
    """ "Dataset1_X (nnUNetTrainer, 3d_fullres)": several models often have a dataset, and so a name, in common."""
    more = [str(model[key]) for key in ("trainer", "configuration") if model.get(key)]
    return f"{model['name']} ({', '.join(more)})" if more else str(model["name"])


def _other_weights(members: Mapping, wanted: Mapping) -> str:
    stored, asked = _less_duplicates(members, wanted), _less_duplicates(wanted, members)
    mine, theirs = [_file(item, members) for item in stored], [_file(item, wanted) for item in asked]
    if sorted(mine) == sorted(theirs):
        return ""
    for item, file in zip(asked, theirs, strict=True):
        if theirs.count(file) <= mine.count(file):
            continue
        model = _model_of(item, wanted)
        of_model = f" of {_model_in_words(model)}" if model else ""
        if any(other[:-1] == file[:-1] for other in mine):
            return (
                f"fold {item['fold']}'s weights (fold_{item['fold']}/{item['checkpoint']}){of_model} "
                "are not the ones this record was made with"
            )
        of_fold = [other[-2] for other in mine if other[:-2] == file[:-2]]
        if len(of_fold) == 1 and len([other for other in theirs if other[:-2] == file[:-2]]) == 1:
            return f"the record was made with fold {item['fold']}'s {of_fold[0]}{of_model}, not with its {item['checkpoint']}"
        return f"the record was made without fold {item['fold']}'s {item['checkpoint']}{of_model}, which this run uses"
    for item, file in zip(stored, mine, strict=True):
        if mine.count(file) > theirs.count(file):
            model = _model_of(item, members)
            of_model = f" of {_model_in_words(model)}" if model else ""
            return (
                f"the record was made with fold {item['fold']}'s {item['checkpoint']}{of_model} too, which this run does not"
                " use"
            )
    return ""


def _other_first_stage(made: Mapping | None, asked: Mapping | None) -> str:
    """Of a cascade: what its first stage says is an input of the second."""
    if made is None or asked is None:
        return (
            ""
            if made is asked
            else "the record was made for another kind of model (one of them is a cascade's second stage)"
        )
    if made["plans_sha256"] != asked["plans_sha256"]:
        return "the first stage of the cascade has other plans than the one this record was made with"
    if not same_folds(made, asked):
        return (
            f"the record was made with {folds_together(folds_of(made))} of the cascade's first stage, not with"
            f" {folds_together(folds_of(asked))}"
        )
    if _other_weights(made, asked):
        return f"of the cascade's first stage: {_other_weights(made, asked)}"
    return _other_first_stage(made.get("previous"), asked.get("previous"))


def _flips(members: Mapping, mirroring: bool) -> str:
    return str(members.get("flips") or ("mean" if mirroring else "off"))


def _other_flips(made: str, asked: str) -> str:
    if made == asked:
        return ""
    words = {"off": "without mirroring", "mean": "with mirroring", "members": "with each flip as a member"}
    if asked == "off":
        return f"the record was made {words[made]}, and this run is without it"
    if (made, asked) == ("off", "mean"):
        return "the record was made without mirroring, and this run is with it"
    return f"the record was made {words[made]}, and this run is {words[asked]}"


def _dropout(members: Mapping) -> tuple[int, int, float | None]:
    samples = int(members.get("dropout") or 0)
    return (samples, int(members.get("seed") or 0), members.get("insert_dropout")) if samples else (0, 0, None)


def _other_dropout(made: tuple, asked: tuple) -> str:
    if made == asked:
        return ""
    return f"the record was made {_dropout_in_words(*made)}, and this run is {_dropout_in_words(*asked)}"


def _dropout_in_words(samples: int, seed: int, inserted: float | None) -> str:
    if not samples:
        return "without dropout"
    rate = "" if inserted is None else f", inserted with rate {inserted:g}"
    return f"with {samples} dropout sample{'' if samples == 1 else 's'} (seed {seed}{rate})"


def _computing(members: Mapping) -> tuple[float, str]:
    return float(members.get("step_size") or STEP_SIZE), str(members.get("precision") or PRECISION)


def _other_computing(made: tuple[float, str], asked: tuple[float, str]) -> list[str]:
    """What differs in the step size, and what in the precision; stock precision has no name that anyone writes."""
    steps = precision = ""
    if made[0] != asked[0]:
        steps = f"the record was made with --step-size {made[0]:g}, and this run is with --step-size {asked[0]:g}"
    if made[1] != asked[1] and made[1] == PRECISION:
        precision = f"the record was made without --precision {asked[1]}, and this run is with it"
    elif made[1] != asked[1]:
        this_run = "without it" if asked[1] == PRECISION else f"with --precision {asked[1]}"
        precision = f"the record was made with --precision {made[1]}, and this run is {this_run}"
    return [steps, precision]


def folds_together(folds: Sequence) -> str:
    """ "fold 0 alone", "folds 0, 1 and 2 together"."""
    names = [str(fold) for fold in folds]
    if len(names) == 1:
        return f"fold {names[0]} alone"
    return f"folds {', '.join(names[:-1])} and {names[-1]} together"


def in_words(members: Mapping) -> str:
    """An entry's members: "folds 0, 1 and 2 together, 6 checkpoints, each flip a member", or the folds alone."""
    parts = [folds_together(members["folds"])]
    if members.get("models"):
        parts.append(f"{len(members['models'])} model folders")
    if len(members["checkpoints"]) > len(members["folds"]):
        parts.append(f"{len(members['checkpoints'])} checkpoints")
    if members.get("flips") == "members":
        parts.append("each flip a member")
    if members.get("dropout"):
        parts.append(_dropout_in_words(*_dropout(members)).removeprefix("with "))
    step_size, precision = _computing(members)
    if step_size != STEP_SIZE:
        parts.append(f"step size {step_size:g}")
    if precision != PRECISION:
        parts.append(f"precision {precision}")
    return ", ".join(parts)
