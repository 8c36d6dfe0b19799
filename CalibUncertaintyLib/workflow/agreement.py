"""How far the members' own segmentations agree, counted once at the end of a run."""

from __future__ import annotations

from ..inference.member_labels import MOST_REGIONS, MemberLabels
from ..model.heads import Heads
from ..uncertainty.member_agreement import AgreementCounts, MemberAgreement

MOST_COUNTS = 4_000_000  # of pairs and structures, 32 MB: 400 members of 25 structures


def agreement_status(n_members: int, heads: Heads) -> str:
    """Whether the members' labels are compared: "ok", "single_member", "too_many_members", or "too_many_regions"."""
    if n_members < 2:
        return "single_member"
    if heads.sigmoid and heads.channels > MOST_REGIONS:
        return "too_many_regions"
    return "ok" if n_members**2 * len(heads.names) <= MOST_COUNTS else "too_many_members"


def agreement_of(labels: MemberLabels, heads: Heads) -> MemberAgreement:
    """What was kept of the members, counted cell by cell. Of a model with regions each region is a structure, overlaps and all."""
    counts = AgreementCounts(labels.members, heads.values, regions=heads.sigmoid)
    for codes, times in labels.pieces():
        counts.add(codes, times)
    return counts.counted()
