"""Whether a calibration entry was made for exactly the members of a run, and in words what differs.

Nothing is guessed: a temperature holds for the weights, flips and dropout that it was fitted with and for no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Keys of an entry's "members" that are there only for what goes beyond folds of one model
BEYOND_FOLDS = ("flips", "dropout", "seed", "insert_dropout", "models", "previous", "duplicates")


def goes_beyond_folds(members: Mapping) -> bool:
    """Whether a program that knows folds of one model only would take these members for others."""
    folds = [str(item["fold"]) for item in members["checkpoints"]]
    return len(set(folds)) < len(folds) or any(key in members for key in BEYOND_FOLDS)


def key_of(members: Mapping, mode: str) -> tuple:
    """What one entry of a record is told from another by; weights trained anew under the same names replace the old."""
    models = members.get("models", ())
    files = sorted((item.get("model", 0), str(item["fold"]), item["checkpoint"]) for item in members["checkpoints"])
    weights = sorted(item["sha256"] for item in members["checkpoints"]) if models else []
    return files, weights, _flips(members, members["mirroring"]), _dropout(members), mode


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
    ]


def _less_duplicates(members: Mapping, other: Mapping) -> list[Mapping]:
    """Checkpoints less those that the other side found to hold the same weights as one of the rest."""
    left_out = [_file(item) for item in other.get("duplicates", ())]
    return [item for item in members["checkpoints"] if _file(item) not in left_out]


def _file(item: Mapping) -> tuple:
    return str(item["fold"]), item["checkpoint"], item["sha256"]


def _other_models(members: Mapping, wanted: Mapping) -> str:
    mine, theirs = members.get("models", ()), wanted.get("models", ())
    if len(mine) == len(theirs):
        return ""
    return f"the record was made for {_models_in_words(mine)}, and this run asks {_models_in_words(theirs)}"


def _models_in_words(models: Sequence[Mapping]) -> str:
    if not models:
        return "one model folder"
    return f"{len(models)} model folders together ({', '.join(str(model['name']) for model in models)})"


def _other_weights(members: Mapping, wanted: Mapping) -> str:
    stored, asked = _less_duplicates(members, wanted), _less_duplicates(wanted, members)
    mine, theirs = [_file(item) for item in stored], [_file(item) for item in asked]
    if sorted(mine) == sorted(theirs):
        return ""
    for item in asked:
        if theirs.count(_file(item)) <= mine.count(_file(item)):
            continue
        same_file = [other for other in stored if _file(other)[:2] == _file(item)[:2]]
        if same_file:
            return (
                f"fold {item['fold']}'s weights (fold_{item['fold']}/{item['checkpoint']}) "
                "are not the ones this record was made with"
            )
        of_fold = [other["checkpoint"] for other in stored if str(other["fold"]) == str(item["fold"])]
        if len(of_fold) == 1 and len([other for other in asked if str(other["fold"]) == str(item["fold"])]) == 1:
            return f"the record was made with fold {item['fold']}'s {of_fold[0]}, not with its {item['checkpoint']}"
        return f"the record was made without fold {item['fold']}'s {item['checkpoint']}, which this run uses"
    for item in stored:
        if mine.count(_file(item)) > theirs.count(_file(item)):
            return (
                f"the record was made with fold {item['fold']}'s {item['checkpoint']} too, which this run does not use"
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
    return ", ".join(parts)
