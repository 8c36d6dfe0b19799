"""How far the members' own segmentations agree, counted once at the end of a run, or window by window of a labelled case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..inference.member_labels import MOST_REGIONS, MemberLabels, codes_of
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


def agreement_of(labels: MemberLabels | None, counts: AgreementCounts) -> MemberAgreement:
    """What was counted, and what was kept of the members' labels, if anything, counted cell by cell."""
    for codes, times in labels.pieces() if labels is not None else ():
        counts.add(codes, times)
    return counts.counted()


def counts_of_members(n_members: int, heads: Heads) -> AgreementCounts | None:
    """Counts that are still empty; None where these members are not compared. Of a model with regions each region is a structure,
    overlaps and all."""
    if agreement_status(n_members, heads) != "ok":
        return None
    return AgreementCounts(n_members, heads.values, regions=heads.sigmoid)


def count_members(counts: AgreementCounts, logits: Sequence[np.ndarray], heads: Heads) -> None:
    """Count a window, of which every member's logits (C, ...) are known."""
    import torch

    codes = [codes_of(torch.from_numpy(np.ascontiguousarray(of_member)), heads.sigmoid).ravel() for of_member in logits]
    counts.add(np.stack(codes))
