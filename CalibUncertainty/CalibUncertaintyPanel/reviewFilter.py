"""Which places of the list are shown: a filter that never hides anything silently. Plain data: neither Qt nor MRML."""

from dataclasses import dataclass

from slicer.i18n import tr as _

from . import reviewWords as words


@dataclass(frozen=True)
class ReviewFilter:
    """leastChance: chance to be a real error, 0..1; places below it are hidden, those without a known chance never.

    kind, structure: show only these; "" shows all. Places near no structure have the structure `words.NONE`.
    """

    leastChance: float = 0.0
    kind: str = ""
    structure: str = ""

    def passes(self, region):
        """Whether a `Region` is shown."""
        chance = words.chanceOf(region)
        return (
            (chance is None or chance >= self.leastChance)
            and self.kind in ("", region.kind)
            and self.structure in ("", structureOf(region))
        )


def structureOf(region):
    """Structure of a region as the table has it."""
    return region.structure or words.NONE


def kindsOf(regions):
    """Kinds that occur, in the order of `words.KINDS`."""
    found = {region.kind for region in regions}
    return [kind for kind in words.KINDS if kind in found] + sorted(found - set(words.KINDS))


def structuresOf(regions):
    """Structures that occur, from A; `words.NONE` last."""
    return sorted({structureOf(region) for region in regions}, key=lambda name: (name == words.NONE, name.casefold()))


def hiddenSentence(hidden, decisions):
    """What the list does not show, in one sentence; "" where it shows all.

    :param hidden: `Region`s that are not shown.
    :param decisions: `ReviewDecisions` on all.
    """
    if not hidden:
        return ""
    text = _("{hidden} of {count} hidden").format(hidden=len(hidden), count=len(decisions.regions))
    unseen = sum(not decisions.of(region.id).isMade for region in hidden)
    return text + _(", {unseen} of them not looked at.").format(unseen=unseen)
