"""Which measures a run computes: those that were asked for, of those that its members can give."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CalibUncertaintyError
from ..uncertainty.context_law import ContextLaw
from ..uncertainty.disagreement import NEEDS
from ..uncertainty.measures import MEASURES
from .context_maps import CONTEXT, context_names

# What costs next to nothing beside the rest of a run: `var` takes one more value a voxel of the members, the others none.
_CHEAP = ("conf", "margin", "entropy", "exp_entropy", "mi", "var")
# What `maps.measure_values` computes; entropy_k is derived when a Result is read.
OF_VOXELS = (*_CHEAP, "epkl", "rmi", "varratio")
# With the two that know about their surroundings, of those forms that are meant to be read
STANDARD = (*_CHEAP, "dae", "ebcu")
ALL = (*OF_VOXELS, *CONTEXT)
GROUPS = ("standard", "all")


def measure_names(n_members: int, asked: str | Sequence[str] = "all", also: Sequence[str] = ()) -> list[str]:
    """The measures that are computed, in the catalogue's order.

    n_members: how many there are; what they cannot give is left out. asked: "standard", "all", or identifiers. also: identifiers
    that are computed whatever was asked for.
    """
    return [name for name in _wanted(asked, also) if name in OF_VOXELS and MEASURES[name].status(n_members) == "ok"]


def context_measure_names(
    law: ContextLaw | None, asked: str | Sequence[str] = "all", also: Sequence[str] = ()
) -> list[str]:
    """The measures that need the finished label map, of those that were asked for; some can be had only where the law is known."""
    return context_names(_wanted(asked, also), law)


def _wanted(asked: str | Sequence[str], also: Sequence[str]) -> list[str]:
    wanted = {"standard": STANDARD, "all": ALL}[asked] if isinstance(asked, str) else asked
    return [name for name in MEASURES if name in wanted or name in also]


def extras_of(names: Sequence[str]) -> tuple[str, ...]:
    """What these measures need of the members beside mean probability and mean entropy; see `disagreement.NEEDS`."""
    return tuple(dict.fromkeys(NEEDS[name] for name in names if name in NEEDS))


def values_of_extras(extras: Sequence[str], channels: int, sigmoid: bool) -> int:
    """How many numbers a voxel the extras take."""
    each = {"squares": 1, "log_probabilities": channels * (2 if sigmoid else 1), "votes": channels}
    return sum(each[name] for name in extras)


def rule_of(measures: object) -> tuple[bool, str]:
    """Whether an option `measures` is one, and what to say where it is not, for `options.refuse_first`."""
    if isinstance(measures, str):
        unknown = None if measures in GROUPS else measures
    elif isinstance(measures, list | tuple):
        unknown = next((name for name in measures if name not in ALL), None)
    else:
        unknown = measures
    return unknown is None, (
        f"measures {unknown!r} is unknown; choose standard, all, or a list of some of {', '.join(ALL)}"
    )


def refuse_without_law(names: Sequence[str], law: ContextLaw | None) -> None:
    """Raise CalibUncertaintyError for the first of these measures that needs to know what is usual, where that is not known."""
    for name in names:
        if MEASURES[name].stage == "context" and not context_names([name], law):
            raise CalibUncertaintyError(
                f"{name} compares with what is usual in calibration cases, and the calibration in use does not say; calibrate the"
                " model, or choose ebcu_self, dae or another measure"
            )


def refuse_without_members(names: Sequence[str], n_members: int) -> None:
    """Raise CalibUncertaintyError for the first of these measures that so few members cannot give."""
    for name in names:
        if MEASURES[name].status(n_members) != "ok":
            raise CalibUncertaintyError(
                f"{name} compares several members and only one is used; choose more folds, checkpoints, flips or dropout"
                " samples as members, or another measure"
            )
